//! Dense decomposed convolution on the CPU.
//!
//! A convolution with channels mixed is a matrix product per tap: a tile of output voxels times a panel of output
//! channels stays in registers while taps and input channels stream past ([`multiply_tile`]). Rows of output are the
//! unit of work; a tile that reaches over the end of a row reads a copy filled up with zeros.

use std::ops::Range;

use super::pairs::{self, PairedRows, Plane, SideTaps};
use super::stencil::{Part, Stencil, StencilRow};
use super::winograd::{self, Transformed};
use crate::geometry::Geometry;
use crate::matmul::{Broadcast, Panels, Store, Target, multiply_tile, store_tile, with_tile_rows};
use crate::simd::{Kernel, LINE, Level, Simd};
use crate::statistics::add_to;
use crate::tiles::{Tile, map_tiles, side};

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
    way: RowWay,
}

#[derive(Debug)]
enum RowWay {
    /// Taps as they are.
    Taps(Vec<Tap>),
    /// Fewer products along every axis: the width's have the centres of all.
    Transformed {
        width: Box<Transformed>,
        sides: Box<SideTaps>,
    },
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
        let branch = |branch| branch_matrices(merged, branch, false);
        let way = if pays(height) && pays(width) {
            let (matrices, sizes) = branch(2);
            RowWay::Transformed {
                width: Box::new(Transformed::new(level, &matrices, sizes)),
                sides: Box::new(SideTaps::new(level, [&branch(1).0, &branch(0).0], sizes)),
            }
        } else {
            RowWay::Taps(merged_taps(level, merged, 0..3))
        };
        Self {
            channels_in: filters.channels_in,
            channels_out: filters.channels_out,
            radius: filters.taps / 2,
            bias,
            way,
        }
    }

    /// How many planes further on is the one to which [`rows`](Self::rows) of plane `z` writes as well.
    pub(crate) fn plane_ahead(&self, z: usize) -> Option<usize> {
        let pairs = matches!(self.way, RowWay::Transformed { .. });
        (pairs && pairs::is_first(z)).then_some(pairs::DISTANCE)
    }

    /// Neighbouring rows from `y` on of plane `z`, at most [`pairs::ROWS`]; `line` gives the rows of the input, `None` outside.
    /// `ahead`: the same rows of the [plane ahead](Self::plane_ahead), if the volume has it.
    pub(crate) fn rows<'b>(
        &'b self,
        level: Level,
        [z, y]: [usize; 2],
        line: impl Fn(isize, isize) -> Option<&'b [f32]>,
        [out, ahead]: [&mut [&mut [f32]]; 2],
        scratch: &mut Vec<f32>,
    ) {
        let near = |[dz, dy]: [isize; 2]| line(z as isize + dz, y as isize + dy);
        match &self.way {
            RowWay::Transformed { width, sides } => {
                let (first, channels) = (pairs::is_first(z), self.channels_in);
                let (store, plane) = if first {
                    let second = (!ahead.is_empty()).then_some(ahead);
                    let bias = self.bias;
                    (Store::Biased(bias), Plane::First { second, bias })
                } else {
                    (Store::Add, Plane::Second)
                };
                width.tile(
                    level,
                    2,
                    [1, out.len()],
                    &near,
                    channels,
                    out,
                    scratch,
                    store,
                );
                level.run(PairedRows {
                    taps: sides,
                    channels_in: channels,
                    near: std::array::from_fn(|row| near([0, row as isize - 1])),
                    beside: [-1, 1].map(|dz| std::array::from_fn(|row| near([dz, row as isize]))),
                    plane,
                    out,
                    scratch,
                });
            }
            RowWay::Taps(taps) => {
                for (y, out) in (y..).zip(out) {
                    let row = SourceRow {
                        at: [z, y],
                        stride: 1,
                        channels_in: self.channels_in,
                        channels_out: self.channels_out,
                    };
                    let store = Store::Biased(self.bias);
                    row.convolve(level, taps, &line, out, scratch, store);
                }
            }
        }
    }
}

/// A convolution in the way that suits its sizes, computed tile by tile.
#[derive(Debug)]
pub(super) struct TileConv {
    way: Way,
    /// Of the input.
    geometry: Geometry,
    stride: usize,
    channels_out: usize,
}

#[derive(Debug)]
enum Way {
    /// One channel: there is nothing to sum over within a tap.
    Stencil(Stencil),
    /// Three taps along an axis by fewer products.
    Transformed { axis: usize, weights: Transformed },
    /// Taps as they are.
    Taps(Vec<Tap>),
}

impl TileConv {
    /// One branch; with `flipped` from the gradient of its output to that of its input.
    pub(super) fn branch(
        level: Level,
        filters: Filters<'_>,
        branch: usize,
        flipped: bool,
        geometry: Geometry,
        stride: usize,
    ) -> Self {
        let pays = winograd::pays(geometry.size[branch], filters.taps, filters.channels());
        let channels_out = if flipped {
            filters.channels_in
        } else {
            filters.channels_out
        };
        let way = if geometry.channels == 1 && !flipped {
            let parts = [Part::branch(filters, branch)];
            Way::Stencil(Stencil::new(level, &parts, channels_out, geometry, stride))
        } else if stride == 1 && pays {
            let (matrices, sizes) = branch_matrices(filters, branch, flipped);
            Way::Transformed {
                axis: branch,
                weights: Transformed::new(level, &matrices, sizes),
            }
        } else {
            Way::Taps(branch_taps(level, filters, branch, flipped))
        };
        Self {
            way,
            geometry,
            stride,
            channels_out,
        }
    }

    /// Convolutions whose sum is that of the three branches, with the bias.
    fn all(
        level: Level,
        filters: Filters<'_>,
        bias: &[f32],
        geometry: Geometry,
        stride: usize,
    ) -> Vec<Self> {
        let pays =
            |axis: usize| winograd::pays(geometry.size[axis], filters.taps, filters.channels());
        let channels_out = filters.channels_out;
        let way = if geometry.channels == 1 {
            let parts = [Part::decomposed(filters, bias)];
            Way::Stencil(Stencil::new(level, &parts, channels_out, geometry, stride))
        } else if stride == 1 && (0..3).all(pays) {
            return (0..3)
                .map(|branch| Self::branch(level, filters, branch, false, geometry, stride))
                .collect();
        } else {
            let merged = merge_centres(filters);
            let merged = Filters {
                weight: &merged,
                ..filters
            };
            Way::Taps(merged_taps(level, merged, 0..3))
        };
        vec![Self {
            way,
            geometry,
            stride,
            channels_out,
        }]
    }

    /// Of the output.
    pub(super) fn out_geometry(&self) -> Geometry {
        self.geometry
            .strided(self.stride)
            .with_channels(self.channels_out)
    }

    /// The rows of a tile of the output. The bias of a stencil is its own; it replaces what is there.
    pub(super) fn tile(
        &self,
        level: Level,
        x: &[f32],
        tile: Tile,
        out: &mut [&mut [f32]],
        scratch: &mut Vec<f32>,
        store: Store<'_>,
    ) {
        let Self {
            geometry, stride, ..
        } = *self;
        match &self.way {
            Way::Stencil(stencil) => {
                debug_assert!(!matches!(store, Store::Add));
                let volume = geometry.len() / geometry.batch;
                for (row, out) in tile.rows().zip(out) {
                    level.run(StencilRow {
                        x: &x[row.volume * volume..][..volume],
                        stencil,
                        at: [row.z, row.y],
                        out,
                        activate: false,
                    });
                }
            }
            Way::Transformed { axis, weights } => {
                let line = |[z, y]: [isize; 2]| {
                    let at = [tile.at[0] as isize + z, tile.at[1] as isize + y];
                    geometry.line(x, tile.volume, at)
                };
                let channels = geometry.channels;
                weights.tile(
                    level, *axis, tile.size, &line, channels, out, scratch, store,
                );
            }
            Way::Taps(taps) => {
                for (row, out) in tile.rows().zip(out) {
                    let line = |z, y| geometry.line(x, row.volume, [z, y]);
                    let row = SourceRow {
                        at: [row.z, row.y],
                        stride,
                        channels_in: geometry.channels,
                        channels_out: self.channels_out,
                    };
                    row.convolve(level, taps, &line, out, scratch, store);
                }
            }
        }
    }
}

/// The sum of convolutions of one output size, each of its own values.
pub(super) fn sum(level: Level, terms: &[(&TileConv, &[f32])], first: Store<'_>) -> Vec<f32> {
    for (conv, x) in terms {
        assert_eq!(x.len(), conv.geometry.len());
    }
    let geometry = terms[0].0.out_geometry();
    let work = |scratch: &mut Vec<f32>, tile: Tile, [out]: [&mut [&mut [f32]]; 1]| {
        let mut store = first;
        for (conv, x) in terms {
            conv.tile(level, x, tile, out, scratch, store);
            store = Store::Add;
        }
    };
    let ([out], _) = map_tiles(geometry, side(geometry), Vec::new, work);
    out
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
    let convs = TileConv::all(level, filters, bias, geometry, stride);
    let terms: Vec<_> = convs.iter().map(|conv| (conv, x)).collect();
    sum(level, &terms, Store::Biased(bias))
}

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
