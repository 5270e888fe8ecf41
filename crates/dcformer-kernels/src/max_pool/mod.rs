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

/// [`max_pool`], then a matrix product over channels: the entrance of a stage.
///
/// # Shapes
/// - `x`: `[batch, depth, height, width, channels]`
/// - `weight`: `[channels, channels_out]`
/// - output: `[batch, ceil(depth / 2), ceil(height / 2), ceil(width / 2), channels_out]`
///
/// # Panics
/// If the channels differ or there are none.
///
/// For inference: on the CPU the pooled values never reach memory. Gradients are those of the definition.
pub fn pool_project(x: Tensor<5>, weight: Tensor<2>) -> Tensor<5> {
    let ([_, _, _, _, channels], [rows, _]) = (x.dims(), weight.dims());
    assert_eq!(
        rows, channels,
        "x has {channels} channels, the weight expects {rows}"
    );
    assert!(channels > 0, "x has no channels");
    Tensor::from_dispatch(<Dispatch as KernelOps>::pool_project(
        x.into_dispatch(),
        weight.into_dispatch(),
    ))
}
