//! Section `work` of a worker's settings.

use serde::{Deserialize, Serialize};
use warren_inference::Device;

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
}

impl Default for WorkSettings {
    fn default() -> Self {
        Self { slots: 0, models_loaded: 2, pull: true }
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
        Ok(())
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
