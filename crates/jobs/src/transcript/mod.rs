//! Segments of speech: from task results to one time line, and from there to files.

mod render;
mod stitch;

pub use render::{Document, joined, srt, text, vtt};
pub use stitch::stitch;

use serde::{Deserialize, Serialize};

/// One stretch of speech.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Segment {
    /// Seconds from the start of the recording.
    pub start: f64,
    /// Seconds from the start of the recording; not before `start`.
    pub end: f64,
    /// What was said.
    pub text: String,
    /// Mean natural-log probability of the segment's tokens.
    pub avg_logprob: f32,
    /// Probability that there was no speech.
    pub no_speech_prob: f32,
}
