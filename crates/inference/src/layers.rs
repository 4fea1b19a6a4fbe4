//! The layers that the models are made of.

use candle_core::{Module, Tensor};

use crate::{
    InferenceError,
    kernels::{SKINNY_ROWS, bias_gelu, skinny_linear},
    weights::Weights,
};

/// `x @ weight^T + bias` over `[rows, in]`.
pub(crate) struct Linear {
    /// `[out, in]`.
    weight: Tensor,
    /// `[out]`.
    bias: Option<Tensor>,
}

impl Linear {
    pub(crate) fn load(weights: &Weights<'_>, name: &str) -> Result<Self, InferenceError> {
        Self::fused(weights, &[name], 1.0)
    }

    /// Several layers over the same input as one; the first one's result is multiplied by `first_scale`.
    /// A layer without a bias counts as one whose bias is zero.
    pub(crate) fn fused(weights: &Weights<'_>, names: &[&str], first_scale: f64) -> Result<Self, InferenceError> {
        let (mut parts, mut biases, mut biased) = (Vec::new(), Vec::new(), false);
        for (index, name) in names.iter().enumerate() {
            let scale = if index == 0 { first_scale } else { 1.0 };
            let weight = (weights.tensor(&format!("{name}.weight"))? * scale)?;
            let bias = weights.optional(&format!("{name}.bias"))?;
            biased |= bias.is_some();
            biases.push(match bias {
                Some(bias) => (bias * scale)?,
                None => Tensor::zeros(weight.dim(0)?, weights.dtype(), weights.device())?,
            });
            parts.push(weight);
        }
        let bias = if biased { Some(Tensor::cat(&biases, 0)?) } else { None };
        Ok(Self { weight: Tensor::cat(&parts, 0)?, bias })
    }

    /// The layer whose weight is an embedding table.
    pub(crate) fn tied(weight: Tensor) -> Self {
        Self { weight, bias: None }
    }

    pub(crate) fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let y = self.product(x)?;
        match &self.bias {
            Some(bias) => y.broadcast_add(bias),
            None => Ok(y),
        }
    }

    /// The layer followed by GELU.
    pub(crate) fn forward_gelu(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let y = self.product(x)?;
        match &self.bias {
            Some(bias) => bias_gelu(&y, bias),
            None => y.gelu_erf(),
        }
    }

    fn product(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        if x.device().is_cpu() && x.dim(0)? <= SKINNY_ROWS {
            skinny_linear(x, &self.weight)
        } else {
            x.matmul(&self.weight.t()?)
        }
    }
}

/// Layer normalisation over the last dimension.
pub(crate) struct LayerNorm(candle_nn::LayerNorm);

impl LayerNorm {
    pub(crate) fn load(weights: &Weights<'_>, name: &str, epsilon: f64) -> Result<Self, InferenceError> {
        let (weight, bias) = (weights.tensor(&format!("{name}.weight"))?, weights.tensor(&format!("{name}.bias"))?);
        Ok(Self(candle_nn::LayerNorm::new(weight, bias, epsilon)))
    }

    pub(crate) fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        self.0.forward(x)
    }
}
