//! Sums that batch statistics and their gradients need, taken while the values are in the cache.

use crate::geometry::Geometry;
use crate::simd::Level;
use crate::statistics::{Moments, add_sums};
use crate::tiles::Tile;

/// What to sum over the output of a convolution, per channel.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Measure<'a> {
    /// Values and their squares.
    Squares,
    /// These values, of the output's shape, and their products with the output.
    Products(&'a [f32]),
}

impl Measure<'_> {
    /// Over the rows of one tile.
    pub(super) fn of_tile(
        self,
        level: Level,
        tile: Tile,
        rows: &[&mut [f32]],
        geometry: Geometry,
    ) -> Moments {
        let channels = geometry.channels;
        let mut moments = Moments::zero(channels);
        for (row, u) in tile.rows().zip(rows) {
            let a = match self {
                Measure::Products(values) => &values[geometry.start(row)..][..u.len()],
                Measure::Squares => &**u,
            };
            add_sums(level, a, u, &mut moments);
        }
        moments
    }
}
