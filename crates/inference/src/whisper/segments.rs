//! From decoded tokens to timed segments.

use super::rules::Vocabulary;

/// Seconds and text tokens of one segment.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Span {
    pub(crate) start: f64,
    pub(crate) end: f64,
    pub(crate) tokens: Vec<u32>,
}

/// What one pass over a piece of audio said.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Spans {
    /// Segments with a start and an end.
    pub(crate) closed: Vec<Span>,
    /// Text after the last time, whose end the model did not say. Its end is the end of the audio.
    pub(crate) open: Option<Span>,
    /// Where the model stopped in the middle of things, in seconds: what follows is to be heard again from there.
    /// As the reference, only after a pair of times that is not the last thing said.
    pub(crate) resume: Option<f64>,
    /// Where the model closed its last segment and fell silent before the end of the audio. The reference believes
    /// that nothing more is said; after a change of speaker that is not so.
    pub(crate) silent_from: Option<f64>,
}

/// Splits `said` at its times. `duration`: seconds of audio; nothing ends later, and what starts later is dropped.
pub(crate) fn spans(said: &[u32], vocabulary: &Vocabulary, duration: f64) -> Spans {
    let mut spans = Spans::default();
    let mut start = 0.0;
    let mut words = Vec::new();
    let mut pair = None;
    for (index, token) in said.iter().enumerate() {
        let Some(time) = vocabulary.seconds(*token) else {
            words.push(*token);
            continue;
        };
        if words.is_empty() {
            if index > 0 && vocabulary.is_time(said[index - 1]) {
                pair = Some(time);
            }
        } else {
            spans.closed.push(Span { start, end: time.min(duration), tokens: std::mem::take(&mut words) });
        }
        start = time;
    }
    let closed_at_the_end = match said {
        [.., before, last] => vocabulary.is_time(*last) && !vocabulary.is_time(*before),
        _ => false,
    };
    if closed_at_the_end {
        spans.silent_from = Some(start).filter(|time| *time < duration);
    } else {
        spans.resume = pair.filter(|time| *time < duration);
    }
    if !words.is_empty() {
        spans.open = Some(Span { start, end: duration, tokens: words });
    }
    spans.closed.retain(|span| span.start < duration);
    spans.open = spans.open.filter(|span| span.start < duration);
    spans
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::whisper::rules::tests::{TIME, vocabulary};

    fn span(start: f64, end: f64, tokens: &[u32]) -> Span {
        Span { start, end, tokens: tokens.to_vec() }
    }

    fn run(said: &[u32], duration: f64) -> Spans {
        spans(said, &vocabulary(), duration)
    }

    #[test]
    fn pairs_of_times_part_segments() {
        let got = run(&[TIME, 1, 2, TIME + 50, TIME + 100, 3, TIME + 150], 20.0);
        assert_eq!(got.closed, [span(0.0, 1.0, &[1, 2]), span(2.0, 3.0, &[3])]);
        assert_eq!((got.open, got.resume, got.silent_from), (None, None, Some(3.0)));
    }

    #[test]
    fn a_trailing_pair_asks_to_go_on_from_there() {
        let got = run(&[TIME, 1, TIME + 50, TIME + 50], 20.0);
        assert_eq!(got.closed, [span(0.0, 1.0, &[1])]);
        assert_eq!(got.resume, Some(1.0));
    }

    #[test]
    fn text_without_an_end_lasts_to_the_end_of_the_audio() {
        let got = run(&[TIME + 25, 1, 2], 4.0);
        assert_eq!(got.open, Some(span(0.5, 4.0, &[1, 2])));
        assert_eq!(got.resume, None);

        let got = run(&[TIME, 1, TIME + 50, TIME + 50, 2], 4.0);
        assert_eq!(got.open, Some(span(1.0, 4.0, &[2])));
        assert_eq!(got.resume, Some(1.0));
    }

    #[test]
    fn nothing_passes_the_end_of_the_audio() {
        let got = run(&[TIME, 1, TIME + 200, TIME + 300, 2, TIME + 400], 3.0);
        assert_eq!(got.closed, [span(0.0, 3.0, &[1])]);
        let got = run(&[TIME, 1, TIME + 200, TIME + 300], 3.0);
        assert_eq!(got.resume, None);
    }
}
