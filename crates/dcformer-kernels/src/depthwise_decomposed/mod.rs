//! Depthwise decomposed convolution: a k x k x k neighbourhood of each channel reached with 3k taps.

pub(crate) mod cpu;
pub(crate) mod reference;
pub(crate) mod tile;

use burn::backend::Dispatch;
use burn::tensor::Tensor;

use crate::{KernelOps, Normalized};

/// One 1-D filter per channel along each axis, added: the token mixer of a DCFormer block with its norms folded in.
///
/// ```text
/// y[z,y,x,c] = b[c] + Σ_t  w[0,t,c]·v[z+t-r, y, x, c] + w[1,t,c]·v[z, y+t-r, x, c] + w[2,t,c]·v[z, y, x+t-r, c]
/// ```
/// with `r = taps / 2` and zeros outside the volume.
///
/// # Shapes
/// - `x`, output: `[batch, depth, height, width, channels]`
/// - `weight`: `[3, taps, channels]`, filters along depth, height, width in that order
/// - `bias`: `[channels]`
///
/// # Panics
/// If `taps` is even, or the channel counts differ.
///
/// # Cost
/// `3·taps - 2` multiply-adds per value; bound by memory from two threads on.
///
/// Paper section 3.1; SPEC section 1.
pub fn depthwise_decomposed_conv(x: Tensor<5>, weight: Tensor<3>, bias: Tensor<1>) -> Tensor<5> {
    let channels = check(&x, &weight);
    assert_eq!(
        bias.dims(),
        [channels],
        "bias must have one value per channel"
    );
    Tensor::from_dispatch(<Dispatch as KernelOps>::depthwise_decomposed_conv(
        x.into_dispatch(),
        weight.into_dispatch(),
        bias.into_dispatch(),
    ))
}

/// The three convolutions of [`depthwise_decomposed_conv`], each batch-normalised with the statistics of this batch,
/// added. The formula is that of [`dense_decomposed_norm`](crate::dense_decomposed_norm).
///
/// # Shapes
/// As [`depthwise_decomposed_conv`]; `gamma` and `beta`: `[3, channels]`.
///
/// # Panics
/// As [`depthwise_decomposed_conv`].
///
/// Gradients reach `x`, `weight`, `gamma` and `beta`; any may be untracked.
pub fn depthwise_decomposed_norm(
    x: Tensor<5>,
    weight: Tensor<3>,
    gamma: Tensor<2>,
    beta: Tensor<2>,
    epsilon: f64,
) -> Normalized {
    let channels = check(&x, &weight);
    assert_eq!(gamma.dims(), [3, channels], "gamma must be [3, channels]");
    assert_eq!(beta.dims(), [3, channels], "beta must be [3, channels]");
    let [n, d, h, w, _] = x.dims();
    let (output, mean, variance) = <Dispatch as KernelOps>::depthwise_decomposed_norm(
        x.into_dispatch(),
        weight.into_dispatch(),
        gamma.into_dispatch(),
        beta.into_dispatch(),
        epsilon,
    );
    Normalized {
        output: Tensor::from_dispatch(output),
        mean: Tensor::from_dispatch(mean),
        variance: Tensor::from_dispatch(variance),
        count: n * d * h * w,
    }
}

pub(crate) fn check(x: &Tensor<5>, weight: &Tensor<3>) -> usize {
    let [_, _, _, _, channels] = x.dims();
    let [branches, taps, filters] = weight.dims();
    assert_eq!(branches, 3, "weight must have three branches");
    assert!(taps % 2 == 1, "the number of taps must be odd, got {taps}");
    assert!(channels > 0, "the input has no channels");
    assert_eq!(
        channels, filters,
        "input has {channels} channels, the weight has filters for {filters}"
    );
    channels
}
