//! Packed attention on the CPU: one task per sequence and head, each a few matrix products.

use rayon::prelude::*;

use crate::math::exp_non_positive;
use crate::matmul::{Broadcast, Panels, Store, matmul};
use crate::simd::{Kernel, Level, Simd};

/// The operands of one call, `[tokens, heads * head_dim]` each.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attention<'a> {
    pub(crate) q: &'a [f32],
    pub(crate) k: &'a [f32],
    pub(crate) v: &'a [f32],
    pub(crate) lengths: &'a [usize],
    pub(crate) heads: usize,
    pub(crate) channels: usize,
}

/// One head of one sequence.
#[derive(Clone, Copy, Debug)]
struct Place {
    /// First token of the sequence.
    token: usize,
    length: usize,
    head: usize,
}

impl Attention<'_> {
    fn head_dim(&self) -> usize {
        self.channels / self.heads
    }

    fn scale(&self) -> f32 {
        (self.head_dim() as f32).sqrt().recip()
    }

    fn places(&self) -> Vec<Place> {
        let mut token = 0;
        let mut places = Vec::with_capacity(self.lengths.len() * self.heads);
        for &length in self.lengths {
            places.extend((0..self.heads).map(|head| Place {
                token,
                length,
                head,
            }));
            token += length;
        }
        places
    }

    /// `[length, head_dim]` of a place.
    fn gather(&self, values: &[f32], place: Place) -> Vec<f32> {
        let head_dim = self.head_dim();
        let rows = values[place.token * self.channels..][..place.length * self.channels]
            .chunks_exact(self.channels);
        rows.flat_map(|row| &row[place.head * head_dim..][..head_dim])
            .copied()
            .collect()
    }

    /// The reverse of [`gather`](Self::gather), for all places at once.
    fn scatter(&self, places: &[Place], parts: &[Vec<f32>]) -> Vec<f32> {
        let head_dim = self.head_dim();
        let mut out = vec![0.0; self.q.len()];
        for (place, part) in places.iter().zip(parts) {
            let rows = out[place.token * self.channels..][..place.length * self.channels]
                .chunks_exact_mut(self.channels);
            for (row, part) in rows.zip(part.chunks_exact(head_dim)) {
                row[place.head * head_dim..][..head_dim].copy_from_slice(part);
            }
        }
        out
    }

    /// `softmax(q kᵀ scale)`, `[length, length]`.
    fn weights(&self, level: Level, q: &[f32], k: &[f32], length: usize) -> Vec<f32> {
        let head_dim = self.head_dim();
        let mut weights = vec![0.0; length * length];
        let keys = Panels::of_transposed(level, k, head_dim, length);
        matmul(
            level,
            Broadcast::rows(q, head_dim),
            &keys,
            &mut weights,
            Store::Plain,
        );
        for row in weights.chunks_exact_mut(length.max(1)) {
            level.run(Softmax {
                row,
                scale: self.scale(),
            });
        }
        weights
    }

    /// See [`packed_attention`](super::packed_attention).
    pub(crate) fn forward(&self, level: Level) -> Vec<f32> {
        let places = self.places();
        let head_dim = self.head_dim();
        let parts: Vec<Vec<f32>> = places
            .par_iter()
            .map(|&place| {
                let [q, k, v] = [self.q, self.k, self.v].map(|values| self.gather(values, place));
                let weights = self.weights(level, &q, &k, place.length);
                let mut out = vec![0.0; place.length * head_dim];
                let values = Panels::of(level, &v, place.length, head_dim);
                matmul(
                    level,
                    Broadcast::rows(&weights, place.length),
                    &values,
                    &mut out,
                    Store::Plain,
                );
                out
            })
            .collect();
        self.scatter(&places, &parts)
    }

    /// Gradients of `q`, `k` and `v`, the weights `P` recomputed:
    /// `dV = Pᵀ dO`, `dP = dO Vᵀ`, `dS = P * (dP - Σ dP * P)`, `dQ = scale dS K`, `dK = scale dSᵀ Q`.
    pub(crate) fn backward(&self, level: Level, gradient: &[f32]) -> [Vec<f32>; 3] {
        let places = self.places();
        let head_dim = self.head_dim();
        let parts: Vec<[Vec<f32>; 3]> = places
            .par_iter()
            .map(|&place| {
                let length = place.length;
                let [q, k, v, g] =
                    [self.q, self.k, self.v, gradient].map(|values| self.gather(values, place));
                let weights = self.weights(level, &q, &k, length);
                let product = |a: Broadcast<'_>, b: &Panels, columns: usize| {
                    let mut out = vec![0.0; length * columns];
                    matmul(level, a, b, &mut out, Store::Plain);
                    out
                };
                let of = |values: &[f32]| Panels::of(level, values, length, head_dim);
                let dv = product(Broadcast::columns(&weights, length), &of(&g), head_dim);
                let values = Panels::of_transposed(level, &v, head_dim, length);
                let mut ds = product(Broadcast::rows(&g, head_dim), &values, length);
                for (ds, weights) in ds
                    .chunks_exact_mut(length.max(1))
                    .zip(weights.chunks_exact(length.max(1)))
                {
                    let mean: f32 = ds.iter().zip(weights).map(|(ds, weight)| ds * weight).sum();
                    for (ds, weight) in ds.iter_mut().zip(weights) {
                        *ds = weight * (*ds - mean) * self.scale();
                    }
                }
                let dq = product(Broadcast::rows(&ds, length), &of(&k), head_dim);
                let dk = product(Broadcast::columns(&ds, length), &of(&q), head_dim);
                [dq, dk, dv]
            })
            .collect();
        let [mut dq, mut dk, mut dv] = [(); 3].map(|()| Vec::with_capacity(parts.len()));
        for [q, k, v] in parts {
            dq.push(q);
            dk.push(k);
            dv.push(v);
        }
        [dq, dk, dv].map(|parts| self.scatter(&places, &parts))
    }
}

/// `row = softmax(row * scale)`.
struct Softmax<'a> {
    row: &'a mut [f32],
    scale: f32,
}

impl Kernel for Softmax<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { row, scale } = self;
        let mut largest = f32::NEG_INFINITY;
        for value in row.iter_mut() {
            *value *= scale;
            largest = largest.max(*value);
        }
        let shift = simd.splat(largest);
        for values in row.chunks_mut(S::LANES) {
            let exponential = exp_non_positive(simd, simd.sub(simd.load_partial(values), shift));
            simd.store_partial(exponential, values);
        }
        let sum: f32 = row.iter().sum();
        for value in row.iter_mut() {
            *value /= sum;
        }
    }
}
