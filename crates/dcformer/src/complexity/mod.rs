//! What a model costs: parameters, and multiply-adds as the paper counts them (SPEC section 2, P8).
//!
//! Counted are the multiply-adds of convolutions, linear layers and matrix products, without their biases, and 5 for
//! every element that a BatchNorm or LayerNorm of training normalises. GELU, additions and pooling count nothing. These are
//! the conventions of fvcore, with which the paper's table was made: batch 1, training mode.
//!
//! Every network describes itself, layer by layer, in the words of [`Cost`], beside its configuration.

mod cost;

pub use cost::{Amount, AttentionSize, Bias, Cost, Kind, Layer, Products};
pub use dcformer_volume::geometry::Shape3;
use serde::Serialize;

use crate::error::Result;
use crate::models::clip::LATENT;
use crate::models::encoder::{Preset, presets};

/// The paper's input, 512 x 512 x 256.
pub const PAPER_VOLUME: Shape3 = Shape3 {
    depth: 256,
    height: 512,
    width: 512,
};

/// A row of the table, under the names of `dcformer complexity --json`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Complexity {
    /// The network.
    pub model: &'static str,
    /// Its size.
    pub variant: &'static str,
    /// Learnt parameters of the encoder.
    pub params: u64,
    /// The same with the projection to 512, for networks of which the paper states it.
    pub params_with_projection: Option<u64>,
    /// Multiply-adds of a volume, in units of 10^9.
    pub gmacs: f64,
}

impl Complexity {
    /// The row of a network for volumes of this shape.
    ///
    /// # Errors
    /// [`Error::VolumeSize`](crate::Error::VolumeSize) if the network cannot take them.
    pub fn of(preset: &Preset, volume: Shape3) -> Result<Self> {
        let Preset {
            network,
            variant,
            config,
        } = preset;
        let grid = config.grid(volume)?;
        let cost = config.cost(volume);
        let params = cost.total().params;
        let projected = config.reduction().values(grid, config.features()) * LATENT;
        Ok(Self {
            model: network,
            variant,
            params,
            params_with_projection: config
                .stated_with_projection()
                .then(|| params + projected as u64),
            gmacs: cost.gmacs(),
        })
    }
}

/// The rows of every network and variant that takes volumes of this shape.
pub fn table(volume: Shape3) -> Vec<Complexity> {
    let rows = presets().into_iter();
    rows.filter_map(|preset| Complexity::of(&preset, volume).ok())
        .collect()
}
