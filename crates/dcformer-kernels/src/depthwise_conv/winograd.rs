//! Four outputs along the width by ten products instead of 28: Winograd's F(4, 7).
//!
//! Seven taps and four outputs are polynomials whose product has ten coefficients; it is known from its values at ten points,
//! and there a convolution is a product for each point. Ten inputs are transformed once and meet the transformed taps of
//! all 49 rows of the window, in sums that are transformed back once: at each point, what is left is a convolution along
//! depth and height.
//!
//! The points are 0, ±1, ±2, ±1/2, ±3/4 and infinity. Largest difference from plain sums: 4e-6 of the largest value, five
//! times what the order of plain sums makes; points further from 1 or closer to each other lose more.

use rayon::prelude::*;

use super::cpu::{Filters, WindowLines};
use super::lines::{Packing, Window};
use crate::geometry::{Geometry, RowAt};
use crate::matmul::Panels;
use crate::simd::{Kernel, Level, Simd};
use crate::tiles::{Tile, map_tiles, side_up_to};

/// Taps along the width.
const TAPS: usize = 7;
/// Outputs of a transform.
const OUTPUTS: usize = 4;
/// Values of a transform: 0, the pairs, infinity.
const POINTS: usize = TAPS + OUTPUTS - 1;
/// The positive points; each stands for itself and its negative.
const PAIRS: [f32; 4] = [1.0, 2.0, 0.5, 0.75];
/// Planes and rows of a tile: around larger ones fewer inputs are transformed twice.
const SIDE: usize = 8;

/// Coefficients of the product of `y - a²` over all points `a` of [`PAIRS`] but the one at `skip`, the constant's first.
const fn polynomial(skip: usize) -> [f32; 5] {
    let mut coefficients = [0.0; 5];
    coefficients[0] = 1.0;
    let mut pair = 0;
    while pair < PAIRS.len() {
        if pair != skip {
            let root = PAIRS[pair] * PAIRS[pair];
            let mut power = 4;
            while power > 0 {
                coefficients[power] = coefficients[power - 1] - root * coefficients[power];
                power -= 1;
            }
            coefficients[0] *= -root;
        }
        pair += 1;
    }
    coefficients
}

/// Of all pairs, and of all but one.
const ALL: [f32; 5] = polynomial(PAIRS.len());
const OTHERS: [[f32; 5]; 4] = [polynomial(0), polynomial(1), polynomial(2), polynomial(3)];

/// Whether the transform pays: it needs vectors of one voxel each, and a row that fills it.
pub(super) fn applies(level: Level, window: Window, geometry: Geometry) -> bool {
    let packing = Packing::new(geometry.channels, Panels::width(level) / 2);
    window.taps[2] == TAPS && packing.is_whole() && geometry.size[2] >= OUTPUTS
}

/// What interpolation divides the value at a point by, the same for its negative.
const fn divisor(pair: usize) -> f32 {
    let square = PAIRS[pair] * PAIRS[pair];
    let [a, b, c, d, _] = OTHERS[pair];
    2.0 * square * (a + square * (b + square * (c + square * d)))
}

const DIVISORS: [f32; 4] = [divisor(0), divisor(1), divisor(2), divisor(3)];

/// Values at the ten points of the polynomial whose coefficients are a row of taps, divided by what interpolation divides
/// by.
#[inline(always)]
fn transform_taps<S: Simd>(simd: S, taps: [S::F32; TAPS]) -> [S::F32; POINTS] {
    let mut out = [taps[TAPS - 1]; POINTS];
    out[0] = simd.mul(taps[0], simd.splat(1.0 / ALL[0]));
    for (pair, point) in PAIRS.iter().enumerate() {
        let square = simd.splat(point * point);
        let (mut even, mut odd) = (taps[6], taps[5]);
        for power in [4, 2, 0] {
            even = simd.mul_add(even, square, taps[power]);
        }
        for power in [3, 1] {
            odd = simd.mul_add(odd, square, taps[power]);
        }
        let odd = simd.mul(odd, simd.splat(*point));
        let factor = simd.splat(1.0 / DIVISORS[pair]);
        out[1 + 2 * pair] = simd.mul(simd.add(even, odd), factor);
        out[2 + 2 * pair] = simd.mul(simd.sub(even, odd), factor);
    }
    out
}

/// Ten inputs at the ten points.
#[inline(always)]
fn transform<S: Simd>(simd: S, inputs: [S::F32; POINTS]) -> [S::F32; POINTS] {
    let mut out = inputs;
    let (mut zero, mut infinity) = (inputs[8], inputs[9]);
    for power in 0..4 {
        let coefficient = simd.splat(ALL[power]);
        zero = simd.mul_add(coefficient, inputs[2 * power], zero);
        infinity = simd.mul_add(coefficient, inputs[2 * power + 1], infinity);
    }
    out[0] = zero;
    out[POINTS - 1] = infinity;
    for (pair, point) in PAIRS.iter().enumerate() {
        let (mut even, mut odd) = (inputs[8], inputs[7]);
        for power in 0..3 {
            let coefficient = simd.splat(OTHERS[pair][power]);
            even = simd.mul_add(coefficient, inputs[2 * power + 2], even);
            odd = simd.mul_add(coefficient, inputs[2 * power + 1], odd);
        }
        out[1 + 2 * pair] = simd.mul_add(simd.splat(*point), odd, even);
        out[2 + 2 * pair] = simd.mul_add(simd.splat(-*point), odd, even);
    }
    out
}

/// Four outputs from sums at the ten points.
#[inline(always)]
fn transform_back<S: Simd>(simd: S, sums: [S::F32; POINTS], bias: S::F32) -> [S::F32; OUTPUTS] {
    let mut out = [
        simd.add(bias, sums[0]),
        bias,
        bias,
        simd.add(bias, sums[POINTS - 1]),
    ];
    for (pair, point) in PAIRS.iter().enumerate() {
        let (positive, negative) = (sums[1 + 2 * pair], sums[2 + 2 * pair]);
        let (sum, difference) = (simd.add(positive, negative), simd.sub(positive, negative));
        out[0] = simd.add(out[0], sum);
        out[1] = simd.mul_add(simd.splat(*point), difference, out[1]);
        out[2] = simd.mul_add(simd.splat(point * point), sum, out[2]);
        out[3] = simd.mul_add(simd.splat(point * point * point), difference, out[3]);
    }
    out
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
    /// `[points][planes that the tile reads][rows that it reads][lanes]`
    inputs: Vec<f32>,
    /// `[points][planes][rows][lanes]`
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
    let work = |scratch: &mut Scratch, tile: Tile, [out]: [&mut [&mut [f32]]; 1]| {
        level.run(TransformTile {
            x,
            filters: &filters,
            geometry,
            tile,
            scratch,
            out,
        });
    };
    let side = side_up_to(geometry, SIDE);
    let ([out], _) = map_tiles(geometry, side, Scratch::default, work);
    out
}

/// The convolution of a tile.
struct TransformTile<'a, 'b> {
    x: &'a [f32],
    filters: &'a TransformedFilters<'a>,
    geometry: Geometry,
    tile: Tile,
    scratch: &'a mut Scratch,
    /// The rows of the tile, in its order.
    out: &'a mut [&'b mut [f32]],
}

/// Four outputs of every row of the tile: one vector of channels of the voxels from `voxel` on.
#[derive(Clone, Copy)]
struct Column {
    packing: Packing,
    vector: usize,
    voxel: usize,
}

impl Kernel for TransformTile<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        let packing = Packing::new(self.geometry.channels, S::LANES);
        // What four voxels of every row read stays in the second cache for all vectors of channels.
        for voxel in (0..self.geometry.size[2]).step_by(OUTPUTS) {
            for vector in 0..packing.vectors() {
                let column = Column {
                    packing,
                    vector,
                    voxel,
                };
                self.transform(simd, column);
                self.convolve(simd, column);
                self.transform_back(simd, column);
            }
        }
    }
}

impl TransformTile<'_, '_> {
    /// Planes of inputs that the tile reads.
    #[inline(always)]
    fn planes(&self) -> std::ops::Range<usize> {
        let (first, planes) = (self.tile.at[0], self.tile.size[0]);
        let depth = self.geometry.size[0];
        self.filters.window.reach(0, first..first + planes, depth)
    }

    /// Rows of a plane of inputs that the tile reads, those outside the grid among them.
    #[inline(always)]
    fn rows(&self) -> usize {
        self.tile.size[1] + self.filters.window.taps[1] - 1
    }

    /// Fills the scratch's inputs.
    #[inline(always)]
    fn transform<S: Simd>(&mut self, simd: S, column: Column) {
        let (planes, rows, volume) = (self.planes(), self.rows(), self.tile.volume);
        let before = self.filters.window.before;
        let point_len = planes.len() * rows * S::LANES;
        let inputs = &mut self.scratch.inputs;
        inputs.resize(POINTS * point_len, 0.0);
        for (plane, z) in planes.enumerate() {
            for row in 0..rows {
                let y = (self.tile.at[1] + row).wrapping_sub(before[1]);
                let values = if y < self.geometry.size[1] {
                    let start = self.geometry.start(RowAt { volume, z, y });
                    let line = &self.x[start..start + self.geometry.row_len()];
                    transform(simd, column.load(simd, line, before[2]))
                } else {
                    [simd.splat(0.0); POINTS]
                };
                let place = (plane * rows + row) * S::LANES;
                for (point, value) in values.into_iter().enumerate() {
                    simd.store(value, &mut inputs[point * point_len + place..]);
                }
            }
        }
    }

    /// Fills the scratch's sums: at each point, the convolution along depth and height.
    #[inline(always)]
    fn convolve<S: Simd>(&mut self, simd: S, column: Column) {
        let (window, [planes, rows]) = (self.filters.window, self.tile.size);
        let ([depth, height, _], reach) = (window.taps, self.planes());
        let line_len = self.rows() * S::LANES;
        let weights_len = depth * height * S::LANES;
        let Scratch { inputs, sums } = &mut *self.scratch;
        sums.resize(POINTS * planes * rows * S::LANES, 0.0);
        sums.fill(0.0);
        let inputs = inputs.chunks_exact(reach.len() * line_len);
        let weights = &self.filters.weight[column.vector * POINTS * weights_len..];
        let of_points = inputs.zip(weights.chunks_exact(weights_len));
        for ((inputs, weights), sums) in
            of_points.zip(sums.chunks_exact_mut(planes * rows * S::LANES))
        {
            for (plane, sums) in sums.chunks_exact_mut(rows * S::LANES).enumerate() {
                let z = self.tile.at[0] + plane;
                let taps = window.inside(0, z, self.geometry.size[0]);
                let first = z + taps.start - window.before[0] - reach.start;
                let lines = WindowLines {
                    lines: &inputs[first * line_len..][..taps.len() * line_len],
                    line_len,
                    weights: &weights[taps.start * height * S::LANES..taps.end * height * S::LANES],
                    taps: height,
                };
                lines.add(simd, sums, column.packing);
            }
        }
    }

    /// Writes the outputs.
    #[inline(always)]
    fn transform_back<S: Simd>(&mut self, simd: S, column: Column) {
        let channels = self.geometry.channels;
        let first = column.packing.first(column.vector);
        let bias = simd.load(&self.filters.bias[first..]);
        let point_len = self.out.len() * S::LANES;
        for (row, out) in self.out.iter_mut().enumerate() {
            let mut sums = [bias; POINTS];
            for (point, sum) in sums.iter_mut().enumerate() {
                *sum = simd.load(&self.scratch.sums[point * point_len + row * S::LANES..]);
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
        for (input, value) in inputs.iter_mut().enumerate() {
            let voxel = (self.voxel + input).wrapping_sub(before);
            if voxel < line.len() / channels {
                *value = simd.load(&line[voxel * channels + first..]);
            }
        }
        inputs
    }
}
