//! Register tiles and the matrix products made of them.
//!
//! One loop does all the multiplying in this crate: a tile of `ROWS x 2` vectors of sums stays in registers while a
//! *panel* (two vectors wide, packed one step after the other) streams past and single values of the other operand are
//! broadcast. A matrix product, a dense convolution and both their gradients differ only in the strides of the
//! broadcast operand.

use rayon::prelude::*;

use crate::gathered::ROW;
use crate::math;
use crate::simd::{Kernel, LINE, Level, Simd};
use crate::statistics::add_to;

/// Runs `$body` with the largest tile of `$S`, in rows, that fits into `$left`; `$ROWS` is its height in there.
macro_rules! with_tile_rows {
    ($S:ident, $left:expr, |$ROWS:ident| $body:expr) => {{
        let left: usize = $left;
        macro_rules! tile {
            ($rows:literal) => {{
                const $ROWS: usize = $rows;
                $body
            }};
        }
        match $S::ROWS {
            12 if left >= 12 => tile!(12),
            12 if left >= 8 => tile!(8),
            6 if left >= 6 => tile!(6),
            4.. if left >= 4 => tile!(4),
            3 if left >= 3 => tile!(3),
            _ if left >= 2 => tile!(2),
            _ => tile!(1),
        }
    }};
}
pub(crate) use with_tile_rows;

/// Values read one by one: `values[row * row_stride + step * step_stride]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Broadcast<'a> {
    pub(crate) values: &'a [f32],
    pub(crate) row_stride: usize,
    pub(crate) step_stride: usize,
}

impl<'a> Broadcast<'a> {
    /// Rows of a row-major matrix with `columns` columns.
    pub(crate) fn rows(values: &'a [f32], columns: usize) -> Self {
        Self {
            values,
            row_stride: columns,
            step_stride: 1,
        }
    }

    /// Columns of a row-major matrix with `columns` columns: its transpose.
    pub(crate) fn columns(values: &'a [f32], columns: usize) -> Self {
        Self {
            values,
            row_stride: 1,
            step_stride: columns,
        }
    }

    /// The same, starting further on.
    #[inline(always)]
    pub(crate) fn from(self, row: usize, step: usize) -> Self {
        Self {
            values: &self.values[row * self.row_stride + step * self.step_stride..],
            ..self
        }
    }
}

/// `sums[row] += Σ_step broadcast(row, step) · panel(step)`, `panel` two vectors wide.
///
/// # Panics
/// If an operand is too short for `ROWS` rows and `steps` steps.
#[inline(always)]
pub(crate) fn multiply_tile<S: Simd, const ROWS: usize>(
    simd: S,
    sums: &mut [[S::F32; 2]; ROWS],
    broadcast: Broadcast<'_>,
    panel: &[f32],
    steps: usize,
) {
    if steps == 0 {
        return;
    }
    let Broadcast {
        values,
        row_stride,
        step_stride,
    } = broadcast;
    assert!((ROWS - 1) * row_stride + (steps - 1) * step_stride < values.len());
    let panel = &panel[..steps * 2 * S::LANES];
    // SAFETY: `row < ROWS` and `step < steps`, so no index is beyond the one asserted above; constants stand where they are
    // equal to the strides.
    unsafe {
        match (row_stride, step_stride) {
            // The widths of the stem, whose tiles are the bulk of all work; see `multiply_scattered_tile` for what it brings.
            (32, 1) => multiply_tile_at(simd, sums, values, 32, panel, |step| step),
            (64, 1) => multiply_tile_at(simd, sums, values, 64, panel, |step| step),
            (128, 1) => multiply_tile_at(simd, sums, values, 128, panel, |step| step),
            (256, 1) => multiply_tile_at(simd, sums, values, 256, panel, |step| step),
            _ => multiply_tile_at(simd, sums, values, row_stride, panel, |step| {
                step * step_stride
            }),
        }
    }
}

/// Which side of a gathered block the rows of a tile are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BlockSide {
    Rows,
    Columns,
}

/// [`multiply_tile`] of a [gathered block](crate::gathered), whose distances are constants.
#[inline(always)]
pub(crate) fn multiply_block_tile<S: Simd, const TILE: usize>(
    simd: S,
    sums: &mut [[S::F32; 2]; TILE],
    values: &[f32],
    panel: &[f32],
    side: BlockSide,
) {
    let steps = panel.len() / (2 * S::LANES);
    if steps == 0 {
        return;
    }
    // SAFETY: `row < TILE` and `step < steps`, so no index is beyond the one asserted before each loop.
    unsafe {
        match side {
            BlockSide::Rows => {
                assert!((TILE - 1) * ROW + steps <= values.len());
                multiply_tile_at(simd, sums, values, ROW, panel, |step| step);
            }
            BlockSide::Columns => {
                assert!(TILE + (steps - 1) * ROW <= values.len());
                multiply_tile_at(simd, sums, values, 1, panel, |step| step * ROW);
            }
        }
    }
}

/// [`multiply_tile`] of rows that follow each other, asking with every step for a part of what will be read or written
/// next, `ahead`. All at once, the requests would hold up the loads behind them.
#[inline(always)]
pub(crate) fn multiply_rows_ahead<S: Simd, const ROWS: usize, const AHEAD: usize>(
    simd: S,
    sums: &mut [[S::F32; 2]; ROWS],
    values: &[f32],
    panel: &[f32],
    steps: usize,
    ahead: Ahead<AHEAD>,
) {
    assert!(ROWS * steps <= values.len());
    let panel = &panel[..steps * 2 * S::LANES];
    let place = |step: usize| {
        for start in ahead.starts {
            simd.prefetch(start.wrapping_add(step * ahead.stride));
        }
        step
    };
    // SAFETY: `row < ROWS` and `step < steps`, so no index is beyond the product asserted above; constants stand where they
    // are equal to the stride.
    unsafe {
        match steps {
            32 => multiply_tile_at(simd, sums, values, 32, panel, place),
            64 => multiply_tile_at(simd, sums, values, 64, panel, place),
            128 => multiply_tile_at(simd, sums, values, 128, panel, place),
            _ => multiply_tile_at(simd, sums, values, steps, panel, place),
        }
    }
}

/// What a product asks for ahead: places in memory, and how many values further on it asks with every step.
#[derive(Clone, Copy)]
pub(crate) struct Ahead<const COUNT: usize> {
    pub(crate) starts: [*const f32; COUNT],
    pub(crate) stride: usize,
}

impl<const COUNT: usize> Ahead<COUNT> {
    /// A line of memory from each place with every step.
    #[inline(always)]
    pub(crate) fn lines(starts: [*const f32; COUNT]) -> Self {
        Self {
            starts,
            stride: LINE,
        }
    }
}

/// [`multiply_tile`] with the place of every step in a table: `broadcast(row, step) = values[row * row_stride + places[step]]`.
///
/// # Panics
/// If `values` is too short for `ROWS` rows of the largest place, which is `largest`, or `panel` for the steps.
#[inline(always)]
pub(crate) fn multiply_scattered_tile<S: Simd, const ROWS: usize>(
    simd: S,
    sums: &mut [[S::F32; 2]; ROWS],
    values: &[f32],
    row_stride: usize,
    places: &Places,
    panel: &[f32],
) {
    assert!((ROWS - 1) * row_stride + places.largest < values.len());
    let panel = &panel[..places.places.len() * 2 * S::LANES];
    // SAFETY: no place is beyond the largest and `row < ROWS`, so no index is beyond the one asserted above; the panel has
    // one step for each place, and there are as many places ahead. In the first arm `row_stride` is the constant that stands there.
    unsafe {
        let next = values.as_ptr().wrapping_add(ROWS * row_stride);
        // One line of the next tile with every step: all at once, they would hold up the loads behind them.
        let place = |step: usize| {
            simd.prefetch(next.wrapping_add(*places.ahead.get_unchecked(step)));
            *places.places.get_unchecked(step)
        };
        match row_stride {
            // As a constant it is part of the instruction. With twelve addresses to compute, a compiler broadcasts all
            // twelve values first, for which there are no registers: half the speed. 4 is the stride of the stem.
            4 => multiply_tile_at(simd, sums, values, 4, panel, place),
            _ => multiply_tile_at(simd, sums, values, row_stride, panel, place),
        }
    }
}

/// Where the steps of a [`multiply_scattered_tile`] read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Places {
    places: Vec<usize>,
    largest: usize,
    /// Where the next tile reads what this one does not, one for each step; hints.
    ahead: Vec<usize>,
}

impl Places {
    /// `ahead`: places that the next tile reads and this one does not; as many as there are steps are used.
    pub(crate) fn new(places: Vec<usize>, mut ahead: Vec<usize>) -> Self {
        ahead.resize(places.len(), places.first().copied().unwrap_or(0));
        Self {
            largest: places.iter().copied().max().unwrap_or(0),
            places,
            ahead,
        }
    }
}

/// The loop of both: `sums[row] += Σ_step values[row * row_stride + place(step)] · panel[step]`.
///
/// # Safety
/// `row * row_stride + place(step)` must be inside `values` for every `row < ROWS` and every step of `panel`.
#[inline(always)]
unsafe fn multiply_tile_at<S: Simd, const ROWS: usize>(
    simd: S,
    sums: &mut [[S::F32; 2]; ROWS],
    values: &[f32],
    row_stride: usize,
    panel: &[f32],
    place: impl Fn(usize) -> usize,
) {
    let mut tile = *sums;
    for (step, vectors) in panel.chunks_exact(2 * S::LANES).enumerate() {
        let (first, second) = (simd.load(vectors), simd.load(&vectors[S::LANES..]));
        let place = place(step);
        for (row, sums) in tile.iter_mut().enumerate() {
            // SAFETY: the caller's.
            let value = unsafe { *values.get_unchecked(row * row_stride + place) };
            let value = simd.splat(value);
            sums[0] = simd.mul_add(value, first, sums[0]);
            sums[1] = simd.mul_add(value, second, sums[1]);
        }
    }
    *sums = tile;
}

/// Values that one thread packs faster than several agree on who packs what.
const PACKED_BY_ONE: usize = 1 << 17;

/// A matrix `[steps, columns]` cut into panels: `[panel][step][width]`, the last panel filled up with zeros.
#[derive(Clone, Debug, Default)]
pub(crate) struct Panels {
    values: Vec<f32>,
    steps: usize,
    columns: usize,
    width: usize,
}

impl Panels {
    /// Width of a panel at `level`: two vectors.
    pub(crate) fn width(level: Level) -> usize {
        struct Lanes;
        impl Kernel for Lanes {
            type Output = usize;
            #[inline(always)]
            fn run<S: Simd>(self, _: S) -> usize {
                S::LANES
            }
        }
        2 * level.run(Lanes)
    }

    /// Packs the matrix whose element `(step, column)` is `values[step * step_stride + column * column_stride]`.
    pub(crate) fn pack(
        level: Level,
        values: &[f32],
        [steps, columns]: [usize; 2],
        [step_stride, column_stride]: [usize; 2],
    ) -> Self {
        let mut panels = Self::default();
        panels.repack(
            level,
            values,
            [steps, columns],
            [step_stride, column_stride],
        );
        panels
    }

    /// The panels of a row-major `[steps, columns]` matrix: itself where it is as wide as a panel, else packed into the
    /// memory of these.
    pub(crate) fn over<'a>(
        &'a mut self,
        level: Level,
        values: &'a [f32],
        steps: usize,
        columns: usize,
    ) -> PanelView<'a> {
        let width = Self::width(level);
        if columns != width {
            self.repack(level, values, [steps, columns], [columns, 1]);
            return self.view();
        }
        PanelView {
            values: &values[..steps * columns],
            steps,
            columns,
            width,
        }
    }

    fn repack(
        &mut self,
        level: Level,
        values: &[f32],
        [steps, columns]: [usize; 2],
        [step_stride, column_stride]: [usize; 2],
    ) {
        let width = Self::width(level);
        (self.steps, self.columns, self.width) = (steps, columns, width);
        let packed = &mut self.values;
        // Whatever was there is overwritten, but for what fills up the last panel.
        packed.resize(columns.div_ceil(width) * steps * width, 0.0);
        let pack = |(panel, packed): (usize, &mut [f32])| {
            let first = panel * width;
            let here = width.min(columns - first);
            for (step, packed) in packed.chunks_exact_mut(width).enumerate() {
                let start = step * step_stride + first * column_stride;
                packed[here..].fill(0.0);
                if column_stride == 1 {
                    packed[..here].copy_from_slice(&values[start..start + here]);
                } else {
                    for (column, packed) in packed[..here].iter_mut().enumerate() {
                        *packed = values[start + column * column_stride];
                    }
                }
            }
        };
        let len = (steps * width).max(1);
        if packed.len() < PACKED_BY_ONE {
            packed.chunks_exact_mut(len).enumerate().for_each(pack);
        } else {
            packed.par_chunks_exact_mut(len).enumerate().for_each(pack);
        }
    }

    /// Packs a row-major `[steps, columns]` matrix.
    pub(crate) fn of(level: Level, values: &[f32], steps: usize, columns: usize) -> Self {
        Self::pack(level, values, [steps, columns], [columns, 1])
    }

    /// Packs the transpose of a row-major `[columns, steps]` matrix.
    pub(crate) fn of_transposed(
        level: Level,
        values: &[f32],
        steps: usize,
        columns: usize,
    ) -> Self {
        Self::pack(level, values, [steps, columns], [1, steps])
    }

    /// Number of columns.
    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    /// All panels, one after the other: `[panel][step][width]`.
    #[inline(always)]
    pub(crate) fn values(&self) -> &[f32] {
        &self.values
    }

    /// The panels with the columns that each covers.
    #[inline(always)]
    pub(crate) fn iter(&self) -> impl Iterator<Item = (std::ops::Range<usize>, &[f32])> {
        self.view().iter()
    }

    fn view(&self) -> PanelView<'_> {
        PanelView {
            values: &self.values,
            steps: self.steps,
            columns: self.columns,
            width: self.width,
        }
    }
}

/// [`Panels`] whose values lie elsewhere.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PanelView<'a> {
    values: &'a [f32],
    steps: usize,
    columns: usize,
    width: usize,
}

impl<'a> PanelView<'a> {
    /// Number of columns.
    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    /// The panels with the columns that each covers.
    #[inline(always)]
    pub(crate) fn iter(self) -> impl Iterator<Item = (std::ops::Range<usize>, &'a [f32])> {
        let (width, columns) = (self.width, self.columns);
        self.values
            .chunks_exact((self.steps * width).max(1))
            .enumerate()
            .map(move |(panel, values)| (panel * width..((panel + 1) * width).min(columns), values))
    }
}

/// What happens to a product on its way to memory.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Store<'a> {
    /// It replaces what is there, with a value per column added.
    Biased(&'a [f32]),
    /// It replaces what is there.
    Plain,
    /// It is added to what is there.
    Add,
    /// It replaces what is there, with a value per column added, through a GELU.
    BiasedGelu(&'a [f32]),
}

/// Rows of one task: enough work to be worth a thread's attention, few enough for the cache.
const ROWS_PER_TASK: usize = 48;

/// `out = a · b`, row-major `[rows, b.columns()]`, on all threads.
pub(crate) fn matmul(
    level: Level,
    a: Broadcast<'_>,
    b: &Panels,
    out: &mut [f32],
    store: Store<'_>,
) {
    let columns = b.columns;
    if columns == 0 {
        return;
    }
    // A product over nothing is a product over one zero.
    let zero = (b.steps == 0).then(|| Panels::of(level, &vec![0.0; columns], 1, columns));
    let (a, b) = match &zero {
        Some(zero) => (Broadcast::rows(&[0.0], 0), zero),
        None => (a, b),
    };
    let len = ROWS_PER_TASK * columns;
    out.par_chunks_mut(len).enumerate().for_each(|(task, out)| {
        level.run(Product {
            a: a.from(task * ROWS_PER_TASK, 0),
            b,
            out,
            store,
        });
    });
}

/// [`matmul`] of few rows, inside a task of its caller.
pub(crate) struct Product<'a> {
    pub(crate) a: Broadcast<'a>,
    pub(crate) b: &'a Panels,
    pub(crate) out: &'a mut [f32],
    pub(crate) store: Store<'a>,
}

impl Kernel for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let rows = self.out.len() / self.b.columns;
        for (columns, panel) in self.b.iter() {
            let mut row = 0;
            while row < rows {
                let tile = TileOf {
                    a: self.a.from(row, 0),
                    panel,
                    steps: self.b.steps,
                };
                let target = Target {
                    out: &mut *self.out,
                    row,
                    stride: self.b.columns,
                    columns: columns.clone(),
                };
                row += with_tile_rows!(S, rows - row, |ROWS| tile
                    .multiply::<S, ROWS>(simd, target, self.store));
            }
        }
    }
}

struct TileOf<'a> {
    a: Broadcast<'a>,
    panel: &'a [f32],
    steps: usize,
}

/// Where a tile's sums go: rows from `row` on of a row-major matrix, some of its columns.
pub(crate) struct Target<'a> {
    pub(crate) out: &'a mut [f32],
    pub(crate) row: usize,
    pub(crate) stride: usize,
    pub(crate) columns: std::ops::Range<usize>,
}

impl TileOf<'_> {
    #[inline(always)]
    fn multiply<S: Simd, const ROWS: usize>(
        self,
        simd: S,
        target: Target<'_>,
        store: Store<'_>,
    ) -> usize {
        let mut sums = [[simd.splat(0.0); 2]; ROWS];
        multiply_tile(simd, &mut sums, self.a, self.panel, self.steps);
        store_tile(simd, &sums, target, store);
        ROWS
    }
}

/// Writes a tile's sums.
#[inline(always)]
pub(crate) fn store_tile<S: Simd, const ROWS: usize>(
    simd: S,
    sums: &[[S::F32; 2]; ROWS],
    target: Target<'_>,
    store: Store<'_>,
) {
    let Target {
        out,
        row,
        stride,
        columns,
    } = target;
    for (tile_row, sums) in sums.iter().enumerate() {
        let start = (row + tile_row) * stride;
        let out = &mut out[start + columns.start..start + columns.end];
        for (half, &sum) in sums.iter().enumerate() {
            let first = half * S::LANES;
            if first >= out.len() {
                break;
            }
            let out = &mut out[first..];
            let biased = |bias: &[f32]| {
                let bias = &bias[columns.start + first..columns.end];
                simd.add(sum, simd.load_partial(bias))
            };
            let value = match store {
                Store::Plain => sum,
                Store::Biased(bias) => biased(bias),
                Store::Add => simd.add(sum, simd.load_partial(out)),
                Store::BiasedGelu(bias) => math::gelu(simd, biased(bias)),
            };
            simd.store_partial(value, out);
        }
    }
}

/// Steps of one partial sum of [`matmul_over_rows`]; a constant, so that the order of additions does not depend on
/// the number of threads.
const STEPS_PER_PARTIAL: usize = 4096;

/// `out = aᵀ · b` for row-major `a: [steps, rows]` and `b: [steps, columns]` with many steps: gradients of weights.
pub(crate) fn matmul_over_rows(
    level: Level,
    a: &[f32],
    b: &[f32],
    [steps, rows, columns]: [usize; 3],
) -> Vec<f32> {
    let partials: Vec<Vec<f32>> = (0..steps.div_ceil(STEPS_PER_PARTIAL).max(1))
        .into_par_iter()
        .map(|partial| {
            let from = partial * STEPS_PER_PARTIAL;
            let to = (from + STEPS_PER_PARTIAL).min(steps);
            let panels = Panels::of(level, &b[from * columns..to * columns], to - from, columns);
            let mut out = vec![0.0; rows * columns];
            matmul(
                level,
                Broadcast::columns(&a[from * rows..to * rows], rows),
                &panels,
                &mut out,
                Store::Plain,
            );
            out
        })
        .collect();
    sum_in_order(partials)
}

/// Element-wise sum, first to last.
pub(crate) fn sum_in_order(partials: Vec<Vec<f32>>) -> Vec<f32> {
    let mut partials = partials.into_iter();
    let mut total = partials.next().unwrap_or_default();
    for partial in partials {
        add_to(&mut total, &partial);
    }
    total
}
