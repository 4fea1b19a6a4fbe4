//! Which variable of CTranslate2 becomes which tensor of Hugging Face.
//!
//! The dimensions are found first; every tensor that a model of these dimensions has must then be there with its
//! shape, and nothing else may be. CTranslate2 joins the rows of the projections that share an input: q, k, v of self
//! attention and k, v of cross attention. It stores a zero bias for k, which Whisper does not have.

use std::collections::BTreeSet;

use super::{
    ConvertError,
    index::{Index, Kind, Variable},
};
use crate::safetensors::{Dtype, Tensor};

/// Dimensions of a Whisper model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Whisper {
    pub(crate) width: u64,
    pub(crate) mel_bins: u64,
    pub(crate) vocabulary: u64,
    /// Encoder positions: 1500 for 30 s.
    pub(crate) source_positions: u64,
    /// Tokens that the decoder can hold.
    pub(crate) target_positions: u64,
    pub(crate) encoder_layers: u64,
    pub(crate) encoder_heads: u64,
    pub(crate) encoder_inner: u64,
    pub(crate) decoder_layers: u64,
    pub(crate) decoder_heads: u64,
    pub(crate) decoder_inner: u64,
}

/// A tensor to be written and where its bytes begin in `model.bin`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Copy {
    pub(super) tensor: Tensor,
    pub(super) first: u64,
}

/// Width of one attention head in every Whisper, for files too old to say how many heads there are.
const HEAD_WIDTH: u64 = 64;
/// CTranslate2's number for the exact GELU that Whisper was trained with.
const GELU: i64 = 3;
/// The three convolution taps of Whisper's front end.
const TAPS: u64 = 3;

/// Finds the dimensions and the copies that make the converted file, in its order.
pub(super) fn plan(index: &Index) -> Result<(Whisper, Vec<Copy>), ConvertError> {
    let mut plan = Plan { index, copies: Vec::new(), used: BTreeSet::new() };
    let whisper = plan.dimensions()?;
    plan.encoder(&whisper)?;
    plan.decoder(&whisper)?;
    plan.nothing_left()?;
    Ok((whisper, plan.copies))
}

struct Plan<'a> {
    index: &'a Index,
    copies: Vec<Copy>,
    used: BTreeSet<String>,
}

impl Plan<'_> {
    fn dimensions(&self) -> Result<Whisper, ConvertError> {
        let [width, mel_bins, _] = self.shape("encoder/conv1/weight")?;
        let [source_positions, _] = self.shape("encoder/position_encodings/encodings")?;
        let [target_positions, _] = self.shape("decoder/position_encodings/encodings")?;
        let [vocabulary, _] = self.shape("decoder/embeddings/weight")?;
        let [encoder_inner, _] = self.shape("encoder/layer_0/ffn/linear_0/weight")?;
        let [decoder_inner, _] = self.shape("decoder/layer_0/ffn/linear_0/weight")?;
        for (name, expected) in
            [("decoder/scale_embeddings", 0), ("encoder/activation", GELU), ("decoder/activation", GELU)]
        {
            if self.number(name).is_some_and(|found| found != expected) {
                return Err(ConvertError::Unsupported(format!("{name} is not the one of Whisper")));
            }
        }
        Ok(Whisper {
            width,
            mel_bins,
            vocabulary,
            source_positions,
            target_positions,
            encoder_layers: self.layers("encoder"),
            encoder_heads: self.heads("encoder", width)?,
            encoder_inner,
            decoder_layers: self.layers("decoder"),
            decoder_heads: self.heads("decoder", width)?,
            decoder_inner,
        })
    }

    fn layers(&self, side: &str) -> u64 {
        let there =
            |layer: &u64| self.index.variables.contains_key(&format!("{side}/layer_{layer}/ffn/linear_0/weight"));
        (0..).take_while(there).count() as u64
    }

    fn heads(&self, side: &str, width: u64) -> Result<u64, ConvertError> {
        let name = format!("{side}/num_heads");
        let heads = match self.number(&name) {
            Some(heads) => u64::try_from(heads).unwrap_or(0),
            None => width / HEAD_WIDTH,
        };
        if heads == 0 || !width.is_multiple_of(heads) {
            return Err(ConvertError::Unsupported(format!("{heads} heads do not divide a width of {width}")));
        }
        Ok(heads)
    }

    fn encoder(&mut self, whisper: &Whisper) -> Result<(), ConvertError> {
        let width = whisper.width;
        for (conv, inputs) in [("conv1", whisper.mel_bins), ("conv2", width)] {
            let (from, to) = (format!("encoder/{conv}"), format!("model.encoder.{conv}"));
            self.whole(&format!("{from}/weight"), &format!("{to}.weight"), &[width, inputs, TAPS])?;
            self.whole(&format!("{from}/bias"), &format!("{to}.bias"), &[width])?;
        }
        self.whole(
            "encoder/position_encodings/encodings",
            "model.encoder.embed_positions.weight",
            &[whisper.source_positions, width],
        )?;
        for layer in 0..whisper.encoder_layers {
            let (from, to) = (format!("encoder/layer_{layer}"), format!("model.encoder.layers.{layer}"));
            self.self_attention(&from, &to, width)?;
            self.feed_forward(&from, &to, width, whisper.encoder_inner)?;
        }
        self.norm("encoder/layer_norm", "model.encoder.layer_norm", width)
    }

    fn decoder(&mut self, whisper: &Whisper) -> Result<(), ConvertError> {
        let width = whisper.width;
        self.whole("decoder/embeddings/weight", "model.decoder.embed_tokens.weight", &[whisper.vocabulary, width])?;
        self.whole(
            "decoder/position_encodings/encodings",
            "model.decoder.embed_positions.weight",
            &[whisper.target_positions, width],
        )?;
        for layer in 0..whisper.decoder_layers {
            let (from, to) = (format!("decoder/layer_{layer}"), format!("model.decoder.layers.{layer}"));
            self.self_attention(&from, &to, width)?;
            self.cross_attention(&from, &to, width)?;
            self.feed_forward(&from, &to, width, whisper.decoder_inner)?;
        }
        self.norm("decoder/layer_norm", "model.decoder.layer_norm", width)
    }

    fn self_attention(&mut self, from: &str, to: &str, width: u64) -> Result<(), ConvertError> {
        let from = format!("{from}/self_attention");
        self.norm(&format!("{from}/layer_norm"), &format!("{to}.self_attn_layer_norm"), width)?;
        self.joined(&format!("{from}/linear_0"), &format!("{to}.self_attn"), &["q_proj", "k_proj", "v_proj"], width)?;
        self.joined(&format!("{from}/linear_1"), &format!("{to}.self_attn"), &["out_proj"], width)
    }

    fn cross_attention(&mut self, from: &str, to: &str, width: u64) -> Result<(), ConvertError> {
        let from = format!("{from}/attention");
        self.norm(&format!("{from}/layer_norm"), &format!("{to}.encoder_attn_layer_norm"), width)?;
        let to = format!("{to}.encoder_attn");
        self.joined(&format!("{from}/linear_0"), &to, &["q_proj"], width)?;
        self.joined(&format!("{from}/linear_1"), &to, &["k_proj", "v_proj"], width)?;
        self.joined(&format!("{from}/linear_2"), &to, &["out_proj"], width)
    }

    fn feed_forward(&mut self, from: &str, to: &str, width: u64, inner: u64) -> Result<(), ConvertError> {
        self.norm(&format!("{from}/ffn/layer_norm"), &format!("{to}.final_layer_norm"), width)?;
        for (linear, name, rows, columns) in [("linear_0", "fc1", inner, width), ("linear_1", "fc2", width, inner)] {
            let from = format!("{from}/ffn/{linear}");
            self.whole(&format!("{from}/weight"), &format!("{to}.{name}.weight"), &[rows, columns])?;
            self.whole(&format!("{from}/bias"), &format!("{to}.{name}.bias"), &[rows])?;
        }
        Ok(())
    }

    fn norm(&mut self, from: &str, to: &str, width: u64) -> Result<(), ConvertError> {
        self.whole(&format!("{from}/gamma"), &format!("{to}.weight"), &[width])?;
        self.whole(&format!("{from}/beta"), &format!("{to}.bias"), &[width])
    }

    /// One variable that becomes one tensor.
    fn whole(&mut self, from: &str, to: &str, shape: &[u64]) -> Result<(), ConvertError> {
        self.rows(from, shape, &[Some(to.to_owned())])
    }

    /// Square projections whose rows CTranslate2 has joined.
    fn joined(&mut self, from: &str, to: &str, names: &[&str], width: u64) -> Result<(), ConvertError> {
        let rows = width.saturating_mul(names.len() as u64);
        let weights: Vec<_> = names.iter().map(|name| Some(format!("{to}.{name}.weight"))).collect();
        self.rows(&format!("{from}/weight"), &[rows, width], &weights)?;
        let biases: Vec<_> =
            names.iter().map(|name| (*name != "k_proj").then(|| format!("{to}.{name}.bias"))).collect();
        self.rows(&format!("{from}/bias"), &[rows], &biases)
    }

    /// Splits a variable of `shape` along its rows into equal parts; `None` leaves a part out.
    fn rows(&mut self, from: &str, shape: &[u64], parts: &[Option<String>]) -> Result<(), ConvertError> {
        let variable = self.variable(from)?;
        if variable.shape != shape {
            let found = &variable.shape;
            return Err(ConvertError::Unsupported(format!("{from} has the shape {found:?} instead of {shape:?}")));
        }
        let dtype = match variable.kind {
            Kind::F32 => Dtype::F32,
            Kind::F16 => Dtype::F16,
            Kind::Bf16 => Dtype::Bf16,
            Kind::I8 | Kind::I16 | Kind::I32 => {
                return Err(ConvertError::Unsupported(format!("{from} is quantised; take the float16 model")));
            }
        };
        let mut part_shape = shape.to_vec();
        if let Some(rows) = part_shape.first_mut() {
            *rows /= parts.len() as u64;
        }
        let mut first = variable.first;
        for name in parts {
            let tensor = Tensor { name: name.clone().unwrap_or_default(), dtype, shape: part_shape.clone() };
            let bytes = tensor.bytes().unwrap_or(0);
            if name.is_some() {
                self.copies.push(Copy { tensor, first });
            }
            first += bytes;
        }
        self.used.insert(from.to_owned());
        Ok(())
    }

    fn nothing_left(&self) -> Result<(), ConvertError> {
        let left = self.index.variables.iter().find(|(name, variable)| {
            // Whole numbers describe the model; they are not weights.
            let is_weight = matches!(variable.kind, Kind::F32 | Kind::F16 | Kind::Bf16);
            is_weight && !variable.shape.is_empty() && !self.used.contains(*name)
        });
        match left {
            None => Ok(()),
            Some((name, _)) => Err(ConvertError::Unsupported(format!("{name} belongs to no Whisper model"))),
        }
    }

    fn variable(&self, name: &str) -> Result<&Variable, ConvertError> {
        let found = self.index.variables.get(name);
        found.ok_or_else(|| ConvertError::Unsupported(format!("{name} is missing")))
    }

    fn number(&self, name: &str) -> Option<i64> {
        self.index.variables.get(name).and_then(|variable| variable.number)
    }

    fn shape<const N: usize>(&self, name: &str) -> Result<[u64; N], ConvertError> {
        let shape = &self.variable(name)?.shape;
        <[u64; N]>::try_from(shape.as_slice())
            .ok()
            .filter(|shape| !shape.contains(&0))
            .ok_or_else(|| ConvertError::Unsupported(format!("{name} has the shape {shape:?}")))
    }
}
