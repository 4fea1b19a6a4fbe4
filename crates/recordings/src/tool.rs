//! Programs of this machine that fetch and unpack.

use std::{
    fs::{self, File},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use warren_child::Limits;

use crate::{
    RecordingsError, files,
    progress::{Phase, Progress, Tell},
};

/// How often the size of a growing download is looked at.
const GLANCE: Duration = Duration::from_millis(200);
/// A program that brought no new byte for this long is stuck.
const STUCK: Duration = Duration::from_secs(180);

/// What a run is for.
pub(crate) struct Job<'a> {
    /// The package and its version.
    pub package: &'a str,
    /// What to install when the program is missing.
    pub install: &'static str,
    /// Where the bytes arrive, to show them.
    pub growing: &'a Path,
    /// How many there will be.
    pub bytes: u64,
    /// Where its output is kept.
    pub log: &'a Path,
}

/// Runs a program to its end, with the bytes that arrive told meanwhile. Its standard output is discarded unless the
/// command says otherwise.
pub(crate) fn run(mut command: Command, job: &Job<'_>, tell: Tell<'_>) -> Result<(), RecordingsError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let log = File::create(job.log).map_err(RecordingsError::io(job.log))?;
    command.stdin(Stdio::null()).stderr(log);
    let mut child = warren_child::spawn(command, Limits::NONE).map_err(|source| RecordingsError::Program {
        program: program.clone(),
        install: job.install,
        source,
    })?;
    let failed = |reason: String| RecordingsError::Source { package: job.package.to_owned(), reason };
    let (mut most, mut since) = (0, Instant::now());
    let status = loop {
        if let Some(status) = child.try_wait().map_err(RecordingsError::io(program.as_ref()))? {
            break status;
        }
        let here = files::folder_bytes(job.growing);
        if here > most {
            (most, since) = (here, Instant::now());
        }
        if since.elapsed() > STUCK {
            return Err(failed(format!("{program} brought nothing new for {} s", STUCK.as_secs())));
        }
        let bytes_done = most.min(job.bytes);
        tell(Progress { package: job.package, phase: Phase::Downloading, bytes_done, bytes_total: job.bytes });
        thread::sleep(GLANCE);
    };
    if status.success() {
        return Ok(());
    }
    Err(failed(format!("{program} ended with {status}: {}", last_words(job.log))))
}

fn last_words(log: &Path) -> String {
    let said = fs::read(log).unwrap_or_default();
    let said = String::from_utf8_lossy(&said);
    // npm ends with the place of its own log; what went wrong comes before.
    let speaks = |line: &&str| !line.trim().is_empty() && !line.contains("complete log of this run");
    said.lines().rev().find(speaks).unwrap_or("it said nothing").trim().to_owned()
}
