//! DCFormer, the image encoder (paper section 3, figure 2).
//!
//! A stem that shrinks the volume four times along each axis, then four stages. A stage halves the grid, widens the
//! channels and mixes tokens with a decomposed convolution where a transformer would use attention.
//!
//! Features are channels-last, `[batch, depth, height, width, channels]`, from the stem on. Differences from the paper's
//! text: P1 (kernel lengths), P2 (axis order of the authors' code).

mod attention_block;
pub(super) mod stages;
mod stem;

use burn::module::{Module, Param};
use burn::nn::{Initializer, Linear, LinearConfig};
use burn::tensor::{Device, Tensor};
use dcformer_kernels::{MixerMlp, mixer_mlp};
use serde::{Deserialize, Serialize};

use self::attention_block::AttentionBlock;
use self::stages::fresh_projection;
pub use self::stem::StemActivation;
pub(super) use self::stem::{STEM_STRIDE, Stem};
use super::attention::AttentionScale;
use super::batch_norm::Statistics;
use super::cache::Cache;
use super::decomposed::{DecomposedConv, Folded};
use super::encoder::{Encoder, EncoderConfig, MOST, Variant, check_size, check_stages};
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
        check_stages(Self::NETWORK, &self.channels, &self.blocks)?;
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
        Ok(stages::grid(volume))
    }

    fn cost(&self, volume: Shape3) -> Cost {
        let mut cost = Cost::default();
        let mut grid = volume.strided(STEM_STRIDE);
        let stem = Stem::cost(self.channels[0], self.stem_activation, grid.voxels());
        cost.part("stem", stem);
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
        cost.max_pool("pool", inputs * positions);
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
        stages::forward_watched(&self.stem, &self.stages, volume, statistics, after_stage)
    }

    fn forward(&self, volume: Tensor<5>, statistics: Statistics) -> Tensor<5> {
        stages::forward(&self.stem, &self.stages, volume, statistics)
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

    fn attend(&self, x: Tensor<5>) -> Tensor<5> {
        let blocks = self.attention_blocks.iter();
        blocks.fold(x, |x, block| block.forward(x))
    }
}

impl stages::Stage for Stage {
    fn projection(&self) -> &Param<Tensor<5>> {
        &self.projection
    }

    fn mix(&self, x: Tensor<5>, statistics: Statistics) -> Tensor<5> {
        let blocks = self.blocks.iter();
        self.attend(blocks.fold(x, |x, block| block.forward(x, statistics)))
    }

    fn mix_running(&self, x: Tensor<5>, _statistics: Statistics) -> Tensor<5> {
        self.attend(self.blocks.iter().fold(x, |x, block| block.mix(x)))
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
        let x = cost.here();
        let mixer = DecomposedConv::depthwise_cost(channels, taps, positions);
        cost.part("mixer", mixer);
        cost.append(Mlp::cost(channels, EXPANSION * channels, positions));
        cost.scale("gamma", channels);
        cost.add("residual", x);
        cost
    }
}

#[cfg(test)]
mod tests;
