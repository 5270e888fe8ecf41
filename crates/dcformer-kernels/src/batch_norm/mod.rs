//! Batch normalisation with the statistics of the batch, and an optional ReLU.

pub(crate) mod cpu;
pub(crate) mod reference;

use burn::backend::Dispatch;
use burn::tensor::Tensor;

use crate::KernelOps;

/// What [`batch_norm`] gives.
#[derive(Clone, Debug)]
pub struct BatchNormalized {
    /// `[rows, channels]`
    pub output: Tensor<2>,
    /// Mean of each channel before, `[channels]`; carries no gradient.
    pub mean: Tensor<1>,
    /// Biased variance of each channel before, `[channels]`; carries no gradient.
    pub variance: Tensor<1>,
}

/// `(x - mean) / sqrt(var + epsilon) · gamma + beta`, mean and biased variance of each channel over all rows; then, if
/// `rectify`, a ReLU.
///
/// # Shapes
/// - `x`, output: `[rows, channels]`
/// - `gamma`, `beta`: `[channels]`
///
/// # Panics
/// If the channel counts differ.
///
/// Gradients reach `x`, `gamma` and `beta`. Only the input and the statistics are kept for the backward pass.
pub fn batch_norm(
    x: Tensor<2>,
    gamma: Tensor<1>,
    beta: Tensor<1>,
    epsilon: f64,
    rectify: bool,
) -> BatchNormalized {
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
    let (output, mean, variance) = <Dispatch as KernelOps>::batch_norm_rows(
        x.into_dispatch(),
        gamma.into_dispatch(),
        beta.into_dispatch(),
        epsilon,
        rectify,
    );
    BatchNormalized {
        output: Tensor::from_dispatch(output),
        mean: Tensor::from_dispatch(mean),
        variance: Tensor::from_dispatch(variance),
    }
}
