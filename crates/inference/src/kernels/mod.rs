//! Processor kernels for the few operations that candle runs slowly, with candle's own operation on other devices.
//!
//! All are plain safe Rust, compiled for AVX2 with FMA next to the baseline and chosen at run time.

mod activation;
mod exponent;
mod linear;
mod softmax;

pub(crate) use activation::bias_gelu;
pub(crate) use exponent::exp;
pub(crate) use linear::{SKINNY_ROWS, skinny_linear};
pub(crate) use softmax::softmax;

use pulp::{Arch, WithSimd};

/// Runs `op` compiled for the best instruction set that this machine has.
#[inline]
pub(crate) fn dispatch<Op: WithSimd>(op: Op) -> Op::Output {
    #[cfg(target_arch = "x86_64")]
    if let Some(avx2) = pulp::x86::V3::try_new() {
        return pulp::Simd::vectorize(avx2, op);
    }
    Arch::new().dispatch(op)
}

/// The f32 values of a contiguous tensor.
fn values<'a>(storage: &'a candle_core::CpuStorage, layout: &candle_core::Layout) -> candle_core::Result<&'a [f32]> {
    let candle_core::CpuStorage::F32(values) = storage else { candle_core::bail!("the kernel wants f32") };
    let Some((start, end)) = layout.contiguous_offsets() else {
        candle_core::bail!("the kernel wants a contiguous tensor")
    };
    Ok(&values[start..end])
}
