//! PoolFormer in 3D, of the paper's comparison (table 2; arXiv 2111.11418): blocks that mix tokens by averaging
//! neighbours.
//!
//! Stem and transitions are the chassis of `pyramid`. The paper names the network and its cost; what it
//! consists of was inferred from both (P34).

use burn::module::{Module, Param};
use burn::nn::Initializer;
use burn::tensor::{Device, Tensor};
use dcformer_kernels::average_pool;
use serde::{Deserialize, Serialize};

use super::batch_norm::Statistics;
use super::encoder::{Encoder, EncoderConfig, Variant};
use super::layer_norm::LayerNorm;
use super::mlp::{EXPANSION, Mlp};
use super::pyramid::{self, EPSILON, Pyramid, Stages};
use crate::complexity::{Cost, Shape3};
use crate::error::Result;

/// Scale of a fresh residual branch: a new network starts close to the identity.
const LAYER_SCALE: f64 = 1e-5;

/// Sizes of a [`PoolformerEncoder`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoolformerEncoderConfig {
    /// Channels of each stage.
    pub channels: [usize; 4],
    /// Blocks in each stage.
    pub blocks: [usize; 4],
    /// What the scales of each residual branch start from in fresh weights.
    #[serde(default = "layer_scale")]
    pub layer_scale: f64,
}

const fn layer_scale() -> f64 {
    LAYER_SCALE
}

impl PoolformerEncoderConfig {
    /// An encoder of these widths and depths.
    pub fn new(channels: [usize; 4], blocks: [usize; 4]) -> Self {
        Self {
            channels,
            blocks,
            layer_scale: LAYER_SCALE,
        }
    }

    /// 2.79 M parameters (paper table 2).
    pub fn nano() -> Self {
        Self::new([40, 80, 160, 320], [2, 2, 2, 2])
    }

    /// 11.3 M parameters (paper table 2): the widths and depths of PoolFormer-S12.
    pub fn naive() -> Self {
        Self::new([64, 128, 320, 512], [2, 2, 6, 2])
    }

    /// 20.7 M parameters (paper table 2).
    pub fn tiny() -> Self {
        Self::new([96, 192, 384, 768], [2, 2, 6, 2])
    }

    fn stages(&self) -> Stages {
        Stages {
            channels: self.channels,
            blocks: self.blocks,
        }
    }
}

impl EncoderConfig for PoolformerEncoderConfig {
    type Encoder = PoolformerEncoder;

    const NETWORK: &'static str = "poolformer";

    const VARIANTS: &'static [Variant<Self>] = &[
        ("nano", Self::nano),
        ("naive", Self::naive),
        ("tiny", Self::tiny),
    ];

    fn features(&self) -> usize {
        self.channels[3]
    }

    fn check(&self) -> Result<()> {
        self.stages().check(Self::NETWORK)
    }

    fn grid(&self, volume: Shape3) -> Result<Shape3> {
        Ok(Stages::grid(volume))
    }

    fn cost(&self, volume: Shape3) -> Cost {
        self.stages().cost(volume, Block::cost).inside("pyramid")
    }

    fn init(&self, device: &Device) -> PoolformerEncoder {
        let block = |channels| Block::new(channels, self.layer_scale, device);
        PoolformerEncoder {
            pyramid: self.stages().init(block, device),
        }
    }
}

/// Volume in, grid of features out.
#[derive(Module, Debug)]
pub struct PoolformerEncoder {
    pyramid: Pyramid<Block>,
}

impl Encoder for PoolformerEncoder {
    /// # Shapes
    /// - `volume`: `[batch, 1, depth, height, width]`
    /// - features `i`, of the stem and of each stage: `[batch, depth / s, height / s, width / s, channels]`, with `s` = 8,
    ///   8, 16, 32, 64, sizes rounded up at every stride
    fn forward_watched(
        &self,
        volume: Tensor<5>,
        _statistics: Statistics,
        after_stage: &mut dyn FnMut(&Tensor<5>),
    ) -> Tensor<5> {
        self.pyramid.forward_watched(volume, after_stage)
    }
}

/// One block: `x += pool_scale * (pool(norm(x)) - norm(x))`, `x += mlp_scale * mlp(norm(x))`.
#[derive(Module, Debug)]
struct Block {
    pool_norm: LayerNorm,
    /// `[channels]`
    pool_scale: Param<Tensor<1>>,
    mlp_norm: LayerNorm,
    mlp: Mlp,
    /// `[channels]`
    mlp_scale: Param<Tensor<1>>,
}

impl Block {
    fn new(channels: usize, scale: f64, device: &Device) -> Self {
        let norm = || LayerNorm::new(channels, EPSILON, device);
        let scale = || Initializer::Constant { value: scale }.init([channels], device);
        Self {
            pool_norm: norm(),
            pool_scale: scale(),
            mlp_norm: norm(),
            mlp: Mlp::new(channels, EXPANSION * channels, device),
            mlp_scale: scale(),
        }
    }

    /// One of the two norms is of a kind that fvcore counts (P36).
    fn cost(channels: usize, positions: usize) -> Cost {
        let mut cost = Cost::default();
        let x = cost.here();
        cost.handwritten_norm("pool_norm", channels);
        let normalized = cost.here();
        cost.linear_map("pool");
        cost.add("difference", normalized);
        cost.scale("pool_scale", channels);
        cost.add("pool_residual", x);
        let x = cost.here();
        cost.norm("mlp_norm", channels, positions);
        cost.part("mlp", Mlp::cost(channels, EXPANSION * channels, positions));
        cost.scale("mlp_scale", channels);
        cost.add("mlp_residual", x);
        cost
    }
}

impl pyramid::Block for Block {
    fn forward(&self, x: Tensor<5>) -> Tensor<5> {
        // A mean over neighbours keeps channels apart, so the scale may come before it.
        let scaled = self.pool_norm.forward_scaled(x.clone(), &self.pool_scale);
        let x = x - scaled.clone() + average_pool(scaled);
        let normalized = self.mlp_norm.forward(x.clone());
        x + self.mlp.forward_scaled(normalized, &self.mlp_scale)
    }
}
