//! How much memory the processes of a stack take at most.

use std::{collections::BTreeMap, fs};

use warren_local::process::Identity;

/// Most bytes that a process ever had in memory, by service; programs that a service runs go by their own name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peaks(BTreeMap<String, u64>);

impl Peaks {
    /// Takes in what these processes have had so far. `names` tells which service a process is.
    pub fn look(&mut self, processes: &[Identity], names: &BTreeMap<u32, String>) {
        for process in processes {
            let status = fs::read_to_string(format!("/proc/{}/status", process.pid)).unwrap_or_default();
            let Some(peak) = peak(&status) else { continue };
            let program = || field(&status, "Name:").unwrap_or_default().to_owned();
            let highest = self.0.entry(names.get(&process.pid).cloned().unwrap_or_else(program)).or_default();
            *highest = peak.max(*highest);
        }
    }

    /// By name, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0.iter().map(|(name, bytes)| (name.as_str(), *bytes))
    }

    /// Of one of them.
    pub fn of(&self, name: &str) -> Option<u64> {
        self.0.get(name).copied()
    }
}

fn peak(status: &str) -> Option<u64> {
    let kilobytes: u64 = field(status, "VmHWM:")?.trim_end_matches(" kB").trim().parse().ok()?;
    Some(kilobytes * 1024)
}

fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_a_peak() {
        let me = Identity::of(std::process::id()).unwrap();
        let mut peaks = Peaks::default();
        peaks.look(&[me], &BTreeMap::from([(me.pid, "me".to_owned())]));
        let before = peaks.of("me").unwrap();
        let block = std::hint::black_box(vec![1_u8; 64 << 20]);
        peaks.look(&[me], &BTreeMap::from([(me.pid, "me".to_owned())]));
        assert!(peaks.of("me").unwrap() > before + (32 << 20), "{} bytes", block.len());
    }
}
