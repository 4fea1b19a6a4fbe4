//! The process that keeps a stack: starts its parts in order, restarts what ends, stops all of it in order.

use std::{
    collections::BTreeMap,
    fs, io,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use warren_clock::Reconnect;
use warren_local::process::Identity;

use super::{
    UpError,
    binaries::Sections,
    board::{self, Board},
    folder::{Folder, write_file, write_json},
    keeper::Keeper,
    parts::{self, Part, Phase},
    settings,
    stack::Stack,
};

/// How long a database elsewhere may be away when the stack starts.
const DATABASE_WAIT: Duration = Duration::from_secs(60);

/// Keeps the stack in `data` until SIGTERM, SIGINT or `stopping`; a second signal kills what is left. Returns when
/// every process is gone.
///
/// # Errors
/// When another process supervises it, or it could not be started; then everything is stopped again.
pub(crate) async fn supervise(data: &Path, stopping: CancellationToken) -> Result<(), UpError> {
    let folder = Folder::open(data)?;
    let Some(_lock) = folder.supervisor_lock()? else {
        return Err(UpError::Usage(format!("the stack in {} is running already", data.display())));
    };
    // Before others learn who we are, or their signals would be fatal.
    let mut changed = signal(SignalKind::user_defined1()).map_err(UpError::io("listen for SIGUSR1"))?;
    let abort = CancellationToken::new();
    let signals = Signals::listen().map_err(UpError::io("listen for signals"))?;
    let signals = tokio::spawn(signals.watch(stopping.clone(), abort.clone()));
    let _ = fs::remove_file(folder.failure());
    write_json(&folder.supervisor(), &Identity::me())?;
    sweep(&folder);

    let mut supervisor = Supervisor::new(folder.clone(), abort);
    let result = supervisor.run(&mut changed, &stopping).await;
    if let Err(error) = &result {
        eprintln!("{error}");
        tell(write_file(&folder.failure(), &format!("{error}\n")));
    }
    supervisor.stop_all().await;
    signals.abort();
    for file in [folder.services(), folder.applied(), folder.supervisor()] {
        let _ = fs::remove_file(file);
    }
    result
}

/// A full disk must not stop what runs.
fn tell(written: Result<(), UpError>) {
    if let Err(error) = written {
        eprintln!("{error}");
    }
}

/// Kills what a supervisor left behind that was killed itself. Its children die with it; this is for the rest.
pub(super) fn sweep(folder: &Folder) -> Vec<String> {
    let left: Vec<_> = board::read(&folder.services())
        .into_iter()
        .filter_map(|entry| Some((entry.service, entry.process.filter(|process| process.alive())?)))
        .collect();
    for (service, process) in &left {
        eprintln!("stopping {service} (process {}), left behind by an earlier run", process.pid);
        process.terminate(Duration::from_secs(5));
    }
    let _ = fs::remove_file(folder.services());
    left.into_iter().map(|(service, _)| service).collect()
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn watch(mut self, stopping: CancellationToken, abort: CancellationToken) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => {}
                _ = self.interrupt.recv() => {}
                // The terminal went away; the stack stays.
                _ = self.hangup.recv() => continue,
            }
            if stopping.is_cancelled() {
                abort.cancel();
            }
            stopping.cancel();
        }
    }
}

struct Supervisor {
    folder: Folder,
    board: Arc<Board>,
    keepers: BTreeMap<String, Keeper>,
    /// Cancelled by a second signal.
    abort: CancellationToken,
}

impl Supervisor {
    fn new(folder: Folder, abort: CancellationToken) -> Self {
        let board = Arc::new(Board::new(folder.services()));
        Self { folder, board, keepers: BTreeMap::new(), abort }
    }

    async fn run(&mut self, changed: &mut Signal, stopping: &CancellationToken) -> Result<(), UpError> {
        let (mut stack, parts) = self.load()?;
        let (infrastructure, services): (Vec<_>, Vec<_>) = parts.into_iter().partition(|part| part.phase >= Phase::S3);
        infrastructure.into_iter().for_each(|part| self.keep(part));
        tokio::select! {
            migrated = migrate(&self.folder, &stack) => migrated?,
            () = stopping.cancelled() => return Ok(()),
        }
        services.into_iter().for_each(|part| self.keep(part));
        write_json(&self.folder.applied(), &stack.generation)?;
        while wait(changed, stopping).await {
            match self.load() {
                Ok((new, parts)) => {
                    self.adapt(parts, &stack, &new).await;
                    stack = new;
                    tell(write_json(&self.folder.applied(), &stack.generation));
                }
                Err(error) => {
                    // Whoever asked for the change waits for it.
                    let why = format!("the stack stays as it was: {error}");
                    eprintln!("{why}");
                    tell(write_file(&self.folder.failure(), &format!("{why}\n")));
                }
            }
        }
        Ok(())
    }

    /// Reads the stack and writes its settings files.
    fn load(&self) -> Result<(Stack, Vec<Part>), UpError> {
        let no_stack = || UpError::NoStack(self.folder.root().to_owned());
        let stack = Stack::load(&self.folder)?.ok_or_else(no_stack)?;
        let sections = Sections::ask(&stack.instances())?;
        parts::write_settings(&self.folder, &stack, &sections)?;
        let parts = parts::all(&self.folder, &stack, &sections);
        Ok((stack, parts))
    }

    fn keep(&mut self, part: Part) {
        let name = part.name.clone();
        self.keepers.insert(name, Keeper::start(part, self.board.clone(), self.abort.clone()));
    }

    /// Starts what is missing, stops what is too many and restarts what is to be restarted. Workers are told of
    /// coordinators in their settings, so they are started anew when those change.
    async fn adapt(&mut self, parts: Vec<Part>, old: &Stack, new: &Stack) {
        let coordinators_changed = new.coordinators != old.coordinators;
        let wanted = |name: &str, phase: Phase| {
            parts.iter().any(|part| part.name == name)
                && !(coordinators_changed && phase == Phase::Workers)
                && old.restarts.get(name) == new.restarts.get(name)
        };
        let surplus: Vec<_> = self
            .keepers
            .iter()
            .filter(|(name, keeper)| !wanted(name, keeper.phase))
            .map(|(name, _)| name.clone())
            .collect();
        self.stop(surplus).await;
        for part in parts {
            if !self.keepers.contains_key(&part.name) {
                self.keep(part);
            }
        }
    }

    async fn stop(&mut self, names: Vec<String>) {
        let keepers: Vec<_> = names.iter().filter_map(|name| self.keepers.remove(name)).collect();
        keepers.iter().for_each(Keeper::stop);
        for keeper in keepers {
            keeper.ended().await;
        }
    }

    async fn stop_all(&mut self) {
        for phase in Phase::STOP_ORDER {
            let of_phase = self.keepers.iter().filter(|(_, keeper)| keeper.phase == phase);
            let names = of_phase.map(|(name, _)| name.clone()).collect();
            self.stop(names).await;
        }
    }
}

/// True when the stack's file changed, false when it is time to stop.
async fn wait(changed: &mut Signal, stopping: &CancellationToken) -> bool {
    tokio::select! {
        _ = changed.recv() => true,
        () = stopping.cancelled() => false,
    }
}

/// Brings the database to this build's revision; waits a while for one elsewhere.
async fn migrate(folder: &Folder, stack: &Stack) -> Result<(), UpError> {
    let url = settings::store_url(folder, stack);
    let start = Instant::now();
    let mut reconnect = Reconnect::new();
    loop {
        match warren_store::migrate::up(&url).await {
            Ok(applied) if applied.is_empty() => return Ok(()),
            Ok(applied) => {
                eprintln!("database: applied {}", applied.join(", "));
                return Ok(());
            }
            Err(error) if stack.external.store_url.is_none() || start.elapsed() > DATABASE_WAIT => {
                return Err(UpError::NotReady(format!("the database could not be prepared: {error}")));
            }
            Err(error) => {
                eprintln!("the database is not ready: {error}");
                tokio::time::sleep(reconnect.next_delay()).await;
            }
        }
    }
}
