//! The MLP on the CPU: two matrix products with bias and GELU in their epilogue.

use std::ops::Deref;

use crate::gelu;
use crate::matmul::{Broadcast, Panels, Store, matmul, matmul_over_rows};
use crate::memory::zeros;
use crate::simd::Level;

/// The operands of one call. Every size in this file comes from here.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mlp<'a> {
    pub(crate) x: &'a [f32],
    pub(crate) w1: &'a [f32],
    pub(crate) b1: &'a [f32],
    pub(crate) w2: &'a [f32],
    pub(crate) b2: &'a [f32],
    pub(crate) rows: usize,
}

/// Gradients of the five operands.
#[derive(Debug)]
pub(crate) struct MlpGradients {
    pub(crate) x: Vec<f32>,
    pub(crate) w1: Vec<f32>,
    pub(crate) b1: Vec<f32>,
    pub(crate) w2: Vec<f32>,
    pub(crate) b2: Vec<f32>,
}

/// Rows computed together: the hidden activations of a chunk stay in the cache and never fill memory.
const ROWS_PER_CHUNK: usize = 4096;

impl<'a> Mlp<'a> {
    /// `operands`: x, w1, b1, w2, b2.
    pub(crate) fn of<V: Deref<Target = [f32]>>(operands: &'a [V; 5], rows: usize) -> Self {
        let [x, w1, b1, w2, b2] = operands.each_ref().map(|values| &**values);
        Self {
            x,
            w1,
            b1,
            w2,
            b2,
            rows,
        }
    }
}

impl Mlp<'_> {
    fn hidden(&self) -> usize {
        self.b1.len()
    }

    fn channels_in(&self) -> usize {
        self.w1.len() / self.hidden().max(1)
    }

    fn channels_out(&self) -> usize {
        self.b2.len()
    }

    /// Values of the hidden activations.
    pub(crate) fn hidden_len(&self) -> usize {
        self.rows * self.hidden()
    }

    /// `[rows, channels_out]`, and what [`backward`](Self::backward) would compute again: the hidden values before their GELU.
    pub(crate) fn forward_keeping(&self, level: Level) -> (Vec<f32>, Vec<f32>) {
        let (hidden, channels_out) = (self.hidden(), self.channels_out());
        let kept = self.before_gelu(level);
        let mut out = zeros(self.rows * channels_out);
        if out.is_empty() {
            return (out, kept);
        }
        let w2 = Panels::of(level, self.w2, hidden, channels_out);
        let mut activations = Vec::new();
        for (out, kept) in out
            .chunks_mut(ROWS_PER_CHUNK * channels_out)
            .zip(kept.chunks(ROWS_PER_CHUNK * hidden))
        {
            activations.clear();
            activations.extend_from_slice(kept);
            gelu::cpu::forward(level, &mut activations);
            matmul(
                level,
                Broadcast::rows(&activations, hidden),
                &w2,
                out,
                Store::Biased(self.b2),
            );
        }
        (out, kept)
    }

    /// `[rows, hidden]`.
    fn before_gelu(&self, level: Level) -> Vec<f32> {
        let (channels_in, hidden) = (self.channels_in(), self.hidden());
        let mut values = zeros(self.hidden_len());
        let w1 = Panels::of(level, self.w1, channels_in, hidden);
        matmul(
            level,
            Broadcast::rows(self.x, channels_in),
            &w1,
            &mut values,
            Store::Biased(self.b1),
        );
        values
    }

    /// `[rows, channels_out]`.
    pub(crate) fn forward(&self, level: Level) -> Vec<f32> {
        let (channels_in, hidden, channels_out) =
            (self.channels_in(), self.hidden(), self.channels_out());
        let mut out = zeros(self.rows * channels_out);
        if out.is_empty() {
            return out;
        }
        let w1 = Panels::of(level, self.w1, channels_in, hidden);
        let w2 = Panels::of(level, self.w2, hidden, channels_out);
        let mut activations = vec![0.0; self.rows.min(ROWS_PER_CHUNK) * hidden];
        for (chunk, out) in out.chunks_mut(ROWS_PER_CHUNK * channels_out).enumerate() {
            let rows = out.len() / channels_out;
            let activations = &mut activations[..rows * hidden];
            let x = &self.x[chunk * ROWS_PER_CHUNK * channels_in..];
            matmul(
                level,
                Broadcast::rows(x, channels_in),
                &w1,
                activations,
                Store::BiasedGelu(self.b1),
            );
            matmul(
                level,
                Broadcast::rows(activations, hidden),
                &w2,
                out,
                Store::Biased(self.b2),
            );
        }
        out
    }

    /// Gradients of all operands; `gradient`: `[rows, channels_out]`. What the forward pass did not keep of the hidden values is
    /// computed again.
    pub(crate) fn backward(
        &self,
        level: Level,
        gradient: &[f32],
        kept: Option<Vec<f32>>,
    ) -> MlpGradients {
        let (channels_in, hidden, channels_out) =
            (self.channels_in(), self.hidden(), self.channels_out());
        let mut activations = kept.unwrap_or_else(|| self.before_gelu(level));
        let mut hidden_gradient = zeros(self.rows * hidden);
        let w2_transposed = Panels::of_transposed(level, self.w2, channels_out, hidden);
        matmul(
            level,
            Broadcast::rows(gradient, channels_out),
            &w2_transposed,
            &mut hidden_gradient,
            Store::Plain,
        );
        gelu::cpu::backward(level, &mut activations, &mut hidden_gradient);

        let w2 = matmul_over_rows(
            level,
            &activations,
            gradient,
            [self.rows, hidden, channels_out],
        );
        let w1 = matmul_over_rows(
            level,
            self.x,
            &hidden_gradient,
            [self.rows, channels_in, hidden],
        );
        let w1_transposed = Panels::of_transposed(level, self.w1, hidden, channels_in);
        let mut x = zeros(self.rows * channels_in);
        matmul(
            level,
            Broadcast::rows(&hidden_gradient, hidden),
            &w1_transposed,
            &mut x,
            Store::Plain,
        );
        MlpGradients {
            x,
            w1,
            b1: sum_of_rows(&hidden_gradient, hidden),
            w2,
            b2: sum_of_rows(gradient, channels_out),
        }
    }
}

/// Sum over rows, in double precision and a fixed order.
pub(crate) fn sum_of_rows(values: &[f32], columns: usize) -> Vec<f32> {
    let mut sums = vec![0.0_f64; columns];
    if columns > 0 {
        for row in values.chunks_exact(columns) {
            for (sum, value) in sums.iter_mut().zip(row) {
                *sum += f64::from(*value);
            }
        }
    }
    sums.into_iter().map(|sum| sum as f32).collect()
}
