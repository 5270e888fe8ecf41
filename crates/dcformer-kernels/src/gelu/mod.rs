//! The exact GELU.

pub(crate) mod cpu;
pub(crate) mod reference;

use burn::backend::Dispatch;
use burn::tensor::Tensor;

use crate::KernelOps;

/// `x/2 · (1 + erf(x/√2))`, element by element, of a tensor of any shape.
///
/// The framework's own runs on one thread, and on some backends has the gradient of the tanh form.
pub fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    Tensor::from_dispatch(<Dispatch as KernelOps>::exact_gelu(x.into_dispatch()))
}

/// `x[.., ..n] · gelu(x[.., n..])`, `n` half the channels: values times their gates (GEGLU, arXiv 2002.05202).
///
/// # Shapes
/// - `x`: `[rows, 2 * channels]`, values, then gates; output: `[rows, channels]`
///
/// # Panics
/// If the number of channels is odd.
pub fn gated_gelu(x: Tensor<2>) -> Tensor<2> {
    let [_, channels] = x.dims();
    assert!(
        channels.is_multiple_of(2),
        "values and gates need an even number of channels, got {channels}"
    );
    Tensor::from_dispatch(<Dispatch as KernelOps>::gated_gelu_rows(x.into_dispatch()))
}
