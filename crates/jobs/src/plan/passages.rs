//! Passages: the pieces of a transcript that search finds.

use std::ops::Range;

use crate::transcript::Segment;

/// A passage is complete from this many words on.
const ENOUGH_WORDS: usize = 40;
/// No passage is longer.
pub const MAX_WORDS: usize = 80;
/// A passage is complete from this many seconds on.
const ENOUGH_SECONDS: f64 = 20.0;
/// A longer silence ends a passage.
const MAX_GAP_SECONDS: f64 = 2.0;

/// A few sentences that belong together.
#[derive(Clone, Debug, PartialEq)]
pub struct Passage {
    /// Seconds from the start of the recording.
    pub start: f64,
    /// Seconds from the start of the recording.
    pub end: f64,
    /// The words.
    pub text: String,
}

/// Merges consecutive segments until a passage has about 40 words or 20 seconds. Passages begin and end with segments;
/// a silence of more than 2 s ends one, and a segment of more than 80 words is split between words, its time shared
/// out evenly. In scripts without spaces, two characters count as a word.
pub fn passages(segments: &[Segment]) -> Vec<Passage> {
    let mut done = Vec::new();
    let mut open: Option<(Passage, usize)> = None;
    for (piece, words) in segments.iter().flat_map(pieces) {
        open = Some(match open.take() {
            Some((mut passage, so_far))
                if piece.start - passage.end <= MAX_GAP_SECONDS && so_far + words <= MAX_WORDS =>
            {
                append(&mut passage.text, &piece.text);
                passage.end = piece.end;
                (passage, so_far + words)
            }
            full => {
                done.extend(full.map(|(passage, _)| passage));
                (piece, words)
            }
        });
        let complete = |(passage, words): &mut (Passage, usize)| {
            *words >= ENOUGH_WORDS || passage.end - passage.start >= ENOUGH_SECONDS
        };
        done.extend(open.take_if(complete).map(|(passage, _)| passage));
    }
    done.extend(open.map(|(passage, _)| passage));
    done
}

/// A segment as one piece, or as several of nearly equal length if it is too long, each with its number of words.
fn pieces(segment: &Segment) -> Vec<(Passage, usize)> {
    let words = words(&segment.text);
    let parts = words.len().div_ceil(MAX_WORDS).max(1);
    let size = words.len().div_ceil(parts).max(1);
    let at = |word: usize| segment.start + (segment.end - segment.start) * word as f64 / words.len() as f64;
    words
        .chunks(size)
        .enumerate()
        .map(|(part, chunk)| {
            let text = segment.text[chunk[0].start..chunk[chunk.len() - 1].end].to_owned();
            let first = part * size;
            (Passage { start: at(first), end: at(first + chunk.len()), text }, chunk.len())
        })
        .collect()
}

/// Byte ranges of the words.
fn words(text: &str) -> Vec<Range<usize>> {
    let mut words: Vec<Range<usize>> = Vec::new();
    let mut characters = 0;
    let mut last = ' ';
    for (at, c) in text.char_indices() {
        let end = at + c.len_utf8();
        if !c.is_whitespace() {
            characters += 1;
            let breaks = is_unspaced(c) && characters > 2 || is_unspaced(c) != is_unspaced(last) && c.is_alphanumeric();
            match words.last_mut() {
                Some(word) if !last.is_whitespace() && !breaks => word.end = end,
                _ => {
                    words.push(at..end);
                    characters = 1;
                }
            }
        }
        last = c;
    }
    words
}

fn append(text: &mut String, piece: &str) {
    let unspaced = text.chars().next_back().is_some_and(is_unspaced) || piece.chars().next().is_some_and(is_unspaced);
    if !unspaced {
        text.push(' ');
    }
    text.push_str(piece);
}

/// True for characters of scripts without spaces: Thai, Lao, Tibetan, Myanmar, Khmer, kana and Han, with their
/// punctuation. Hangul is written with spaces.
const fn is_unspaced(c: char) -> bool {
    matches!(c,
        '\u{0e00}'..='\u{0fff}'
        | '\u{1000}'..='\u{109f}'
        | '\u{1780}'..='\u{17ff}'
        | '\u{3000}'..='\u{30ff}'
        | '\u{31f0}'..='\u{31ff}'
        | '\u{3400}'..='\u{4dbf}'
        | '\u{4e00}'..='\u{9fff}'
        | '\u{f900}'..='\u{faff}'
        | '\u{ff00}'..='\u{ffef}'
        | '\u{20000}'..='\u{3ffff}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn segment(start: f64, end: f64, text: impl Into<String>) -> Segment {
        Segment { start, end, text: text.into(), ..Segment::default() }
    }

    fn said(words: usize) -> String {
        vec!["word"; words].join(" ")
    }

    fn shape(segments: &[Segment]) -> Vec<(f64, f64, usize)> {
        passages(segments).iter().map(|p| (p.start, p.end, words(&p.text).len())).collect()
    }

    #[test]
    fn segments_are_merged_until_there_are_enough_words() {
        let segments: Vec<_> =
            (0..5_u32).map(|i| segment(f64::from(i) * 3.0, f64::from(i) * 3.0 + 3.0, said(15))).collect();
        assert_eq!(shape(&segments), [(0.0, 9.0, 45), (9.0, 15.0, 30)]);
    }

    #[test]
    fn twenty_seconds_are_enough_too() {
        let segments = [segment(0.0, 12.0, said(3)), segment(12.0, 21.0, said(3)), segment(21.0, 25.0, said(3))];
        assert_eq!(shape(&segments), [(0.0, 21.0, 6), (21.0, 25.0, 3)]);
    }

    #[test]
    fn a_silence_ends_a_passage() {
        let segments = [segment(0.0, 1.0, said(3)), segment(3.0, 4.0, said(3)), segment(6.5, 7.0, said(3))];
        assert_eq!(shape(&segments), [(0.0, 4.0, 6), (6.5, 7.0, 3)]);
    }

    #[test]
    fn a_long_segment_is_split_between_words() {
        assert_eq!(shape(&[segment(0.0, 16.0, said(160))]), [(0.0, 8.0, 80), (8.0, 16.0, 80)]);
        assert_eq!(
            shape(&[segment(0.0, 1.0, said(39)), segment(1.0, 2.0, said(60))]),
            [(0.0, 1.0, 39), (1.0, 2.0, 60)]
        );
    }

    #[test]
    fn scripts_without_spaces_are_counted_and_joined_without_them() {
        let merged = passages(&[segment(0.0, 1.0, "今天天气"), segment(1.0, 2.0, "很好。")]);
        assert_eq!(merged[0].text, "今天天气很好。");
        let long = passages(&[segment(0.0, 10.0, "字".repeat(400))]);
        assert_eq!(long.iter().map(|p| p.text.chars().count()).collect::<Vec<_>>(), [134, 134, 132]);
    }

    #[test]
    fn silence_makes_no_passage() {
        assert!(passages(&[segment(0.0, 1.0, "  "), segment(1.0, 2.0, "")]).is_empty());
    }

    proptest! {
        #[test]
        fn no_word_is_lost_and_no_passage_is_too_long(
            said in prop::collection::vec((0.0..4.0_f64, 0.0..30.0_f64, "([a-z]{1,4}[ ]{0,2}|[今天气]{1,9}){0,120}"), 0..20),
        ) {
            let mut clock = 0.0;
            let segments: Vec<_> = said.into_iter().map(|(gap, length, text)| {
                let start = clock + gap;
                clock = start + length;
                segment(start, clock, text)
            }).collect();
            let found = passages(&segments);
            let bare = |text: &str| text.split_whitespace().collect::<String>();
            prop_assert_eq!(
                found.iter().map(|p| bare(&p.text)).collect::<String>(),
                segments.iter().map(|s| bare(&s.text)).collect::<String>()
            );
            for passage in &found {
                prop_assert!(!passage.text.trim().is_empty());
                prop_assert!(passage.start <= passage.end);
                prop_assert!(words(&passage.text).len() <= MAX_WORDS);
            }
            prop_assert!(found.windows(2).all(|pair| pair[0].end <= pair[1].start + 1e-9));
        }
    }
}
