//! Logistic regression of one label: slices in, numbers out.
//!
//! ```text
//! loss(w, b) = sum_i c_i softplus(-s_i (w . x_i + b)) / sum_i c_i + penalty / 2 |w|²
//! ```
//! `s_i` is 1 where the label is present, else -1; `c_i` is the weight of a positive there, else 1. A row whose label is not
//! known counts nowhere. The bias is not penalised.

use super::minimise::minimise;

/// Rows with what is known of one label.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rows<'a> {
    /// `[rows][width]`
    pub(super) features: &'a [f32],
    pub(super) width: usize,
    /// One a row.
    pub(super) truths: &'a [Option<bool>],
    /// What a positive counts.
    pub(super) positive_weight: f64,
}

/// A line between present and absent.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Line {
    /// The weights of the features, then the bias.
    pub(super) coefficients: Vec<f64>,
}

impl Line {
    /// The line that is the same everywhere.
    pub(super) fn flat(width: usize) -> Self {
        Self {
            coefficients: vec![0.0; width + 1],
        }
    }

    /// Log-odds of a row.
    pub(super) fn logit(&self, row: &[f32]) -> f64 {
        let (bias, weights) = self.coefficients.split_last().expect("a bias");
        dot(weights, row) + bias
    }
}

impl Rows<'_> {
    /// The line of least loss, looked for from another one on.
    pub(super) fn fit(&self, penalty: f64, start: &Line) -> Line {
        let function = |point: &[f64], gradient: &mut [f64]| self.value(point, penalty, gradient);
        Line {
            coefficients: minimise(start.coefficients.clone(), function),
        }
    }

    /// Mean loss of a line, without penalty.
    pub(super) fn loss(&self, line: &Line) -> f64 {
        let (mut sum, mut weights) = (0.0, 0.0);
        for (row, present) in self.known() {
            let weight = self.weight(present);
            sum += weight * softplus(-sign(present) * line.logit(row));
            weights += weight;
        }
        sum / weights
    }

    fn known(&self) -> impl Iterator<Item = (&[f32], bool)> {
        let rows = self.features.chunks_exact(self.width).zip(self.truths);
        rows.filter_map(|(row, truth)| Some((row, (*truth)?)))
    }

    fn weight(&self, present: bool) -> f64 {
        if present { self.positive_weight } else { 1.0 }
    }

    /// The loss with its penalty, and its gradient.
    fn value(&self, point: &[f64], penalty: f64, gradient: &mut [f64]) -> f64 {
        gradient.fill(0.0);
        let (bias, weights) = point.split_last().expect("a bias");
        let (of_bias, of_weights) = gradient.split_last_mut().expect("a bias");
        let (mut sum, mut total) = (0.0, 0.0);
        for (row, present) in self.known() {
            let (weight, sign) = (self.weight(present), sign(present));
            let margin = sign * (dot(weights, row) + bias);
            sum += weight * softplus(-margin);
            total += weight;
            let slope = -weight * sign * sigmoid(-margin);
            *of_bias += slope;
            for (of_weight, value) in of_weights.iter_mut().zip(row) {
                *of_weight += slope * f64::from(*value);
            }
        }
        *of_bias /= total;
        for (of_weight, weight) in of_weights.iter_mut().zip(weights) {
            *of_weight = *of_weight / total + penalty * weight;
        }
        let squares: f64 = weights.iter().map(|weight| weight * weight).sum();
        sum / total + 0.5 * penalty * squares
    }
}

const fn sign(present: bool) -> f64 {
    if present { 1.0 } else { -1.0 }
}

/// ln(1 + exp(x))
fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

/// 1 / (1 + exp(-x))
pub(super) fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// Product of two rows of one length.
fn dot(weights: &[f64], row: &[f32]) -> f64 {
    /// Sums kept side by side, so that the compiler makes vectors of them.
    const LANES: usize = 8;
    let (weights, row) = (weights.as_chunks::<LANES>(), row.as_chunks::<LANES>());
    let mut sums = [0.0; LANES];
    for (weights, row) in weights.0.iter().zip(row.0) {
        for (sum, (weight, value)) in sums.iter_mut().zip(weights.iter().zip(row)) {
            *sum += weight * f64::from(*value);
        }
    }
    let rest = weights.1.iter().zip(row.1);
    let rest: f64 = rest.map(|(weight, value)| weight * f64::from(*value)).sum();
    sums.iter().sum::<f64>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    /// Rows of which a hidden line says the label, mostly, and of every tenth nobody does.
    fn example(rows: usize, width: usize) -> (Vec<f32>, Vec<Option<bool>>) {
        let mut random = Random::new(4, "test", 0);
        let features: Vec<f32> = (0..rows * width).map(|_| random.normal() as f32).collect();
        let truth = |(index, row): (usize, &[f32])| {
            let hidden: f64 = row
                .iter()
                .zip([1.0, -2.0, 0.5].iter().cycle())
                .map(|(a, b)| f64::from(*a) * b)
                .sum();
            (index % 10 != 0).then_some(hidden + 2.0 * random.normal() > 1.0)
        };
        let truths = features
            .chunks_exact(width)
            .enumerate()
            .map(truth)
            .collect();
        (features, truths)
    }

    /// Newton's method with Gaussian elimination, from the formula: slow, and shares no code with what it judges.
    fn newton(rows: &Rows<'_>, penalty: f64) -> Vec<f64> {
        let size = rows.width + 1;
        let mut point = vec![0.0; size];
        for _ in 0..50 {
            let mut system = vec![vec![0.0; size + 1]; size];
            let mut total = 0.0;
            for (index, truth) in rows.truths.iter().enumerate() {
                let Some(present) = *truth else { continue };
                let mut x: Vec<f64> = rows.features[index * rows.width..][..rows.width]
                    .iter()
                    .map(|value| f64::from(*value))
                    .collect();
                x.push(1.0);
                let weight = if present { rows.positive_weight } else { 1.0 };
                total += weight;
                let z: f64 = x.iter().zip(&point).map(|(a, b)| a * b).sum();
                let p = 1.0 / (1.0 + (-z).exp());
                let residual = p - if present { 1.0 } else { 0.0 };
                for (row, x_i) in system.iter_mut().zip(&x) {
                    for (cell, x_j) in row.iter_mut().zip(&x) {
                        *cell += weight * p * (1.0 - p) * x_i * x_j;
                    }
                    row[size] += weight * residual * x_i;
                }
            }
            for (i, row) in system.iter_mut().enumerate() {
                row.iter_mut().for_each(|value| *value /= total);
                if i < rows.width {
                    row[i] += penalty;
                    row[size] += penalty * point[i];
                }
            }
            for pivot in 0..size {
                let above = system[pivot].clone();
                for (other, row) in system.iter_mut().enumerate() {
                    let factor = row[pivot] / above[pivot];
                    let cells = row.iter_mut().zip(&above).filter(|_| other != pivot);
                    cells.for_each(|(cell, above)| *cell -= factor * above);
                }
            }
            for (i, row) in system.iter().enumerate() {
                point[i] -= row[size] / row[i];
            }
        }
        point
    }

    #[test]
    fn the_line_is_that_of_newtons_method() {
        let (features, truths) = example(200, 5);
        for (positive_weight, penalty) in [(1.0, 0.1), (3.0, 0.01), (0.2, 10.0)] {
            let rows = Rows {
                features: &features,
                width: 5,
                truths: &truths,
                positive_weight,
            };
            let expected = newton(&rows, penalty);
            let found = rows.fit(penalty, &Line::flat(5)).coefficients;
            for (found, expected) in found.iter().zip(&expected) {
                assert!((found - expected).abs() < 1e-5, "{found} is not {expected}");
            }
        }
    }

    #[test]
    fn without_features_the_bias_is_the_log_odds_of_the_weighted_classes() {
        let truths = [true, false, false, false].map(Some);
        let features = [0.0; 4];
        for (positive_weight, expected) in [(3.0, 0.0), (1.0, (1.0f64 / 3.0).ln())] {
            let rows = Rows {
                features: &features,
                width: 1,
                truths: &truths,
                positive_weight,
            };
            let line = rows.fit(1.0, &Line::flat(1));
            assert!((line.logit(&[0.0]) - expected).abs() < 1e-6);
            assert_eq!(line.coefficients[0], 0.0);
        }
    }

    #[test]
    fn the_gradient_is_that_of_finite_differences() {
        let (features, truths) = example(30, 4);
        let rows = Rows {
            features: &features,
            width: 4,
            truths: &truths,
            positive_weight: 2.5,
        };
        let point = [0.3, -0.2, 0.1, 0.7, -0.4];
        let mut gradient = [0.0; 5];
        rows.value(&point, 0.3, &mut gradient);
        for (index, found) in gradient.iter().enumerate() {
            let beside = |step: f64| {
                let mut point = point;
                point[index] += step;
                rows.value(&point, 0.3, &mut [0.0; 5])
            };
            let slope = (beside(1e-5) - beside(-1e-5)) / 2e-5;
            assert!((slope - found).abs() < 1e-8, "{index}");
        }
    }
}
