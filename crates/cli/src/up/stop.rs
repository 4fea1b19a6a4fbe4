//! `warren down`.

use std::{path::Path, time::Duration};

use nix::sys::signal::Signal;
use warren_local::process::Identity;

use super::{UpError, folder::Folder, supervisor};

/// Longer than the graces of all parts one after the other.
const PATIENCE: Duration = Duration::from_secs(180);

/// What [`down`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stopped {
    /// The stack ran, and is stopped.
    Now,
    /// It was not running.
    Before,
}

/// Stops every process of the stack in `data`: workers finish what they have in hand, then ingest, coordinators, S3
/// and RabbitMQ stop. Blocks; calls `progress` every 5 s.
///
/// # Errors
/// [`UpError::NoStack`] when nothing was ever started in `data`.
pub(crate) fn down(data: &Path, progress: &mut dyn FnMut(&str)) -> Result<Stopped, UpError> {
    let folder = Folder::of_stack(data)?;
    let _lock = folder.lock(progress)?;
    let Some(process) = folder.live_supervisor() else {
        let left = supervisor::sweep(&folder);
        return Ok(if left.is_empty() { Stopped::Before } else { Stopped::Now });
    };
    process.signal(Signal::SIGTERM);
    wait(&folder, process, progress);
    Ok(Stopped::Now)
}

/// Kills every process of the stack in `data` at once: nothing in hand is finished. What was acknowledged is on disk, and
/// the next start goes on with it. Blocks.
///
/// # Errors
/// As [`down`].
pub(crate) fn kill(data: &Path, progress: &mut dyn FnMut(&str)) -> Result<Stopped, UpError> {
    let folder = Folder::of_stack(data)?;
    // Not behind another command, which may wait for what hangs.
    let Some(process) = folder.live_supervisor() else {
        let left = supervisor::sweep(&folder);
        return Ok(if left.is_empty() { Stopped::Before } else { Stopped::Now });
    };
    // The second signal is the one to kill what is left; two of one kind could become one on the way.
    process.signal(Signal::SIGTERM);
    process.signal(Signal::SIGINT);
    wait(&folder, process, progress);
    Ok(Stopped::Now)
}

fn wait(folder: &Folder, process: Identity, progress: &mut dyn FnMut(&str)) {
    let mut waited = Duration::ZERO;
    let look = Duration::from_secs(5);
    while !process.wait_gone(look) {
        waited += look;
        if waited >= PATIENCE {
            // Its children die with it.
            process.kill();
            break;
        }
        progress(&format!("stopping ({} s)", waited.as_secs()));
    }
    supervisor::sweep(folder);
}
