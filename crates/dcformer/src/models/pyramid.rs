//! The chassis of ConvNeXt and PoolFormer in the paper's comparison: a stem that shrinks the volume eight times along
//! each axis, and four stages of blocks, each on half the grid of the one before.
//!
//! ```text
//! stem: conv 7, stride 4 -> norm -> conv 3, stride 2 -> norm     stage 1 -> norm -> conv 2, stride 2 -> stage 2 -> ... -> norm
//! ```
//!
//! The norms are LayerNorms over channels. Odd grids are continued with a plane of zeros, so that sizes are rounded up at
//! every stride (P38).

use burn::module::Module;
use burn::tensor::{Device, Tensor};

use super::conv::{Conv, ConvConfig};
use super::encoder::{channels_last, check_stages};
use super::layer_norm::LayerNorm;
use crate::complexity::{Cost, Shape3};
use crate::error::Result;

/// Added to a variance before its root is taken (ConvNeXt, arXiv 2201.03545).
pub(super) const EPSILON: f64 = 1e-6;

const PATCH: usize = 7;
const PATCH_STRIDE: usize = 4;
const HALVING: usize = 3;
const TRANSITION: usize = 2;

/// Widths and depths of the four stages.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stages {
    pub(super) channels: [usize; 4],
    pub(super) blocks: [usize; 4],
}

impl Stages {
    pub(super) fn check(&self, network: &'static str) -> Result<()> {
        check_stages(network, &self.channels, &self.blocks)
    }

    /// Size of the grid of stage `stage`, from 0.
    fn grid_of(stage: usize, volume: Shape3) -> Shape3 {
        let halved = volume.strided(PATCH_STRIDE).strided(2);
        (0..stage).fold(halved, |grid, _| grid.strided(TRANSITION))
    }

    /// Size of the last grid.
    pub(super) fn grid(volume: Shape3) -> Shape3 {
        Self::grid_of(3, volume)
    }

    /// What the network costs whose blocks cost `block(channels, positions)`.
    pub(super) fn cost(&self, volume: Shape3, block: impl Fn(usize, usize) -> Cost) -> Cost {
        let mut cost = Cost::default();
        let width = self.channels[0];
        let patches = volume.strided(PATCH_STRIDE).voxels();
        cost.part(
            "stem",
            Stem::cost(width, patches, Self::grid_of(0, volume).voxels()),
        );
        for (stage, (&channels, &blocks)) in self.channels.iter().zip(&self.blocks).enumerate() {
            let positions = Self::grid_of(stage, volume).voxels();
            if let Some(before) = stage.checked_sub(1) {
                let widths = [self.channels[before], channels];
                cost.part(
                    format!("transitions.{before}"),
                    Transition::cost(widths, positions),
                );
            }
            for number in 0..blocks {
                cost.part(
                    format!("stages.{stage}.blocks.{number}"),
                    block(channels, positions),
                );
            }
        }
        cost.handwritten_norm("norm", self.channels[3]);
        cost
    }

    /// The network of blocks that `block(channels)` makes.
    pub(super) fn init<B: Block>(&self, block: impl Fn(usize) -> B, device: &Device) -> Pyramid<B> {
        let stages = self.channels.iter().zip(self.blocks);
        let transitions = self.channels.windows(2);
        Pyramid {
            stem: Stem::new(self.channels[0], device),
            stages: stages
                .map(|(&channels, blocks)| Stage {
                    blocks: (0..blocks).map(|_| block(channels)).collect(),
                })
                .collect(),
            transitions: transitions
                .map(|widths| Transition::new([widths[0], widths[1]], device))
                .collect(),
            norm: LayerNorm::new(self.channels[3], EPSILON, device),
        }
    }
}

/// What a stage is made of: it keeps grid and channels.
pub(super) trait Block: Module {
    /// # Shapes
    /// - input, output: `[batch, depth, height, width, channels]`
    fn forward(&self, x: Tensor<5>) -> Tensor<5>;
}

/// Stem, stages, and what lies between them.
#[derive(Module, Debug)]
pub(super) struct Pyramid<B: Module> {
    stem: Stem,
    stages: Vec<Stage<B>>,
    transitions: Vec<Transition>,
    norm: LayerNorm,
}

impl<B: Module + Block> Pyramid<B> {
    /// See [`Encoder::forward_watched`](super::encoder::Encoder::forward_watched). The stages are the stem and the four
    /// stages, the last one normalised.
    ///
    /// # Shapes
    /// - `volume`: `[batch, 1, depth, height, width]`
    /// - output: `[batch, depth / 64, height / 64, width / 64, channels[3]]`, sizes rounded up at every stride
    pub(super) fn forward_watched(
        &self,
        volume: Tensor<5>,
        after_stage: &mut dyn FnMut(&Tensor<5>),
    ) -> Tensor<5> {
        let mut x = self.stem.forward(channels_last(volume));
        after_stage(&x);
        for (index, stage) in self.stages.iter().enumerate() {
            x = stage.blocks.iter().fold(x, |x, block| block.forward(x));
            match self.transitions.get(index) {
                Some(transition) => {
                    after_stage(&x);
                    x = transition.forward(x);
                }
                None => x = self.norm.forward(x),
            }
        }
        after_stage(&x);
        x
    }
}

#[derive(Module, Debug)]
struct Stage<B: Module> {
    blocks: Vec<B>,
}

/// Volume to tokens: an eighth of each axis.
#[derive(Module, Debug)]
struct Stem {
    patch: Conv,
    patch_norm: LayerNorm,
    halve: Conv,
    halve_norm: LayerNorm,
}

impl Stem {
    fn new(channels: usize, device: &Device) -> Self {
        let [patch, halve] = Self::convs(channels);
        Self {
            patch: patch.init(device),
            patch_norm: LayerNorm::new(channels, EPSILON, device),
            halve: halve.init(device),
            halve_norm: LayerNorm::new(channels, EPSILON, device),
        }
    }

    fn convs(channels: usize) -> [ConvConfig; 2] {
        [
            ConvConfig::dense([1, channels], PATCH, PATCH_STRIDE),
            ConvConfig::dense([channels; 2], HALVING, 2),
        ]
    }

    /// # Shapes
    /// - input: `[batch, depth, height, width, 1]`
    fn forward(&self, x: Tensor<5>) -> Tensor<5> {
        let x = self.patch_norm.forward(self.patch.forward(x));
        self.halve_norm.forward(self.halve.forward(x))
    }

    fn cost(channels: usize, patches: usize, halved: usize) -> Cost {
        let [patch, halve] = Self::convs(channels);
        let mut cost = Cost::default();
        patch.cost(&mut cost, "patch", patches);
        cost.handwritten_norm("patch_norm", channels);
        halve.cost(&mut cost, "halve", halved);
        cost.handwritten_norm("halve_norm", channels);
        cost
    }
}

/// From one stage to the next: half the grid, other channels.
#[derive(Module, Debug)]
struct Transition {
    norm: LayerNorm,
    conv: Conv,
}

impl Transition {
    fn new(widths: [usize; 2], device: &Device) -> Self {
        Self {
            norm: LayerNorm::new(widths[0], EPSILON, device),
            conv: ConvConfig::dense(widths, TRANSITION, TRANSITION).init(device),
        }
    }

    fn forward(&self, x: Tensor<5>) -> Tensor<5> {
        self.conv.forward(self.norm.forward(x))
    }

    fn cost(widths: [usize; 2], positions: usize) -> Cost {
        let mut cost = Cost::default();
        cost.handwritten_norm("norm", widths[0]);
        ConvConfig::dense(widths, TRANSITION, TRANSITION).cost(&mut cost, "conv", positions);
        cost
    }
}
