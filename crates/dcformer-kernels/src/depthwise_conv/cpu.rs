//! Depthwise convolution on the CPU.
//!
//! Channels are innermost, so one vector is one voxel's slice of channels and every tap is a whole vector. The unit of work
//! is a tile of a few planes of a few rows, one vector of channels at a time. Each plane of inputs that the tile reaches is
//! copied once, zeros around it and vectors side by side, and spent on every output plane that it has a tap for: seven
//! lines and the taps of one plane, what a row of outputs needs of it, stay in the nearest cache. Eight neighbouring
//! outputs are in registers for as long as a plane of taps takes.

use std::ops::Range;

use super::lines::{Packing, Strip, Window};
use super::winograd;
use crate::geometry::{Geometry, RowAt};
use crate::matmul::Panels;
use crate::simd::{Kernel, Level, Simd};
use crate::tiles::{Tile, map_tiles, side};

/// Filters of a depthwise convolution.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Filters<'a> {
    /// `[depth, height, width, channels]`, the first three as many as the window has taps.
    pub(crate) weight: &'a [f32],
    pub(crate) window: Window,
}

/// Filters cut into vectors.
#[derive(Clone, Debug)]
struct PackedFilters {
    /// `[vectors][depth][height][width][lanes]`
    weight: Vec<f32>,
    /// `[vectors][lanes]`
    bias: Vec<f32>,
    window: Window,
}

impl PackedFilters {
    fn new(level: Level, filters: Filters<'_>, bias: &[f32]) -> Self {
        let Filters { weight, window } = filters;
        let lanes = Panels::width(level) / 2;
        let packing = Packing::new(bias.len(), lanes);
        assert_eq!(weight.len(), window.len() * bias.len());
        let mut packed = Self {
            weight: vec![0.0; packing.vectors() * window.len() * lanes],
            bias: vec![0.0; packing.vectors() * lanes],
            window,
        };
        let vectors = packed.weight.chunks_exact_mut(window.len() * lanes);
        for (vector, packed) in vectors.enumerate() {
            for (to, from) in packed
                .chunks_exact_mut(lanes)
                .zip(weight.chunks_exact(bias.len()))
            {
                packing.pack(vector, from, to);
            }
        }
        for (vector, packed) in packed.bias.chunks_exact_mut(lanes).enumerate() {
            packing.pack(vector, bias, packed);
        }
        packed
    }

    /// The taps of one vector that lie in one plane of the window, `[height][width][lanes]`.
    #[inline(always)]
    fn plane<S: Simd>(&self, vector: usize, plane: usize) -> &[f32] {
        let [depth, height, width] = self.window.taps;
        let len = height * width * S::LANES;
        &self.weight[(vector * depth + plane) * len..][..len]
    }
}

/// Room that a thread uses again.
#[derive(Debug, Default)]
struct Scratch {
    /// The lines of a plane of inputs.
    lines: Vec<f32>,
    /// `[planes][rows][vectors of the strip][lanes]`
    sums: Vec<f32>,
}

/// See [`depthwise_conv`](super::depthwise_conv()).
pub(crate) fn forward(
    level: Level,
    x: &[f32],
    filters: Filters<'_>,
    bias: &[f32],
    geometry: Geometry,
) -> Vec<f32> {
    assert_eq!(x.len(), geometry.len());
    assert_eq!(bias.len(), geometry.channels);
    if winograd::applies(level, filters.window, geometry) {
        return winograd::forward(level, x, filters, bias, geometry);
    }
    let filters = PackedFilters::new(level, filters, bias);
    let work = |scratch: &mut Scratch, tile: Tile, [out]: [&mut [&mut [f32]]; 1]| {
        level.run(ConvolveTile {
            x,
            filters: &filters,
            geometry,
            tile,
            scratch,
            out,
        });
    };
    let ([out], _) = map_tiles(geometry, side(geometry), Scratch::default, work);
    out
}

/// Gradient of the input: the convolution of the output's gradient with the filters read backwards.
pub(crate) fn input_gradient(
    level: Level,
    filters: Filters<'_>,
    gradient: &[f32],
    geometry: Geometry,
) -> Vec<f32> {
    let channels = geometry.channels;
    let taps = filters.weight.chunks_exact(channels);
    let reversed: Vec<f32> = taps.rev().flatten().copied().collect();
    let filters = Filters {
        weight: &reversed,
        window: filters.window.reversed(),
    };
    forward(level, gradient, filters, &vec![0.0; channels], geometry)
}

/// The convolution of a tile.
struct ConvolveTile<'a, 'b> {
    x: &'a [f32],
    filters: &'a PackedFilters,
    geometry: Geometry,
    tile: Tile,
    scratch: &'a mut Scratch,
    /// The rows of the tile, in its order.
    out: &'a mut [&'b mut [f32]],
}

impl Kernel for ConvolveTile<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        let packing = Packing::new(self.geometry.channels, S::LANES);
        for vector in 0..packing.vectors() {
            for voxels in packing.strips(self.geometry.size[2]) {
                let strip = Strip {
                    packing,
                    vector,
                    voxels,
                    before: self.filters.window.before[2],
                };
                self.convolve(simd, &strip);
                self.write::<S>(simd, &strip);
            }
        }
    }
}

impl ConvolveTile<'_, '_> {
    /// Fills the scratch's sums.
    #[inline(always)]
    fn convolve<S: Simd>(&mut self, simd: S, strip: &Strip) {
        let Self {
            filters, geometry, ..
        } = *self;
        let (window, [depth, height, width]) = (filters.window, geometry.size);
        let ([first_plane, first_row], [planes, rows]) = (self.tile.at, self.tile.size);
        let row_len = strip.vectors() * S::LANES;
        let bias = simd.load(&filters.bias[strip.vector * S::LANES..]);
        let line_len = strip.packing.line_len(strip.vectors(), window.taps[2]);
        let reach = window.reach(1, first_row..first_row + rows, height);
        let Scratch { lines, sums } = &mut *self.scratch;
        sums.resize(planes * rows * row_len, 0.0);
        lines.resize(reach.len() * line_len, 0.0);
        for sums in sums.chunks_exact_mut(S::LANES) {
            simd.store(bias, sums);
        }
        for z in window.reach(0, first_plane..first_plane + planes, depth) {
            for (y, line) in reach.clone().zip(lines.chunks_exact_mut(line_len)) {
                let volume = self.tile.volume;
                let start = geometry.start(RowAt { volume, z, y });
                let row = &self.x[start..start + geometry.row_len()];
                strip.copy(simd, row, width, line);
            }
            for (plane, sums) in sums.chunks_exact_mut(rows * row_len).enumerate() {
                let Some(tap) = window.tap(0, first_plane + plane, z) else {
                    continue;
                };
                let weights = filters.plane::<S>(strip.vector, tap);
                for (row, sums) in sums.chunks_exact_mut(row_len).enumerate() {
                    let taps = window.inside(1, first_row + row, height);
                    let first = first_row + row + taps.start - window.before[1] - reach.start;
                    let window_lines = WindowLines {
                        lines: &lines[first * line_len..][..taps.len() * line_len],
                        line_len,
                        weights: taps_of_rows::<S>(weights, taps, window.taps[2]),
                        taps: window.taps[2],
                    };
                    window_lines.add(simd, sums, strip.packing, false);
                }
            }
        }
    }

    /// Copies the sums to their channels of the output.
    #[inline(always)]
    fn write<S: Simd>(&mut self, simd: S, strip: &Strip) {
        let (packing, channels) = (strip.packing, self.geometry.channels);
        let first = packing.first(strip.vector);
        let row_len = strip.vectors() * S::LANES;
        let rows = self.scratch.sums.chunks_exact(row_len);
        for (out, sums) in self.out.iter_mut().zip(rows) {
            let out = &mut out[strip.voxels.start * channels..strip.voxels.end * channels];
            let sums = sums.chunks_exact(S::LANES);
            if packing.is_whole() {
                for (out, sums) in out.chunks_exact_mut(channels).zip(sums) {
                    simd.store(simd.load(sums), &mut out[first..]);
                }
            } else {
                for (out, sums) in out.chunks_mut(packing.step()).zip(sums) {
                    out.copy_from_slice(&sums[..out.len()]);
                }
            }
        }
    }
}

/// The taps of some rows of a plane of the window.
#[inline(always)]
fn taps_of_rows<S: Simd>(weights: &[f32], rows: Range<usize>, taps: usize) -> &[f32] {
    &weights[rows.start * taps * S::LANES..rows.end * taps * S::LANES]
}

/// The lines that a row of outputs reads in one plane, and their taps.
#[derive(Clone, Copy)]
pub(super) struct WindowLines<'a> {
    /// `[lines][line_len]`
    pub(super) lines: &'a [f32],
    pub(super) line_len: usize,
    /// `[lines][taps][lanes]`
    pub(super) weights: &'a [f32],
    pub(super) taps: usize,
}

impl WindowLines<'_> {
    /// `sums[i] += Σ_line Σ_tap weights[line][tap] · lines[line][i + tap]`; to zero instead, if `fresh`.
    #[inline(always)]
    pub(super) fn add<S: Simd>(self, simd: S, sums: &mut [f32], packing: Packing, fresh: bool) {
        let strides = [packing.stride(), packing.step()];
        match (self.taps, packing.is_whole()) {
            (7, true) => self.add_at::<S, 7>(simd, sums, strides, fresh),
            (3, true) => self.add_at::<S, 3>(simd, sums, strides, fresh),
            _ => self.add_at::<S, 0>(simd, sums, strides, fresh),
        }
    }

    /// `TAPS`: those of ConvNeXt and of the small filters as a constant, so that the loop over them is unrolled and inputs
    /// are loaded once for all their taps, and with it strides of one vector; 0 for any number.
    #[inline(always)]
    fn add_at<S: Simd, const TAPS: usize>(
        self,
        simd: S,
        sums: &mut [f32],
        strides: [usize; 2],
        fresh: bool,
    ) {
        let count = sums.len() / S::LANES;
        let mut first = 0;
        while first < count {
            first += match count - first {
                8.. => self.outputs::<S, 8, TAPS>(simd, sums, first, strides, fresh),
                4.. => self.outputs::<S, 4, TAPS>(simd, sums, first, strides, fresh),
                2.. => self.outputs::<S, 2, TAPS>(simd, sums, first, strides, fresh),
                _ => self.outputs::<S, 1, TAPS>(simd, sums, first, strides, fresh),
            };
        }
    }

    #[inline(always)]
    fn outputs<S: Simd, const N: usize, const TAPS: usize>(
        self,
        simd: S,
        sums: &mut [f32],
        first: usize,
        [stride, step]: [usize; 2],
        fresh: bool,
    ) -> usize {
        let (taps, [stride, step]) = match TAPS {
            0 => (self.taps, [stride, step]),
            taps => (taps, [S::LANES; 2]),
        };
        let sums = &mut sums[first * S::LANES..][..N * S::LANES];
        let mut tile = [simd.splat(0.0); N];
        if !fresh {
            for (tile, sums) in tile.iter_mut().zip(sums.chunks_exact(S::LANES)) {
                *tile = simd.load(sums);
            }
        }
        let len = (N - 1) * step + (taps - 1) * stride + S::LANES;
        for line in 0..self.lines.len() / self.line_len {
            let weights = &self.weights[line * taps * S::LANES..][..taps * S::LANES];
            let line = &self.lines[line * self.line_len + first * step..][..len];
            for tap in 0..taps {
                let weight = simd.load(&weights[tap * S::LANES..]);
                for (output, sum) in tile.iter_mut().enumerate() {
                    let input = simd.load(&line[tap * stride + output * step..]);
                    *sum = simd.mul_add(weight, input, *sum);
                }
            }
        }
        for (tile, sums) in tile.into_iter().zip(sums.chunks_exact_mut(S::LANES)) {
            simd.store(tile, sums);
        }
        N
    }
}
