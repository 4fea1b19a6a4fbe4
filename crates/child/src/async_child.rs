//! A child that a tokio runtime waits for.

use std::{io, process::ExitStatus, time::Duration};

use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::process::{ChildStderr, ChildStdin, ChildStdout};

use crate::child::signal_group;

/// A running child and its process group; dropping it kills the group.
#[derive(Debug)]
pub struct AsyncChild {
    /// Its standard input, when piped.
    pub stdin: Option<ChildStdin>,
    /// Its standard output, when piped.
    pub stdout: Option<ChildStdout>,
    /// Its standard error, when piped.
    pub stderr: Option<ChildStderr>,
    child: tokio::process::Child,
    pid: u32,
}

impl AsyncChild {
    pub(crate) fn new(mut child: tokio::process::Child) -> Self {
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        // A child that was just started has not been waited for, so it has an id.
        let pid = child.id().unwrap_or_default();
        Self { stdin, stdout, stderr, child, pid }
    }

    /// Its process id, which is also the id of its group.
    pub fn id(&self) -> u32 {
        self.pid
    }

    /// Waits until it ends; then kills what is left of its group. Safe to cancel and call again.
    ///
    /// # Errors
    /// When the kernel will not say.
    pub async fn wait(&mut self) -> io::Result<ExitStatus> {
        drop(self.stdin.take());
        let running = self.child.id().is_some();
        let status = self.child.wait().await?;
        if running {
            // Members that are left keep the group's id taken, so it cannot be another's yet.
            self.signal_group(Signal::SIGKILL)?;
        }
        Ok(status)
    }

    /// Kills the whole group and waits for the child.
    ///
    /// # Errors
    /// When the kernel will not say how it ended.
    pub async fn kill(&mut self) -> io::Result<ExitStatus> {
        if self.child.id().is_some() {
            self.signal_group(Signal::SIGKILL)?;
        }
        self.wait().await
    }

    /// Asks the child alone to stop (SIGTERM), and kills the group when it has not stopped after `grace`.
    ///
    /// # Errors
    /// When the kernel will not say how it ended.
    pub async fn terminate(&mut self, grace: Duration) -> io::Result<ExitStatus> {
        if self.child.id().is_some() {
            match kill(self.leader(), Signal::SIGTERM) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(error) => return Err(error.into()),
            }
        }
        match tokio::time::timeout(grace, self.wait()).await {
            Ok(status) => status,
            Err(_) => self.kill().await,
        }
    }

    fn leader(&self) -> Pid {
        Pid::from_raw(self.pid.cast_signed())
    }

    fn signal_group(&self, signal: Signal) -> io::Result<()> {
        // 0 would be our own group.
        if self.pid == 0 { Ok(()) } else { signal_group(self.leader(), signal) }
    }
}

impl Drop for AsyncChild {
    fn drop(&mut self) {
        // `id` is empty once the child was waited for. The runtime reaps it later.
        if self.child.id().is_some() {
            let _ = self.signal_group(Signal::SIGKILL);
        }
    }
}
