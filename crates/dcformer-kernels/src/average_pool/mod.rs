//! 3-D average pooling that keeps the grid.

pub(crate) mod cpu;
pub(crate) mod reference;

use burn::backend::Dispatch;
use burn::tensor::Tensor;

use crate::KernelOps;

/// Mean of each 3x3x3 window, stride 1: the token mixer of PoolFormer. What lies outside the grid does not count.
///
/// # Shapes
/// - `x`, output: `[batch, depth, height, width, channels]`
pub fn average_pool(x: Tensor<5>) -> Tensor<5> {
    Tensor::from_dispatch(<Dispatch as KernelOps>::average_pool_3d(x.into_dispatch()))
}
