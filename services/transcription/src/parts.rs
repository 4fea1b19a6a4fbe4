//! Windows joined to PCM parts of at most ten minutes.

use warren_audio::{SAMPLE_RATE, Window, pcm};
use warren_messages::wire;

/// Most samples from the start of a part to its end: ten minutes.
pub(crate) const PART_SAMPLES: u64 = 600 * SAMPLE_RATE as u64;

/// A stretch of the recording with windows in it, ready to be stored.
#[derive(Debug, PartialEq)]
pub(crate) struct Part {
    /// 0-based.
    pub ordinal: u32,
    /// Counted from the start of the recording.
    pub first_sample: u64,
    /// Where there may be speech.
    pub windows: Vec<wire::Window>,
    /// 16 kHz mono s16le from the first window's start to the last one's end. Between windows there are zeros: nobody
    /// listens there.
    pub pcm: Vec<u8>,
}

impl Part {
    /// Samples in `pcm`.
    pub(crate) fn samples(&self) -> u64 {
        self.pcm.len() as u64 / 2
    }
}

/// Collects windows, in order, into parts. Silence is in no part, so that a silent recording has none.
#[derive(Debug, Default)]
pub(crate) struct Parts {
    open: Option<Part>,
    finished: u32,
}

impl Parts {
    /// Takes the next window; returns the part that it no longer fits into.
    pub(crate) fn push(&mut self, window: &Window) -> Option<Part> {
        let end = window.first_sample + window.samples.len() as u64;
        let full = self.open.take_if(|part| end > part.first_sample + PART_SAMPLES);
        if full.is_some() {
            self.finished += 1;
        }
        let part = self.open.get_or_insert_with(|| Part {
            ordinal: self.finished,
            first_sample: window.first_sample,
            windows: Vec::new(),
            pcm: Vec::new(),
        });
        let offset = usize::try_from(window.first_sample - part.first_sample).unwrap_or(0) * 2;
        part.pcm.resize(offset.max(part.pcm.len()), 0);
        part.pcm.extend(pcm::to_s16le(&window.samples));
        part.windows.push(wire::Window {
            first_sample: i64::try_from(window.first_sample).unwrap_or(i64::MAX),
            samples: i64::try_from(window.samples.len()).unwrap_or(i64::MAX),
        });
        full
    }

    /// The last part, if there is one.
    pub(crate) fn finish(self) -> Option<Part> {
        self.open
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(first_second: u64, seconds: usize) -> Window {
        Window {
            first_sample: first_second * u64::from(SAMPLE_RATE),
            samples: vec![0.5; seconds * SAMPLE_RATE as usize],
        }
    }

    #[test]
    fn windows_keep_their_place_and_gaps_are_zeros() {
        let mut parts = Parts::default();
        assert_eq!(parts.push(&window(10, 1)), None);
        assert_eq!(parts.push(&window(13, 2)), None);
        let part = parts.finish().expect("one part");
        assert_eq!((part.ordinal, part.first_sample, part.samples()), (0, 160_000, 5 * 16_000));
        let at = |second: usize| i16::from_le_bytes([part.pcm[second * 32_000], part.pcm[second * 32_000 + 1]]);
        assert_eq!([at(0), at(1), at(2), at(3), at(4)], [16_384, 0, 0, 16_384, 16_384]);
        assert_eq!(part.windows[1], wire::Window { first_sample: 13 * 16_000, samples: 2 * 16_000 });
    }

    #[test]
    fn a_part_is_at_most_ten_minutes() {
        let mut parts = Parts::default();
        let mut done = Vec::new();
        for start in (5..3_600).step_by(30) {
            done.extend(parts.push(&window(start, 25)));
        }
        done.extend(parts.finish());
        assert_eq!(done.iter().map(|part| part.ordinal).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5]);
        assert!(done.iter().all(|part| part.samples() <= PART_SAMPLES));
        assert_eq!(done.iter().map(|part| part.windows.len()).sum::<usize>(), 120);
    }

    #[test]
    fn an_hour_of_silence_costs_nothing() {
        let mut parts = Parts::default();
        assert_eq!(parts.push(&window(0, 1)), None);
        let first = parts.push(&window(3_600, 1)).expect("the first part is over");
        assert_eq!(first.samples(), 16_000);
        assert_eq!(parts.finish().map(|part| (part.ordinal, part.samples())), Some((1, 16_000)));
        assert_eq!(Parts::default().finish(), None);
    }
}
