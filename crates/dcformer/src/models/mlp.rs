//! The MLP of transformer and convolution blocks: linear, GELU, linear, on each position.

use burn::module::{Module, Param};
use burn::nn::{Dropout, Linear, LinearConfig};
use burn::tensor::{Device, Tensor};
use dcformer_kernels::{gelu, mlp};

use crate::complexity::{Bias, Cost};

/// Width of the hidden layer in most networks, in channels of the block.
pub(super) const EXPANSION: usize = 4;

/// Linear, exact GELU, linear, with biases.
#[derive(Module, Debug)]
pub(super) struct Mlp {
    expand: Linear,
    contract: Linear,
}

impl Mlp {
    pub(super) fn new(channels: usize, hidden: usize, device: &Device) -> Self {
        Self {
            expand: LinearConfig::new(channels, hidden).init(device),
            contract: LinearConfig::new(hidden, channels).init(device),
        }
    }

    /// # Shapes
    /// - input, output: `[.., channels]`
    pub(super) fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        through(
            x,
            &self.expand,
            self.contract.weight.val(),
            bias_of(&self.contract),
        )
    }

    /// The output times `scale`, `[channels]`.
    ///
    /// # Shapes
    /// - input, output: `[.., channels]`
    pub(super) fn forward_scaled<const D: usize>(
        &self,
        x: Tensor<D>,
        scale: &Param<Tensor<1>>,
    ) -> Tensor<D> {
        let Scaled { weight, bias } = Scaled::new(&self.contract, scale.val());
        through(x, &self.expand, weight, bias)
    }

    /// With dropout after either layer, where it drops anything: in training.
    ///
    /// # Shapes
    /// - input, output: `[.., channels]`
    pub(super) fn forward_dropping<const D: usize>(
        &self,
        x: Tensor<D>,
        dropout: &Dropout,
    ) -> Tensor<D> {
        if dropout.prob == 0.0 || !x.device().is_autodiff() {
            return self.forward(x);
        }
        let hidden = dropout.forward(gelu(self.expand.forward(x)));
        dropout.forward(self.contract.forward(hidden))
    }

    pub(super) fn cost(channels: usize, hidden: usize, rows: usize) -> Cost {
        let mut cost = Cost::default();
        cost.linear("expand", [channels, hidden], rows, Bias::With);
        cost.activation("gelu");
        cost.linear("contract", [hidden, channels], rows, Bias::With);
        cost
    }
}

/// A linear layer whose outputs are scaled: the scale multiplies the columns of the matrix instead of the product, which
/// is the same sum, and no pass over the grid.
#[derive(Clone, Debug)]
pub(super) struct Scaled {
    pub(super) weight: Tensor<2>,
    pub(super) bias: Tensor<1>,
}

impl Scaled {
    pub(super) fn new(linear: &Linear, scale: Tensor<1>) -> Self {
        Self {
            weight: linear.weight.val() * scale.clone().unsqueeze_dim(0),
            bias: bias_of(linear) * scale,
        }
    }
}

/// `gelu(expand(x)) · weight + bias`, of a tensor of any rank.
pub(super) fn through<const D: usize>(
    x: Tensor<D>,
    expand: &Linear,
    weight: Tensor<2>,
    bias: Tensor<1>,
) -> Tensor<D> {
    let mut shape = x.dims();
    let ([channels, _], [_, outputs]) = (expand.weight.dims(), weight.dims());
    let rows = shape.iter().product::<usize>() / channels.max(1);
    let x = x.reshape([rows, channels]);
    shape[D - 1] = outputs;
    mlp(x, expand.weight.val(), bias_of(expand), weight, bias).reshape(shape)
}

/// The bias of a layer that was built with one.
pub(super) fn bias_of(linear: &Linear) -> Tensor<1> {
    linear.bias.as_ref().expect("built with a bias").val()
}
