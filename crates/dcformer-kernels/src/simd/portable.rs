//! Vectors in plain Rust: eight lanes that the compiler turns into whatever the target has.

use super::{Kernel, Simd};

/// The level that needs nothing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Portable;

const LANES: usize = 8;

#[inline(always)]
fn zip(a: [f32; LANES], b: [f32; LANES], operation: impl Fn(f32, f32) -> f32) -> [f32; LANES] {
    let mut out = a;
    for (out, b) in out.iter_mut().zip(b) {
        *out = operation(*out, b);
    }
    out
}

impl Simd for Portable {
    const LANES: usize = LANES;
    const ROWS: usize = 3;
    type F32 = [f32; LANES];

    #[inline(always)]
    fn splat(self, value: f32) -> Self::F32 {
        [value; LANES]
    }

    #[inline(always)]
    fn load(self, from: &[f32]) -> Self::F32 {
        let mut lanes = [0.0; LANES];
        lanes.copy_from_slice(&from[..LANES]);
        lanes
    }

    #[inline(always)]
    fn store(self, vector: Self::F32, to: &mut [f32]) {
        to[..LANES].copy_from_slice(&vector);
    }

    #[inline(always)]
    fn load_halves(self, low: &[f32], high: &[f32]) -> Self::F32 {
        let mut lanes = [0.0; LANES];
        let (first, second) = lanes.split_at_mut(LANES / 2);
        first.copy_from_slice(&low[..LANES / 2]);
        second.copy_from_slice(&high[..LANES / 2]);
        lanes
    }

    #[inline(always)]
    fn store_halves(self, vector: Self::F32, low: &mut [f32], high: &mut [f32]) {
        let (first, second) = vector.split_at(LANES / 2);
        low[..LANES / 2].copy_from_slice(first);
        high[..LANES / 2].copy_from_slice(second);
    }

    #[inline(always)]
    fn add(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        zip(a, b, |a, b| a + b)
    }

    #[inline(always)]
    fn sub(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        zip(a, b, |a, b| a - b)
    }

    #[inline(always)]
    fn mul(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        zip(a, b, |a, b| a * b)
    }

    #[inline(always)]
    fn div(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        zip(a, b, |a, b| a / b)
    }

    #[inline(always)]
    fn mul_add(self, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32 {
        // Two roundings: without the instruction, `f32::mul_add` is a call into the C library.
        self.add(self.mul(a, b), c)
    }

    #[inline(always)]
    fn max(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        zip(a, b, |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    fn min(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        zip(a, b, |a, b| if a < b { a } else { b })
    }

    #[inline(always)]
    fn round(self, a: Self::F32) -> Self::F32 {
        // Adding and subtracting 1.5 * 2^23 leaves no room for a fraction; `f32::round` would be a library call.
        const SHIFT: f32 = 12_582_912.0;
        zip(a, a, |a, _| (a + SHIFT) - SHIFT)
    }

    #[inline(always)]
    fn exp2_integral(self, a: Self::F32) -> Self::F32 {
        zip(a, a, |a, _| {
            f32::from_bits((((a as i32) + 127) as u32) << 23)
        })
    }

    #[inline(always)]
    fn if_negative(self, a: Self::F32, yes: Self::F32, no: Self::F32) -> Self::F32 {
        let mut out = no;
        for lane in 0..LANES {
            if a[lane] < 0.0 {
                out[lane] = yes[lane];
            }
        }
        out
    }

    #[inline(always)]
    fn run<K: Kernel>(self, kernel: K) -> K::Output {
        kernel.run(self)
    }
}
