//! The gated MLP of CT-ViT's layers.

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Tensor};
use dcformer_kernels::gated_gelu;

use crate::complexity::{Bias, Cost};
use crate::models::layer_norm::{LAYER_NORM_EPSILON, LayerNorm};

/// `contract(gelu(gate) * value)` of a normalised token; `expand` makes value and gate.
#[derive(Module, Debug)]
pub(super) struct FeedForward {
    norm: LayerNorm,
    /// Values, then gates.
    expand: Linear,
    contract: Linear,
}

impl FeedForward {
    /// Of tokens of `width` features, with `inner` units.
    pub(super) fn new([width, inner]: [usize; 2], device: &Device) -> Self {
        let linear = |inputs, outputs| {
            LinearConfig::new(inputs, outputs)
                .with_bias(false)
                .init(device)
        };
        Self {
            norm: LayerNorm::new(width, LAYER_NORM_EPSILON, device),
            expand: linear(width, 2 * inner),
            contract: linear(inner, width),
        }
    }

    /// # Shapes
    /// - input, output: `[sequences, tokens, width]`
    pub(super) fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let shape = x.dims();
        let [sequences, tokens, width] = shape;
        let x = self.norm.forward(x.reshape([sequences * tokens, width]));
        let gated = gated_gelu(self.expand.forward(x));
        self.contract.forward(gated).reshape(shape)
    }

    pub(super) fn cost([width, inner]: [usize; 2], rows: usize) -> Cost {
        let mut cost = Cost::default();
        cost.norm("norm", width, rows);
        cost.linear("expand", [width, 2 * inner], rows, Bias::Without);
        cost.gate("gate", inner * rows);
        cost.linear("contract", [inner, width], rows, Bias::Without);
        cost
    }
}
