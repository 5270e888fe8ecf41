//! From a volume to tokens: its patches, normalised, projected, normalised again.

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Tensor};

use super::encoder::{channels_last, check_size};
use super::layer_norm::{LAYER_NORM_EPSILON, LayerNorm};
use super::patches::{PatchOrder, patches};
use crate::complexity::{Bias, Cost, Shape3};
use crate::error::{Error, Result};

/// Most voxels of a patch along an axis.
const MOST_VOXELS: usize = 512;

/// LayerNorm, linear layer, LayerNorm, on the values of each patch.
#[derive(Module, Debug)]
pub(super) struct PatchEmbedding {
    values_norm: LayerNorm,
    linear: Linear,
    norm: LayerNorm,
    #[module(skip)]
    patch: Shape3,
    #[module(skip)]
    order: PatchOrder,
}

impl PatchEmbedding {
    pub(super) fn new(patch: Shape3, order: PatchOrder, width: usize, device: &Device) -> Self {
        let values = patch.voxels();
        Self {
            values_norm: LayerNorm::new(values, LAYER_NORM_EPSILON, device),
            linear: LinearConfig::new(values, width).init(device),
            norm: LayerNorm::new(width, LAYER_NORM_EPSILON, device),
            patch,
            order,
        }
    }

    /// # Shapes
    /// - `volume`: `[batch, 1, depth, height, width]`
    /// - output: `[batch, depth, height, width, features]` of the grid of patches
    pub(super) fn forward(&self, volume: Tensor<5>) -> Tensor<5> {
        let Shape3 {
            depth,
            height,
            width,
        } = self.patch;
        let values = patches(channels_last(volume), [depth, height, width], self.order);
        let tokens = self.linear.forward(self.values_norm.forward(values));
        self.norm.forward(tokens)
    }

    pub(super) fn cost(patch: Shape3, width: usize, tokens: usize) -> Cost {
        let values = patch.voxels();
        let mut cost = Cost::default();
        cost.linear_map("patches");
        cost.norm("values_norm", values, tokens);
        cost.linear("linear", [values, width], tokens, Bias::With);
        cost.norm("norm", width, tokens);
        cost
    }

    /// Refuses patches that no network has.
    pub(super) fn check(network: &'static str, patch: Shape3) -> Result<()> {
        [patch.depth, patch.height, patch.width]
            .into_iter()
            .try_for_each(|size| check_size(network, "patch", size, MOST_VOXELS))
    }

    /// Size of the grid of patches.
    ///
    /// # Errors
    /// [`Error::VolumeSize`] if the patches do not divide the volume.
    pub(super) fn grid(network: &'static str, patch: Shape3, volume: Shape3) -> Result<Shape3> {
        let divides = volume.depth.is_multiple_of(patch.depth)
            && volume.height.is_multiple_of(patch.height)
            && volume.width.is_multiple_of(patch.width);
        if !divides {
            return Err(Error::VolumeSize {
                network,
                found: volume,
                expected: format!("multiples of its patch, {patch}"),
            });
        }
        Ok(Shape3 {
            depth: volume.depth / patch.depth,
            height: volume.height / patch.height,
            width: volume.width / patch.width,
        })
    }
}
