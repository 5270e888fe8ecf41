//! Average pooling on the CPU, row by row: the lines that the windows of a row reach are added, then neighbours.
//!
//! The mean is the sum times the window's share, one over the number of voxels that are inside, a product over the axes. The
//! gradient is the same sum of gradients that were multiplied with their windows' shares before.

use crate::geometry::{Geometry, RowAt};
use crate::simd::{Kernel, Level, Simd};
use crate::tiles::{Tile, map_tiles, side};

/// One over the number of neighbours of a position in an axis of `size`, itself included.
#[inline(always)]
fn share(position: usize, size: usize) -> f32 {
    let neighbours = neighbours(position, size);
    1.0 / neighbours.len() as f32
}

#[inline(always)]
fn neighbours(position: usize, size: usize) -> std::ops::Range<usize> {
    position.saturating_sub(1)..(position + 2).min(size)
}

/// See [`average_pool`](super::average_pool()).
pub(crate) fn forward(level: Level, x: &[f32], geometry: Geometry) -> Vec<f32> {
    sum_windows(level, x, geometry, Shares::Outputs)
}

/// Gradient of the input.
pub(crate) fn backward(level: Level, gradient: &[f32], geometry: Geometry) -> Vec<f32> {
    sum_windows(level, gradient, geometry, Shares::Inputs)
}

/// What is multiplied with the shares of windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shares {
    Inputs,
    Outputs,
}

fn sum_windows(level: Level, x: &[f32], geometry: Geometry, shares: Shares) -> Vec<f32> {
    assert_eq!(x.len(), geometry.len());
    let [depth, height, _] = geometry.size;
    let share_of = |[z, y]: [usize; 2]| share(z, depth) * share(y, height);
    let work = |total: &mut Vec<f32>, tile: Tile, [out]: [&mut [&mut [f32]]; 1]| {
        for (RowAt { volume, z, y }, out) in tile.rows().zip(out) {
            let rows = neighbours(z, depth)
                .flat_map(|z| neighbours(y, height).map(move |y| RowAt { volume, z, y }));
            let lines: Vec<(&[f32], f32)> = rows
                .map(|row| {
                    let of = match shares {
                        Shares::Inputs => [row.z, row.y],
                        Shares::Outputs => [z, y],
                    };
                    let start = geometry.start(row);
                    (&x[start..start + geometry.row_len()], share_of(of))
                })
                .collect();
            level.run(SumLines {
                lines: &lines,
                shares,
                channels: geometry.channels,
                total,
                out,
            });
        }
    };
    let ([out], _) = map_tiles(geometry, side(geometry), Vec::new, work);
    out
}

/// A row of sums over windows.
struct SumLines<'a> {
    /// `[width, channels]` each, with what it is multiplied by.
    lines: &'a [(&'a [f32], f32)],
    shares: Shares,
    channels: usize,
    /// Room for a line with a voxel of zeros on either side.
    total: &'a mut Vec<f32>,
    /// `[width, channels]`
    out: &'a mut [f32],
}

impl Kernel for SumLines<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self {
            lines,
            shares,
            channels,
            total,
            out,
        } = self;
        let len = out.len();
        total.resize(len + 2 * channels, 0.0);
        total[..channels].fill(0.0);
        total[channels + len..].fill(0.0);
        // The share of an inner voxel is a third; the ends are corrected.
        let third = simd.splat(share(1, 3));
        for (index, total) in total[channels..][..len].chunks_mut(S::LANES).enumerate() {
            let here = index * S::LANES..index * S::LANES + total.len();
            let mut sum = simd.splat(0.0);
            for (line, share) in lines {
                let line = simd.load_partial(&line[here.clone()]);
                sum = simd.mul_add(line, simd.splat(*share), sum);
            }
            simd.store_partial(simd.mul(sum, third), total);
        }
        if shares == Shares::Inputs {
            correct_ends(&mut total[channels..][..len], channels);
        }
        for (index, out) in out.chunks_mut(S::LANES).enumerate() {
            let first = index * S::LANES;
            let mut sum = simd.splat(0.0);
            for neighbour in 0..3 {
                let start = first + neighbour * channels;
                let total = simd.load_partial(&total[start..start + out.len()]);
                sum = simd.add(sum, total);
            }
            simd.store_partial(sum, out);
        }
        if shares == Shares::Outputs {
            correct_ends(out, channels);
        }
    }
}

/// Of a row that was multiplied with a third, gives the voxels at both ends the share that they have.
#[inline(always)]
fn correct_ends(row: &mut [f32], channels: usize) {
    let width = row.len() / channels;
    let factor = 3.0 * share(0, width);
    let (first, rest) = row.split_at_mut(channels);
    let last = rest.len() - channels.min(rest.len());
    for value in first.iter_mut().chain(&mut rest[last..]) {
        *value *= factor;
    }
}
