//! The audio encoder.

use candle_core::{DType, Device, Tensor};

use super::dimensions::Dimensions;
use crate::{
    Gate, InferenceError,
    kernels::{bias_gelu, softmax},
    layers::{LayerNorm, Linear},
    weights::Weights,
};

/// Log-mel spectrogram in, one vector per 20 ms out.
pub(crate) struct Encoder {
    conv1: Conv,
    conv2: Conv,
    /// `[positions, width]`.
    positions: Tensor,
    layers: Vec<Layer>,
    norm: LayerNorm,
    heads: usize,
}

struct Conv {
    /// `[out, in, 3]`.
    weight: Tensor,
    bias: Tensor,
    stride: usize,
}

struct Layer {
    attention_norm: LayerNorm,
    /// Query, key and value as one product; the query comes out scaled.
    qkv: Linear,
    out: Linear,
    norm: LayerNorm,
    up: Linear,
    down: Linear,
}

impl Encoder {
    pub(crate) fn load(weights: &Weights<'_>, dimensions: &Dimensions) -> Result<Self, InferenceError> {
        let scale = (dimensions.head() as f64).powf(-0.5);
        let layers =
            (0..dimensions.encoder_layers).map(|i| Layer::load(weights, i, scale)).collect::<Result<_, _>>()?;
        let positions = match weights.optional("model.encoder.embed_positions.weight")? {
            Some(positions) => positions,
            None => sinusoids(dimensions.audio_positions, dimensions.width, weights.device(), weights.dtype())?,
        };
        Ok(Self {
            conv1: Conv::load(weights, "model.encoder.conv1", 1)?,
            conv2: Conv::load(weights, "model.encoder.conv2", 2)?,
            positions,
            layers,
            norm: LayerNorm::load(weights, "model.encoder.layer_norm", 1e-5)?,
            heads: dimensions.heads,
        })
    }

    /// `mel`: `[mels, frames]`. Returns `[frames / 2, width]`. A pass takes seconds on a busy processor, so `gate` is asked
    /// before each layer and in the middle of it whether it is still wanted.
    pub(crate) fn forward(&self, mel: &Tensor, gate: &dyn Gate) -> Result<Tensor, InferenceError> {
        let x = self.conv1.forward(&mel.unsqueeze(0)?.transpose(1, 2)?)?;
        gate.wanted()?;
        let x = self.conv2.forward(&x)?.squeeze(0)?;
        let mut x = (&x + self.positions.narrow(0, 0, x.dim(0)?)?)?;
        for layer in &self.layers {
            gate.wanted()?;
            x = layer.forward(&x, self.heads, gate)?;
        }
        Ok(self.norm.forward(&x)?)
    }
}

impl Conv {
    fn load(weights: &Weights<'_>, name: &str, stride: usize) -> Result<Self, InferenceError> {
        let (weight, bias) = (weights.tensor(&format!("{name}.weight"))?, weights.tensor(&format!("{name}.bias"))?);
        Ok(Self { weight, bias, stride })
    }

    /// Convolution and GELU, time first: `[1, time, in]` to `[1, time / stride, out]`.
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let y = x.transpose(1, 2)?.contiguous()?.conv1d(&self.weight, 1, self.stride, 1, 1)?;
        bias_gelu(&y.transpose(1, 2)?.contiguous()?, &self.bias)
    }
}

impl Layer {
    fn load(weights: &Weights<'_>, index: usize, scale: f64) -> Result<Self, InferenceError> {
        let name = |part: &str| format!("model.encoder.layers.{index}.{part}");
        let projections = ["q_proj", "k_proj", "v_proj"].map(|p| name(&format!("self_attn.{p}")));
        Ok(Self {
            attention_norm: LayerNorm::load(weights, &name("self_attn_layer_norm"), 1e-5)?,
            qkv: Linear::fused(weights, &projections.each_ref().map(String::as_str), scale)?,
            out: Linear::load(weights, &name("self_attn.out_proj"))?,
            norm: LayerNorm::load(weights, &name("final_layer_norm"), 1e-5)?,
            up: Linear::load(weights, &name("fc1"))?,
            down: Linear::load(weights, &name("fc2"))?,
        })
    }

    fn forward(&self, x: &Tensor, heads: usize, gate: &dyn Gate) -> Result<Tensor, InferenceError> {
        let qkv = self.qkv.forward(&self.attention_norm.forward(x)?)?;
        let x = (x + self.out.forward(&attention(&qkv, heads)?)?)?;
        gate.wanted()?;
        let up = self.up.forward_gelu(&self.norm.forward(&x)?)?;
        Ok((&x + self.down.forward(&up)?)?)
    }
}

/// Attention of every position to every other. `qkv`: `[time, 3 * width]`, the query scaled. Returns `[time, width]`.
///
/// Head by head: the scores of one head fit a processor's cache, those of all do not.
fn attention(qkv: &Tensor, heads: usize) -> candle_core::Result<Tensor> {
    let width = qkv.dim(1)? / 3;
    let size = width / heads;
    let mixed = (0..heads)
        .map(|head| {
            let part = |which: usize| qkv.narrow(1, which * width + head * size, size);
            let scores = part(0)?.contiguous()?.matmul(&part(1)?.t()?.contiguous()?)?;
            softmax(scores)?.matmul(&part(2)?.contiguous()?)
        })
        .collect::<candle_core::Result<Vec<_>>>()?;
    Tensor::cat(&mixed, 1)
}

/// The fixed positions of the encoder: sines in the first half of the width, cosines in the second.
fn sinusoids(length: usize, width: usize, device: &Device, dtype: DType) -> candle_core::Result<Tensor> {
    let half = width / 2;
    let step = 10_000f64.ln() / (half.max(2) - 1) as f64;
    let mut values = Vec::with_capacity(length * width);
    for position in 0..length {
        let angle = |i: usize| position as f64 * (-step * i as f64).exp();
        values.extend((0..half).map(|i| angle(i).sin() as f32));
        values.extend((0..half).map(|i| angle(i).cos() as f32));
    }
    Tensor::from_vec(values, (length, width), device)?.to_dtype(dtype)
}
