//! The sizes of a Whisper model and its lists of suppressed tokens.

use std::path::Path;

use serde::Deserialize;

use crate::{InferenceError, weights::Weights};

/// Many times what the largest Whisper has.
const MAX_WIDTH: usize = 16_384;
const MAX_MELS: usize = 1_024;
const MAX_POSITIONS: usize = 65_536;
const MAX_VOCABULARY: usize = 1 << 20;
const MAX_LAYERS: usize = 256;

/// The sizes of one model. Read from the tensors themselves, so they cannot contradict them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Dimensions {
    /// Mel bands of the input: 80, or 128 since large-v3.
    pub(crate) mels: usize,
    /// Encoder positions: 1500, one per 20 ms.
    pub(crate) audio_positions: usize,
    /// Width of the encoder and the decoder.
    pub(crate) width: usize,
    pub(crate) heads: usize,
    pub(crate) encoder_layers: usize,
    pub(crate) decoder_layers: usize,
    pub(crate) vocabulary: usize,
    /// Decoder positions: 448.
    pub(crate) text_positions: usize,
}

/// The few facts that only the configuration file has. Hugging Face and CTranslate2 name the lists differently.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Config {
    encoder_attention_heads: Option<usize>,
    max_source_positions: Option<usize>,
    #[serde(alias = "suppress_ids")]
    pub(crate) suppress_tokens: Option<Vec<i64>>,
    #[serde(alias = "suppress_ids_begin")]
    pub(crate) begin_suppress_tokens: Option<Vec<i64>>,
}

impl Config {
    pub(crate) fn read(path: &Path) -> Result<Self, InferenceError> {
        let bytes = crate::weights::read(path)?;
        serde_json::from_slice(&bytes).map_err(|error| InferenceError::corrupt(path, error))
    }
}

impl Dimensions {
    pub(crate) fn of(weights: &Weights<'_>, config: &Config) -> Result<Self, InferenceError> {
        let conv = weights.shape("model.encoder.conv1.weight")?;
        let embedding = weights.shape("model.decoder.embed_tokens.weight")?;
        let positions = weights.shape("model.decoder.embed_positions.weight")?;
        let layers =
            |side: &str| (0..).take_while(|i| weights.has(&format!("model.{side}.layers.{i}.fc1.weight"))).count();
        let size = |shape: &[usize], index: usize| {
            shape.get(index).copied().ok_or_else(|| weights.corrupt("a weight has too few dimensions"))
        };
        let width = size(&conv, 0)?;
        let found = Self {
            mels: size(&conv, 1)?,
            audio_positions: config.max_source_positions.unwrap_or(1500),
            width,
            // Every released Whisper model has heads of 64.
            heads: config.encoder_attention_heads.unwrap_or((width / 64).max(1)),
            encoder_layers: layers("encoder"),
            decoder_layers: layers("decoder"),
            vocabulary: size(&embedding, 0)?,
            text_positions: size(&positions, 0)?,
        };
        found.check().map_err(|reason| weights.corrupt(reason))?;
        Ok(found)
    }

    /// A tensor without elements may claim any shape in a file of a few bytes, and the configuration anything.
    fn check(&self) -> Result<(), String> {
        let sizes = [
            ("d_model", self.width, MAX_WIDTH),
            ("encoder_attention_heads", self.heads, self.width),
            ("num_mel_bins", self.mels, MAX_MELS),
            ("max_source_positions", self.audio_positions, MAX_POSITIONS),
            ("max_target_positions", self.text_positions, MAX_POSITIONS),
            ("vocab_size", self.vocabulary, MAX_VOCABULARY),
            ("encoder_layers", self.encoder_layers, MAX_LAYERS),
            ("decoder_layers", self.decoder_layers, MAX_LAYERS),
        ];
        match sizes.into_iter().find(|(_, size, most)| !(1..=*most).contains(size)) {
            Some((name, size, most)) => Err(format!("its {name} is {size}, which must be 1 to {most}")),
            None if !self.width.is_multiple_of(self.heads) => {
                Err(format!("its encoder_attention_heads, {}, do not divide its d_model, {}", self.heads, self.width))
            }
            None => Ok(()),
        }
    }

    /// Width of one attention head.
    pub(crate) fn head(&self) -> usize {
        self.width / self.heads
    }

    /// Models with this many tokens know other languages than English and can translate.
    pub(crate) fn multilingual(&self) -> bool {
        self.vocabulary >= 51_865
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_beyond_reason_are_named() {
        let base = Dimensions {
            mels: 80,
            audio_positions: 1500,
            width: 512,
            heads: 8,
            encoder_layers: 6,
            decoder_layers: 6,
            vocabulary: 51_865,
            text_positions: 448,
        };
        assert_eq!(base.check(), Ok(()));
        for (wrong, name) in [
            (Dimensions { mels: 1 << 40, ..base.clone() }, "num_mel_bins"),
            (Dimensions { heads: 0, ..base.clone() }, "encoder_attention_heads"),
            (Dimensions { heads: 7, ..base.clone() }, "encoder_attention_heads, 7, do not divide"),
            (Dimensions { width: 0, ..base.clone() }, "d_model"),
            (Dimensions { decoder_layers: 0, ..base.clone() }, "decoder_layers"),
            (Dimensions { audio_positions: usize::MAX, ..base.clone() }, "max_source_positions"),
        ] {
            assert!(wrong.check().is_err_and(|reason| reason.contains(name)), "{name}");
        }
    }
}
