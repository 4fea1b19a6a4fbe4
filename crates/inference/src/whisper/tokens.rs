//! The tokens with a meaning of their own, and the way back to text.

use std::path::Path;

use tokenizers::Tokenizer;

use super::{
    dimensions::{Config, Dimensions},
    rules::Vocabulary,
};
use crate::InferenceError;

/// Tokens before the first decoded one: start, language, task.
pub(crate) const MAX_PROMPT: usize = 3;

/// A model's tokenizer and special tokens.
pub(crate) struct Tokens {
    tokenizer: Tokenizer,
    /// `<|startoftranscript|>`.
    pub(crate) start: u32,
    pub(crate) transcribe: u32,
    pub(crate) translate: u32,
    /// `<|nospeech|>`, in older models `<|nocaptions|>`.
    pub(crate) no_speech: u32,
    /// Code and token of every language.
    pub(crate) languages: Vec<(String, u32)>,
    pub(crate) vocabulary: Vocabulary,
}

impl Tokens {
    pub(crate) fn load(path: &Path, dimensions: &Dimensions, config: &Config) -> Result<Self, InferenceError> {
        let bytes = crate::weights::read(path)?;
        let tokenizer = Tokenizer::from_bytes(&bytes).map_err(|error| InferenceError::corrupt(path, error))?;
        let find = |names: &[&str]| {
            names
                .iter()
                .find_map(|name| tokenizer.token_to_id(name))
                .ok_or_else(|| InferenceError::corrupt(path, format!("it has no token {}", names.join(" or "))))
        };
        let (start, end) = (find(&["<|startoftranscript|>"])?, find(&["<|endoftext|>"])?);
        let (translate, transcribe) = (find(&["<|translate|>"])?, find(&["<|transcribe|>"])?);
        let no_speech = find(&["<|nospeech|>", "<|nocaptions|>"])?;
        // Many tokenizer files leave the timestamps out; they always follow this token.
        let first_time = find(&["<|notimestamps|>"])? + 1;
        if first_time as usize >= dimensions.vocabulary {
            let reason = format!("its tokens do not fit a model of {} tokens", dimensions.vocabulary);
            return Err(InferenceError::corrupt(path, reason));
        }

        let languages = if dimensions.multilingual() {
            let name = |id| tokenizer.id_to_token(id).unwrap_or_default();
            let code = |id| Some(name(id).strip_prefix("<|")?.strip_suffix("|>")?.to_owned());
            (start + 1..translate.min(transcribe)).filter_map(|id| Some((code(id)?, id))).collect()
        } else {
            vec![("en".to_owned(), 0)]
        };

        let known = |list: &Option<Vec<i64>>| -> Vec<u32> {
            let ids = list.iter().flatten().filter_map(|id| u32::try_from(*id).ok());
            ids.filter(|id| (*id as usize) < dimensions.vocabulary).collect()
        };
        let mut suppressed = known(&config.suppress_tokens);
        suppressed.retain(|id| *id < end);
        suppressed.extend(end + 1..first_time);
        let mut suppressed_first = known(&config.begin_suppress_tokens);
        suppressed_first.push(end);
        if let Ok(space) = tokenizer.encode_fast(" ", false) {
            suppressed_first.extend(space.get_ids());
        }
        Ok(Self {
            tokenizer,
            start,
            transcribe,
            translate,
            no_speech,
            languages,
            vocabulary: Vocabulary { end, first_time, suppressed, suppressed_first },
        })
    }

    /// The text of `tokens`; timestamps and other special tokens leave no trace.
    pub(crate) fn text(&self, tokens: &[u32]) -> Result<String, InferenceError> {
        let words: Vec<u32> = tokens.iter().copied().filter(|token| *token < self.vocabulary.end).collect();
        self.tokenizer
            .decode(&words, true)
            .map_err(|error| InferenceError::Internal(format!("decoding {} tokens: {error}", words.len())))
    }
}
