//! The polynomials behind [F(4, 7)](super::winograd): from values to the ten points and back.
//!
//! The points are 0, ±1, ±2, ±1/2, ±3/4 and infinity; points further from 1 or closer to each other lose more.

use crate::simd::Simd;

/// Taps along the width.
pub(super) const TAPS: usize = 7;
/// Outputs of a transform.
pub(super) const OUTPUTS: usize = 4;
/// Values of a transform: 0, the pairs, infinity.
pub(super) const POINTS: usize = TAPS + OUTPUTS - 1;
/// The positive points; each stands for itself and its negative.
const PAIRS: [f32; 4] = [1.0, 2.0, 0.5, 0.75];

/// Coefficients of the product of `y - a²` over all points `a` of [`PAIRS`] but the one at `skip`, the constant's first.
const fn polynomial(skip: usize) -> [f32; 5] {
    let mut coefficients = [0.0; 5];
    coefficients[0] = 1.0;
    let mut pair = 0;
    while pair < PAIRS.len() {
        if pair != skip {
            let root = PAIRS[pair] * PAIRS[pair];
            let mut power = 4;
            while power > 0 {
                coefficients[power] = coefficients[power - 1] - root * coefficients[power];
                power -= 1;
            }
            coefficients[0] *= -root;
        }
        pair += 1;
    }
    coefficients
}

/// Of all pairs, and of all but one.
const ALL: [f32; 5] = polynomial(PAIRS.len());
const OTHERS: [[f32; 5]; 4] = [polynomial(0), polynomial(1), polynomial(2), polynomial(3)];

/// What interpolation divides the value at a point by, the same for its negative.
const fn divisor(pair: usize) -> f32 {
    let square = PAIRS[pair] * PAIRS[pair];
    let [a, b, c, d, _] = OTHERS[pair];
    2.0 * square * (a + square * (b + square * (c + square * d)))
}

const DIVISORS: [f32; 4] = [divisor(0), divisor(1), divisor(2), divisor(3)];

/// Values at the ten points of the polynomial whose coefficients are a row of taps, divided by what interpolation divides
/// by.
#[inline(always)]
pub(super) fn transform_taps<S: Simd>(simd: S, taps: [S::F32; TAPS]) -> [S::F32; POINTS] {
    let mut out = [taps[TAPS - 1]; POINTS];
    out[0] = simd.mul(taps[0], simd.splat(1.0 / ALL[0]));
    for (pair, point) in PAIRS.iter().enumerate() {
        let square = simd.splat(point * point);
        let (mut even, mut odd) = (taps[6], taps[5]);
        for power in [4, 2, 0] {
            even = simd.mul_add(even, square, taps[power]);
        }
        for power in [3, 1] {
            odd = simd.mul_add(odd, square, taps[power]);
        }
        let odd = simd.mul(odd, simd.splat(*point));
        let factor = simd.splat(1.0 / DIVISORS[pair]);
        out[1 + 2 * pair] = simd.mul(simd.add(even, odd), factor);
        out[2 + 2 * pair] = simd.mul(simd.sub(even, odd), factor);
    }
    out
}

/// Ten inputs at the ten points.
#[inline(always)]
pub(super) fn transform<S: Simd>(simd: S, inputs: [S::F32; POINTS]) -> [S::F32; POINTS] {
    let mut out = inputs;
    let (mut zero, mut infinity) = (inputs[8], inputs[9]);
    for power in 0..4 {
        let coefficient = simd.splat(ALL[power]);
        zero = simd.mul_add(coefficient, inputs[2 * power], zero);
        infinity = simd.mul_add(coefficient, inputs[2 * power + 1], infinity);
    }
    out[0] = zero;
    out[POINTS - 1] = infinity;
    for (pair, point) in PAIRS.iter().enumerate() {
        let (mut even, mut odd) = (inputs[8], inputs[7]);
        for power in 0..3 {
            let coefficient = simd.splat(OTHERS[pair][power]);
            even = simd.mul_add(coefficient, inputs[2 * power + 2], even);
            odd = simd.mul_add(coefficient, inputs[2 * power + 1], odd);
        }
        out[1 + 2 * pair] = simd.mul_add(simd.splat(*point), odd, even);
        out[2 + 2 * pair] = simd.mul_add(simd.splat(-*point), odd, even);
    }
    out
}

/// Four outputs from sums at the ten points.
#[inline(always)]
pub(super) fn transform_back<S: Simd>(
    simd: S,
    sums: [S::F32; POINTS],
    bias: S::F32,
) -> [S::F32; OUTPUTS] {
    let mut out = [
        simd.add(bias, sums[0]),
        bias,
        bias,
        simd.add(bias, sums[POINTS - 1]),
    ];
    for (pair, point) in PAIRS.iter().enumerate() {
        let (positive, negative) = (sums[1 + 2 * pair], sums[2 + 2 * pair]);
        let (sum, difference) = (simd.add(positive, negative), simd.sub(positive, negative));
        out[0] = simd.add(out[0], sum);
        out[1] = simd.mul_add(simd.splat(*point), difference, out[1]);
        out[2] = simd.mul_add(simd.splat(point * point), sum, out[2]);
        out[3] = simd.mul_add(simd.splat(point * point * point), difference, out[3]);
    }
    out
}
