//! L-BFGS (Liu and Nocedal, 1989; Nocedal and Wright, Numerical Optimization, algorithm 7.5): the least value of a smooth
//! convex function. In double precision and one order, so that a result repeats.

use std::collections::VecDeque;

/// Steps from which the curvature is estimated.
const MEMORY: usize = 10;

/// Steps after which it ends wherever it is; problems here take some dozens.
const MOST_STEPS: usize = 1000;

/// The largest derivative at which it is there.
const TOLERANCE: f64 = 1e-7;

/// Where a function is least, from a point on. `function` gives the value at a point, and writes its gradient there.
pub(super) fn minimise(
    start: Vec<f64>,
    mut function: impl FnMut(&[f64], &mut [f64]) -> f64,
) -> Vec<f64> {
    let mut point = start;
    let mut gradient = vec![0.0; point.len()];
    let mut value = function(&point, &mut gradient);
    let mut memory = VecDeque::with_capacity(MEMORY);
    for _ in 0..MOST_STEPS {
        if gradient.iter().all(|slope| slope.abs() <= TOLERANCE) {
            break;
        }
        let direction = descent(&gradient, &memory);
        let Some(reached) = search_line(&point, value, &gradient, &direction, &mut function) else {
            // Nothing is lower within the precision of the numbers.
            break;
        };
        let step = difference(&reached.point, &point);
        let change = difference(&reached.gradient, &gradient);
        let curvature = dot(&step, &change);
        if curvature > 0.0 {
            if memory.len() == MEMORY {
                memory.pop_front();
            }
            memory.push_back(Curvature {
                step,
                change,
                curvature,
            });
        }
        Reached {
            point,
            value,
            gradient,
        } = reached;
    }
    point
}

/// How the gradient changed along a step.
struct Curvature {
    step: Vec<f64>,
    change: Vec<f64>,
    /// Their product, above 0.
    curvature: f64,
}

/// The end of a step.
struct Reached {
    point: Vec<f64>,
    value: f64,
    gradient: Vec<f64>,
}

/// The estimated inverse of the second derivatives times the negative gradient.
fn descent(gradient: &[f64], memory: &VecDeque<Curvature>) -> Vec<f64> {
    let mut direction: Vec<f64> = gradient.iter().map(|slope| -slope).collect();
    let mut shares = Vec::with_capacity(memory.len());
    for past in memory.iter().rev() {
        let share = dot(&past.step, &direction) / past.curvature;
        add(&mut direction, -share, &past.change);
        shares.push(share);
    }
    let scale = match memory.back() {
        Some(last) => last.curvature / dot(&last.change, &last.change),
        None => 1.0 / dot(gradient, gradient).sqrt().max(1.0),
    };
    direction.iter_mut().for_each(|value| *value *= scale);
    for (past, share) in memory.iter().zip(shares.into_iter().rev()) {
        let correction = dot(&past.change, &direction) / past.curvature;
        add(&mut direction, share - correction, &past.step);
    }
    direction
}

/// The first point along a direction, halving from a whole step on, that is lower by a part of what the slope promises.
fn search_line(
    point: &[f64],
    value: f64,
    gradient: &[f64],
    direction: &[f64],
    function: &mut impl FnMut(&[f64], &mut [f64]) -> f64,
) -> Option<Reached> {
    /// Part of the promise that must be kept (Armijo).
    const PART: f64 = 1e-4;
    /// A step is not halved more often: it would not change the numbers.
    const HALVINGS: usize = 50;
    let slope = dot(gradient, direction);
    let mut length = 1.0;
    for _ in 0..HALVINGS {
        let mut reached = Reached {
            point: point.to_vec(),
            value: 0.0,
            gradient: vec![0.0; point.len()],
        };
        add(&mut reached.point, length, direction);
        reached.value = function(&reached.point, &mut reached.gradient);
        if reached.value < value && reached.value <= value + PART * length * slope {
            return Some(reached);
        }
        length /= 2.0;
    }
    None
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn add(to: &mut [f64], factor: f64, values: &[f64]) {
    for (to, value) in to.iter_mut().zip(values) {
        *to += factor * value;
    }
}

fn difference(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a - b).collect()
}

#[cfg(test)]
mod tests {
    use super::minimise;

    /// A bowl a thousand times as steep along its last axis as along its first, not along the axes, with a quartic term.
    #[test]
    fn the_least_point_of_a_narrow_bowl_is_found() {
        const SIZE: usize = 12;
        let stiff = |index: usize| 1000f64.powf(index as f64 / (SIZE - 1) as f64);
        let least: Vec<f64> = (0..SIZE).map(|index| (index as f64).sin()).collect();
        let found = minimise(vec![5.0; SIZE], |point, gradient| {
            let away: Vec<f64> = point.iter().zip(&least).map(|(a, b)| a - b).collect();
            let sum: f64 = away.iter().sum();
            let mut value = 0.5 * sum * sum;
            for (index, away) in away.iter().enumerate() {
                value += 0.5 * stiff(index) * away * away + 0.25 * away.powi(4);
                gradient[index] = sum + stiff(index) * away + away.powi(3);
            }
            value
        });
        for (found, least) in found.iter().zip(&least) {
            assert!((found - least).abs() < 1e-6, "{found} is not {least}");
        }
    }
}
