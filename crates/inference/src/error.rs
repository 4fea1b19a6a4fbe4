//! How inference fails.

use std::path::{Path, PathBuf};

use warren_fault::{Code, Fault};

use crate::Interrupted;

/// Why a model could not be loaded or run.
#[derive(Debug, thiserror::Error)]
pub enum InferenceError {
    /// The gate stopped the work between two forward passes.
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
    /// The input cannot be processed as it is; the message says which part.
    #[error("{0}")]
    InputInvalid(String),
    /// The model or this build cannot do what was asked.
    #[error("{0}")]
    Unsupported(String),
    /// A file of the model is not there.
    #[error("{} is missing; fetch the model with `warren models pull`", path.display())]
    ModelMissing {
        /// The missing file.
        path: PathBuf,
    },
    /// A file of the model cannot be used.
    #[error("{}: {reason}; fetch it again with `warren models pull --force`", path.display())]
    ModelCorrupt {
        /// The file at fault.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The device has no room for the model or the batch.
    #[error("out of device memory: {0}")]
    OutOfMemory(String),
    /// Somebody else has the device's memory; with the bytes.
    #[error("{0}")]
    Occupied(String),
    /// The arithmetic failed; a defect in Warren or in the device.
    #[error("inference failed: {0}")]
    Internal(String),
}

impl InferenceError {
    /// The documented code.
    pub fn code(&self) -> Code {
        match self {
            Self::Interrupted(Interrupted::Cancelled) => Code::Cancelled,
            Self::Interrupted(Interrupted::LeaseLost | Interrupted::Yield) => Code::LeaseNotGranted,
            Self::InputInvalid(_) => Code::InputInvalid,
            Self::Unsupported(_) => Code::Unsupported,
            Self::ModelMissing { .. } => Code::ModelMissing,
            Self::ModelCorrupt { .. } => Code::ModelCorrupt,
            Self::OutOfMemory(_) | Self::Occupied(_) => Code::OutOfMemory,
            Self::Internal(_) => Code::Internal,
        }
    }

    /// How the message that asked for the work is settled.
    pub fn fault(&self) -> Fault {
        let (code, message) = (self.code(), self.to_string());
        match self {
            Self::Interrupted(Interrupted::LeaseLost | Interrupted::Yield) => Fault::retry_later(code, message),
            // Weights are mended by an operator, not by the job's caller: the task waits for it.
            Self::ModelMissing { .. } | Self::ModelCorrupt { .. } => Fault::retry_later(code, message),
            Self::Occupied(_) => Fault::retry_later(code, message),
            Self::OutOfMemory(_) | Self::Internal(_) => Fault::retryable(code, message),
            Self::Interrupted(Interrupted::Cancelled) | Self::InputInvalid(_) | Self::Unsupported(_) => {
                Fault::permanent(code, message)
            }
        }
    }

    pub(crate) fn corrupt(path: &Path, reason: impl ToString) -> Self {
        Self::ModelCorrupt { path: path.to_owned(), reason: reason.to_string() }
    }

    /// What fails while the file at `path` is loaded is its fault, unless the device is full.
    pub(crate) fn loading(self, path: &Path) -> Self {
        match self {
            Self::Internal(reason) => Self::corrupt(path, reason),
            other => other,
        }
    }

    pub(crate) fn reading(path: &Path, error: &std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::NotFound => Self::ModelMissing { path: path.to_owned() },
            _ => Self::corrupt(path, error),
        }
    }
}

impl From<candle_core::Error> for InferenceError {
    fn from(error: candle_core::Error) -> Self {
        // Candle boxes the driver's error without a type to match on, so the driver's own names are looked for.
        let message = without_backtrace(error).to_string();
        let full = ["OUT_OF_MEMORY", "out of memory", "ALLOC_FAILED"].iter().any(|name| message.contains(name));
        if full { Self::OutOfMemory(message) } else { Self::Internal(message) }
    }
}

/// With `RUST_BACKTRACE` set, candle takes a backtrace for each of its errors. To print one takes seconds, and tells nothing
/// to the caller whose job shows the message.
fn without_backtrace(error: candle_core::Error) -> candle_core::Error {
    use candle_core::Error::{Context, WithBacktrace, WithPath};
    match error {
        WithBacktrace { inner, .. } => without_backtrace(*inner),
        WithPath { inner, path } => WithPath { inner: Box::new(without_backtrace(*inner)), path },
        Context { inner, context } => Context { inner: Box::new(without_backtrace(*inner)), context },
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_device_is_told_from_a_defect() {
        let full = candle_core::Error::Msg("DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")".into());
        assert_eq!(InferenceError::from(full).code(), Code::OutOfMemory);
        let defect = candle_core::Error::Msg("shape mismatch in matmul".into());
        assert_eq!(InferenceError::from(defect).code(), Code::Internal);
    }

    #[test]
    fn a_message_has_no_backtrace() {
        let traced = candle_core::Error::WithBacktrace {
            inner: Box::new(candle_core::Error::Msg("shape mismatch".into())),
            backtrace: Box::new(std::backtrace::Backtrace::force_capture()),
        };
        let error = InferenceError::from(traced.with_path("model.safetensors"));
        assert_eq!(
            error.to_string(),
            InferenceError::Internal("path: \"model.safetensors\" shape mismatch".into()).to_string()
        );
    }

    #[test]
    fn a_lost_lease_spends_no_attempt() {
        let fault = InferenceError::from(Interrupted::LeaseLost).fault();
        assert!(matches!(fault, Fault::RetryLater { .. }));
    }
}
