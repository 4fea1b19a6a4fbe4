//! Keeps one process running until it is told to stop.

use std::{
    fmt, io,
    os::fd::OwnedFd,
    path::Path,
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{io::AsyncReadExt as _, net::unix::pipe, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use warren_child::{AsyncChild, Limits};
use warren_clock::Reconnect;
use warren_local::process::Identity;

use super::{
    UpError,
    board::Board,
    logs::LogWriter,
    parts::{Part, Phase},
};

/// A process that ran this long was healthy: the next end is a new trouble, with the shortest delay again.
const HEALTHY: Duration = Duration::from_secs(30);

/// A process being kept.
#[derive(Debug)]
pub(super) struct Keeper {
    pub phase: Phase,
    stopping: CancellationToken,
    task: JoinHandle<()>,
}

impl Keeper {
    /// Starts `part` and restarts it whenever it ends. `abort` kills it without its grace.
    pub(super) fn start(part: Part, board: Arc<Board>, abort: CancellationToken) -> Self {
        let stopping = CancellationToken::new();
        let phase = part.phase;
        let task = tokio::spawn(keep(part, board, stopping.clone(), abort));
        Self { phase, stopping, task }
    }

    /// Asks it to stop; [`Keeper::ended`] waits.
    pub(super) fn stop(&self) {
        self.stopping.cancel();
    }

    /// Waits until the process is gone. Call [`Keeper::stop`] before.
    pub(super) async fn ended(self) {
        // An error is a panic of the keeper, which is on stderr; the child died with its handle.
        let _ = self.task.await;
    }
}

async fn keep(part: Part, board: Arc<Board>, stopping: CancellationToken, abort: CancellationToken) {
    let hidden = part.probe.is_none();
    let mut reconnect = Reconnect::new();
    board.change(&part.name, hidden, |_| {});
    loop {
        let started = Instant::now();
        let end = run_once(&part, &board, &stopping, &abort).await;
        if stopping.is_cancelled() {
            break;
        }
        if started.elapsed() >= HEALTHY {
            reconnect.reset();
        }
        let delay = reconnect.next_delay();
        eprintln!("{} {end}; starting it again in {:.1} s", part.name, delay.as_secs_f64());
        board.change(&part.name, hidden, |entry| {
            entry.process = None;
            entry.last_end = Some(end.to_string());
            entry.last_code = end.code();
        });
        tokio::select! {
            () = tokio::time::sleep(delay) => {}
            () = stopping.cancelled() => break,
        }
        board.change(&part.name, hidden, |entry| entry.restarts += 1);
    }
    board.remove(&part.name);
}

/// How one run ended.
enum End {
    NotStarted(UpError),
    Exited(ExitStatus),
    Unknown(io::Error),
}

impl End {
    fn code(&self) -> Option<i32> {
        match self {
            Self::Exited(status) => status.code(),
            Self::NotStarted(_) | Self::Unknown(_) => None,
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotStarted(error) => write!(f, "could not be started: {error}"),
            Self::Exited(status) => write!(f, "ended with {status}"),
            Self::Unknown(error) => write!(f, "ended: {error}"),
        }
    }
}

async fn run_once(part: &Part, board: &Board, stopping: &CancellationToken, abort: &CancellationToken) -> End {
    let (mut child, log) = match start(part) {
        Ok(started) => started,
        Err(error) => return End::NotStarted(error),
    };
    // A process that is gone already is noticed by `wait`.
    let process = Identity::of(child.id());
    board.change(&part.name, part.probe.is_none(), |entry| entry.process = process);
    let ended = tokio::select! {
        ended = child.wait() => ended,
        () = stopping.cancelled() => tokio::select! {
            ended = child.terminate(part.grace) => ended,
            () = abort.cancelled() => child.kill().await,
        },
    };
    // All writers are gone with the group, so the copy ends.
    let _ = log.await;
    match ended {
        Ok(status) => End::Exited(status),
        Err(error) => End::Unknown(error),
    }
}

fn start(part: &Part) -> Result<(AsyncChild, JoinHandle<()>), UpError> {
    let failed = |what: &str| UpError::io(format!("{what} {}", part.name));
    let mut command = (part.command)()?;
    let (output, input) = io::pipe().map_err(failed("make a pipe for"))?;
    command.stdin(Stdio::null()).stderr(input.try_clone().map_err(failed("make a pipe for"))?).stdout(input);
    let output = pipe::Receiver::from_owned_fd(OwnedFd::from(output)).map_err(failed("make a pipe for"))?;
    let log = LogWriter::open(&part.log).map_err(UpError::io(format!("write {}", part.log.display())))?;
    let child = warren_child::spawn_async(command.into(), Limits::NONE).map_err(failed("start"))?;
    let copying = tokio::spawn(copy(output, log, part.log.clone().into_boxed_path()));
    Ok((child, copying))
}

/// Reads to the end in any case: a full disk must not block the process on its own log.
async fn copy(mut output: pipe::Receiver, mut log: LogWriter, path: Box<Path>) {
    let mut buffer = vec![0; 64 << 10];
    let mut failing = false;
    while let Ok(read @ 1..) = output.read(&mut buffer).await {
        match log.write(&buffer[..read]) {
            Ok(()) => failing = false,
            Err(error) if !failing => {
                failing = true;
                eprintln!("cannot write {}: {error}", path.display());
            }
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests;
