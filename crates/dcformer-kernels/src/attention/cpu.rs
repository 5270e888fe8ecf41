//! Attention on the CPU: each head of each sequence by blocks of queries, so that the weights of a block are all that is in
//! memory of them.

use rayon::prelude::*;

use super::softmax::{exponentials, scale_row};
use crate::matmul::{Broadcast, Panels, Product, Store};
use crate::simd::{Kernel, Level, Simd};
use crate::statistics::add_to;

/// Queries of a block, a multiple of the rows of every level's tile.
const QUERIES: usize = 48;

/// The operands of one call, `[tokens, heads * head_dim]` each.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attention<'a> {
    pub(crate) q: &'a [f32],
    pub(crate) k: &'a [f32],
    pub(crate) v: &'a [f32],
    /// `[heads, length, length]`, of a query and a key, for sequences of one length: added to the logits.
    pub(crate) bias: Option<&'a [f32]>,
    pub(crate) lengths: &'a [usize],
    pub(crate) heads: usize,
    pub(crate) channels: usize,
}

/// Gradients of the operands.
#[derive(Debug)]
pub(crate) struct Gradients {
    pub(crate) q: Vec<f32>,
    pub(crate) k: Vec<f32>,
    pub(crate) v: Vec<f32>,
    /// Of the bias, if there is one.
    pub(crate) bias: Option<Vec<f32>>,
}

/// Gradients of queries, keys and values of some places, and the sum of what they add to their head's bias.
type GroupGradients = (Vec<[Vec<f32>; 3]>, Vec<f32>);

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

    /// All heads of a sequence, then the next sequence.
    fn places(&self) -> Vec<Place> {
        let mut token = 0;
        let mut places = Vec::with_capacity(self.lengths.len() * self.heads);
        for &length in self.lengths.iter().filter(|length| **length > 0) {
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
    fn scatter(&self, parts: &[(Place, Vec<f32>)]) -> Vec<f32> {
        let head_dim = self.head_dim();
        let mut out = vec![0.0; self.q.len()];
        let mut rest = &mut out[..];
        let mut sequences = Vec::with_capacity(parts.len() / self.heads);
        for heads in parts.chunks_exact(self.heads) {
            let (sequence, others) = rest.split_at_mut(heads[0].0.length * self.channels);
            sequences.push((sequence, heads));
            rest = others;
        }
        sequences.into_par_iter().for_each(|(sequence, heads)| {
            for (place, part) in heads {
                let rows = sequence.chunks_exact_mut(self.channels);
                for (row, part) in rows.zip(part.chunks_exact(head_dim)) {
                    row[place.head * head_dim..][..head_dim].copy_from_slice(part);
                }
            }
        });
        out
    }

    /// The bias of a place, `[length, length]`.
    fn bias_of(&self, place: Place) -> Option<&[f32]> {
        let len = place.length * place.length;
        self.bias.map(|bias| &bias[place.head * len..][..len])
    }

    /// Queries of a place from `first` on, and the keys they are held against.
    fn queries<'a>(
        &'a self,
        place: Place,
        first: usize,
        q: &'a [f32],
        keys: &'a Panels,
    ) -> Queries<'a> {
        let head_dim = self.head_dim();
        let count = QUERIES.min(place.length - first);
        Queries {
            q: &q[first * head_dim..][..count * head_dim],
            keys,
            head_dim,
            scale: self.scale(),
            bias: self
                .bias_of(place)
                .map(|bias| &bias[first * place.length..][..count * place.length]),
        }
    }

    /// See [`packed_attention`](super::packed_attention) and [`biased_attention`](super::biased_attention).
    pub(crate) fn forward(&self, level: Level) -> Vec<f32> {
        let head_dim = self.head_dim();
        let parts: Vec<(Place, Vec<f32>)> = self
            .places()
            .into_par_iter()
            .map(|place| {
                let [q, k, v] = [self.q, self.k, self.v].map(|values| self.gather(values, place));
                let keys = Panels::of_transposed(level, &k, head_dim, place.length);
                let values = Panels::of(level, &v, place.length, head_dim);
                let mut out = vec![0.0; place.length * head_dim];
                out.par_chunks_mut(QUERIES * head_dim)
                    .enumerate()
                    .for_each_init(Vec::new, |weights, (block, out)| {
                        level.run(Forward {
                            queries: self.queries(place, block * QUERIES, &q, &keys),
                            values: &values,
                            weights,
                            out,
                        });
                    });
                (place, out)
            })
            .collect();
        self.scatter(&parts)
    }

    /// Gradients, the weights `P` recomputed:
    /// `dV = Pᵀ dO`, `dP = dO Vᵀ`, `dS = P * (dP - Σ dP * P)`, `dQ = scale dS K`, `dK = scale dSᵀ Q`, and the bias has the
    /// sum of `dS` over the sequences.
    pub(crate) fn backward(&self, level: Level, gradient: &[f32]) -> Gradients {
        let places = self.places();
        // Sequences share a bias, so with one a head's are taken in turn.
        let in_turn = match self.bias {
            Some(_) => self.lengths.len().max(1),
            None => 1,
        };
        let groups = places.len().div_ceil(in_turn);
        let of_group: Vec<GroupGradients> = (0..groups)
            .into_par_iter()
            .map(|group| {
                let bias_len = match self.bias {
                    Some(bias) => bias.len() / self.heads,
                    None => 0,
                };
                let mut of_bias = vec![0.0; bias_len];
                let places = places[group..].iter().step_by(groups).take(in_turn);
                let parts = places
                    .map(|place| self.place_backward(level, *place, gradient, &mut of_bias))
                    .collect();
                (parts, of_bias)
            })
            .collect();
        let [mut q, mut k, mut v] = [(); 3].map(|()| Vec::with_capacity(places.len()));
        let (mut parts, mut bias) = (Vec::with_capacity(groups), Vec::new());
        for (part, of_bias) in of_group {
            parts.push(part.into_iter());
            bias.extend(of_bias);
        }
        for (index, place) in places.iter().enumerate() {
            let [dq, dk, dv] = parts[index % groups].next().expect("a part of each place");
            q.push((*place, dq));
            k.push((*place, dk));
            v.push((*place, dv));
        }
        Gradients {
            q: self.scatter(&q),
            k: self.scatter(&k),
            v: self.scatter(&v),
            bias: self.bias.map(|_| bias),
        }
    }

    /// Gradients of a place's queries, keys and values; that of the bias is added.
    fn place_backward(
        &self,
        level: Level,
        place: Place,
        gradient: &[f32],
        of_bias: &mut [f32],
    ) -> [Vec<f32>; 3] {
        let (head_dim, length) = (self.head_dim(), place.length);
        let [q, k, v, g] =
            [self.q, self.k, self.v, gradient].map(|values| self.gather(values, place));
        let keys_transposed = Panels::of_transposed(level, &k, head_dim, length);
        let values_transposed = Panels::of_transposed(level, &v, head_dim, length);
        let keys = Panels::of(level, &k, length, head_dim);
        let [mut dq, mut dk, mut dv] = [(); 3].map(|()| vec![0.0; length * head_dim]);
        let (mut weights, mut slopes) = (Vec::new(), Vec::new());
        for (block, dq) in dq.chunks_mut(QUERIES * head_dim).enumerate() {
            let first = block * QUERIES;
            let g = &g[first * head_dim..][..dq.len()];
            let queries = self.queries(place, first, &q, &keys_transposed);
            level.run(Slopes {
                queries,
                g,
                values: &values_transposed,
                weights: &mut weights,
                slopes: &mut slopes,
            });
            if !of_bias.is_empty() {
                add_to(&mut of_bias[first * length..][..slopes.len()], &slopes);
            }
            slopes.iter_mut().for_each(|slope| *slope *= self.scale());
            let count = g.len() / head_dim;
            let of_block = |values: &[f32]| Panels::of(level, values, count, head_dim);
            let multiply = |a, b: &Panels, out: &mut [f32], store| {
                level.run(Product { a, b, out, store });
            };
            multiply(Broadcast::rows(&slopes, length), &keys, dq, Store::Plain);
            let queries = of_block(queries.q);
            multiply(
                Broadcast::columns(&slopes, length),
                &queries,
                &mut dk,
                Store::Add,
            );
            multiply(
                Broadcast::columns(&weights, length),
                &of_block(g),
                &mut dv,
                Store::Add,
            );
        }
        [dq, dk, dv]
    }
}

/// A block of queries, and the keys they are held against.
#[derive(Clone, Copy, Debug)]
struct Queries<'a> {
    /// `[queries, head_dim]`
    q: &'a [f32],
    /// `[head_dim, length]`
    keys: &'a Panels,
    head_dim: usize,
    scale: f32,
    /// `[queries, length]`
    bias: Option<&'a [f32]>,
}

impl Queries<'_> {
    /// The exponentials of the logits, `[queries, length]`, and one over the sum of each row.
    #[inline(always)]
    fn exponentials<S: Simd>(&self, simd: S, weights: &mut Vec<f32>) -> [f32; QUERIES] {
        let (count, length) = (self.q.len() / self.head_dim, self.keys.columns());
        weights.clear();
        weights.resize(count * length, 0.0);
        Product {
            a: Broadcast::rows(self.q, self.head_dim),
            b: self.keys,
            out: weights,
            store: Store::Plain,
        }
        .run(simd);
        let mut inverse = [0.0; QUERIES];
        let rows = weights.chunks_exact_mut(length);
        for (row, (weights, inverse)) in rows.zip(&mut inverse).enumerate() {
            let bias = self.bias.map(|bias| &bias[row * length..][..length]);
            *inverse = exponentials(simd, weights, self.scale, bias);
        }
        inverse
    }
}

/// `softmax(q kᵀ scale + bias) v` of a block of queries.
struct Forward<'a> {
    queries: Queries<'a>,
    /// `[length, head_dim]`
    values: &'a Panels,
    weights: &'a mut Vec<f32>,
    /// `[queries, head_dim]`
    out: &'a mut [f32],
}

impl Kernel for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let inverse = self.queries.exponentials(simd, self.weights);
        let length = self.queries.keys.columns();
        Product {
            a: Broadcast::rows(self.weights, length),
            b: self.values,
            out: &mut *self.out,
            store: Store::Plain,
        }
        .run(simd);
        // A row of outputs is shorter than one of weights.
        let rows = self.out.chunks_exact_mut(self.queries.head_dim);
        for (row, inverse) in rows.zip(inverse) {
            scale_row(simd, row, inverse);
        }
    }
}

/// The weights of a block of queries and the gradients of its logits, `[queries, length]` each.
struct Slopes<'a> {
    queries: Queries<'a>,
    /// Gradient of the output, `[queries, head_dim]`
    g: &'a [f32],
    /// `[head_dim, length]`
    values: &'a Panels,
    weights: &'a mut Vec<f32>,
    slopes: &'a mut Vec<f32>,
}

impl Kernel for Slopes<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let inverse = self.queries.exponentials(simd, self.weights);
        let length = self.queries.keys.columns();
        self.slopes.clear();
        self.slopes.resize(self.weights.len(), 0.0);
        Product {
            a: Broadcast::rows(self.g, self.queries.head_dim),
            b: self.values,
            out: self.slopes,
            store: Store::Plain,
        }
        .run(simd);
        let slopes = self.slopes.chunks_exact_mut(length);
        let weights = self.weights.chunks_exact_mut(length);
        for ((slopes, weights), inverse) in slopes.zip(weights).zip(inverse) {
            scale_row(simd, weights, inverse);
            let mut sum = simd.splat(0.0);
            for (slope, weight) in slopes.chunks(S::LANES).zip(weights.chunks(S::LANES)) {
                sum = simd.mul_add(simd.load_partial(slope), simd.load_partial(weight), sum);
            }
            let mut lanes = [0.0; crate::simd::MAX_LANES];
            simd.store(sum, &mut lanes);
            let mean = simd.splat(lanes.iter().sum());
            for (slope, weight) in slopes.chunks_mut(S::LANES).zip(weights.chunks(S::LANES)) {
                let centred = simd.sub(simd.load_partial(slope), mean);
                simd.store_partial(simd.mul(simd.load_partial(weight), centred), slope);
            }
        }
    }
}
