//! Processes that a suite left behind.
//!
//! This process adopts the orphans of its children, so whatever a test started, however it detached itself, stays among
//! its descendants and is found.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, thread,
    time::{Duration, Instant},
};

use nix::{
    sys::{
        prctl,
        signal::{Signal, kill},
        wait::{WaitPidFlag, waitpid},
    },
    unistd::Pid,
};

/// A process as `/proc` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Process {
    pid: i32,
    parent: i32,
    zombie: bool,
    name: String,
}

/// From now on, orphans of this process's children become its own children.
pub(crate) fn adopt_orphans() {
    // Without it (a kernel older than 3.4), what detaches itself is not found; nothing else is lost.
    let _ = prctl::set_child_subreaper(true);
}

/// Buries adopted orphans that have ended; `children` are waited for by somebody else.
pub(crate) fn bury(children: &BTreeSet<u32>) {
    let me = std::process::id().cast_signed();
    for process in all() {
        if process.zombie && process.parent == me && !children.contains(&process.pid.cast_unsigned()) {
            let _ = waitpid(Pid::from_raw(process.pid), Some(WaitPidFlag::WNOHANG));
        }
    }
}

/// Gives descendants `grace` to end, kills those that are left, and names them. Call it when no child is expected.
pub(crate) fn end_all(grace: Duration) -> Vec<String> {
    let start = Instant::now();
    loop {
        bury(&BTreeSet::new());
        let left = descendants(&all(), std::process::id().cast_signed());
        if left.is_empty() {
            return Vec::new();
        }
        if start.elapsed() >= grace {
            for process in &left {
                let _ = kill(Pid::from_raw(process.pid), Signal::SIGKILL);
            }
            return left.iter().map(|process| format!("{} (pid {})", process.name, process.pid)).collect();
        }
        thread::sleep(Duration::from_millis(100));
    }
}

/// Everything below `root` that still runs.
fn descendants(all: &[Process], root: i32) -> Vec<Process> {
    let mut below: BTreeMap<i32, Vec<&Process>> = BTreeMap::new();
    for process in all {
        below.entry(process.parent).or_default().push(process);
    }
    let (mut found, mut open, mut seen) = (Vec::new(), vec![root], BTreeSet::new());
    while let Some(parent) = open.pop() {
        for process in below.get(&parent).into_iter().flatten() {
            if seen.insert(process.pid) {
                open.push(process.pid);
                if !process.zombie {
                    found.push((*process).clone());
                }
            }
        }
    }
    found
}

fn all() -> Vec<Process> {
    let folders = fs::read_dir("/proc").into_iter().flatten().flatten();
    folders.filter_map(|folder| read(folder.file_name().to_str()?)).collect()
}

fn read(pid: &str) -> Option<Process> {
    let number = pid.parse().ok()?;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may itself hold spaces and parentheses.
    let (head, tail) = stat.rsplit_once(')')?;
    let mut fields = tail.split_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let command = String::from_utf8_lossy(&command).replace('\0', " ");
    let name = if command.trim().is_empty() { head.split_once('(')?.1.to_owned() } else { command };
    let name = name.trim().chars().take(120).collect();
    Some(Process { pid: number, parent, zombie: state == "Z" || state == "X", name })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: i32, parent: i32, zombie: bool) -> Process {
        Process { pid, parent, zombie, name: pid.to_string() }
    }

    #[test]
    fn descendants_are_found_through_the_dead() {
        let all = [
            process(1, 0, false),
            process(5, 1, false),
            process(6, 5, true),
            process(7, 6, false),
            process(8, 1, false),
        ];
        let pids = |root| descendants(&all, root).iter().map(|found| found.pid).collect::<Vec<_>>();
        assert_eq!(pids(5), [7]);
        assert_eq!(pids(8), [0; 0]);
    }

    #[test]
    fn this_process_is_read_from_proc() {
        let me = read(&std::process::id().to_string()).expect("this process");
        assert!(!me.zombie && me.parent > 0 && me.name.contains("warren"), "{me:?}");
    }
}
