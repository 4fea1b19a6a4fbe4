//! Softmax over the last dimension.

use candle_core::{CpuStorage, InplaceOp1, Layout, Result, Tensor};
use rayon::prelude::*;

use super::{dispatch, exp};

/// Softmax over the last dimension. On the processor it overwrites `scores`, which must be contiguous and not be used
/// afterwards.
pub(crate) fn softmax(scores: Tensor) -> Result<Tensor> {
    if scores.device().is_cpu() {
        scores.inplace_op1(&Softmax)?;
        Ok(scores)
    } else {
        candle_nn::ops::softmax_last_dim(&scores)
    }
}

struct Softmax;

impl InplaceOp1 for Softmax {
    fn name(&self) -> &'static str {
        "softmax"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let CpuStorage::F32(values) = storage else { candle_core::bail!("softmax wants f32") };
        let Some((start, end)) = layout.contiguous_offsets() else { candle_core::bail!("softmax wants contiguous") };
        let width = *layout.dims().last().unwrap_or(&1);
        values[start..end]
            .par_chunks_mut(width)
            .with_min_len((8 * 1024 / width).max(1))
            .for_each(|row| dispatch(|| softmax_row(row)));
        Ok(())
    }
}

#[inline(always)]
fn softmax_row(row: &mut [f32]) {
    const LANES: usize = 16;
    let mut tops = [f32::NEG_INFINITY; LANES];
    let blocks = row.chunks_exact(LANES);
    let mut top = blocks.remainder().iter().copied().fold(f32::NEG_INFINITY, f32::max);
    for block in blocks {
        for (top, value) in tops.iter_mut().zip(block) {
            *top = if *value > *top { *value } else { *top };
        }
    }
    top = tops.iter().copied().fold(top, f32::max);

    let mut sums = [0.0_f32; LANES];
    let mut blocks = row.chunks_exact_mut(LANES);
    for block in &mut blocks {
        for (sum, value) in sums.iter_mut().zip(block) {
            *value = exp(*value - top);
            *sum += *value;
        }
    }
    let mut total = 0.0;
    for value in blocks.into_remainder() {
        *value = exp(*value - top);
        total += *value;
    }
    let scale = 1.0 / (total + sums.iter().sum::<f32>());
    for value in row {
        *value *= scale;
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn agrees_with_candle() {
        for width in [1, 7, 16, 77, 1500] {
            let x = Tensor::randn(0.0_f32, 4.0, (3, 5, width), &Device::Cpu).unwrap();
            let expected = candle_nn::ops::softmax_last_dim(&x).unwrap();
            let got = softmax(x).unwrap();
            let difference = (got - expected).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap();
            assert!(difference.to_scalar::<f32>().unwrap() < 1e-6);
        }
    }
}
