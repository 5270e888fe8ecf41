//! Dense decomposed convolution on the CPU.
//!
//! A convolution with channels mixed is a matrix product per tap: a tile of output voxels times a panel of output
//! channels stays in registers while taps and input channels stream past ([`multiply_tile`]). Rows of output are the
//! unit of work; a tile that reaches over the end of a row reads a copy filled up with zeros.

use std::ops::Range;

use rayon::prelude::*;

use super::measure::Measure;
use super::stencil::{self, Part, Stencil};
use super::winograd::{self, Lines, Strip, Transformed, WinogradLines};
use crate::depthwise_decomposed::cpu::Gradients;
use crate::geometry::{Geometry, RowAt, rows_per_partial};
use crate::matmul::{
    Broadcast, Panels, Store, Target, multiply_tile, store_tile, sum_in_order, with_tile_rows,
};
use crate::memory::zeros;
use crate::simd::{Kernel, LINE, Level, Simd};
use crate::statistics::{Moments, NormBackward, Statistics, add_to};
use crate::tiles::Tile;

/// Filters of the three branches, `[3, taps, channels_in, channels_out]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Filters<'a> {
    pub(crate) weight: &'a [f32],
    pub(crate) taps: usize,
    pub(crate) channels_in: usize,
    pub(crate) channels_out: usize,
}

impl<'a> Filters<'a> {
    /// What a tap of a branch reads, relative to the output voxel, along depth, height, width.
    pub(crate) fn shift(self, branch: usize, tap: usize) -> [isize; 3] {
        let mut shift = [0; 3];
        shift[branch] = tap as isize - (self.taps / 2) as isize;
        shift
    }

    fn channels(self) -> [usize; 2] {
        [self.channels_in, self.channels_out]
    }

    /// `[taps, channels_in, channels_out]` of one branch.
    pub(crate) fn branch(self, branch: usize) -> &'a [f32] {
        let len = self.weight.len() / 3;
        &self.weight[branch * len..][..len]
    }

    /// `[channels_in, channels_out]` of one tap.
    pub(crate) fn matrix(self, branch: usize, tap: usize) -> &'a [f32] {
        let len = self.channels_in * self.channels_out;
        &self.weight[(branch * self.taps + tap) * len..][..len]
    }
}

/// Neighbours that lie side by side along the width, and the matrix that they are multiplied with.
#[derive(Debug)]
struct Tap {
    /// Of the first, along depth, height, width.
    shift: [isize; 3],
    voxels: usize,
    /// `[voxels * channels_in, channels_out]`
    panels: Panels,
}

impl Tap {
    /// What it reads for the output voxels of a row, given the input row at a depth and height (`None` outside).
    fn source<'a>(
        &'a self,
        row: [usize; 2],
        stride: usize,
        line: &impl Fn(isize, isize) -> Option<&'a [f32]>,
    ) -> Option<Source<'a>> {
        let [z, y] = row.map(|position| (position * stride) as isize);
        Some(Source {
            line: line(z + self.shift[0], y + self.shift[1])?,
            shift: self.shift[2],
            voxels: self.voxels,
            panels: &self.panels,
        })
    }
}

/// The matrices of one branch in the order of the voxels that they read, `[taps, steps, columns]`, and the last two. For the
/// gradient of the input, `flipped`, they are transposed and in reverse.
fn branch_matrices(filters: Filters<'_>, branch: usize, flipped: bool) -> (Vec<f32>, [usize; 2]) {
    let Filters {
        taps,
        channels_in,
        channels_out,
        ..
    } = filters;
    if !flipped {
        return (filters.branch(branch).to_vec(), [channels_in, channels_out]);
    }
    let matrices = (0..taps)
        .rev()
        .flat_map(|tap| transposed(filters.matrix(branch, tap), channels_in, channels_out))
        .collect();
    (matrices, [channels_out, channels_in])
}

/// The taps of one branch. Along the width they are one: neighbours in memory.
fn branch_taps(level: Level, filters: Filters<'_>, branch: usize, flipped: bool) -> Vec<Tap> {
    let (matrices, [steps, columns]) = branch_matrices(filters, branch, flipped);
    let voxels = if branch == 2 { filters.taps } else { 1 };
    matrices
        .chunks_exact((voxels * steps * columns).max(1))
        .enumerate()
        .map(|(tap, matrix)| Tap {
            shift: filters.shift(branch, tap),
            voxels,
            panels: Panels::of(level, matrix, voxels * steps, columns),
        })
        .collect()
}

fn transposed(matrix: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    (0..columns)
        .flat_map(|column| (0..rows).map(move |row| matrix[row * columns + column]))
        .collect()
}

/// The filters with the three centre taps, which read the same voxel, added in the third branch; the others' are zero.
fn merge_centres(filters: Filters<'_>) -> Vec<f32> {
    let centre = filters.taps / 2;
    let len = filters.channels_in * filters.channels_out;
    let mut weight = filters.weight.to_vec();
    for branch in [0, 1] {
        let place = |branch: usize| (branch * filters.taps + centre) * len;
        weight[place(branch)..][..len].fill(0.0);
        add_to(
            &mut weight[place(2)..][..len],
            filters.matrix(branch, centre),
        );
    }
    weight
}

/// The taps of some branches of filters with [merged](merge_centres) centres, of all three `3 taps - 2`.
fn merged_taps(level: Level, merged: Filters<'_>, branches: Range<usize>) -> Vec<Tap> {
    let of_branch = |branch| {
        let taps = branch_taps(level, merged, branch, false);
        taps.into_iter()
            .filter(move |tap| branch == 2 || tap.shift != [0; 3])
    };
    branches.flat_map(of_branch).collect()
}

/// A convolution of stride 1 in inference, for rows in the middle of a pipeline.
#[derive(Debug)]
pub(crate) struct RowConv<'a> {
    pub(crate) channels_in: usize,
    pub(crate) channels_out: usize,
    /// Planes before and after its own that a row reads.
    pub(crate) radius: usize,
    bias: &'a [f32],
    /// Taps that are multiplied as they are.
    taps: Vec<Tap>,
    /// The branches along height and width where those pay, with the centres of all.
    transformed: Option<[Transformed; 2]>,
}

/// Room that a thread uses again.
#[derive(Debug, Default)]
pub(crate) struct RowScratch {
    border: Vec<f32>,
    tile: Vec<f32>,
}

impl<'a> RowConv<'a> {
    pub(crate) fn new(
        level: Level,
        filters: Filters<'_>,
        bias: &'a [f32],
        [_, height, width]: [usize; 3],
    ) -> Self {
        let merged = merge_centres(filters);
        let merged = Filters {
            weight: &merged,
            ..filters
        };
        let pays = |size| winograd::pays(size, filters.taps, filters.channels());
        let transformed = (pays(height) && pays(width)).then(|| {
            [1, 2].map(|branch| {
                let (matrices, sizes) = branch_matrices(merged, branch, false);
                Transformed::new(level, &matrices, sizes)
            })
        });
        let direct = if transformed.is_some() { 0..1 } else { 0..3 };
        Self {
            channels_in: filters.channels_in,
            channels_out: filters.channels_out,
            radius: filters.taps / 2,
            bias,
            taps: merged_taps(level, merged, direct),
            transformed,
        }
    }

    /// Neighbouring rows from `y` on of plane `z`; `line` gives the rows of the input, `None` outside.
    pub(crate) fn rows<'b>(
        &'b self,
        level: Level,
        [z, y]: [usize; 2],
        line: impl Fn(isize, isize) -> Option<&'b [f32]>,
        out: &mut [&mut [f32]],
        scratch: &mut RowScratch,
    ) {
        let mut store = Store::Biased(self.bias);
        if let Some([height, width]) = &self.transformed {
            let (plane, first) = (z as isize, y as isize);
            let strip = Strip {
                lines: std::array::from_fn(|input| line(plane, first + input as isize - 1)),
                first: 0,
                count: out.len(),
            };
            let across = Lines::Across {
                strips: vec![strip],
                stride: 1,
            };
            let along = (0..out.len()).filter_map(|row| line(plane, first + row as isize));
            let along = Lines::Along(along.collect());
            for (weights, lines) in [(height, &across), (width, &along)] {
                level.run(WinogradLines {
                    weights,
                    channels_in: self.channels_in,
                    width: out[0].len() / self.channels_out,
                    lines,
                    out,
                    scratch: &mut scratch.tile,
                    store,
                });
                store = Store::Add;
            }
        }
        for (y, out) in (y..).zip(out) {
            let row = SourceRow {
                at: [z, y],
                stride: 1,
                channels_in: self.channels_in,
                channels_out: self.channels_out,
            };
            row.convolve(level, &self.taps, &line, out, &mut scratch.border, store);
        }
    }
}

/// See [`dense_decomposed_conv`](super::dense_decomposed_conv); `geometry` is the input's.
pub(crate) fn conv(
    level: Level,
    x: &[f32],
    filters: Filters<'_>,
    bias: &[f32],
    geometry: Geometry,
    stride: usize,
) -> Vec<f32> {
    let out = geometry.strided(stride).with_channels(filters.channels_out);
    let mut values = zeros(out.len());
    if geometry.channels == 1 {
        let parts = [Part::decomposed(filters, bias)];
        let stencil = Stencil::new(level, &parts, filters.channels_out, geometry, stride);
        stencil::convolve(level, x, &stencil, geometry, &mut values, Measure::Nothing);
        return values;
    }
    let store = Store::Biased(bias);
    let pays = |axis: usize| winograd::pays(geometry.size[axis], filters.taps, filters.channels());
    if stride == 1 && (0..3).all(pays) {
        for (branch, store) in (0..3).zip([store, Store::Add, Store::Add]) {
            convolve_branch(
                level,
                x,
                filters,
                branch,
                false,
                geometry,
                1,
                &mut values,
                store,
                Measure::Nothing,
            );
        }
    } else {
        let merged = merge_centres(filters);
        let merged = Filters {
            weight: &merged,
            ..filters
        };
        let taps = merged_taps(level, merged, 0..3);
        convolve(
            level,
            x,
            &taps,
            geometry,
            stride,
            &mut values,
            store,
            Measure::Nothing,
        );
    }
    values
}

/// `out (+)= one branch of x`, or with `flipped` the gradient of the branch's input from that of its output, `x`.
#[allow(
    clippy::too_many_arguments,
    reason = "an operation's operands and its variants"
)]
fn convolve_branch(
    level: Level,
    x: &[f32],
    filters: Filters<'_>,
    branch: usize,
    flipped: bool,
    geometry: Geometry,
    stride: usize,
    out: &mut [f32],
    store: Store<'_>,
    measure: Measure<'_>,
) -> Moments {
    if geometry.channels == 1 && !flipped {
        debug_assert!(matches!(store, Store::Plain));
        let parts = [Part::branch(filters, branch)];
        let stencil = Stencil::new(level, &parts, filters.channels_out, geometry, stride);
        stencil::convolve(level, x, &stencil, geometry, out, measure)
    } else if stride == 1 && winograd::pays(geometry.size[branch], filters.taps, filters.channels())
    {
        let (matrices, sizes) = branch_matrices(filters, branch, flipped);
        let weights = Transformed::new(level, &matrices, sizes);
        winograd::convolve(level, x, &weights, branch, geometry, out, store, measure)
    } else {
        let taps = branch_taps(level, filters, branch, flipped);
        convolve(level, x, &taps, geometry, stride, out, store, measure)
    }
}

/// `out (+)= Σ_tap x shifted by the tap · its matrix`.
#[allow(
    clippy::too_many_arguments,
    reason = "an operation's operands and its variants"
)]
fn convolve(
    level: Level,
    x: &[f32],
    taps: &[Tap],
    geometry: Geometry,
    stride: usize,
    out: &mut [f32],
    store: Store<'_>,
    measure: Measure<'_>,
) -> Moments {
    assert_eq!(x.len(), geometry.len());
    let first = taps.first().expect("a convolution has a tap");
    let out_geometry = geometry
        .strided(stride)
        .with_channels(first.panels.columns());
    assert_eq!(out.len(), out_geometry.len());
    let work = |border: &mut Vec<f32>, tile: Tile, rows: &mut [&mut [f32]]| {
        for (row, out) in tile.rows().zip(rows.iter_mut()) {
            let line = |z, y| geometry.line(x, row.volume, [z, y]);
            let row = SourceRow {
                at: [row.z, row.y],
                stride,
                channels_in: geometry.channels,
                channels_out: out_geometry.channels,
            };
            row.convolve(level, taps, &line, out, border, store);
        }
    };
    measure.of_tiles(level, out, out_geometry, [1, ROWS_PER_TASK], Vec::new, work)
}

/// Rows of one task.
pub(super) const ROWS_PER_TASK: usize = 4;

/// Voxels of an input row that a row of output reads, and the matrix they are multiplied with.
#[derive(Clone, Copy, Debug)]
struct Source<'a> {
    /// `[voxels, channels_in]`
    line: &'a [f32],
    /// Position of the first voxel that output voxel 0 reads.
    shift: isize,
    /// Neighbours that each output voxel reads from here on; `panels` has as many times `channels_in` steps.
    voxels: usize,
    panels: &'a Panels,
}

/// A row of output that reads rows of input.
struct SourceRow {
    /// Depth and height of the output.
    at: [usize; 2],
    stride: usize,
    channels_in: usize,
    channels_out: usize,
}

impl SourceRow {
    /// The sum over the taps that are inside; `line` gives the rows of the input.
    fn convolve<'a>(
        &self,
        level: Level,
        taps: &'a [Tap],
        line: &impl Fn(isize, isize) -> Option<&'a [f32]>,
        out: &mut [f32],
        border: &mut Vec<f32>,
        store: Store<'_>,
    ) {
        let sources: Vec<Source<'_>> = taps
            .iter()
            .filter_map(|tap| tap.source(self.at, self.stride, line))
            .collect();
        level.run(ConvolveRow {
            sources: &sources,
            channels_in: self.channels_in,
            stride: self.stride,
            out,
            channels_out: self.channels_out,
            border,
            store,
        });
    }
}

/// `out[v] = Σ_source Σ_i line[stride * v + shift + i] · matrix[i]` for one row of output.
struct ConvolveRow<'a> {
    sources: &'a [Source<'a>],
    channels_in: usize,
    stride: usize,
    /// `[voxels, channels_out]`
    out: &'a mut [f32],
    channels_out: usize,
    /// Room for what the voxels of a tile read.
    border: &'a mut Vec<f32>,
    store: Store<'a>,
}

impl Kernel for ConvolveRow<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        let voxels = self.out.len() / self.channels_out.max(1);
        for panel in 0..self.channels_out.div_ceil(2 * S::LANES) {
            let mut voxel = 0;
            while voxel < voxels {
                voxel += with_tile_rows!(S, voxels - voxel, |ROWS| self
                    .tile::<S, ROWS>(simd, voxel, panel));
            }
        }
    }
}

impl ConvolveRow<'_> {
    /// Output voxels `first..first + ROWS` of one panel of channels.
    #[inline(always)]
    fn tile<S: Simd, const ROWS: usize>(&mut self, simd: S, first: usize, panel: usize) -> usize {
        let channels = self.channels_in;
        let mut sums = [[simd.splat(0.0); 2]; ROWS];
        for source in self.sources {
            let steps = source.voxels * channels;
            let panel_len = steps * 2 * S::LANES;
            let panel = &source.panels.values()[panel * panel_len..][..panel_len];
            let from = (first * self.stride) as isize + source.shift;
            let reach = (ROWS - 1) * self.stride + source.voxels;
            let values = match usize::try_from(from) {
                Ok(from) if (from + reach) * channels <= source.line.len() => {
                    let values = &source.line[from * channels..];
                    prefetch_tile(simd, values, [ROWS * self.stride, reach], channels);
                    values
                }
                _ => {
                    copy_or_zero(source.line, from, reach, channels, self.border);
                    &self.border[..]
                }
            };
            let broadcast = Broadcast {
                values,
                row_stride: self.stride * channels,
                step_stride: 1,
            };
            multiply_tile(simd, &mut sums, broadcast, panel, steps);
        }
        let columns = panel * 2 * S::LANES..((panel + 1) * 2 * S::LANES).min(self.channels_out);
        let target = Target {
            out: &mut *self.out,
            row: first,
            stride: self.channels_out,
            columns,
        };
        store_tile(simd, &sums, target, self.store);
        ROWS
    }
}

/// Asks for what the next tile will read: `voxels` from `ahead` voxels on. Rows of neighbouring planes come from far, and
/// no hardware follows that many streams.
#[inline(always)]
fn prefetch_tile<S: Simd>(simd: S, values: &[f32], [ahead, voxels]: [usize; 2], channels: usize) {
    let start = values.as_ptr().wrapping_add(ahead * channels);
    for line in 0..(voxels * channels).div_ceil(LINE) {
        simd.prefetch(start.wrapping_add(line * LINE));
    }
}

/// `count` voxels of a row from position `from` on, zeros where it has none.
fn copy_or_zero(line: &[f32], from: isize, count: usize, channels: usize, to: &mut Vec<f32>) {
    to.clear();
    to.resize(count * channels, 0.0);
    let voxels = (line.len() / channels) as isize;
    let first = from.clamp(0, voxels);
    let last = (from + count as isize).clamp(0, voxels);
    if first < last {
        let source = &line[first as usize * channels..last as usize * channels];
        to[(first - from) as usize * channels..][..source.len()].copy_from_slice(source);
    }
}

/// The normalised sum and the statistics of the three branches. One branch at a time: convolve, measure, add.
pub(crate) fn norm(
    level: Level,
    x: &[f32],
    filters: Filters<'_>,
    [gamma, beta]: [&[f32]; 2],
    epsilon: f64,
    geometry: Geometry,
    stride: usize,
) -> (Vec<f32>, [Statistics; 3]) {
    let out_geometry = geometry.strided(stride).with_channels(filters.channels_out);
    let channels = filters.channels_out;
    let mut out = zeros(out_geometry.len());
    let mut branch_values = zeros(out_geometry.len());
    let statistics = [0, 1, 2].map(|branch| {
        let moments = convolve_branch(
            level,
            x,
            filters,
            branch,
            false,
            geometry,
            stride,
            &mut branch_values,
            Store::Plain,
            Measure::Squares,
        );
        let statistics = moments.statistics(out_geometry.voxels());
        let of_branch = |table: &'_ [f32]| table[branch * channels..][..channels].to_vec();
        let (factor, summand) = statistics.affine(&of_branch(gamma), &of_branch(beta), epsilon);
        affine(
            level,
            &mut out,
            &branch_values,
            [Some(&factor), None, Some(&summand)],
            true,
        );
        statistics
    });
    (out, statistics)
}

/// Gradients of [`norm`]; `needs_x` says whether the input's is wanted (the first layer's never is).
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
    needs_x: bool,
) -> Gradients {
    let out_geometry = geometry.strided(stride).with_channels(filters.channels_out);
    assert_eq!(gradient.len(), out_geometry.len());
    let channels = filters.channels_out;
    let mut out = Gradients {
        x: if needs_x {
            zeros(geometry.len())
        } else {
            Vec::new()
        },
        weight: Vec::with_capacity(filters.weight.len()),
        gamma: Vec::with_capacity(3 * channels),
        beta: Vec::with_capacity(3 * channels),
    };
    let mut branch_values = zeros(out_geometry.len());
    for (branch, statistics) in statistics.iter().enumerate() {
        let Moments {
            sum: gradient_sum,
            squares: products,
        } = convolve_branch(
            level,
            x,
            filters,
            branch,
            false,
            geometry,
            stride,
            &mut branch_values,
            Store::Plain,
            Measure::Products(gradient),
        );
        let gamma = &gamma[branch * channels..][..channels];
        let through = NormBackward::new(
            statistics,
            gamma,
            epsilon,
            out_geometry.voxels(),
            &gradient_sum,
            &products,
        );
        // From here on the buffer holds the gradient of the branch.
        affine(
            level,
            &mut branch_values,
            gradient,
            [Some(&through.a), Some(&through.b), Some(&through.c)],
            false,
        );
        out.gamma.extend_from_slice(&through.gamma);
        out.beta.extend(gradient_sum.iter().map(|sum| *sum as f32));
        out.weight.extend(weight_gradient(
            level,
            x,
            &branch_values,
            filters,
            branch,
            geometry,
            stride,
        ));
        if needs_x && stride == 1 {
            convolve_branch(
                level,
                &branch_values,
                filters,
                branch,
                true,
                out_geometry,
                1,
                &mut out.x,
                Store::Add,
                Measure::Nothing,
            );
        } else if needs_x {
            add_strided_input_gradient(
                &branch_values,
                filters,
                branch,
                geometry,
                stride,
                &mut out.x,
            );
        }
    }
    out
}

/// Per channel, `target = a * source + b * target + c` (absent `b` is 0), plus `target` once more if `add`.
fn affine(
    level: Level,
    target: &mut [f32],
    source: &[f32],
    [a, b, c]: [Option<&[f32]>; 3],
    add: bool,
) {
    struct Affine<'a> {
        target: &'a mut [f32],
        source: &'a [f32],
        table: &'a [Vec<f32>; 3],
    }
    impl Kernel for Affine<'_> {
        type Output = ();
        #[inline(always)]
        fn run<S: Simd>(self, simd: S) {
            let [a, b, c] = self.table;
            let channels = a.len();
            for (target, source) in self
                .target
                .chunks_exact_mut(channels)
                .zip(self.source.chunks_exact(channels))
            {
                let mut channel = 0;
                while channel < channels {
                    let here = channel..(channel + S::LANES).min(channels);
                    let old = simd.mul(
                        simd.load_partial(&b[here.clone()]),
                        simd.load_partial(&target[here.clone()]),
                    );
                    let old = simd.add(old, simd.load_partial(&c[here.clone()]));
                    let a = simd.load_partial(&a[here.clone()]);
                    let new = simd.mul_add(a, simd.load_partial(&source[here.clone()]), old);
                    simd.store_partial(new, &mut target[here]);
                    channel += S::LANES;
                }
            }
        }
    }
    /// Voxels of one task.
    const VOXELS: usize = 2048;
    let channels = a.or(c).map_or(0, <[f32]>::len);
    if channels == 0 {
        return;
    }
    let column = |table: Option<&[f32]>, offset: f32| match table {
        Some(table) => table.iter().map(|value| value + offset).collect(),
        None => vec![offset; channels],
    };
    let table = [
        column(a, 0.0),
        column(b, if add { 1.0 } else { 0.0 }),
        column(c, 0.0),
    ];
    target
        .par_chunks_mut(VOXELS * channels)
        .zip(source.par_chunks(VOXELS * channels))
        .for_each(|(target, source)| {
            level.run(Affine {
                target,
                source,
                table: &table,
            });
        });
}

/// `[taps, channels_in, channels_out]` of one branch.
fn weight_gradient(
    level: Level,
    x: &[f32],
    gradient: &[f32],
    filters: Filters<'_>,
    branch: usize,
    geometry: Geometry,
    stride: usize,
) -> Vec<f32> {
    let out_geometry = geometry.strided(stride).with_channels(filters.channels_out);
    let rows = out_geometry.rows();
    let step = rows_per_partial(rows);
    let len = filters.taps * filters.channels_in * filters.channels_out;
    let partials: Vec<Vec<f32>> = (0..rows.div_ceil(step))
        .into_par_iter()
        .map(|partial| {
            let mut sums = vec![0.0; len];
            let mut panels = Panels::default();
            for row in partial * step..((partial + 1) * step).min(rows) {
                let line = &gradient[row * out_geometry.row_len()..][..out_geometry.row_len()];
                panels.refill(level, line, out_geometry.size[2], filters.channels_out);
                let row = out_geometry.row(row);
                for tap in 0..filters.taps {
                    let shift = filters.shift(branch, tap);
                    let [z, y] = [row.z, row.y].map(|position| (position * stride) as isize);
                    let at = [z + shift[0], y + shift[1]];
                    let Some(line) = geometry.line(x, row.volume, at) else {
                        continue;
                    };
                    let sums = &mut sums[tap * len / filters.taps..][..len / filters.taps];
                    level.run(OuterProductRow {
                        line,
                        panels: &panels,
                        sums,
                        shift: shift[2],
                        geometry,
                        stride,
                    });
                }
            }
            sums
        })
        .collect();
    let mut total = sum_in_order(partials);
    total.resize(len, 0.0);
    total
}

/// `sums[i][o] += Σ_voxel line[stride * voxel + shift][i] · gradient[voxel][o]` for one row.
struct OuterProductRow<'a> {
    line: &'a [f32],
    panels: &'a Panels,
    sums: &'a mut [f32],
    shift: isize,
    geometry: Geometry,
    stride: usize,
}

impl Kernel for OuterProductRow<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self {
            line,
            panels,
            sums,
            shift,
            geometry,
            stride,
        } = self;
        let (channels, width) = (geometry.channels, geometry.size[2] as isize);
        // Output voxels whose input voxel is inside the row.
        let stride_signed = stride as isize;
        let from = (-shift).max(0).div_ceil_signed(stride_signed);
        let to = (width - shift)
            .max(0)
            .div_ceil_signed(stride_signed)
            .min(width.div_ceil_signed(stride_signed));
        if from >= to {
            return;
        }
        let (from, steps) = (from as usize, (to - from) as usize);
        let first = ((from * stride) as isize + shift) as usize * channels;
        for (columns, panel) in panels.iter() {
            let panel = &panel[from * 2 * S::LANES..];
            let mut channel = 0;
            while channel < channels {
                let broadcast = Broadcast {
                    values: &line[first + channel..],
                    row_stride: 1,
                    step_stride: stride * channels,
                };
                let target = Target {
                    out: &mut *sums,
                    row: channel,
                    stride: panels.columns(),
                    columns: columns.clone(),
                };
                channel += with_tile_rows!(S, channels - channel, |ROWS| add_product::<S, ROWS>(
                    simd, broadcast, panel, steps, target
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
