//! Three taps along an axis by six products for four outputs, instead of twelve (Winograd's F(4, 3)).
//!
//! Four neighbouring outputs read six inputs `d`. With the filter's three matrices turned into six once,
//! ```text
//! v = B^T d        six sums of inputs, without a product of matrices
//! m_p = v_p · U_p  the work: six products of matrices
//! y = A^T m        four sums
//! ```
//! gives the same four outputs. The points are 0, 1, -1, 2, -2 and infinity (Lavin and Gray, "Fast Algorithms for
//! Convolutional Neural Networks", 2016). In single precision the sums cost a digit at most: the largest difference from
//! the plain sums is some 1e-6 of the largest output, which tests hold.
//!
//! The products are the register tiles of all dense work, twelve groups of four outputs high; `v` and `m` of a tile stay
//! in the first-level cache.

use crate::matmul::{Ahead, Panels, Store, multiply_rows_ahead, with_tile_rows};
use crate::simd::{Kernel, Level, MAX_LANES, Simd};

/// Outputs of a group.
pub(crate) const OUTPUTS: usize = 4;
/// Inputs of a group, and products.
const INPUTS: usize = 6;

/// Whether the products saved along an axis of `size` are worth the sums. Channels must fill the vectors of every level.
pub(crate) fn pays(size: usize, taps: usize, channels: [usize; 2]) -> bool {
    let full = |channels: usize| channels > 0 && channels.is_multiple_of(MAX_LANES);
    taps == 3 && channels.into_iter().all(full) && 8 * size.div_ceil(OUTPUTS) < 3 * size - 1
}

/// The matrices of three taps, transformed.
#[derive(Debug)]
pub(crate) struct Transformed {
    products: [Panels; INPUTS],
}

impl Transformed {
    /// `taps`: three matrices `[channels_in, channels_out]`, in the order of the voxels that they read.
    pub(crate) fn new(level: Level, taps: &[f32], [steps, columns]: [usize; 2]) -> Self {
        const G: [[f32; 3]; INPUTS] = [
            [1.0 / 4.0, 0.0, 0.0],
            [-1.0 / 6.0, -1.0 / 6.0, -1.0 / 6.0],
            [-1.0 / 6.0, 1.0 / 6.0, -1.0 / 6.0],
            [1.0 / 24.0, 1.0 / 12.0, 1.0 / 6.0],
            [1.0 / 24.0, -1.0 / 12.0, 1.0 / 6.0],
            [0.0, 0.0, 1.0],
        ];
        let len = steps * columns;
        assert_eq!(taps.len(), 3 * len);
        Self {
            products: G.map(|row| {
                let sum = |index: usize| -> f32 {
                    (0..3).map(|tap| row[tap] * taps[tap * len + index]).sum()
                };
                let matrix: Vec<f32> = (0..len).map(sum).collect();
                Panels::of(level, &matrix, steps, columns)
            }),
        }
    }

    fn channels_out(&self) -> usize {
        self.products[0].columns()
    }

    /// The convolution along `axis` of the rows of a tile, at most [`OUTPUTS`] planes for the first axis and as many rows for
    /// the second. `line` gives the rows of the input by plane and row, the tile's first being `[0, 0]`; `None` outside the volume.
    #[allow(
        clippy::too_many_arguments,
        reason = "an operation's operands and its variants"
    )]
    pub(crate) fn tile<'a>(
        &self,
        level: Level,
        axis: usize,
        [planes, rows]: [usize; 2],
        line: &impl Fn([isize; 2]) -> Option<&'a [f32]>,
        channels_in: usize,
        out: &mut [&mut [f32]],
        scratch: &mut Vec<f32>,
        store: Store<'_>,
    ) {
        let across = |count: usize, at: [usize; 2]| {
            let lines = std::array::from_fn(|input| {
                let mut at = at.map(|at| at as isize);
                at[axis] += input as isize - 1;
                line(at)
            });
            let first = at[0] * rows + at[1];
            Strip {
                lines,
                first,
                count,
            }
        };
        let lines = match axis {
            0 => Lines::Across {
                strips: (0..rows).map(|y| across(planes, [0, y])).collect(),
                stride: rows,
            },
            1 => Lines::Across {
                strips: (0..planes).map(|z| across(rows, [z, 0])).collect(),
                stride: 1,
            },
            _ => Lines::Along(
                (0..planes as isize)
                    .flat_map(|z| (0..rows as isize).filter_map(move |y| line([z, y])))
                    .collect(),
            ),
        };
        level.run(WinogradLines {
            weights: self,
            channels_in,
            width: out[0].len() / self.channels_out(),
            lines: &lines,
            out,
            scratch,
            store,
        });
    }
}

/// Lines of input and output whose groups are computed together.
#[derive(Debug)]
enum Lines<'a> {
    /// Groups along the width: line `i` of input gives line `i` of output.
    Along(Vec<&'a [f32]>),
    /// Groups across lines: six lines of input (`None` outside the volume) give up to four of output, whose indices follow
    /// each other from the number given with a stride.
    Across {
        strips: Vec<Strip<'a>>,
        /// From one line of output to the next of the same strip.
        stride: usize,
    },
}

/// Six lines and what they give.
#[derive(Debug)]
struct Strip<'a> {
    lines: [Option<&'a [f32]>; INPUTS],
    /// Index of the first line of output, and how many there are.
    first: usize,
    count: usize,
}

/// The convolution of some lines.
struct WinogradLines<'a, 'b, 'c> {
    weights: &'a Transformed,
    channels_in: usize,
    width: usize,
    lines: &'a Lines<'a>,
    /// `[width, channels_out]` each.
    out: &'b mut [&'c mut [f32]],
    /// Room for a tile.
    scratch: &'a mut Vec<f32>,
    store: Store<'a>,
}

impl Kernel for WinogradLines<'_, '_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        let columns = self.weights.channels_out();
        assert!(self.channels_in.is_multiple_of(S::LANES) && columns.is_multiple_of(S::LANES));
        let groups = match self.lines {
            Lines::Along(lines) => lines.len() * self.width.div_ceil(OUTPUTS),
            Lines::Across { strips, .. } => strips.len() * self.width,
        };
        let nothing = vec![0.0; self.channels_in.max(columns)];
        let bias = match self.store {
            Store::Add => None,
            Store::Plain => Some(&nothing[..columns]),
            Store::Biased(bias) => Some(bias),
            Store::BiasedGelu(_) => unreachable!("sums of branches are not activated one by one"),
        };
        let mut scratch = std::mem::take(self.scratch);
        scratch.resize(S::ROWS * INPUTS * (self.channels_in + 2 * S::LANES), 0.0);
        let mut group = 0;
        while group < groups {
            group += with_tile_rows!(S, groups - group, |ROWS| self.tile::<S, ROWS>(
                simd,
                group,
                &nothing,
                bias,
                &mut scratch
            ));
        }
        *self.scratch = scratch;
    }
}

impl WinogradLines<'_, '_, '_> {
    /// Groups `first..first + ROWS`, all channels. Without a bias, the outputs are added to what is there.
    #[inline(always)]
    fn tile<S: Simd, const ROWS: usize>(
        &mut self,
        simd: S,
        first: usize,
        nothing: &[f32],
        bias: Option<&[f32]>,
        scratch: &mut [f32],
    ) -> usize {
        let channels = self.channels_in;
        let (sums, products) = scratch.split_at_mut(ROWS * INPUTS * channels);
        for row in 0..ROWS {
            let mut inputs = [&nothing[..channels]; INPUTS];
            let sizes = [self.width, channels];
            self.lines.inputs(first + row, sizes, &mut inputs);
            transform(simd, inputs, [row, ROWS], sums);
        }
        let columns = self.weights.channels_out();
        for panel in 0..columns.div_ceil(2 * S::LANES) {
            for (input, matrix) in self.weights.products.iter().enumerate() {
                let len = channels * 2 * S::LANES;
                let panel = &matrix.values()[panel * len..][..len];
                let values = &sums[input * ROWS * channels..][..ROWS * channels];
                let mut tile = [[simd.splat(0.0); 2]; ROWS];
                let ahead = Ahead::lines([
                    self.lines
                        .ahead(first + ROWS, input, [self.width, channels]),
                    self.target(first, input),
                ]);
                multiply_rows_ahead(simd, &mut tile, values, panel, channels, ahead);
                let to = &mut products[input * ROWS * 2 * S::LANES..][..ROWS * 2 * S::LANES];
                for (to, sums) in to.chunks_exact_mut(2 * S::LANES).zip(tile) {
                    simd.store(sums[0], to);
                    simd.store(sums[1], &mut to[S::LANES..]);
                }
            }
            let first_channel = panel * 2 * S::LANES;
            let vectors = ((columns - first_channel) / S::LANES).min(2);
            for row in 0..ROWS {
                let from = &products[row * 2 * S::LANES..];
                for half in 0..vectors {
                    let channel = first_channel + half * S::LANES;
                    let outputs = inverse(simd, &from[half * S::LANES..], ROWS);
                    self.store(simd, outputs, first + row, channel, bias);
                }
            }
        }
        ROWS
    }

    /// Where a part of a tile's outputs begins, as many parts as inputs: a hint.
    #[inline(always)]
    fn target(&self, group: usize, part: usize) -> *const f32 {
        let columns = self.weights.channels_out();
        let (line, voxel) = match self.lines {
            Lines::Along(_) => {
                let per_line = self.width.div_ceil(OUTPUTS);
                (group / per_line, (group % per_line + 2 * part) * OUTPUTS)
            }
            Lines::Across { strips, stride } => {
                let strip = &strips[group / self.width];
                let line = strip.first + part.min(strip.count - 1) * stride;
                (line, group % self.width)
            }
        };
        self.out[line].as_ptr().wrapping_add(voxel * columns)
    }

    /// Writes a vector of channels of the outputs of a group.
    #[inline(always)]
    fn store<S: Simd>(
        &mut self,
        simd: S,
        outputs: [S::F32; OUTPUTS],
        group: usize,
        channel: usize,
        bias: Option<&[f32]>,
    ) {
        let columns = self.weights.channels_out();
        let (count, line, line_step, voxel, voxel_step) = match self.lines {
            Lines::Along(_) => {
                let per_line = self.width.div_ceil(OUTPUTS);
                let voxel = group % per_line * OUTPUTS;
                (
                    OUTPUTS.min(self.width - voxel),
                    group / per_line,
                    0,
                    voxel,
                    1,
                )
            }
            Lines::Across { strips, stride } => {
                let strip = &strips[group / self.width];
                (strip.count, strip.first, *stride, group % self.width, 0)
            }
        };
        for (output, mut y) in outputs.into_iter().enumerate() {
            if output < count {
                let start = (voxel + output * voxel_step) * columns + channel;
                let out = &mut self.out[line + output * line_step][start..start + S::LANES];
                y = match bias {
                    Some(bias) => simd.add(y, simd.load(&bias[channel..])),
                    None => simd.add(y, simd.load(out)),
                };
                simd.store(y, out);
            }
        }
    }
}

impl<'a> Lines<'a> {
    /// The inputs of a group that are inside the volume; the others stay as they are.
    #[inline(always)]
    fn inputs(
        &self,
        group: usize,
        [width, channels]: [usize; 2],
        inputs: &mut [&'a [f32]; INPUTS],
    ) {
        match self {
            Lines::Along(lines) => {
                let per_line = width.div_ceil(OUTPUTS);
                let line = lines[group / per_line];
                let first = group % per_line * OUTPUTS;
                for (place, input) in (first..).zip(inputs) {
                    if place > 0 && place <= width {
                        *input = &line[(place - 1) * channels..][..channels];
                    }
                }
            }
            Lines::Across { strips, .. } => {
                let voxel = group % width;
                for (line, input) in strips[group / width].lines.iter().zip(inputs) {
                    if let Some(line) = line {
                        *input = &line[voxel * channels..][..channels];
                    }
                }
            }
        }
    }
}

impl Lines<'_> {
    /// Where an input of a tile begins, whose first group this is: a hint, for tiles beyond the last one, too.
    #[inline(always)]
    fn ahead(&self, group: usize, input: usize, [width, channels]: [usize; 2]) -> *const f32 {
        let (line, voxel) = match self {
            // A tile's inputs lie side by side: a part of them for each.
            Lines::Along(lines) => {
                let per_line = width.div_ceil(OUTPUTS);
                let line = lines[(group / per_line).min(lines.len() - 1)];
                (line, (group % per_line + 2 * input) * OUTPUTS)
            }
            Lines::Across { strips, .. } => {
                let strip = &strips[(group / width).min(strips.len() - 1)];
                let line = strip.lines[input].or(strip.lines[2]).unwrap_or_default();
                (line, group % width)
            }
        };
        line.as_ptr().wrapping_add(voxel * channels)
    }
}

/// `B^T d` of one group: `to[input][row][channel]`.
#[inline(always)]
fn transform<S: Simd>(simd: S, inputs: [&[f32]; INPUTS], [row, rows]: [usize; 2], to: &mut [f32]) {
    let channels = inputs[0].len();
    let (two, four, five) = (simd.splat(2.0), simd.splat(4.0), simd.splat(5.0));
    for channel in (0..channels).step_by(S::LANES) {
        // A loop, here and below: closures given to an array's methods are not compiled for the instruction set.
        let mut d = [two; INPUTS];
        for (d, input) in d.iter_mut().zip(inputs) {
            *d = simd.load(&input[channel..]);
        }
        // Sums that two results share.
        let even = simd.sub(d[4], simd.mul(four, d[2]));
        let odd = simd.sub(d[3], simd.mul(four, d[1]));
        let near_even = simd.sub(d[4], d[2]);
        let near_odd = simd.mul(two, simd.sub(d[3], d[1]));
        let v = [
            simd.mul_add(four, d[0], simd.sub(d[4], simd.mul(five, d[2]))),
            simd.add(even, odd),
            simd.sub(even, odd),
            simd.add(near_even, near_odd),
            simd.sub(near_even, near_odd),
            simd.mul_add(four, d[1], simd.sub(d[5], simd.mul(five, d[3]))),
        ];
        for (input, v) in v.into_iter().enumerate() {
            simd.store(v, &mut to[(input * rows + row) * channels + channel..]);
        }
    }
}

/// `A^T m` of one group and one vector of channels; `from[input][row]` two vectors each, at this row.
#[inline(always)]
fn inverse<S: Simd>(simd: S, from: &[f32], rows: usize) -> [S::F32; OUTPUTS] {
    let mut m = [simd.splat(0.0); INPUTS];
    for (input, m) in m.iter_mut().enumerate() {
        *m = simd.load(&from[input * rows * 2 * S::LANES..]);
    }
    let (near, near_odd) = (simd.add(m[1], m[2]), simd.sub(m[1], m[2]));
    let (far, far_odd) = (simd.add(m[3], m[4]), simd.sub(m[3], m[4]));
    [
        simd.add(simd.add(m[0], near), far),
        simd.mul_add(simd.splat(2.0), far_odd, near_odd),
        simd.mul_add(simd.splat(4.0), far, near),
        simd.add(simd.mul_add(simd.splat(8.0), far_odd, near_odd), m[5]),
    ]
}
