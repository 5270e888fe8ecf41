//! The dense convolution on the CPU: products of gathered windows with the weights, forward and backward.
//!
//! The gradient of the input is a convolution again, of the output's gradient with the transposed, reversed filters. With a
//! stride, voxels of the input differ in which taps reached them: those whose positions leave the same remainders are a grid
//! of their own, read by a convolution of stride 1 with every stride-th tap.

use rayon::prelude::*;

use crate::gathered::{Epilogue, RowsProduct, Windows, product, product_over_rows};
use crate::geometry::Geometry;
use crate::matmul::Panels;
use crate::memory::{fill_chunks, zeros};
use crate::simd::Level;

/// A convolution of volumes of one size.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Conv<'a> {
    /// `[taps, taps, taps, channels_in, channels_out]`
    pub(crate) weight: &'a [f32],
    /// Along depth, height, width.
    pub(crate) taps: [usize; 3],
    pub(crate) channels_out: usize,
    pub(crate) stride: usize,
    /// Zeros in front of the grid.
    pub(crate) before: [usize; 3],
    /// Of the input.
    pub(crate) geometry: Geometry,
}

impl Conv<'_> {
    pub(crate) fn out_geometry(&self) -> Geometry {
        self.geometry
            .strided(self.stride)
            .with_channels(self.channels_out)
    }

    fn windows<'x>(&self, x: &'x [f32]) -> Windows<'x> {
        assert_eq!(x.len(), self.geometry.len());
        Windows {
            values: x,
            geometry: self.geometry,
            positions: self.out_geometry().size,
            stride: self.stride,
            offset: self.before.map(|before| -(before as isize)),
            taps: self.taps,
        }
    }

    /// Rows of the weights as a matrix.
    fn steps(&self) -> usize {
        self.taps.iter().product::<usize>() * self.geometry.channels
    }

    /// The convolution of `x`.
    pub(crate) fn forward(&self, level: Level, x: &[f32], bias: &[f32], rectify: bool) -> Vec<f32> {
        let panels = Panels::of(level, self.weight, self.steps(), self.channels_out);
        let epilogue = Epilogue { bias, rectify };
        let voxels = self.out_geometry().voxels();
        product(level, &self.windows(x), voxels, &panels, epilogue)
    }

    /// The gradient of the weights, from that of the output.
    pub(crate) fn weight_gradient(&self, level: Level, x: &[f32], gradient: &[f32]) -> Vec<f32> {
        let voxels = self.out_geometry().voxels();
        product_over_rows(level, &self.windows(x), voxels, gradient, self.channels_out)
    }

    /// The gradient of the input, from that of the output.
    pub(crate) fn input_gradient(&self, level: Level, gradient: &[f32]) -> Vec<f32> {
        let geometry = self.geometry;
        if gradient.is_empty() {
            return zeros(geometry.len());
        }
        let classes: Vec<Class<'_>> = self
            .remainders()
            .into_iter()
            .map(|remainder| Class::new(level, self, remainder))
            .collect();
        let rows = rows_per_task(geometry, self.stride);
        let row_len = geometry.row_len();
        let work = |(scratch, part): &mut (Vec<f32>, Vec<f32>), task: usize, out: &mut [f32]| {
            for class in &classes {
                class.add_rows(level, gradient, task * rows, scratch, part, out);
            }
        };
        let init = || (Vec::new(), Vec::new());
        fill_chunks(geometry.len(), rows * row_len, init, work)
    }

    /// The remainders of a position along depth, height, width.
    fn remainders(&self) -> Vec<[usize; 3]> {
        let stride = self.stride;
        (0..stride.pow(3))
            .map(|index| {
                [
                    index / (stride * stride),
                    index / stride % stride,
                    index % stride,
                ]
            })
            .collect()
    }
}

/// The gradient of what goes into a ReLU, from its output and the output's gradient.
pub(crate) fn through_relu(output: &[f32], gradient: &[f32]) -> Vec<f32> {
    /// Values of one task.
    const VALUES: usize = 1 << 14;
    fill_chunks(
        gradient.len(),
        VALUES,
        || (),
        |(), task, out| {
            let first = task * VALUES;
            for (index, out) in out.iter_mut().enumerate() {
                if output[first + index] > 0.0 {
                    *out = gradient[first + index];
                }
            }
        },
    )
}

/// Rows of the grid of a task of the input's gradient: some of one plane, about enough voxels for a block of each class.
fn rows_per_task(geometry: Geometry, stride: usize) -> usize {
    /// Voxels of a class in a task.
    const VOXELS: usize = 96;
    let [_, height, width] = geometry.size;
    let most = (VOXELS * stride * stride).div_ceil(width.max(1));
    (1..=most.min(height))
        .rev()
        .find(|rows| height.is_multiple_of(*rows))
        .unwrap_or(1)
}

/// The voxels of the input whose positions leave the same remainders, and the taps that reach them.
struct Class<'a> {
    conv: &'a Conv<'a>,
    remainder: [usize; 3],
    /// Taps along each axis.
    taps: [usize; 3],
    /// Where the box of the class's first voxel begins in the output's gradient.
    offset: [isize; 3],
    /// `[taps * channels_out, channels_in]`
    panels: Panels,
    no_bias: Vec<f32>,
}

impl<'a> Class<'a> {
    fn new(level: Level, conv: &'a Conv<'a>, remainder: [usize; 3]) -> Self {
        let stride = conv.stride;
        // A voxel at `stride · m + remainder` is read by output `m + (remainder + before - tap) / stride`.
        let first = [0, 1, 2].map(|axis| (remainder[axis] + conv.before[axis]) % stride);
        let taps =
            [0, 1, 2].map(|axis| conv.taps[axis].saturating_sub(first[axis]).div_ceil(stride));
        let last = [0, 1, 2].map(|axis| first[axis] + taps[axis].saturating_sub(1) * stride);
        let offset = [0, 1, 2].map(|axis| {
            let distance = (remainder[axis] + conv.before[axis]) as isize - last[axis] as isize;
            distance / stride as isize
        });
        let (inputs, outputs) = (conv.geometry.channels, conv.channels_out);
        let mut matrix = zeros(taps.iter().product::<usize>() * inputs * outputs);
        matrix
            .par_chunks_mut((inputs * outputs).max(1))
            .enumerate()
            .for_each(|(index, transposed)| {
                let along = [
                    index / (taps[1] * taps[2]),
                    index / taps[2] % taps[1],
                    index % taps[2],
                ];
                let [i, j, k] = [0, 1, 2].map(|axis| last[axis] - along[axis] * stride);
                let tap = (i * conv.taps[1] + j) * conv.taps[2] + k;
                let filter = &conv.weight[tap * inputs * outputs..][..inputs * outputs];
                for (output, row) in transposed.chunks_exact_mut(inputs).enumerate() {
                    for (value, filter) in row.iter_mut().zip(filter.chunks_exact(outputs)) {
                        *value = filter[output];
                    }
                }
            });
        let steps = taps.iter().product::<usize>() * outputs;
        Self {
            conv,
            remainder,
            taps,
            offset,
            panels: Panels::of(level, &matrix, steps, inputs),
            no_bias: vec![0.0; inputs],
        }
    }

    /// Writes the gradients of the class's voxels into rows of the input's gradient, from `first_row` on, all of one plane.
    fn add_rows(
        &self,
        level: Level,
        gradient: &[f32],
        first_row: usize,
        scratch: &mut Vec<f32>,
        part: &mut Vec<f32>,
        out: &mut [f32],
    ) {
        let Geometry { size, channels, .. } = self.conv.geometry;
        let stride = self.conv.stride;
        let at = self.conv.geometry.row(first_row);
        if self.taps.contains(&0) || at.z % stride != self.remainder[0] {
            return;
        }
        let rows = out.len() / self.conv.geometry.row_len();
        // Of every `stride` voxels from `remainder` on, how many are before `position`.
        let before = |position: usize, axis: usize| {
            position
                .saturating_sub(self.remainder[axis])
                .div_ceil(stride)
        };
        let positions = [0, 1, 2].map(|axis| before(size[axis], axis));
        let [from, to] = [at.y, at.y + rows].map(|y| before(y, 1));
        let windows = Windows {
            values: gradient,
            geometry: self.conv.out_geometry(),
            positions,
            stride: 1,
            offset: self.offset,
            taps: self.taps,
        };
        let width = positions[2];
        let plane = at.volume * positions[0] + at.z / stride;
        part.clear();
        part.resize((to - from) * width * channels, 0.0);
        if part.is_empty() {
            return;
        }
        level.run(RowsProduct {
            source: &windows,
            first: (plane * positions[1] + from) * width,
            panels: &self.panels,
            epilogue: Epilogue {
                bias: &self.no_bias,
                rectify: false,
            },
            scratch,
            out: part,
        });
        for (row, part) in (from..to).zip(part.chunks_exact(width * channels)) {
            let row = row * stride + self.remainder[1] - at.y;
            let out = &mut out[row * self.conv.geometry.row_len()..][..size[2] * channels];
            let voxels = out.chunks_exact_mut(channels).skip(self.remainder[2]);
            for (out, part) in voxels.step_by(stride).zip(part.chunks_exact(channels)) {
                out.copy_from_slice(part);
            }
        }
    }
}
