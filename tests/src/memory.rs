//! How much memory the processes of a stack take at most.

use std::{collections::BTreeMap, fs};

use warren_local::process::Identity;

/// Most bytes that a process ever had in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peaks {
    services: BTreeMap<String, u64>,
    /// What the services run, by program. Many live for moments only: how much of one is seen is chance.
    programs: BTreeMap<String, u64>,
}

impl Peaks {
    /// Takes in what these processes have had so far. `names` tells which service a process is.
    pub fn look(&mut self, processes: &[Identity], names: &BTreeMap<u32, String>) {
        for process in processes {
            let status = fs::read_to_string(format!("/proc/{}/status", process.pid)).unwrap_or_default();
            let Some(peak) = peak(&status) else { continue };
            let highest = match names.get(&process.pid) {
                Some(service) => self.services.entry(service.clone()),
                None => self.programs.entry(field(&status, "Name:").unwrap_or_default().to_owned()),
            };
            let highest = highest.or_default();
            *highest = peak.max(*highest);
        }
    }

    /// Of services and programs, by name.
    pub fn all(&self) -> impl Iterator<Item = (&str, u64)> {
        self.services().chain(self.programs.iter().map(|(name, bytes)| (name.as_str(), *bytes)))
    }

    /// Of services, by name.
    pub fn services(&self) -> impl Iterator<Item = (&str, u64)> {
        self.services.iter().map(|(name, bytes)| (name.as_str(), *bytes))
    }

    /// Of one service.
    pub fn of(&self, service: &str) -> Option<u64> {
        self.services.get(service).copied()
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
