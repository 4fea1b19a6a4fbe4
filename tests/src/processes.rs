//! Which processes belong to a stack.

use std::{fs, os::unix::ffi::OsStrExt as _, path::Path};

use warren_local::process::Identity;

/// All processes that mention `folder` in their command line or environment, or work in it.
pub fn that_mention(folder: &Path) -> Vec<Identity> {
    let wanted = folder.as_os_str().as_bytes();
    let mentions = |bytes: &[u8]| bytes.windows(wanted.len()).any(|window| window == wanted);
    let read = |pid: u32, file: &str| fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
    all()
        .into_iter()
        .filter(|&pid| pid != std::process::id())
        .filter(|&pid| {
            let here = fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(folder));
            here || mentions(&read(pid, "cmdline")) || mentions(&read(pid, "environ"))
        })
        .filter_map(Identity::of)
        .collect()
}

/// `ancestor` and everything it started, directly or not.
pub fn family(ancestor: u32) -> Vec<Identity> {
    let parents: Vec<(u32, u32)> = all().into_iter().filter_map(|pid| Some((pid, parent(pid)?))).collect();
    let mut members = vec![ancestor];
    let mut next = 0;
    while next < members.len() {
        let of = members[next];
        members.extend(parents.iter().filter(|(_, parent)| *parent == of).map(|(pid, _)| *pid));
        next += 1;
    }
    members.into_iter().filter_map(Identity::of).collect()
}

/// What a process is called, for messages.
pub fn name(process: Identity) -> String {
    let line = fs::read(format!("/proc/{}/cmdline", process.pid)).unwrap_or_default();
    let line = String::from_utf8_lossy(&line).replace('\0', " ");
    format!("{} {}", process.pid, line.chars().take(120).collect::<String>())
}

fn all() -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}
