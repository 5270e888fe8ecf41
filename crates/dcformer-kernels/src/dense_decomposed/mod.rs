//! Dense decomposed convolution: a 3-D neighbourhood reached with three 1-D convolutions, channels mixed.

pub(crate) mod cpu;
pub(crate) mod measure;
pub(crate) mod pairs;
pub(crate) mod reference;
pub(crate) mod stencil;
pub(crate) mod training;
pub(crate) mod winograd;

use burn::backend::Dispatch;
use burn::tensor::Tensor;

use crate::{KernelOps, Normalized};

/// Three 1-D convolutions along depth, height and width, added: the stem of DCFormer with its norms folded in.
///
/// ```text
/// y[z,y,x,o] = b[o] + Σ_t Σ_i  w[0,t,i,o]·v[s·z+t-r, s·y, s·x, i] + w[1,t,i,o]·v[s·z, s·y+t-r, s·x, i]
///                              + w[2,t,i,o]·v[s·z, s·y, s·x+t-r, i]
/// ```
/// with stride `s`, `r = taps / 2` and zeros outside the volume.
///
/// # Shapes
/// - `x`: `[batch, depth, height, width, channels_in]`
/// - `weight`: `[3, taps, channels_in, channels_out]`, filters along depth, height, width in that order
/// - `bias`: `[channels_out]`
/// - output: `[batch, ceil(depth / stride), ceil(height / stride), ceil(width / stride), channels_out]`
///
/// # Panics
/// If `taps` is even, `stride` is 0, or the channel counts differ.
///
/// # Cost
/// `(3·taps - 2) · channels_in · channels_out` multiply-adds per output voxel: the centre taps are added once.
///
/// Paper section 3.1; SPEC section 1.
pub fn dense_decomposed_conv(
    x: Tensor<5>,
    weight: Tensor<4>,
    bias: Tensor<1>,
    stride: usize,
) -> Tensor<5> {
    check(&x, &weight, stride);
    let [_, _, _, channels_out] = weight.dims();
    assert_eq!(
        bias.dims(),
        [channels_out],
        "bias must have one value per output channel"
    );
    Tensor::from_dispatch(<Dispatch as KernelOps>::dense_decomposed_conv(
        x.into_dispatch(),
        weight.into_dispatch(),
        bias.into_dispatch(),
        stride,
    ))
}

/// The three convolutions of [`dense_decomposed_conv`], each batch-normalised with the statistics of this batch, added.
///
/// ```text
/// y = Σ_branch  gamma[branch] · (u - mean(u)) / sqrt(var(u) + epsilon) + beta[branch],   u = conv_branch(x) without bias
/// ```
/// A bias before a batch norm cancels; callers add it to [`Normalized::mean`] for running averages. Only the input and
/// the statistics are kept for the backward pass, which recomputes the branches.
///
/// # Shapes
/// As [`dense_decomposed_conv`]; `gamma` and `beta`: `[3, channels_out]`.
///
/// # Panics
/// As [`dense_decomposed_conv`].
///
/// Gradients reach `x`, `weight`, `gamma` and `beta`; any may be untracked.
pub fn dense_decomposed_norm(
    x: Tensor<5>,
    weight: Tensor<4>,
    gamma: Tensor<2>,
    beta: Tensor<2>,
    stride: usize,
    epsilon: f64,
) -> Normalized {
    check(&x, &weight, stride);
    let [_, _, _, channels_out] = weight.dims();
    assert_eq!(
        gamma.dims(),
        [3, channels_out],
        "gamma must be [3, channels_out]"
    );
    assert_eq!(
        beta.dims(),
        [3, channels_out],
        "beta must be [3, channels_out]"
    );
    let (output, mean, variance) = <Dispatch as KernelOps>::dense_decomposed_norm(
        x.into_dispatch(),
        weight.into_dispatch(),
        gamma.into_dispatch(),
        beta.into_dispatch(),
        stride,
        epsilon,
    );
    let output = Tensor::<5>::from_dispatch(output);
    let [n, d, h, w, _] = output.dims();
    Normalized {
        output,
        mean: Tensor::from_dispatch(mean),
        variance: Tensor::from_dispatch(variance),
        count: n * d * h * w,
    }
}

pub(crate) fn check(x: &Tensor<5>, weight: &Tensor<4>, stride: usize) {
    let [_, _, _, _, channels] = x.dims();
    let [branches, taps, channels_in, _] = weight.dims();
    assert_eq!(branches, 3, "weight must have three branches");
    assert!(taps % 2 == 1, "the number of taps must be odd, got {taps}");
    assert!(stride > 0, "the stride must be positive");
    assert!(channels > 0, "the input has no channels");
    assert_eq!(
        channels, channels_in,
        "input has {channels} channels, the weight expects {channels_in}"
    );
}
