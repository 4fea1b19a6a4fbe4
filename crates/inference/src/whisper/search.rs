//! The search for what was most probably said in one piece: token by token, with one hypothesis or several.

use super::{
    MAX_TOKENS,
    attempt::Attempt,
    choose::{Choice, Draws, choose, likeliest},
    decoder::{Heard, Row, Said},
    rules::Vocabulary,
};
use crate::InferenceError;

/// One way of going on.
struct Hypothesis {
    said: Said,
    /// Decoded last, or of the prompt; the next step adds it.
    token: u32,
    attempt: Attempt,
}

/// The search over one piece.
pub(crate) struct Search {
    /// Index of the piece.
    pub(crate) piece: usize,
    most: usize,
    temperature: f32,
    draws: Draws,
    open: Vec<Hypothesis>,
    ended: Vec<Attempt>,
    /// The latest time that was named, seconds from the start of the piece.
    reached: f64,
}

/// A candidate for the next step: what it goes on from, by its number, and how.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Next {
    from: usize,
    choice: Choice,
}

impl Search {
    /// A search that follows up to `most` hypotheses at once, from the first token of a prompt on. Above temperature 0
    /// tokens are drawn, and only the hypothesis that they make is followed.
    pub(crate) fn new(piece: usize, most: usize, temperature: f32, draws: Draws, said: Said, token: u32) -> Self {
        let open = vec![Hypothesis { said, token, attempt: Attempt::new(temperature, 0.0) }];
        let most = if temperature > 0.0 { 1 } else { most.max(1) };
        Self { piece, most, temperature, draws, open, ended: Vec::new(), reached: 0.0 }
    }

    /// Hypotheses that are followed now: rows of the next step.
    pub(crate) fn width(&self) -> usize {
        self.open.len()
    }

    /// The latest time that was named, seconds from the start of the piece.
    pub(crate) fn reached(&self) -> f64 {
        self.reached
    }

    /// Tokens decoded so far.
    pub(crate) fn length(&self) -> usize {
        self.open.first().map_or(0, |hypothesis| hypothesis.attempt.said.len())
    }

    /// The rows of the next step, for a piece that sounds like `heard`.
    pub(crate) fn rows<'a>(&'a mut self, heard: &'a Heard) -> impl Iterator<Item = Row<'a>> {
        self.open.iter_mut().map(|Hypothesis { said, token, .. }| Row { heard, said, token: *token })
    }

    /// The probability that nobody speaks.
    pub(crate) fn no_speech(&mut self, probability: f32) {
        self.open.iter_mut().for_each(|hypothesis| hypothesis.attempt.no_speech = probability);
    }

    /// The next token is given.
    pub(crate) fn prompt(&mut self, token: u32) {
        self.open.iter_mut().for_each(|hypothesis| hypothesis.token = token);
    }

    /// Takes in the scores of the next token, one list for each row. False when the search is over.
    pub(crate) fn advance(
        &mut self,
        mut logits: Vec<Vec<f32>>,
        vocabulary: &Vocabulary,
    ) -> Result<bool, InferenceError> {
        let mut candidates = Vec::new();
        for (from, (hypothesis, logits)) in self.open.iter().zip(&mut logits).enumerate() {
            vocabulary.restrict(logits, &hypothesis.attempt.said);
            let choices = if self.most == 1 {
                vec![choose(logits, vocabulary.first_time, self.temperature, &mut self.draws)]
            } else {
                // One more than needed, since one of them may be the end.
                likeliest(logits, vocabulary.first_time, self.most + 1)
            };
            candidates.extend(choices.into_iter().map(|choice| Next { from, choice }));
        }
        let total = |next: &Next| self.open[next.from].attempt.logprob() + next.choice.logprob;
        // Stable, so that equals keep their order.
        candidates.sort_by(|a, b| total(b).total_cmp(&total(a)));

        let mut followed = Vec::with_capacity(self.most);
        for Next { from, choice } in candidates {
            if followed.len() == self.most {
                break;
            }
            let Hypothesis { said, attempt, .. } = &self.open[from];
            let mut attempt = attempt.clone();
            if attempt.add(choice, vocabulary) && attempt.said.len() < MAX_TOKENS && said.room() > 0 {
                self.reached = self.reached.max(vocabulary.seconds(choice.token).unwrap_or_default());
                followed.push((from, choice.token, attempt));
            } else {
                self.ended.push(attempt);
            }
        }
        // A loop is the last resort and ends no search.
        let sound = self.ended.iter().filter(|attempt| !attempt.looped()).count();
        if sound >= self.most {
            followed.clear();
        }
        self.follow(followed)?;
        Ok(!self.open.is_empty())
    }

    /// Goes on from the hypotheses named by number. Each is copied for all that follow it but the last.
    fn follow(&mut self, followed: Vec<(usize, u32, Attempt)>) -> Result<(), InferenceError> {
        let mut before: Vec<Option<Said>> = self.open.drain(..).map(|hypothesis| Some(hypothesis.said)).collect();
        let mut followers = vec![0_usize; before.len()];
        followed.iter().for_each(|(from, ..)| followers[*from] += 1);
        for (from, token, attempt) in followed {
            followers[from] -= 1;
            let said = if followers[from] > 0 {
                before[from].as_ref().map(Said::copy).transpose()?
            } else {
                before[from].take()
            };
            let said = said.expect("taken only by the last that follows it");
            self.open.push(Hypothesis { said, token, attempt });
        }
        Ok(())
    }

    /// The most probable of what has ended, by the mean over its tokens, and its piece. A loop only if there is nothing
    /// else.
    ///
    /// # Panics
    /// While the search is not over.
    pub(crate) fn best(self) -> (usize, Attempt) {
        let rank = |attempt: &Attempt| (!attempt.looped(), attempt.avg_logprob());
        let best = self.ended.into_iter().reduce(|best, other| {
            let ((sound, mean), (other_sound, other_mean)) = (rank(&best), rank(&other));
            if (other_sound, other_mean) > (sound, mean) { other } else { best }
        });
        (self.piece, best.expect("a search that is over has ended somewhere"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::whisper::rules::tests::{END, TIME, vocabulary};

    const SIZE: usize = 20 + 1501;

    /// What a model with five words says next, with its probabilities.
    type Model = fn(&[u32]) -> Vec<(u32, f32)>;

    fn search(model: Model, most: usize) -> (Attempt, usize) {
        let mut search = Search::new(7, most, 0.0, Draws::for_audio(&[], 0), Said::empty(300), 0);
        let mut widest = 0;
        loop {
            let scores = |hypothesis: &Hypothesis| {
                let mut logits = vec![f32::NEG_INFINITY; SIZE];
                for (token, probability) in model(&hypothesis.attempt.said) {
                    logits[token as usize] = probability.ln();
                }
                logits
            };
            let logits = search.open.iter().map(scores).collect();
            let goes_on = search.advance(logits, &vocabulary()).unwrap();
            widest = widest.max(search.width());
            if !goes_on {
                let (piece, attempt) = search.best();
                assert_eq!(piece, 7);
                return (attempt, widest);
            }
        }
    }

    /// Likelier at first is 1, but then nothing is likely; after 2 all is sure.
    fn garden_path(said: &[u32]) -> Vec<(u32, f32)> {
        match said {
            [] => vec![(TIME, 1.0)],
            [TIME] => vec![(1, 0.6), (2, 0.4)],
            [TIME, 1] => vec![(4, 0.3), (5, 0.3), (6, 0.4)],
            [TIME, 2] => vec![(4, 1.0)],
            [TIME, .., 4..=6] => vec![(TIME + 50, 1.0)],
            _ => vec![(END, 1.0)],
        }
    }

    #[test]
    fn several_hypotheses_find_what_one_misses() {
        let (greedy, rows) = search(garden_path, 1);
        assert_eq!((greedy.said.as_slice(), rows), (&[TIME, 1, 6, TIME + 50][..], 1));
        let (best, rows) = search(garden_path, 3);
        assert_eq!((best.said.as_slice(), rows), (&[TIME, 2, 4, TIME + 50][..], 3));
        assert!((best.logprob() - 0.4_f32.ln()).abs() < 1e-5 && best.logprob() > greedy.logprob());
    }

    #[test]
    fn a_loop_is_taken_only_when_there_is_nothing_else() {
        fn tempting(said: &[u32]) -> Vec<(u32, f32)> {
            match said {
                [] => vec![(TIME, 1.0)],
                [.., 2] => vec![(TIME + 50, 1.0)],
                [.., last] if *last > TIME => vec![(END, 1.0)],
                [TIME] => vec![(1, 0.9), (2, 0.1)],
                _ => vec![(1, 1.0)],
            }
        }
        assert!(search(tempting, 1).0.looped());
        let (best, _) = search(tempting, 2);
        assert_eq!(best.said, [TIME, 2, TIME + 50]);

        fn endless(said: &[u32]) -> Vec<(u32, f32)> {
            if said.is_empty() { vec![(TIME, 1.0)] } else { vec![(1, 1.0)] }
        }
        assert!(search(endless, 4).0.looped());
    }

    #[test]
    fn a_search_ends_where_the_window_s_tokens_do() {
        fn babble(said: &[u32]) -> Vec<(u32, f32)> {
            let next = (said.len() * said.len() / 3 % 7) as u32;
            if said.is_empty() { vec![(TIME, 1.0)] } else { vec![(next, 0.7), ((next + 1) % 7, 0.3)] }
        }
        let (best, _) = search(babble, 2);
        assert!(best.looped() || best.said.len() == MAX_TOKENS, "{}", best.said.len());
    }
}
