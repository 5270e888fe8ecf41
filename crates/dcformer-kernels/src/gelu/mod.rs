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
