//! How much memory a device has left.

use crate::{Device, InferenceError};

/// A device's memory at one moment, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// What could be had now, whoever has the rest.
    pub free: u64,
    /// All there is.
    pub total: u64,
}

/// Looks at a device's memory. Opening it costs as much as opening the device; looking costs little.
#[derive(Clone, Debug)]
pub struct Probe(candle_core::Device);

impl Probe {
    /// Opens the device.
    ///
    /// # Errors
    /// [`InferenceError::Unsupported`] when this build lacks the device; [`InferenceError::Internal`].
    pub fn open(device: Device) -> Result<Self, InferenceError> {
        Ok(Self(device.open()?))
    }

    /// The memory now; on a card, once the work queued there has ended. `None`: the system or the driver does not say.
    pub fn look(&self) -> Option<Memory> {
        match &self.0 {
            candle_core::Device::Cpu => of_system(&std::fs::read_to_string("/proc/meminfo").ok()?),
            #[cfg(feature = "cuda")]
            candle_core::Device::Cuda(device) => {
                let stream = device.cuda_stream();
                // What was freed stays with the process until the work queued before has ended.
                stream.synchronize().ok()?;
                let (free, total) = stream.context().mem_get_info().ok()?;
                Some(Memory { free: free as u64, total: total as u64 })
            }
            _ => None,
        }
    }
}

fn of_system(meminfo: &str) -> Option<Memory> {
    let bytes = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
    };
    Some(Memory { free: bytes("MemAvailable")?, total: bytes("MemTotal")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_tells_what_is_left() {
        let text = "MemTotal:       2048 kB\nMemFree:  12 kB\nMemAvailable:    1024 kB\n";
        assert_eq!(of_system(text), Some(Memory { free: 1 << 20, total: 2 << 20 }));
        assert_eq!(of_system("MemTotal: 7 kB\n"), None);
        let here = Probe::open(Device::Cpu).unwrap().look().unwrap();
        assert!(here.free > 0 && here.free <= here.total, "{here:?}");
    }
}
