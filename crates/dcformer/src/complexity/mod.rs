//! What a model costs: parameters, multiply-adds as the paper counts them (SPEC section 2, P8), memory of activations.
//!
//! Counted are the multiply-adds of convolutions, linear layers and matrix products, without their biases, and 5 for
//! every element that a BatchNorm or LayerNorm of training normalises. GELU, additions and pooling count nothing. These are
//! the conventions of fvcore, with which the paper's table was made: batch 1, training mode.
//!
//! Every network describes itself, layer by layer, in the words of [`Cost`], beside its configuration. [`published`] has
//! what the paper prints, and [`report::study`](crate::report::study) makes its figures and tables anew.

mod breakdown;
mod cost;
mod curves;
mod memory;
pub mod published;
#[cfg(test)]
mod tests;

pub use breakdown::{KindShare, LayerShare};
pub use cost::{Amount, AttentionSize, Bias, Cost, Kind, Layer, Operands, Products};
pub use curves::{Curve, Figure, Point};
pub use dcformer_volume::geometry::Shape3;
pub use memory::{Activation, ActivationMemory};
use serde::Serialize;

use self::published::Comparison;
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
    /// The same, to the unit.
    pub macs: u64,
    /// Memory of a volume's activations.
    pub activation_memory: ActivationMemory,
    /// Parameters, multiply-adds and memory by what the layers do.
    pub by_kind: Vec<KindShare>,
    /// What the paper prints, for volumes of its size.
    pub paper: Option<Comparison>,
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
        let Amount { params, macs, .. } = cost.total();
        let projection = config.reduction().values(grid, config.features()) * LATENT;
        let with_projection = params + projection as u64;
        let printed = (volume == PAPER_VOLUME).then(|| published::row(network, variant));
        Ok(Self {
            model: network,
            variant,
            params,
            params_with_projection: config.stated_with_projection().then_some(with_projection),
            gmacs: cost.gmacs(),
            macs,
            activation_memory: cost.memory(volume),
            by_kind: cost.by_kind(volume),
            paper: printed
                .flatten()
                .map(|row| row.compare([params, with_projection], macs)),
        })
    }
}

/// The rows of every network and variant that takes volumes of this shape.
pub fn table(volume: Shape3) -> Vec<Complexity> {
    let rows = presets().into_iter();
    rows.filter_map(|preset| Complexity::of(&preset, volume).ok())
        .collect()
}
