//! A scan in memory: voxels, their meaning and their place.

use crate::geometry::Grid;

/// Stored values, `i` fastest, then `j`, then `k`.
///
/// Sixteen-bit integers stay integers: a chest CT is 200 MB that way and 400 MB as floats.
#[derive(Clone, Debug, PartialEq)]
pub enum Voxels {
    /// Every integer type whose values fit.
    I16(Vec<i16>),
    /// Everything else.
    F32(Vec<f32>),
}

impl Voxels {
    /// Number of voxels.
    pub fn len(&self) -> usize {
        match self {
            Self::I16(values) => values.len(),
            Self::F32(values) => values.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// `value = slope * stored + intercept`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rescale {
    /// Factor.
    pub slope: f64,
    /// Added after the multiplication, in the unit of the result.
    pub intercept: f64,
}

impl Rescale {
    /// Stored values are the values.
    pub const NONE: Self = Self {
        slope: 1.0,
        intercept: 0.0,
    };

    /// Rescales one value.
    pub fn apply(self, stored: f64) -> f64 {
        self.slope * stored + self.intercept
    }
}

/// A scan: stored voxels, the rescaling that its own header asks for, and its grid.
#[derive(Clone, Debug, PartialEq)]
pub struct Volume {
    /// Stored values; `voxels.len() == grid.voxels()`.
    pub voxels: Voxels,
    /// What the header says the values mean (Hounsfield units in a well-formed CT).
    pub rescale: Rescale,
    /// Where the voxels are.
    pub grid: Grid,
}
