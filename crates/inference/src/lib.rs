//! Speech to text and text to vectors, on the CPU or one CUDA device.
//!
//! - [`Whisper`] turns windows of speech into timed text.
//! - [`Embedder`] turns texts into unit vectors.
//!
//! Every forward pass asks a [`Gate`] first. The lease on the device, cancellation and the record of who used the
//! device when all hang on it, so no pass runs unasked.
//!
//! On the CPU all arithmetic is f32 and the result for one window or row never depends on what else is in the batch:
//! see [`Whisper::transcribe`].

mod device;
mod embedder;
mod error;
mod gate;
mod kernels;
mod layers;
mod memory;
mod threads;
mod weights;
mod whisper;

pub use device::{Device, ParseDeviceError};
pub use embedder::{Embedder, EmbedderOptions, Pooling};
pub use error::InferenceError;
pub use gate::{Gate, Interrupted, Ungated, pass};
pub use memory::{Memory, Probe};
pub use whisper::{MAX_BEAM_SIZE, SpeechOptions, SpeechOutput, SpokenSegment, Whisper, WhisperOptions};
