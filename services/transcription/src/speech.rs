//! Whisper models on the worker's shelf.

use warren_inference::{Device, InferenceError, Whisper, WhisperOptions};
use warren_models::{Family, Model, ModelDir};
use warren_worker::Loadable;

/// A loaded speech model.
pub(crate) struct Speech(pub(crate) Whisper);

impl Loadable for Speech {
    const FAMILY: Family = Family::Whisper;

    /// Windows; a task has four at most.
    fn rows(_device: Device) -> usize {
        8
    }

    fn load(_model: &Model, files: &ModelDir, device: Device) -> Result<Self, InferenceError> {
        Whisper::open(files, device, WhisperOptions::default()).map(Self)
    }
}
