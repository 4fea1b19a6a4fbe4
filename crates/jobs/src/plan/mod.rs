//! Cutting a job into tasks, and a transcript into passages.

mod passages;
mod tasks;

pub use passages::{MAX_WORDS, Passage, passages};
pub use tasks::{
    MAX_INLINE_BYTES, MAX_TEXTS, MAX_TEXTS_BYTES, MAX_TEXTS_OBJECT_BYTES, SAMPLE_RATE, TaskLimits, Window,
    embed_batches, transcribe_tasks,
};
