//! The result, made slice by slice as the scan arrives.
//!
//! A value of the result needs at most two neighbouring slices of the scan. So one slice is kept from one slab to the
//! next, whatever the size of the scan, and how it is cut into slabs does not change a bit of the result.

use std::ops::Range;

use rayon::prelude::*;

use crate::intensity::{Conversion, Scale, Stored};
use crate::resample::{PlaneTaps, interpolate_plane};

use super::plan::{AxisPlan, Plan};

/// Takes slabs of stored slices in storage order.
pub(super) struct Assembly<'a> {
    plan: &'a Plan,
    conversion: Conversion,
    scale: Scale,
    taps: PlaneTaps,
    /// Slices that some value needs, counted from `plan.depth.source.start`.
    needed: Vec<bool>,
    /// Values of the depth axis that are still to be made.
    pending: Range<usize>,
    /// Converted slices with their positions: those of the current slab, and one from the slab before.
    planes: Vec<(usize, Vec<f32>)>,
    /// Buffers for converted slices.
    spare: Vec<Vec<f32>>,
    output: Vec<f32>,
}

impl<'a> Assembly<'a> {
    pub(super) fn new(plan: &'a Plan, conversion: Conversion, scale: Scale) -> Self {
        let mut needed = vec![false; plan.depth.source.len()];
        for tap in &plan.depth.taps {
            needed[tap.lower] = true;
            needed[tap.upper] = true;
        }
        Self {
            plan,
            conversion,
            scale,
            taps: PlaneTaps {
                height: plan.height.taps.clone(),
                width: plan.width.taps.clone(),
                source_width: plan.width.source.len(),
            },
            needed,
            pending: 0..plan.depth.taps.len(),
            planes: Vec::new(),
            spare: Vec::new(),
            output: vec![0.0; plan.shape.voxels()],
        }
    }

    /// Takes the stored slices from number `first` on.
    pub(super) fn push<T: Stored>(&mut self, first: usize, slices: &[T]) {
        let arrived = self.arrived(first, slices.len() / self.plan.slice_voxels);
        if arrived.is_empty() {
            return;
        }
        self.convert(first, slices, arrived.clone());
        let ready = self.ready(arrived.clone());
        self.write(ready.clone());
        if self.plan.depth.storage.reversed {
            self.pending.end = ready.start;
        } else {
            self.pending.start = ready.end;
        }
        // What comes next continues from the slice that arrived last.
        let last = if self.plan.depth.storage.reversed {
            arrived.start
        } else {
            arrived.end - 1
        };
        for (position, plane) in std::mem::take(&mut self.planes) {
            if position == last {
                self.planes.push((position, plane));
            } else {
                self.spare.push(plane);
            }
        }
    }

    /// The result, once every slice has come.
    pub(super) fn finish(mut self) -> Vec<f32> {
        debug_assert!(self.pending.is_empty(), "slices are missing");
        let plane = self.plan.shape.height * self.plan.shape.width;
        let Range { start, end } = self.plan.depth.target;
        self.output[..start * plane].fill(self.plan.pad_value);
        self.output[end * plane..].fill(self.plan.pad_value);
        self.output
    }

    /// Positions, counted from `source.start`, of the slices in a slab that lie in `source`.
    fn arrived(&self, first: usize, count: usize) -> Range<usize> {
        let AxisPlan {
            storage,
            len,
            source,
            ..
        } = &self.plan.depth;
        let slab = if storage.reversed {
            len - first - count..len - first
        } else {
            first..first + count
        };
        let position = |at: usize| at.clamp(source.start, source.end) - source.start;
        position(slab.start)..position(slab.end)
    }

    /// Values whose slices are all there now.
    fn ready(&self, arrived: Range<usize>) -> Range<usize> {
        let taps = &self.plan.depth.taps;
        if self.plan.depth.storage.reversed {
            let start = taps.partition_point(|tap| tap.lower < arrived.start);
            start.min(self.pending.end)..self.pending.end
        } else {
            let end = taps.partition_point(|tap| tap.upper < arrived.end);
            self.pending.start..end.max(self.pending.start)
        }
    }

    fn convert<T: Stored>(&mut self, first: usize, slices: &[T], arrived: Range<usize>) {
        let Self {
            plan,
            conversion,
            needed,
            planes,
            spare,
            ..
        } = self;
        let kept = planes.len();
        planes.extend(
            arrived
                .filter(|position| needed[*position])
                .map(|position| (position, spare.pop().unwrap_or_default())),
        );
        planes[kept..].par_iter_mut().for_each(|(position, plane)| {
            let number = plan.depth.index(*position) - first;
            let slice = &slices[number * plan.slice_voxels..][..plan.slice_voxels];
            plane.resize(plan.height.source.len() * plan.width.source.len(), 0.0);
            convert_slice(plan, *conversion, slice, plane);
        });
    }

    fn write(&mut self, ready: Range<usize>) {
        let Self {
            plan,
            taps,
            planes,
            scale,
            output,
            ..
        } = self;
        let plane_values = plan.shape.height * plan.shape.width;
        let plane = |wanted: usize| {
            let found = planes.iter().find(|(position, _)| *position == wanted);
            found
                .expect("a value is written when its slices are there")
                .1
                .as_slice()
        };
        let target = plan.depth.target.start + ready.start..plan.depth.target.start + ready.end;
        let out = &mut output[target.start * plane_values..target.end * plane_values];
        out.par_chunks_mut(plane_values)
            .zip(&plan.depth.taps[ready])
            .for_each(|(out, tap)| {
                let rows = pad_plane(plan, out);
                let finish = |value| scale.apply(value);
                interpolate_plane(
                    plane(tap.lower),
                    plane(tap.upper),
                    tap.fraction,
                    taps,
                    rows,
                    finish,
                );
            });
    }
}

/// Fills the padding of a slice of the result and returns the rows that are left to write.
fn pad_plane<'out>(plan: &Plan, out: &'out mut [f32]) -> impl Iterator<Item = &'out mut [f32]> {
    let (height, width) = (plan.height.target.clone(), plan.width.target.clone());
    let (before, rest) = out.split_at_mut(height.start * plan.shape.width);
    let (rows, after) = rest.split_at_mut(height.len() * plan.shape.width);
    before.fill(plan.pad_value);
    after.fill(plan.pad_value);
    let pad_value = plan.pad_value;
    rows.chunks_exact_mut(plan.shape.width).map(move |row| {
        row[..width.start].fill(pad_value);
        row[width.end..].fill(pad_value);
        &mut row[width.clone()]
    })
}

/// One stored slice as `[height, width]` of converted values, the needed part only.
fn convert_slice<T: Stored>(plan: &Plan, conversion: Conversion, slice: &[T], plane: &mut [f32]) {
    if plan.transposed() {
        transpose_slice(plan, conversion, slice, plane);
        return;
    }
    let Range { start, end } = stored_range(&plan.width);
    for (position, row) in plane.chunks_exact_mut(plan.width.source.len()).enumerate() {
        let stored = &slice[plan.height.index(position) * plan.row_stride..][start..end];
        let converted = stored.iter().map(|stored| conversion.apply(stored.widen()));
        if plan.width.storage.reversed {
            row.iter_mut()
                .zip(converted.rev())
                .for_each(|(value, new)| *value = new);
        } else {
            row.iter_mut()
                .zip(converted)
                .for_each(|(value, new)| *value = new);
        }
    }
}

/// The same where the height of the result runs along stored rows, in squares: whole cache lines in, converted as vectors,
/// whole cache lines out.
fn transpose_slice<T: Stored>(plan: &Plan, conversion: Conversion, slice: &[T], plane: &mut [f32]) {
    // 16 floats fill a cache line.
    const SIDE: usize = 16;
    let (width, height) = (plan.width.source.len(), plan.height.source.len());
    let Range { start, end } = stored_range(&plan.height);
    let mut square = [[0.0; SIDE]; SIDE];
    for left in (0..width).step_by(SIDE) {
        let columns = left..(left + SIDE).min(width);
        for top in (start..end).step_by(SIDE) {
            let along = top..(top + SIDE).min(end);
            for (column, values) in columns.clone().zip(&mut square) {
                let row = plan.width.index(column) * plan.row_stride;
                let stored = &slice[row..][along.clone()];
                for (value, stored) in values.iter_mut().zip(stored) {
                    *value = conversion.apply(stored.widen());
                }
            }
            for (number, position) in along.enumerate() {
                let row = if plan.height.storage.reversed {
                    height - 1 - (position - start)
                } else {
                    position - start
                };
                let out = &mut plane[row * width..][columns.clone()];
                for (out, values) in out.iter_mut().zip(&square) {
                    *out = values[number];
                }
            }
        }
    }
}

/// Storage indices of an axis that are read, in storage order.
fn stored_range(axis: &AxisPlan) -> Range<usize> {
    let Range { start, end } = axis.source.clone();
    if axis.storage.reversed {
        axis.len - end..axis.len - start
    } else {
        start..end
    }
}
