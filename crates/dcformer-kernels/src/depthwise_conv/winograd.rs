//! Four outputs along the width by ten products instead of 28: Winograd's F(4, 7).
//!
//! Seven taps and four outputs are polynomials whose product has ten coefficients; it is known from its values at ten points,
//! and there a convolution is a product for each point. Ten inputs are transformed once and meet the transformed taps of
//! all 49 rows of the window, in sums that are transformed back once: at each point, what is left is a convolution along
//! depth and height.
//!
//! Tests hold the difference from plain sums at 2e-5 of the largest value.

use std::ops::Range;

use rayon::prelude::*;

use super::cpu::{Filters, WindowLines};
use super::lines::{Packing, Window};
use super::points::{OUTPUTS, POINTS, TAPS, transform, transform_back, transform_taps};
use crate::geometry::{Geometry, RowAt};
use crate::matmul::Panels;
use crate::memory::fill_chunks;
use crate::simd::{Kernel, Level, Simd};
use crate::tiles::{Tile, map_tiles, side_up_to};

/// Vectors of channels that are computed at a time: their inputs stay in the second cache.
const VECTORS: usize = 4;
/// Planes of outputs that are computed at a time: at each point they read the same inputs in the first cache.
const PLANES: usize = 4;
/// Planes and rows of a tile: around larger ones fewer inputs are transformed twice.
const SIDE: usize = 16;
/// Where tiles would have to be smaller, channels are computed apart instead.
const SMALLEST: usize = 8;

/// Whether the transform pays: it needs vectors of one voxel each, and a row that fills it.
pub(super) fn applies(level: Level, window: Window, geometry: Geometry) -> bool {
    let packing = Packing::new(geometry.channels, Panels::width(level) / 2);
    window.taps[2] == TAPS && packing.is_whole() && geometry.size[2] >= OUTPUTS
}

/// Filters at the ten points, cut into vectors.
#[derive(Clone, Debug)]
struct TransformedFilters<'a> {
    /// `[vectors][points][depth][height][lanes]`
    weight: Vec<f32>,
    /// `[channels]`
    bias: &'a [f32],
    window: Window,
}

impl<'a> TransformedFilters<'a> {
    fn new(level: Level, filters: Filters<'_>, bias: &'a [f32]) -> Self {
        let Filters { weight, window } = filters;
        let (lanes, channels) = (Panels::width(level) / 2, bias.len());
        let packing = Packing::new(channels, lanes);
        assert_eq!(weight.len(), window.len() * channels);
        let rows = window.len() / TAPS;
        let mut out = vec![0.0; packing.vectors() * POINTS * rows * lanes];
        out.par_chunks_mut(POINTS * rows * lanes)
            .enumerate()
            .for_each(|(vector, out)| {
                level.run(TransformFilters {
                    weight,
                    channels,
                    first: packing.first(vector),
                    out,
                });
            });
        Self {
            weight: out,
            bias,
            window,
        }
    }
}

/// The transform of one vector of channels.
struct TransformFilters<'a> {
    /// `[depth][height][width][channels]`
    weight: &'a [f32],
    channels: usize,
    /// First channel of the vector.
    first: usize,
    /// `[points][depth][height][lanes]`
    out: &'a mut [f32],
}

impl Kernel for TransformFilters<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let point_len = self.out.len() / POINTS;
        let rows = self.weight.chunks_exact(TAPS * self.channels);
        for (row, weight) in rows.enumerate() {
            let mut taps = [simd.splat(0.0); TAPS];
            for (tap, weight) in taps.iter_mut().zip(weight.chunks_exact(self.channels)) {
                *tap = simd.load(&weight[self.first..]);
            }
            let values = transform_taps(simd, taps);
            for (point, value) in values.into_iter().enumerate() {
                simd.store(value, &mut self.out[point * point_len + row * S::LANES..]);
            }
        }
    }
}

/// Room that a thread uses again.
#[derive(Debug, Default)]
struct Scratch {
    /// The last planes of inputs, plane `z` at `z` modulo their number:
    /// `[vectors][points][planes kept][rows that the tile reads][lanes]`
    inputs: Vec<f32>,
    /// `[points][planes computed at a time][rows][lanes]`
    sums: Vec<f32>,
}

/// See [`forward`](super::cpu::forward).
pub(super) fn forward(
    level: Level,
    x: &[f32],
    filters: Filters<'_>,
    bias: &[f32],
    geometry: Geometry,
) -> Vec<f32> {
    let filters = TransformedFilters::new(level, filters, bias);
    let side = side_up_to(geometry, SIDE);
    if side.iter().any(|side| *side < SMALLEST) {
        return by_vectors(level, x, &filters, geometry);
    }
    let vectors = Packing::new(geometry.channels, Panels::width(level) / 2).vectors();
    let work = |scratch: &mut Scratch, tile: Tile, [rows]: [&mut [&mut [f32]]; 1]| {
        level.run(TransformTile {
            x,
            filters: &filters,
            geometry,
            tile,
            vectors: 0..vectors,
            scratch,
            out: Outputs {
                rows,
                channels: 0..geometry.channels,
            },
        });
    };
    let ([out], _) = map_tiles(geometry, side, Scratch::default, work);
    out
}

/// [`forward`] of a grid that has few tiles: each vector of channels is computed by itself, so that tiles stay large and
/// threads find work, and their outputs are put together.
fn by_vectors(
    level: Level,
    x: &[f32],
    filters: &TransformedFilters<'_>,
    geometry: Geometry,
) -> Vec<f32> {
    let lanes = Panels::width(level) / 2;
    let packing = Packing::new(geometry.channels, lanes);
    // A volume for each vector and volume.
    let parts_geometry = Geometry {
        batch: packing.vectors() * geometry.batch,
        ..geometry.with_channels(lanes)
    };
    let work = |scratch: &mut Scratch, part: Tile, [rows]: [&mut [&mut [f32]]; 1]| {
        let vector = part.volume / geometry.batch;
        let first = packing.first(vector);
        level.run(TransformTile {
            x,
            filters,
            geometry,
            tile: Tile {
                volume: part.volume % geometry.batch,
                ..part
            },
            vectors: vector..vector + 1,
            scratch,
            out: Outputs {
                rows,
                channels: first..first + lanes,
            },
        });
    };
    let side = side_up_to(parts_geometry, SIDE);
    let ([parts], _) = map_tiles(parts_geometry, side, Scratch::default, work);
    let (len, row_len) = (geometry.len(), geometry.row_len());
    fill_chunks(
        len,
        row_len,
        || (),
        |(), row, out| {
            for vector in 0..packing.vectors() {
                let first = packing.first(vector);
                let part = (vector * len / row_len + row) * geometry.size[2] * lanes;
                let part = parts[part..].chunks_exact(lanes);
                for (voxel, values) in out.chunks_exact_mut(geometry.channels).zip(part) {
                    voxel[first..first + lanes].copy_from_slice(values);
                }
            }
        },
    )
}

/// Rows of outputs that hold some of the channels.
struct Outputs<'a, 'b> {
    rows: &'a mut [&'b mut [f32]],
    channels: Range<usize>,
}

/// The convolution of a tile.
struct TransformTile<'a, 'b> {
    x: &'a [f32],
    filters: &'a TransformedFilters<'a>,
    geometry: Geometry,
    tile: Tile,
    vectors: Range<usize>,
    scratch: &'a mut Scratch,
    /// The rows of the tile, in its order.
    out: Outputs<'a, 'b>,
}

/// Four outputs of every row of the tile: one vector of channels of the voxels from `voxel` on.
#[derive(Clone, Copy)]
struct Column {
    packing: Packing,
    vector: usize,
    /// Among the vectors that are computed at a time.
    place: usize,
    voxel: usize,
}

impl Kernel for TransformTile<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        let packing = Packing::new(self.geometry.channels, S::LANES);
        let (all, rows) = (self.vectors.clone(), self.rows());
        let inputs = VECTORS.min(all.len()) * POINTS * self.kept() * rows * S::LANES;
        self.scratch.inputs.resize(inputs, 0.0);
        let sums = POINTS * PLANES * self.tile.size[1] * S::LANES;
        self.scratch.sums.resize(sums, 0.0);
        for first in all.clone().step_by(VECTORS) {
            let vectors = first..(first + VECTORS).min(all.end);
            for voxel in (0..self.geometry.size[2]).step_by(OUTPUTS) {
                let columns = vectors.clone().enumerate().map(|(place, vector)| Column {
                    packing,
                    vector,
                    place,
                    voxel,
                });
                self.columns(simd, columns);
            }
        }
    }
}

impl TransformTile<'_, '_> {
    /// Rows of a plane of inputs that the tile reads, those outside the grid among them.
    #[inline(always)]
    fn rows(&self) -> usize {
        self.tile.size[1] + self.filters.window.taps[1] - 1
    }

    /// Planes of inputs that are kept: what the planes of outputs computed at a time read.
    #[inline(always)]
    fn kept(&self) -> usize {
        self.filters.window.taps[0] + PLANES - 1
    }

    /// Values of one point of the scratch's inputs.
    #[inline(always)]
    fn point_len<S: Simd>(&self) -> usize {
        self.kept() * self.rows() * S::LANES
    }

    /// Computes columns of the same voxels: every plane is transformed once, and outputs follow as soon as they can.
    #[inline(always)]
    fn columns<S: Simd>(&mut self, simd: S, columns: impl Iterator<Item = Column> + Clone) {
        let (window, depth) = (self.filters.window, self.geometry.size[0]);
        let behind = window.taps[0] - 1 - window.before[0];
        let planes = self.tile.at[0]..self.tile.at[0] + self.tile.size[0];
        let (mut first, mut ready) = (planes.start, planes.start);
        for z in window.reach(0, planes.clone(), depth) {
            for column in columns.clone() {
                self.transform(simd, column, z);
            }
            while ready < planes.end && (ready + behind).min(depth - 1) <= z {
                ready += 1;
            }
            while ready - first >= PLANES || (ready == planes.end && first < ready) {
                let end = ready.min(first + PLANES);
                for column in columns.clone() {
                    self.convolve(simd, column, first..end);
                    self.transform_back(simd, column, first..end);
                }
                first = end;
            }
        }
    }

    /// Fills the scratch's plane `z` of inputs.
    #[inline(always)]
    fn transform<S: Simd>(&mut self, simd: S, column: Column, z: usize) {
        let (rows, point_len) = (self.rows(), self.point_len::<S>());
        let window = self.filters.window;
        let plane = z % self.kept() * rows * S::LANES;
        let inputs = &mut self.scratch.inputs[column.place * POINTS * point_len..];
        for row in 0..rows {
            let y = (self.tile.at[1] + row).wrapping_sub(window.before[1]);
            let values = if y < self.geometry.size[1] {
                let volume = self.tile.volume;
                let start = self.geometry.start(RowAt { volume, z, y });
                let line = &self.x[start..start + self.geometry.row_len()];
                transform(simd, column.load(simd, line, window.before[2]))
            } else {
                [simd.splat(0.0); POINTS]
            };
            let place = plane + row * S::LANES;
            for (point, value) in values.into_iter().enumerate() {
                simd.store(value, &mut inputs[point * point_len + place..]);
            }
        }
    }

    /// Fills the scratch's sums for the outputs of some planes: at each point, the convolution along depth and height.
    #[inline(always)]
    fn convolve<S: Simd>(&mut self, simd: S, column: Column, planes: Range<usize>) {
        let (window, point_len, kept) = (self.filters.window, self.point_len::<S>(), self.kept());
        let [depth, height, _] = window.taps;
        let (line_len, taps_len) = (self.rows() * S::LANES, height * S::LANES);
        let weights_len = depth * taps_len;
        let plane_len = self.tile.size[1] * S::LANES;
        let Scratch { inputs, sums } = &mut *self.scratch;
        let inputs = inputs[column.place * POINTS * point_len..].chunks_exact(point_len);
        let weights = &self.filters.weight[column.vector * POINTS * weights_len..];
        let of_points = inputs.zip(weights.chunks_exact(weights_len));
        for ((inputs, weights), sums) in of_points.zip(sums.chunks_exact_mut(PLANES * plane_len)) {
            for (z, sums) in planes.clone().zip(sums.chunks_exact_mut(plane_len)) {
                sums.fill(0.0);
                let taps = window.inside(0, z, self.geometry.size[0]);
                let mut tap = taps.start;
                // Up to the end of the kept planes, and on from their start.
                while tap < taps.end {
                    let plane = (z + tap - window.before[0]) % kept;
                    let end = taps.end.min(tap + kept - plane);
                    let lines = WindowLines {
                        lines: &inputs[plane * line_len..][..(end - tap) * line_len],
                        line_len,
                        weights: &weights[tap * taps_len..end * taps_len],
                        taps: height,
                    };
                    lines.add(simd, sums, column.packing);
                    tap = end;
                }
            }
        }
    }

    /// Writes the outputs of some planes.
    #[inline(always)]
    fn transform_back<S: Simd>(&mut self, simd: S, column: Column, planes: Range<usize>) {
        let rows = self.tile.size[1];
        let first = column.packing.first(column.vector);
        let bias = simd.load(&self.filters.bias[first..]);
        let Outputs {
            rows: out,
            channels,
        } = &mut self.out;
        let (first, channels) = (first - channels.start, channels.len());
        let out = &mut out[(planes.start - self.tile.at[0]) * rows..][..planes.len() * rows];
        for (row, out) in out.iter_mut().enumerate() {
            let mut sums = [bias; POINTS];
            for (point, sum) in sums.iter_mut().enumerate() {
                *sum = simd.load(&self.scratch.sums[(point * PLANES * rows + row) * S::LANES..]);
            }
            let outputs = transform_back(simd, sums, bias);
            let voxels = out[column.voxel * channels..].chunks_exact_mut(channels);
            for (output, voxel) in outputs.into_iter().zip(voxels) {
                simd.store(output, &mut voxel[first..]);
            }
        }
    }
}

impl Column {
    /// The ten inputs of a line, `[width, channels]`; zeros outside.
    #[inline(always)]
    fn load<S: Simd>(self, simd: S, line: &[f32], before: usize) -> [S::F32; POINTS] {
        let channels = self.packing.channels();
        let first = self.packing.first(self.vector);
        let mut inputs = [simd.splat(0.0); POINTS];
        let start = self.voxel.wrapping_sub(before);
        if start < line.len()
            && let Some(line) = line.get(start * channels..(start + POINTS) * channels)
        {
            for (value, voxel) in inputs.iter_mut().zip(line.chunks_exact(channels)) {
                *value = simd.load(&voxel[first..]);
            }
            return inputs;
        }
        for (input, value) in inputs.iter_mut().enumerate() {
            let voxel = (self.voxel + input).wrapping_sub(before);
            if voxel < line.len() / channels {
                *value = simd.load(&line[voxel * channels + first..]);
            }
        }
        inputs
    }
}
