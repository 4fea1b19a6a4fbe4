//! The sizes of a Whisper model and its lists of suppressed tokens.

use std::path::Path;

use serde::Deserialize;

use crate::{InferenceError, weights::Weights};

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
            shape.get(index).copied().ok_or_else(|| InferenceError::Internal("a weight has too few dimensions".into()))
        };
        let width = size(&conv, 0)?;
        Ok(Self {
            mels: size(&conv, 1)?,
            audio_positions: config.max_source_positions.unwrap_or(1500),
            width,
            // Every released Whisper model has heads of 64.
            heads: config.encoder_attention_heads.unwrap_or((width / 64).max(1)),
            encoder_layers: layers("encoder"),
            decoder_layers: layers("decoder"),
            vocabulary: size(&embedding, 0)?,
            text_positions: size(&positions, 0)?,
        })
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
