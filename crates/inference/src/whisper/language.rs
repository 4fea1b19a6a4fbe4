//! Which language is spoken.

use super::{
    Whisper,
    choose::probability,
    decoder::{Heard, Row},
};
use crate::{Gate, InferenceError, gate::pass};

/// What a window sounds like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Detected {
    /// Index into the model's languages.
    pub(crate) language: usize,
    /// Among all languages of the model.
    pub(crate) probability: f32,
    /// Probability that nobody speaks.
    pub(crate) no_speech: f32,
}

impl Whisper {
    /// Asks the decoder for the token that follows the start: the language.
    pub(crate) fn detect(&self, heard: &Heard, gate: &dyn Gate) -> Result<Detected, InferenceError> {
        let logits = pass(gate, "detect", || {
            self.threads.run(|| {
                let mut said = self.decoder.start(1)?;
                let hidden = self.decoder.step(&mut [Row { heard, said: &mut said, token: self.tokens.start }])?;
                self.decoder.logits(&hidden)
            })
        })?;
        let logits = logits.into_iter().next().unwrap_or_default();
        let scores: Vec<f32> = self.tokens.languages.iter().map(|(_, token)| logits[*token as usize]).collect();
        let best = (0..scores.len()).max_by(|a, b| scores[*a].total_cmp(&scores[*b])).unwrap_or(0);
        Ok(Detected {
            language: best,
            probability: probability(&scores, best as u32),
            no_speech: probability(&logits, self.tokens.no_speech),
        })
    }

    /// Index of the language with this code.
    pub(crate) fn language(&self, code: &str) -> Result<usize, InferenceError> {
        self.tokens.languages.iter().position(|(known, _)| known == code).ok_or_else(|| {
            InferenceError::Unsupported(if self.multilingual() {
                format!("language `{code}` is unknown; use a code like `en`, or leave it out to have it detected")
            } else {
                format!("language `{code}` needs a multilingual model; this one knows only English")
            })
        })
    }
}
