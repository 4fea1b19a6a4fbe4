//! Whisper: windows of speech in, timed text out.
//!
//! Radford et al. 2022, "Robust Speech Recognition via Large-Scale Weak Supervision", arXiv:2212.04356. Decoding rules,
//! thresholds and the fallback ladder are those of its reference implementation (`openai/whisper`, `decoding.py` and
//! `transcribe.py`), except where a comment says otherwise.

mod attempt;
mod choose;
mod decoder;
mod dimensions;
mod encoder;
mod language;
#[cfg(test)]
mod reference;
mod repetition;
mod rules;
mod search;
mod segments;
mod tokens;
mod transcribe;

use std::path::Path;

use warren_audio::MelSpectrogram;
use warren_models::ModelDir;

use self::{
    decoder::Decoder,
    dimensions::{Config, Dimensions},
    encoder::Encoder,
    tokens::Tokens,
};
use crate::{
    Device, InferenceError,
    device::uncounted_bytes,
    threads::Threads,
    weights::{self, Weights},
};

/// Samples a second.
const RATE: usize = warren_audio::SAMPLE_RATE as usize;

/// Most tokens decoded for one window, as in the reference: half of the decoder's positions.
const MAX_TOKENS: usize = 224;

/// A loaded Whisper model. One instance may serve several threads at a time.
pub struct Whisper {
    encoder: Encoder,
    decoder: Decoder,
    tokens: Tokens,
    mel: MelSpectrogram,
    dimensions: Dimensions,
    device: candle_core::Device,
    threads: Threads,
    /// Windows decoded together.
    rows: usize,
    weight_bytes: u64,
}

/// How a Whisper model uses the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WhisperOptions {
    /// Processor threads of this instance. `None`, the default, shares one thread per core with the whole process; set
    /// it where several slots run at once.
    pub threads: Option<usize>,
    /// Memory for the windows that are decoded together, in bytes. Default 256 MiB. Lower it if the device runs out of
    /// memory. It never changes a result.
    pub batch_memory: u64,
}

impl Default for WhisperOptions {
    fn default() -> Self {
        Self { threads: None, batch_memory: 256 << 20 }
    }
}

/// What is asked of the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpeechOptions {
    /// The language spoken, as a code like `en`; `None` has it detected.
    pub language: Option<String>,
    /// Translate to English instead of writing down what is said.
    pub translate: bool,
    /// Hypotheses followed side by side; 1 is greedy. Costs nearly as many times the decoding.
    pub beam_size: usize,
    /// Keep what the first pass says, even where it loops or guesses; a loop is cut off after one round.
    pub single_pass: bool,
}

impl Default for SpeechOptions {
    fn default() -> Self {
        Self { language: None, translate: false, beam_size: 1, single_pass: false }
    }
}

/// What was heard.
#[derive(Clone, Debug, PartialEq)]
pub struct SpeechOutput {
    /// Code of the language spoken, given or detected.
    pub language: String,
    /// How sure the detection was, 0 to 1; 1 when the language was given or the model knows only one.
    pub language_probability: f32,
    /// The segments of each window, in the order of the windows. Empty where nobody speaks.
    pub windows: Vec<Vec<SpokenSegment>>,
}

/// A stretch of speech within one window.
#[derive(Clone, Debug, PartialEq)]
pub struct SpokenSegment {
    /// Seconds from the start of the window.
    pub start: f64,
    /// Seconds from the start of the window; never past its end.
    pub end: f64,
    /// What is said, trimmed, never empty.
    pub text: String,
    /// Mean natural logarithm of the probabilities of the tokens of the pass that gave this segment.
    pub avg_logprob: f32,
    /// Probability that nobody speaks, 0 to 1.
    pub no_speech_prob: f32,
    /// Length of the pass's text over its length after zlib; above 2.4 it is thought to repeat itself.
    pub compression_ratio: f32,
    /// The temperature of the pass; 0 is greedy, more means that greedy decoding failed.
    pub temperature: f32,
}

impl Whisper {
    /// Loads the model in `files`.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn open(files: &ModelDir, device: Device, options: WhisperOptions) -> Result<Self, InferenceError> {
        Self::load(&files.weights, &files.config, &files.tokenizer, device, options)
    }

    /// Loads a model from safetensors with the tensor names of Hugging Face, its `config.json` (of Hugging Face or
    /// CTranslate2) and its `tokenizer.json`.
    ///
    /// # Errors
    /// [`InferenceError::ModelMissing`] and [`InferenceError::ModelCorrupt`] name the file;
    /// [`InferenceError::Unsupported`] when this build lacks the device; [`InferenceError::OutOfMemory`].
    pub fn load(
        weights: &Path,
        config: &Path,
        tokenizer: &Path,
        device: Device,
        options: WhisperOptions,
    ) -> Result<Self, InferenceError> {
        let config = Config::read(config)?;
        let bytes = weights::read(weights)?;
        let opened = device.open()?;
        let tensors = Weights::parse(&bytes, weights, opened.clone(), device.dtype())?;
        let dimensions = Dimensions::of(&tensors, &config)?;
        let broken = |error: InferenceError| error.loading(weights);
        let mut whisper = Self {
            encoder: Encoder::load(&tensors, &dimensions).map_err(broken)?,
            decoder: Decoder::load(&tensors, &dimensions).map_err(broken)?,
            tokens: Tokens::load(tokenizer, &dimensions, &config)?,
            mel: MelSpectrogram::new(dimensions.mels),
            device: opened,
            threads: Threads::new(options.threads)?,
            rows: 1,
            weight_bytes: tensors.bytes_loaded(),
            dimensions,
        };
        whisper.rows = usize::try_from(options.batch_memory / whisper.window_bytes()).unwrap_or(1).clamp(1, MAX_ROWS);
        Ok(whisper)
    }

    /// True for models that know several languages and can translate.
    pub fn multilingual(&self) -> bool {
        self.dimensions.multilingual()
    }

    /// Codes of the languages that the model knows.
    pub fn languages(&self) -> Vec<&str> {
        self.tokens.languages.iter().map(|(code, _)| code.as_str()).collect()
    }

    /// Bytes of device memory that the model takes while it works, for the lease: weights, the windows decoded
    /// together and the encoder's intermediate values. An upper estimate, not a limit.
    pub fn memory_estimate(&self) -> u64 {
        let d = &self.dimensions;
        let (positions, width) = (d.audio_positions as u64, d.width as u64);
        // One layer's widest moment: the residual, fused qkv, the MLP's inner values twice, one head's scores.
        let encoder = positions * (width * 16 + positions * 2) * self.value_bytes();
        // Hypotheses of one window share what was heard.
        let searched =
            self.window_bytes() + (MAX_BEAM_SIZE as u64 - 1) * self.position_bytes() * self.capacity() as u64;
        let decoder = (self.rows as u64 * self.window_bytes()).max(searched);
        self.weight_bytes + encoder + decoder + uncounted_bytes(&self.device)
    }

    /// Bytes that one window takes while it is decoded.
    fn window_bytes(&self) -> u64 {
        (self.dimensions.audio_positions + self.capacity()) as u64 * self.position_bytes()
    }

    /// Bytes of the keys and values of one position, in all layers.
    fn position_bytes(&self) -> u64 {
        (2 * self.dimensions.decoder_layers * self.dimensions.width) as u64 * self.value_bytes()
    }

    fn value_bytes(&self) -> u64 {
        if self.device.is_cpu() { 4 } else { 2 }
    }

    /// Decoder positions that one window can need.
    fn capacity(&self) -> usize {
        (MAX_TOKENS + tokens::MAX_PROMPT).min(self.dimensions.text_positions)
    }
}

/// Most hypotheses that [`Whisper::memory_estimate`] allows for.
pub const MAX_BEAM_SIZE: usize = 8;

/// More rows than this gain nothing on a processor: weights are then read once for all.
const MAX_ROWS: usize = 8;
