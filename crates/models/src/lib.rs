//! Model weights: which there are, where they come from, and whether the bytes on disk are the right ones.
//!
//! A [`Catalogue`] names each model's sources, checksums and abilities. A [`Cache`] fetches a model from the first
//! source that works, converts it to safetensors with the tensor names of Hugging Face, and checks it before use.
//! Everything here blocks: call it from a thread that may.

mod cache;
mod catalogue;
mod config;
mod ctranslate2;
mod disk;
mod error;
mod export;
mod hub;
mod inspect;
mod manifest;
mod package;
mod progress;
mod pull;
mod safetensors;
mod settings;
mod sources;
pub mod testing;
mod verified;

pub use cache::{Cache, ModelDir, Status};
pub use catalogue::{Catalogue, Embedding, Family, Languages, Model, Pooling, USUAL};
pub use error::ModelError;
pub use progress::{Phase, Progress};
pub use pull::{PullOptions, Pulled};
pub use settings::ModelsSettings;
pub use sources::{Format, HubFile, Member, Source, Wheel};
