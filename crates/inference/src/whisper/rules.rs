//! Which tokens may come next.

/// The latest start of the first segment: 1.0 s, in steps of 20 ms.
const LATEST_FIRST_TIME: usize = 50;

/// What the rules must know of a vocabulary: text, then the end token, then other special tokens, then times.
#[derive(Clone, Debug, Default)]
pub(crate) struct Vocabulary {
    /// `<|endoftext|>`; all tokens below it are text.
    pub(crate) end: u32,
    /// `<|0.00|>`; each following token is 20 ms later.
    pub(crate) first_time: u32,
    /// Never decoded.
    pub(crate) suppressed: Vec<u32>,
    /// Not decoded as the first token.
    pub(crate) suppressed_first: Vec<u32>,
}

impl Vocabulary {
    /// Seconds from the start of the audio, for a time token.
    pub(crate) fn seconds(&self, token: u32) -> Option<f64> {
        token.checked_sub(self.first_time).map(|steps| f64::from(steps) * 0.02)
    }

    pub(crate) fn is_time(&self, token: u32) -> bool {
        token >= self.first_time
    }

    /// Forbids what must not come next by setting its score to minus infinity.
    ///
    /// `logits`: one score a token. `said`: the tokens decoded so far, without the prompt. The rules of the reference:
    ///
    /// - The first token is a time of at most 1.0 s.
    /// - Times come in pairs, the end of one segment and the start of the next; only the first and the last time may
    ///   stand alone.
    /// - Times never fall, and no segment is empty.
    ///
    /// Whether a time *must* come next depends on the scores: see [`super::choose`].
    pub(crate) fn restrict(&self, logits: &mut [f32], said: &[u32]) {
        let (end, first_time, len) = (self.end as usize, self.first_time as usize, logits.len());
        for token in &self.suppressed {
            logits[*token as usize] = f32::NEG_INFINITY;
        }

        let Some(last) = said.last() else {
            for token in &self.suppressed_first {
                logits[*token as usize] = f32::NEG_INFINITY;
            }
            logits[..first_time].fill(f32::NEG_INFINITY);
            logits[(first_time + LATEST_FIRST_TIME + 1).min(len)..].fill(f32::NEG_INFINITY);
            return;
        };

        let after_time = self.is_time(*last);
        let after_pair = after_time && (said.len() < 2 || self.is_time(said[said.len() - 2]));
        if after_pair {
            logits[first_time..].fill(f32::NEG_INFINITY);
        } else if after_time {
            logits[..end].fill(f32::NEG_INFINITY);
        }
        if let Some(latest) = said.iter().rev().find(|token| self.is_time(**token)) {
            // The second of a pair may repeat the first; any other time must be later.
            let allowed = if after_time && !after_pair { *latest } else { latest + 1 } as usize;
            logits[first_time..allowed.min(len)].fill(f32::NEG_INFINITY);
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Text 0..10, end 10, special 11..20, times from 20.
    pub(crate) const END: u32 = 10;
    pub(crate) const TIME: u32 = 20;
    const SIZE: usize = 20 + 1501;

    pub(crate) fn vocabulary() -> Vocabulary {
        Vocabulary {
            end: END,
            first_time: TIME,
            suppressed: (11..20).chain([7]).collect(),
            suppressed_first: vec![END, 3],
        }
    }

    fn allowed(said: &[u32]) -> Vec<u32> {
        let mut logits = vec![0.0; SIZE];
        vocabulary().restrict(&mut logits, said);
        (0..SIZE as u32).filter(|token| logits[*token as usize] == 0.0).collect()
    }

    fn text() -> Vec<u32> {
        vec![0, 1, 2, 3, 4, 5, 6, 8, 9]
    }

    #[test]
    fn the_first_token_is_a_time_of_at_most_one_second() {
        assert_eq!(allowed(&[]), (TIME..=TIME + 50).collect::<Vec<_>>());
    }

    #[test]
    fn after_the_first_time_comes_text() {
        assert_eq!(allowed(&[TIME + 5]), [text(), vec![END]].concat());
    }

    #[test]
    fn after_text_comes_text_or_a_later_time() {
        let expected = [text(), vec![END], (TIME + 6..SIZE as u32).collect()].concat();
        assert_eq!(allowed(&[TIME + 5, 1]), expected);
    }

    #[test]
    fn a_closing_time_is_followed_by_its_pair_or_the_end() {
        let expected = [vec![END], (TIME + 9..SIZE as u32).collect()].concat();
        assert_eq!(allowed(&[TIME + 5, 1, TIME + 9]), expected);
    }

    #[test]
    fn a_pair_is_followed_by_text() {
        assert_eq!(allowed(&[TIME + 5, 1, TIME + 9, TIME + 9]), [text(), vec![END]].concat());
    }

    #[test]
    fn at_the_last_time_only_text_and_the_end_are_left() {
        let last = SIZE as u32 - 1;
        assert_eq!(allowed(&[TIME, 1, last, last, 2]), [text(), vec![END]].concat());
        assert_eq!(allowed(&[TIME, 1, last]), [END, last]);
    }
}
