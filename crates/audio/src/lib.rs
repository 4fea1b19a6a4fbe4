//! Recordings in, 16 kHz mono samples, windows of speech and log-mel spectra out.
//!
//! The way of a recording: [`sniff`] decides by content whether it is one at all, a [`Decoder`] turns it into blocks
//! of 16 kHz mono samples, a [`Cutter`] turns the blocks into windows of at most 30 s with silence left out, and a
//! [`MelSpectrogram`] turns a window into what Whisper reads. Everything streams: a ten-hour recording needs the same
//! memory as a ten-minute one. Calls block; give them a thread of their own.

mod cutter;
mod declared;
mod decode;
mod error;
mod ffmpeg;
mod limits;
mod mel;
mod packets;
pub mod pcm;
mod resample;
mod sniff;
mod source;
mod wave;

pub use cutter::{Cutter, MAX_WINDOW, Window};
pub use declared::declared_seconds;
pub use decode::{BLOCK, Decoder, Format};
pub use error::AudioError;
pub use limits::{DecodeOptions, Limits};
pub use mel::{MEL_FRAMES, MelSpectrogram};
pub use sniff::{Container, HEAD_BYTES, NotAudio, sniff};
pub use source::Source;

/// Samples per second of everything that leaves this crate. One channel, always.
pub const SAMPLE_RATE: u32 = 16_000;
