//! PoolFormer in 3D, of the paper's comparison (table 2; arXiv 2111.11418): blocks that mix tokens by averaging
//! neighbours.
//!
//! Stem and transitions are the chassis of `pyramid`. The paper names the network and its cost; what it
//! consists of was inferred from both (P34).

use burn::module::{Module, Param};
use burn::nn::Initializer;
use burn::tensor::ops::PadMode;
use burn::tensor::{Device, Tensor, TensorData};
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
        let normalized = self.pool_norm.forward(x.clone());
        let pooled = average_pool(normalized.clone()) - normalized;
        let x = x + pooled * self.pool_scale.val().unsqueeze();
        let normalized = self.mlp_norm.forward(x.clone());
        x + self.mlp.forward_scaled(normalized, &self.mlp_scale)
    }
}

/// The mean of each 3x3x3 window, stride 1; what lies outside the grid does not count.
///
/// # Shapes
/// - input, output: `[batch, depth, height, width, channels]`
fn average_pool(x: Tensor<5>) -> Tensor<5> {
    // The window's mean is the mean along each axis in turn: how many values count is a product over the axes.
    (1..4).fold(x, |x, axis| {
        let size = x.dims()[axis];
        let mut around = [(0, 0); 5];
        around[axis] = (1, 1);
        let padded = x.pad(around, PadMode::Constant(0.0));
        let sum = (0..3)
            .map(|shift| padded.clone().narrow(axis, shift, size))
            .reduce(|sum, next| sum + next)
            .expect("three neighbours");
        let shares: Vec<f32> = (0..size)
            .map(|index| {
                let neighbours = 1 + usize::from(index > 0) + usize::from(index + 1 < size);
                1.0 / neighbours as f32
            })
            .collect();
        let mut shape = [1; 5];
        shape[axis] = size;
        let shares = Tensor::from_data(TensorData::new(shares, shape), &sum.device());
        sum * shares
    })
}

#[cfg(test)]
mod tests {
    use burn::tensor::Distribution;

    use super::*;

    #[test]
    fn pooling_is_the_mean_of_the_neighbours_inside_the_grid() {
        let device = Device::flex();
        let sizes = [1, 3, 4];
        let x = Tensor::<5>::random([2, 1, 3, 4, 2], Distribution::Uniform(-1.0, 1.0), &device);
        let values: Vec<f32> = x.clone().into_data().try_to_vec().unwrap();
        let found: Vec<f32> = average_pool(x).into_data().try_to_vec().unwrap();
        let [depth, height, width] = sizes;
        let at = |n: usize, [z, y, x]: [usize; 3], c: usize| {
            (((n * depth + z) * height + y) * width + x) * 2 + c
        };
        let near = |size: usize, index: usize| index.saturating_sub(1)..(index + 2).min(size);
        for n in 0..2 {
            for c in 0..2 {
                for (z, y, x) in [(0, 0, 0), (0, 1, 1), (0, 2, 3), (0, 1, 0)] {
                    let (mut sum, mut count) = (0.0, 0.0);
                    for z in near(depth, z) {
                        for y in near(height, y) {
                            for x in near(width, x) {
                                sum += values[at(n, [z, y, x], c)];
                                count += 1.0;
                            }
                        }
                    }
                    let found = found[at(n, [z, y, x], c)];
                    assert!(
                        (found - sum / count).abs() < 1e-6,
                        "{found} is not {sum} / {count}"
                    );
                }
            }
        }
    }
}
