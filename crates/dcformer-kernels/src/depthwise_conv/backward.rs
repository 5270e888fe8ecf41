//! Gradients of a depthwise convolution's filters and bias.
//!
//! A task is one vector of channels and a share of the tiles, as many as make about 32 tasks: which sums are added, and in
//! which order, depends on the sizes alone. In a tile, each plane of inputs meets each plane of gradients that it has a tap
//! for, and the sums of one row of taps stay in registers over all rows of the tile.

use rayon::prelude::*;

use super::lines::{Packing, Strip, Window};
use crate::geometry::{Geometry, RowAt};
use crate::matmul::{Panels, sum_in_order};
use crate::simd::{Kernel, Level, MAX_LANES, Simd};
use crate::statistics::add_lanes;
use crate::statistics::add_to;
use crate::tiles::{Tile, side, tiles};

/// Tasks over all vectors of channels.
const TASKS: usize = 32;

/// Gradients of the filters and of the bias.
#[derive(Debug)]
pub(crate) struct Gradients {
    /// `[depth, height, width, channels]`
    pub(crate) weight: Vec<f32>,
    /// `[channels]`
    pub(crate) bias: Vec<f32>,
}

/// `weight[i,j,k,c] = Σ_zyx gradient[z,y,x,c] · x[z+i-p₀, y+j-p₁, x+k-p₂, c]`, `bias[c] = Σ_zyx gradient[z,y,x,c]`.
pub(crate) fn filter_gradients(
    level: Level,
    x: &[f32],
    window: Window,
    gradient: &[f32],
    geometry: Geometry,
) -> Gradients {
    assert_eq!(x.len(), geometry.len());
    assert_eq!(gradient.len(), geometry.len());
    let channels = geometry.channels;
    let mut out = Gradients {
        weight: vec![0.0; window.len() * channels],
        bias: vec![0.0; channels],
    };
    if geometry.len() == 0 {
        return out;
    }
    let lanes = Panels::width(level) / 2;
    let packing = Packing::new(channels, lanes);
    let tiles: Vec<Tile> = tiles(geometry, side(geometry)).collect();
    let shares: Vec<&[Tile]> = {
        let shares = TASKS.div_ceil(packing.vectors());
        tiles.chunks(tiles.len().div_ceil(shares)).collect()
    };
    let sums: Vec<Sums> = (0..packing.vectors() * shares.len())
        .into_par_iter()
        .map(|task| {
            level.run(FilterGradients {
                x,
                gradient,
                window,
                geometry,
                tiles: shares[task % shares.len()],
                vector: task / shares.len(),
            })
        })
        .collect();
    let mut sums = sums.into_iter();
    for vector in 0..packing.vectors() {
        let mut bias = [0.0_f64; MAX_LANES];
        let weights = sums.by_ref().take(shares.len()).map(|share| {
            add_to(&mut bias, &share.bias);
            share.weight
        });
        let weight = sum_in_order(weights.collect());
        let to_channels = out.weight.chunks_exact_mut(channels);
        for (to, from) in to_channels.zip(weight.chunks_exact(lanes)) {
            packing.unpack(vector, from, to);
        }
        packing.unpack(vector, &bias, &mut out.bias);
    }
    out
}

/// What a task gives.
struct Sums {
    /// `[depth][height][width][lanes]`
    weight: Vec<f32>,
    bias: [f64; MAX_LANES],
}

/// A task.
struct FilterGradients<'a> {
    x: &'a [f32],
    gradient: &'a [f32],
    window: Window,
    geometry: Geometry,
    tiles: &'a [Tile],
    vector: usize,
}

impl Kernel for FilterGradients<'_> {
    type Output = Sums;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Sums {
        let packing = Packing::new(self.geometry.channels, S::LANES);
        let mut sums = Sums {
            weight: vec![0.0; self.window.len() * S::LANES],
            bias: [0.0; MAX_LANES],
        };
        let mut scratch = Scratch::default();
        for tile in self.tiles {
            for voxels in packing.strips(self.geometry.size[2]) {
                let strip = Strip {
                    packing,
                    vector: self.vector,
                    voxels,
                    before: self.window.before[2],
                };
                scratch.copy_gradient(simd, &self, *tile, &strip);
                scratch.add_bias(simd, packing, &mut sums.bias);
                self.add_weights(simd, *tile, &strip, &mut scratch, &mut sums.weight);
            }
        }
        sums
    }
}

/// Room for the lines of a tile.
#[derive(Debug, Default)]
struct Scratch {
    /// `[rows of the reach][line_len]`
    inputs: Vec<f32>,
    /// `[planes][rows][gradient_len]`
    gradients: Vec<f32>,
    gradient_len: usize,
}

impl Scratch {
    #[inline(always)]
    fn copy_gradient<S: Simd>(
        &mut self,
        simd: S,
        task: &FilterGradients<'_>,
        tile: Tile,
        strip: &Strip,
    ) {
        let of_outputs = Strip {
            before: 0,
            ..strip.clone()
        };
        self.gradient_len = strip.packing.line_len(strip.vectors(), 1);
        let [planes, rows] = tile.size;
        self.gradients
            .resize(planes * rows * self.gradient_len, 0.0);
        let lines = self.gradients.chunks_exact_mut(self.gradient_len);
        for (row, line) in tile.rows().zip(lines) {
            let start = task.geometry.start(row);
            let row = &task.gradient[start..start + task.geometry.row_len()];
            of_outputs.copy(simd, row, strip.voxels.end, line);
        }
    }

    /// Adds the sum of each line to the bias.
    #[inline(always)]
    fn add_bias<S: Simd>(&self, simd: S, packing: Packing, bias: &mut [f64]) {
        for line in self.gradients.chunks_exact(self.gradient_len) {
            let mut sum = simd.splat(0.0);
            let mut first = 0;
            while first + S::LANES <= line.len() {
                sum = simd.add(sum, simd.load(&line[first..]));
                first += packing.step();
            }
            add_lanes(simd, sum, bias);
        }
    }
}

impl FilterGradients<'_> {
    #[inline(always)]
    fn add_weights<S: Simd>(
        &self,
        simd: S,
        tile: Tile,
        strip: &Strip,
        scratch: &mut Scratch,
        weight: &mut [f32],
    ) {
        let (window, [depth, height, width]) = (self.window, self.geometry.size);
        let ([first_plane, first_row], [planes, rows]) = (tile.at, tile.size);
        let reach = window.reach(1, first_row..first_row + rows, height);
        let line_len = strip.packing.line_len(strip.vectors(), window.taps[2]);
        let Scratch {
            inputs,
            gradients,
            gradient_len,
        } = scratch;
        inputs.resize(reach.len() * line_len, 0.0);
        let row_of_taps = window.taps[2] * S::LANES;
        for z in window.reach(0, first_plane..first_plane + planes, depth) {
            for (y, line) in reach.clone().zip(inputs.chunks_exact_mut(line_len)) {
                let volume = tile.volume;
                let start = self.geometry.start(RowAt { volume, z, y });
                let row = &self.x[start..start + self.geometry.row_len()];
                strip.copy(simd, row, width, line);
            }
            let planes = gradients.chunks_exact(rows * *gradient_len).enumerate();
            for (plane, gradients) in planes {
                let Some(tap) = window.tap(0, first_plane + plane, z) else {
                    continue;
                };
                for tap_y in 0..window.taps[1] {
                    let met = window.outputs(1, tap_y, first_row..first_row + rows, height);
                    if met.is_empty() {
                        continue;
                    }
                    let first_line = met.start + tap_y - window.before[1] - reach.start;
                    let table = (tap * window.taps[1] + tap_y) * row_of_taps;
                    let pairs = PairedLines {
                        inputs: &inputs[first_line * line_len..][..met.len() * line_len],
                        line_len,
                        gradients: &gradients[(met.start - first_row) * *gradient_len..]
                            [..met.len() * *gradient_len],
                        gradient_len: *gradient_len,
                        vectors: strip.vectors(),
                    };
                    pairs.add(simd, &mut weight[table..][..row_of_taps], strip.packing);
                }
            }
        }
    }
}

/// Lines of gradients, each with the line of inputs that a row of taps reads for it.
#[derive(Clone, Copy)]
struct PairedLines<'a> {
    inputs: &'a [f32],
    line_len: usize,
    gradients: &'a [f32],
    gradient_len: usize,
    /// Vectors of a line of gradients.
    vectors: usize,
}

impl PairedLines<'_> {
    /// `sums[tap] += Σ_line Σ_i gradients[line][i] · inputs[line][i + tap]`; `sums`: `[taps][lanes]`.
    #[inline(always)]
    fn add<S: Simd>(self, simd: S, sums: &mut [f32], packing: Packing) {
        let strides = [packing.stride(), packing.step()];
        match (sums.len() / S::LANES, packing.is_whole()) {
            (7, true) => self.taps::<S, 7>(simd, sums, 0, [S::LANES; 2]),
            (3, true) => self.taps::<S, 3>(simd, sums, 0, [S::LANES; 2]),
            (3, false) => self.taps::<S, 3>(simd, sums, 0, strides),
            _ => {
                for (tap, sums) in sums.chunks_exact_mut(S::LANES).enumerate() {
                    self.taps::<S, 1>(simd, sums, tap, strides);
                }
            }
        }
    }

    /// `N` taps from `first` on.
    #[inline(always)]
    fn taps<S: Simd, const N: usize>(
        self,
        simd: S,
        sums: &mut [f32],
        first: usize,
        [stride, step]: [usize; 2],
    ) {
        let mut tile = [simd.splat(0.0); N];
        let gradients = self.gradients.chunks_exact(self.gradient_len);
        for (input, gradient) in self.inputs.chunks_exact(self.line_len).zip(gradients) {
            let input = &input[first * stride..];
            let mut vector = 0;
            while vector < self.vectors {
                let (input, gradient) = (&input[vector * step..], &gradient[vector * step..]);
                vector += if self.vectors - vector >= 4 {
                    multiply::<S, N, 4>(simd, &mut tile, input, gradient, [stride, step])
                } else {
                    multiply::<S, N, 1>(simd, &mut tile, input, gradient, [stride, step])
                };
            }
        }
        for (tile, sums) in tile.into_iter().zip(sums.chunks_exact_mut(S::LANES)) {
            simd.store(simd.add(tile, simd.load(sums)), sums);
        }
    }
}

/// `sums[tap] += Σ_i gradient[i] · input[i + tap]` for `VECTORS` neighbours.
#[inline(always)]
fn multiply<S: Simd, const TAPS: usize, const VECTORS: usize>(
    simd: S,
    sums: &mut [S::F32; TAPS],
    input: &[f32],
    gradient: &[f32],
    [stride, step]: [usize; 2],
) -> usize {
    let gradient = &gradient[..(VECTORS - 1) * step + S::LANES];
    let input = &input[..(VECTORS - 1) * step + (TAPS - 1) * stride + S::LANES];
    for vector in 0..VECTORS {
        let gradient = simd.load(&gradient[vector * step..]);
        for (tap, sum) in sums.iter_mut().enumerate() {
            let input = simd.load(&input[vector * step + tap * stride..]);
            *sum = simd.mul_add(gradient, input, *sum);
        }
    }
    VECTORS
}
