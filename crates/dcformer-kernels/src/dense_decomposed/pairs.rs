//! Two taps, one on either side of a voxel, by three products for two outputs, instead of four.
//!
//! The outputs at `i` and `i + 2` both read the voxel between them (Winograd's F(2, 2), on every other voxel):
//! ```text
//! y[i]     = a x[i - 1] + b x[i + 1] = (a + b) x[i + 1] + a (x[i - 1] - x[i + 1])
//! y[i + 2] = a x[i + 1] + b x[i + 3] = (a + b) x[i + 1] + b (x[i + 3] - x[i + 1])
//! ```
//! That is one product and a half for an output, as with F(4, 3) of [`winograd`](super::winograd), and one difference in
//! place of its many sums; but there is no tap in the middle. Axes whose centre is counted elsewhere need none.
//!
//! Along height the two outputs are rows of a tile. Along depth they are planes of a pipeline that computes one after the
//! other: the first of a pair leaves the shared product in the plane of the second, which finds it there.

use crate::matmul::{
    Ahead, Panels, Store, Target, multiply_rows_ahead, store_tile, with_tile_rows,
};
use crate::simd::{Kernel, LINE, Level, Simd};

/// Rows of a tile: two pairs.
pub(crate) const ROWS: usize = 4;

/// The planes of a pair are this far from each other.
pub(crate) const DISTANCE: usize = 2;

/// Whether plane `z` is the first of its pair.
pub(crate) fn is_first(z: usize) -> bool {
    z % (2 * DISTANCE) < DISTANCE
}

/// The matrices of the taps beside a voxel along height and depth.
#[derive(Debug)]
pub(crate) struct SideTaps {
    /// What two rows share, and what two planes do.
    shared: [Panels; 2],
    /// What they do not share: the height's matrix, then the depth's, by which of its pair a row and a plane is.
    own: [[Panels; 2]; 2],
}

impl SideTaps {
    /// `height` and `depth`: three matrices `[channels_in, channels_out]` in the order of the voxels that they read; the
    /// centre is zero.
    pub(crate) fn new(
        level: Level,
        [height, depth]: [&[f32]; 2],
        [steps, columns]: [usize; 2],
    ) -> Self {
        let len = steps * columns;
        let sides = |taps: &[f32]| {
            assert_eq!(taps.len(), 3 * len);
            [taps[..len].to_vec(), taps[2 * len..].to_vec()]
        };
        let (height, depth) = (sides(height), sides(depth));
        let shared = |[before, after]: &[Vec<f32>; 2]| {
            let sums: Vec<f32> = before.iter().zip(after).map(|(a, b)| a + b).collect();
            Panels::of(level, &sums, steps, columns)
        };
        let own = |height: &Vec<f32>| {
            depth
                .each_ref()
                .map(|depth| Panels::of(level, &[&height[..], depth].concat(), 2 * steps, columns))
        };
        Self {
            shared: [shared(&height), shared(&depth)],
            own: height.each_ref().map(own),
        }
    }

    fn channels_out(&self) -> usize {
        self.shared[0].columns()
    }
}

/// Rows of one plane, by the two taps along depth and the two along height, added to what is there.
#[derive(Debug)]
pub(crate) struct PairedRows<'a, 'b, 'c> {
    pub(crate) taps: &'a SideTaps,
    pub(crate) channels_in: usize,
    /// The rows of the input from one before the first row of the output on; `None` outside the volume.
    pub(crate) near: [Option<&'a [f32]>; ROWS + 2],
    /// The rows of the plane before and of the plane after.
    pub(crate) beside: [[Option<&'a [f32]>; ROWS]; 2],
    pub(crate) plane: Plane<'b, 'c>,
    /// At most [`ROWS`], `[width, channels_out]` each.
    pub(crate) out: &'b mut [&'c mut [f32]],
    pub(crate) scratch: &'b mut Vec<f32>,
}

/// Which of its pair a plane is.
#[derive(Debug)]
pub(crate) enum Plane<'b, 'c> {
    /// The first. The product that both share, and the bias, replace what is in the rows of the second, if the volume has it.
    First {
        second: Option<&'b mut [&'c mut [f32]]>,
        bias: &'b [f32],
    },
    /// The second, where the first has left their product.
    Second,
}

impl Kernel for PairedRows<'_, '_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        // The widths of the network's stems as constants: without branches between the products of a tile its sums stay in
        // registers.
        match self.channels_in {
            32 => self.channels::<S, 32>(simd),
            64 => self.channels::<S, 64>(simd),
            _ => self.channels::<S, 0>(simd),
        }
    }
}

/// Voxels that a tile reads: those of a row of the input, or zeros outside the volume.
#[derive(Clone, Copy)]
struct Voxels<'a> {
    here: &'a [f32],
    /// Where the next tile's begin.
    next: *const f32,
}

impl<'a> Voxels<'a> {
    #[inline(always)]
    fn of(
        line: Option<&'a [f32]>,
        [first, count]: [usize; 2],
        channels: usize,
        nothing: &'a [f32],
    ) -> Self {
        let (values, ahead) = match line {
            Some(line) => (&line[first * channels..], count * channels),
            None => (nothing, 0),
        };
        Self {
            here: &values[..count * channels],
            next: values.as_ptr().wrapping_add(ahead),
        }
    }

    /// Those of each row.
    #[inline(always)]
    fn all<const ROWS: usize>(
        lines: [Option<&'a [f32]>; ROWS],
        tile: [usize; 2],
        channels: usize,
        nothing: &'a [f32],
    ) -> [Self; ROWS] {
        // A loop: closures given to an array's methods are not compiled for the instruction set.
        let mut all = [Self::of(None, tile, channels, nothing); ROWS];
        for (voxels, line) in all.iter_mut().zip(lines) {
            *voxels = Self::of(line, tile, channels, nothing);
        }
        all
    }
}

/// What a tile reads: rows of its plane, of the plane before and of the plane after.
struct Input<'a> {
    near: [Voxels<'a>; ROWS + 2],
    below: [Voxels<'a>; ROWS],
    above: [Voxels<'a>; ROWS],
}

/// A row of a tile and a panel of output channels.
#[derive(Clone, Copy)]
struct Place {
    /// The first voxel.
    first: usize,
    row: usize,
    /// The row that comes next.
    soon: usize,
    panel: usize,
    channels: usize,
}

impl PairedRows<'_, '_, '_> {
    /// Everything, with `CHANNELS` of input; zero stands for any other number.
    #[inline(always)]
    fn channels<S: Simd, const CHANNELS: usize>(&mut self, simd: S) {
        let width = self.out[0].len() / self.taps.channels_out();
        let nothing = vec![0.0; S::ROWS * self.channels_in];
        let mut differences = std::mem::take(self.scratch);
        differences.resize(2 * ROWS * nothing.len(), 0.0);
        let mut voxel = 0;
        while voxel < width {
            voxel += with_tile_rows!(S, width - voxel, |VOXELS| self.tile::<S, VOXELS, CHANNELS>(
                simd,
                voxel,
                &nothing,
                &mut differences
            ));
        }
        *self.scratch = differences;
    }

    /// The output voxels `first..first + VOXELS` of all rows.
    #[inline(always)]
    fn tile<S: Simd, const VOXELS: usize, const CHANNELS: usize>(
        &mut self,
        simd: S,
        first: usize,
        nothing: &[f32],
        differences: &mut [f32],
    ) -> usize {
        let channels = if CHANNELS > 0 {
            CHANNELS
        } else {
            self.channels_in
        };
        let tile = [first, VOXELS];
        let [below, above] = self.beside;
        let input = Input {
            near: Voxels::all(self.near, tile, channels, nothing),
            below: Voxels::all(below, tile, channels, nothing),
            above: Voxels::all(above, tile, channels, nothing),
        };
        let rows = self.out.len();
        for panel in 0..self.taps.channels_out().div_ceil(2 * S::LANES) {
            for parity in 0..rows.min(2) {
                let mut shared = [[simd.splat(0.0); 2]; VOXELS];
                let (alone, both) = reads(parity);
                multiply_rows_ahead(
                    simd,
                    &mut shared,
                    input.near[both].here,
                    panel_of::<S>(&self.taps.shared[0], panel, channels),
                    channels,
                    Ahead::lines([
                        input.below[parity].here.as_ptr(),
                        input.above[parity].here.as_ptr(),
                        input.near[alone].here.as_ptr(),
                        // The other rows were read by the taps along the width.
                        input.near[ROWS + 1 - parity].next,
                    ]),
                );
                for row in (parity..rows).step_by(2) {
                    let differences = &mut differences[2 * row * VOXELS * channels..];
                    let differences = &mut differences[..2 * VOXELS * channels];
                    if panel == 0 {
                        self.subtract(simd, &input, row, channels, differences);
                    }
                    // What the next row reads, whichever that is.
                    let soon = if row + 2 < rows { row + 2 } else { 1 - parity };
                    let place = Place {
                        first,
                        row,
                        soon,
                        panel,
                        channels,
                    };
                    self.row(simd, &input, place, &shared, differences);
                }
            }
        }
        VOXELS
    }

    /// What the own matrices of a row are multiplied with: `[voxel][2 * channels]`, the height's, then the depth's.
    #[inline(always)]
    fn subtract<S: Simd>(
        &self,
        simd: S,
        input: &Input<'_>,
        row: usize,
        channels: usize,
        to: &mut [f32],
    ) {
        let (alone, both) = reads(row);
        let along_height = [input.near[alone].here, input.near[both].here];
        let along_depth = match self.plane {
            Plane::First { .. } => [input.below[row].here, input.above[row].here],
            Plane::Second => [input.above[row].here, input.below[row].here],
        };
        subtract(simd, along_height, channels, 0, to);
        subtract(simd, along_depth, channels, channels, to);
    }

    /// A row of a tile and a panel. `shared`: what it shares with the other row of its pair.
    #[inline(always)]
    fn row<S: Simd, const VOXELS: usize>(
        &mut self,
        simd: S,
        input: &Input<'_>,
        place: Place,
        shared: &[[S::F32; 2]; VOXELS],
        differences: &[f32],
    ) {
        let Place {
            first,
            row,
            soon,
            panel,
            channels,
        } = place;
        let columns = self.taps.channels_out();
        let width = 2 * S::LANES;
        let covered = panel * width..((panel + 1) * width).min(columns);
        let out_next = self.out[row]
            .as_ptr()
            .wrapping_add((first + VOXELS) * columns);
        let mut sums = [[simd.splat(0.0); 2]; VOXELS];
        if let Plane::First { second, bias } = &mut self.plane {
            if self.beside[1][row].is_some() {
                multiply_rows_ahead(
                    simd,
                    &mut sums,
                    input.above[row].here,
                    panel_of::<S>(&self.taps.shared[1], panel, channels),
                    channels,
                    Ahead::lines([input.above[row].next, out_next]),
                );
            }
            if let Some(second) = second {
                let target = Target {
                    out: &mut *second[row],
                    row: first,
                    stride: columns,
                    columns: covered.clone(),
                };
                store_tile(simd, &sums, target, Store::Biased(bias));
            }
        }
        let second = usize::from(matches!(self.plane, Plane::Second));
        let own = &self.taps.own[usize::from(row >= 2)][second];
        multiply_rows_ahead(
            simd,
            &mut sums,
            differences,
            panel_of::<S>(own, panel, 2 * channels),
            2 * channels,
            Ahead {
                starts: [
                    input.below[soon].here.as_ptr(),
                    input.above[soon].here.as_ptr(),
                    input.near[reads(soon).0].here.as_ptr(),
                    input.below[row].next,
                    input.above[row].next,
                ],
                stride: LINE / 2,
            },
        );
        for (sums, shared) in sums.iter_mut().zip(shared) {
            sums[0] = simd.add(sums[0], shared[0]);
            sums[1] = simd.add(sums[1], shared[1]);
        }
        let target = Target {
            out: &mut *self.out[row],
            row: first,
            stride: columns,
            columns: covered,
        };
        store_tile(simd, &sums, target, Store::Add);
    }
}

/// Of the rows of the input that a row of the output reads, the one that its pair does not read, and the one that both do.
#[inline(always)]
fn reads(row: usize) -> (usize, usize) {
    if row < 2 {
        (row, row + 2)
    } else {
        (row + 2, row)
    }
}

#[inline(always)]
fn panel_of<S: Simd>(matrix: &Panels, panel: usize, steps: usize) -> &[f32] {
    let len = steps * 2 * S::LANES;
    &matrix.values()[panel * len..][..len]
}

/// `to[voxel][place..] = a[voxel] - b[voxel]`; voxels of `to` have twice the channels.
#[inline(always)]
fn subtract<S: Simd>(simd: S, [a, b]: [&[f32]; 2], channels: usize, place: usize, to: &mut [f32]) {
    let voxels = a.chunks_exact(channels).zip(b.chunks_exact(channels));
    for ((a, b), to) in voxels.zip(to.chunks_exact_mut(2 * channels)) {
        for channel in (0..channels).step_by(S::LANES) {
            let difference = simd.sub(simd.load(&a[channel..]), simd.load(&b[channel..]));
            simd.store(difference, &mut to[place + channel..]);
        }
    }
}
