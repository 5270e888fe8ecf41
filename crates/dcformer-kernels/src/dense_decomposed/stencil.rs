//! Convolution of a volume with one channel by a few taps anywhere around a voxel.
//!
//! With one input channel there is nothing to sum over within a tap, so the taps themselves are the steps of the matrix
//! product: `[voxels, taps] · [taps, channels_out]`, the left side read in place from the volume through a table of
//! distances.
//!
//! Near the border some taps are outside and count as zeros. Each axis is cut into *zones*, ranges of positions with the same
//! taps inside: one large in the middle, one for each position at the ends. Every combination of three zones has a table and
//! a matrix of its own with just the taps that are inside, so no tile ever asks where it is.

use std::collections::BTreeMap;
use std::ops::Range;

use super::cpu::Filters;
use crate::geometry::Geometry;
use crate::matmul::{
    Panels, Places, Store, Target, multiply_scattered_tile, store_tile, with_tile_rows,
};
use crate::simd::{Kernel, LINE, Level, Simd};
use crate::statistics::add_to;

/// Lines of each row that a tile asks for ahead: those that the widest tile of stride 4 reads.
const LINES_AHEAD: usize = 3;

/// Taps that count together: those through which a voxel reads one voxel of a layer between, or all.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    /// The voxel between, relative to the output voxel, in voxels of the output. Outside the grid, the part is zero.
    pub(crate) shift: [isize; 3],
    /// In voxels of the input, relative to the first that the output voxel stands for.
    pub(crate) taps: Vec<[isize; 3]>,
    /// `[taps, channels_out]`
    pub(crate) weight: Vec<f32>,
    /// `[channels_out]`
    pub(crate) bias: Vec<f32>,
}

impl Part {
    /// One branch of a decomposed convolution of one channel.
    pub(crate) fn branch(filters: Filters<'_>, branch: usize) -> Self {
        Self {
            shift: [0; 3],
            taps: branch_taps(filters, branch).collect(),
            weight: filters.branch(branch).to_vec(),
            bias: vec![0.0; filters.channels_out],
        }
    }

    /// All three branches; taps that are equal are added where they are used.
    pub(crate) fn decomposed(filters: Filters<'_>, bias: &[f32]) -> Self {
        Self {
            shift: [0; 3],
            taps: (0..3)
                .flat_map(|branch| branch_taps(filters, branch))
                .collect(),
            weight: filters.weight.to_vec(),
            bias: bias.to_vec(),
        }
    }
}

fn branch_taps(filters: Filters<'_>, branch: usize) -> impl Iterator<Item = [isize; 3]> {
    (0..filters.taps).map(move |tap| filters.shift(branch, tap))
}

/// A convolution for volumes of one size.
#[derive(Clone, Debug)]
pub(crate) struct Stencil {
    stride: usize,
    /// Sizes of one volume of input.
    size: [usize; 3],
    /// Ranges of output positions along each axis.
    zones: [Vec<Range<usize>>; 3],
    /// For each combination of zones.
    by_zone: Vec<ZoneStencil>,
}

/// The taps that are inside in one combination of zones.
#[derive(Clone, Debug)]
struct ZoneStencil {
    /// Distance from a voxel to the first value that it reads; at most 0.
    start: isize,
    /// Distances from there.
    places: Places,
    /// `[taps, channels_out]`
    panels: Panels,
    bias: Vec<f32>,
}

impl Stencil {
    /// The sum of `parts` for volumes of `geometry`.
    pub(crate) fn new(
        level: Level,
        parts: &[Part],
        channels_out: usize,
        geometry: Geometry,
        stride: usize,
    ) -> Self {
        let (size, grid) = (geometry.size, geometry.strided(stride).size);
        let zones = [0, 1, 2].map(|axis| zones(parts, axis, [size[axis], grid[axis]], stride));
        let starts = |axis: usize| zones[axis].iter().map(|zone| zone.start);
        let mut by_zone = Vec::new();
        for z in starts(0) {
            for y in starts(1) {
                for x in starts(2) {
                    let at = [z, y, x];
                    by_zone.push(ZoneStencil::new(
                        level,
                        parts,
                        channels_out,
                        at,
                        [size, grid],
                        stride,
                    ));
                }
            }
        }
        Self {
            stride,
            size,
            zones,
            by_zone,
        }
    }

    pub(crate) fn channels_out(&self) -> usize {
        self.by_zone
            .first()
            .map_or(0, |stencil| stencil.panels.columns())
    }

    /// The zone of a position.
    fn zone(&self, axis: usize, position: usize) -> usize {
        self.zones[axis].partition_point(|zone| zone.end <= position)
    }
}

/// Ranges of positions along an axis with the same parts and the same taps inside.
fn zones(
    parts: &[Part],
    axis: usize,
    [size, grid]: [usize; 2],
    stride: usize,
) -> Vec<Range<usize>> {
    let is_inside = |position: usize| -> Vec<bool> {
        let at = position as isize;
        let inside = |place: isize, size: usize| (0..size as isize).contains(&place);
        parts
            .iter()
            .flat_map(|part| {
                let own = inside(at + part.shift[axis], grid);
                part.taps
                    .iter()
                    .map(move |tap| own && inside(at * stride as isize + tap[axis], size))
                    .chain([own])
            })
            .collect()
    };
    let reach = parts
        .iter()
        .flat_map(|part| part.taps.iter().map(|tap| tap[axis].unsigned_abs()))
        .max()
        .unwrap_or(0)
        .div_ceil(stride)
        + 1;
    // In the middle everything is inside; only the ends need to be looked at one by one.
    let middle = reach.min(grid)..grid.saturating_sub(reach).max(reach.min(grid));
    let mut zones: Vec<Range<usize>> = Vec::new();
    let mut last = None;
    for position in (0..middle.start).chain((!middle.is_empty()).then_some(middle.start)) {
        let now = is_inside(position);
        let end = if position == middle.start {
            middle.end
        } else {
            position + 1
        };
        push(&mut zones, &mut last, now, position..end);
    }
    for position in middle.end..grid {
        push(
            &mut zones,
            &mut last,
            is_inside(position),
            position..position + 1,
        );
    }
    zones
}

/// Adds a range, to the last zone if it is of the same kind.
fn push(
    zones: &mut Vec<Range<usize>>,
    last: &mut Option<Vec<bool>>,
    kind: Vec<bool>,
    range: Range<usize>,
) {
    match zones.last_mut() {
        Some(zone) if *last == Some(kind.clone()) => zone.end = range.end,
        _ => zones.push(range),
    }
    *last = Some(kind);
}

impl ZoneStencil {
    /// Of the zones that begin at `at`.
    fn new(
        level: Level,
        parts: &[Part],
        channels_out: usize,
        at: [usize; 3],
        [size, grid]: [[usize; 3]; 2],
        stride: usize,
    ) -> Self {
        let inside = |shift: &[isize; 3], scale: usize, size: [usize; 3]| {
            (0..3).all(|axis| {
                let place = (at[axis] * scale) as isize + shift[axis];
                (0..size[axis] as isize).contains(&place)
            })
        };
        let mut bias = vec![0.0; channels_out];
        let (mut taps, mut matrix) = (BTreeMap::new(), Vec::new());
        for part in parts.iter().filter(|part| inside(&part.shift, 1, grid)) {
            add_to(&mut bias, &part.bias);
            let rows = part.weight.chunks_exact(channels_out.max(1));
            for (tap, row) in part.taps.iter().zip(rows) {
                if !inside(tap, stride, size) {
                    continue;
                }
                let next = taps.len();
                let place = *taps.entry(*tap).or_insert(next);
                if place == next {
                    matrix.extend_from_slice(row);
                } else {
                    add_to(&mut matrix[place * channels_out..][..channels_out], row);
                }
            }
        }
        let [_, height, width] = size.map(|size| size as isize);
        let distance = |tap: &[isize; 3]| (tap[0] * height + tap[1]) * width + tap[2];
        let start = taps.keys().map(distance).fold(0, isize::min);
        let mut places = vec![0; taps.len()];
        let mut ends = BTreeMap::new();
        for (tap, step) in &taps {
            places[*step] = (distance(tap) - start) as usize;
            let end = ends.entry([tap[0], tap[1]]).or_insert(0);
            *end = places[*step].max(*end);
        }
        // The lines of memory after the end of each row, nearest first; rows of later planes, which come from farthest, first.
        let line = |line: usize| ends.values().rev().map(move |end| end + line * LINE);
        let ahead = (0..LINES_AHEAD).flat_map(line).collect();
        Self {
            start,
            panels: Panels::of(level, &matrix, places.len(), channels_out),
            places: Places::new(places, ahead),
            bias,
        }
    }
}

/// One row of output.
pub(crate) struct StencilRow<'a> {
    /// One volume.
    pub(crate) x: &'a [f32],
    pub(crate) stencil: &'a Stencil,
    /// Its depth and height.
    pub(crate) at: [usize; 2],
    /// `[voxels, channels_out]`
    pub(crate) out: &'a mut [f32],
    /// Whether a GELU follows.
    pub(crate) activate: bool,
}

impl Kernel for StencilRow<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        let stencil = self.stencil;
        let [z, y] = [0, 1].map(|axis| stencil.zone(axis, self.at[axis]));
        let along = &stencil.zones[2];
        for (x, zone) in along.iter().enumerate() {
            let here = (z * stencil.zones[1].len() + y) * along.len() + x;
            let here = &stencil.by_zone[here];
            let mut voxel = zone.start;
            while voxel < zone.end {
                voxel += with_tile_rows!(S, zone.end - voxel, |ROWS| self
                    .tile::<S, ROWS>(simd, voxel, here));
            }
        }
    }
}

impl StencilRow<'_> {
    /// Voxels `first..first + ROWS` of the row, all channels.
    #[inline(always)]
    fn tile<S: Simd, const ROWS: usize>(
        &mut self,
        simd: S,
        first: usize,
        here: &ZoneStencil,
    ) -> usize {
        let stride = self.stencil.stride;
        let [z, y, x] = [self.at[0], self.at[1], first].map(|at| at * stride);
        let [_, height, width] = self.stencil.size;
        let centre = (z * height + y) * width + x;
        let values = &self.x[(centre as isize + here.start) as usize..];
        for (columns, panel) in here.panels.iter() {
            let mut sums = [[simd.splat(0.0); 2]; ROWS];
            multiply_scattered_tile(simd, &mut sums, values, stride, &here.places, panel);
            let target = Target {
                out: &mut *self.out,
                row: first,
                stride: here.panels.columns(),
                columns,
            };
            let store = if self.activate {
                Store::BiasedGelu(&here.bias)
            } else {
                Store::Biased(&here.bias)
            };
            store_tile(simd, &sums, target, store);
        }
        ROWS
    }
}
