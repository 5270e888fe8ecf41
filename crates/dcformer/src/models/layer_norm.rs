//! Layer normalisation, of features of any rank.

use burn::module::{Module, Param};
use burn::nn::Initializer;
use burn::tensor::{Device, Tensor};

/// Added to a variance before its root is taken; PyTorch's default.
pub(super) const LAYER_NORM_EPSILON: f64 = 1e-5;

/// Normalises every position over its channels, the last axis.
#[derive(Module, Debug)]
pub(super) struct LayerNorm {
    gamma: Param<Tensor<1>>,
    beta: Param<Tensor<1>>,
    epsilon: f64,
}

impl LayerNorm {
    pub(super) fn new(channels: usize, epsilon: f64, device: &Device) -> Self {
        Self {
            gamma: Initializer::Ones.init([channels], device),
            beta: Initializer::Zeros.init([channels], device),
            epsilon,
        }
    }

    /// # Shapes
    /// - input, output: `[.., channels]`
    pub(super) fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        layer_norm(x, self.gamma.val(), self.beta.val(), self.epsilon)
    }

    /// The output times `scale`, `[channels]`, which multiplies the norm's own scale and shift instead: no pass over the
    /// grid.
    ///
    /// # Shapes
    /// - input, output: `[.., channels]`
    pub(super) fn forward_scaled<const D: usize>(
        &self,
        x: Tensor<D>,
        scale: &Param<Tensor<1>>,
    ) -> Tensor<D> {
        let (gamma, beta) = (self.gamma.val(), self.beta.val());
        layer_norm(x, gamma * scale.val(), beta * scale.val(), self.epsilon)
    }
}

/// [`dcformer_kernels::layer_norm`] of a tensor of any rank.
pub(super) fn layer_norm<const D: usize>(
    x: Tensor<D>,
    gamma: Tensor<1>,
    beta: Tensor<1>,
    epsilon: f64,
) -> Tensor<D> {
    let shape = x.dims();
    let [channels] = gamma.dims();
    let rows = shape.iter().product::<usize>() / channels.max(1);
    dcformer_kernels::layer_norm(x.reshape([rows, channels]), gamma, beta, epsilon).reshape(shape)
}
