//! Text that repeats itself: the model's way of failing.

use std::io::Write;

use flate2::{Compression, write::ZlibEncoder};

/// Longest phrase that is looked for, in tokens.
const LONGEST_PHRASE: usize = 12;

/// Fewest times in a row, and fewest tokens in all, that make a loop. People do say "no, no, no".
const FEWEST_TIMES: usize = 4;
const FEWEST_TOKENS: usize = 12;

/// Length of the text over its length after zlib. Ordinary text stays under 2.4.
pub(crate) fn compression_ratio(text: &str) -> f32 {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    match encoder.write_all(text.as_bytes()).and_then(|()| encoder.finish()) {
        Ok(compressed) => text.len() as f32 / compressed.len() as f32,
        // Writing to memory does not fail.
        Err(_) => 0.0,
    }
}

/// If `words` ends in a loop, the length up to which it says something new: one round of the phrase is kept.
///
/// `words`: text tokens only, since times differ in every round.
pub(crate) fn loop_start(words: &[u32]) -> Option<usize> {
    (1..=LONGEST_PHRASE).find_map(|phrase| {
        let repeated =
            words.iter().rev().zip(words.iter().rev().skip(phrase)).take_while(|(word, before)| word == before).count();
        let run = repeated + phrase;
        (run >= FEWEST_TIMES * phrase && run >= FEWEST_TOKENS).then(|| words.len() - run + phrase)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_is_found_and_one_round_kept() {
        let words = [vec![9, 8], [1, 2, 3].repeat(4)].concat();
        assert_eq!(loop_start(&words), Some(5));
        assert_eq!(loop_start(&[5].repeat(12)), Some(1));
    }

    #[test]
    fn ordinary_repetition_is_no_loop() {
        assert_eq!(loop_start(&[]), None);
        assert_eq!(loop_start(&[4, 4, 4, 4, 4]), None);
        assert_eq!(loop_start(&[1, 2, 3].repeat(3)), None);
        assert_eq!(loop_start(&(0..100).collect::<Vec<_>>()), None);
        let ended = [[1, 2, 3].repeat(4), vec![7]].concat();
        assert_eq!(loop_start(&ended), None);
    }

    #[test]
    fn repeated_text_compresses_beyond_the_threshold() {
        assert!(compression_ratio("And so, my fellow Americans, ask not what your country can do for you.") < 2.4);
        assert!(compression_ratio(&"Thank you for watching. ".repeat(10)) > 2.4);
    }
}
