//! Where the windows of a task are: in its PCM part, and on the recording's time line.

use std::ops::Range;

use warren_audio::SAMPLE_RATE;
use warren_fault::{Code, Fault};
use warren_inference::SpokenSegment;
use warren_messages::wire;

/// Bytes of one stored sample.
const BYTES: i64 = 2;

/// The stretch of a PCM part that holds a task's windows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stretch {
    /// First byte in the part.
    pub first_byte: u64,
    /// Bytes to read.
    pub bytes: u64,
    /// The windows, as ranges of the samples read.
    pub windows: Vec<Range<usize>>,
}

impl Stretch {
    /// The stretch from the first window's start to the last one's end. The windows are in order: the message was
    /// checked when it was decoded.
    ///
    /// # Errors
    /// `Malformed` when a window lies before its part.
    pub(crate) fn of(task: &wire::TranscribeTask) -> Result<Self, Fault> {
        let malformed = || Fault::permanent(Code::Malformed, "transcribe.windows: must lie in their part, in order");
        let (Some(first), Some(last)) = (task.windows.first(), task.windows.last()) else { return Err(malformed()) };
        let start = first.first_sample;
        let offset = start.checked_sub(task.part_first_sample).and_then(|samples| samples.checked_mul(BYTES));
        let length = last.first_sample.checked_add(last.samples).and_then(|end| end.checked_sub(start));
        let whole = |value: Option<i64>| value.and_then(|value| u64::try_from(value).ok()).ok_or_else(malformed);
        let index = |sample: i64| usize::try_from(sample).map_err(|_| malformed());
        Ok(Self {
            first_byte: whole(offset)?,
            bytes: whole(length.and_then(|samples| samples.checked_mul(BYTES)))?,
            windows: task
                .windows
                .iter()
                .map(|window| {
                    let from = index(window.first_sample - start)?;
                    Ok(from..from + index(window.samples)?)
                })
                .collect::<Result<_, Fault>>()?,
        })
    }

    /// Seconds of audio in the windows.
    pub(crate) fn seconds(&self) -> f64 {
        self.windows.iter().map(|window| window.len() as f64 / f64::from(SAMPLE_RATE)).sum()
    }
}

/// Moves segments from the time of their window to that of the recording.
pub(crate) fn on_the_recording(
    windows: &[wire::Window],
    spoken: Vec<Vec<SpokenSegment>>,
) -> Vec<wire::TranscribedSegment> {
    let seconds = |samples: i64| samples as f64 / f64::from(SAMPLE_RATE);
    let moved = |(window, segments): (&wire::Window, Vec<SpokenSegment>)| {
        let from = seconds(window.first_sample);
        segments.into_iter().map(move |segment| wire::TranscribedSegment {
            start: from + segment.start,
            end: from + segment.end,
            text: segment.text,
            avg_logprob: segment.avg_logprob,
            no_speech_prob: segment.no_speech_prob,
        })
    };
    windows.iter().zip(spoken).flat_map(moved).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(part: i64, windows: &[(i64, i64)]) -> wire::TranscribeTask {
        let windows = windows
            .iter()
            .map(|(first_sample, samples)| wire::Window { first_sample: *first_sample, samples: *samples });
        wire::TranscribeTask { part_first_sample: part, windows: windows.collect(), ..Default::default() }
    }

    #[test]
    fn one_read_covers_all_windows() {
        let stretch = Stretch::of(&task(1_000, &[(1_100, 50), (1_200, 100)])).expect("in order");
        assert_eq!(stretch, Stretch { first_byte: 200, bytes: 400, windows: vec![0..50, 100..200] });
        assert!((stretch.seconds() - 150.0 / 16_000.0).abs() < 1e-12);
    }

    #[test]
    fn windows_outside_of_the_part_are_malformed() {
        for wrong in [task(1_000, &[(999, 5)]), task(i64::MIN, &[(i64::MAX, 0)]), task(0, &[])] {
            let fault = Stretch::of(&wrong).expect_err("not in the part");
            assert_eq!(fault.cause().code, Code::Malformed);
        }
    }

    #[test]
    fn segments_move_to_the_recordings_time() {
        let said = |start, end, text: &str| SpokenSegment {
            start,
            end,
            text: text.to_owned(),
            avg_logprob: -0.25,
            no_speech_prob: 0.125,
            compression_ratio: 1.0,
            temperature: 0.0,
        };
        let windows = task(0, &[(16_000, 16_000), (160_000, 480_000)]).windows;
        let moved = on_the_recording(&windows, vec![vec![said(0.0, 0.5, "one")], vec![said(2.0, 3.5, "two")]]);
        let times: Vec<_> = moved.iter().map(|segment| (segment.start, segment.end, segment.text.as_str())).collect();
        assert_eq!(times, [(1.0, 1.5, "one"), (12.0, 13.5, "two")]);
        assert_eq!((moved[0].avg_logprob, moved[0].no_speech_prob), (-0.25, 0.125));
    }
}
