//! Which process a recorded number means.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};
use serde::{Deserialize, Serialize};

/// A process id with the moment its process started: numbers are used again, this pair is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The process id.
    pub pid: u32,
    /// When it started, in clock ticks since the machine's boot (`/proc/PID/stat`, field 22).
    pub start_ticks: u64,
}

impl Identity {
    /// Who has `pid` at the moment; `None` when nobody, or only a zombie.
    pub fn of(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The program's name, in parentheses, may itself hold spaces and parentheses.
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
        let state = fields.next()?;
        // `state` is field 3, so 18 further on is field 22.
        let start_ticks = fields.nth(18)?.parse().ok()?;
        (state != "Z" && state != "X").then_some(Self { pid, start_ticks })
    }

    /// The processes that `parent` started and that still run.
    pub fn children_of(parent: u32) -> Vec<Self> {
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let is_child = |pid: &u32| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
            fields.split_whitespace().nth(1) == Some(parent.to_string().as_str())
        };
        pids.filter(is_child).filter_map(Self::of).collect()
    }

    /// This process.
    pub fn me() -> Option<Self> {
        Self::of(std::process::id())
    }

    /// True while the process runs.
    pub fn alive(self) -> bool {
        Self::of(self.pid) == Some(self)
    }

    /// Waits until the process is gone; false when it still runs after `timeout`.
    pub fn wait_gone(self, timeout: Duration) -> bool {
        let start = Instant::now();
        while self.alive() {
            if start.elapsed() >= timeout {
                return false;
            }
            thread::sleep(Duration::from_millis(20));
        }
        true
    }

    /// Asks the process to stop (SIGTERM); kills it with its group when it has not within `grace`. Returns true when
    /// it stopped by itself.
    pub fn terminate(self, grace: Duration) -> bool {
        self.signal(Signal::SIGTERM);
        let stopped = self.wait_gone(grace);
        if !stopped {
            self.kill();
        }
        stopped
    }

    /// Kills the process, and its group if it leads one, and waits until it is gone.
    pub fn kill(self) {
        if self.alive() {
            if let Some(group) = self.own_group() {
                let _ = killpg(group, Signal::SIGKILL);
            }
            self.signal(Signal::SIGKILL);
            // Only a process stuck in the kernel outlasts this.
            self.wait_gone(Duration::from_secs(10));
        }
    }

    /// Sends a signal if the process is still the one recorded.
    pub fn signal(self, signal: Signal) {
        if self.alive() {
            let _ = kill(self.raw(), signal);
        }
    }

    fn raw(self) -> Pid {
        Pid::from_raw(self.pid.cast_signed())
    }

    fn own_group(self) -> Option<Pid> {
        let group = nix::unistd::getpgid(Some(self.raw())).ok()?;
        (group == self.raw()).then_some(group)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead as _, BufReader},
        process::{Command, Stdio},
    };

    use super::*;

    fn sleeper() -> (warren_child::Child, Identity) {
        let mut command = Command::new("sleep");
        command.arg("1000");
        let child = warren_child::spawn(command, warren_child::Limits::NONE).unwrap();
        let identity = Identity::of(child.id()).unwrap();
        (child, identity)
    }

    #[test]
    fn this_process_is_alive() {
        assert!(Identity::me().unwrap().alive());
    }

    #[test]
    fn another_start_time_is_another_process() {
        let me = Identity::me().unwrap();
        assert!(!Identity { start_ticks: me.start_ticks + 1, ..me }.alive());
    }

    #[test]
    fn a_stopped_process_is_not_alive_even_before_it_is_reaped() {
        let (_child, identity) = sleeper();
        assert!(identity.alive());
        assert!(identity.terminate(Duration::from_secs(10)));
        assert!(!identity.alive());
    }

    #[test]
    fn children_are_found() {
        let (child, identity) = sleeper();
        assert!(Identity::children_of(std::process::id()).contains(&identity));
        drop(child);
        assert!(!Identity::children_of(std::process::id()).contains(&identity));
    }

    #[test]
    fn kill_needs_no_cooperation() {
        let mut command = Command::new("sh");
        command.args(["-c", "trap '' TERM; echo deaf; while :; do sleep 1; done"]).stdout(Stdio::piped());
        let mut child = warren_child::spawn(command, warren_child::Limits::NONE).unwrap();
        let identity = Identity::of(child.id()).unwrap();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut String::new()).unwrap();
        assert!(!identity.terminate(Duration::from_millis(50)));
        assert!(!identity.alive());
    }
}
