//! GELU on the CPU: vectors, on all threads.

use rayon::prelude::*;

use crate::math::{gelu, normal_distribution};
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
