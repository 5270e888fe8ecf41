//! Layer normalisation on the CPU: a row at a time.

use rayon::prelude::*;

use crate::matmul::sum_in_order;
use crate::simd::{Kernel, Level, Simd};

/// Rows of one task and of one partial sum.
const ROWS: usize = 128;

/// Gradients of the three operands.
#[derive(Debug)]
pub(crate) struct Gradients {
    pub(crate) x: Vec<f32>,
    pub(crate) gamma: Vec<f32>,
    pub(crate) beta: Vec<f32>,
}

/// Mean and `1 / sqrt(variance + epsilon)` of a row.
#[inline(always)]
fn statistics(row: &[f32], epsilon: f64) -> (f32, f32) {
    let count = row.len() as f32;
    let mean = sum(row.iter().copied()) / count;
    let variance = sum(row.iter().map(|value| (value - mean) * (value - mean))) / count;
    (
        mean,
        ((f64::from(variance) + epsilon).sqrt().recip()) as f32,
    )
}

/// Sum in sixteen interleaved parts: a fixed order that vectorises.
#[inline(always)]
fn sum(values: impl Iterator<Item = f32>) -> f32 {
    let mut parts = [0.0_f32; 16];
    for (index, value) in values.enumerate() {
        parts[index % 16] += value;
    }
    parts.iter().sum()
}

/// See [`layer_norm`](super::layer_norm()).
pub(crate) fn forward(
    level: Level,
    x: &[f32],
    gamma: &[f32],
    beta: &[f32],
    epsilon: f64,
) -> Vec<f32> {
    struct Rows<'a> {
        x: &'a [f32],
        out: &'a mut [f32],
        gamma: &'a [f32],
        beta: &'a [f32],
        epsilon: f64,
    }
    impl Kernel for Rows<'_> {
        type Output = ();
        #[inline(always)]
        fn run<S: Simd>(self, _: S) {
            let channels = self.gamma.len();
            for (row, out) in self
                .x
                .chunks_exact(channels)
                .zip(self.out.chunks_exact_mut(channels))
            {
                let (mean, inverse) = statistics(row, self.epsilon);
                let affine = self.gamma.iter().zip(self.beta);
                for ((out, value), (gamma, beta)) in out.iter_mut().zip(row).zip(affine) {
                    *out = (value - mean) * inverse * gamma + beta;
                }
            }
        }
    }
    let channels = gamma.len();
    let mut out = vec![0.0; x.len()];
    if channels > 0 {
        out.par_chunks_mut(ROWS * channels)
            .zip(x.par_chunks(ROWS * channels))
            .for_each(|(out, x)| {
                level.run(Rows {
                    x,
                    out,
                    gamma,
                    beta,
                    epsilon,
                });
            });
    }
    out
}

/// Gradients: with `z` the normalised row and `h = g * gamma`,
/// `dx = (h - mean(h) - z * mean(h * z)) * inverse`, `dgamma = Σ g * z`, `dbeta = Σ g`.
pub(crate) fn backward(
    level: Level,
    x: &[f32],
    gamma: &[f32],
    epsilon: f64,
    gradient: &[f32],
) -> Gradients {
    struct Rows<'a> {
        x: &'a [f32],
        gradient: &'a [f32],
        out: &'a mut [f32],
        gamma: &'a [f32],
        epsilon: f64,
    }
    impl Kernel for Rows<'_> {
        type Output = (Vec<f32>, Vec<f32>);
        #[inline(always)]
        fn run<S: Simd>(self, _: S) -> Self::Output {
            let channels = self.gamma.len();
            let (mut gamma_gradient, mut beta_gradient) =
                (vec![0.0; channels], vec![0.0; channels]);
            let rows = self
                .x
                .chunks_exact(channels)
                .zip(self.gradient.chunks_exact(channels));
            for ((row, gradient), out) in rows.zip(self.out.chunks_exact_mut(channels)) {
                let (mean, inverse) = statistics(row, self.epsilon);
                let scaled = || {
                    gradient
                        .iter()
                        .zip(self.gamma)
                        .map(|(gradient, gamma)| gradient * gamma)
                };
                let mean_h = sum(scaled()) / channels as f32;
                let mean_hz = sum(scaled()
                    .zip(row)
                    .map(|(h, value)| h * (value - mean) * inverse))
                    / channels as f32;
                for channel in 0..channels {
                    let z = (row[channel] - mean) * inverse;
                    gamma_gradient[channel] += gradient[channel] * z;
                    beta_gradient[channel] += gradient[channel];
                    out[channel] =
                        (gradient[channel] * self.gamma[channel] - mean_h - z * mean_hz) * inverse;
                }
            }
            (gamma_gradient, beta_gradient)
        }
    }
    let channels = gamma.len();
    let mut out = vec![0.0; x.len()];
    let (gammas, betas): (Vec<_>, Vec<_>) = out
        .par_chunks_mut((ROWS * channels).max(1))
        .zip(x.par_chunks((ROWS * channels).max(1)))
        .zip(gradient.par_chunks((ROWS * channels).max(1)))
        .map(|((out, x), gradient)| {
            level.run(Rows {
                x,
                gradient,
                out,
                gamma,
                epsilon,
            })
        })
        .unzip();
    let total = |partials| {
        let mut total = sum_in_order(partials);
        total.resize(channels, 0.0);
        total
    };
    Gradients {
        x: out,
        gamma: total(gammas),
        beta: total(betas),
    }
}
