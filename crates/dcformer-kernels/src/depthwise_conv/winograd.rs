//! Four outputs along the width by ten products instead of 28: Winograd's F(4, 7).
//!
//! Seven taps and four outputs are polynomials whose product has ten coefficients; it is known from its values at ten points,
//! and there a convolution is a product for each point. Ten inputs are transformed once and meet the transformed taps of
//! all 49 rows of the window, in sums that are transformed back once: at each point, what is left is a convolution along
//! depth and height.
//!
//! Tests hold the difference from plain sums at 2e-5 of the largest value.

use std::ops::Range;

use rayon::prelude::*;

use super::columns::{ConvolvePart, Scratch};
use super::cpu::Filters;
use super::lines::{Packing, Window};
use super::points::{OUTPUTS, POINTS, TAPS, transform_taps};
use crate::geometry::{Geometry, ranges};
use crate::matmul::Panels;
use crate::shared::SharedSlice;
use crate::simd::{Kernel, Level, Simd};

/// Rows of a part: around more of them fewer inputs are transformed twice, but what a point reads must fit the first cache.
const ROWS: usize = 16;
/// Voxels of a part along the width: two transforms, which fill a vector where half of one holds a voxel's channels.
const VOXELS: usize = 2 * OUTPUTS;
/// Planes and rows up to which a part is not cut further.
const SMALLEST: [usize; 2] = [16, 8];
/// Parts for each thread, so that threads end together.
const PARTS: usize = 4;

/// Whether the transform pays: it needs channels that fill a vector, and a row that fills a transform.
pub(super) fn applies(level: Level, window: Window, geometry: Geometry) -> bool {
    let packing = Packing::new(geometry.channels, Panels::width(level) / 2);
    window.taps[2] == TAPS && packing.is_whole() && geometry.size[2] >= OUTPUTS
}

/// The channels that a vector holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slice {
    /// The first one.
    pub(super) first: usize,
    /// As many at its front are also the end of the slice before, whose they are.
    pub(super) skip: usize,
    /// Half as many as the vector has lanes: a vector holds them of two voxels.
    pub(super) half: bool,
}

impl Slice {
    /// The slices of all channels: full vectors, and for the rest one that begins early enough to be full, or half full.
    fn all(channels: usize, lanes: usize) -> Vec<Self> {
        let full = (0..channels / lanes).map(|slice| Self {
            first: slice * lanes,
            skip: 0,
            half: false,
        });
        let rest = channels % lanes;
        let half = rest <= lanes / 2;
        let len = if half { lanes / 2 } else { lanes };
        let last = (rest > 0).then(|| Self {
            first: channels - len,
            skip: len - rest,
            half,
        });
        full.chain(last).collect()
    }

    /// Its channels at the front of `values`, as often as the vector holds them.
    #[inline(always)]
    pub(super) fn load<S: Simd>(self, simd: S, values: &[f32]) -> S::F32 {
        if self.half {
            simd.load_halves(values, values)
        } else {
            simd.load(values)
        }
    }
}

/// Filters at the ten points, cut into vectors.
#[derive(Clone, Debug)]
pub(super) struct TransformedFilters<'a> {
    /// `[slices][points][depth][height][lanes]`
    pub(super) weight: Vec<f32>,
    /// `[channels]`
    pub(super) bias: &'a [f32],
    pub(super) slices: Vec<Slice>,
    pub(super) window: Window,
}

impl<'a> TransformedFilters<'a> {
    fn new(level: Level, filters: Filters<'_>, bias: &'a [f32]) -> Self {
        let Filters { weight, window } = filters;
        let (lanes, channels) = (Panels::width(level) / 2, bias.len());
        let slices = Slice::all(channels, lanes);
        assert_eq!(weight.len(), window.len() * channels);
        let slice_len = POINTS * window.len() / TAPS * lanes;
        let mut out = vec![0.0; slices.len() * slice_len];
        out.par_chunks_mut(slice_len)
            .zip(&slices)
            .for_each(|(out, slice)| {
                level.run(TransformFilters {
                    weight,
                    channels,
                    slice: *slice,
                    out,
                });
            });
        Self {
            weight: out,
            bias,
            slices,
            window,
        }
    }
}

/// The transform of the filters of a slice.
struct TransformFilters<'a> {
    /// `[depth][height][width][channels]`
    weight: &'a [f32],
    channels: usize,
    slice: Slice,
    /// `[points][depth][height][lanes]`
    out: &'a mut [f32],
}

impl Kernel for TransformFilters<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let point_len = self.out.len() / POINTS;
        let rows = self.weight.chunks_exact(TAPS * self.channels);
        for (row, weight) in rows.enumerate() {
            let mut taps = [simd.splat(0.0); TAPS];
            for (tap, weight) in taps.iter_mut().zip(weight.chunks_exact(self.channels)) {
                *tap = self.slice.load(simd, &weight[self.slice.first..]);
            }
            let values = transform_taps(simd, taps);
            for (point, value) in values.into_iter().enumerate() {
                simd.store(value, &mut self.out[point * point_len + row * S::LANES..]);
            }
        }
    }
}

/// A part of the outputs, which one thread computes: some channels of a block of voxels.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) volume: usize,
    pub(super) planes: Range<usize>,
    pub(super) rows: Range<usize>,
    pub(super) voxels: Range<usize>,
    /// Numbers of slices of channels.
    pub(super) slices: Range<usize>,
}

impl Part {
    /// Cuts a grid into at least `wanted` parts, if they do not become too small; what is computed does not depend on it.
    ///
    /// Each part transforms the inputs that it reads. Along the width none is transformed twice, whatever the cut, nor are
    /// those of different channels.
    fn all(geometry: Geometry, slices: usize, wanted: usize) -> Vec<Self> {
        let [depth, height, width] = geometry.size;
        let (mut planes, mut rows, mut group) = (depth.max(1), ROWS, slices);
        let of_width = geometry.batch * width.div_ceil(VOXELS);
        let count = |planes: usize, rows: usize, group: usize| {
            of_width * depth.div_ceil(planes) * height.div_ceil(rows) * slices.div_ceil(group)
        };
        while count(planes, rows, group) < wanted {
            if group > 1 {
                group = 1;
            } else if planes > SMALLEST[0] {
                planes = planes.div_ceil(2);
            } else if rows > SMALLEST[1] {
                rows = rows.div_ceil(2);
            } else {
                break;
            }
        }
        let mut parts = Vec::new();
        for volume in 0..geometry.batch {
            for planes in ranges(depth, planes) {
                for rows in ranges(height, rows) {
                    for slices in ranges(slices, group) {
                        for voxels in ranges(width, VOXELS) {
                            parts.push(Self {
                                volume,
                                planes: planes.clone(),
                                rows: rows.clone(),
                                voxels,
                                slices: slices.clone(),
                            });
                        }
                    }
                }
            }
        }
        parts
    }
}

/// See [`forward`](super::cpu::forward).
pub(super) fn forward(
    level: Level,
    x: &[f32],
    filters: Filters<'_>,
    bias: &[f32],
    geometry: Geometry,
) -> Vec<f32> {
    let filters = TransformedFilters::new(level, filters, bias);
    let wanted = PARTS * rayon::current_num_threads();
    let parts = Part::all(geometry, filters.slices.len(), wanted);
    let len = geometry.len();
    let mut out = Vec::with_capacity(len);
    let outputs = SharedSlice::new(&mut out.spare_capacity_mut()[..len]);
    // Threads begin with parts of different slices, whose filters they have just transformed.
    parts
        .into_par_iter()
        .for_each_init(Scratch::default, |scratch, part| {
            level.run(ConvolvePart {
                x,
                filters: &filters,
                geometry,
                part,
                scratch,
                out: outputs,
            });
        });
    // SAFETY: the capacity is `len` at least. Every output lies in one part, and each part has written all of its outputs: a
    // panic in one would have left this function.
    unsafe { out.set_len(len) };
    out
}
