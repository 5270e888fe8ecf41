//! Matrix products whose left side is gathered block by block: the windows of a convolution.
//!
//! A dense convolution is the product of a matrix of windows, `[voxels, taps * channels]`, with its weights. That matrix would
//! be many times the grid, so it never exists: a block of it is gathered, used for all output channels while it is in the
//! second-level cache, and overwritten by the next. Rows of a block lie [`ROW`] values apart whatever the matrix, so that
//! the multiplying loop has constant distances, and voxels of different rows of a grid share a tile, however narrow it is.

use std::ops::Range;

use rayon::prelude::*;

use crate::geometry::{Geometry, ranges};
use crate::matmul::{BlockSide, sum_in_order};
use crate::matmul::{Panels, Store, Target, multiply_block_tile, store_tile, with_tile_rows};
use crate::memory::fill_chunks;
use crate::simd::{Kernel, Level, MAX_LANES, Simd};

/// Values from one row of a block to the next: room for the steps and a vector that reaches beyond them. An odd number of
/// cache lines, so that the rows of a tile do not compete for the same places of a cache.
pub(crate) const ROW: usize = 272;
/// Most steps of a block: a panel of them fills the nearest cache. A multiple of the rows of every level's tile.
const STEPS: usize = 252;
const _: () = assert!(STEPS + MAX_LANES <= ROW && STEPS.is_multiple_of(12));
/// Most rows of a block, of a multiple of the rows of every level's tile.
const ROWS: usize = 96;
/// Tasks that a product is cut into at least, if it has the rows for it.
const TASKS: usize = 16;

/// A matrix that is not in memory as such.
pub(crate) trait Gather: Sync {
    /// Number of columns: the steps of products.
    fn steps(&self) -> usize;

    /// Writes some columns of some rows, one row every [`ROW`] values of `into`; what is between them is overwritten, too.
    fn gather<S: Simd>(&self, simd: S, rows: Range<usize>, steps: Range<usize>, into: &mut [f32]);
}

/// The steps cut into blocks of about the same size.
fn blocks(steps: usize) -> impl Iterator<Item = Range<usize>> {
    ranges(steps, block_len(steps))
}

fn block_len(steps: usize) -> usize {
    steps
        .div_ceil(steps.div_ceil(STEPS).max(1))
        .next_multiple_of(12)
        .max(1)
}

/// Rows of a task: fewer where there would be few tasks. It depends on the number of rows alone.
fn rows_per_task(rows: usize) -> usize {
    rows.div_ceil(TASKS).next_multiple_of(12).clamp(12, ROWS)
}

/// What follows a product.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Epilogue<'a> {
    /// Added to every row.
    pub(crate) bias: &'a [f32],
    /// Whether what is negative becomes zero.
    pub(crate) rectify: bool,
}

/// `source · panels`, `[rows, columns]`, on all threads.
pub(crate) fn product<G: Gather>(
    level: Level,
    source: &G,
    rows: usize,
    panels: &Panels,
    epilogue: Epilogue<'_>,
) -> Vec<f32> {
    let columns = panels.columns();
    let per_task = rows_per_task(rows);
    fill_chunks(
        rows * columns,
        per_task * columns,
        Vec::new,
        |scratch, task, out| {
            let first = task * per_task;
            level.run(RowsProduct {
                source,
                first,
                panels,
                epilogue,
                scratch,
                out,
            });
        },
    )
}

/// Some rows of a [`product`], inside a task of the caller.
pub(crate) struct RowsProduct<'a, G> {
    pub(crate) source: &'a G,
    /// The first row.
    pub(crate) first: usize,
    pub(crate) panels: &'a Panels,
    pub(crate) epilogue: Epilogue<'a>,
    pub(crate) scratch: &'a mut Vec<f32>,
    /// `[rows, columns]`
    pub(crate) out: &'a mut [f32],
}

impl<G: Gather> Kernel for RowsProduct<'_, G> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let columns = self.panels.columns();
        self.scratch.resize(ROWS * ROW, 0.0);
        for (block, out) in self.out.chunks_mut(ROWS * columns).enumerate() {
            let first = self.first + block * ROWS;
            let rows = out.len() / columns;
            for steps in blocks(self.source.steps()) {
                let gathered = first..first + rows;
                self.source
                    .gather(simd, gathered, steps.clone(), self.scratch);
                let store = match steps.start {
                    0 => Store::Biased(self.epilogue.bias),
                    _ => Store::Add,
                };
                multiply_block::<S>(simd, self.scratch, rows, steps, self.panels, out, store);
            }
            if self.epilogue.rectify {
                for values in out.chunks_mut(S::LANES) {
                    let value = simd.max(simd.load_partial(values), simd.splat(0.0));
                    simd.store_partial(value, values);
                }
            }
        }
    }
}

/// The product of a gathered block, its `steps` of the panels'.
#[inline(always)]
fn multiply_block<S: Simd>(
    simd: S,
    gathered: &[f32],
    rows: usize,
    steps: Range<usize>,
    panels: &Panels,
    out: &mut [f32],
    store: Store<'_>,
) {
    let width = 2 * S::LANES;
    for (columns, panel) in panels.iter() {
        let panel = &panel[steps.start * width..steps.end * width];
        let mut row = 0;
        while row < rows {
            row += with_tile_rows!(S, rows - row, |TILE| {
                let mut sums = [[simd.splat(0.0); 2]; TILE];
                let values = &gathered[row * ROW..];
                multiply_block_tile(simd, &mut sums, values, panel, BlockSide::Rows);
                let target = Target {
                    out: &mut *out,
                    row,
                    stride: panels.columns(),
                    columns: columns.clone(),
                };
                store_tile(simd, &sums, target, store);
                TILE
            });
        }
    }
}

/// Values that the partial sums of a [`product_over_rows`] may hold together, 64 MB.
const PARTIAL_VALUES: usize = 1 << 24;
/// Least rows of a partial sum.
const ROWS_PER_PARTIAL: usize = 1024;

/// `sourceᵀ · b`, `[steps, columns]`, for `b`: `[rows, columns]` with many rows: the gradient of weights.
///
/// Blocks of steps are independent; where there are few of them, the rows are cut into partial sums, added in order. How many
/// depends on the sizes alone.
pub(crate) fn product_over_rows<G: Gather>(
    level: Level,
    source: &G,
    rows: usize,
    b: &[f32],
    columns: usize,
) -> Vec<f32> {
    let len = source.steps() * columns;
    let block = block_len(source.steps());
    let partials = TASKS
        .div_ceil(source.steps().div_ceil(block).max(1))
        .min(rows.div_ceil(ROWS_PER_PARTIAL))
        .min(PARTIAL_VALUES / len.max(1))
        .max(1);
    let per_partial = rows.div_ceil(partials).max(1);
    let sums = (0..partials)
        .into_par_iter()
        .map(|partial| {
            let from = (partial * per_partial).min(rows);
            let to = (from + per_partial).min(rows);
            fill_chunks(
                len,
                block * columns,
                || (Vec::new(), Panels::default()),
                |(scratch, packed), task, out| {
                    let start = task * block;
                    level.run(StepsProduct {
                        level,
                        source,
                        rows: from..to,
                        steps: start..(start + block).min(source.steps()),
                        b,
                        columns,
                        scratch,
                        packed,
                        out,
                    });
                },
            )
        })
        .collect();
    sum_in_order(sums)
}

/// Some steps of a [`product_over_rows`], of some rows.
struct StepsProduct<'a, G> {
    level: Level,
    source: &'a G,
    rows: Range<usize>,
    steps: Range<usize>,
    /// `[rows, columns]`, all rows
    b: &'a [f32],
    columns: usize,
    scratch: &'a mut Vec<f32>,
    packed: &'a mut Panels,
    /// `[steps, columns]`
    out: &'a mut [f32],
}

impl<G: Gather> Kernel for StepsProduct<'_, G> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        /// Rows that are gathered together.
        const ROWS: usize = 192;
        self.scratch.resize(ROWS * ROW, 0.0);
        let (columns_all, steps) = (self.columns, self.steps.len());
        for from in self.rows.clone().step_by(ROWS) {
            let rows = from..(from + ROWS).min(self.rows.end);
            self.source
                .gather(simd, rows.clone(), self.steps.clone(), self.scratch);
            let b = &self.b[rows.start * columns_all..rows.end * columns_all];
            let panels = self.packed.over(self.level, b, rows.len(), columns_all);
            for (columns, panel) in panels.iter() {
                let mut step = 0;
                while step < steps {
                    step += with_tile_rows!(S, steps - step, |TILE| {
                        let mut sums = [[simd.splat(0.0); 2]; TILE];
                        let values = &self.scratch[step..];
                        multiply_block_tile(simd, &mut sums, values, panel, BlockSide::Columns);
                        let target = Target {
                            out: &mut *self.out,
                            row: step,
                            stride: columns_all,
                            columns: columns.clone(),
                        };
                        store_tile(simd, &sums, target, Store::Add);
                        TILE
                    });
                }
            }
        }
    }
}

/// What each position of a grid reads: a box of `taps` voxels of another grid, zeros outside it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Windows<'a> {
    pub(crate) values: &'a [f32],
    /// Of the grid that is read.
    pub(crate) geometry: Geometry,
    /// Positions along depth, height, width, each of which is a row of the matrix.
    pub(crate) positions: [usize; 3],
    /// Voxels from one position's box to the next.
    pub(crate) stride: usize,
    /// Where the first box begins.
    pub(crate) offset: [isize; 3],
    /// Voxels of a box along depth, height, width.
    pub(crate) taps: [usize; 3],
}

/// Where a box begins.
#[derive(Clone, Copy, Debug, Default)]
struct Origin {
    /// Index of its first value, in the grid or before it.
    start: isize,
    z: isize,
    y: isize,
    x: isize,
}

impl Windows<'_> {
    #[inline(always)]
    fn origin(&self, row: usize) -> Origin {
        let [depth, height, width] = self.positions;
        let at = [
            row / (height * width) % depth,
            row / width % height,
            row % width,
        ];
        let volume = row / (depth * height * width);
        let place = |axis: usize| (at[axis] * self.stride) as isize + self.offset[axis];
        let [z, y, x] = [place(0), place(1), place(2)];
        let [planes, rows, voxels] = self.geometry.size.map(|size| size as isize);
        let line = (volume as isize * planes + z) * rows + y;
        Origin {
            start: (line * voxels + x) * self.geometry.channels as isize,
            z,
            y,
            x,
        }
    }

    /// Values `within` of a line of a box, at the border of the grid.
    #[inline(always)]
    fn copy_clipped(&self, origin: Origin, line: isize, within: Range<usize>, into: &mut [f32]) {
        let channels = self.geometry.channels as isize;
        into.fill(0.0);
        let width = self.geometry.size[2] as isize;
        // Values of the line that are inside the grid.
        let first = (-origin.x * channels).max(within.start as isize);
        let last = ((width - origin.x) * channels).min(within.end as isize);
        if first < last {
            let from = (origin.start + line + first) as usize;
            let to = (first - within.start as isize) as usize;
            let len = (last - first) as usize;
            into[to..to + len].copy_from_slice(&self.values[from..from + len]);
        }
    }
}

/// Origins of the rows of a block, at most the most that any caller gathers.
const ORIGINS: usize = 192;

impl Gather for Windows<'_> {
    fn steps(&self) -> usize {
        self.taps.iter().product::<usize>() * self.geometry.channels
    }

    #[inline(always)]
    fn gather<S: Simd>(&self, simd: S, rows: Range<usize>, steps: Range<usize>, into: &mut [f32]) {
        let [planes, lines, width] = self.geometry.size;
        let [plane, row, channels] = self.geometry.strides();
        let line_len = (self.taps[2] * channels).max(1);
        let count = rows.len();
        let mut origins = [Origin::default(); ORIGINS];
        for (origin, row) in origins[..count].iter_mut().zip(rows) {
            *origin = self.origin(row);
        }
        let mut step = steps.start;
        while step < steps.end {
            let line = step / line_len;
            let (dz, dy) = (line / self.taps[1], line % self.taps[1]);
            let within = step % line_len..line_len.min(steps.end - line * line_len);
            let len = within.len();
            let distance = (dz * plane + dy * row) as isize;
            let reach = len.next_multiple_of(S::LANES);
            let to = step - steps.start;
            for (origin, into) in origins[..count].iter().zip(into.chunks_exact_mut(ROW)) {
                let inside = ((origin.z + dz as isize) as usize) < planes
                    && ((origin.y + dy as isize) as usize) < lines;
                if !inside {
                    into[to..to + len].fill(0.0);
                    continue;
                }
                let from = (origin.start + distance) as usize;
                let from = from.wrapping_add(within.start);
                let whole = origin.x >= 0 && origin.x as usize + self.taps[2] <= width;
                // A vector may bring values beyond the line, which the next line of the box overwrites.
                if whole && from + reach <= self.values.len() {
                    let values = &self.values[from..from + reach];
                    let into = &mut into[to..to + reach];
                    for (value, into) in values
                        .chunks_exact(S::LANES)
                        .zip(into.chunks_exact_mut(S::LANES))
                    {
                        simd.store(simd.load(value), into);
                    }
                } else {
                    self.copy_clipped(*origin, distance, within.clone(), &mut into[to..to + len]);
                }
            }
            step += len;
        }
    }
}
