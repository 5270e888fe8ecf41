//! The dense decomposed convolution in training on the CPU: batch statistics and gradients.
//!
//! Memory limits it as much as arithmetic, so a grid of values is read and written as seldom as it can be. All three branches
//! of a tile are computed while their input is in the cache, and measured there; one pass makes them a normalised sum,
//! or their gradients; the gradient of the input is again the sum of three convolutions of a tile.

use std::ops::Range;

use rayon::prelude::*;

use super::cpu::{Filters, TileConv, sum};
use super::measure::Measure;
use crate::geometry::{Geometry, RowAt, rows_per_partial};
use crate::matmul::{
    Broadcast, PanelView, Panels, Store, Target, multiply_tile, store_tile, sum_in_order,
    with_tile_rows,
};
use crate::memory::zeros;
use crate::simd::{Kernel, Level, Simd};
use crate::statistics::{Moments, NormBackward, Statistics, add_to};
use crate::tiles::{Tile, map_tiles, side};

/// Values of the three branches, each of the output's shape.
type Branches = [Vec<f32>; 3];

/// The branches, without bias, and what is measured of them.
fn branches(
    level: Level,
    x: &[f32],
    filters: Filters<'_>,
    measure: Measure<'_>,
    geometry: Geometry,
    stride: usize,
) -> (Branches, [Moments; 3]) {
    assert_eq!(x.len(), geometry.len());
    let convs =
        [0, 1, 2].map(|branch| TileConv::branch(level, filters, branch, false, geometry, stride));
    let out_geometry = convs[0].out_geometry();
    let work = |scratch: &mut Vec<f32>, tile: Tile, rows: [&mut [&mut [f32]]; 3]| {
        let mut moments = Vec::with_capacity(3);
        for (conv, rows) in convs.iter().zip(rows) {
            conv.tile(level, x, tile, rows, scratch, Store::Plain);
            moments.push(measure.of_tile(level, tile, rows, out_geometry));
        }
        moments
    };
    let (values, tiles) = map_tiles(out_geometry, side(out_geometry), Vec::new, work);
    let mut total = [0, 1, 2].map(|_| Moments::zero(out_geometry.channels));
    for moments in &tiles {
        for (total, moments) in total.iter_mut().zip(moments) {
            total.add(moments);
        }
    }
    (values, total)
}

/// The normalised sum and the statistics of the three branches.
pub(crate) fn norm(
    level: Level,
    x: &[f32],
    filters: Filters<'_>,
    [gamma, beta]: [&[f32]; 2],
    epsilon: f64,
    geometry: Geometry,
    stride: usize,
) -> (Vec<f32>, [Statistics; 3]) {
    let (values, moments) = branches(level, x, filters, Measure::Squares, geometry, stride);
    let voxels = geometry.strided(stride).voxels();
    let statistics = moments.map(|moments| moments.statistics(voxels));
    let channels = filters.channels_out;
    let mut factors = Vec::with_capacity(3 * channels);
    let mut summand = vec![0.0; channels];
    for (branch, statistics) in statistics.iter().enumerate() {
        let [gamma, beta] = [gamma, beta].map(|table| &table[branch * channels..][..channels]);
        let (factor, of_branch) = statistics.affine(gamma, beta, epsilon);
        factors.extend(factor);
        add_to(&mut summand, &of_branch);
    }
    (weighted_sum(level, values, &factors, &summand), statistics)
}

/// Voxels of one task of a pass over all.
const VOXELS_PER_TASK: usize = 2048;

/// Per channel, `Σ factor · branch + summand`, in the memory of the first branch.
fn weighted_sum(level: Level, branches: Branches, factors: &[f32], summand: &[f32]) -> Vec<f32> {
    let [mut out, second, third] = branches;
    let len = (VOXELS_PER_TASK * summand.len()).max(1);
    out.par_chunks_mut(len)
        .zip(second.par_chunks(len).zip(third.par_chunks(len)))
        .for_each(|(first, (second, third))| {
            level.run(WeightedSum {
                first,
                others: [second, third],
                factors,
                summand,
            });
        });
    out
}

/// Per channel, `first = Σ factor · branch + summand` for some voxels.
struct WeightedSum<'a> {
    first: &'a mut [f32],
    others: [&'a [f32]; 2],
    /// `[3, channels]`
    factors: &'a [f32],
    summand: &'a [f32],
}

impl Kernel for WeightedSum<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let channels = self.summand.len();
        let [second, third] = self.others.map(|values| values.chunks_exact(channels));
        let voxels = self.first.chunks_exact_mut(channels).zip(second.zip(third));
        for (first, (second, third)) in voxels {
            let mut channel = 0;
            while channel < channels {
                let here = channel..(channel + S::LANES).min(channels);
                let mut sum = simd.load_partial(&self.summand[here.clone()]);
                for (branch, values) in [&*first, second, third].into_iter().enumerate() {
                    let factor = &self.factors[branch * channels..][here.clone()];
                    let value = simd.load_partial(&values[here.clone()]);
                    sum = simd.mul_add(simd.load_partial(factor), value, sum);
                }
                simd.store_partial(sum, &mut first[here]);
                channel += S::LANES;
            }
        }
    }
}

/// Gradients of [`norm`]'s operands but the input, and what that of the input is made of.
#[derive(Debug)]
pub(crate) struct Gradients {
    /// Of the branches before their norms.
    pub(crate) branches: Branches,
    pub(crate) weight: Vec<f32>,
    pub(crate) gamma: Vec<f32>,
    pub(crate) beta: Vec<f32>,
}

/// Gradients of [`norm`]; that of the input by [`input_gradient`], once `gradient` can be dropped.
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
    stride: usize,
) -> Gradients {
    let voxels = geometry.strided(stride).voxels();
    assert_eq!(gradient.len(), voxels * filters.channels_out);
    let measure = Measure::Products(gradient);
    let (mut branches, moments) = branches(level, x, filters, measure, geometry, stride);
    let through = [0, 1, 2].map(|branch| {
        let gamma = &gamma[branch * filters.channels_out..][..filters.channels_out];
        let Moments { sum, squares } = &moments[branch];
        NormBackward::new(&statistics[branch], gamma, epsilon, voxels, sum, squares)
    });
    let backward = WeightGradient {
        level,
        x,
        gradient,
        through: &through,
        filters,
        geometry,
        stride,
    };
    let weight = backward.run(&mut branches);
    let beta = moments
        .iter()
        .flat_map(|moments| moments.sum.iter().map(|sum| *sum as f32));
    Gradients {
        weight,
        beta: beta.collect(),
        gamma: through.into_iter().flat_map(|norm| norm.gamma).collect(),
        branches,
    }
}

/// The gradient of [`norm`]'s input from those of the branches.
pub(crate) fn input_gradient(
    level: Level,
    branches: &Branches,
    filters: Filters<'_>,
    geometry: Geometry,
    stride: usize,
) -> Vec<f32> {
    let out_geometry = geometry.strided(stride).with_channels(filters.channels_out);
    if stride == 1 {
        let convs =
            [0, 1, 2].map(|branch| TileConv::branch(level, filters, branch, true, out_geometry, 1));
        let terms: Vec<(&TileConv, &[f32])> = convs
            .iter()
            .zip(branches.iter().map(Vec::as_slice))
            .collect();
        return sum(level, &terms, Store::Plain);
    }
    let mut out = zeros(geometry.len());
    for (branch, gradient) in branches.iter().enumerate() {
        add_strided_input_gradient(gradient, filters, branch, geometry, stride, &mut out);
    }
    out
}

/// The gradient of the filters. On the way, the values of the branches become their gradients.
struct WeightGradient<'a> {
    level: Level,
    x: &'a [f32],
    /// Of the normalised sum.
    gradient: &'a [f32],
    through: &'a [NormBackward; 3],
    filters: Filters<'a>,
    /// Of the input.
    geometry: Geometry,
    stride: usize,
}

impl WeightGradient<'_> {
    /// `[3, taps, channels_in, channels_out]`
    fn run(&self, branches: &mut Branches) -> Vec<f32> {
        let out_geometry = self.out_geometry();
        let step = rows_per_partial(out_geometry.rows());
        let len = (step * out_geometry.row_len()).max(1);
        let [first, second, third] = branches.each_mut().map(|values| values.par_chunks_mut(len));
        let partials: Vec<Vec<f32>> = first
            .zip(second.zip(third))
            .enumerate()
            .map(|(partial, (first, (second, third)))| {
                self.partial(partial * step, [first, second, third])
            })
            .collect();
        let mut total = sum_in_order(partials);
        total.resize(self.filters.weight.len(), 0.0);
        total
    }

    fn out_geometry(&self) -> Geometry {
        self.geometry
            .strided(self.stride)
            .with_channels(self.filters.channels_out)
    }

    /// Of some rows from `first_row` on.
    fn partial(&self, first_row: usize, branches: [&mut [f32]; 3]) -> Vec<f32> {
        let out_geometry = self.out_geometry();
        let row_len = out_geometry.row_len();
        let mut sums = vec![0.0; self.filters.weight.len()];
        let (mut packed, mut border) = (Panels::default(), Vec::new());
        let [first, second, third] = branches.map(|values| values.chunks_exact_mut(row_len));
        for (row, (first, (second, third))) in (first_row..).zip(first.zip(second.zip(third))) {
            let gradient = &self.gradient[row * row_len..][..row_len];
            for (branch, values) in [first, second, third].into_iter().enumerate() {
                self.level.run(GradientRow {
                    values,
                    gradient,
                    through: &self.through[branch],
                });
                let [_, _, width] = out_geometry.size;
                let panels = packed.over(self.level, values, width, out_geometry.channels);
                let at = out_geometry.row(row);
                self.add_row(branch, at, panels, &mut sums, &mut border);
            }
        }
        sums
    }

    /// The products of a row of a branch with what it read.
    fn add_row(
        &self,
        branch: usize,
        row: RowAt,
        panels: PanelView<'_>,
        sums: &mut [f32],
        border: &mut Vec<f32>,
    ) {
        let len = sums.len() / 3;
        let sums = &mut sums[branch * len..][..len];
        if self.geometry.channels == 1 {
            self.add_taps(branch, row, panels, sums, border);
            return;
        }
        let len = len / self.filters.taps;
        for (tap, sums) in sums.chunks_exact_mut(len).enumerate() {
            let shift = self.filters.shift(branch, tap);
            let [z, y] = [row.z, row.y].map(|position| (position * self.stride) as isize);
            let at = [z + shift[0], y + shift[1]];
            if let Some(line) = self.geometry.line(self.x, row.volume, at) {
                self.add_tap(line, shift[2], panels, sums);
            }
        }
    }

    /// One tap: the channels of its voxels are the rows of the product.
    fn add_tap(&self, line: &[f32], shift: isize, panels: PanelView<'_>, sums: &mut [f32]) {
        let (channels, width) = (self.geometry.channels, self.geometry.size[2] as isize);
        // Output voxels whose input voxel is inside the row.
        let stride = self.stride as isize;
        let from = (-shift).max(0).div_ceil_signed(stride);
        let to = (width - shift)
            .max(0)
            .div_ceil_signed(stride)
            .min(width.div_ceil_signed(stride));
        if from >= to {
            return;
        }
        let first = (from * stride + shift) as usize * channels;
        self.level.run(OuterProduct {
            inputs: Broadcast {
                values: &line[first..],
                row_stride: 1,
                step_stride: self.stride * channels,
            },
            rows: channels,
            steps: from as usize..to as usize,
            panels,
            sums,
        });
    }

    /// With one channel, the taps are the rows of the product.
    fn add_taps(
        &self,
        branch: usize,
        row: RowAt,
        panels: PanelView<'_>,
        sums: &mut [f32],
        border: &mut Vec<f32>,
    ) {
        let Self {
            geometry, stride, ..
        } = *self;
        let (taps, radius) = (self.filters.taps, self.filters.taps / 2);
        let mut at = [row.z * stride, row.y * stride];
        // The first tap inside, and the values that each reads.
        let (first, rows, values, row_stride) = if branch < 2 {
            let (position, size) = (at[branch], geometry.size[branch]);
            let first = radius.saturating_sub(position);
            let last = taps.min(size + radius - position);
            at[branch] = position + first - radius;
            let [z, y] = at;
            let values = &self.x[geometry.start(RowAt { z, y, ..row })..];
            (first, last - first, values, geometry.strides()[branch])
        } else {
            let [z, y] = at;
            let line = &self.x[geometry.start(RowAt { z, y, ..row })..][..geometry.row_len()];
            border.clear();
            border.resize(line.len() + 2 * radius, 0.0);
            border[radius..][..line.len()].copy_from_slice(line);
            (0, taps, &border[..], 1)
        };
        self.level.run(OuterProduct {
            inputs: Broadcast {
                values,
                row_stride,
                step_stride: stride,
            },
            rows,
            steps: 0..geometry.size[2].div_ceil(stride),
            panels,
            sums: &mut sums[first * panels.columns()..],
        });
    }
}

/// A row of a branch becomes its gradient: per channel, `values = a · gradient + b · values + c`.
struct GradientRow<'a> {
    values: &'a mut [f32],
    /// Of the normalised sum.
    gradient: &'a [f32],
    through: &'a NormBackward,
}

impl Kernel for GradientRow<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let NormBackward { a, b, c, .. } = self.through;
        let channels = a.len();
        let voxels = self.values.chunks_exact_mut(channels);
        for (values, gradient) in voxels.zip(self.gradient.chunks_exact(channels)) {
            let mut channel = 0;
            while channel < channels {
                let here = channel..(channel + S::LANES).min(channels);
                let (a, b) = (
                    simd.load_partial(&a[here.clone()]),
                    simd.load_partial(&b[here.clone()]),
                );
                let c = simd.load_partial(&c[here.clone()]);
                let old = simd.mul_add(b, simd.load_partial(&values[here.clone()]), c);
                let gradient = simd.load_partial(&gradient[here.clone()]);
                simd.store_partial(simd.mul_add(a, gradient, old), &mut values[here]);
                channel += S::LANES;
            }
        }
    }
}

/// `sums[row][o] += Σ_step inputs(row, step) · gradient[step][o]` for some steps of one row of output.
struct OuterProduct<'a> {
    /// Its first step is the first of `steps`.
    inputs: Broadcast<'a>,
    rows: usize,
    steps: Range<usize>,
    /// The gradient, all steps.
    panels: PanelView<'a>,
    /// `[rows, columns of the panels]`, or more rows
    sums: &'a mut [f32],
}

impl Kernel for OuterProduct<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        for (columns, panel) in self.panels.iter() {
            let panel = &panel[self.steps.start * 2 * S::LANES..];
            let mut row = 0;
            while row < self.rows {
                let inputs = self.inputs.from(row, 0);
                let target = Target {
                    out: &mut *self.sums,
                    row,
                    stride: self.panels.columns(),
                    columns: columns.clone(),
                };
                row += with_tile_rows!(S, self.rows - row, |ROWS| add_product::<S, ROWS>(
                    simd,
                    inputs,
                    panel,
                    self.steps.len(),
                    target
                ));
            }
        }
    }
}

#[inline(always)]
fn add_product<S: Simd, const ROWS: usize>(
    simd: S,
    broadcast: Broadcast<'_>,
    panel: &[f32],
    steps: usize,
    target: Target<'_>,
) -> usize {
    let mut sums = [[simd.splat(0.0); 2]; ROWS];
    multiply_tile(simd, &mut sums, broadcast, panel, steps);
    store_tile(simd, &sums, target, Store::Add);
    ROWS
}

/// Division rounded up for a non-negative numerator; `isize::div_ceil` is not stable.
trait DivCeilSigned {
    fn div_ceil_signed(self, divisor: isize) -> isize;
}

impl DivCeilSigned for isize {
    #[inline(always)]
    fn div_ceil_signed(self, divisor: isize) -> isize {
        (self + divisor - 1) / divisor
    }
}

/// Gradient of the input through a strided branch, plainly: wanted for saliency maps and tests only, never in training.
fn add_strided_input_gradient(
    gradient: &[f32],
    filters: Filters<'_>,
    branch: usize,
    geometry: Geometry,
    stride: usize,
    out: &mut [f32],
) {
    let out_geometry = geometry.strided(stride).with_channels(filters.channels_out);
    let channels = filters.channels_out;
    if geometry.row_len() == 0 {
        return;
    }
    out.par_chunks_mut(geometry.row_len())
        .enumerate()
        .for_each(|(row, out)| {
            let row = geometry.row(row);
            for (position, out) in out.chunks_exact_mut(geometry.channels).enumerate() {
                for tap in 0..filters.taps {
                    let shift = filters.shift(branch, tap);
                    let mut voxel = [0; 3];
                    let reached =
                        [row.z, row.y, position]
                            .into_iter()
                            .enumerate()
                            .all(|(axis, at)| {
                                let Some(at) = at.checked_add_signed(-shift[axis]) else {
                                    return false;
                                };
                                voxel[axis] = at / stride;
                                at % stride == 0 && voxel[axis] < out_geometry.size[axis]
                            });
                    if !reached {
                        continue;
                    }
                    let start = out_geometry.start(RowAt {
                        volume: row.volume,
                        z: voxel[0],
                        y: voxel[1],
                    });
                    let gradient = &gradient[start + voxel[2] * channels..][..channels];
                    for (out, weight) in out
                        .iter_mut()
                        .zip(filters.matrix(branch, tap).chunks_exact(channels))
                    {
                        *out += gradient
                            .iter()
                            .zip(weight)
                            .map(|(gradient, weight)| gradient * weight)
                            .sum::<f32>();
                    }
                }
            }
        });
}
