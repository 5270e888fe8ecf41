//! Vectors of 64-bit ARM.

use std::arch::aarch64::*;

use super::{Kernel, Simd};

/// NEON, which every 64-bit ARM machine has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Neon(());

impl Neon {
    /// The proof: part of the architecture.
    #[inline]
    pub(crate) fn detect() -> Self {
        Self(())
    }
}

macro_rules! instructions {
    ($($name:ident($($argument:ident),+) = $instruction:ident($($passed:ident),+);)+) => {$(
        #[inline(always)]
        fn $name(self, $($argument: Self::F32),+) -> Self::F32 {
            // SAFETY: NEON is part of the architecture.
            unsafe { $instruction($($passed),+) }
        }
    )+};
}

impl Simd for Neon {
    const LANES: usize = 4;
    const ROWS: usize = 12;
    type F32 = float32x4_t;

    instructions! {
        add(a, b) = vaddq_f32(a, b);
        sub(a, b) = vsubq_f32(a, b);
        mul(a, b) = vmulq_f32(a, b);
        div(a, b) = vdivq_f32(a, b);
        mul_add(a, b, c) = vfmaq_f32(c, a, b);
        max(a, b) = vmaxq_f32(a, b);
        min(a, b) = vminq_f32(a, b);
        round(a) = vrndnq_f32(a);
    }

    #[inline(always)]
    fn splat(self, value: f32) -> Self::F32 {
        // SAFETY: NEON is part of the architecture.
        unsafe { vdupq_n_f32(value) }
    }

    #[inline(always)]
    fn load(self, from: &[f32]) -> Self::F32 {
        assert!(from.len() >= Self::LANES);
        // SAFETY: NEON is part of the architecture; four values are there by the line above.
        unsafe { vld1q_f32(from.as_ptr()) }
    }

    #[inline(always)]
    fn store(self, vector: Self::F32, to: &mut [f32]) {
        assert!(to.len() >= Self::LANES);
        // SAFETY: NEON is part of the architecture; there is room for four values by the line above.
        unsafe { vst1q_f32(to.as_mut_ptr(), vector) }
    }

    #[inline(always)]
    fn load_halves(self, low: &[f32], high: &[f32]) -> Self::F32 {
        assert!(low.len() >= Self::LANES / 2 && high.len() >= Self::LANES / 2);
        // SAFETY: NEON is part of the architecture; each has two values by the line above.
        unsafe { vcombine_f32(vld1_f32(low.as_ptr()), vld1_f32(high.as_ptr())) }
    }

    #[inline(always)]
    fn store_halves(self, vector: Self::F32, low: &mut [f32], high: &mut [f32]) {
        assert!(low.len() >= Self::LANES / 2 && high.len() >= Self::LANES / 2);
        // SAFETY: NEON is part of the architecture; each has room for two values by the line above.
        unsafe {
            vst1_f32(low.as_mut_ptr(), vget_low_f32(vector));
            vst1_f32(high.as_mut_ptr(), vget_high_f32(vector));
        }
    }

    #[inline(always)]
    fn exp2_integral(self, a: Self::F32) -> Self::F32 {
        // SAFETY: NEON is part of the architecture.
        unsafe {
            let exponent = vaddq_s32(vcvtnq_s32_f32(a), vdupq_n_s32(127));
            vreinterpretq_f32_s32(vshlq_n_s32::<23>(exponent))
        }
    }

    #[inline(always)]
    fn if_negative(self, a: Self::F32, yes: Self::F32, no: Self::F32) -> Self::F32 {
        // SAFETY: NEON is part of the architecture.
        unsafe { vbslq_f32(vcltzq_f32(a), yes, no) }
    }

    #[inline(always)]
    fn run<K: Kernel>(self, kernel: K) -> K::Output {
        kernel.run(self)
    }
}
