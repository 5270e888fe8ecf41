//! InceptionNeXt in 3D (arXiv 2303.16900) on DCFormer's budget: its stem, entrances, widths and depths, with another
//! block.
//!
//! The paper names the network without a row for it. The mixer leaves half of the channels as they are and convolves an
//! eighth of them with each of a small cube and three bands, one along each axis; the 2D original leaves 5/8 and has a
//! square and two bands (P39).

use burn::module::{Module, Param};
use burn::nn::Initializer;
use burn::tensor::{Device, Tensor};
use dcformer_kernels::depthwise_decomposed_conv;
use serde::{Deserialize, Serialize};

use super::batch_norm::{BatchNorm, Statistics};
use super::conv::{Conv, ConvConfig};
use super::dcformer::stages::{self, fresh_projection};
use super::dcformer::{STEM_STRIDE, Stem, StemActivation};
use super::decomposed::AxisConv;
use super::encoder::{Encoder, EncoderConfig, Variant, check_stages};
use super::mlp::{EXPANSION, Mlp};
use crate::complexity::{Bias, Cost, Shape3};
use crate::error::{Error, Result};

/// Channels for each branch of the mixer: one of this many.
const SHARE: usize = 8;
/// Branches that convolve: a cube and three bands.
const BRANCHES: usize = 4;
/// Taps of the cube along each axis, and of a band along its own.
const CUBE: usize = 3;
const BAND: usize = 11;
/// Scale of a fresh residual branch: a new network starts close to the identity.
const LAYER_SCALE: f64 = 1e-6;

/// Sizes of an [`InceptionnextEncoder`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InceptionnextEncoderConfig {
    /// Channels of the stem and of each stage; those of a stage are at least 8.
    pub channels: [usize; 5],
    /// Blocks in each stage.
    pub blocks: [usize; 4],
    /// What follows each convolution of the stem.
    #[serde(default)]
    pub stem_activation: StemActivation,
    /// What the scale of each residual branch starts from in fresh weights.
    #[serde(default = "layer_scale")]
    pub layer_scale: f64,
}

const fn layer_scale() -> f64 {
    LAYER_SCALE
}

impl InceptionnextEncoderConfig {
    /// An encoder of these widths and depths.
    pub fn new(channels: [usize; 5], blocks: [usize; 4]) -> Self {
        Self {
            channels,
            blocks,
            stem_activation: StemActivation::None,
            layer_scale: LAYER_SCALE,
        }
    }

    /// 0.78 M parameters: the sizes of DCFormer nano.
    pub fn nano() -> Self {
        Self::new([32, 32, 64, 128, 256], [1, 1, 1, 1])
    }

    /// 5.80 M parameters: the sizes of DCFormer naive.
    pub fn naive() -> Self {
        Self::new([32, 64, 128, 256, 512], [2, 2, 2, 2])
    }

    /// 14.6 M parameters: the sizes of DCFormer tiny.
    pub fn tiny() -> Self {
        Self::new([64, 96, 192, 384, 768], [2, 3, 3, 2])
    }
}

impl EncoderConfig for InceptionnextEncoderConfig {
    type Encoder = InceptionnextEncoder;

    const NETWORK: &'static str = "inceptionnext";

    const VARIANTS: &'static [Variant<Self>] = &[
        ("nano", Self::nano),
        ("naive", Self::naive),
        ("tiny", Self::tiny),
    ];

    const STATED_WITH_PROJECTION: bool = true;

    fn features(&self) -> usize {
        self.channels[4]
    }

    fn check(&self) -> Result<()> {
        check_stages(Self::NETWORK, &self.channels, &self.blocks)?;
        match self.channels[1..]
            .iter()
            .find(|channels| **channels < SHARE)
        {
            None => Ok(()),
            Some(channels) => Err(Error::NetworkField {
                network: Self::NETWORK,
                field: "channels",
                found: channels.to_string(),
                expected: "at least 8 in each stage: a branch of the mixer takes an eighth"
                    .to_owned(),
            }),
        }
    }

    fn grid(&self, volume: Shape3) -> Result<Shape3> {
        Ok(stages::grid(volume))
    }

    fn cost(&self, volume: Shape3) -> Cost {
        let mut cost = Cost::default();
        let mut grid = volume.strided(STEM_STRIDE);
        let stem = Stem::cost(self.channels[0], self.stem_activation, grid.voxels());
        cost.part("stem", stem);
        for (stage, widths) in self.channels.windows(2).enumerate() {
            grid = grid.strided(2);
            let (name, positions) = (format!("stages.{stage}"), grid.voxels());
            cost.max_pool(&format!("{name}.pool"), widths[0] * positions);
            let projection = format!("{name}.projection");
            cost.linear(
                &projection,
                [widths[0], widths[1]],
                positions,
                Bias::Without,
            );
            for block in 0..self.blocks[stage] {
                let block_cost = Block::cost(widths[1], positions);
                cost.part(format!("{name}.blocks.{block}"), block_cost);
            }
        }
        cost
    }

    fn init(&self, device: &Device) -> InceptionnextEncoder {
        let stages = self.channels.windows(2).zip(self.blocks);
        let stage = |(widths, blocks): (&[usize], usize)| Stage {
            projection: fresh_projection([widths[0], widths[1]], device),
            blocks: (0..blocks)
                .map(|_| Block::new(widths[1], self.layer_scale, device))
                .collect(),
        };
        InceptionnextEncoder {
            stem: Stem::new(self.channels[0], self.stem_activation, device),
            stages: stages.map(stage).collect(),
        }
    }
}

/// Volume in, grid of features out.
#[derive(Module, Debug)]
pub struct InceptionnextEncoder {
    stem: Stem,
    stages: Vec<Stage>,
}

impl Encoder for InceptionnextEncoder {
    /// # Shapes
    /// - `volume`: `[batch, 1, depth, height, width]`
    /// - features `i`: `[batch, depth / 2^(i + 2), height / 2^(i + 2), width / 2^(i + 2), channels[i]]`, sizes rounded up
    ///   at every stride; the stem's first
    fn forward_watched(
        &self,
        volume: Tensor<5>,
        statistics: Statistics,
        after_stage: &mut dyn FnMut(&Tensor<5>),
    ) -> Tensor<5> {
        stages::forward_watched(&self.stem, &self.stages, volume, statistics, after_stage)
    }

    fn forward(&self, volume: Tensor<5>, statistics: Statistics) -> Tensor<5> {
        stages::forward(&self.stem, &self.stages, volume, statistics)
    }
}

/// A stage: half the grid, more channels, then blocks.
#[derive(Module, Debug)]
struct Stage {
    /// `[channels_out, channels_in, 1, 1, 1]`
    projection: Param<Tensor<5>>,
    blocks: Vec<Block>,
}

impl stages::Stage for Stage {
    fn projection(&self) -> &Param<Tensor<5>> {
        &self.projection
    }

    fn mix(&self, x: Tensor<5>, statistics: Statistics) -> Tensor<5> {
        let blocks = self.blocks.iter();
        blocks.fold(x, |x, block| block.forward(x, statistics))
    }
}

/// One block: `x + scale * mlp(norm(mixer(x)))`.
#[derive(Module, Debug)]
struct Block {
    mixer: Mixer,
    norm: BatchNorm,
    mlp: Mlp,
    /// `[channels]`
    scale: Param<Tensor<1>>,
}

impl Block {
    fn new(channels: usize, scale: f64, device: &Device) -> Self {
        Self {
            mixer: Mixer::new(channels / SHARE, device),
            norm: BatchNorm::new(channels, device),
            mlp: Mlp::new(channels, EXPANSION * channels, device),
            scale: Initializer::Constant { value: scale }.init([channels], device),
        }
    }

    /// # Shapes
    /// - input, output: `[batch, depth, height, width, channels]`
    fn forward(&self, x: Tensor<5>, statistics: Statistics) -> Tensor<5> {
        let mixed = self.norm.forward(self.mixer.forward(x.clone()), statistics);
        x + self.mlp.forward_scaled(mixed, &self.scale)
    }

    fn cost(channels: usize, positions: usize) -> Cost {
        let mut cost = Cost::default();
        let x = cost.here();
        cost.part("mixer", Mixer::cost(channels, positions));
        cost.norm("norm", channels, positions);
        cost.part("mlp", Mlp::cost(channels, EXPANSION * channels, positions));
        cost.scale("scale", channels);
        cost.add("residual", x);
        cost
    }
}

/// Token mixer: most channels as they are, `branch` of them through a cube, and as many through each band.
#[derive(Module, Debug)]
struct Mixer {
    cube: Conv,
    height: AxisConv,
    width: AxisConv,
    depth: AxisConv,
}

impl Mixer {
    fn new(branch: usize, device: &Device) -> Self {
        Self {
            cube: ConvConfig::depthwise(branch, CUBE).init(device),
            height: AxisConv::new([branch, 1, BAND, 1, 1], device),
            width: AxisConv::new([branch, 1, 1, BAND, 1], device),
            depth: AxisConv::new([branch, 1, 1, 1, BAND], device),
        }
    }

    /// Channels in the order: as they are, cube, band along height, along width, along depth.
    ///
    /// # Shapes
    /// - input, output: `[batch, depth, height, width, channels]`
    fn forward(&self, x: Tensor<5>) -> Tensor<5> {
        let channels = x.dims()[4];
        let [branch] = self.height.bias().dims();
        let kept = channels - BRANCHES * branch;
        let cube = x.clone().narrow(4, kept, branch);
        let bands = x.clone().narrow(4, kept + branch, 3 * branch);
        let parts = vec![
            x.narrow(4, 0, kept),
            self.cube.forward(cube),
            self.bands(bands),
        ];
        Tensor::cat(parts, 4)
    }

    /// The three bands as one decomposed convolution whose filters are zero along the axes that are not a channel's own.
    ///
    /// # Shapes
    /// - input, output: `[batch, depth, height, width, 3 * branch]`
    fn bands(&self, x: Tensor<5>) -> Tensor<5> {
        let in_channels = [&self.height, &self.width, &self.depth];
        // The operation's order of axes is depth, height, width; this is where each finds its channels.
        let filters = [2, 0, 1].map(|own: usize| {
            let parts = in_channels.iter().enumerate().map(|(place, band)| {
                let taps = band.taps();
                if place == own {
                    taps
                } else {
                    taps.zeros_like()
                }
            });
            Tensor::cat(parts.collect(), 1)
        });
        let bias = Tensor::cat(in_channels.map(AxisConv::bias).to_vec(), 0);
        depthwise_decomposed_conv(x, Tensor::stack(filters.to_vec(), 0), bias)
    }

    fn cost(channels: usize, positions: usize) -> Cost {
        let branch = channels / SHARE;
        let mut cost = Cost::default();
        let x = cost.here();
        ConvConfig::depthwise(branch, CUBE).cost(&mut cost, "cube", positions);
        let mut parts = vec![cost.here()];
        for axis in ["height", "width", "depth"] {
            cost.back_to(x);
            cost.depthwise(axis, branch, BAND, positions, Bias::With);
            parts.push(cost.here());
        }
        cost.back_to(x);
        cost.concatenate("parts", &parts, channels * positions);
        cost
    }
}
