//! Batch statistics of the three branches, and what normalisation makes of them.

use std::ops::AddAssign;

use crate::simd::{Kernel, Level, MAX_LANES, Simd};
use crate::synchronized::over_workers;

/// Sums over all voxels of one branch's values and squares, per channel, in double precision.
#[derive(Clone, Debug)]
pub(crate) struct Moments {
    pub(crate) sum: Vec<f64>,
    pub(crate) squares: Vec<f64>,
}

impl Moments {
    pub(crate) fn zero(channels: usize) -> Self {
        Self {
            sum: vec![0.0; channels],
            squares: vec![0.0; channels],
        }
    }

    /// Adds another part of the same data.
    pub(crate) fn add(&mut self, other: &Self) {
        add_to(&mut self.sum, &other.sum);
        add_to(&mut self.squares, &other.squares);
    }

    /// Mean and biased variance of `count` values per channel, and of those of other workers where they are
    /// [`synchronized`](crate::synchronized()).
    pub(crate) fn statistics(&self, count: usize) -> Statistics {
        let ([sum, squares], count) = over_workers([&self.sum, &self.squares], count);
        let count = count.max(1.0);
        let mean: Vec<f64> = sum.iter().map(|sum| sum / count).collect();
        let variance = squares
            .iter()
            .zip(&mean)
            .map(|(squares, mean)| squares / count - mean * mean);
        Statistics {
            variance: variance.map(|value| value.max(0.0)).collect(),
            mean,
        }
    }
}

/// Mean and biased variance per channel.
#[derive(Clone, Debug, Default)]
pub(crate) struct Statistics {
    pub(crate) mean: Vec<f64>,
    pub(crate) variance: Vec<f64>,
}

impl Statistics {
    /// From rows of `[3, channels]` tables.
    pub(crate) fn of_branch(mean: &[f32], variance: &[f32], branch: usize) -> Self {
        let channels = mean.len() / 3;
        let row = |table: &[f32]| {
            table[branch * channels..][..channels]
                .iter()
                .map(|value| f64::from(*value))
                .collect()
        };
        Self {
            mean: row(mean),
            variance: row(variance),
        }
    }

    /// `1 / sqrt(variance + epsilon)`.
    pub(crate) fn inverse_deviation(&self, epsilon: f64) -> Vec<f64> {
        self.variance
            .iter()
            .map(|variance| (variance + epsilon).sqrt().recip())
            .collect()
    }

    /// Factor and summand per channel that normalise: `y = factor * u + summand`.
    pub(crate) fn affine(&self, gamma: &[f32], beta: &[f32], epsilon: f64) -> (Vec<f32>, Vec<f32>) {
        let inverse = self.inverse_deviation(epsilon);
        let factor: Vec<f64> = inverse
            .iter()
            .zip(gamma)
            .map(|(inverse, gamma)| inverse * f64::from(*gamma))
            .collect();
        let summand = beta
            .iter()
            .zip(&self.mean)
            .zip(&factor)
            .map(|((beta, mean), f)| (f64::from(*beta) - mean * f) as f32);
        (
            factor.iter().map(|factor| *factor as f32).collect(),
            summand.collect(),
        )
    }
}

/// Gradient of one branch's normalisation: with `g` the gradient of the output and `u` the branch,
/// `du = a * g + b * u + c` per channel.
#[derive(Clone, Debug)]
pub(crate) struct NormBackward {
    pub(crate) a: Vec<f32>,
    pub(crate) b: Vec<f32>,
    pub(crate) c: Vec<f32>,
    /// Gradient of the scale; of several workers, this one's share.
    pub(crate) gamma: Vec<f32>,
}

impl NormBackward {
    /// From the sums over all voxels of `g` and of `g * u`.
    ///
    /// With `z = (u - mean) * inverse`: `dgamma = Σ g z`, and
    /// `du = gamma * inverse * (g - Σ g / count - z * dgamma / count)`, where sums and count are those of all workers if
    /// they are [`synchronized`](crate::synchronized()).
    pub(crate) fn new(
        statistics: &Statistics,
        gamma: &[f32],
        epsilon: f64,
        count: usize,
        gradient_sum: &[f64],
        product_sum: &[f64],
    ) -> Self {
        let ([all_gradients, all_products], count) =
            over_workers([gradient_sum, product_sum], count);
        let count = count.max(1.0);
        let inverse = statistics.inverse_deviation(epsilon);
        let mut out = Self {
            a: vec![],
            b: vec![],
            c: vec![],
            gamma: vec![],
        };
        for channel in 0..gamma.len() {
            let (mean, inverse) = (statistics.mean[channel], inverse[channel]);
            let gamma_gradient = |gradients: &[f64], products: &[f64]| {
                inverse * (products[channel] - mean * gradients[channel])
            };
            let scale = f64::from(gamma[channel]) * inverse;
            let slope = -scale * inverse * gamma_gradient(&all_gradients, &all_products) / count;
            out.a.push(scale as f32);
            out.b.push(slope as f32);
            out.c
                .push((-scale * all_gradients[channel] / count - slope * mean) as f32);
            out.gamma
                .push(gamma_gradient(gradient_sum, product_sum) as f32);
        }
        out
    }
}

/// Adds `Σ a` and `Σ a b` per channel of rows of `moments`' channels.
pub(crate) fn add_sums(level: Level, a: &[f32], b: &[f32], moments: &mut Moments) {
    level.run(Sums { a, b, moments });
}

/// See [`add_sums`].
struct Sums<'a> {
    a: &'a [f32],
    b: &'a [f32],
    moments: &'a mut Moments,
}

impl Kernel for Sums<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        /// Voxels added in single precision before they join the double-precision sums.
        const RUN: usize = 64;
        /// Partial sums, so that an addition need not wait for the one before.
        const PARTS: usize = 4;
        let channels = self.moments.sum.len();
        for (a, b) in self
            .a
            .chunks(RUN * channels)
            .zip(self.b.chunks(RUN * channels))
        {
            let mut channel = 0;
            while channel < channels {
                let here = channel..channels.min(channel + S::LANES);
                let mut sums = [[simd.splat(0.0); 2]; PARTS];
                let voxels = a.chunks(PARTS * channels).zip(b.chunks(PARTS * channels));
                for (a, b) in voxels {
                    let voxels = a.chunks_exact(channels).zip(b.chunks_exact(channels));
                    for (sums, (a, b)) in sums.iter_mut().zip(voxels) {
                        let a = simd.load_partial(&a[here.clone()]);
                        let b = simd.load_partial(&b[here.clone()]);
                        sums[0] = simd.add(sums[0], a);
                        sums[1] = simd.mul_add(a, b, sums[1]);
                    }
                }
                let [first, second, third, fourth] = sums;
                for (index, to) in [&mut self.moments.sum, &mut self.moments.squares]
                    .into_iter()
                    .enumerate()
                {
                    let sum = simd.add(
                        simd.add(first[index], second[index]),
                        simd.add(third[index], fourth[index]),
                    );
                    add_lanes(simd, sum, &mut to[here.clone()]);
                }
                channel += S::LANES;
            }
        }
    }
}

/// Adds the lanes of a vector to double-precision sums.
#[inline(always)]
pub(crate) fn add_lanes<S: Simd>(simd: S, vector: S::F32, sums: &mut [f64]) {
    let mut lanes = [0.0; MAX_LANES];
    simd.store(vector, &mut lanes);
    for (sum, lane) in sums.iter_mut().zip(lanes) {
        *sum += f64::from(lane);
    }
}

/// `total += part`.
pub(crate) fn add_to<T: Copy + AddAssign>(total: &mut [T], part: &[T]) {
    for (total, part) in total.iter_mut().zip(part) {
        *total += *part;
    }
}
