//! The convolution on a tile: a few planes of a few rows, one axis after the other.
//!
//! Along its axis, a register tile of four outputs needs `taps + 3` inputs for `4 taps` products, so the values that a
//! vector unit loads are a third of those that it multiplies. A tile of 4 x 4 rows reads each of its input rows for four
//! outputs; row by row, each would come from the far cache as often as there are taps.

use super::cpu::Filters;
use crate::geometry::{Geometry, RowAt};
use crate::matmul::Panels;
use crate::simd::{Kernel, Level, Simd};
use crate::tiles::{Tile, map_tiles, side};

/// Outputs of a register tile along the axis of a branch.
const OUTPUTS: usize = 4;

/// Filters with the centre taps merged and `OUTPUTS - 1` zero taps at both ends: output `j` of a register tile takes input
/// `i` with tap `i - j`, whatever that is. Channels are cut into vectors, the last filled up with zeros.
#[derive(Clone, Debug)]
pub(crate) struct PaddedFilters {
    /// `[3][vectors][taps + 2 (OUTPUTS - 1)][lanes]`
    weight: Vec<f32>,
    /// `[vectors][lanes]`
    bias: Vec<f32>,
    taps: usize,
}

impl PaddedFilters {
    pub(crate) fn new(level: Level, filters: Filters<'_>, bias: &[f32]) -> Self {
        let (taps, channels) = (filters.taps, bias.len());
        assert_eq!(filters.weight.len(), 3 * taps * channels);
        let lanes = Panels::width(level) / 2;
        let vectors = channels.div_ceil(lanes);
        let padded = taps + 2 * (OUTPUTS - 1);
        let mut weight = vec![0.0; 3 * vectors * padded * lanes];
        let mut set = |branch: usize, tap: usize, channel: usize, value: f32| {
            let vector = branch * vectors + channel / lanes;
            let place = vector * padded + tap + OUTPUTS - 1;
            weight[place * lanes + channel % lanes] += value;
        };
        for branch in 0..3 {
            for (tap, values) in filters.branch(branch).chunks_exact(channels).enumerate() {
                // The branches share their centre voxel: its weights are the third's.
                let to = if tap == taps / 2 { 2 } else { branch };
                for (channel, value) in values.iter().enumerate() {
                    set(to, tap, channel, *value);
                }
            }
        }
        let mut padded_bias = bias.to_vec();
        padded_bias.resize(vectors * lanes, 0.0);
        Self {
            weight,
            bias: padded_bias,
            taps,
        }
    }

    /// The taps of one vector of channels of a branch.
    #[inline(always)]
    fn taps_of<S: Simd>(&self, branch: usize, vector: usize) -> &[f32] {
        let len = (self.taps + 2 * (OUTPUTS - 1)) * S::LANES;
        let vectors = self.bias.len() / S::LANES;
        &self.weight[(branch * vectors + vector) * len..][..len]
    }
}

/// The convolution of a tile.
pub(crate) struct ConvolveTile<'a, 'b> {
    pub(crate) x: &'a [f32],
    pub(crate) filters: &'a PaddedFilters,
    pub(crate) geometry: Geometry,
    pub(crate) tile: Tile,
    /// The rows of the tile, in its order.
    pub(crate) out: &'a mut [&'b mut [f32]],
}

impl Kernel for ConvolveTile<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        // Whole vectors only, where channels allow it: nothing is asked about any load.
        if self.geometry.channels.is_multiple_of(S::LANES) {
            self.branches::<S, true>(simd);
        } else {
            self.branches::<S, false>(simd);
        }
    }
}

#[inline(always)]
fn load<S: Simd, const WHOLE: bool>(simd: S, values: &[f32]) -> S::F32 {
    if WHOLE {
        simd.load(values)
    } else {
        simd.load_partial(values)
    }
}

#[inline(always)]
fn store<S: Simd, const WHOLE: bool>(simd: S, vector: S::F32, values: &mut [f32]) {
    if WHOLE {
        simd.store(vector, values);
    } else {
        simd.store_partial(vector, values);
    }
}

impl ConvolveTile<'_, '_> {
    #[inline(always)]
    fn branches<S: Simd, const WHOLE: bool>(mut self, simd: S) {
        let [planes, rows] = self.tile.size;
        for y in 0..rows {
            let mut z = 0;
            while z < planes {
                z += match planes - z {
                    OUTPUTS.. => self.across::<S, OUTPUTS, WHOLE>(simd, 0, [z, y]),
                    2.. => self.across::<S, 2, WHOLE>(simd, 0, [z, y]),
                    _ => self.across::<S, 1, WHOLE>(simd, 0, [z, y]),
                };
            }
        }
        for z in 0..planes {
            let mut y = 0;
            while y < rows {
                y += match rows - y {
                    OUTPUTS.. => self.across::<S, OUTPUTS, WHOLE>(simd, 1, [z, y]),
                    2.. => self.across::<S, 2, WHOLE>(simd, 1, [z, y]),
                    _ => self.across::<S, 1, WHOLE>(simd, 1, [z, y]),
                };
            }
        }
        for (index, at) in self.tile.rows().enumerate() {
            self.along::<S, WHOLE>(simd, index, at);
        }
    }
}

impl ConvolveTile<'_, '_> {
    /// The branch along depth or height for `N` rows that follow each other there, from `first` (in the tile) on. The first
    /// branch starts from the bias, the others add.
    #[inline(always)]
    fn across<S: Simd, const N: usize, const WHOLE: bool>(
        &mut self,
        simd: S,
        axis: usize,
        first: [usize; 2],
    ) -> usize {
        let Self {
            x,
            filters,
            geometry,
            tile,
            ..
        } = *self;
        let channels = geometry.channels;
        let at = [tile.at[0] + first[0], tile.at[1] + first[1]];
        let (from, to) = inputs::<N>(at[axis], filters.taps, geometry.size[axis]);
        let lines: Vec<&[f32]> = (from..to)
            .filter_map(|input| {
                let mut at = at.map(|at| at as isize);
                at[axis] += input as isize - (filters.taps / 2) as isize;
                geometry.line(x, tile.volume, at)
            })
            .collect();
        let rows: [usize; N] = std::array::from_fn(|output| {
            let mut at = first;
            at[axis] += output;
            at[0] * tile.size[1] + at[1]
        });
        for voxel in 0..geometry.size[2] {
            for vector in 0..channels.div_ceil(S::LANES) {
                let channel = vector * S::LANES;
                let place = voxel * channels + channel;
                let place = place..place + S::LANES.min(channels - channel);
                let weight = filters.taps_of::<S>(axis, vector);
                let mut sums = [simd.splat(0.0); N];
                for (sum, row) in sums.iter_mut().zip(rows) {
                    *sum = match axis {
                        0 => simd.load(&filters.bias[channel..]),
                        _ => load::<S, WHOLE>(simd, &self.out[row][place.clone()]),
                    };
                }
                for (input, line) in (from..).zip(&lines) {
                    let value = load::<S, WHOLE>(simd, &line[place.clone()]);
                    multiply(simd, &mut sums, value, weight, input);
                }
                for (sum, row) in sums.into_iter().zip(rows) {
                    store::<S, WHOLE>(simd, sum, &mut self.out[row][place.clone()]);
                }
            }
        }
        N
    }

    /// The branch along the width for one row.
    #[inline(always)]
    fn along<S: Simd, const WHOLE: bool>(&mut self, simd: S, index: usize, at: RowAt) {
        let mut voxel = 0;
        let width = self.geometry.size[2];
        while voxel < width {
            voxel += match width - voxel {
                OUTPUTS.. => self.neighbours::<S, OUTPUTS, WHOLE>(simd, index, at, voxel),
                2.. => self.neighbours::<S, 2, WHOLE>(simd, index, at, voxel),
                _ => self.neighbours::<S, 1, WHOLE>(simd, index, at, voxel),
            };
        }
    }

    #[inline(always)]
    fn neighbours<S: Simd, const N: usize, const WHOLE: bool>(
        &mut self,
        simd: S,
        index: usize,
        at: RowAt,
        first: usize,
    ) -> usize {
        let Self {
            x,
            filters,
            geometry,
            ..
        } = *self;
        let channels = geometry.channels;
        let line = &x[geometry.start(at)..][..geometry.row_len()];
        let out = &mut self.out[index][first * channels..][..N * channels];
        let (from, to) = inputs::<N>(first, filters.taps, geometry.size[2]);
        // The voxel of input `from`.
        let start = first + from - filters.taps / 2;
        for vector in 0..channels.div_ceil(S::LANES) {
            let channel = vector * S::LANES;
            let lanes = S::LANES.min(channels - channel);
            let weight = filters.taps_of::<S>(2, vector);
            let mut sums = [simd.splat(0.0); N];
            for (output, sum) in sums.iter_mut().enumerate() {
                *sum = load::<S, WHOLE>(simd, &out[output * channels + channel..][..lanes]);
            }
            for input in from..to {
                let place = (start + input - from) * channels + channel;
                let value = load::<S, WHOLE>(simd, &line[place..place + lanes]);
                multiply(simd, &mut sums, value, weight, input);
            }
            for (output, sum) in sums.into_iter().enumerate() {
                store::<S, WHOLE>(simd, sum, &mut out[output * channels + channel..][..lanes]);
            }
        }
        N
    }
}

/// Which of the `taps + N - 1` inputs of `N` outputs at `position` are inside an axis.
#[inline(always)]
fn inputs<const N: usize>(position: usize, taps: usize, size: usize) -> (usize, usize) {
    let radius = taps / 2;
    (
        radius.saturating_sub(position),
        (taps + N - 1).min(size + radius - position),
    )
}

/// `sums[output] += weight[input - output] · value`.
#[inline(always)]
fn multiply<S: Simd, const N: usize>(
    simd: S,
    sums: &mut [S::F32; N],
    value: S::F32,
    weight: &[f32],
    input: usize,
) {
    // The taps of all outputs lie side by side, the last output's first.
    let taps = &weight[(input + OUTPUTS - N) * S::LANES..][..N * S::LANES];
    for (sum, tap) in sums.iter_mut().rev().zip(taps.chunks_exact(S::LANES)) {
        *sum = simd.mul_add(simd.load(tap), value, *sum);
    }
}

/// See [`depthwise_decomposed_conv`](super::depthwise_decomposed_conv).
pub(crate) fn conv(
    level: Level,
    x: &[f32],
    filters: Filters<'_>,
    bias: &[f32],
    geometry: Geometry,
) -> Vec<f32> {
    assert_eq!(x.len(), geometry.len());
    let filters = PaddedFilters::new(level, filters, bias);
    let work = |(): &mut (), tile, [out]: [&mut [&mut [f32]]; 1]| {
        level.run(ConvolveTile {
            x,
            filters: &filters,
            geometry,
            tile,
            out,
        });
    };
    let ([out], _) = map_tiles(geometry, side(geometry), || (), work);
    out
}
