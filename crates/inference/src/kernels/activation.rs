//! GELU in its exact (erf) form, fused with the bias before it.

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::{dispatch, exp, values};

/// Values that one thread takes at a time.
const CHUNK: usize = 16 * 1024;

/// `gelu(x + bias)`, `bias` added to the last dimension. Absolute error of the activation below 2e-6 for |x| < 10.
pub(crate) fn bias_gelu(x: &Tensor, bias: &Tensor) -> Result<Tensor> {
    if x.device().is_cpu() {
        x.contiguous()?.apply_op2_no_bwd(bias, &BiasGelu)
    } else {
        x.broadcast_add(bias)?.gelu_erf()
    }
}

struct BiasGelu;

impl CustomOp2 for BiasGelu {
    fn name(&self) -> &'static str {
        "bias-gelu"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, bias) = (values(x, x_layout)?, values(bias, bias_layout)?);
        let mut out = vec![0.0; x.len()];
        let rows = (CHUNK / bias.len()).max(1) * bias.len();
        out.par_chunks_mut(rows).zip(x.par_chunks(rows)).for_each(|(out, x)| {
            dispatch(|| {
                for (out, x) in out.chunks_exact_mut(bias.len()).zip(x.chunks_exact(bias.len())) {
                    for ((out, x), bias) in out.iter_mut().zip(x).zip(bias) {
                        *out = gelu(x + bias);
                    }
                }
            });
        });
        Ok((CpuStorage::F32(out), x_layout.shape().clone()))
    }
}

/// `x * Phi(x)`. The error function is formula 7.1.26 of Abramowitz and Stegun, "Handbook of Mathematical Functions",
/// absolute error below 1.5e-7.
#[inline(always)]
fn gelu(x: f32) -> f32 {
    let z = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
    let t = 1.0 / (1.0 + 0.327_591_1 * z);
    let poly = ((((1.061_405_4 * t - 1.453_152_1) * t + 1.421_413_8) * t - 0.284_496_72) * t + 0.254_829_6) * t;
    // 0.5 * (1 - erf(z)): half of what is missing to one.
    let rest = 0.5 * poly * exp(-z * z);
    let phi = if x < 0.0 { rest } else { 1.0 - rest };
    x * phi
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn the_error_stays_within_its_bound() {
        let xs: Vec<f32> = (-10_000..=10_000).map(|i| i as f32 / 1000.0).collect();
        let x = Tensor::from_slice(&xs, (xs.len() / 3, 3), &Device::Cpu).unwrap();
        let bias = Tensor::new(&[0.0_f32, 0.25, -0.5], &Device::Cpu).unwrap();
        let fast: Vec<f32> = bias_gelu(&x, &bias).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        for (i, (x, fast)) in xs.iter().zip(fast).enumerate() {
            let x = f64::from(x + [0.0, 0.25, -0.5][i % 3]);
            let exact = 0.5 * x * (1.0 + candle_core::cpu::erf::erf_f64(x / 2.0_f64.sqrt()));
            assert!((f64::from(fast) - exact).abs() < 2e-6, "gelu({x}) = {fast}, exact {exact}");
        }
    }

    #[test]
    fn far_values_are_the_identity_and_zero() {
        assert_eq!(gelu(30.0), 30.0);
        assert!(gelu(-30.0).abs() < 1e-30);
    }
}
