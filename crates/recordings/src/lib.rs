//! Real recordings with known words, for the demo, the tests and the benchmarks.
//!
//! They come from packages of the npm registry and the Python package index, are fetched once into a folder, and are
//! checked byte by byte before every use. Nothing of a package is ever installed or run. Everything here blocks: call
//! it from a thread that may.

mod catalogue;
mod error;
pub mod error_rate;
mod files;
mod joined;
mod library;
mod node;
mod package;
mod progress;
mod tool;

pub use error::RecordingsError;
pub use library::{Library, Recording};
pub use progress::{Phase, Progress};
