//! 3-D max pooling.

pub(crate) mod cpu;
pub(crate) mod reference;

use burn::backend::Dispatch;
use burn::tensor::Tensor;

use crate::KernelOps;

/// Largest value of each 3x3x3 window, stride 2, padding 1; padding never wins.
///
/// # Shapes
/// - `x`: `[batch, depth, height, width, channels]`
/// - output: `[batch, ceil(depth / 2), ceil(height / 2), ceil(width / 2), channels]`
///
/// The gradient goes to the first largest value of a window in depth, height, width order, as in PyTorch.
///
/// SPEC section 2.
pub fn max_pool(x: Tensor<5>) -> Tensor<5> {
    Tensor::from_dispatch(<Dispatch as KernelOps>::max_pool_3d(x.into_dispatch()))
}
