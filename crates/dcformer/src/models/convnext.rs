//! ConvNeXt in 3D, of the paper's comparison (table 2; arXiv 2201.03545): blocks that mix tokens with a depthwise
//! convolution of 7 x 7 x 7.
//!
//! Stem and transitions are the chassis of `pyramid`. The paper names the network and its cost; what it
//! consists of was inferred from both (P34).

use burn::module::{Module, Param};
use burn::nn::Initializer;
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::batch_norm::Statistics;
use super::conv::{Conv, ConvConfig};
use super::encoder::{Encoder, EncoderConfig, Variant};
use super::layer_norm::LayerNorm;
use super::mlp::{EXPANSION, Mlp};
use super::pyramid::{self, EPSILON, Pyramid, Stages};
use crate::complexity::{Cost, Shape3};
use crate::error::Result;

/// Taps of the token mixer along each axis.
const MIXER: usize = 7;
/// Scale of a fresh residual branch: a new network starts close to the identity.
const LAYER_SCALE: f64 = 1e-6;

/// Sizes of a [`ConvnextEncoder`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConvnextEncoderConfig {
    /// Channels of each stage.
    pub channels: [usize; 4],
    /// Blocks in each stage.
    pub blocks: [usize; 4],
    /// What the scale of each residual branch starts from in fresh weights.
    #[serde(default = "layer_scale")]
    pub layer_scale: f64,
}

const fn layer_scale() -> f64 {
    LAYER_SCALE
}

impl ConvnextEncoderConfig {
    /// An encoder of these widths and depths.
    pub fn new(channels: [usize; 4], blocks: [usize; 4]) -> Self {
        Self {
            channels,
            blocks,
            layer_scale: LAYER_SCALE,
        }
    }

    /// 3.19 M parameters (paper table 2).
    pub fn nano() -> Self {
        Self::new([40, 80, 160, 320], [2, 2, 2, 2])
    }

    /// 15.6 M parameters (paper table 2).
    pub fn naive() -> Self {
        Self::new([80, 160, 320, 640], [2, 2, 6, 2])
    }

    /// 31.6 M parameters (paper table 2).
    pub fn tiny() -> Self {
        Self::new([96, 192, 384, 768], [3, 3, 9, 3])
    }

    fn stages(&self) -> Stages {
        Stages {
            channels: self.channels,
            blocks: self.blocks,
        }
    }
}

impl EncoderConfig for ConvnextEncoderConfig {
    type Encoder = ConvnextEncoder;

    const NETWORK: &'static str = "convnext";

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

    fn init(&self, device: &Device) -> ConvnextEncoder {
        let block = |channels| Block::new(channels, self.layer_scale, device);
        ConvnextEncoder {
            pyramid: self.stages().init(block, device),
        }
    }
}

/// Volume in, grid of features out.
#[derive(Module, Debug)]
pub struct ConvnextEncoder {
    pyramid: Pyramid<Block>,
}

impl Encoder for ConvnextEncoder {
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

/// One block: `x + scale * mlp(norm(mixer(x)))`.
#[derive(Module, Debug)]
struct Block {
    mixer: Conv,
    norm: LayerNorm,
    mlp: Mlp,
    /// `[channels]`
    scale: Param<Tensor<1>>,
}

impl Block {
    fn new(channels: usize, scale: f64, device: &Device) -> Self {
        Self {
            mixer: ConvConfig::depthwise(channels, MIXER).init(device),
            norm: LayerNorm::new(channels, EPSILON, device),
            mlp: Mlp::new(channels, EXPANSION * channels, device),
            scale: Initializer::Constant { value: scale }.init([channels], device),
        }
    }

    fn cost(channels: usize, positions: usize) -> Cost {
        let mut cost = Cost::default();
        let x = cost.here();
        ConvConfig::depthwise(channels, MIXER).cost(&mut cost, "mixer", positions);
        cost.norm("norm", channels, positions);
        cost.part("mlp", Mlp::cost(channels, EXPANSION * channels, positions));
        cost.scale("scale", channels);
        cost.add("residual", x);
        cost
    }
}

impl pyramid::Block for Block {
    fn forward(&self, x: Tensor<5>) -> Tensor<5> {
        let mixed = self.norm.forward(self.mixer.forward(x.clone()));
        x + self.mlp.forward_scaled(mixed, &self.scale)
    }
}
