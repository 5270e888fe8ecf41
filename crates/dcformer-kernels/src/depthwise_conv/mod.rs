//! Depthwise convolution: every channel through a small box of its own neighbours.

pub(crate) mod backward;
mod columns;
pub(crate) mod cpu;
pub(crate) mod lines;
mod points;
pub(crate) mod reference;
mod winograd;

use burn::backend::Dispatch;
use burn::tensor::Tensor;

use crate::KernelOps;

/// One 3-D filter per channel, the grid kept: the token mixer of a ConvNeXt block.
///
/// ```text
/// y[z,y,x,c] = b[c] + Σ_ijk  w[i,j,k,c] · v[z+i-p₀, y+j-p₁, x+k-p₂, c]
/// ```
/// with `p = before` and zeros outside the volume. A centred filter has `before = taps / 2` along each axis; one that looks
/// back only, as CT-ViT's along depth, has `before = taps - 1`.
///
/// # Shapes
/// - `x`, output: `[batch, depth, height, width, channels]`
/// - `weight`: `[taps, taps, taps, channels]`, taps along depth, height, width, which may differ
/// - `bias`: `[channels]`
/// - `before`: zeros that the grid is continued with in front along depth, height, width; behind, as many as keep its size
///
/// # Panics
/// If an axis has no taps or as many zeros in front, or the channel counts differ.
///
/// # Cost
/// One multiply-add per value and tap, of seven taps along the width ten for four outputs; bound by arithmetic from
/// 3 x 3 x 3 on.
///
/// Gradients reach `x`, `weight` and `bias`; any may be untracked.
pub fn depthwise_conv(
    x: Tensor<5>,
    weight: Tensor<4>,
    bias: Tensor<1>,
    before: [usize; 3],
) -> Tensor<5> {
    let [_, _, _, _, channels] = x.dims();
    let [depth, height, width, filters] = weight.dims();
    for (taps, before) in [depth, height, width].into_iter().zip(before) {
        assert!(
            before < taps,
            "a filter of {taps} taps must have fewer zeros in front, got {before}"
        );
    }
    assert!(channels > 0, "the input has no channels");
    assert_eq!(
        channels, filters,
        "input has {channels} channels, the weight has filters for {filters}"
    );
    assert_eq!(
        bias.dims(),
        [channels],
        "bias must have one value per channel"
    );
    Tensor::from_dispatch(<Dispatch as KernelOps>::depthwise_conv_3d(
        x.into_dispatch(),
        weight.into_dispatch(),
        bias.into_dispatch(),
        before,
    ))
}
