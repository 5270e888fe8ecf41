//! The stem of DCFormer, and of InceptionNeXt on its budget: dense decomposed convolutions in a row.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use dcformer_kernels::{StemWeights, gelu, stem};
use serde::{Deserialize, Serialize};

use crate::complexity::Cost;
use crate::models::batch_norm::Statistics;
use crate::models::decomposed::{DecomposedConv, Folded};
use crate::models::encoder::channels_last;

/// Taps of the first convolution of the stem, and its stride.
const STEM_TAPS: usize = 7;
pub(in crate::models) const STEM_STRIDE: usize = 4;
/// The convolutions of the stem that follow it: how many, and their taps.
const STEM_REFINEMENTS: usize = 3;
const STEM_REFINEMENT_TAPS: usize = 3;

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

/// Volume to tokens: a quarter of each axis.
#[derive(Module, Debug)]
pub(in crate::models) struct Stem {
    convs: Vec<DecomposedConv>,
    #[module(skip)]
    activation: StemActivation,
}

impl Stem {
    pub(in crate::models) fn new(
        channels: usize,
        activation: StemActivation,
        device: &Device,
    ) -> Self {
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
    pub(in crate::models) fn forward(
        &self,
        volume: Tensor<5>,
        statistics: Statistics,
    ) -> Tensor<5> {
        self.convs.iter().fold(channels_last(volume), |x, conv| {
            let x = conv.forward(x, statistics);
            match self.activation {
                StemActivation::None => x,
                StemActivation::Gelu => gelu(x),
            }
        })
    }

    /// Whether the norms are constants for this volume, so that [`forward_into`](Self::forward_into) serves.
    pub(in crate::models) fn uses_running(
        &self,
        volume: &Tensor<5>,
        statistics: Statistics,
    ) -> bool {
        self.convs[0].uses_running(volume, statistics)
    }

    /// With the running statistics, through the pooling and the projection of the first stage, `[channels_in,
    /// channels_out]`.
    pub(in crate::models) fn forward_into(
        &self,
        volume: Tensor<5>,
        projection: Tensor<2>,
    ) -> Tensor<5> {
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
            projection,
        };
        let activate = self.activation == StemActivation::Gelu;
        stem(channels_last(volume), weights, STEM_STRIDE, activate)
    }

    pub(in crate::models) fn cost(
        channels: usize,
        activation: StemActivation,
        positions: usize,
    ) -> Cost {
        let mut cost = Cost::default();
        let patch = DecomposedConv::dense_cost([1, channels], STEM_TAPS, positions);
        let refinement =
            DecomposedConv::dense_cost([channels, channels], STEM_REFINEMENT_TAPS, positions);
        let refinements = std::iter::repeat_n(refinement, STEM_REFINEMENTS);
        for (index, conv) in std::iter::once(patch).chain(refinements).enumerate() {
            cost.part(format!("convs.{index}"), conv);
            if activation == StemActivation::Gelu {
                cost.activation(&format!("convs.{index}.gelu"));
            }
        }
        cost
    }
}
