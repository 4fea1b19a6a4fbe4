//! `warren up`.

use std::{
    fs::{self, File},
    os::unix::{fs::OpenOptionsExt as _, process::CommandExt as _},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{
    Endpoints, UpError, UpOptions,
    binaries::{self, Sections},
    folder::{Folder, free_bytes, read_json},
    parts,
    ready::{self, Awaited},
    settings::{self, Overrides},
    stack::Stack,
    status,
    supervisor::supervise,
};

/// A stack that is ready.
#[derive(Debug)]
pub(crate) struct Up {
    /// Where to reach its parts.
    pub endpoints: Endpoints,
    /// True when it was running as asked for, so nothing was changed.
    pub unchanged: bool,
    foreground: Option<(CancellationToken, JoinHandle<Result<(), UpError>>)>,
}

impl Up {
    /// True when the stack runs inside this process, which must then wait in [`Up::wait`].
    pub(crate) fn in_foreground(&self) -> bool {
        self.foreground.is_some()
    }

    /// Waits until the stack is stopped by a signal or [`super::down`]; returns at once for one in the background.
    ///
    /// # Errors
    /// When the supervisor failed.
    pub(crate) async fn wait(self) -> Result<(), UpError> {
        match self.foreground {
            Some((_, task)) => joined(task).await,
            None => Ok(()),
        }
    }

    /// Stops a stack in the foreground and waits until it is gone.
    ///
    /// # Errors
    /// When the supervisor failed.
    pub(crate) async fn stop(self) -> Result<(), UpError> {
        if let Some((stopping, _)) = &self.foreground {
            stopping.cancel();
        }
        self.wait().await
    }
}

async fn joined(task: JoinHandle<Result<(), UpError>>) -> Result<(), UpError> {
    task.await.unwrap_or_else(|error| Err(UpError::NotReady(format!("the supervisor failed: {error}"))))
}

/// RabbitMQ takes no messages with less than 50 MB free, and logs, database and objects need some, too.
const LEAST_ROOM: u64 = 256 << 20;

fn check_room(folder: &Folder) -> Result<(), UpError> {
    let root = folder.root();
    let Some(free) = free_bytes(root).filter(|free| *free < LEAST_ROOM) else { return Ok(()) };
    Err(UpError::Prerequisite(format!(
        "{}: {} MiB free, {} are needed at least; make room, or choose another folder with --data DIR",
        root.display(),
        free >> 20,
        LEAST_ROOM >> 20
    )))
}

/// Starts the stack in `options.data` and returns once everything is ready. One that runs already is changed only
/// where the options ask for it. `progress` gets a line at least every 5 s while there is something to wait for.
///
/// With `detach` the stack goes on without this process, also when this function fails. Without, it is stopped when
/// [`Up`] is told so or this process gets SIGTERM or SIGINT.
///
/// # Errors
/// [`UpError::Prerequisite`] when a program is missing, [`UpError::Usage`] when options contradict what is there or
/// settings cannot be used, [`UpError::NotReady`] naming the part and the end of its log, [`UpError::Settings`] when a
/// service refuses its settings nevertheless.
pub(crate) async fn up(options: UpOptions, progress: &mut (dyn FnMut(&str) + Send)) -> Result<Up, UpError> {
    let folder = Folder::create(&options.data)?;
    let lock = folder.lock(progress)?;
    let running = folder.live_supervisor();
    let found = Stack::load(&folder)?;
    let mut stack = match found.clone() {
        Some(stack) => stack,
        None => Stack::generate()?,
    };
    apply(&mut stack, &options)?;
    if running.is_none() {
        check_room(&folder)?;
    }
    for change in stack.choose_ports(&options.ports, running.is_some())? {
        progress(&change);
    }
    // A missing binary and settings that cannot be used are found here, before anything was saved or started.
    let sections = Sections::ask(&stack.instances())?;
    let overrides = match &options.settings {
        Some(file) => Overrides::read(file.clone())?,
        None => Overrides::of(&folder)?,
    };
    settings::check(&folder, &stack, &sections, &overrides)?;
    if options.settings.is_some() && running.is_some() && !overrides.are_in(&folder) {
        let why = format!(
            "new settings take effect at a start; stop the stack first: warren down --data {:?}",
            folder.root()
        );
        return Err(UpError::Usage(why));
    }
    let unchanged = running.is_some() && found.as_ref() == Some(&stack) && !is_overdue(&folder, &stack);
    if !unchanged {
        if let (Some(found), Some(_)) = (&found, running)
            && found.external != stack.external
        {
            let why = format!(
                "the stack runs with another broker, database or S3 server than the environment names now; stop it \
                 first: warren down --data {:?}",
                folder.root()
            );
            return Err(UpError::Usage(why));
        }
        overrides.save(&folder)?;
        stack.generation += 1;
        stack.save(&folder)?;
    }
    let _ = fs::remove_file(folder.failure());
    let foreground = match running {
        Some(supervisor) => {
            if !unchanged {
                supervisor.signal(Signal::SIGUSR1);
            }
            None
        }
        None if options.detach => {
            detach(&folder)?;
            None
        }
        None => {
            let stopping = CancellationToken::new();
            let (data, token) = (folder.root().to_owned(), stopping.clone());
            Some((stopping, tokio::spawn(async move { supervise(&data, token).await })))
        }
    };
    wait_for_supervisor(&folder, foreground.as_ref().map(|(_, task)| task)).await?;
    drop(lock);

    let ready = wait_ready(&folder, &stack, options.timeout, progress).await;
    let endpoints = status::of_stack(&folder, &stack);
    let up = Up { endpoints, unchanged, foreground };
    match ready {
        Ok(()) => Ok(up),
        Err(error) => {
            if !up.in_foreground() && folder.live_supervisor().is_some() {
                let data = folder.root();
                let advice = format!("it goes on trying in the background; to stop it: warren down --data {data:?}");
                return Err(match error {
                    UpError::NotReady(why) => UpError::NotReady(format!("{why}\n{advice}")),
                    UpError::Settings(why) => UpError::Settings(format!("{why}\n{advice}")),
                    error => error,
                });
            }
            let interrupted = up.foreground.as_ref().is_some_and(|(stopping, _)| stopping.is_cancelled());
            // Stopping can take a while; the reason is told before it.
            if !interrupted && let Some(why) = error.to_string().lines().next() {
                progress(&format!("stopping everything: {why}"));
            }
            // What ended the supervisor is the better explanation.
            up.stop().await?;
            Err(if interrupted { UpError::Interrupted } else { error })
        }
    }
}

/// Changes what the options name.
fn apply(stack: &mut Stack, options: &UpOptions) -> Result<(), UpError> {
    match options.coordinators {
        Some(0) => return Err(UpError::Usage("--coordinators: at least 1".to_owned())),
        Some(count @ 1..=16) => stack.coordinators = count,
        Some(_) => return Err(UpError::Usage("--coordinators: at most 16".to_owned())),
        None => {}
    }
    stack.workers.extend(&options.workers);
    stack.external = options.external.clone();
    Ok(())
}

/// True when the supervisor runs an older generation of this stack: it refused the change, and has to be asked again.
fn is_overdue(folder: &Folder, stack: &Stack) -> bool {
    read_json::<u64>(&folder.applied()).is_some_and(|applied| applied < stack.generation)
}

/// Starts `warren supervise` in a process group of its own, so that the terminal's signals do not reach it.
fn detach(folder: &Folder) -> Result<(), UpError> {
    let path = folder.log("supervisor");
    let log = File::options().create(true).append(true).mode(0o600).open(&path);
    let log = log.map_err(UpError::io(format!("write {}", path.display())))?;
    let copy = log.try_clone().map_err(UpError::io(format!("write {}", path.display())))?;
    let mut command = Command::new(binaries::warren()?);
    command
        .arg("supervise")
        .arg("--data")
        .arg(folder.root())
        .current_dir(folder.root())
        .stdin(Stdio::null())
        .stdout(copy)
        .stderr(log)
        .process_group(0);
    let mut supervisor = command.spawn().map_err(UpError::io("start the supervisor"))?;
    // Waited for only so that no zombie is left while this process lives on.
    thread::spawn(move || supervisor.wait());
    Ok(())
}

/// Until the supervisor holds its lock, another `up` could start a second one.
async fn wait_for_supervisor(folder: &Folder, task: Option<&JoinHandle<Result<(), UpError>>>) -> Result<(), UpError> {
    let start = Instant::now();
    while folder.live_supervisor().is_none() {
        if folder.failure().exists() || task.is_some_and(JoinHandle::is_finished) {
            // It ended already; the wait for readiness says why.
            return Ok(());
        }
        if start.elapsed() > Duration::from_secs(20) {
            return Err(UpError::NotReady("the supervisor did not start within 20 s".to_owned()));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// Waits until every part of this generation of the stack is ready.
pub(super) async fn wait_ready(
    folder: &Folder,
    stack: &Stack,
    timeout: Duration,
    progress: &mut (dyn FnMut(&str) + Send),
) -> Result<(), UpError> {
    let awaited: Vec<_> = parts::all(folder, stack, &Sections::default())
        .into_iter()
        .filter_map(|part| Some(Awaited { name: part.name, probe: part.probe? }))
        .collect();
    // Lines come through a channel, because the waiting is done on another thread.
    let (lines, mut said) = tokio::sync::mpsc::unbounded_channel::<String>();
    let (folder, generation) = (folder.clone(), stack.generation);
    let waiting = tokio::task::spawn_blocking(move || {
        ready::wait(&folder, &awaited, generation, timeout, &mut |line| {
            let _ = lines.send(line.to_owned());
        })
    });
    while let Some(line) = said.recv().await {
        progress(&line);
    }
    waiting.await.unwrap_or_else(|error| Err(UpError::NotReady(format!("waiting failed: {error}"))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::up::folder::write_json;

    #[test]
    fn a_change_that_was_refused_is_asked_for_again() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::create(dir.path()).unwrap();
        let mut stack = Stack::generate().unwrap();
        assert!(!is_overdue(&folder, &stack), "another command is starting it");
        write_json(&folder.applied(), &stack.generation).unwrap();
        assert!(!is_overdue(&folder, &stack));
        stack.generation += 1;
        assert!(is_overdue(&folder, &stack));
    }
}
