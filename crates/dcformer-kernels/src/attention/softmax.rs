//! Rows of logits to rows of weights.

use crate::math::exp_non_positive;
use crate::simd::{MAX_LANES, Simd};

/// `row = exp(row · scale + bias - largest)`, the largest such logit; gives one over the sum, which makes it a softmax.
#[inline(always)]
pub(super) fn exponentials<S: Simd>(
    simd: S,
    row: &mut [f32],
    scale: f32,
    bias: Option<&[f32]>,
) -> f32 {
    let factor = simd.splat(scale);
    let mut largest = simd.splat(f32::NEG_INFINITY);
    for start in (0..row.len()).step_by(S::LANES) {
        let here = start..(start + S::LANES).min(row.len());
        let mut logits = simd.mul(load_logits(simd, &row[here.clone()]), factor);
        if let Some(bias) = bias {
            logits = simd.add(logits, simd.load_partial(&bias[here.clone()]));
        }
        largest = simd.max(largest, logits);
        simd.store_partial(logits, &mut row[here]);
    }
    let mut lanes = [f32::NEG_INFINITY; MAX_LANES];
    simd.store(largest, &mut lanes);
    let largest = simd.splat(lanes.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let mut sum = simd.splat(0.0);
    for values in row.chunks_mut(S::LANES) {
        let exponential = exp_non_positive(simd, simd.sub(load_logits(simd, values), largest));
        sum = simd.add(sum, exponential);
        simd.store_partial(exponential, values);
    }
    let mut lanes = [0.0; MAX_LANES];
    simd.store(sum, &mut lanes);
    lanes.iter().sum::<f32>().recip()
}

/// A vector of logits; beyond the last, the logit of a weight of next to nothing.
#[inline(always)]
fn load_logits<S: Simd>(simd: S, values: &[f32]) -> S::F32 {
    if values.len() >= S::LANES {
        return simd.load(values);
    }
    let mut lanes = [f32::NEG_INFINITY; MAX_LANES];
    lanes[..values.len()].copy_from_slice(values);
    simd.load(&lanes)
}

/// `row *= factor`.
#[inline(always)]
pub(super) fn scale_row<S: Simd>(simd: S, row: &mut [f32], factor: f32) {
    let factor = simd.splat(factor);
    for values in row.chunks_mut(S::LANES) {
        simd.store_partial(simd.mul(simd.load_partial(values), factor), values);
    }
}
