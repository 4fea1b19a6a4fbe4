//! Section `work` of a worker's settings.

use serde::{Deserialize, Serialize};
use warren_inference::Device;
use warren_jobs::retry::RetryPolicy;

/// How much a worker does at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WorkSettings {
    /// Tasks on the device at once. Default 0: one for each core on the CPU, one on a GPU.
    pub slots: u16,
    /// Models kept loaded; the one used longest ago makes room. Default 2. Lower it if memory is short, raise it if
    /// jobs with different models alternate.
    pub models_loaded: usize,
    /// Fetch a model that is not in the cache when a task needs it. Default true; set it to false where the cache is
    /// filled by `warren models pull`.
    pub pull: bool,
    /// Runs of a task that may fail by themselves before it is dead. Default 8.
    pub max_attempts: u32,
    /// Inputs in one forward pass at most. Default 0: 32 texts on the CPU, 256 on a GPU, 8 windows of speech; and never
    /// more than a task has. Where the device has no room for so many, half as many are tried, down to one, and what
    /// fitted is remembered by model, device and length. 8 suits a device with little memory.
    pub batch: usize,
    /// MB that the process may have in memory after a task; above it, the worker finishes what it has in hand and leaves,
    /// so that a fresh one takes its place. At least 256; set it below what the container may have. Default 0: no limit.
    pub max_memory_mb: u64,
}

impl Default for WorkSettings {
    fn default() -> Self {
        Self {
            slots: 0,
            models_loaded: 2,
            pull: true,
            max_attempts: RetryPolicy::default().max_attempts,
            batch: 0,
            max_memory_mb: 0,
        }
    }
}

impl WorkSettings {
    /// Says which key cannot be used.
    ///
    /// # Errors
    /// A sentence that names the key.
    pub fn validate(&self) -> Result<(), String> {
        if self.models_loaded == 0 {
            return Err("work.models_loaded: must be at least 1".to_owned());
        }
        if self.max_attempts == 0 {
            return Err("work.max_attempts: must be at least 1".to_owned());
        }
        if self.max_memory_mb != 0 && self.max_memory_mb < 256 {
            return Err("work.max_memory_mb: must be 0 or at least 256: no model works with less".to_owned());
        }
        Ok(())
    }

    /// How patient to be with a task that fails.
    pub fn policy(&self) -> RetryPolicy {
        RetryPolicy { max_attempts: self.max_attempts, ..RetryPolicy::default() }
    }

    /// Tasks at once on this device.
    pub fn slots_on(&self, device: Device) -> u16 {
        match (self.slots, device) {
            (0, Device::Cpu) => u16::try_from(crate::threads::cores()).unwrap_or(u16::MAX),
            (0, Device::Cuda(_)) => 1,
            (slots, _) => slots,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_follow_the_device_unless_set() {
        let settings = WorkSettings::default();
        assert_eq!(usize::from(settings.slots_on(Device::Cpu)), crate::threads::cores());
        assert_eq!(settings.slots_on(Device::Cuda(0)), 1);
        assert_eq!(WorkSettings { slots: 3, ..settings }.slots_on(Device::Cuda(0)), 3);
    }
}
