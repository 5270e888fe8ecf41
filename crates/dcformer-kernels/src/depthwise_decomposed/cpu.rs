//! Depthwise decomposed convolution on the CPU.
//!
//! Channels are innermost, so one vector is one voxel's slice of channels and every tap is a whole vector. The unit of
//! work is a row (one `z`, one `y`): its depth and height taps are the same voxel of other rows, its width taps are
//! neighbours. A tile of a few voxels of one vector of channels stays in registers across all taps.
//!
//! Rows are independent, so threads never share output and the result does not depend on their number.

use rayon::prelude::*;

use super::tile;
use crate::geometry::{Geometry, RowAt, rows_per_partial};
use crate::memory::zeros;
use crate::simd::{Kernel, Level, Simd};
use crate::statistics::{Moments, NormBackward, Statistics, add_lanes, add_to};

/// Voxels of a register tile.
const TILE: usize = 8;

/// Filters of the three branches, `[3, taps, channels]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Filters<'a> {
    pub(crate) weight: &'a [f32],
    pub(crate) taps: usize,
}

impl<'a> Filters<'a> {
    pub(crate) fn branch(self, branch: usize) -> &'a [f32] {
        let len = self.weight.len() / 3;
        &self.weight[branch * len..][..len]
    }
}

/// Gradients of [`norm`](super::depthwise_decomposed_norm)'s operands.
#[derive(Debug)]
pub(crate) struct Gradients {
    pub(crate) x: Vec<f32>,
    pub(crate) weight: Vec<f32>,
    pub(crate) gamma: Vec<f32>,
    pub(crate) beta: Vec<f32>,
}

fn for_each_row(out: &mut [f32], geometry: Geometry, work: impl Fn(RowAt, &mut [f32]) + Sync) {
    let row_len = geometry.row_len();
    if row_len == 0 {
        return;
    }
    out.par_chunks_mut(row_len)
        .enumerate()
        .for_each(|(row, out)| work(geometry.row(row), out));
}

/// Statistics of the three branches without bias.
pub(crate) fn statistics(
    level: Level,
    x: &[f32],
    filters: Filters<'_>,
    geometry: Geometry,
) -> [Statistics; 3] {
    assert_eq!(x.len(), geometry.len());
    assert_eq!(filters.weight.len(), 3 * filters.taps * geometry.channels);
    let rows = geometry.rows();
    let step = rows_per_partial(rows);
    let partials: Vec<[Moments; 3]> = (0..rows.div_ceil(step))
        .into_par_iter()
        .map(|partial| {
            let mut moments = [0, 1, 2].map(|_| Moments::zero(geometry.channels));
            for row in partial * step..((partial + 1) * step).min(rows) {
                let row = geometry.row(row);
                level.run(RowMoments {
                    x,
                    gradient: None,
                    filters,
                    row,
                    geometry,
                    moments: &mut moments,
                });
            }
            moments
        })
        .collect();
    let mut total = [0, 1, 2].map(|_| Moments::zero(geometry.channels));
    for partial in &partials {
        for (total, part) in total.iter_mut().zip(partial) {
            total.add(part);
        }
    }
    total.map(|moments| moments.statistics(geometry.voxels()))
}

/// The normalised sum: the plain convolution with the normalisation folded into its weights.
pub(crate) fn norm(
    level: Level,
    x: &[f32],
    filters: Filters<'_>,
    [gamma, beta]: [&[f32]; 2],
    statistics: &[Statistics; 3],
    epsilon: f64,
    geometry: Geometry,
) -> Vec<f32> {
    let channels = geometry.channels;
    let mut bias = vec![0.0; channels];
    let mut weight = Vec::with_capacity(filters.weight.len());
    for (branch, statistics) in statistics.iter().enumerate() {
        let of_branch = |table: &'_ [f32]| table[branch * channels..][..channels].to_vec();
        let (factor, summand) = statistics.affine(&of_branch(gamma), &of_branch(beta), epsilon);
        for taps in filters.branch(branch).chunks_exact(channels) {
            weight.extend(
                taps.iter()
                    .zip(&factor)
                    .map(|(weight, factor)| weight * factor),
            );
        }
        for (bias, summand) in bias.iter_mut().zip(summand) {
            *bias += summand;
        }
    }
    tile::conv(
        level,
        x,
        Filters {
            weight: &weight,
            ..filters
        },
        &bias,
        geometry,
    )
}

/// Gradients of [`norm`]; `gradient` has the shape of `x`. One branch at a time: its values are recomputed, turned
/// into their gradient, and spent on the filters and the input.
#[allow(
    clippy::too_many_arguments,
    reason = "the operands of the forward pass, its state and the gradient"
)]
pub(crate) fn norm_backward(
    level: Level,
    x: &[f32],
    filters: Filters<'_>,
    gamma: &[f32],
    statistics: &[Statistics; 3],
    epsilon: f64,
    gradient: &[f32],
    geometry: Geometry,
) -> Gradients {
    assert_eq!(gradient.len(), geometry.len());
    let channels = geometry.channels;
    let (gradient_sum, products) = gradient_sums(level, x, filters, gradient, geometry);
    let beta: Vec<f32> = gradient_sum.iter().map(|sum| *sum as f32).collect();
    let mut out = Gradients {
        x: zeros(geometry.len()),
        weight: Vec::with_capacity(filters.weight.len()),
        gamma: Vec::with_capacity(3 * channels),
        beta: beta.repeat(3),
    };
    let mut branch_gradient = zeros(geometry.len());
    for (branch, statistics) in statistics.iter().enumerate() {
        let gamma = &gamma[branch * channels..][..channels];
        let through = NormBackward::new(
            statistics,
            gamma,
            epsilon,
            geometry.voxels(),
            &gradient_sum,
            &products[branch],
        );
        let weight = filters.branch(branch);
        let one = Branch {
            axis: branch,
            weight,
            taps: filters.taps,
        };
        for_each_row(&mut branch_gradient, geometry, |row, out| {
            level.run(BranchGradientRow {
                x,
                gradient,
                one,
                through: &through,
                out,
                row,
                geometry,
            });
        });
        out.gamma.extend_from_slice(&through.gamma);
        out.weight
            .extend(weight_gradient(level, x, &branch_gradient, one, geometry));
        let flipped: Vec<f32> = weight
            .chunks_exact(channels)
            .rev()
            .flatten()
            .copied()
            .collect();
        let flipped = Branch {
            weight: &flipped,
            ..one
        };
        for_each_row(&mut out.x, geometry, |row, out| {
            level.run(AddBranchRow {
                x: &branch_gradient,
                one: flipped,
                out,
                row,
                geometry,
            });
        });
    }
    out
}

/// `Σ g` and, per branch, `Σ g * u`.
fn gradient_sums(
    level: Level,
    x: &[f32],
    filters: Filters<'_>,
    gradient: &[f32],
    geometry: Geometry,
) -> (Vec<f64>, [Vec<f64>; 3]) {
    let rows = geometry.rows();
    let step = rows_per_partial(rows);
    let partials: Vec<[Moments; 3]> = (0..rows.div_ceil(step))
        .into_par_iter()
        .map(|partial| {
            let mut moments = [0, 1, 2].map(|_| Moments::zero(geometry.channels));
            for row in partial * step..((partial + 1) * step).min(rows) {
                let row = geometry.row(row);
                level.run(RowMoments {
                    x,
                    gradient: Some(gradient),
                    filters,
                    row,
                    geometry,
                    moments: &mut moments,
                });
            }
            moments
        })
        .collect();
    let mut gradient_sum = vec![0.0; geometry.channels];
    let mut products = [0, 1, 2].map(|_| vec![0.0; geometry.channels]);
    for partial in &partials {
        add_to(&mut gradient_sum, &partial[0].sum);
        for (total, part) in products.iter_mut().zip(partial) {
            add_to(total, &part.squares);
        }
    }
    (gradient_sum, products)
}

fn weight_gradient(
    level: Level,
    x: &[f32],
    gradient: &[f32],
    one: Branch<'_>,
    geometry: Geometry,
) -> Vec<f32> {
    let rows = geometry.rows();
    let step = rows_per_partial(rows);
    let partials: Vec<Vec<f32>> = (0..rows.div_ceil(step))
        .into_par_iter()
        .map(|partial| {
            let mut sums = vec![0.0; one.taps * geometry.channels];
            for row in partial * step..((partial + 1) * step).min(rows) {
                let row = geometry.row(row);
                level.run(WeightGradientRow {
                    x,
                    gradient,
                    one,
                    sums: &mut sums,
                    row,
                    geometry,
                });
            }
            sums
        })
        .collect();
    let mut total = crate::matmul::sum_in_order(partials);
    total.resize(one.taps * geometry.channels, 0.0);
    total
}

/// One branch: the axis it runs along and its filter, `[taps, channels]`.
#[derive(Clone, Copy, Debug)]
struct Branch<'a> {
    axis: usize,
    weight: &'a [f32],
    taps: usize,
}

/// Where a tile is: `first` voxel of its row, channels from `channel` on, `lanes` of them.
#[derive(Clone, Copy, Debug)]
struct TileAt {
    row: RowAt,
    first: usize,
    channel: usize,
    lanes: usize,
}

#[inline(always)]
fn load<S: Simd>(simd: S, values: &[f32], start: usize, lanes: usize) -> S::F32 {
    if lanes == S::LANES {
        simd.load(&values[start..])
    } else {
        simd.load_partial(&values[start..start + lanes])
    }
}

#[inline(always)]
fn store<S: Simd>(simd: S, vector: S::F32, values: &mut [f32], start: usize, lanes: usize) {
    simd.store_partial(vector, &mut values[start..start + lanes]);
}

/// `sums[j] += Σ_t weight[t] · x[voxel j shifted by t - r along the branch's axis]`.
#[inline(always)]
fn add_branch<S: Simd, const VOXELS: usize>(
    simd: S,
    sums: &mut [S::F32; VOXELS],
    x: &[f32],
    one: Branch<'_>,
    at: TileAt,
    geometry: Geometry,
) {
    let Branch { axis, weight, taps } = one;
    let radius = taps / 2;
    let channels = geometry.channels;
    let stride = geometry.strides()[axis];
    let start = geometry.start(at.row) + at.first * channels + at.channel;
    let position = [at.row.z, at.row.y, at.first][axis];
    let size = geometry.size[axis];
    // Taps whose voxel is inside the volume for at least one voxel of the tile.
    let extra = if axis == 2 { VOXELS - 1 } else { 0 };
    let from = radius.saturating_sub(position + extra);
    let to = taps.min(size + radius - position);
    for tap in from..to {
        let filter = load(simd, weight, tap * channels + at.channel, at.lanes);
        let inside =
            axis < 2 || (position + tap >= radius && position + tap + VOXELS <= size + radius);
        if inside {
            let source = start + tap * stride - radius * stride;
            for (voxel, sum) in sums.iter_mut().enumerate() {
                *sum = simd.mul_add(
                    filter,
                    load(simd, x, source + voxel * channels, at.lanes),
                    *sum,
                );
            }
        } else {
            for (voxel, sum) in sums.iter_mut().enumerate() {
                let shifted = position + voxel + tap;
                if shifted >= radius && shifted < size + radius {
                    let source = start + (voxel + tap) * channels - radius * channels;
                    *sum = simd.mul_add(filter, load(simd, x, source, at.lanes), *sum);
                }
            }
        }
    }
}

/// Calls `$tile::<VOXELS>(at)` for tiles that cover a row and all channels.
macro_rules! for_each_tile {
    ($S:ident, $row:expr, $geometry:expr, |$at:ident, $voxels:ident| $body:block) => {
        let (row, geometry): (RowAt, Geometry) = ($row, $geometry);
        let mut channel = 0;
        while channel < geometry.channels {
            let lanes = $S::LANES.min(geometry.channels - channel);
            let mut first = 0;
            while first < geometry.size[2] {
                let $at = TileAt { row, first, channel, lanes };
                if geometry.size[2] - first >= TILE {
                    const $voxels: usize = TILE;
                    $body
                    first += TILE;
                } else if geometry.size[2] - first >= TILE / 2 {
                    const $voxels: usize = TILE / 2;
                    $body
                    first += TILE / 2;
                } else {
                    const $voxels: usize = 1;
                    $body
                    first += 1;
                }
            }
            channel += lanes;
        }
    };
}

/// `out += branch(x)` for one row.
struct AddBranchRow<'a> {
    x: &'a [f32],
    one: Branch<'a>,
    out: &'a mut [f32],
    row: RowAt,
    geometry: Geometry,
}

impl Kernel for AddBranchRow<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self {
            x,
            one,
            out,
            row,
            geometry,
        } = self;
        for_each_tile!(S, row, geometry, |at, VOXELS| {
            let place = at.first * geometry.channels + at.channel;
            let mut sums = [simd.splat(0.0); VOXELS];
            for (voxel, sum) in sums.iter_mut().enumerate() {
                *sum = load(simd, out, place + voxel * geometry.channels, at.lanes);
            }
            add_branch(simd, &mut sums, x, one, at, geometry);
            for (voxel, sum) in sums.into_iter().enumerate() {
                store(simd, sum, out, place + voxel * geometry.channels, at.lanes);
            }
        });
    }
}

/// `out = a * gradient + b * branch(x) + c` for one row: the gradient of the branch before its normalisation.
struct BranchGradientRow<'a> {
    x: &'a [f32],
    gradient: &'a [f32],
    one: Branch<'a>,
    through: &'a NormBackward,
    out: &'a mut [f32],
    row: RowAt,
    geometry: Geometry,
}

impl Kernel for BranchGradientRow<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self {
            x,
            gradient,
            one,
            through,
            out,
            row,
            geometry,
        } = self;
        let gradient = &gradient[geometry.start(row)..][..geometry.row_len()];
        for_each_tile!(S, row, geometry, |at, VOXELS| {
            let place = at.first * geometry.channels + at.channel;
            let mut branch = [simd.splat(0.0); VOXELS];
            add_branch(simd, &mut branch, x, one, at, geometry);
            let a = load(simd, &through.a, at.channel, at.lanes);
            let b = load(simd, &through.b, at.channel, at.lanes);
            let c = load(simd, &through.c, at.channel, at.lanes);
            for (voxel, u) in branch.into_iter().enumerate() {
                let index = place + voxel * geometry.channels;
                let g = load(simd, gradient, index, at.lanes);
                store(
                    simd,
                    simd.mul_add(a, g, simd.mul_add(b, u, c)),
                    out,
                    index,
                    at.lanes,
                );
            }
        });
    }
}

/// Adds one row to the branches' moments: sums of `u` and `u²`, or with a gradient of `g` and `g * u`.
struct RowMoments<'a> {
    x: &'a [f32],
    gradient: Option<&'a [f32]>,
    filters: Filters<'a>,
    row: RowAt,
    geometry: Geometry,
    moments: &'a mut [Moments; 3],
}

impl Kernel for RowMoments<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self {
            x,
            gradient,
            filters,
            row,
            geometry,
            moments,
        } = self;
        let start = geometry.start(row);
        for_each_tile!(S, row, geometry, |at, VOXELS| {
            let place = start + at.first * geometry.channels + at.channel;
            for (axis, moments) in moments.iter_mut().enumerate() {
                let one = Branch {
                    axis,
                    weight: filters.branch(axis),
                    taps: filters.taps,
                };
                let mut branch = [simd.splat(0.0); VOXELS];
                add_branch(simd, &mut branch, x, one, at, geometry);
                let (mut sum, mut squares) = (simd.splat(0.0), simd.splat(0.0));
                for (voxel, u) in branch.into_iter().enumerate() {
                    let other = match gradient {
                        Some(gradient) => {
                            load(simd, gradient, place + voxel * geometry.channels, at.lanes)
                        }
                        None => u,
                    };
                    sum = simd.add(sum, other);
                    squares = simd.mul_add(other, u, squares);
                }
                add_lanes(
                    simd,
                    sum,
                    &mut moments.sum[at.channel..at.channel + at.lanes],
                );
                add_lanes(
                    simd,
                    squares,
                    &mut moments.squares[at.channel..at.channel + at.lanes],
                );
            }
        });
    }
}

/// `sums[t] += Σ_voxel gradient[voxel] · x[voxel shifted by t - r]` for one row.
struct WeightGradientRow<'a> {
    x: &'a [f32],
    gradient: &'a [f32],
    one: Branch<'a>,
    sums: &'a mut [f32],
    row: RowAt,
    geometry: Geometry,
}

impl Kernel for WeightGradientRow<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self {
            x,
            gradient,
            one,
            sums,
            row,
            geometry,
        } = self;
        let Branch { axis, taps, .. } = one;
        let (radius, channels, width) = (taps / 2, geometry.channels, geometry.size[2]);
        let (start, stride) = (geometry.start(row), geometry.strides()[axis]);
        let mut channel = 0;
        while channel < channels {
            let lanes = S::LANES.min(channels - channel);
            for tap in 0..taps {
                // Voxels of the row whose shifted neighbour is inside the volume.
                let (from, to) = if axis == 2 {
                    (
                        radius.saturating_sub(tap).min(width),
                        width.min((width + radius).saturating_sub(tap)),
                    )
                } else {
                    let position = [row.z, row.y][axis] + tap;
                    if position < radius || position >= geometry.size[axis] + radius {
                        continue;
                    }
                    (0, width)
                };
                let mut partial = [simd.splat(0.0); 4];
                for voxel in from..to {
                    let index = start + voxel * channels + channel;
                    let g = load(simd, gradient, index, lanes);
                    let v = load(simd, x, index + tap * stride - radius * stride, lanes);
                    partial[voxel % 4] = simd.mul_add(g, v, partial[voxel % 4]);
                }
                let sum = simd.add(
                    simd.add(partial[0], partial[1]),
                    simd.add(partial[2], partial[3]),
                );
                let place = tap * channels + channel;
                let sum = simd.add(sum, load(simd, sums, place, lanes));
                store(simd, sum, sums, place, lanes);
            }
            channel += lanes;
        }
    }
}
