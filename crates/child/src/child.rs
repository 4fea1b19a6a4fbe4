//! A child that a thread waits for.

use std::{
    io,
    process::{ChildStderr, ChildStdin, ChildStdout, ExitStatus},
    thread,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::{
        signal::{Signal, killpg},
        wait::{Id, WaitPidFlag, WaitStatus, waitid},
    },
    unistd::Pid,
};

/// A running child and its process group; dropping it kills the group.
#[derive(Debug)]
pub struct Child {
    /// Its standard input, when piped.
    pub stdin: Option<ChildStdin>,
    /// Its standard output, when piped.
    pub stdout: Option<ChildStdout>,
    /// Its standard error, when piped.
    pub stderr: Option<ChildStderr>,
    child: std::process::Child,
    reaped: Option<ExitStatus>,
}

impl Child {
    pub(crate) fn new(mut child: std::process::Child) -> Self {
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        Self { stdin, stdout, stderr, child, reaped: None }
    }

    /// Its process id, which is also the id of its group.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, or `None` while it runs.
    ///
    /// # Errors
    /// When the kernel will not say.
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        self.reap(WaitPidFlag::WNOHANG)
    }

    /// Waits until it ends; then kills what is left of its group.
    ///
    /// # Errors
    /// When the kernel will not say.
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        // Open standard input would keep a child waiting for its end.
        drop(self.stdin.take());
        self.reap(WaitPidFlag::empty())?.ok_or_else(|| io::Error::other("waited for a child in vain"))
    }

    /// How it ended, or `None` when it still runs after `limit`.
    ///
    /// # Errors
    /// When the kernel will not say.
    pub fn wait_for(&mut self, limit: Duration) -> io::Result<Option<ExitStatus>> {
        let start = Instant::now();
        while start.elapsed() < limit {
            if let Some(status) = self.try_wait()? {
                return Ok(Some(status));
            }
            // `waitid` knows no limit.
            thread::sleep(Duration::from_millis(20));
        }
        Ok(None)
    }

    /// Kills the whole group and waits for the child.
    ///
    /// # Errors
    /// When the kernel will not say how it ended.
    pub fn kill(&mut self) -> io::Result<ExitStatus> {
        if self.reaped.is_none() {
            signal_group(self.pid(), Signal::SIGKILL)?;
        }
        self.wait()
    }

    /// Asks the child alone to stop (SIGTERM), and kills the group when it has not stopped after `grace`.
    ///
    /// # Errors
    /// When the kernel will not say how it ended.
    pub fn terminate(&mut self, grace: Duration) -> io::Result<ExitStatus> {
        if self.reaped.is_none() {
            match nix::sys::signal::kill(self.pid(), Signal::SIGTERM) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(error) => return Err(error.into()),
            }
        }
        match self.wait_for(grace)? {
            Some(status) => Ok(status),
            None => self.kill(),
        }
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.id().cast_signed())
    }

    /// The group is killed between the child's end and its reaping: until then the id cannot belong to another.
    fn reap(&mut self, flag: WaitPidFlag) -> io::Result<Option<ExitStatus>> {
        if self.reaped.is_none() {
            let ended = loop {
                match waitid(Id::Pid(self.pid()), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT | flag) {
                    Err(Errno::EINTR) => {}
                    other => break other?,
                }
            };
            if ended == WaitStatus::StillAlive {
                return Ok(None);
            }
            signal_group(self.pid(), Signal::SIGKILL)?;
            self.reaped = Some(self.child.wait()?);
        }
        Ok(self.reaped)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // An error here means that the child is gone already.
        let _ = self.kill();
    }
}

/// Sends `signal` to every process of the group that `leader` leads; a group that is gone is no error.
pub(crate) fn signal_group(leader: Pid, signal: Signal) -> io::Result<()> {
    match killpg(leader, signal) {
        // EPERM: what is left of the group runs as another user, e.g. a program with the set-user-id bit.
        Ok(()) | Err(Errno::ESRCH | Errno::EPERM) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests;
