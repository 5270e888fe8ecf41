//! Sums that batch statistics and their gradients need, taken while the values are in the cache.

use crate::depthwise_decomposed::cpu::add_lanes;
use crate::geometry::Geometry;
use crate::simd::{Kernel, Level, Simd};
use crate::statistics::Moments;
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
            level.run(Sums {
                a,
                b: u,
                moments: &mut moments,
            });
        }
        moments
    }
}

/// Adds `Σ a` and `Σ a b` per channel.
struct Sums<'a> {
    a: &'a [f32],
    b: &'a [f32],
    moments: &'a mut Moments,
}

impl Kernel for Sums<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        /// Voxels added in single precision before they join the double-precision sums.
        const RUN: usize = 64;
        /// Partial sums, so that an addition need not wait for the one before.
        const PARTS: usize = 4;
        let channels = self.moments.sum.len();
        for (a, b) in self
            .a
            .chunks(RUN * channels)
            .zip(self.b.chunks(RUN * channels))
        {
            let mut channel = 0;
            while channel < channels {
                let here = channel..channels.min(channel + S::LANES);
                let mut sums = [[simd.splat(0.0); 2]; PARTS];
                let voxels = a.chunks(PARTS * channels).zip(b.chunks(PARTS * channels));
                for (a, b) in voxels {
                    let voxels = a.chunks_exact(channels).zip(b.chunks_exact(channels));
                    for (sums, (a, b)) in sums.iter_mut().zip(voxels) {
                        let a = simd.load_partial(&a[here.clone()]);
                        let b = simd.load_partial(&b[here.clone()]);
                        sums[0] = simd.add(sums[0], a);
                        sums[1] = simd.mul_add(a, b, sums[1]);
                    }
                }
                let [first, second, third, fourth] = sums;
                for (index, to) in [&mut self.moments.sum, &mut self.moments.squares]
                    .into_iter()
                    .enumerate()
                {
                    let sum = simd.add(
                        simd.add(first[index], second[index]),
                        simd.add(third[index], fourth[index]),
                    );
                    add_lanes(simd, sum, &mut to[here.clone()]);
                }
                channel += S::LANES;
            }
        }
    }
}
