//! The transformer block of `small-paper`, in the place of the convolution block in its last two stages.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use dcformer_kernels::depthwise_decomposed_conv;

use crate::complexity::{Bias, Cost, Products};
use crate::models::attention::{AttentionScale, SelfAttention, SelfAttentionConfig};
use crate::models::decomposed::AxisConv;
use crate::models::layer_norm::{LAYER_NORM_EPSILON, LayerNorm};
use crate::models::mlp::{EXPANSION, Mlp};

/// Heads of each attention (authors' code).
pub(super) const HEADS: usize = 8;
/// Taps of a position encoding.
const POSITION_TAPS: usize = 3;

/// `x += position(x)`, `x += attention(norm(x))`, `x += position(x)`, `x += mlp(norm(x))`.
#[derive(Module, Debug)]
pub(super) struct AttentionBlock {
    position_1: PositionEncoding,
    norm_1: LayerNorm,
    attention: SelfAttention,
    position_2: PositionEncoding,
    norm_2: LayerNorm,
    mlp: Mlp,
}

impl AttentionBlock {
    pub(super) fn new(channels: usize, scale: AttentionScale, device: &Device) -> Self {
        let norm = || LayerNorm::new(channels, LAYER_NORM_EPSILON, device);
        Self {
            position_1: PositionEncoding::new(channels, device),
            norm_1: norm(),
            attention: attention(channels, scale).init(device),
            position_2: PositionEncoding::new(channels, device),
            norm_2: norm(),
            mlp: Mlp::new(channels, EXPANSION * channels, device),
        }
    }

    /// # Shapes
    /// - input, output: `[batch, depth, height, width, channels]`
    pub(super) fn forward(&self, x: Tensor<5>) -> Tensor<5> {
        let [batch, depth, height, width, channels] = x.dims();
        let grid = [batch, depth, height, width, channels];
        let x = x.clone() + self.position_1.forward(x);
        let tokens = self.norm_1.forward(x.clone());
        let tokens = tokens.reshape([batch, depth * height * width, channels]);
        let x = x + self.attention.forward(tokens).reshape(grid);
        let x = x.clone() + self.position_2.forward(x);
        x.clone() + self.mlp.forward(self.norm_2.forward(x))
    }

    pub(super) fn cost(channels: usize, positions: usize) -> Cost {
        let mut cost = Cost::default();
        let attention = attention(channels, AttentionScale::default());
        cost.residual("position_1", PositionEncoding::cost(channels, positions));
        let x = cost.here();
        cost.norm("norm_1", channels, positions);
        cost.part("attention", attention.cost(1, positions, Products::Matmul));
        cost.add("attention.residual", x);
        cost.residual("position_2", PositionEncoding::cost(channels, positions));
        let x = cost.here();
        cost.norm("norm_2", channels, positions);
        cost.part("mlp", Mlp::cost(channels, EXPANSION * channels, positions));
        cost.add("mlp.residual", x);
        cost
    }
}

fn attention(channels: usize, scale: AttentionScale) -> SelfAttentionConfig {
    SelfAttentionConfig {
        width: channels,
        heads: HEADS,
        head_dim: channels / HEADS,
        bias: Bias::Without,
        scale,
    }
}

/// Tells tokens where they are: three depthwise 1-D convolutions, added, without norms.
#[derive(Module, Debug)]
struct PositionEncoding {
    height: AxisConv,
    width: AxisConv,
    depth: AxisConv,
}

impl PositionEncoding {
    fn new(channels: usize, device: &Device) -> Self {
        let taps = POSITION_TAPS;
        Self {
            height: AxisConv::new([channels, 1, taps, 1, 1], device),
            width: AxisConv::new([channels, 1, 1, taps, 1], device),
            depth: AxisConv::new([channels, 1, 1, 1, taps], device),
        }
    }

    /// # Shapes
    /// - input, output: `[batch, depth, height, width, channels]`
    fn forward(&self, x: Tensor<5>) -> Tensor<5> {
        let axes = [&self.depth, &self.height, &self.width];
        let filters = axes.map(AxisConv::taps);
        let bias = axes.map(AxisConv::bias).into_iter().reduce(|a, b| a + b);
        let bias = bias.expect("there are three axes");
        depthwise_decomposed_conv(x, Tensor::stack(filters.to_vec(), 0), bias)
    }

    fn cost(channels: usize, positions: usize) -> Cost {
        let mut cost = Cost::default();
        cost.sum_of(&["height", "width", "depth"], |cost, axis| {
            cost.depthwise(axis, channels, POSITION_TAPS, positions, Bias::With);
        });
        cost
    }
}
