//! DCFormer, the image encoder (paper section 3, figure 2).
//!
//! A stem that shrinks the volume four times along each axis, then four stages. A stage halves the grid, widens the
//! channels and mixes tokens with a decomposed convolution where a transformer would use attention.
//!
//! Features are channels-last, `[batch, depth, height, width, channels]`, from the stem on. Differences from the paper's
//! text: P1 (kernel lengths), P2 (axis order of the authors' code).

use burn::module::{Module, Param};
use burn::nn::{Initializer, Linear, LinearConfig};
use burn::tensor::{Device, Tensor};
use dcformer_kernels::{MixerMlp, StemWeights, gelu, mixer_mlp, mlp, pool_project, stem};
use serde::{Deserialize, Serialize};

use super::cache::Cache;
use super::decomposed::{DecomposedConv, Folded, Statistics};
use crate::error::{Error, Result};

/// Taps of the first convolution of the stem, and its stride.
const STEM_TAPS: usize = 7;
const STEM_STRIDE: usize = 4;
/// The convolutions of the stem that follow it: how many, and their taps.
const STEM_REFINEMENTS: usize = 3;
const STEM_REFINEMENT_TAPS: usize = 3;
/// Width of the MLP's hidden layer, in channels of the block.
const EXPANSION: usize = 4;
/// Scale of a fresh residual branch in the authors' code: a new network starts close to the identity.
pub const AUTHORS_LAYER_SCALE: f64 = 1e-6;

/// Sizes of a [`DcformerEncoder`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DcformerEncoderConfig {
    /// Channels of the stem and of each stage.
    pub channels: [usize; 5],
    /// Blocks in each stage.
    pub blocks: [usize; 4],
    /// Taps of each stage's mixers, odd. The authors' code has 13, 11, 9, 7; the paper's text says 7 (P1).
    #[serde(default = "authors_kernels")]
    pub kernels: [usize; 4],
    /// What follows each convolution of the stem.
    #[serde(default)]
    pub stem_activation: StemActivation,
    /// What gamma starts from in fresh weights. From the authors' 1e-6 a block needs thousands of steps to take part;
    /// short runs start nearer to 1.
    #[serde(default = "authors_layer_scale")]
    pub layer_scale: f64,
}

/// What follows each convolution of the stem.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StemActivation {
    /// Nothing: the authors' code, with which all weights were trained.
    #[default]
    None,
    /// A GELU, as the paper's figure shows.
    Gelu,
}

const fn authors_layer_scale() -> f64 {
    AUTHORS_LAYER_SCALE
}

const fn authors_kernels() -> [usize; 4] {
    [13, 11, 9, 7]
}

/// A named size and its constructor.
type Preset = (&'static str, fn() -> DcformerEncoderConfig);

impl DcformerEncoderConfig {
    /// The presets by name, smallest first.
    pub const VARIANTS: [Preset; 6] = [
        ("nano", Self::nano),
        ("naive", Self::naive),
        ("tiny", Self::tiny),
        ("small", Self::small),
        ("base", Self::base),
        ("large", Self::large),
    ];

    /// An encoder of these widths and depths with the authors' kernels.
    pub fn new(channels: [usize; 5], blocks: [usize; 4]) -> Self {
        Self {
            channels,
            blocks,
            kernels: authors_kernels(),
            stem_activation: StemActivation::None,
            layer_scale: AUTHORS_LAYER_SCALE,
        }
    }

    /// 0.79 M parameters (paper table 2, there with the projection: 0.92 M).
    pub fn nano() -> Self {
        Self::new([32, 32, 64, 128, 256], [1, 1, 1, 1])
    }

    /// 5.85 M parameters (paper table 2).
    pub fn naive() -> Self {
        Self::new([32, 64, 128, 256, 512], [2, 2, 2, 2])
    }

    /// 14.7 M parameters (paper table 2, there with the projection: 15.1 M).
    pub fn tiny() -> Self {
        Self::new([64, 96, 192, 384, 768], [2, 3, 3, 2])
    }

    /// 18.2 M parameters: the published code's `small`, of which the follow-up project released weights. The paper's
    /// own has attention in its last stages.
    pub fn small() -> Self {
        Self::new([64, 96, 192, 384, 768], [2, 3, 6, 2])
    }

    /// 33.9 M parameters (the follow-up project's code).
    pub fn base() -> Self {
        Self::new([64, 128, 256, 512, 1024], [2, 6, 6, 2])
    }

    /// 185 M parameters (the follow-up project's code).
    pub fn large() -> Self {
        Self::new([64, 256, 512, 1024, 2048], [2, 6, 12, 2])
    }

    /// The preset called `name`.
    ///
    /// # Errors
    /// [`Error::UnknownName`] if there is none.
    pub fn variant(name: &str) -> Result<Self> {
        Self::VARIANTS
            .iter()
            .find(|(variant, _)| *variant == name)
            .map(|(_, preset)| preset())
            .ok_or_else(|| Error::UnknownName {
                what: "variant of dcformer",
                found: name.to_owned(),
                expected: Self::VARIANTS.map(|(variant, _)| variant).join(", "),
            })
    }

    /// The name of the preset with these sizes, if it is one.
    pub fn variant_name(&self) -> Option<&'static str> {
        Self::VARIANTS
            .iter()
            .find(|(_, preset)| preset() == *self)
            .map(|(variant, _)| *variant)
    }

    /// Channels of the features.
    pub fn features(&self) -> usize {
        self.channels[4]
    }

    /// Builds the encoder with fresh weights on `device`.
    pub fn init(&self, device: &Device) -> DcformerEncoder {
        let stages = (0..4)
            .map(|stage| {
                let widths = [self.channels[stage], self.channels[stage + 1]];
                Stage::new(
                    widths,
                    self.blocks[stage],
                    self.kernels[stage],
                    self.layer_scale,
                    device,
                )
            })
            .collect();
        DcformerEncoder {
            stem: Stem::new(self.channels[0], self.stem_activation, device),
            stages,
        }
    }
}

/// Volume in, grid of features out.
#[derive(Module, Debug)]
pub struct DcformerEncoder {
    stem: Stem,
    stages: Vec<Stage>,
}

impl DcformerEncoder {
    /// Features of the last stage.
    ///
    /// # Shapes
    /// - `volume`: `[batch, 1, depth, height, width]`
    /// - output: `[batch, depth / 64, height / 64, width / 64, channels[4]]`, sizes rounded up at every stride
    pub fn forward(&self, volume: Tensor<5>, statistics: Statistics) -> Tensor<5> {
        if !self.stem.convs[0].uses_running(&volume, statistics) {
            let stem = self.stem.forward(volume, statistics);
            return self
                .stages
                .iter()
                .fold(stem, |x, stage| stage.forward(x, statistics));
        }
        // With norms that are constants, what lies between the layers need not exist.
        let [first, rest @ ..] = &self.stages[..] else {
            unreachable!("an encoder has four stages")
        };
        let entered = self.stem.forward_into(volume, first);
        rest.iter()
            .fold(first.mix(entered), |x, stage| stage.mix(stage.enter(x)))
    }

    /// Features after the stem and after each stage, finest first.
    ///
    /// Tests compare these one by one with the authors' code; segmentation heads use them as a pyramid.
    ///
    /// # Shapes
    /// - `volume`: `[batch, 1, depth, height, width]`
    /// - output `i`: `[batch, depth / 2^(i + 2), height / 2^(i + 2), width / 2^(i + 2), channels[i]]`, rounded up
    pub fn forward_stages(&self, volume: Tensor<5>, statistics: Statistics) -> Vec<Tensor<5>> {
        let mut features = vec![self.stem.forward(volume, statistics)];
        for (index, stage) in self.stages.iter().enumerate() {
            features.push(stage.forward(features[index].clone(), statistics));
        }
        features
    }
}

/// Volume to tokens: a quarter of each axis.
#[derive(Module, Debug)]
struct Stem {
    convs: Vec<DecomposedConv>,
    #[module(skip)]
    activation: StemActivation,
}

impl Stem {
    fn new(channels: usize, activation: StemActivation, device: &Device) -> Self {
        let patch = DecomposedConv::dense([1, channels], STEM_TAPS, STEM_STRIDE, device);
        let refinement =
            || DecomposedConv::dense([channels, channels], STEM_REFINEMENT_TAPS, 1, device);
        let refinements = std::iter::repeat_with(refinement).take(STEM_REFINEMENTS);
        Self {
            convs: std::iter::once(patch).chain(refinements).collect(),
            activation,
        }
    }

    /// # Shapes
    /// - input: `[batch, 1, depth, height, width]`
    /// - output: `[batch, ceil(depth / 4), ceil(height / 4), ceil(width / 4), channels[0]]`
    fn forward(&self, volume: Tensor<5>, statistics: Statistics) -> Tensor<5> {
        self.convs.iter().fold(channels_last(volume), |x, conv| {
            let x = conv.forward(x, statistics);
            match self.activation {
                StemActivation::None => x,
                StemActivation::Gelu => gelu(x),
            }
        })
    }

    /// With the running statistics, through the pooling and the projection of the first stage.
    fn forward_into(&self, volume: Tensor<5>, first: &Stage) -> Tensor<5> {
        let folded = |conv: &DecomposedConv| conv.folded();
        let patch = folded(&self.convs[0]);
        let refinements: Vec<_> = self.convs[1..].iter().map(folded).collect();
        let stacked = |of: fn(&Folded) -> Tensor<4>| {
            Tensor::stack::<5>(refinements.iter().map(of).collect(), 0)
        };
        let biases = refinements.iter().map(|conv| conv.bias.clone()).collect();
        let weights = StemWeights {
            weight: patch.weight,
            bias: patch.bias,
            refinements: stacked(|conv| conv.weight.clone()),
            refinement_biases: Tensor::stack(biases, 0),
            projection: first.projection_matrix(),
        };
        let activate = self.activation == StemActivation::Gelu;
        stem(channels_last(volume), weights, STEM_STRIDE, activate)
    }
}

/// One channel first or last is the same memory.
fn channels_last(volume: Tensor<5>) -> Tensor<5> {
    let [batch, channels, depth, height, width] = volume.dims();
    assert_eq!(channels, 1, "a volume has one channel, found {channels}");
    volume.reshape([batch, depth, height, width, 1])
}

/// A stage: half the grid, more channels, then blocks.
#[derive(Module, Debug)]
struct Stage {
    /// `[channels_out, channels_in, 1, 1, 1]`
    projection: Param<Tensor<5>>,
    blocks: Vec<Block>,
}

impl Stage {
    fn new(
        [inputs, outputs]: [usize; 2],
        blocks: usize,
        taps: usize,
        scale: f64,
        device: &Device,
    ) -> Self {
        let uniform = Initializer::KaimingUniform {
            gain: 1.0 / 3f64.sqrt(),
            fan_out_only: false,
        };
        Self {
            projection: uniform.init_with([outputs, inputs, 1, 1, 1], Some(inputs), None, device),
            blocks: (0..blocks)
                .map(|_| Block::new(outputs, taps, scale, device))
                .collect(),
        }
    }

    /// # Shapes
    /// - input: `[batch, depth, height, width, channels_in]`
    /// - output: `[batch, ceil(depth / 2), ceil(height / 2), ceil(width / 2), channels_out]`
    fn forward(&self, x: Tensor<5>, statistics: Statistics) -> Tensor<5> {
        let projected = self.enter(x);
        self.blocks
            .iter()
            .fold(projected, |x, block| block.forward(x, statistics))
    }

    /// Half the grid, and more channels.
    fn enter(&self, x: Tensor<5>) -> Tensor<5> {
        pool_project(x, self.projection_matrix())
    }

    /// The pointwise convolution as a matrix product over channels: `[channels_in, channels_out]`.
    fn projection_matrix(&self) -> Tensor<2> {
        let weight = self.projection.val();
        let [outputs, inputs, ..] = weight.dims();
        weight.reshape([outputs, inputs]).transpose()
    }

    /// The blocks with the running statistics.
    fn mix(&self, x: Tensor<5>) -> Tensor<5> {
        self.blocks.iter().fold(x, |x, block| block.mix(x))
    }
}

/// One block: `x + gamma * mlp(mixer(x))`.
#[derive(Module, Debug)]
struct Block {
    mixer: DecomposedConv,
    expand: Linear,
    contract: Linear,
    /// Scale of the residual branch, `[channels]`.
    gamma: Param<Tensor<1>>,
    scaled: Cache<Scaled>,
}

/// `contract` with gamma multiplied in.
#[derive(Clone, Debug)]
struct Scaled {
    weight: Tensor<2>,
    bias: Tensor<1>,
}

impl Block {
    fn new(channels: usize, taps: usize, scale: f64, device: &Device) -> Self {
        Self {
            mixer: DecomposedConv::depthwise(channels, taps, device),
            expand: LinearConfig::new(channels, EXPANSION * channels).init(device),
            contract: LinearConfig::new(EXPANSION * channels, channels).init(device),
            gamma: Initializer::Constant { value: scale }.init([channels], device),
            scaled: Cache::default(),
        }
    }

    /// # Shapes
    /// - input, output: `[batch, depth, height, width, channels]`
    fn forward(&self, x: Tensor<5>, statistics: Statistics) -> Tensor<5> {
        let shape = x.dims();
        let [batch, depth, height, width, channels] = shape;
        let tokens = self
            .mixer
            .forward(x.clone(), statistics)
            .reshape([batch * depth * height * width, channels]);
        let Scaled { weight, bias } = self.scaled();
        let residual = mlp(
            tokens,
            self.expand.weight.val(),
            bias_of(&self.expand),
            weight,
            bias,
        );
        x + residual.reshape(shape)
    }

    /// The same with the running statistics.
    fn mix(&self, x: Tensor<5>) -> Tensor<5> {
        let Folded {
            weight: filters,
            bias,
        } = self.mixer.folded();
        let contract = self.scaled();
        let weights = MixerMlp {
            filters: filters.squeeze_dim(2),
            bias,
            w1: self.expand.weight.val(),
            b1: bias_of(&self.expand),
            w2: contract.weight,
            b2: contract.bias,
        };
        mixer_mlp(x, weights)
    }

    /// gamma scales the columns of the last matrix instead of its product: the same sum, and no pass over the grid.
    fn scaled(&self) -> Scaled {
        let scale = || {
            let gamma = self.gamma.val();
            Scaled {
                weight: self.contract.weight.val() * gamma.clone().unsqueeze_dim(0),
                bias: bias_of(&self.contract) * gamma,
            }
        };
        if self.gamma.lazy_device().is_autodiff() {
            scale()
        } else {
            self.scaled.get_or(scale)
        }
    }
}

fn bias_of(linear: &Linear) -> Tensor<1> {
    linear.bias.as_ref().expect("built with a bias").val()
}

#[cfg(test)]
mod tests;
