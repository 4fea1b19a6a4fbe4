//! The text decoder: one token per row and step, with all earlier keys and values kept.

use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;

use super::dimensions::Dimensions;
use crate::{
    InferenceError,
    kernels::softmax,
    layers::{LayerNorm, Linear},
    weights::Weights,
};

/// Tokens in, scores of the next token out.
pub(crate) struct Decoder {
    /// `[vocabulary, width]`.
    tokens: Tensor,
    /// `[positions, width]`.
    positions: Tensor,
    layers: Vec<Layer>,
    norm: LayerNorm,
    logits: Linear,
    heads: usize,
}

struct Layer {
    attention_norm: LayerNorm,
    qkv: Linear,
    out: Linear,
    cross_norm: LayerNorm,
    cross_query: Linear,
    cross_key: Linear,
    cross_value: Linear,
    cross_out: Linear,
    norm: LayerNorm,
    up: Linear,
    down: Linear,
}

/// What the decoder sees of one encoded window: per layer, keys and values of all audio positions.
///
/// Cheap to clone; every attempt at the window shares it.
#[derive(Clone)]
pub(crate) struct Heard(Vec<KeysValues>);

#[derive(Clone)]
struct KeysValues {
    /// `[heads, head, time]`: transposed once, here, instead of at every step.
    keys: Tensor,
    /// `[heads, time, head]`.
    values: Tensor,
}

/// The keys and values of the tokens that one row has decoded, per layer `[heads, capacity, head]` each.
pub(crate) struct Said {
    layers: Vec<(Tensor, Tensor)>,
    length: usize,
}

/// One row of a step: the window it listens to, what it has said, and the token to add.
pub(crate) struct Row<'a> {
    pub(crate) heard: &'a Heard,
    pub(crate) said: &'a mut Said,
    pub(crate) token: u32,
}

impl Decoder {
    pub(crate) fn load(weights: &Weights<'_>, dimensions: &Dimensions) -> Result<Self, InferenceError> {
        let scale = (dimensions.head() as f64).powf(-0.5);
        let tokens = weights.tensor("model.decoder.embed_tokens.weight")?;
        Ok(Self {
            logits: Linear::tied(tokens.clone()),
            tokens,
            positions: weights.tensor("model.decoder.embed_positions.weight")?,
            layers: (0..dimensions.decoder_layers).map(|i| Layer::load(weights, i, scale)).collect::<Result<_, _>>()?,
            norm: LayerNorm::load(weights, "model.decoder.layer_norm", 1e-5)?,
            heads: dimensions.heads,
        })
    }

    /// The number format of the model.
    pub(crate) fn dtype(&self) -> DType {
        self.tokens.dtype()
    }

    /// Prepares an encoded window, `[time, width]`, for decoding.
    pub(crate) fn hear(&self, encoded: &Tensor) -> Result<Heard, InferenceError> {
        let by_head = |x: Tensor| {
            let (time, width) = x.dims2()?;
            x.reshape((time, self.heads, width / self.heads))
        };
        let layers = self.layers.iter().map(|layer| {
            let keys = by_head(layer.cross_key.forward(encoded)?)?.permute((1, 2, 0))?.contiguous()?;
            let values = by_head(layer.cross_value.forward(encoded)?)?.transpose(0, 1)?.contiguous()?;
            Ok(KeysValues { keys, values })
        });
        Ok(Heard(layers.collect::<candle_core::Result<_>>()?))
    }

    /// An empty row that can take `capacity` tokens.
    pub(crate) fn start(&self, capacity: usize) -> Result<Said, InferenceError> {
        let (dtype, device) = (self.tokens.dtype(), self.tokens.device());
        let shape = (self.heads, capacity, self.tokens.dim(1)? / self.heads);
        let empty = || Tensor::zeros(shape, dtype, device);
        let layers = self.layers.iter().map(|_| Ok((empty()?, empty()?)));
        Ok(Said { layers: layers.collect::<candle_core::Result<_>>()?, length: 0 })
    }

    /// Adds one token to every row. Returns the hidden states, `[rows, width]`, for [`Self::logits`].
    pub(crate) fn step(&self, rows: &mut [Row<'_>]) -> Result<Tensor, InferenceError> {
        let device = self.tokens.device();
        let tokens: Vec<u32> = rows.iter().map(|row| row.token).collect();
        let positions: Vec<u32> = rows.iter().map(|row| row.said.length as u32).collect();
        let select = |table: &Tensor, indices: Vec<u32>| {
            let count = indices.len();
            table.index_select(&Tensor::from_vec(indices, count, device)?, 0)
        };
        let mut x = (select(&self.tokens, tokens)? + select(&self.positions, positions)?)?;

        for (index, layer) in self.layers.iter().enumerate() {
            let qkv = layer.qkv.forward(&layer.attention_norm.forward(&x)?)?;
            let mixed =
                each_row(device, rows, |number, row| row.said.attend(index, &qkv.narrow(0, number, 1)?, self.heads))?;
            x = (&x + layer.out.forward(&mixed)?)?;

            let query = layer.cross_query.forward(&layer.cross_norm.forward(&x)?)?;
            let mixed = each_row(device, rows, |number, row| {
                row.heard.0[index].attend(&query.narrow(0, number, 1)?, self.heads)
            })?;
            x = (&x + layer.cross_out.forward(&mixed)?)?;

            let up = layer.up.forward_gelu(&layer.norm.forward(&x)?)?;
            x = (&x + layer.down.forward(&up)?)?;
        }
        for row in rows {
            row.said.length += 1;
        }
        Ok(self.norm.forward(&x)?)
    }

    /// The score of every token of the vocabulary as each row's next one.
    pub(crate) fn logits(&self, hidden: &Tensor) -> Result<Vec<Vec<f32>>, InferenceError> {
        Ok(self.logits.forward(hidden)?.to_dtype(DType::F32)?.to_vec2()?)
    }
}

impl Layer {
    fn load(weights: &Weights<'_>, index: usize, scale: f64) -> Result<Self, InferenceError> {
        let name = |part: &str| format!("model.decoder.layers.{index}.{part}");
        let projections = ["q_proj", "k_proj", "v_proj"].map(|p| name(&format!("self_attn.{p}")));
        Ok(Self {
            attention_norm: LayerNorm::load(weights, &name("self_attn_layer_norm"), 1e-5)?,
            qkv: Linear::fused(weights, &projections.each_ref().map(String::as_str), scale)?,
            out: Linear::load(weights, &name("self_attn.out_proj"))?,
            cross_norm: LayerNorm::load(weights, &name("encoder_attn_layer_norm"), 1e-5)?,
            cross_query: Linear::fused(weights, &[&name("encoder_attn.q_proj")], scale)?,
            cross_key: Linear::load(weights, &name("encoder_attn.k_proj"))?,
            cross_value: Linear::load(weights, &name("encoder_attn.v_proj"))?,
            cross_out: Linear::load(weights, &name("encoder_attn.out_proj"))?,
            norm: LayerNorm::load(weights, &name("final_layer_norm"), 1e-5)?,
            up: Linear::load(weights, &name("fc1"))?,
            down: Linear::load(weights, &name("fc2"))?,
        })
    }
}

impl Said {
    /// An empty row of a decoder without layers but one, for tests of what goes on around it.
    #[cfg(test)]
    pub(crate) fn empty(capacity: usize) -> Self {
        let zeros = || Tensor::zeros((1, capacity, 1), DType::F32, &Device::Cpu).expect("zeros");
        Self { layers: vec![(zeros(), zeros())], length: 0 }
    }

    /// The same once more, to go on in another way.
    pub(crate) fn copy(&self) -> Result<Self, InferenceError> {
        let layers = self.layers.iter().map(|(keys, values)| Ok((keys.copy()?, values.copy()?)));
        Ok(Self { layers: layers.collect::<candle_core::Result<_>>()?, length: self.length })
    }

    /// Tokens that this row can still take.
    pub(crate) fn room(&self) -> usize {
        self.layers.first().and_then(|(keys, _)| keys.dim(1).ok()).unwrap_or(0).saturating_sub(self.length)
    }

    /// Stores the new token's key and value and mixes all values so far. `qkv`: `[1, 3 * width]`; returns `[1, width]`.
    fn attend(&mut self, layer: usize, qkv: &Tensor, heads: usize) -> candle_core::Result<Tensor> {
        let width = qkv.dim(1)? / 3;
        let part = |which: usize| qkv.narrow(1, which * width, width)?.contiguous()?.reshape((heads, 1, width / heads));
        let (keys, values) = &self.layers[layer];
        keys.slice_set(&part(1)?, 1, self.length)?;
        values.slice_set(&part(2)?, 1, self.length)?;
        let (keys, values) = (keys.narrow(1, 0, self.length + 1)?, values.narrow(1, 0, self.length + 1)?);
        softmax(part(0)?.matmul(&keys.t()?)?)?.matmul(&values)?.reshape((1, width))
    }
}

impl KeysValues {
    /// Mixes what was heard. `query`: `[1, width]`, scaled; returns `[1, width]`.
    fn attend(&self, query: &Tensor, heads: usize) -> candle_core::Result<Tensor> {
        let width = query.dim(1)?;
        let query = query.contiguous()?.reshape((heads, 1, width / heads))?;
        softmax(query.matmul(&self.keys)?)?.matmul(&self.values)?.reshape((1, width))
    }
}

/// Attention of each row by itself, so that no row's arithmetic depends on another's; rows run in parallel on the
/// processor.
fn each_row(
    device: &Device,
    rows: &mut [Row<'_>],
    attend: impl Fn(usize, &mut Row<'_>) -> candle_core::Result<Tensor> + Sync,
) -> candle_core::Result<Tensor> {
    let mixed: Vec<Tensor> = if device.is_cpu() && rows.len() > 1 {
        rows.par_iter_mut().enumerate().map(|(number, row)| attend(number, row)).collect::<candle_core::Result<_>>()?
    } else {
        rows.iter_mut().enumerate().map(|(number, row)| attend(number, row)).collect::<candle_core::Result<_>>()?
    };
    if let [only] = mixed.as_slice() { Ok(only.clone()) } else { Tensor::cat(&mixed, 0) }
}
