//! A whole block of DCFormer in inference: mixer, MLP, residual.

pub(crate) mod cpu;
pub(crate) mod reference;

use burn::backend::Dispatch;
use burn::tensor::Tensor;

use crate::KernelOps;

/// The weights of a block, norms and scale multiplied in.
#[derive(Clone, Debug)]
pub struct MixerMlp {
    /// Of the depthwise convolution, `[3, taps, channels]`.
    pub filters: Tensor<3>,
    /// `[channels]`
    pub bias: Tensor<1>,
    /// `[channels, hidden]`
    pub w1: Tensor<2>,
    /// `[hidden]`
    pub b1: Tensor<1>,
    /// `[hidden, channels]`
    pub w2: Tensor<2>,
    /// `[channels]`
    pub b2: Tensor<1>,
}

/// `x + mlp(depthwise_decomposed_conv(x))`: see [`mlp`](crate::mlp()) and
/// [`depthwise_decomposed_conv`](crate::depthwise_decomposed_conv).
///
/// # Shapes
/// - `x`, output: `[batch, depth, height, width, channels]`
///
/// # Panics
/// If the sizes do not fit together, or the number of taps is even.
///
/// For inference: on the CPU neither the mixed nor the hidden values ever reach memory. Gradients are those of the
/// definition.
pub fn mixer_mlp(x: Tensor<5>, weights: MixerMlp) -> Tensor<5> {
    let MixerMlp {
        filters,
        bias,
        w1,
        b1,
        w2,
        b2,
    } = weights;
    let channels = crate::depthwise_decomposed::check(&x, &filters);
    let [_, hidden] = w1.dims();
    assert_eq!(bias.dims(), [channels], "bias must be [channels]");
    assert_eq!(
        w1.dims(),
        [channels, hidden],
        "w1 must be [channels, hidden]"
    );
    assert_eq!(b1.dims(), [hidden], "b1 must be [hidden]");
    assert_eq!(
        w2.dims(),
        [hidden, channels],
        "w2 must be [hidden, channels]"
    );
    assert_eq!(b2.dims(), [channels], "b2 must be [channels]");
    Tensor::from_dispatch(<Dispatch as KernelOps>::mixer_mlp(
        x.into_dispatch(),
        filters.into_dispatch(),
        bias.into_dispatch(),
        w1.into_dispatch(),
        b1.into_dispatch(),
        w2.into_dispatch(),
        b2.into_dispatch(),
    ))
}
