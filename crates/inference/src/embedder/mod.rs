//! Texts in, unit vectors out.

mod batches;
mod pieces;

use std::path::Path;

use candle_core::{DType, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::bert::{BertModel, Config};
use tokenizers::Tokenizer;
use warren_models::ModelDir;

use self::{batches::batches, pieces::Framing};
use crate::{
    Device, Gate, InferenceError,
    device::uncounted_bytes,
    gate::pass,
    threads::Threads,
    weights::{self, Weights},
};

/// A piece of text is one token at least, in its frame of two.
const LEAST_TOKENS: usize = 3;

/// Also on a card: candle's BERT masks with the least f32, which is infinite as f16 and makes every number NaN.
const DTYPE: DType = DType::F32;

/// A loaded text encoder of the BERT family.
pub struct Embedder {
    model: BertModel,
    tokenizer: Tokenizer,
    framing: Framing,
    device: candle_core::Device,
    threads: Threads,
    width: usize,
    memory: u64,
    options: EmbedderOptions,
}

/// How an embedding model uses the machine, and what its vectors mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EmbedderOptions {
    /// How token vectors become one. A property of the model: the catalogue knows it.
    pub pooling: Pooling,
    /// Most tokens of one piece of text, the two that frame it included. Default 256, what all-MiniLM-L6-v2 was
    /// trained with; never more than the model's positions.
    pub max_tokens: usize,
    /// Most tokens in one forward pass, padding included. Default 4096.
    /// Lower it if the device runs out of memory; raise it while throughput still grows.
    pub max_batch_tokens: usize,
    /// Processor threads of this instance. `None`, the default, shares one thread per core with the whole process.
    pub threads: Option<usize>,
}

impl Default for EmbedderOptions {
    fn default() -> Self {
        Self { pooling: Pooling::Mean, max_tokens: 256, max_batch_tokens: 4096, threads: None }
    }
}

/// How the vectors of a text's tokens become one vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// Their mean, padding left out.
    Mean,
    /// The vector of the first token.
    Cls,
}

impl From<warren_models::Pooling> for Pooling {
    fn from(pooling: warren_models::Pooling) -> Self {
        match pooling {
            warren_models::Pooling::Mean => Self::Mean,
            warren_models::Pooling::Cls => Self::Cls,
        }
    }
}

impl Embedder {
    /// Loads the model in `files`.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn open(files: &ModelDir, device: Device, options: EmbedderOptions) -> Result<Self, InferenceError> {
        Self::load(&files.weights, &files.config, &files.tokenizer, device, options)
    }

    /// Loads a model from safetensors, `config.json` and `tokenizer.json`, all as Hugging Face writes them.
    ///
    /// # Errors
    /// [`InferenceError::ModelMissing`] and [`InferenceError::ModelCorrupt`] name the file;
    /// [`InferenceError::Unsupported`] when this build lacks the device; [`InferenceError::OutOfMemory`].
    pub fn load(
        weights: &Path,
        config: &Path,
        tokenizer: &Path,
        device: Device,
        mut options: EmbedderOptions,
    ) -> Result<Self, InferenceError> {
        let parsed: Config =
            serde_json::from_slice(&weights::read(config)?).map_err(|error| InferenceError::corrupt(config, error))?;
        check(&parsed).map_err(|reason| InferenceError::corrupt(config, reason))?;
        options.max_tokens = options.max_tokens.clamp(LEAST_TOKENS, parsed.max_position_embeddings);
        options.max_batch_tokens = options.max_batch_tokens.max(options.max_tokens);

        let mut loaded = Tokenizer::from_bytes(weights::read(tokenizer)?)
            .map_err(|error| InferenceError::corrupt(tokenizer, error))?;
        // Texts are cut and padded here, where nothing is lost; a tokenizer's own settings cut silently.
        loaded.with_padding(None);
        loaded.with_truncation(None).map_err(|error| InferenceError::corrupt(tokenizer, error))?;
        let framing = Framing::of(&loaded).map_err(|reason| InferenceError::corrupt(tokenizer, reason))?;

        let bytes = weights::read(weights)?;
        let opened = device.open()?;
        let tensors = Weights::parse(&bytes, weights, opened.clone(), DTYPE)?;
        let activations = activations(&parsed, &options) * DTYPE.size_in_bytes() as u64;
        let memory = tensors.bytes_loaded() + activations + uncounted_bytes(&opened);
        let model =
            tensors.all().and_then(|all| Ok(BertModel::load(VarBuilder::from_tensors(all, DTYPE, &opened), &parsed)?));
        let model = model.map_err(|error| error.loading(weights))?;
        Ok(Self {
            model,
            tokenizer: loaded,
            framing,
            device: opened,
            threads: Threads::new(options.threads)?,
            width: parsed.hidden_size,
            memory,
            options,
        })
    }

    /// Numbers in one vector.
    pub fn dimensions(&self) -> usize {
        self.width
    }

    /// Bytes of device memory that the model takes while it works, for the lease. An upper estimate, not a limit.
    pub fn memory_estimate(&self) -> u64 {
        self.memory
    }

    /// One unit vector per text, in the order of `texts`; L2 norm 1 within 1e-6.
    ///
    /// Texts are sorted by length and packed into batches of at most `max_batch_tokens`, and of no more rows than `gate`
    /// allows; it is asked before each batch. A text of more than `max_tokens` is cut into pieces of even length, and its
    /// vector is the mean of the pieces' vectors weighted by their tokens, brought back to norm 1: nothing is cut off.
    ///
    /// A text's vector differs by less than 1e-5 in any number whatever it is batched with.
    ///
    /// # Errors
    /// [`InferenceError::InputInvalid`] names the index of an empty text; [`InferenceError::Interrupted`] from the
    /// gate; [`InferenceError::OutOfMemory`]; [`InferenceError::Internal`], also when what the model gives is no number.
    pub fn embed(&self, texts: &[String], gate: &dyn Gate) -> Result<Vec<Vec<f32>>, InferenceError> {
        if let Some(index) = texts.iter().position(|text| text.trim().is_empty()) {
            return Err(InferenceError::InputInvalid(format!("text {index} is empty; leave it out")));
        }
        let encodings = self
            .threads
            .run(|| self.tokenizer.encode_batch_fast(texts.iter().map(String::as_str).collect(), false))
            .map_err(|error| InferenceError::InputInvalid(format!("the texts cannot be split into tokens: {error}")))?;

        // Every piece of every text: whose it is and its framed tokens.
        let mut pieces = Vec::new();
        for (text, encoding) in encodings.iter().enumerate() {
            if encoding.get_ids().is_empty() {
                return Err(InferenceError::InputInvalid(format!("text {text} has no content; leave it out")));
            }
            let framed = self.framing.pieces(encoding.get_ids(), self.options.max_tokens);
            pieces.extend(framed.into_iter().map(|tokens| (text, tokens)));
        }

        let mut sums = vec![vec![0.0_f32; self.width]; texts.len()];
        let lengths: Vec<usize> = pieces.iter().map(|(_, tokens)| tokens.len()).collect();
        for batch in batches(&lengths, self.options.max_batch_tokens, gate.rows()) {
            let rows: Vec<&[u32]> = batch.iter().map(|piece| pieces[*piece].1.as_slice()).collect();
            let vectors = pass(gate, "embed", || self.threads.run(|| self.forward(&rows)))?;
            for (piece, vector) in batch.into_iter().zip(vectors) {
                let (text, tokens) = &pieces[piece];
                if !vector.iter().all(|value| value.is_finite()) {
                    return Err(InferenceError::Internal(format!("the vector of text {text} is not made of numbers")));
                }
                let weight = tokens.len() as f32;
                for (sum, value) in sums[*text].iter_mut().zip(unit(vector)) {
                    *sum += weight * value;
                }
            }
        }
        Ok(sums.into_iter().map(unit).collect())
    }

    /// The pooled vectors of one batch. `rows` have at least one token each.
    fn forward(&self, rows: &[&[u32]]) -> Result<Vec<Vec<f32>>, InferenceError> {
        let longest = rows.iter().map(|row| row.len()).max().unwrap_or(0);
        let shape = (rows.len(), longest);
        let pad = |row: &&[u32]| row.iter().copied().chain(std::iter::repeat(0)).take(longest).collect::<Vec<u32>>();
        let mask = |row: &&[u32]| (0..longest).map(|i| f32::from(u8::from(i < row.len()))).collect::<Vec<f32>>();
        let ids = Tensor::from_vec(rows.iter().flat_map(pad).collect(), shape, &self.device)?;
        let mask = Tensor::from_vec(rows.iter().flat_map(mask).collect(), shape, &self.device)?;

        let types = ids.zeros_like()?;
        let hidden = self.model.forward(&ids, &types, Some(&mask))?;
        let pooled = match self.options.pooling {
            Pooling::Cls => hidden.narrow(1, 0, 1)?.squeeze(1)?,
            Pooling::Mean => {
                let sums = hidden.broadcast_mul(&mask.unsqueeze(2)?)?.sum(1)?;
                sums.broadcast_div(&mask.sum_keepdim(1)?)?
            }
        };
        Ok(pooled.to_vec2()?)
    }
}

/// Scales to L2 norm 1. A vector of zeros, which no model gives, stays as it is.
fn unit(mut vector: Vec<f32>) -> Vec<f32> {
    let norm = vector.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
    if norm > 0.0 {
        for value in &mut vector {
            *value = (f64::from(*value) / norm) as f32;
        }
    }
    vector
}

/// Refuses a configuration that contradicts itself or is many times that of the largest model.
fn check(config: &Config) -> Result<(), String> {
    let sizes = [
        ("hidden_size", config.hidden_size, 1, 16_384),
        ("num_attention_heads", config.num_attention_heads, 1, config.hidden_size),
        ("num_hidden_layers", config.num_hidden_layers, 1, 256),
        ("intermediate_size", config.intermediate_size, 1, 1 << 17),
        ("max_position_embeddings", config.max_position_embeddings, LEAST_TOKENS, 1 << 20),
        ("vocab_size", config.vocab_size, 1, 1 << 22),
        ("type_vocab_size", config.type_vocab_size, 1, 1 << 10),
    ];
    match sizes.into_iter().find(|(_, size, least, most)| !(*least..=*most).contains(size)) {
        Some((name, size, least, most)) => Err(format!("its {name} is {size}, which must be {least} to {most}")),
        None if !config.hidden_size.is_multiple_of(config.num_attention_heads) => Err(format!(
            "its num_attention_heads, {}, do not divide its hidden_size, {}",
            config.num_attention_heads, config.hidden_size
        )),
        None => Ok(()),
    }
}

/// Values that one full batch holds at its widest moment: hidden states, the MLP's inner values and the attention's
/// scores.
fn activations(config: &Config, options: &EmbedderOptions) -> u64 {
    let per_token =
        6 * config.hidden_size + 2 * config.intermediate_size + 2 * config.num_attention_heads * options.max_tokens;
    (options.max_batch_tokens * per_token) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_that_cannot_be_is_named() {
        let base = Config::default();
        assert_eq!(check(&base), Ok(()));
        for (wrong, name) in [
            (Config { max_position_embeddings: 2, ..base.clone() }, "max_position_embeddings"),
            (Config { num_attention_heads: 0, ..base.clone() }, "num_attention_heads"),
            (Config { num_attention_heads: 7, ..base.clone() }, "num_attention_heads, 7, do not divide"),
            (Config { hidden_size: usize::MAX, ..base.clone() }, "hidden_size"),
        ] {
            assert!(check(&wrong).is_err_and(|reason| reason.contains(name)), "{name}");
        }
    }
}
