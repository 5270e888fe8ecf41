//! GELU on the CPU: vectors, on all threads.

use rayon::prelude::*;

use crate::math::{gelu, normal_distribution};
use crate::memory::fill_chunks;
use crate::simd::{Kernel, Level, Simd};

/// Values of one task: 64 KB, well inside a second-level cache.
const VALUES_PER_TASK: usize = 16 * 1024;

/// `values = gelu(values)`.
pub(crate) fn forward(level: Level, values: &mut [f32]) {
    values
        .par_chunks_mut(VALUES_PER_TASK)
        .for_each(|values| level.run(Forward { values }));
}

/// `gradient *= gelu'(values)`, then `values = gelu(values)`.
pub(crate) fn backward(level: Level, values: &mut [f32], gradient: &mut [f32]) {
    values
        .par_chunks_mut(VALUES_PER_TASK)
        .zip(gradient.par_chunks_mut(VALUES_PER_TASK))
        .for_each(|(values, gradient)| level.run(Backward { values, gradient }));
}

struct Forward<'a> {
    values: &'a mut [f32],
}

impl Kernel for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        for values in self.values.chunks_mut(S::LANES) {
            let x = simd.load_partial(values);
            simd.store_partial(gelu(simd, x), values);
        }
    }
}

struct Backward<'a> {
    values: &'a mut [f32],
    gradient: &'a mut [f32],
}

impl Kernel for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        for (values, gradient) in self
            .values
            .chunks_mut(S::LANES)
            .zip(self.gradient.chunks_mut(S::LANES))
        {
            let x = simd.load_partial(values);
            let (cdf, density) = normal_distribution(simd, x);
            let slope = simd.mul_add(x, density, cdf);
            simd.store_partial(simd.mul(simd.load_partial(gradient), slope), gradient);
            simd.store_partial(simd.mul(x, cdf), values);
        }
    }
}

/// Rows of one task of the gated form, at some thousand channels.
const ROWS_PER_TASK: usize = 16;

/// `[rows, channels]` of values times the GELU of their gates, from `[rows, 2 * channels]`.
pub(crate) fn gated(level: Level, x: &[f32], channels: usize) -> Vec<f32> {
    let len = ROWS_PER_TASK * channels;
    fill_chunks(
        x.len() / 2,
        len,
        || (),
        |(), task, out| {
            let x = &x[task * 2 * len..][..2 * out.len()];
            level.run(Gated { x, channels, out });
        },
    )
}

/// The gradient of [`gated`]'s input, `[rows, 2 * channels]`.
pub(crate) fn gated_backward(
    level: Level,
    x: &[f32],
    channels: usize,
    gradient: &[f32],
) -> Vec<f32> {
    let len = ROWS_PER_TASK * channels;
    fill_chunks(
        x.len(),
        2 * len,
        || (),
        |(), task, out| {
            level.run(GatedBackward {
                x: &x[task * 2 * len..][..out.len()],
                gradient: &gradient[task * len..][..out.len() / 2],
                channels,
                out,
            });
        },
    )
}

struct Gated<'a> {
    x: &'a [f32],
    channels: usize,
    out: &'a mut [f32],
}

impl Kernel for Gated<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let rows = self.x.chunks_exact(2 * self.channels);
        for (x, out) in rows.zip(self.out.chunks_exact_mut(self.channels)) {
            let (values, gates) = x.split_at(self.channels);
            let inputs = values.chunks(S::LANES).zip(gates.chunks(S::LANES));
            for ((value, gate), out) in inputs.zip(out.chunks_mut(S::LANES)) {
                let gate = gelu(simd, simd.load_partial(gate));
                simd.store_partial(simd.mul(simd.load_partial(value), gate), out);
            }
        }
    }
}

struct GatedBackward<'a> {
    x: &'a [f32],
    gradient: &'a [f32],
    channels: usize,
    out: &'a mut [f32],
}

impl Kernel for GatedBackward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let channels = self.channels;
        let rows = self.x.chunks_exact(2 * channels);
        let rows = rows.zip(self.gradient.chunks_exact(channels));
        for ((x, gradient), out) in rows.zip(self.out.chunks_exact_mut(2 * channels)) {
            for channel in (0..channels).step_by(S::LANES) {
                let here = channel..(channel + S::LANES).min(channels);
                let gates = channels + here.start..channels + here.end;
                let value = simd.load_partial(&x[here.clone()]);
                let gate = simd.load_partial(&x[gates.clone()]);
                let gradient = simd.load_partial(&gradient[here.clone()]);
                let (cdf, density) = normal_distribution(simd, gate);
                let slope = simd.mul_add(gate, density, cdf);
                let of_value = simd.mul(gradient, simd.mul(gate, cdf));
                simd.store_partial(of_value, &mut out[here]);
                let of_gate = simd.mul(simd.mul(gradient, value), slope);
                simd.store_partial(of_gate, &mut out[gates]);
            }
        }
    }
}
