//! A part of the [transformed convolution](super::winograd): columns of four outputs of every row, plane by plane.

use std::mem::MaybeUninit;
use std::ops::Range;

use super::cpu::WindowLines;
use super::lines::Packing;
use super::points::{OUTPUTS, POINTS, transform, transform_back};
use super::winograd::{Part, Slice, TransformedFilters};
use crate::geometry::{Geometry, RowAt};
use crate::memory::zeroed;
use crate::shared::SharedSlice;
use crate::simd::{Kernel, LINE, MAX_LANES, Simd};

/// Columns that are computed at a time: their inputs stay in the second cache.
const COLUMNS: usize = 3;
/// Planes of outputs that are computed at a time: at each point they read the same inputs in the first cache.
const PLANES: usize = 4;

/// Room that a thread uses again.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// The last planes of inputs, plane `z` at `z` modulo their number:
    /// `[columns][points][planes kept][rows that the part reads][lanes]`
    inputs: Vec<f32>,
    /// `[points][planes computed at a time][rows][lanes]`
    sums: Vec<f32>,
}

/// The convolution of a part.
pub(super) struct ConvolvePart<'a> {
    pub(super) x: &'a [f32],
    pub(super) filters: &'a TransformedFilters<'a>,
    pub(super) geometry: Geometry,
    pub(super) part: Part,
    pub(super) scratch: &'a mut Scratch,
    /// All outputs, of which the part's are written and nobody else writes them.
    pub(super) out: SharedSlice<'a, MaybeUninit<f32>>,
}

/// Four outputs of every row, in one slice of channels; of a half slice, eight.
#[derive(Clone, Copy, Debug)]
struct Column {
    slice: Slice,
    /// Number of the slice.
    number: usize,
    /// First voxel of its outputs.
    voxel: usize,
}

impl Kernel for ConvolvePart<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        let columns = self.columns();
        let inputs = COLUMNS.min(columns.len()) * POINTS * self.point_len::<S>();
        self.scratch.inputs.resize(inputs, 0.0);
        let sums = POINTS * PLANES * self.part.rows.len() * S::LANES;
        self.scratch.sums.resize(sums, 0.0);
        self.clear_rows_outside::<S>();
        for columns in columns.chunks(COLUMNS) {
            self.compute(simd, columns);
        }
    }
}

impl<'a> ConvolvePart<'a> {
    /// The columns of the part; those of the same voxels, which read the same lines of memory, follow each other.
    fn columns(&self) -> Vec<Column> {
        let mut columns = Vec::new();
        let voxels = self.part.voxels.clone().step_by(OUTPUTS);
        for (place, voxel) in voxels.enumerate() {
            for number in self.part.slices.clone() {
                let slice = self.filters.slices[number];
                // A half slice has all voxels of the part in one column.
                if place == 0 || !slice.half {
                    columns.push(Column {
                        slice,
                        number,
                        voxel,
                    });
                }
            }
        }
        columns
    }

    /// Rows of a plane of inputs that the part reads, those outside the grid among them.
    #[inline(always)]
    fn rows(&self) -> usize {
        self.part.rows.len() + self.filters.window.taps[1] - 1
    }

    /// Those inside the grid.
    #[inline(always)]
    fn rows_inside(&self) -> Range<usize> {
        let before = self.filters.window.before[1];
        let first = before.saturating_sub(self.part.rows.start);
        let end = self.geometry.size[1] + before - self.part.rows.start;
        first..end.min(self.rows())
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

    /// Clears the rows of the scratch's inputs that lie outside the grid.
    #[inline(always)]
    fn clear_rows_outside<S: Simd>(&mut self) {
        let (rows, inside) = (self.rows(), self.rows_inside());
        for plane in self.scratch.inputs.chunks_exact_mut(rows * S::LANES) {
            plane[..inside.start * S::LANES].fill(0.0);
            plane[inside.end * S::LANES..].fill(0.0);
        }
    }

    /// Computes some columns: every plane is transformed once, and outputs follow as soon as they can.
    #[inline(always)]
    fn compute<S: Simd>(&mut self, simd: S, columns: &[Column]) {
        let (window, depth) = (self.filters.window, self.geometry.size[0]);
        let behind = window.taps[0] - 1 - window.before[0];
        let planes = self.part.planes.clone();
        let (mut first, mut ready) = (planes.start, planes.start);
        for z in window.reach(0, planes.clone(), depth) {
            for (place, column) in columns.iter().enumerate() {
                self.transform(simd, *column, place, z);
            }
            while ready < planes.end && (ready + behind).min(depth - 1) <= z {
                ready += 1;
            }
            while ready - first >= PLANES || (ready == planes.end && first < ready) {
                let end = ready.min(first + PLANES);
                let ahead = self.ahead(columns, z + 1, end);
                for (place, column) in columns.iter().enumerate() {
                    self.convolve(simd, *column, place, first..end, &ahead);
                    self.transform_back(simd, *column, first..end);
                }
                first = end;
            }
        }
    }

    /// What the planes after these will read and write: inputs from plane `input` on, outputs from plane `output` on.
    fn ahead(&self, columns: &[Column], input: usize, output: usize) -> Ahead<'a> {
        let Geometry { size, channels, .. } = self.geometry;
        let TransformedFilters { slices, window, .. } = self.filters;
        let Part { rows, voxels, .. } = &self.part;
        let planes = |first: usize, end: usize| first..(first + PLANES).min(end);
        let next = slices.get(self.part.slices.end);
        Ahead {
            x: self.x,
            out: self.out,
            geometry: self.geometry,
            volume: self.part.volume,
            channels: slices[self.part.slices.start].first
                ..next.map_or(channels, |next| next.first),
            inputs: [
                planes(input, size[0]),
                window.reach(1, rows.clone(), size[1]),
                window.reach(2, voxels.clone(), size[2]),
            ],
            outputs: [
                planes(output, self.part.planes.end),
                rows.clone(),
                voxels.clone(),
            ],
            shares: columns.len() * POINTS,
        }
    }

    /// Fills the scratch's plane `z` of inputs.
    #[inline(always)]
    fn transform<S: Simd>(&mut self, simd: S, column: Column, place: usize, z: usize) {
        let (rows, inside, point_len) = (self.rows(), self.rows_inside(), self.point_len::<S>());
        let (volume, window) = (self.part.volume, self.filters.window);
        let plane = z % self.kept() * rows * S::LANES;
        let inputs = &mut self.scratch.inputs[place * POINTS * point_len..];
        for row in inside {
            let y = self.part.rows.start + row - window.before[1];
            let start = self.geometry.start(RowAt { volume, z, y });
            let line = &self.x[start..start + self.geometry.row_len()];
            let values = column.load(simd, line, self.geometry.channels, window.before[2]);
            let values = transform(simd, values);
            let at = plane + row * S::LANES;
            for (point, value) in values.into_iter().enumerate() {
                simd.store(value, &mut inputs[point * point_len + at..]);
            }
        }
    }

    /// Fills the scratch's sums for the outputs of some planes: at each point, the convolution along depth and height.
    #[inline(always)]
    fn convolve<S: Simd>(
        &mut self,
        simd: S,
        column: Column,
        place: usize,
        planes: Range<usize>,
        ahead: &Ahead<'_>,
    ) {
        let (window, point_len, kept) = (self.filters.window, self.point_len::<S>(), self.kept());
        let [depth, height, _] = window.taps;
        let (line_len, taps_len) = (self.rows() * S::LANES, height * S::LANES);
        let weights_len = depth * taps_len;
        let plane_len = self.part.rows.len() * S::LANES;
        let packing = Packing::new(S::LANES, S::LANES);
        let Scratch { inputs, sums } = &mut *self.scratch;
        let inputs = inputs[place * POINTS * point_len..].chunks_exact(point_len);
        let weights = &self.filters.weight[column.number * POINTS * weights_len..];
        let of_points = inputs.zip(weights.chunks_exact(weights_len));
        let of_points = of_points.zip(sums.chunks_exact_mut(PLANES * plane_len));
        for (point, ((inputs, weights), sums)) in of_points.enumerate() {
            ahead.ask(simd, place * POINTS + point);
            for (z, sums) in planes.clone().zip(sums.chunks_exact_mut(plane_len)) {
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
                    lines.add(simd, sums, packing, tap == taps.start);
                    tap = end;
                }
            }
        }
    }

    /// Writes the outputs of some planes.
    #[inline(always)]
    fn transform_back<S: Simd>(&mut self, simd: S, column: Column, planes: Range<usize>) {
        let (volume, rows) = (self.part.volume, self.part.rows.clone());
        let Column { slice, voxel, .. } = column;
        let bias = slice.load(simd, &self.filters.bias[slice.first..]);
        let places = planes.flat_map(|z| rows.clone().map(move |y| RowAt { volume, z, y }));
        for (row, place) in places.enumerate() {
            let mut sums = [bias; POINTS];
            for (point, sum) in sums.iter_mut().enumerate() {
                let at = (point * PLANES * rows.len() + row) * S::LANES;
                *sum = simd.load(&self.scratch.sums[at..]);
            }
            let start = self.geometry.start(place);
            let outputs = transform_back(simd, sums, bias);
            for (output, values) in outputs.into_iter().enumerate() {
                self.write(simd, slice, start, voxel + output, values);
            }
        }
    }

    /// Writes the outputs of a voxel of the row that begins at `start`, if it is inside; of a half slice also those of the
    /// voxel four further.
    #[inline(always)]
    fn write<S: Simd>(&self, simd: S, slice: Slice, start: usize, voxel: usize, values: S::F32) {
        let (channels, end) = (self.geometry.channels, self.part.voxels.end);
        let len = if slice.half { S::LANES / 2 } else { S::LANES };
        let outputs = |voxel: usize| {
            let at = start + voxel * channels + slice.first;
            // SAFETY: these values belong to the part: the voxel is one of its own, and the channels are one of its slices
            // without those that another slice has. They are used inside this function only.
            zeroed(unsafe { self.out.part(at + slice.skip..at + len) })
        };
        let further = voxel + OUTPUTS;
        match (slice.half, slice.skip) {
            _ if voxel >= end => {}
            (false, 0) => simd.store(values, outputs(voxel)),
            (true, 0) if further < end => {
                simd.store_halves(values, outputs(voxel), outputs(further));
            }
            (half, skip) => {
                let mut lanes = [0.0; MAX_LANES];
                simd.store(values, &mut lanes);
                outputs(voxel).copy_from_slice(&lanes[skip..len]);
                if half && further < end {
                    outputs(further).copy_from_slice(&lanes[len + skip..2 * len]);
                }
            }
        }
    }
}

/// Lines of memory that are needed next. They are asked for in shares between sums, which hide how long they take to come.
struct Ahead<'a> {
    x: &'a [f32],
    out: SharedSlice<'a, MaybeUninit<f32>>,
    geometry: Geometry,
    volume: usize,
    channels: Range<usize>,
    /// Planes, rows, voxels.
    inputs: [Range<usize>; 3],
    outputs: [Range<usize>; 3],
    shares: usize,
}

impl Ahead<'_> {
    /// Asks for a share.
    #[inline(always)]
    fn ask<S: Simd>(&self, simd: S, share: usize) {
        self.ask_for(simd, share, &self.inputs, |value| {
            self.x.as_ptr().wrapping_add(value)
        });
        self.ask_for(simd, share, &self.outputs, |value| {
            self.out.address(value).cast()
        });
    }

    #[inline(always)]
    fn ask_for<S: Simd>(
        &self,
        simd: S,
        share: usize,
        [planes, rows, voxels]: &[Range<usize>; 3],
        address: impl Fn(usize) -> *const f32,
    ) {
        let all = planes.len() * rows.len();
        for row in share * all / self.shares..(share + 1) * all / self.shares {
            let start = self.geometry.start(RowAt {
                volume: self.volume,
                z: planes.start + row / rows.len(),
                y: rows.start + row % rows.len(),
            });
            for voxel in voxels.clone() {
                for channel in self.channels.clone().step_by(LINE) {
                    simd.prefetch(address(start + voxel * self.geometry.channels + channel));
                }
            }
        }
    }
}

impl Column {
    /// The ten inputs of a line, `[width, channels]`; zeros outside.
    #[inline(always)]
    fn load<S: Simd>(
        self,
        simd: S,
        line: &[f32],
        channels: usize,
        before: usize,
    ) -> [S::F32; POINTS] {
        /// What is read outside a line.
        const ZEROS: [f32; MAX_LANES] = [0.0; MAX_LANES];
        let Slice { first, half, .. } = self.slice;
        let at = |voxel: usize| &line[voxel * channels + first..];
        let mut inputs = [simd.splat(0.0); POINTS];
        let (width, start) = (line.len() / channels, self.voxel.wrapping_sub(before));
        let reach = if half { POINTS + OUTPUTS } else { POINTS };
        let is_inside = start < width && reach <= width - start;
        for (input, value) in inputs.iter_mut().enumerate() {
            let voxel = start.wrapping_add(input);
            let further = voxel.wrapping_add(OUTPUTS);
            *value = match (is_inside, half) {
                (true, false) => simd.load(at(voxel)),
                (true, true) => simd.load_halves(at(voxel), at(further)),
                (false, _) => {
                    let [near, far] = [voxel, further].map(|voxel| match voxel < width {
                        true => at(voxel),
                        false => &ZEROS,
                    });
                    if half {
                        simd.load_halves(near, far)
                    } else {
                        simd.load(near)
                    }
                }
            };
        }
        inputs
    }
}
