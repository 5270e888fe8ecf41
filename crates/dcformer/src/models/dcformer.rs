//! DCFormer, the image encoder (paper section 3, figure 2).
//!
//! A stem that shrinks the volume four times along each axis, then four stages. A stage halves the grid, widens the
//! channels and mixes tokens with a decomposed convolution where a transformer would use attention.
//!
//! Features are channels-last, `[batch, depth, height, width, channels]`, from the stem on. Differences from the paper's
//! text: P1 (kernel lengths), P2 (axis order of the authors' code).

mod attention_block;
mod stem;

use burn::module::{Module, Param};
use burn::nn::{Initializer, Linear, LinearConfig};
use burn::tensor::{Device, Tensor};
use dcformer_kernels::{MixerMlp, mixer_mlp, pool_project};
use serde::{Deserialize, Serialize};

use self::attention_block::AttentionBlock;
pub use self::stem::StemActivation;
pub(super) use self::stem::{STEM_STRIDE, Stem};
use super::attention::AttentionScale;
use super::batch_norm::Statistics;
use super::cache::Cache;
use super::decomposed::{DecomposedConv, Folded};
use super::encoder::{Encoder, EncoderConfig, MOST, MOST_LAYERS, Variant, check_size};
use super::mlp::{self, EXPANSION, Mlp, Scaled, bias_of};
use crate::complexity::{Bias, Cost, Shape3};
use crate::error::{Error, Result};

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
    /// What each stage's blocks mix tokens with.
    #[serde(default)]
    pub mixers: [Mixer; 4],
    /// What the logits of attention are multiplied by, where blocks mix with it.
    #[serde(default)]
    pub attention_scale: AttentionScale,
    /// What follows each convolution of the stem.
    #[serde(default)]
    pub stem_activation: StemActivation,
    /// What gamma starts from in fresh weights. From the authors' 1e-6 a block needs thousands of steps to take part;
    /// short runs start nearer to 1.
    #[serde(default = "authors_layer_scale")]
    pub layer_scale: f64,
}

/// What a block mixes tokens with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mixer {
    /// A depthwise decomposed convolution.
    #[default]
    Convolution,
    /// Self-attention between position encodings.
    Attention,
}

const fn authors_layer_scale() -> f64 {
    AUTHORS_LAYER_SCALE
}

const fn authors_kernels() -> [usize; 4] {
    [13, 11, 9, 7]
}

impl DcformerEncoderConfig {
    /// An encoder of these widths and depths with the authors' kernels.
    pub fn new(channels: [usize; 5], blocks: [usize; 4]) -> Self {
        Self {
            channels,
            blocks,
            kernels: authors_kernels(),
            mixers: [Mixer::Convolution; 4],
            attention_scale: AttentionScale::Divided,
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
    /// own is [`small_paper`](Self::small_paper).
    pub fn small() -> Self {
        Self::new([64, 96, 192, 384, 768], [2, 3, 6, 2])
    }

    /// 26.5 M parameters (paper table 2, there with the projection: 26.86 M): attention in the last two stages, 7 taps in
    /// the others (P7). No weights of it were published.
    pub fn small_paper() -> Self {
        use Mixer::{Attention, Convolution};
        Self {
            kernels: [7; 4],
            mixers: [Convolution, Convolution, Attention, Attention],
            ..Self::small()
        }
    }

    /// 33.9 M parameters (the follow-up project's code).
    pub fn base() -> Self {
        Self::new([64, 128, 256, 512, 1024], [2, 6, 6, 2])
    }

    /// 185 M parameters (the follow-up project's code).
    pub fn large() -> Self {
        Self::new([64, 256, 512, 1024, 2048], [2, 6, 12, 2])
    }
}

impl EncoderConfig for DcformerEncoderConfig {
    type Encoder = DcformerEncoder;

    const NETWORK: &'static str = "dcformer";

    const VARIANTS: &'static [Variant<Self>] = &[
        ("nano", Self::nano),
        ("naive", Self::naive),
        ("tiny", Self::tiny),
        ("small", Self::small),
        ("small-paper", Self::small_paper),
        ("base", Self::base),
        ("large", Self::large),
    ];

    const STATED_WITH_PROJECTION: bool = true;

    fn features(&self) -> usize {
        self.channels[4]
    }

    fn check(&self) -> Result<()> {
        for channels in self.channels {
            check_size(Self::NETWORK, "channels", channels, MOST)?;
        }
        for blocks in self.blocks {
            check_size(Self::NETWORK, "blocks", blocks, MOST_LAYERS)?;
        }
        let wrong = |field, found: String, expected: &str| {
            Err(Error::NetworkField {
                network: Self::NETWORK,
                field,
                found,
                expected: expected.to_owned(),
            })
        };
        for taps in self.kernels {
            check_size(Self::NETWORK, "kernels", taps, MOST)?;
            if taps % 2 == 0 {
                return wrong("kernels", taps.to_string(), "an odd number of taps");
            }
        }
        for (mixer, channels) in self.mixers.iter().zip(&self.channels[1..]) {
            if *mixer == Mixer::Attention && !channels.is_multiple_of(attention_block::HEADS) {
                let expected = "a multiple of 8, the heads, in stages with attention";
                return wrong("channels", channels.to_string(), expected);
            }
        }
        Ok(())
    }

    fn grid(&self, volume: Shape3) -> Result<Shape3> {
        Ok((0..4).fold(volume.strided(STEM_STRIDE), |grid, _stage| grid.strided(2)))
    }

    fn cost(&self, volume: Shape3) -> Cost {
        let mut cost = Cost::default();
        let mut grid = volume.strided(STEM_STRIDE);
        cost.part("stem", Stem::cost(self.channels[0], grid.voxels()));
        for stage in 0..4 {
            grid = grid.strided(2);
            cost.part(
                format!("stages.{stage}"),
                self.stage_cost(stage, grid.voxels()),
            );
        }
        cost
    }

    fn init(&self, device: &Device) -> DcformerEncoder {
        DcformerEncoder {
            stem: Stem::new(self.channels[0], self.stem_activation, device),
            stages: (0..4)
                .map(|stage| Stage::new(self, stage, device))
                .collect(),
        }
    }
}

impl DcformerEncoderConfig {
    fn stage_cost(&self, stage: usize, positions: usize) -> Cost {
        let mut cost = Cost::default();
        let [inputs, channels] = [self.channels[stage], self.channels[stage + 1]];
        cost.linear("projection", [inputs, channels], positions, Bias::Without);
        for block in 0..self.blocks[stage] {
            match self.mixers[stage] {
                Mixer::Convolution => cost.part(
                    format!("blocks.{block}"),
                    Block::cost(channels, self.kernels[stage], positions),
                ),
                Mixer::Attention => cost.part(
                    format!("attention_blocks.{block}"),
                    AttentionBlock::cost(channels, positions),
                ),
            }
        }
        cost
    }
}

/// Volume in, grid of features out.
#[derive(Module, Debug)]
pub struct DcformerEncoder {
    stem: Stem,
    stages: Vec<Stage>,
}

impl Encoder for DcformerEncoder {
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
        let stem = self.stem.forward(volume, statistics);
        after_stage(&stem);
        self.stages.iter().fold(stem, |x, stage| {
            let x = stage.forward(x, statistics);
            after_stage(&x);
            x
        })
    }

    fn forward(&self, volume: Tensor<5>, statistics: Statistics) -> Tensor<5> {
        if !self.stem.uses_running(&volume, statistics) {
            return self.forward_watched(volume, statistics, &mut |_| ());
        }
        // With norms that are constants, what lies between the layers need not exist.
        let [first, rest @ ..] = &self.stages[..] else {
            unreachable!("an encoder has four stages")
        };
        let entered = self
            .stem
            .forward_into(volume, projection_matrix(&first.projection));
        rest.iter()
            .fold(first.mix(entered), |x, stage| stage.mix(stage.enter(x)))
    }
}

/// A stage: half the grid, more channels, then blocks of one kind.
#[derive(Module, Debug)]
struct Stage {
    /// `[channels_out, channels_in, 1, 1, 1]`
    projection: Param<Tensor<5>>,
    blocks: Vec<Block>,
    attention_blocks: Vec<AttentionBlock>,
}

impl Stage {
    fn new(config: &DcformerEncoderConfig, stage: usize, device: &Device) -> Self {
        let [inputs, outputs] = [config.channels[stage], config.channels[stage + 1]];
        let count = |mixer| {
            if config.mixers[stage] == mixer {
                config.blocks[stage]
            } else {
                0
            }
        };
        Self {
            projection: fresh_projection([inputs, outputs], device),
            blocks: (0..count(Mixer::Convolution))
                .map(|_| Block::new(outputs, config.kernels[stage], config.layer_scale, device))
                .collect(),
            attention_blocks: (0..count(Mixer::Attention))
                .map(|_| AttentionBlock::new(outputs, config.attention_scale, device))
                .collect(),
        }
    }

    /// # Shapes
    /// - input: `[batch, depth, height, width, channels_in]`
    /// - output: `[batch, ceil(depth / 2), ceil(height / 2), ceil(width / 2), channels_out]`
    fn forward(&self, x: Tensor<5>, statistics: Statistics) -> Tensor<5> {
        let entered = self.enter(x);
        let mixed = self
            .blocks
            .iter()
            .fold(entered, |x, block| block.forward(x, statistics));
        self.attend(mixed)
    }

    /// Half the grid, and more channels.
    fn enter(&self, x: Tensor<5>) -> Tensor<5> {
        pool_project(x, projection_matrix(&self.projection))
    }

    /// The blocks with the running statistics.
    fn mix(&self, x: Tensor<5>) -> Tensor<5> {
        self.attend(self.blocks.iter().fold(x, |x, block| block.mix(x)))
    }

    fn attend(&self, x: Tensor<5>) -> Tensor<5> {
        let blocks = self.attention_blocks.iter();
        blocks.fold(x, |x, block| block.forward(x))
    }
}

/// Fresh weights of a pointwise convolution without bias, `[channels_out, channels_in, 1, 1, 1]`.
pub(super) fn fresh_projection([inputs, outputs]: [usize; 2], device: &Device) -> Param<Tensor<5>> {
    let uniform = Initializer::KaimingUniform {
        gain: 1.0 / 3f64.sqrt(),
        fan_out_only: false,
    };
    uniform.init_with([outputs, inputs, 1, 1, 1], Some(inputs), None, device)
}

/// A pointwise convolution as a matrix product over channels: `[channels_in, channels_out]`.
pub(super) fn projection_matrix(projection: &Param<Tensor<5>>) -> Tensor<2> {
    let weight = projection.val();
    let [outputs, inputs, ..] = weight.dims();
    weight.reshape([outputs, inputs]).transpose()
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
        let mixed = self.mixer.forward(x.clone(), statistics);
        let Scaled { weight, bias } = self.scaled();
        x + mlp::through(mixed, &self.expand, weight, bias)
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

    /// `contract` with gamma multiplied in.
    fn scaled(&self) -> Scaled {
        let scale = || Scaled::new(&self.contract, self.gamma.val());
        if self.gamma.lazy_device().is_autodiff() {
            scale()
        } else {
            self.scaled.get_or(scale)
        }
    }

    fn cost(channels: usize, taps: usize, positions: usize) -> Cost {
        let mut cost = Cost::default();
        let mixer = DecomposedConv::depthwise_cost(channels, taps, positions);
        cost.part("mixer", mixer);
        cost.append(Mlp::cost(channels, EXPANSION * channels, positions));
        cost.parameter("gamma", channels);
        cost
    }
}

#[cfg(test)]
mod tests;
