//! Two linear layers with a GELU between them.

pub(crate) mod cpu;
pub(crate) mod reference;

use burn::backend::Dispatch;
use burn::tensor::Tensor;

use crate::KernelOps;

/// `gelu(x · w1 + b1) · w2 + b2` with the exact GELU, `gelu(h) = h/2 · (1 + erf(h/√2))`.
///
/// # Shapes
/// - `x`: `[rows, channels_in]`
/// - `w1`: `[channels_in, hidden]`, `b1`: `[hidden]`
/// - `w2`: `[hidden, channels_out]`, `b2`: `[channels_out]`
/// - output: `[rows, channels_out]`
///
/// # Panics
/// If the sizes do not fit together.
///
/// The backward pass recomputes the hidden activations, unless there is [room](crate::keep_hidden_activations) to keep them. Gradients reach all five inputs.
pub fn mlp(x: Tensor<2>, w1: Tensor<2>, b1: Tensor<1>, w2: Tensor<2>, b2: Tensor<1>) -> Tensor<2> {
    let ([_, channels_in], [rows_1, hidden], [rows_2, channels_out]) =
        (x.dims(), w1.dims(), w2.dims());
    assert_eq!(
        rows_1, channels_in,
        "x has {channels_in} channels, w1 expects {rows_1}"
    );
    assert_eq!(
        rows_2, hidden,
        "w1 gives {hidden} channels, w2 expects {rows_2}"
    );
    assert_eq!(
        b1.dims(),
        [hidden],
        "b1 must have one value per hidden channel"
    );
    assert_eq!(
        b2.dims(),
        [channels_out],
        "b2 must have one value per output channel"
    );
    Tensor::from_dispatch(<Dispatch as KernelOps>::mlp(
        x.into_dispatch(),
        w1.into_dispatch(),
        b1.into_dispatch(),
        w2.into_dispatch(),
        b2.into_dispatch(),
    ))
}
