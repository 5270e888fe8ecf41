//! What follows the stem of DCFormer, and of InceptionNeXt on its budget: four stages, each on half the grid of the one
//! before.

use burn::module::Param;
use burn::nn::Initializer;
use burn::tensor::{Device, Tensor};
use dcformer_kernels::pool_project;

use super::stem::{STEM_STRIDE, Stem};
use crate::complexity::Shape3;
use crate::models::batch_norm::Statistics;

/// A stage: half the grid, more channels, then blocks.
pub(in crate::models) trait Stage {
    /// `[channels_out, channels_in, 1, 1, 1]`
    fn projection(&self) -> &Param<Tensor<5>>;

    /// The blocks.
    ///
    /// # Shapes
    /// - input, output: `[batch, depth, height, width, channels]`
    fn mix(&self, x: Tensor<5>, statistics: Statistics) -> Tensor<5>;

    /// The blocks where the norms are constants.
    fn mix_running(&self, x: Tensor<5>, statistics: Statistics) -> Tensor<5> {
        self.mix(x, statistics)
    }

    /// Half the grid, and more channels.
    ///
    /// # Shapes
    /// - input: `[batch, depth, height, width, channels_in]`
    /// - output: `[batch, ceil(depth / 2), ceil(height / 2), ceil(width / 2), channels_out]`
    fn enter(&self, x: Tensor<5>) -> Tensor<5> {
        pool_project(x, projection_matrix(self.projection()))
    }
}

/// Size of the last grid.
pub(in crate::models) fn grid(volume: Shape3) -> Shape3 {
    (0..4).fold(volume.strided(STEM_STRIDE), |grid, _stage| grid.strided(2))
}

/// See [`Encoder::forward_watched`](crate::models::encoder::Encoder::forward_watched); the stem is the first stage.
///
/// # Shapes
/// - `volume`: `[batch, 1, depth, height, width]`
/// - features `i`: `[batch, depth / 2^(i + 2), height / 2^(i + 2), width / 2^(i + 2), channels[i]]`, sizes rounded up at
///   every stride
pub(in crate::models) fn forward_watched(
    stem: &Stem,
    stages: &[impl Stage],
    volume: Tensor<5>,
    statistics: Statistics,
    after_stage: &mut dyn FnMut(&Tensor<5>),
) -> Tensor<5> {
    let x = stem.forward(volume, statistics);
    after_stage(&x);
    stages.iter().fold(x, |x, stage| {
        let x = stage.mix(stage.enter(x), statistics);
        after_stage(&x);
        x
    })
}

/// Features of the last stage.
///
/// # Shapes
/// As [`forward_watched`].
pub(in crate::models) fn forward(
    stem: &Stem,
    stages: &[impl Stage],
    volume: Tensor<5>,
    statistics: Statistics,
) -> Tensor<5> {
    if !stem.uses_running(&volume, statistics) {
        return forward_watched(stem, stages, volume, statistics, &mut |_| ());
    }
    // With norms that are constants, what lies between the layers need not exist.
    let [first, rest @ ..] = stages else {
        unreachable!("an encoder has four stages")
    };
    let entered = stem.forward_into(volume, projection_matrix(first.projection()));
    rest.iter()
        .fold(first.mix_running(entered, statistics), |x, stage| {
            stage.mix_running(stage.enter(x), statistics)
        })
}

/// Fresh weights of a pointwise convolution without bias, `[channels_out, channels_in, 1, 1, 1]`.
pub(in crate::models) fn fresh_projection(
    [inputs, outputs]: [usize; 2],
    device: &Device,
) -> Param<Tensor<5>> {
    let uniform = Initializer::KaimingUniform {
        gain: 1.0 / 3f64.sqrt(),
        fan_out_only: false,
    };
    uniform.init_with([outputs, inputs, 1, 1, 1], Some(inputs), None, device)
}

/// A pointwise convolution as a matrix product over channels: `[channels_in, channels_out]`.
fn projection_matrix(projection: &Param<Tensor<5>>) -> Tensor<2> {
    let weight = projection.val();
    let [outputs, inputs, ..] = weight.dims();
    weight.reshape([outputs, inputs]).transpose()
}
