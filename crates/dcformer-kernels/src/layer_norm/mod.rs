//! Layer normalisation over channels.

pub(crate) mod cpu;
pub(crate) mod reference;

use burn::backend::Dispatch;
use burn::tensor::Tensor;

use crate::KernelOps;

/// `(x - mean) / sqrt(var + epsilon) · gamma + beta`, mean and biased variance over the channels of each row.
///
/// # Shapes
/// - `x`, output: `[rows, channels]`
/// - `gamma`, `beta`: `[channels]`
///
/// # Panics
/// If the channel counts differ.
pub fn layer_norm(x: Tensor<2>, gamma: Tensor<1>, beta: Tensor<1>, epsilon: f64) -> Tensor<2> {
    let [_, channels] = x.dims();
    assert_eq!(
        gamma.dims(),
        [channels],
        "gamma must have one value per channel"
    );
    assert_eq!(
        beta.dims(),
        [channels],
        "beta must have one value per channel"
    );
    Tensor::from_dispatch(<Dispatch as KernelOps>::layer_norm_rows(
        x.into_dispatch(),
        gamma.into_dispatch(),
        beta.into_dispatch(),
        epsilon,
    ))
}
