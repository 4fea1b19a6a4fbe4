//! Changing a stack that runs: how many of what, and restarts.

use std::{fmt, fs, path::Path, str::FromStr, time::Duration};

use nix::sys::signal::Signal;

use super::{
    PortWishes, UpError, WorkerKind,
    binaries::Sections,
    folder::Folder,
    parts,
    settings::{self, Overrides},
    stack::{COORDINATOR, Stack},
    start::wait_ready,
};

/// How long the parts may take to become ready, those that drain before among them.
const TIMEOUT: Duration = Duration::from_secs(300);
/// Most processes of a kind.
const MOST_WORKERS: u16 = 64;
const MOST_COORDINATORS: u16 = 16;

/// A service of which there can be several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scalable {
    /// Workers of a kind.
    Worker(WorkerKind),
    /// One leads, the others stand by.
    Coordinator,
}

impl FromStr for Scalable {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            COORDINATOR => Ok(Self::Coordinator),
            name => name.parse().map(Self::Worker).map_err(|error: String| format!("{error}, or {COORDINATOR}")),
        }
    }
}

impl fmt::Display for Scalable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Worker(kind) => kind.fmt(f),
            Self::Coordinator => f.write_str(COORDINATOR),
        }
    }
}

impl Scalable {
    fn check(self, count: u16) -> Result<(), UpError> {
        let (least, most) = match self {
            Self::Worker(_) => (0, MOST_WORKERS),
            Self::Coordinator => (1, MOST_COORDINATORS),
        };
        if (least..=most).contains(&count) {
            return Ok(());
        }
        Err(UpError::Usage(format!("{self}: {count} is not a number from {least} to {most}")))
    }

    fn count(self, stack: &Stack) -> u16 {
        match self {
            Self::Worker(kind) => stack.workers.get(&kind).copied().unwrap_or(0),
            Self::Coordinator => stack.coordinators,
        }
    }
}

/// What scaling changed, or would change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Scaled {
    /// How many there were.
    pub before: u16,
    /// Processes that start.
    pub starts: Vec<String>,
    /// Processes that drain and stop; workers, when the coordinators change, start again.
    pub stops: Vec<String>,
}

/// Has a running stack have `count` processes of a service. Those that are too many finish what they have in hand first.
/// Returns when all others are ready.
///
/// # Errors
/// [`UpError::NoStack`], [`UpError::Usage`] when the stack does not run or the number is out of range, and
/// [`UpError::NotReady`].
pub(crate) async fn scale(
    data: &Path,
    service: Scalable,
    count: u16,
    dry_run: bool,
    progress: &mut (dyn FnMut(&str) + Send),
) -> Result<Scaled, UpError> {
    service.check(count)?;
    let folder = Folder::of_stack(data)?;
    let old = running(&folder)?;
    let mut new = old.clone();
    match service {
        Scalable::Worker(kind) => drop(new.workers.insert(kind, count)),
        Scalable::Coordinator => new.coordinators = count,
    }
    let scaled = difference(&old, &new, service);
    if !dry_run && old != new {
        change(&folder, progress, |stack| match service {
            Scalable::Worker(kind) => drop(stack.workers.insert(kind, count)),
            Scalable::Coordinator => stack.coordinators = count,
        })
        .await?;
    }
    Ok(scaled)
}

fn difference(old: &Stack, new: &Stack, service: Scalable) -> Scaled {
    let names = |stack: &Stack| stack.instances().into_iter().map(|instance| instance.name).collect::<Vec<_>>();
    let (before, after) = (names(old), names(new));
    let mut starts: Vec<_> = after.iter().filter(|name| !before.contains(name)).cloned().collect();
    let mut stops: Vec<_> = before.iter().filter(|name| !after.contains(name)).cloned().collect();
    if old.coordinators != new.coordinators {
        // They are told of the coordinators in their settings.
        let workers = new.instances().into_iter().filter(|instance| instance.worker).map(|instance| instance.name);
        for worker in workers {
            stops.push(worker.clone());
            starts.push(worker);
        }
    }
    Scaled { before: service.count(old), starts, stops }
}

/// Restarts parts of a running stack by name, or all of them, one after the other: each finishes what it has in hand,
/// and is ready before the next one stops. Returns their names.
///
/// # Errors
/// As [`scale`]; [`UpError::Usage`] names a part that is not there, and those that are.
pub(crate) async fn restart(
    data: &Path,
    service: &str,
    dry_run: bool,
    progress: &mut (dyn FnMut(&str) + Send),
) -> Result<Vec<String>, UpError> {
    let folder = Folder::of_stack(data)?;
    let stack = running(&folder)?;
    let all: Vec<String> = parts::all(&folder, &stack, &Sections::default())
        .into_iter()
        .filter(|part| part.probe.is_some())
        .map(|part| part.name)
        .collect();
    let chosen: Vec<String> = all.iter().filter(|name| service == "all" || *name == service).cloned().collect();
    if chosen.is_empty() {
        return Err(UpError::Usage(format!("there is no part `{service}`; there are: all, {}", all.join(", "))));
    }
    if !dry_run {
        for name in &chosen {
            progress(&format!("restarting {name}"));
            change(&folder, progress, |stack| *stack.restarts.entry(name.clone()).or_default() += 1).await?;
        }
    }
    Ok(chosen)
}

/// The stack of this folder, which must run.
fn running(folder: &Folder) -> Result<Stack, UpError> {
    let stack = Stack::load(folder)?.ok_or_else(|| UpError::NoStack(folder.root().to_owned()))?;
    match folder.live_supervisor() {
        Some(_) => Ok(stack),
        None => {
            let data = folder.root();
            Err(UpError::Usage(format!("the stack is not running; to start it: warren up --data {data:?}")))
        }
    }
}

/// Changes a running stack and waits until all of it is ready.
async fn change(
    folder: &Folder,
    progress: &mut (dyn FnMut(&str) + Send),
    edit: impl FnOnce(&mut Stack),
) -> Result<(), UpError> {
    let lock = folder.lock(progress)?;
    let mut stack = running(folder)?;
    edit(&mut stack);
    for moved in stack.choose_ports(&PortWishes::default(), true)? {
        progress(&moved);
    }
    let sections = Sections::ask(&stack.instances())?;
    settings::check(folder, &stack, &sections, &Overrides::of(folder)?)?;
    stack.generation += 1;
    stack.save(folder)?;
    let _ = fs::remove_file(folder.failure());
    if let Some(supervisor) = folder.live_supervisor() {
        supervisor.signal(Signal::SIGUSR1);
    }
    drop(lock);
    wait_ready(folder, &stack, TIMEOUT, progress).await
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn what_starts_and_stops_is_named() {
        let old = Stack::generate().unwrap();
        let mut new = old.clone();
        new.workers = BTreeMap::from([(WorkerKind::Transcription, 3), (WorkerKind::BatchEmbedding, 0)]);
        let service = Scalable::Worker(WorkerKind::Transcription);
        let scaled = difference(&old, &new, service);
        assert_eq!((scaled.before, scaled.starts.join(" ")), (1, "transcription-2 transcription-3".to_owned()));
        assert_eq!(scaled.stops, ["batch-embedding"]);
        let two = Stack { coordinators: 2, ..old.clone() };
        let scaled = difference(&old, &two, Scalable::Coordinator);
        assert_eq!(scaled.starts, ["coordinator-2", "transcription", "batch-embedding"]);
        assert_eq!(scaled.stops, ["transcription", "batch-embedding"]);
    }

    #[test]
    fn counts_have_limits_and_names_are_known() {
        assert_eq!("embed".parse(), Ok(Scalable::Worker(WorkerKind::BatchEmbedding)));
        let unknown = "ingest".parse::<Scalable>().unwrap_err();
        assert!(unknown.contains("transcription or batch-embedding, or coordinator"), "{unknown}");
        assert!(Scalable::Worker(WorkerKind::Transcription).check(0).is_ok());
        for (service, count) in [(Scalable::Coordinator, 0), (Scalable::Worker(WorkerKind::Transcription), 65)] {
            assert_eq!(service.check(count).unwrap_err().exit_code(), 2);
        }
    }

    #[tokio::test]
    async fn a_stack_that_does_not_run_is_not_changed() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::create(dir.path()).unwrap();
        Stack::generate().unwrap().save(&folder).unwrap();
        let error = restart(dir.path(), "all", false, &mut |_| ()).await.unwrap_err();
        assert!(error.exit_code() == 2 && error.to_string().contains("warren up"), "{error}");
    }
}
