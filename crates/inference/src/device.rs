//! Where the arithmetic runs.

use std::{fmt, str::FromStr};

use candle_core::DType;

use crate::InferenceError;

/// A device that can run a model. Read from and written as `cpu` or `cuda:N`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Device {
    /// The processor; all arithmetic in f32.
    #[default]
    Cpu,
    /// The CUDA device with this index; speech in f16, text vectors in f32. Needs a build with the feature `cuda`.
    Cuda(usize),
}

impl Device {
    /// Opens the device.
    pub(crate) fn open(self) -> Result<candle_core::Device, InferenceError> {
        match self {
            Self::Cpu => Ok(candle_core::Device::Cpu),
            #[cfg(feature = "cuda")]
            Self::Cuda(index) => card(index),
            #[cfg(not(feature = "cuda"))]
            Self::Cuda(_) => Err(InferenceError::Unsupported(format!(
                "device {self} needs a build with the feature `cuda`; this build knows only `cpu`"
            ))),
        }
    }

    /// The number format that speech models have on this device.
    pub(crate) fn dtype(self) -> DType {
        match self {
            Self::Cpu => DType::F32,
            Self::Cuda(_) => DType::F16,
        }
    }
}

/// The card with this index. All models of the process share one handle: each takes a hundred megabytes of the card for
/// the driver's libraries.
#[cfg(feature = "cuda")]
fn card(index: usize) -> Result<candle_core::Device, InferenceError> {
    use std::{
        collections::BTreeMap,
        sync::{Mutex, PoisonError},
    };
    static OPEN: Mutex<BTreeMap<usize, candle_core::Device>> = Mutex::new(BTreeMap::new());
    let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(device) = open.get(&index) {
        return Ok(device.clone());
    }
    let device = candle_core::Device::new_cuda(index)?;
    open.insert(index, device.clone());
    Ok(device)
}

/// Bytes that a model takes beyond what is counted tensor by tensor. A card's driver gives memory out in blocks of 32 MiB,
/// and its libraries load with the first work: on an H100, tiny.en took 45 MiB more than its tensors.
pub(crate) fn uncounted_bytes(device: &candle_core::Device) -> u64 {
    if device.is_cpu() { 0 } else { 128 << 20 }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}

/// The text names no device.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no device; write `cpu`, or `cuda:0` for the first CUDA device")]
pub struct ParseDeviceError(String);

impl FromStr for Device {
    type Err = ParseDeviceError;

    fn from_str(name: &str) -> Result<Self, ParseDeviceError> {
        if name == "cpu" {
            return Ok(Self::Cpu);
        }
        name.strip_prefix("cuda:")
            .and_then(|index| index.parse().ok())
            .map(Self::Cuda)
            .ok_or_else(|| ParseDeviceError(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back() {
        for device in [Device::Cpu, Device::Cuda(0), Device::Cuda(7)] {
            assert_eq!(device.to_string().parse(), Ok(device));
        }
        for wrong in ["", "gpu", "cuda", "cuda:", "cuda:-1", "cuda:x"] {
            assert!(wrong.parse::<Device>().is_err(), "{wrong}");
        }
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn a_cpu_build_refuses_cuda() {
        assert!(matches!(Device::Cuda(0).open(), Err(InferenceError::Unsupported(_))));
    }
}
