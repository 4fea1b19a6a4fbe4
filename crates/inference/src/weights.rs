//! Reading tensors from a safetensors file.

use std::{collections::HashMap, path::Path};

use candle_core::{DType, Device, Tensor};
use safetensors::{Dtype, SafeTensors};

use crate::InferenceError;

/// The tensors of one file, converted to a device's number format as they are asked for.
///
/// Peak memory is the file plus what was taken so far; half-precision files are widened one tensor at a time.
pub(crate) struct Weights<'a> {
    tensors: SafeTensors<'a>,
    path: &'a Path,
    device: Device,
    dtype: DType,
}

/// Reads a whole file of the model.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, InferenceError> {
    std::fs::read(path).map_err(|error| InferenceError::reading(path, &error))
}

impl<'a> Weights<'a> {
    /// `bytes` is the content of the file at `path`, which only serves messages.
    pub(crate) fn parse(bytes: &'a [u8], path: &'a Path, device: Device, dtype: DType) -> Result<Self, InferenceError> {
        let tensors = SafeTensors::deserialize(bytes).map_err(|error| InferenceError::corrupt(path, error))?;
        Ok(Self { tensors, path, device, dtype })
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.tensors.tensor(name).is_ok()
    }

    pub(crate) fn shape(&self, name: &str) -> Result<Vec<usize>, InferenceError> {
        Ok(self.view(name)?.shape().to_vec())
    }

    pub(crate) fn tensor(&self, name: &str) -> Result<Tensor, InferenceError> {
        let view = self.view(name)?;
        let dtype = match view.dtype() {
            Dtype::F32 => DType::F32,
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::BF16,
            // Some exports carry their position numbers along; they are never used as numbers.
            Dtype::I64 => DType::I64,
            other => return Err(self.corrupt(format!("tensor `{name}` has the unknown type {other:?}"))),
        };
        let tensor = Tensor::from_raw_buffer(view.data(), dtype, view.shape(), &Device::Cpu)?;
        Ok(tensor.to_dtype(self.dtype)?.to_device(&self.device)?)
    }

    /// The tensor, or `None` where the model has none of this name.
    pub(crate) fn optional(&self, name: &str) -> Result<Option<Tensor>, InferenceError> {
        if self.has(name) { self.tensor(name).map(Some) } else { Ok(None) }
    }

    pub(crate) fn device(&self) -> &Device {
        &self.device
    }

    pub(crate) fn dtype(&self) -> DType {
        self.dtype
    }

    /// All tensors by name.
    pub(crate) fn all(&self) -> Result<HashMap<String, Tensor>, InferenceError> {
        self.tensors.names().into_iter().map(|name| Ok((name.to_string(), self.tensor(name)?))).collect()
    }

    /// The file is not what the model needs.
    pub(crate) fn corrupt(&self, reason: impl ToString) -> InferenceError {
        InferenceError::corrupt(self.path, reason)
    }

    /// Bytes that all tensors take in the device's number format.
    pub(crate) fn bytes_loaded(&self) -> u64 {
        let values: usize = self.tensors.tensors().iter().map(|(_, view)| view.shape().iter().product::<usize>()).sum();
        (values * self.dtype.size_in_bytes()) as u64
    }

    fn view(&self, name: &str) -> Result<safetensors::tensor::TensorView<'_>, InferenceError> {
        self.tensors.tensor(name).map_err(|_| InferenceError::corrupt(self.path, format!("it has no tensor `{name}`")))
    }
}
