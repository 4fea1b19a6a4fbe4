//! One decoding of one piece of audio, and whether it is good enough.

use super::{
    choose::Choice,
    repetition::{compression_ratio, loop_start},
    rules::Vocabulary,
};

/// Above this compression ratio the text is thought to repeat itself.
const MAX_COMPRESSION: f32 = 2.4;
/// Below this mean log probability the model is thought to guess.
const MIN_LOGPROB: f32 = -1.0;
/// Above this probability of silence a guess is taken for silence.
const MAX_NO_SPEECH: f32 = 0.6;

/// The temperatures tried in turn. Greedy first; a little chance breaks most loops.
pub(crate) const TEMPERATURES: [f32; 6] = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0];

/// What one decoding has said so far.
#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    pub(crate) temperature: f32,
    pub(crate) no_speech: f32,
    pub(crate) said: Vec<u32>,
    sum_logprob: f32,
    words: Vec<u32>,
    /// The words up to which this says something new, if it ended in a loop.
    looped: Option<usize>,
    compression: f32,
}

/// What to do with a finished attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Good,
    /// Nobody speaks.
    Silence,
    /// To be decoded again at the next temperature.
    Poor,
}

impl Attempt {
    pub(crate) fn new(temperature: f32, no_speech: f32) -> Self {
        Self {
            temperature,
            no_speech,
            said: Vec::new(),
            sum_logprob: 0.0,
            words: Vec::new(),
            looped: None,
            compression: 0.0,
        }
    }

    /// Takes in the next token. False when this was the last one: the end, or a loop.
    pub(crate) fn add(&mut self, choice: Choice, vocabulary: &Vocabulary) -> bool {
        self.sum_logprob += choice.logprob;
        if choice.token == vocabulary.end {
            return false;
        }
        self.said.push(choice.token);
        if choice.token < vocabulary.end {
            self.words.push(choice.token);
            self.looped = loop_start(&self.words);
        }
        self.looped.is_none()
    }

    /// Closes the attempt; `text` is all that it said.
    pub(crate) fn finish(&mut self, text: &str) {
        self.compression = compression_ratio(text.trim());
    }

    /// Natural logarithm of the probability of all that it said.
    pub(crate) fn logprob(&self) -> f32 {
        self.sum_logprob
    }

    pub(crate) fn avg_logprob(&self) -> f32 {
        // The end token counts, too.
        self.sum_logprob / (self.said.len() + 1) as f32
    }

    pub(crate) fn compression(&self) -> f32 {
        self.compression
    }

    pub(crate) fn verdict(&self) -> Verdict {
        let guessing = self.avg_logprob() < MIN_LOGPROB;
        if guessing && self.no_speech > MAX_NO_SPEECH {
            Verdict::Silence
        } else if guessing || self.repeats() {
            Verdict::Poor
        } else {
            Verdict::Good
        }
    }

    /// The better of two poor attempts: one that does not repeat itself, then the more probable one.
    pub(crate) fn better(self, other: Self) -> Self {
        let rank = |attempt: &Self| (!attempt.repeats(), attempt.avg_logprob());
        if rank(&other) > rank(&self) { other } else { self }
    }

    /// Cuts a loop off after its first round.
    pub(crate) fn cut_loop(&mut self, vocabulary: &Vocabulary) {
        let Some(keep) = self.looped else { return };
        let mut words = 0;
        self.said.retain(|token| {
            words += usize::from(*token < vocabulary.end);
            words <= keep
        });
    }

    /// True when it ended in a loop.
    pub(crate) fn looped(&self) -> bool {
        self.looped.is_some()
    }

    fn repeats(&self) -> bool {
        self.looped() || self.compression > MAX_COMPRESSION
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::whisper::rules::tests::{END, TIME, vocabulary};

    fn attempt(said: &[u32], logprob: f32, no_speech: f32) -> Attempt {
        let mut attempt = Attempt::new(0.0, no_speech);
        for token in said.iter().chain([&END]) {
            if !attempt.add(Choice { token: *token, logprob }, &vocabulary()) {
                break;
            }
        }
        attempt
    }

    #[test]
    fn a_confident_attempt_is_good_even_where_silence_is_likely() {
        assert_eq!(attempt(&[TIME, 1, 2, TIME + 9], -0.3, 0.9).verdict(), Verdict::Good);
    }

    #[test]
    fn a_guess_is_silence_or_poor() {
        assert_eq!(attempt(&[TIME, 1, TIME + 9], -1.5, 0.7).verdict(), Verdict::Silence);
        assert_eq!(attempt(&[TIME, 1, TIME + 9], -1.5, 0.5).verdict(), Verdict::Poor);
    }

    #[test]
    fn a_loop_ends_the_attempt_and_can_be_cut() {
        let endless: Vec<u32> = std::iter::once(TIME).chain([1, 2, 3].repeat(50)).collect();
        let mut looped = attempt(&endless, -0.1, 0.0);
        assert_eq!(looped.verdict(), Verdict::Poor);
        assert!(looped.said.len() < 20, "it stops early");
        looped.cut_loop(&vocabulary());
        assert_eq!(looped.said, [TIME, 1, 2, 3]);
    }

    #[test]
    fn the_better_attempt_does_not_loop() {
        let looped = attempt(&[1, 2, 3].repeat(5), -0.1, 0.0);
        let guess = attempt(&[TIME, 1, TIME + 9], -1.5, 0.0);
        let worse = attempt(&[TIME, 2, TIME + 9], -2.5, 0.0);
        assert_eq!(looped.clone().better(guess.clone()).said, guess.said);
        assert_eq!(guess.clone().better(worse).said, guess.said);
        assert_eq!(guess.clone().better(looped).said, guess.said);
    }
}
