//! The stem of DCFormer in inference: all its convolutions, the first pooling and the first projection, plane by plane.

pub(crate) mod compose;
pub(crate) mod cpu;
pub(crate) mod reference;

use burn::backend::Dispatch;
use burn::tensor::Tensor;

use crate::KernelOps;
use crate::dense_decomposed::check;

/// The weights of a stem and of the entrance of its first stage, norms multiplied in.
#[derive(Clone, Debug)]
pub struct StemWeights {
    /// Of the first convolution, `[3, taps, channels_in, channels]`.
    pub weight: Tensor<4>,
    /// `[channels]`
    pub bias: Tensor<1>,
    /// Of the convolutions that follow, `[count, 3, taps, channels, channels]`.
    pub refinements: Tensor<5>,
    /// `[count, channels]`
    pub refinement_biases: Tensor<2>,
    /// `[channels, channels_out]`
    pub projection: Tensor<2>,
}

/// `project(max_pool(conv_n(... conv_2(conv_1(x)))))`: [dense decomposed
/// convolutions](crate::dense_decomposed_conv), the first with `stride`, the others with stride 1, a [`gelu`](crate::gelu())
/// after each if `activate`, then [`pool_project`](crate::pool_project()).
///
/// # Shapes
/// - `x`: `[batch, depth, height, width, channels_in]`
/// - output: `[batch, depth', height', width', channels_out]`, sizes divided by `stride` and by 2, rounded up each time
///
/// # Panics
/// If the sizes do not fit together, or a number of taps is even.
///
/// For inference: on the CPU the features between the layers never exist as a whole. Gradients are those of the definition.
pub fn stem(x: Tensor<5>, weights: StemWeights, stride: usize, activate: bool) -> Tensor<5> {
    let StemWeights {
        weight,
        bias,
        refinements,
        refinement_biases,
        projection,
    } = weights;
    check(&x, &weight, stride);
    let [_, _, _, channels] = weight.dims();
    let [count, branches, taps, inputs, outputs] = refinements.dims();
    assert_eq!(bias.dims(), [channels], "bias must be [channels]");
    assert_eq!(
        [branches, inputs, outputs],
        [3, channels, channels],
        "refinements must be [count, 3, taps, channels, channels]"
    );
    assert!(taps % 2 == 1, "the number of taps must be odd, got {taps}");
    assert_eq!(
        refinement_biases.dims(),
        [count, channels],
        "refinement_biases must be [count, channels]"
    );
    assert_eq!(
        projection.dims()[0],
        channels,
        "projection must be [channels, channels_out]"
    );
    Tensor::from_dispatch(<Dispatch as KernelOps>::stem(
        x.into_dispatch(),
        weight.into_dispatch(),
        bias.into_dispatch(),
        refinements.into_dispatch(),
        refinement_biases.into_dispatch(),
        projection.into_dispatch(),
        stride,
        activate,
    ))
}
