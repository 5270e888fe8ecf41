//! A vision transformer in 3D, of the paper's comparison (table 2): patches of 32 x 32 x 32 voxels, all of which attend to
//! each other.
//!
//! It is that of the authors' follow-up project. The hidden layer of its MLPs is four units wide, where four times the
//! width was evidently meant; the paper's counts are those of four units (P35). There is no norm after the last layer.

use burn::module::Module;
use burn::nn::Initializer;
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::attention::{AttentionScale, SelfAttention, SelfAttentionConfig};
use super::batch_norm::Statistics;
use super::encoder::{Encoder, EncoderConfig, MOST, MOST_LAYERS, Variant, check_size};
use super::layer_norm::{LAYER_NORM_EPSILON, LayerNorm};
use super::mlp::Mlp;
use super::patch_embedding::PatchEmbedding;
use super::patches::PatchOrder;
use super::token_positions::TokenPositions;
use crate::complexity::{Bias, Cost, Products, Shape3};
use crate::error::Result;

/// Units of an MLP's hidden layer, in the network that the paper counted.
const HIDDEN: usize = 4;

/// Sizes of a [`VitEncoder`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VitEncoderConfig {
    /// Features of a token.
    pub width: usize,
    /// Layers.
    pub layers: usize,
    /// Attention heads of a layer.
    pub heads: usize,
    /// Features of a head.
    pub head_dim: usize,
    /// Units of each MLP's hidden layer: 4 in the network that the paper counted; four times `width` in a sane one (P35).
    pub hidden: usize,
    /// Voxels of a patch; they divide the volume.
    pub patch: Shape3,
    /// Grid of patches whose positions are learnt; those of other grids are interpolated.
    pub positions: Shape3,
}

impl VitEncoderConfig {
    /// The paper's patches, heads and hidden layer in this width and depth.
    pub fn new(width: usize, layers: usize) -> Self {
        Self {
            width,
            layers,
            heads: 8,
            head_dim: 64,
            hidden: HIDDEN,
            patch: Shape3 {
                depth: 32,
                height: 32,
                width: 32,
            },
            positions: Shape3 {
                depth: 8,
                height: 16,
                width: 16,
            },
        }
    }

    /// 11.1 M parameters (paper table 2).
    pub fn naive() -> Self {
        Self::new(256, 4)
    }

    /// 26.3 M parameters (paper table 2).
    pub fn tiny() -> Self {
        Self::new(512, 8)
    }

    fn attention(&self) -> SelfAttentionConfig {
        SelfAttentionConfig {
            width: self.width,
            heads: self.heads,
            head_dim: self.head_dim,
            bias: Bias::With,
            scale: AttentionScale::Divided,
        }
    }
}

impl EncoderConfig for VitEncoderConfig {
    type Encoder = VitEncoder;

    const NETWORK: &'static str = "vit";

    const VARIANTS: &'static [Variant<Self>] = &[("naive", Self::naive), ("tiny", Self::tiny)];

    fn features(&self) -> usize {
        self.width
    }

    fn check(&self) -> Result<()> {
        let network = Self::NETWORK;
        check_size(network, "width", self.width, MOST)?;
        check_size(network, "layers", self.layers, MOST_LAYERS)?;
        check_size(network, "heads", self.heads, MOST)?;
        check_size(network, "head_dim", self.head_dim, MOST)?;
        check_size(network, "hidden", self.hidden, MOST)?;
        PatchEmbedding::check(network, self.patch)?;
        TokenPositions::check(network, self.positions)
    }

    fn grid(&self, volume: Shape3) -> Result<Shape3> {
        PatchEmbedding::grid(Self::NETWORK, self.patch, volume)
    }

    fn cost(&self, volume: Shape3) -> Cost {
        let tokens = volume.voxels() / self.patch.voxels();
        let mut cost = Cost::default();
        let patches = PatchEmbedding::cost(self.patch, self.width, tokens);
        cost.part("patch_embedding", patches);
        let positions = TokenPositions::cost(self.width, self.positions, tokens);
        cost.part("tokens", positions);
        for layer in 0..self.layers {
            cost.part(format!("layers.{layer}"), Layer::cost(self, 1 + tokens));
        }
        cost
    }

    fn init(&self, device: &Device) -> VitEncoder {
        let normal = Initializer::Normal {
            mean: 0.0,
            std: 1.0,
        };
        VitEncoder {
            patch_embedding: PatchEmbedding::new(
                self.patch,
                PatchOrder::DepthLast,
                self.width,
                device,
            ),
            tokens: TokenPositions::new(self.width, self.positions, &normal, device),
            layers: (0..self.layers).map(|_| Layer::new(self, device)).collect(),
        }
    }
}

/// Volume in, grid of features out.
#[derive(Module, Debug)]
pub struct VitEncoder {
    patch_embedding: PatchEmbedding,
    tokens: TokenPositions,
    layers: Vec<Layer>,
}

impl Encoder for VitEncoder {
    /// # Shapes
    /// - `volume`: `[batch, 1, depth, height, width]`, multiples of a patch
    /// - features after each layer: `[batch, depth, height, width, features]` of the grid of patches
    fn forward_watched(
        &self,
        volume: Tensor<5>,
        _statistics: Statistics,
        after_stage: &mut dyn FnMut(&Tensor<5>),
    ) -> Tensor<5> {
        let patches = self.patch_embedding.forward(volume);
        let [_, depth, height, width, _] = patches.dims();
        let of_grid = |x: Tensor<3>| TokenPositions::drop_class(x, [depth, height, width]);
        let mut x = self.tokens.prepend(patches);
        for layer in &self.layers {
            x = layer.forward(x);
            after_stage(&of_grid(x.clone()));
        }
        of_grid(x)
    }
}

/// `x += attention(norm(x))`, `x += mlp(norm(x))`.
#[derive(Module, Debug)]
struct Layer {
    attention_norm: LayerNorm,
    attention: SelfAttention,
    mlp_norm: LayerNorm,
    mlp: Mlp,
}

impl Layer {
    fn new(config: &VitEncoderConfig, device: &Device) -> Self {
        let norm = || LayerNorm::new(config.width, LAYER_NORM_EPSILON, device);
        Self {
            attention_norm: norm(),
            attention: config.attention().init(device),
            mlp_norm: norm(),
            mlp: Mlp::new(config.width, config.hidden, device),
        }
    }

    /// # Shapes
    /// - input, output: `[batch, tokens, features]`
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let attended = self
            .attention
            .forward(self.attention_norm.forward(x.clone()));
        let x = x + attended;
        x.clone() + self.mlp.forward(self.mlp_norm.forward(x))
    }

    fn cost(config: &VitEncoderConfig, tokens: usize) -> Cost {
        let mut cost = Cost::default();
        let x = cost.here();
        cost.norm("attention_norm", config.width, tokens);
        let attention = config.attention().cost(1, tokens, Products::Matmul);
        cost.part("attention", attention);
        cost.add("attention.residual", x);
        let x = cost.here();
        cost.norm("mlp_norm", config.width, tokens);
        cost.part("mlp", Mlp::cost(config.width, config.hidden, tokens));
        cost.add("mlp.residual", x);
        cost
    }
}
