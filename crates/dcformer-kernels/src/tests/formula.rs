//! The formulas of the operations' documentation, written out.

use super::Case;

/// Calls `visit(output index, input index, branch, tap)` for every tap inside the volume; indices are of voxels.
pub(super) fn for_each_tap(case: &Case, mut visit: impl FnMut(usize, usize, usize, usize)) {
    let [d, h, w] = case.size;
    let [out_d, out_h, out_w] = case.size.map(|size| size.div_ceil(case.stride));
    let radius = case.taps as isize / 2;
    for n in 0..case.batch {
        for z in 0..out_d {
            for y in 0..out_h {
                for x in 0..out_w {
                    for branch in 0..3 {
                        for tap in 0..case.taps {
                            let mut at = [z, y, x].map(|index| (index * case.stride) as isize);
                            at[branch] += tap as isize - radius;
                            let [iz, iy, ix] = at;
                            let inside = (0..d as isize).contains(&iz)
                                && (0..h as isize).contains(&iy)
                                && (0..w as isize).contains(&ix);
                            if inside {
                                let input =
                                    ((n * d + iz as usize) * h + iy as usize) * w + ix as usize;
                                visit(
                                    ((n * out_d + z) * out_h + y) * out_w + x,
                                    input,
                                    branch,
                                    tap,
                                );
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Voxels of the output.
pub(super) fn out_voxels(case: &Case) -> usize {
    case.batch
        * case
            .size
            .map(|size| size.div_ceil(case.stride))
            .iter()
            .product::<usize>()
}

/// A convolution of a box of `taps`, one output at a time.
pub(super) fn dense_conv(
    case: &Case,
    taps: [usize; 3],
    before: [usize; 3],
    x: &[f32],
    weight: &[f32],
    bias: &[f32],
) -> Vec<f64> {
    let (channels, outputs) = (case.channels, case.channels_out);
    let size = case.size;
    let grid = size.map(|size| size.div_ceil(case.stride));
    let mut out = Vec::new();
    for voxel in 0..case.batch * grid.iter().product::<usize>() {
        let volume = voxel / (grid[0] * grid[1] * grid[2]);
        let at = [
            voxel / (grid[1] * grid[2]) % grid[0],
            voxel / grid[2] % grid[1],
            voxel % grid[2],
        ];
        let mut sums: Vec<f64> = bias.iter().map(|bias| f64::from(*bias)).collect();
        for tap in 0..taps.iter().product::<usize>() {
            let along = [
                tap / (taps[1] * taps[2]),
                tap / taps[2] % taps[1],
                tap % taps[2],
            ];
            // Before the grid is beyond its end, too, for numbers without a sign.
            let from: [usize; 3] = std::array::from_fn(|axis| {
                (at[axis] * case.stride + along[axis]).wrapping_sub(before[axis])
            });
            if (0..3).any(|axis| from[axis] >= size[axis]) {
                continue;
            }
            let [z, y, x_] = from;
            let voxel = ((volume * size[0] + z) * size[1] + y) * size[2] + x_;
            for i in 0..channels {
                for (o, sum) in sums.iter_mut().enumerate() {
                    let weight = weight[(tap * channels + i) * outputs + o];
                    *sum += f64::from(weight) * f64::from(x[voxel * channels + i]);
                }
            }
        }
        out.extend(sums);
    }
    out
}

/// The three branches of the dense convolution, `[branch][voxel][channel]`.
pub(super) fn dense_branches(case: &Case, x: &[f32], weight: &[f32]) -> [Vec<f64>; 3] {
    let (channels, outputs) = (case.channels, case.channels_out);
    let mut out = [0, 1, 2].map(|_| vec![0.0; out_voxels(case) * outputs]);
    for_each_tap(case, |output, input, branch, tap| {
        for i in 0..channels {
            for o in 0..outputs {
                let w = weight[((branch * case.taps + tap) * channels + i) * outputs + o];
                out[branch][output * outputs + o] +=
                    f64::from(w) * f64::from(x[input * channels + i]);
            }
        }
    });
    out
}

/// The three branches of the depthwise convolution.
pub(super) fn depthwise_branches(case: &Case, x: &[f32], weight: &[f32]) -> [Vec<f64>; 3] {
    let channels = case.channels;
    let mut out = [0, 1, 2].map(|_| vec![0.0; out_voxels(case) * channels]);
    for_each_tap(case, |output, input, branch, tap| {
        for c in 0..channels {
            let w = weight[(branch * case.taps + tap) * channels + c];
            out[branch][output * channels + c] += f64::from(w) * f64::from(x[input * channels + c]);
        }
    });
    out
}

/// Sum of branches and bias.
pub(super) fn add(branches: &[Vec<f64>; 3], bias: &[f32]) -> Vec<f32> {
    let sums = (0..branches[0].len())
        .map(|index| branches.iter().map(|branch| branch[index]).sum::<f64>());
    sums.enumerate()
        .map(|(index, sum)| (sum + f64::from(bias[index % bias.len()])) as f32)
        .collect()
}

/// Each branch batch-normalised, added.
pub(super) fn normalise(
    branches: &[Vec<f64>; 3],
    gamma: &[f32],
    beta: &[f32],
    epsilon: f64,
) -> Vec<f32> {
    let channels = gamma.len() / 3;
    let count = (branches[0].len() / channels) as f64;
    let mut out = vec![0.0; branches[0].len()];
    for (index, branch) in branches.iter().enumerate() {
        for c in 0..channels {
            let column = || branch.iter().skip(c).step_by(channels);
            let mean = column().sum::<f64>() / count;
            let variance = column().map(|u| (u - mean).powi(2)).sum::<f64>() / count;
            let (gamma, beta) = (
                f64::from(gamma[index * channels + c]),
                f64::from(beta[index * channels + c]),
            );
            for (out, u) in out.iter_mut().skip(c).step_by(channels).zip(column()) {
                *out += gamma * (u - mean) / (variance + epsilon).sqrt() + beta;
            }
        }
    }
    out.into_iter().map(|value| value as f32).collect()
}

/// 3x3x3 maximum with stride 2.
pub(super) fn max_pool(case: &Case, x: &[f32]) -> Vec<f32> {
    let [d, h, w] = case.size;
    let channels = case.channels;
    let mut out = Vec::new();
    for n in 0..case.batch {
        for z in 0..d.div_ceil(2) {
            for y in 0..h.div_ceil(2) {
                for xx in 0..w.div_ceil(2) {
                    for c in 0..channels {
                        let mut largest = f32::NEG_INFINITY;
                        for iz in (2 * z).saturating_sub(1)..(2 * z + 2).min(d) {
                            for iy in (2 * y).saturating_sub(1)..(2 * y + 2).min(h) {
                                for ix in (2 * xx).saturating_sub(1)..(2 * xx + 2).min(w) {
                                    let voxel = ((n * d + iz) * h + iy) * w + ix;
                                    largest = largest.max(x[voxel * channels + c]);
                                }
                            }
                        }
                        out.push(largest);
                    }
                }
            }
        }
    }
    out
}

/// `rows · matrix`, row-major, `[steps, columns]`.
pub(super) fn product(rows: &[f32], matrix: &[f32], columns: usize) -> Vec<f32> {
    let steps = matrix.len() / columns;
    rows.chunks_exact(steps)
        .flat_map(|row| {
            (0..columns).map(move |column| {
                let weights = matrix[column..].iter().step_by(columns);
                let products = row.iter().zip(weights);
                products
                    .map(|(value, weight)| f64::from(*value) * f64::from(*weight))
                    .sum::<f64>() as f32
            })
        })
        .collect()
}

/// A stem: the convolution of `first`, then others of `taps` taps with stride 1, each with weight and bias, pooled and
/// projected.
pub(super) fn stem(
    first: &Case,
    x: &[f32],
    convs: &[(&[f32], &[f32])],
    taps: usize,
    projection: &[f32],
) -> Vec<f32> {
    let (mut grid, mut y) = (*first, x.to_vec());
    for (weight, bias) in convs {
        y = add(&dense_branches(&grid, &y, weight), bias);
        grid.size = grid.size.map(|size| size.div_ceil(grid.stride));
        (grid.channels, grid.taps, grid.stride) = (grid.channels_out, taps, 1);
    }
    let pooled = max_pool(&grid, &y);
    product(&pooled, projection, projection.len() / grid.channels)
}

/// `erf` by its Taylor series (|x| < 3) or 1: slow and obvious.
fn erf(x: f64) -> f64 {
    if x.abs() > 5.0 {
        return x.signum();
    }
    let (mut term, mut sum) = (x, x);
    for n in 1..200 {
        term *= -x * x / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    sum * std::f64::consts::FRAC_2_SQRT_PI
}

/// `gelu(x w1 + b1) w2 + b2`.
pub(super) fn mlp(x: &[f32], [w1, b1, w2, b2]: [&[f32]; 4]) -> Vec<f32> {
    let (hidden, outputs) = (b1.len(), b2.len());
    let inputs = w1.len() / hidden;
    let mut out = Vec::new();
    for row in x.chunks_exact(inputs) {
        let activations: Vec<f64> = (0..hidden)
            .map(|j| {
                let products = row
                    .iter()
                    .enumerate()
                    .map(|(i, x)| f64::from(*x) * f64::from(w1[i * hidden + j]));
                let h = f64::from(b1[j]) + products.sum::<f64>();
                0.5 * h * (1.0 + erf(h / std::f64::consts::SQRT_2))
            })
            .collect();
        out.extend((0..outputs).map(|o| {
            let products = activations
                .iter()
                .enumerate()
                .map(|(j, a)| a * f64::from(w2[j * outputs + o]));
            (f64::from(b2[o]) + products.sum::<f64>()) as f32
        }));
    }
    out
}

/// Attention, one sequence, head and query at a time.
pub(super) fn attention(
    q: &[f32],
    k: &[f32],
    v: &[f32],
    bias: Option<&[f32]>,
    lengths: &[usize],
    heads: usize,
    channels: usize,
) -> Vec<f32> {
    let head_dim = channels / heads;
    let mut out = vec![0.0; q.len()];
    let mut first = 0;
    for &length in lengths {
        for head in 0..heads {
            let at = |token: usize, i: usize| (first + token) * channels + head * head_dim + i;
            for query in 0..length {
                let logits: Vec<f64> = (0..length)
                    .map(|key| {
                        let products = (0..head_dim)
                            .map(|i| f64::from(q[at(query, i)]) * f64::from(k[at(key, i)]));
                        let bias = bias.map_or(0.0, |bias| {
                            f64::from(bias[(head * length + query) * length + key])
                        });
                        products.sum::<f64>() / (head_dim as f64).sqrt() + bias
                    })
                    .collect();
                let total: f64 = logits.iter().map(|logit| logit.exp()).sum();
                for i in 0..head_dim {
                    let mean = (0..length)
                        .map(|key| logits[key].exp() / total * f64::from(v[at(key, i)]))
                        .sum::<f64>();
                    out[at(query, i)] = mean as f32;
                }
            }
        }
        first += length;
    }
    out
}
