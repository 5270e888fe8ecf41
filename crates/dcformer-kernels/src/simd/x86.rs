//! Vectors of x86-64: AVX2 with FMA, and AVX-512.

use std::arch::x86_64::*;

use super::{Kernel, Simd};

/// Proof that this machine has AVX2 and FMA.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Avx2(());

impl Avx2 {
    /// The proof, if the machine has it.
    #[inline]
    pub(crate) fn detect() -> Option<Self> {
        (is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")).then_some(Self(()))
    }
}

/// Proof that this machine has AVX-512 F, BW, DQ and VL (every server and desktop core with AVX-512 since 2017).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Avx512(());

impl Avx512 {
    /// The proof, if the machine has it.
    #[inline]
    pub(crate) fn detect() -> Option<Self> {
        (is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("fma"))
        .then_some(Self(()))
    }
}

/// The methods that are one instruction; `$proof` is why the machine has it.
macro_rules! instructions {
    ($($name:ident($($argument:ident),+) = $instruction:ident;)+) => {$(
        #[inline(always)]
        fn $name(self, $($argument: Self::F32),+) -> Self::F32 {
            // SAFETY: `detect` found the instruction set before it made `self`.
            unsafe { $instruction($($argument),+) }
        }
    )+};
}

impl Simd for Avx2 {
    const LANES: usize = 8;
    const ROWS: usize = 6;
    type F32 = __m256;

    instructions! {
        add(a, b) = _mm256_add_ps;
        sub(a, b) = _mm256_sub_ps;
        mul(a, b) = _mm256_mul_ps;
        div(a, b) = _mm256_div_ps;
        mul_add(a, b, c) = _mm256_fmadd_ps;
        max(a, b) = _mm256_max_ps;
        min(a, b) = _mm256_min_ps;
    }

    #[inline(always)]
    fn splat(self, value: f32) -> Self::F32 {
        // SAFETY: `detect` found AVX2 before it made `self`.
        unsafe { _mm256_set1_ps(value) }
    }

    #[inline(always)]
    fn load(self, from: &[f32]) -> Self::F32 {
        assert!(from.len() >= Self::LANES);
        // SAFETY: `detect` found AVX2 before it made `self`; eight values are there by the line above.
        unsafe { _mm256_loadu_ps(from.as_ptr()) }
    }

    #[inline(always)]
    fn store(self, vector: Self::F32, to: &mut [f32]) {
        assert!(to.len() >= Self::LANES);
        // SAFETY: `detect` found AVX2 before it made `self`; there is room for eight values by the line above.
        unsafe { _mm256_storeu_ps(to.as_mut_ptr(), vector) }
    }

    #[inline(always)]
    fn load_halves(self, low: &[f32], high: &[f32]) -> Self::F32 {
        assert!(low.len() >= Self::LANES / 2 && high.len() >= Self::LANES / 2);
        // SAFETY: `detect` found AVX2 before it made `self`; each has four values by the line above.
        unsafe { _mm256_loadu2_m128(high.as_ptr(), low.as_ptr()) }
    }

    #[inline(always)]
    fn store_halves(self, vector: Self::F32, low: &mut [f32], high: &mut [f32]) {
        assert!(low.len() >= Self::LANES / 2 && high.len() >= Self::LANES / 2);
        // SAFETY: `detect` found AVX2 before it made `self`; each has room for four values by the line above.
        unsafe { _mm256_storeu2_m128(high.as_mut_ptr(), low.as_mut_ptr(), vector) }
    }

    #[inline(always)]
    fn round(self, a: Self::F32) -> Self::F32 {
        // SAFETY: `detect` found AVX2 before it made `self`.
        unsafe { _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a) }
    }

    #[inline(always)]
    fn exp2_integral(self, a: Self::F32) -> Self::F32 {
        // SAFETY: `detect` found AVX2 before it made `self`.
        unsafe {
            let exponent = _mm256_add_epi32(_mm256_cvtps_epi32(a), _mm256_set1_epi32(127));
            _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent))
        }
    }

    #[inline(always)]
    fn if_negative(self, a: Self::F32, yes: Self::F32, no: Self::F32) -> Self::F32 {
        // SAFETY: `detect` found AVX2 before it made `self`.
        unsafe { _mm256_blendv_ps(no, yes, _mm256_cmp_ps::<_CMP_LT_OQ>(a, _mm256_setzero_ps())) }
    }

    #[inline(always)]
    fn prefetch(self, at: *const f32) {
        // SAFETY: a prefetch reads nothing and never faults, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
    }

    #[inline]
    fn run<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "avx2,fma")]
        fn compiled<K: Kernel>(simd: Avx2, kernel: K) -> K::Output {
            kernel.run(simd)
        }
        // SAFETY: `detect` found AVX2 and FMA before it made `self`.
        unsafe { compiled(self, kernel) }
    }
}

impl Simd for Avx512 {
    const LANES: usize = 16;
    const ROWS: usize = 12;
    type F32 = __m512;

    instructions! {
        add(a, b) = _mm512_add_ps;
        sub(a, b) = _mm512_sub_ps;
        mul(a, b) = _mm512_mul_ps;
        div(a, b) = _mm512_div_ps;
        mul_add(a, b, c) = _mm512_fmadd_ps;
        max(a, b) = _mm512_max_ps;
        min(a, b) = _mm512_min_ps;
    }

    #[inline(always)]
    fn splat(self, value: f32) -> Self::F32 {
        // SAFETY: `detect` found AVX-512 before it made `self`.
        unsafe { _mm512_set1_ps(value) }
    }

    #[inline(always)]
    fn load(self, from: &[f32]) -> Self::F32 {
        assert!(from.len() >= Self::LANES);
        // SAFETY: `detect` found AVX-512 before it made `self`; sixteen values are there by the line above.
        unsafe { _mm512_loadu_ps(from.as_ptr()) }
    }

    #[inline(always)]
    fn store(self, vector: Self::F32, to: &mut [f32]) {
        assert!(to.len() >= Self::LANES);
        // SAFETY: `detect` found AVX-512 before it made `self`; there is room for sixteen values by the line above.
        unsafe { _mm512_storeu_ps(to.as_mut_ptr(), vector) }
    }

    #[inline(always)]
    fn load_halves(self, low: &[f32], high: &[f32]) -> Self::F32 {
        assert!(low.len() >= Self::LANES / 2 && high.len() >= Self::LANES / 2);
        // SAFETY: `detect` found AVX-512 before it made `self`; each has eight values by the line above.
        unsafe {
            let low = _mm512_castps256_ps512(_mm256_loadu_ps(low.as_ptr()));
            _mm512_insertf32x8::<1>(low, _mm256_loadu_ps(high.as_ptr()))
        }
    }

    #[inline(always)]
    fn store_halves(self, vector: Self::F32, low: &mut [f32], high: &mut [f32]) {
        assert!(low.len() >= Self::LANES / 2 && high.len() >= Self::LANES / 2);
        // SAFETY: `detect` found AVX-512 before it made `self`; each has room for eight values by the line above.
        unsafe {
            _mm256_storeu_ps(low.as_mut_ptr(), _mm512_castps512_ps256(vector));
            _mm256_storeu_ps(high.as_mut_ptr(), _mm512_extractf32x8_ps::<1>(vector));
        }
    }

    #[inline(always)]
    fn round(self, a: Self::F32) -> Self::F32 {
        // SAFETY: `detect` found AVX-512 before it made `self`.
        unsafe { _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a) }
    }

    #[inline(always)]
    fn exp2_integral(self, a: Self::F32) -> Self::F32 {
        // SAFETY: `detect` found AVX-512 before it made `self`.
        unsafe { _mm512_scalef_ps(_mm512_set1_ps(1.0), a) }
    }

    #[inline(always)]
    fn if_negative(self, a: Self::F32, yes: Self::F32, no: Self::F32) -> Self::F32 {
        // SAFETY: `detect` found AVX-512 before it made `self`.
        unsafe {
            _mm512_mask_blend_ps(
                _mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, _mm512_setzero_ps()),
                no,
                yes,
            )
        }
    }

    #[inline(always)]
    fn prefetch(self, at: *const f32) {
        // SAFETY: a prefetch reads nothing and never faults, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
    }

    #[inline]
    fn run<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,fma")]
        fn compiled<K: Kernel>(simd: Avx512, kernel: K) -> K::Output {
            kernel.run(simd)
        }
        // SAFETY: `detect` found AVX-512 and FMA before it made `self`.
        unsafe { compiled(self, kernel) }
    }
}
