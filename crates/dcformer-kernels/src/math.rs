//! Exponential and the normal distribution's functions on vectors.

use crate::simd::Simd;

/// `e^x` for `x <= 0`, flushed to about `1e-38` below -87; relative error 2e-7.
///
/// `x = n ln 2 + r` with `|r| <= ln 2 / 2`, then a polynomial in `r` (Taylor to the sixth power: the remainder
/// `r^7 / 5040` is below 1.3e-7) times `2^n`.
#[inline(always)]
pub(crate) fn exp_non_positive<S: Simd>(simd: S, x: S::F32) -> S::F32 {
    /// `ln 2` in two parts, the first with zeros at the end, so that `n * LN_2_HIGH` is exact.
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    const COEFFICIENTS: [f32; 6] = [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0];

    let x = simd.max(x, simd.splat(-87.0));
    let n = simd.round(simd.mul(x, simd.splat(std::f32::consts::LOG2_E)));
    let r = simd.mul_add(n, simd.splat(-LN_2_HIGH), x);
    let r = simd.mul_add(n, simd.splat(-LN_2_LOW), r);
    let mut polynomial = simd.splat(COEFFICIENTS[0]);
    for coefficient in &COEFFICIENTS[1..] {
        polynomial = simd.mul_add(polynomial, r, simd.splat(*coefficient));
    }
    let mantissa = simd.mul_add(polynomial, r, simd.splat(1.0));
    simd.mul(mantissa, simd.exp2_integral(n))
}

/// The exact GELU, `x Φ(x)`; absolute error below `2e-7 (1 + |x|)`, most of it the rounding of `Φ` near 1.
///
/// `Φ(x) - 1/2` is `x` times a rational function of `x²`, fitted on `|x| <= 5.6`, where `Φ` reaches 0 and 1 in single
/// precision; largest error of the fit 1e-8. Half the instructions of [`normal_distribution`], which also gives the density.
#[inline(always)]
pub(crate) fn gelu<S: Simd>(simd: S, x: S::F32) -> S::F32 {
    const LIMIT: f32 = 5.6;
    const NUMERATOR: [f32; 6] = [
        2.214_414_6e-8,
        6.356_036_5e-6,
        1.738_331_2e-4,
        4.707_152_5e-3,
        3.437_48e-2,
        0.398_942_23,
    ];
    const DENOMINATOR: [f32; 6] = [
        1.180_140_1e-6,
        7.509_422e-5,
        1.912_882_8e-3,
        2.893_927e-2,
        0.252_830_56,
        1.0,
    ];
    let clamped = simd.min(simd.max(x, simd.splat(-LIMIT)), simd.splat(LIMIT));
    let square = simd.mul(clamped, clamped);
    let horner = |coefficients: [f32; 6]| {
        let mut sum = simd.splat(coefficients[0]);
        for coefficient in &coefficients[1..] {
            sum = simd.mul_add(sum, square, simd.splat(*coefficient));
        }
        sum
    };
    let odd = simd.div(simd.mul(clamped, horner(NUMERATOR)), horner(DENOMINATOR));
    simd.mul(x, simd.add(odd, simd.splat(0.5)))
}

/// Cumulative distribution and density of the standard normal distribution at `x`: `(Φ(x), φ(x))`.
///
/// `Φ` from the error function of Abramowitz and Stegun, formula 7.1.26 (absolute error 1.5e-7): a polynomial in
/// `1 / (1 + p z)` times `e^(-z²)` with `z = |x| / √2`. The exponential is the density's own, up to a factor.
#[inline(always)]
pub(crate) fn normal_distribution<S: Simd>(simd: S, x: S::F32) -> (S::F32, S::F32) {
    const P: f32 = 0.327_591_1;
    const A: [f32; 5] = [
        1.061_405_4,
        -1.453_152_1,
        1.421_413_7,
        -0.284_496_73,
        0.254_829_6,
    ];
    const INVERSE_SQRT_2_PI: f32 = 0.398_942_3;

    let zero = simd.splat(0.0);
    let magnitude = simd.max(x, simd.sub(zero, x));
    let z = simd.mul(magnitude, simd.splat(std::f32::consts::FRAC_1_SQRT_2));
    let one = simd.splat(1.0);
    let t = simd.div(one, simd.mul_add(simd.splat(P), z, one));
    let exponential = exp_non_positive(simd, simd.sub(zero, simd.mul(z, z)));
    let mut polynomial = simd.splat(A[0]);
    for coefficient in &A[1..] {
        polynomial = simd.mul_add(polynomial, t, simd.splat(*coefficient));
    }
    let tail = simd.mul(
        simd.mul(simd.mul(polynomial, t), exponential),
        simd.splat(0.5),
    );
    let cdf = simd.if_negative(x, tail, simd.sub(one, tail));
    (cdf, simd.mul(exponential, simd.splat(INVERSE_SQRT_2_PI)))
}
