//! How much work goes into one message.

use std::ops::Range;

/// Samples per second of prepared audio.
pub const SAMPLE_RATE: u64 = 16_000;
/// Most bytes of text that travel inside one task.
pub const MAX_INLINE_BYTES: usize = 32 * 1024;
/// Most bytes of all texts of one job together.
pub const MAX_TEXTS_BYTES: usize = 4 << 20;
/// Most bytes of them in storage, one JSON string a line: a control character is written in six bytes, and every text
/// has two quotes and the end of its line.
pub const MAX_TEXTS_OBJECT_BYTES: u64 = 9 * MAX_TEXTS_BYTES as u64;
/// Most texts in one embed task.
pub const MAX_TEXTS: usize = 256;

/// A stretch of audio with speech, at most 30 s, cut at quiet spots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Window {
    /// Counted from the start of the recording, at 16 kHz.
    pub first_sample: u64,
    /// Length, at 16 kHz.
    pub samples: u64,
}

impl Window {
    /// Length in seconds.
    pub fn seconds(&self) -> f64 {
        self.samples as f64 / SAMPLE_RATE as f64
    }
}

/// How large a transcribe task may be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TaskLimits {
    /// Most windows. Default 4.
    pub max_windows: usize,
    /// Most seconds of audio. Default 120.
    pub max_seconds: f64,
    /// Seconds of audio that the slowest live worker transcribes in one chunk time. Default 120.
    pub target_seconds: f64,
}

impl Default for TaskLimits {
    fn default() -> Self {
        Self { max_windows: 4, max_seconds: 120.0, target_seconds: 120.0 }
    }
}

/// Groups the windows of one part into tasks: consecutive windows, in order, each in exactly one task. A task stays
/// within all limits, unless it is a single window that is longer by itself.
pub fn transcribe_tasks(windows: &[Window], limits: &TaskLimits) -> Vec<Vec<Window>> {
    let most = limits.max_seconds.min(limits.target_seconds);
    let mut tasks: Vec<Vec<Window>> = Vec::new();
    let mut seconds = 0.0;
    for window in windows {
        match tasks.last_mut() {
            Some(task) if task.len() < limits.max_windows && seconds + window.seconds() <= most => {
                task.push(*window);
                seconds += window.seconds();
            }
            _ => {
                tasks.push(vec![*window]);
                seconds = window.seconds();
            }
        }
    }
    tasks
}

/// Groups texts into embed tasks by their lengths in bytes. Returns ranges of consecutive texts that cover all of
/// them; each holds at most `max_texts` and `max_bytes`, unless it is one text that is longer by itself.
pub fn embed_batches(
    lengths: impl IntoIterator<Item = usize>,
    max_bytes: usize,
    max_texts: usize,
) -> Vec<Range<usize>> {
    let mut batches: Vec<Range<usize>> = Vec::new();
    let mut bytes = 0_usize;
    for (index, length) in lengths.into_iter().enumerate() {
        match batches.last_mut() {
            Some(batch) if batch.len() < max_texts && bytes.saturating_add(length) <= max_bytes => {
                batch.end = index + 1;
                bytes += length;
            }
            _ => {
                batches.push(index..index + 1);
                bytes = length;
            }
        }
    }
    batches
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn windows(seconds: &[u64]) -> Vec<Window> {
        let mut first_sample = 0;
        let mut cut = |seconds: &u64| {
            let window = Window { first_sample, samples: seconds * SAMPLE_RATE };
            first_sample += window.samples;
            window
        };
        seconds.iter().map(&mut cut).collect()
    }

    fn shape(tasks: &[Vec<Window>]) -> Vec<usize> {
        tasks.iter().map(Vec::len).collect()
    }

    #[test]
    fn a_task_is_four_windows_or_one_chunk_time() {
        let ten = windows(&[30; 10]);
        assert_eq!(shape(&transcribe_tasks(&ten, &TaskLimits::default())), [4, 4, 2]);
        let slow = TaskLimits { target_seconds: 60.0, ..TaskLimits::default() };
        assert_eq!(shape(&transcribe_tasks(&ten, &slow)), [2, 2, 2, 2, 2]);
        let slowest = TaskLimits { target_seconds: 1.0, ..TaskLimits::default() };
        assert_eq!(shape(&transcribe_tasks(&ten, &slowest)), [1; 10]);
        assert!(transcribe_tasks(&[], &slow).is_empty());
    }

    #[test]
    fn texts_are_batched_by_bytes_and_count() {
        assert_eq!(embed_batches([10, 10, 10, 50, 1], 25, 256), [0..2, 2..3, 3..4, 4..5]);
        assert_eq!(embed_batches([1; 5], 100, 2), [0..2, 2..4, 4..5]);
        assert!(embed_batches([], 100, 2).is_empty());
    }

    proptest! {
        #[test]
        fn every_window_is_in_one_task(seconds in prop::collection::vec(0_u64..40, 0..60), target in 0.0..150.0) {
            let windows = windows(&seconds);
            let limits = TaskLimits { target_seconds: target, ..TaskLimits::default() };
            let tasks = transcribe_tasks(&windows, &limits);
            for task in &tasks {
                let total: f64 = task.iter().map(Window::seconds).sum();
                prop_assert!(task.len() == 1 || (task.len() <= 4 && total <= target.min(120.0)));
            }
            prop_assert_eq!(tasks.concat(), windows);
        }

        #[test]
        fn every_text_is_in_one_batch(lengths in prop::collection::vec(0_usize..100, 0..80), bytes in 0_usize..300, texts in 0_usize..9) {
            let mut next = 0;
            for batch in embed_batches(lengths.iter().copied(), bytes, texts) {
                prop_assert_eq!(batch.start, next);
                prop_assert!(!batch.is_empty());
                let total: usize = lengths[batch.clone()].iter().sum();
                prop_assert!(batch.len() == 1 || (batch.len() <= texts && total <= bytes));
                next = batch.end;
            }
            prop_assert_eq!(next, lengths.len());
        }
    }
}
