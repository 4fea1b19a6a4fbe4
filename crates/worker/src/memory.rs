//! Memory of the process and of its device.

use std::fs;

use nix::sys::resource::{UsageWho, getrusage};
use warren_inference::{Device, Memory, Probe};

/// Most bytes that this process ever had in memory.
pub(crate) fn peak() -> u64 {
    getrusage(UsageWho::RUSAGE_SELF).map_or(0, |usage| u64::try_from(usage.max_rss()).unwrap_or(0) * 1024)
}

/// Bytes that this process has in memory now.
pub(crate) fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// What the device has left. `None`: it does not say.
pub(crate) fn of(probe: &Probe, device: Device) -> Option<Memory> {
    let memory = probe.look()?;
    Some(Memory { free: memory.free.saturating_sub(warren_drills::held(&device.to_string())), ..memory })
}

/// Bytes for people, e.g. `1.5 GB`.
pub(crate) fn told(bytes: u64) -> String {
    if bytes >= 100_000_000 { format!("{:.1} GB", bytes as f64 / 1e9) } else { format!("{} MB", bytes / 1_000_000) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_knows_its_own_size() {
        let before = resident();
        let block = std::hint::black_box(vec![1_u8; 64 << 20]);
        assert!(resident() > before + (32 << 20), "{} bytes", block.len());
        // Each is counted in its own way, to some pages.
        assert!(peak() + (8 << 20) >= resident(), "{} {}", peak(), resident());
        assert_eq!((told(1_500_000_000), told(20_000_000)), ("1.5 GB".to_owned(), "20 MB".to_owned()));
    }
}
