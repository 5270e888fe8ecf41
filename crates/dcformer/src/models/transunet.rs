//! The encoder of TransUNet in 3D, of the paper's comparison (table 2; arXiv 2102.04306): convolutions down to a
//! thirty-second of each axis, then a transformer.
//!
//! It is the 3D form of a published implementation in 2D, without its decoder and its last convolution (P37).

use burn::module::Module;
use burn::nn::{Dropout, DropoutConfig, Initializer, Linear, LinearConfig};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::attention::{AttentionScale, SelfAttention, SelfAttentionConfig};
use super::batch_norm::Statistics;
use super::conv::{ConvConfig, ConvNorm};
use super::encoder::{
    Encoder, EncoderConfig, MOST, MOST_LAYERS, Variant, channels_last, check_size,
};
use super::layer_norm::{LAYER_NORM_EPSILON, LayerNorm};
use super::mlp::Mlp;
use super::token_positions::TokenPositions;
use crate::complexity::{Bias, Cost, Products, Shape3};
use crate::error::{Error, Result};

/// Taps and stride of the first convolution.
const PATCH: usize = 7;
const PATCH_STRIDE: usize = 4;
/// Bottlenecks, each of which halves the grid and doubles the channels.
const BOTTLENECKS: usize = 3;
/// Taps of a bottleneck's middle convolution.
const MIDDLE: usize = 3;

/// Sizes of a [`TransunetEncoder`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TransunetEncoderConfig {
    /// Channels of the first convolution; the transformer is eight times as wide.
    pub channels: usize,
    /// Layers of the transformer.
    pub layers: usize,
    /// Attention heads of a layer; they divide the transformer's width.
    pub heads: usize,
    /// Units of each MLP's hidden layer.
    pub hidden: usize,
    /// Share of features set to zero in training, in the transformer.
    pub dropout: f64,
    /// Grid of tokens whose positions are learnt; those of other grids are interpolated.
    pub positions: Shape3,
    /// What the logits of attention are multiplied by.
    #[serde(default)]
    pub attention_scale: AttentionScale,
}

impl TransunetEncoderConfig {
    /// The paper's heads and hidden layer in this width and depth.
    pub fn new(channels: usize, layers: usize) -> Self {
        Self {
            channels,
            layers,
            heads: 4,
            hidden: 512,
            dropout: 0.1,
            positions: Shape3 {
                depth: 8,
                height: 16,
                width: 16,
            },
            attention_scale: AttentionScale::Divided,
        }
    }

    /// 12.5 M parameters (paper table 2).
    pub fn naive() -> Self {
        Self::new(48, 6)
    }

    /// 23.9 M parameters (paper table 2).
    pub fn tiny() -> Self {
        Self::new(64, 8)
    }

    /// Features of a token.
    fn width(&self) -> usize {
        self.channels << BOTTLENECKS
    }

    fn patch(&self) -> ConvConfig {
        ConvConfig::dense([1, self.channels], PATCH, PATCH_STRIDE)
    }

    /// Channels before and after each bottleneck.
    fn bottlenecks(&self) -> impl Iterator<Item = [usize; 2]> {
        let channels = self.channels;
        (0..BOTTLENECKS).map(move |index| [channels << index, channels << (index + 1)])
    }

    fn attention(&self) -> SelfAttentionConfig {
        SelfAttentionConfig {
            width: self.width(),
            heads: self.heads,
            head_dim: self.width() / self.heads,
            bias: Bias::Without,
            scale: self.attention_scale,
        }
    }
}

impl EncoderConfig for TransunetEncoderConfig {
    type Encoder = TransunetEncoder;

    const NETWORK: &'static str = "transunet";

    const VARIANTS: &'static [Variant<Self>] = &[("naive", Self::naive), ("tiny", Self::tiny)];

    fn features(&self) -> usize {
        self.width()
    }

    fn check(&self) -> Result<()> {
        let network = Self::NETWORK;
        check_size(network, "channels", self.channels, MOST >> BOTTLENECKS)?;
        check_size(network, "layers", self.layers, MOST_LAYERS)?;
        check_size(network, "heads", self.heads, self.width())?;
        check_size(network, "hidden", self.hidden, MOST)?;
        TokenPositions::check(network, self.positions)?;
        let wrong = |field, found: String, expected: &str| {
            Err(Error::NetworkField {
                network,
                field,
                found,
                expected: expected.to_owned(),
            })
        };
        if !self.width().is_multiple_of(self.heads) {
            return wrong(
                "heads",
                self.heads.to_string(),
                "a divisor of 8 times `channels`",
            );
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return wrong("dropout", self.dropout.to_string(), "0 to below 1");
        }
        Ok(())
    }

    fn grid(&self, volume: Shape3) -> Result<Shape3> {
        let patches = volume.strided(PATCH_STRIDE);
        Ok((0..BOTTLENECKS).fold(patches, |grid, _| grid.strided(2)))
    }

    fn cost(&self, volume: Shape3) -> Cost {
        let mut cost = Cost::default();
        let mut grid = volume.strided(PATCH_STRIDE);
        cost.part("patch", ConvNorm::cost(self.patch(), grid.voxels()));
        cost.relu("patch.relu");
        for (index, widths) in self.bottlenecks().enumerate() {
            let before = grid.voxels();
            grid = grid.strided(2);
            let bottleneck = Bottleneck::cost(widths, before, grid.voxels());
            cost.part(format!("bottlenecks.{index}"), bottleneck);
        }
        let (width, tokens) = (self.width(), grid.voxels());
        cost.linear("projection", [width, width], tokens, Bias::With);
        let positions = TokenPositions::cost(width, self.positions, tokens);
        cost.part("tokens", positions);
        for layer in 0..self.layers {
            cost.part(format!("layers.{layer}"), Layer::cost(self, 1 + tokens));
        }
        cost
    }

    fn init(&self, device: &Device) -> TransunetEncoder {
        let width = self.width();
        let uniform = Initializer::Uniform { min: 0.0, max: 1.0 };
        TransunetEncoder {
            patch: ConvNorm::new(self.patch(), device),
            bottlenecks: self
                .bottlenecks()
                .map(|widths| Bottleneck::new(widths, device))
                .collect(),
            projection: LinearConfig::new(width, width).init(device),
            tokens: TokenPositions::new(width, self.positions, &uniform, device),
            dropout: DropoutConfig::new(self.dropout).init(),
            layers: (0..self.layers).map(|_| Layer::new(self, device)).collect(),
        }
    }
}

/// Volume in, grid of features out.
#[derive(Module, Debug)]
pub struct TransunetEncoder {
    patch: ConvNorm,
    bottlenecks: Vec<Bottleneck>,
    projection: Linear,
    tokens: TokenPositions,
    dropout: Dropout,
    layers: Vec<Layer>,
}

impl Encoder for TransunetEncoder {
    /// # Shapes
    /// - `volume`: `[batch, 1, depth, height, width]`
    /// - features `i`, of the first convolution, of each bottleneck and of the transformer: `[batch, depth / s, height / s,
    ///   width / s, features]`, with `s` = 4, 8, 16, 32, 32, sizes rounded up at every stride
    fn forward_watched(
        &self,
        volume: Tensor<5>,
        statistics: Statistics,
        after_stage: &mut dyn FnMut(&Tensor<5>),
    ) -> Tensor<5> {
        let mut x = self
            .patch
            .forward_rectified(channels_last(volume), statistics);
        after_stage(&x);
        for bottleneck in &self.bottlenecks {
            x = bottleneck.forward(x, statistics);
            after_stage(&x);
        }
        let [_, depth, height, width, _] = x.dims();
        let tokens = self.tokens.prepend(self.projection.forward(x));
        let tokens = self.dropout.forward(tokens);
        let layers = self.layers.iter();
        let tokens = layers.fold(tokens, |tokens, layer| layer.forward(tokens));
        let features = TokenPositions::drop_class(tokens, [depth, height, width]);
        after_stage(&features);
        features
    }
}

/// Half the grid and twice the channels: `relu(narrow -> halve -> widen + shortcut)`, each a convolution with its norm.
#[derive(Module, Debug)]
struct Bottleneck {
    first: ConvNorm,
    halve: ConvNorm,
    last: ConvNorm,
    shortcut: ConvNorm,
}

impl Bottleneck {
    fn new(widths: [usize; 2], device: &Device) -> Self {
        let [first, halve, last, shortcut] =
            Self::convs(widths).map(|conv| ConvNorm::new(conv, device));
        Self {
            first,
            halve,
            last,
            shortcut,
        }
    }

    fn convs([inputs, outputs]: [usize; 2]) -> [ConvConfig; 4] {
        [
            ConvConfig::dense([inputs, outputs], 1, 1),
            ConvConfig::dense([outputs; 2], MIDDLE, 2),
            ConvConfig::dense([outputs; 2], 1, 1),
            ConvConfig::dense([inputs, outputs], 1, 2),
        ]
    }

    /// # Shapes
    /// - input: `[batch, depth, height, width, channels_in]`
    /// - output: `[batch, ceil(depth / 2), ceil(height / 2), ceil(width / 2), channels_out]`
    fn forward(&self, x: Tensor<5>, statistics: Statistics) -> Tensor<5> {
        let main = self.first.forward_rectified(x.clone(), statistics);
        let main = self.halve.forward_rectified(main, statistics);
        let main = self.last.forward(main, statistics);
        relu(main + self.shortcut.forward(x, statistics))
    }

    fn cost(widths: [usize; 2], before: usize, after: usize) -> Cost {
        let [first, halve, last, shortcut] = Self::convs(widths);
        let mut cost = Cost::default();
        let x = cost.here();
        cost.part("first", ConvNorm::cost(first, before));
        cost.relu("first.relu");
        cost.part("halve", ConvNorm::cost(halve, after));
        cost.relu("halve.relu");
        cost.part("last", ConvNorm::cost(last, after));
        let main = cost.here();
        cost.back_to(x);
        cost.part("shortcut", ConvNorm::cost(shortcut, after));
        cost.add("sum", main);
        cost.relu("relu");
        cost
    }
}

/// `x = norm(x + attention(x))`, `x = norm(x + mlp(x))`.
#[derive(Module, Debug)]
struct Layer {
    attention: SelfAttention,
    attention_norm: LayerNorm,
    mlp: Mlp,
    mlp_norm: LayerNorm,
    dropout: Dropout,
}

impl Layer {
    fn new(config: &TransunetEncoderConfig, device: &Device) -> Self {
        let norm = || LayerNorm::new(config.width(), LAYER_NORM_EPSILON, device);
        Self {
            attention: config.attention().init(device),
            attention_norm: norm(),
            mlp: Mlp::new(config.width(), config.hidden, device),
            mlp_norm: norm(),
            dropout: DropoutConfig::new(config.dropout).init(),
        }
    }

    /// # Shapes
    /// - input, output: `[batch, tokens, features]`
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let attended = self.dropout.forward(self.attention.forward(x.clone()));
        let x = self.attention_norm.forward(x + attended);
        let hidden = self.mlp.forward_dropping(x.clone(), &self.dropout);
        self.mlp_norm.forward(x + hidden)
    }

    fn cost(config: &TransunetEncoderConfig, tokens: usize) -> Cost {
        let mut cost = Cost::default();
        let x = cost.here();
        let attention = config.attention().cost(1, tokens, Products::Einsum);
        cost.part("attention", attention);
        cost.add("attention.residual", x);
        cost.norm("attention_norm", config.width(), tokens);
        let x = cost.here();
        cost.part("mlp", Mlp::cost(config.width(), config.hidden, tokens));
        cost.add("mlp.residual", x);
        cost.norm("mlp_norm", config.width(), tokens);
        cost
    }
}
