//! Batch normalisation on the CPU: a pass for the statistics, a pass that normalises, and the same backward.

use rayon::prelude::*;

use crate::geometry::rows_per_partial;
use crate::memory::fill_chunks;
use crate::simd::{Kernel, Level, Simd};
use crate::statistics::{Moments, NormBackward, Statistics, add_sums};

/// Rows of one task of a pass.
const ROWS: usize = 512;

/// Gradients of the three operands.
#[derive(Debug)]
pub(crate) struct Gradients {
    pub(crate) x: Vec<f32>,
    pub(crate) gamma: Vec<f32>,
    pub(crate) beta: Vec<f32>,
}

/// The factor and summand of each channel, and what follows.
#[derive(Clone, Copy, Debug)]
struct Affine<'a> {
    factor: &'a [f32],
    summand: &'a [f32],
    rectify: bool,
}

/// The normalised rows and the statistics.
pub(crate) fn forward(
    level: Level,
    x: &[f32],
    [gamma, beta]: [&[f32]; 2],
    epsilon: f64,
    rectify: bool,
) -> (Vec<f32>, Statistics) {
    let channels = gamma.len();
    let rows = x.len() / channels.max(1);
    let moments = moments(rows, channels, |rows, _, moments| {
        let values = &x[rows.start * channels..rows.end * channels];
        add_sums(level, values, values, moments);
    });
    let statistics = moments.statistics(rows);
    let (factor, summand) = statistics.affine(gamma, beta, epsilon);
    let affine = Affine {
        factor: &factor,
        summand: &summand,
        rectify,
    };
    let out = fill_chunks(
        x.len(),
        ROWS * channels,
        || (),
        |(), task, out| {
            let x = &x[task * ROWS * channels..][..out.len()];
            level.run(Forward { x, affine, out });
        },
    );
    (out, statistics)
}

/// Sums over all rows of what `add(rows, scratch, moments)` adds; in an order that depends on the sizes alone.
fn moments(
    rows: usize,
    channels: usize,
    add: impl Fn(std::ops::Range<usize>, &mut Vec<f32>, &mut Moments) + Sync,
) -> Moments {
    let step = rows_per_partial(rows);
    let partials: Vec<Moments> = (0..rows.div_ceil(step))
        .into_par_iter()
        .map_init(Vec::new, |scratch, partial| {
            let mut moments = Moments::zero(channels);
            let start = partial * step;
            add(start..(start + step).min(rows), scratch, &mut moments);
            moments
        })
        .collect();
    let mut total = Moments::zero(channels);
    for partial in &partials {
        total.add(partial);
    }
    total
}

/// Gradients of [`forward`]'s operands.
pub(crate) fn backward(
    level: Level,
    x: &[f32],
    [gamma, beta]: [&[f32]; 2],
    statistics: &Statistics,
    epsilon: f64,
    rectify: bool,
    gradient: &[f32],
) -> Gradients {
    /// Rows whose gradient goes through the ReLU together: they stay in the nearest cache.
    const RUN: usize = 64;
    let channels = gamma.len();
    let rows = x.len() / channels.max(1);
    let (factor, summand) = statistics.affine(gamma, beta, epsilon);
    let affine = Affine {
        factor: &factor,
        summand: &summand,
        rectify,
    };
    let sums = moments(rows, channels, |rows, through, moments| {
        for start in rows.clone().step_by(RUN) {
            let here = start * channels..(start + RUN).min(rows.end) * channels;
            let (x, gradient) = (&x[here.clone()], &gradient[here]);
            if !rectify {
                add_sums(level, gradient, x, moments);
                continue;
            }
            through.clear();
            through.extend_from_slice(gradient);
            level.run(Rectified {
                x,
                affine,
                gradient: through,
            });
            add_sums(level, through, x, moments);
        }
    });
    let norm = NormBackward::new(statistics, gamma, epsilon, rows, &sums.sum, &sums.squares);
    let of_x = fill_chunks(
        x.len(),
        ROWS * channels,
        || (),
        |(), task, out| {
            let here = task * ROWS * channels..task * ROWS * channels + out.len();
            out.copy_from_slice(&gradient[here.clone()]);
            let x = &x[here];
            if rectify {
                level.run(Rectified {
                    x,
                    affine,
                    gradient: out,
                });
            }
            level.run(Backward {
                x,
                norm: &norm,
                out,
            });
        },
    );
    Gradients {
        x: of_x,
        beta: sums.sum.iter().map(|sum| *sum as f32).collect(),
        gamma: norm.gamma,
    }
}

/// `out = factor · x + summand`, rectified if asked for.
struct Forward<'a> {
    x: &'a [f32],
    affine: Affine<'a>,
    out: &'a mut [f32],
}

impl Kernel for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let channels = self.affine.factor.len();
        let floor = simd.splat(if self.affine.rectify {
            0.0
        } else {
            f32::NEG_INFINITY
        });
        let rows = self.x.chunks_exact(channels);
        for (x, out) in rows.zip(self.out.chunks_exact_mut(channels)) {
            for channel in (0..channels).step_by(S::LANES) {
                let here = channel..(channel + S::LANES).min(channels);
                let value = self.affine.at(simd, here.clone(), x);
                simd.store_partial(simd.max(value, floor), &mut out[here]);
            }
        }
    }
}

impl Affine<'_> {
    /// Some channels of a row, before the ReLU.
    #[inline(always)]
    fn at<S: Simd>(&self, simd: S, here: std::ops::Range<usize>, x: &[f32]) -> S::F32 {
        simd.mul_add(
            simd.load_partial(&self.factor[here.clone()]),
            simd.load_partial(&x[here.clone()]),
            simd.load_partial(&self.summand[here]),
        )
    }
}

/// Clears the gradient of what the ReLU cleared.
struct Rectified<'a> {
    x: &'a [f32],
    affine: Affine<'a>,
    gradient: &'a mut [f32],
}

impl Kernel for Rectified<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (channels, zero) = (self.affine.factor.len(), simd.splat(0.0));
        let rows = self.x.chunks_exact(channels);
        for (x, gradient) in rows.zip(self.gradient.chunks_exact_mut(channels)) {
            for channel in (0..channels).step_by(S::LANES) {
                let here = channel..(channel + S::LANES).min(channels);
                let below = simd.sub(zero, self.affine.at(simd, here.clone(), x));
                let gradient = &mut gradient[here];
                let kept = simd.if_negative(below, simd.load_partial(gradient), zero);
                simd.store_partial(kept, gradient);
            }
        }
    }
}

/// `out = a · out + b · x + c`, with the gradient of the normalised rows in `out` before.
struct Backward<'a> {
    x: &'a [f32],
    norm: &'a NormBackward,
    out: &'a mut [f32],
}

impl Kernel for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let NormBackward { a, b, c, .. } = self.norm;
        let channels = a.len();
        let rows = self.x.chunks_exact(channels);
        for (x, out) in rows.zip(self.out.chunks_exact_mut(channels)) {
            for channel in (0..channels).step_by(S::LANES) {
                let here = channel..(channel + S::LANES).min(channels);
                let [a, b, c, x] = [&a[..], b, c, x].map(|v| simd.load_partial(&v[here.clone()]));
                let out = &mut out[here];
                let rest = simd.mul_add(b, x, c);
                simd.store_partial(simd.mul_add(a, simd.load_partial(out), rest), out);
            }
        }
    }
}
