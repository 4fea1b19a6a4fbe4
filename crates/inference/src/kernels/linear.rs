//! A linear layer for a few rows at a time.
//!
//! A decoder step multiplies a handful of rows with every weight of the model, so it is bound by reading the weights.
//! A general matrix product packs them first and chooses its order of additions by the number of rows. Here each
//! weight row is read once for all rows, and every output is one dot product in a fixed order: a row's result is
//! bitwise the same whatever else is in the batch.

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::{dispatch, values};

/// Up to this many rows go through [`skinny_linear`] on the processor.
pub(crate) const SKINNY_ROWS: usize = 16;

/// `x @ weight^T`; `x`: `[rows, in]`, `weight`: `[out, in]`, both contiguous f32 on the processor.
pub(crate) fn skinny_linear(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    x.contiguous()?.apply_op2_no_bwd(weight, &SkinnyLinear)
}

struct SkinnyLinear;

impl CustomOp2 for SkinnyLinear {
    fn name(&self) -> &'static str {
        "skinny-linear"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (rows, width) = x_layout.shape().dims2()?;
        let (outputs, weight_width) = weight_layout.shape().dims2()?;
        if width != weight_width {
            candle_core::bail!("skinny-linear: rows of {width} against weights of {weight_width}");
        }
        let (x, weight) = (values(x, x_layout)?, values(weight, weight_layout)?);
        let mut out = vec![0.0; rows * outputs];

        // Each task owns the same span of outputs in every row.
        let span = outputs.div_ceil(4 * rayon::current_num_threads()).max(64);
        let mut tasks: Vec<Vec<&mut [f32]>> = (0..outputs.div_ceil(span)).map(|_| Vec::with_capacity(rows)).collect();
        for row in out.chunks_mut(outputs) {
            for (task, part) in tasks.iter_mut().zip(row.chunks_mut(span)) {
                task.push(part);
            }
        }
        tasks.into_par_iter().zip(weight.par_chunks(span * width)).for_each(|(mut out, weight)| {
            for (out, x) in out.chunks_mut(4).zip(x.chunks(4 * width)) {
                dispatch(Rows { out, x, weight, width });
            }
        });
        Ok((CpuStorage::F32(out), Shape::from((rows, outputs))))
    }
}

/// Up to four rows of `x` against a span of weight rows.
struct Rows<'a, 'b> {
    out: &'a mut [&'b mut [f32]],
    x: &'a [f32],
    weight: &'a [f32],
    width: usize,
}

impl WithSimd for Rows<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let row = |i: usize| &self.x[i * self.width..(i + 1) * self.width];
        match self.out {
            [a] => each_output(simd, [a], [row(0)], self.weight),
            [a, b] => each_output(simd, [a, b], [row(0), row(1)], self.weight),
            [a, b, c] => each_output(simd, [a, b, c], [row(0), row(1), row(2)], self.weight),
            [a, b, c, d] => each_output(simd, [a, b, c, d], [row(0), row(1), row(2), row(3)], self.weight),
            _ => {}
        }
    }
}

#[inline(always)]
fn each_output<S: Simd, const N: usize>(simd: S, out: [&mut &mut [f32]; N], x: [&[f32]; N], weight: &[f32]) {
    for (index, weight) in weight.chunks_exact(x[0].len()).enumerate() {
        let dots = dots(simd, weight, x);
        for row in 0..N {
            out[row][index] = dots[row];
        }
    }
}

/// Dot products of one weight row with `N` rows. The order of additions does not depend on `N`.
#[inline(always)]
fn dots<S: Simd, const N: usize>(simd: S, weight: &[f32], x: [&[f32]; N]) -> [f32; N] {
    let (weights, weight_tail) = S::as_simd_f32s(weight);
    let vectors = x.map(|x| &S::as_simd_f32s(x).0[..weights.len()]);
    // Two sums a row hide the latency of the additions.
    let mut sums = [[simd.splat_f32s(0.0); 2]; N];
    for (index, weight) in weights.iter().enumerate() {
        for row in 0..N {
            sums[row][index % 2] = simd.mul_add_e_f32s(*weight, vectors[row][index], sums[row][index % 2]);
        }
    }
    let mut dots = [0.0; N];
    for row in 0..N {
        dots[row] = simd.reduce_sum_f32s(simd.add_f32s(sums[row][0], sums[row][1]));
        for (weight, x) in weight_tail.iter().zip(&x[row][weight.len() - weight_tail.len()..]) {
            dots[row] += weight * x;
        }
    }
    dots
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    fn bits(x: &Tensor) -> Vec<Vec<u32>> {
        let rows: Vec<Vec<f32>> = x.to_vec2().unwrap();
        rows.into_iter().map(|row| row.into_iter().map(f32::to_bits).collect()).collect()
    }

    #[test]
    fn agrees_with_the_matrix_product() {
        for (rows, width, outputs) in [(1, 384, 1536), (3, 64, 100), (4, 13, 65), (16, 96, 7)] {
            let x = Tensor::randn(0.0_f32, 1.0, (rows, width), &Device::Cpu).unwrap();
            let weight = Tensor::randn(0.0_f32, 1.0, (outputs, width), &Device::Cpu).unwrap();
            let expected = x.matmul(&weight.t().unwrap()).unwrap();
            let difference = (skinny_linear(&x, &weight).unwrap() - expected).unwrap().abs().unwrap();
            let worst: f32 = difference.flatten_all().unwrap().max(0).unwrap().to_scalar().unwrap();
            assert!(worst < 1e-4, "{rows} x {width} x {outputs}: {worst}");
        }
    }

    #[test]
    fn a_row_is_bitwise_the_same_alone_and_in_a_batch() {
        let x = Tensor::randn(0.0_f32, 1.0, (SKINNY_ROWS, 384), &Device::Cpu).unwrap();
        let weight = Tensor::randn(0.0_f32, 1.0, (515, 384), &Device::Cpu).unwrap();
        let all = bits(&skinny_linear(&x, &weight).unwrap());
        for (row, together) in all.iter().enumerate() {
            let alone = skinny_linear(&x.narrow(0, row, 1).unwrap(), &weight).unwrap();
            assert_eq!(&bits(&alone)[0], together);
        }
        let some = skinny_linear(&x.narrow(0, 5, 7).unwrap(), &weight).unwrap();
        assert_eq!(bits(&some), all[5..12]);
    }
}
