//! Dense convolution: every output channel reads a box of all input channels.

pub(crate) mod cpu;
pub(crate) mod reference;

use burn::backend::Dispatch;
use burn::tensor::Tensor;

use crate::KernelOps;

/// A 3-D convolution, with an optional ReLU.
///
/// ```text
/// y[z,y,x,o] = b[o] + Σ_ijk Σ_c  w[i,j,k,c,o] · v[s·z+i-p₀, s·y+j-p₁, s·x+k-p₂, c]
/// ```
/// with stride `s`, `p = before` and zeros outside the volume. A centred filter of `taps`, which is odd, has `before = taps / 2`
/// along each axis; patches, where `taps = s`, have `before = 0`.
///
/// # Shapes
/// - `x`: `[batch, depth, height, width, channels_in]`
/// - `weight`: `[taps, taps, taps, channels_in, channels_out]`, taps along depth, height, width, which may differ
/// - `bias`: `[channels_out]`
/// - `before`: zeros that the grid is continued with in front along depth, height, width; behind, as many as are read
/// - output: `[batch, ceil(depth / stride), ceil(height / stride), ceil(width / stride), channels_out]`
///
/// # Panics
/// If an axis has no taps or as many zeros in front, `stride` is 0, or the channel counts differ.
///
/// # Cost
/// `taps³ · channels_in · channels_out` multiply-adds per output voxel.
///
/// Gradients reach `x`, `weight` and `bias`; any may be untracked.
pub fn dense_conv(
    x: Tensor<5>,
    weight: Tensor<5>,
    bias: Tensor<1>,
    stride: usize,
    before: [usize; 3],
    rectify: bool,
) -> Tensor<5> {
    let [_, _, _, _, channels] = x.dims();
    let [depth, height, width, channels_in, channels_out] = weight.dims();
    for (taps, before) in [depth, height, width].into_iter().zip(before) {
        assert!(
            before < taps,
            "a filter of {taps} taps must have fewer zeros in front, got {before}"
        );
    }
    assert!(stride > 0, "the stride must be positive");
    assert!(channels > 0, "the input has no channels");
    assert_eq!(
        channels, channels_in,
        "input has {channels} channels, the weight expects {channels_in}"
    );
    assert_eq!(
        bias.dims(),
        [channels_out],
        "bias must have one value per output channel"
    );
    Tensor::from_dispatch(<Dispatch as KernelOps>::dense_conv_3d(
        x.into_dispatch(),
        weight.into_dispatch(),
        bias.into_dispatch(),
        stride,
        before,
        rectify,
    ))
}
