//! Every level and the definition give the formula's values.

use burn::tensor::Device;

use super::*;
use crate::attention::cpu::Attention;
use crate::dense_decomposed::cpu::RowConv;
use crate::dense_decomposed::winograd::Transformed;
use crate::geometry::Geometry;
use crate::matmul::Store;
use crate::mixer_mlp::cpu::MixerMlp;
use crate::mlp::cpu::Mlp;
use crate::simd::Level;
use crate::stem::cpu::Stem;
use crate::tiles::{Tile, map_tiles};
use crate::{StemWeights, batch_norm, dense_decomposed, dense_decomposed_conv};
use crate::{depthwise_decomposed, gelu, max_pool};

/// Normalisation divides by a root: single precision, a few roundings. Measured 4e-7 at worst.
///
/// A single voxel has no variance: its value, times `1 / sqrt(1e-5) = 316`, minus the same again, is all rounding, as
/// it is in PyTorch, which also multiplies first and subtracts then.
fn norm_tolerance(case: &Case) -> f32 {
    if formula::out_voxels(case) == 1 {
        5e-3
    } else {
        5e-6
    }
}

struct Dense {
    x: Vec<f32>,
    weight: Vec<f32>,
    bias: Vec<f32>,
    gamma: Vec<f32>,
    beta: Vec<f32>,
}

impl Dense {
    fn of(case: &Case) -> Self {
        let outputs = case.channels_out;
        Self {
            x: integers(case.input_len(), 1),
            weight: integers(3 * case.taps * case.channels * outputs, 2),
            bias: integers(outputs, 3),
            gamma: numbers(3 * outputs, 4),
            beta: numbers(3 * outputs, 5),
        }
    }

    fn filters<'a>(&'a self, case: &Case) -> dense_decomposed::cpu::Filters<'a> {
        dense_decomposed::cpu::Filters {
            weight: &self.weight,
            taps: case.taps,
            channels_in: case.channels,
            channels_out: case.channels_out,
        }
    }
}

/// Runs a check for every case and level and prints all that fail, not the first.
fn for_every_level(check: impl Fn(&Case, Level) -> Result<(), String>) {
    let mut wrong = Vec::new();
    for case in &Case::ALL {
        for level in Level::available() {
            if let Err(reason) = check(case, level) {
                wrong.push(format!("{level} {case:?}: {reason}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn equal(found: &[f32], expected: &[f32]) -> Result<(), String> {
    if found == expected {
        Ok(())
    } else {
        Err(format!("differs by {:e}", error(found, expected)))
    }
}

fn close(found: &[f32], expected: &[f32], tolerance: f32) -> Result<(), String> {
    let error = error(found, expected);
    if error <= tolerance {
        Ok(())
    } else {
        Err(format!("differs by {error:e}, allowed {tolerance:e}"))
    }
}

#[test]
fn dense_convolution_equals_the_formula() {
    for_every_level(|case, level| {
        let data = Dense::of(case);
        let expected = formula::add(
            &formula::dense_branches(case, &data.x, &data.weight),
            &data.bias,
        );
        let geometry = Geometry::of(&case.input_shape());
        let filters = data.filters(case);
        equal(
            &dense_decomposed::cpu::conv(
                level,
                &data.x,
                filters,
                &data.bias,
                geometry,
                case.stride,
            ),
            &expected,
        )
    });
}

#[test]
fn dense_norm_equals_the_formula() {
    for_every_level(|case, level| {
        let data = Dense::of(case);
        let branches = formula::dense_branches(case, &data.x, &data.weight);
        let expected = formula::normalise(&branches, &data.gamma, &data.beta, 1e-5);
        let geometry = Geometry::of(&case.input_shape());
        let affine = [&*data.gamma, &*data.beta];
        let (found, _) = dense_decomposed::training::norm(
            level,
            &data.x,
            data.filters(case),
            affine,
            1e-5,
            geometry,
            case.stride,
        );
        close(&found, &expected, norm_tolerance(case))
    });
}

#[test]
fn depthwise_convolution_equals_the_formula() {
    for_every_level(|case, level| {
        let case = &Case { stride: 1, ..*case };
        let x = integers(case.input_len(), 1);
        let (weight, bias) = (
            integers(3 * case.taps * case.channels, 2),
            integers(case.channels, 3),
        );
        let expected = formula::add(&formula::depthwise_branches(case, &x, &weight), &bias);
        let filters = depthwise_decomposed::cpu::Filters {
            weight: &weight,
            taps: case.taps,
        };
        let geometry = Geometry::of(&case.input_shape());
        equal(
            &depthwise_decomposed::tile::conv(level, &x, filters, &bias, geometry),
            &expected,
        )
    });
}

#[test]
fn depthwise_norm_equals_the_formula() {
    for_every_level(|case, level| {
        let case = &Case { stride: 1, ..*case };
        let x = integers(case.input_len(), 1);
        let weight = integers(3 * case.taps * case.channels, 2);
        let (gamma, beta) = (numbers(3 * case.channels, 3), numbers(3 * case.channels, 4));
        let expected = formula::normalise(
            &formula::depthwise_branches(case, &x, &weight),
            &gamma,
            &beta,
            1e-5,
        );
        let filters = depthwise_decomposed::cpu::Filters {
            weight: &weight,
            taps: case.taps,
        };
        let geometry = Geometry::of(&case.input_shape());
        let statistics = depthwise_decomposed::cpu::statistics(level, &x, filters, geometry);
        let found = depthwise_decomposed::cpu::norm(
            level,
            &x,
            filters,
            [&gamma, &beta],
            &statistics,
            1e-5,
            geometry,
        );
        close(&found, &expected, norm_tolerance(case))
    });
}

#[test]
fn max_pooling_equals_the_formula() {
    for_every_level(|case, level| {
        let x = numbers(case.input_len(), 1);
        let pooled = max_pool::cpu::forward(level, &x, Geometry::of(&case.input_shape()));
        equal(&pooled.values, &formula::max_pool(case, &x))
    });
}

/// A stem of `refinements` convolutions of 3 (or `taps`) taps after one of 7 with stride 4, all of small integers.
struct StemCase {
    /// As the first convolution sees it.
    first: Case,
    taps: usize,
    refinements: usize,
    outputs: usize,
}

impl StemCase {
    const ALL: [Self; 7] = [
        // The network's own, with sizes that no stride divides.
        Self::new([18, 23, 61], [1, 32], 3, 3, 40),
        Self::new([33, 32, 35], [1, 64], 3, 3, 32),
        // Grids of one or two voxels: every voxel is a border.
        Self::new([1, 4, 5], [1, 16], 3, 2, 3),
        Self::new([3, 8, 1], [1, 5], 3, 1, 7),
        // Longer refinements read further planes.
        Self::new([30, 9, 12], [1, 8], 5, 2, 8),
        Self::new([70, 45, 66], [1, 20], 3, 3, 4),
        Self::new([9, 70, 6], [1, 20], 7, 1, 33),
    ];

    const fn new(
        size: [usize; 3],
        channels: [usize; 2],
        taps: usize,
        refinements: usize,
        outputs: usize,
    ) -> Self {
        Self {
            first: Case::new(2, size, channels, 7, 4),
            taps,
            refinements,
            outputs,
        }
    }
}

#[test]
fn a_stem_equals_its_parts() {
    for case in &StemCase::ALL {
        let first = &case.first;
        let channels = first.channels_out;
        // -1, 0 and 1 only: four convolutions in a row must stay exact.
        let signs =
            |len, seed| -> Vec<f32> { numbers(len, seed).iter().map(|v| v.round()).collect() };
        let x = signs(first.input_len(), 1);
        let weight = signs(3 * 7 * first.channels * channels, 2);
        let bias = integers(channels, 3);
        let len = 3 * case.taps * channels * channels;
        let refinements: Vec<f32> = numbers(case.refinements * len, 4)
            .iter()
            .map(|v| if v.abs() < 0.9 { 0.0 } else { v.signum() })
            .collect();
        let biases = integers(case.refinements * channels, 5);
        let projection = signs(channels * case.outputs, 6);

        let filters = |weight, taps, inputs| dense_decomposed::cpu::Filters {
            weight,
            taps,
            channels_in: inputs,
            channels_out: channels,
        };
        let mut convs = vec![(filters(&weight[..], 7, first.channels), &bias[..])];
        for index in 0..case.refinements {
            convs.push((
                filters(&refinements[index * len..][..len], case.taps, channels),
                &biases[index * channels..][..channels],
            ));
        }
        let parts: Vec<(&[f32], &[f32])> =
            convs.iter().map(|(f, bias)| (f.weight, *bias)).collect();
        let expected = formula::stem(first, &x, &parts, case.taps, &projection);
        let stem = Stem {
            convs,
            projection: &projection,
            stride: 4,
            activate: false,
        };
        for level in Level::available() {
            let found = stem.forward(level, &x, Geometry::of(&first.input_shape()));
            let error = error(&found, &expected);
            assert!(
                error < 1e-6,
                "{level} {first:?}, {} taps: {error:e}",
                case.taps
            );
        }
    }
}

#[test]
fn a_stem_of_any_kind_equals_its_definition() {
    let device = Device::flex();
    // Along an axis of 34 voxels the pipeline takes Winograd's products, along one of 3 it does not.
    for (inputs, activate, size) in [
        (1, true, [17, 30, 22]),
        (1, true, [20, 134, 68]),
        (1, false, [20, 134, 68]),
        (3, false, [9, 20, 31]),
    ] {
        let [d, h, w] = size;
        let weights = StemWeights {
            weight: tensor(
                &numbers(3 * 7 * inputs * 16, 2),
                [3, 7, inputs, 16],
                &device,
            ),
            bias: tensor(&numbers(16, 3), [16], &device),
            refinements: tensor(&numbers(2 * 9 * 256, 4), [2, 3, 3, 16, 16], &device) / 4.0,
            refinement_biases: tensor(&numbers(32, 5), [2, 16], &device),
            projection: tensor(&numbers(16 * 24, 6), [16, 24], &device),
        };
        let x = tensor(
            &numbers(d * h * w * inputs, 1),
            [1, d, h, w, inputs],
            &device,
        );
        let found = crate::stem(x.clone(), weights.clone(), 4, activate);
        let activated = |y| if activate { gelu(y) } else { y };
        let first = dense_decomposed_conv(x, weights.weight, weights.bias, 4);
        let y = (0..2).fold(activated(first), |y, index| {
            let weight = weights.refinements.clone().narrow(0, index, 1);
            let bias = weights.refinement_biases.clone().narrow(0, index, 1);
            let (weight, bias) = (weight.squeeze_dim(0), bias.squeeze_dim(0));
            activated(dense_decomposed_conv(y, weight, bias, 1))
        });
        let expected = crate::pool_project(y, weights.projection);
        let error = error(&values(found), &values(expected));
        assert!(error < 3e-6, "{inputs} channels, {size:?}: {error:e}");
    }
}

/// Winograd's products against plain sums, for every axis and for groups that end inside a line.
#[test]
fn three_taps_by_transformed_products_equal_the_formula() {
    for size in [[9, 4, 6], [4, 13, 17], [10, 11, 52]] {
        let case = Case::new(2, size, [32, 48], 3, 1);
        let x = numbers(case.input_len(), 1);
        let weight = numbers(3 * 3 * 32 * 48, 2);
        let branches = formula::dense_branches(&case, &x, &weight);
        let bias = numbers(48, 3);
        for (axis, branch) in branches.iter().enumerate() {
            let taps = &weight[axis * 3 * 32 * 48..][..3 * 32 * 48];
            for level in Level::available() {
                let weights = Transformed::new(level, taps, [32, 48]);
                let geometry = Geometry::of(&case.input_shape());
                let work = |scratch: &mut Vec<f32>, tile: Tile, [out]: [&mut [&mut [f32]]; 1]| {
                    let line = |[z, y]: [isize; 2]| {
                        let at = [tile.at[0] as isize + z, tile.at[1] as isize + y];
                        geometry.line(&x, tile.volume, at)
                    };
                    for store in [Store::Biased(&bias), Store::Add] {
                        weights.tile(level, axis, tile.size, &line, 32, out, scratch, store);
                    }
                };
                let ([found], _) = map_tiles(geometry.with_channels(48), [4, 4], Vec::new, work);
                let expected: Vec<f32> = branch
                    .iter()
                    .enumerate()
                    .map(|(index, u)| (2.0 * u) as f32 + bias[index % 48])
                    .collect();
                let error = error(&found, &expected);
                assert!(error < 2e-6, "{level} axis {axis} of {size:?}: {error:e}");
            }
        }
    }
}

/// A convolution whose planes share products, in the order of a pipeline, against the formula.
#[test]
fn planes_and_rows_that_share_products_equal_the_formula() {
    // Depths that end inside a pair of planes and between pairs; heights that end inside a tile; widths inside a group.
    for (size, channels) in [
        ([1, 13, 17], [16, 16]),
        ([2, 15, 27], [32, 48]),
        ([7, 14, 20], [32, 32]),
        ([9, 20, 33], [64, 32]),
    ] {
        let case = Case::new(1, size, channels, 3, 1);
        let [channels_in, channels_out] = channels;
        let x = numbers(case.input_len(), 1);
        let weight = numbers(3 * 3 * channels_in * channels_out, 2);
        let bias = numbers(channels_out, 3);
        let branches = formula::dense_branches(&case, &x, &weight);
        let expected: Vec<f32> = (0..branches[0].len())
            .map(|index| {
                let sum: f64 = branches.iter().map(|branch| branch[index]).sum();
                sum as f32 + bias[index % channels_out]
            })
            .collect();
        let filters = dense_decomposed::cpu::Filters {
            weight: &weight,
            taps: 3,
            channels_in,
            channels_out,
        };
        let geometry = Geometry::of(&case.input_shape());
        let [depth, height, width] = size;
        let row_len = width * channels_out;
        for level in Level::available() {
            let conv = RowConv::new(level, filters, &bias, size);
            assert_eq!(conv.plane_ahead(0), Some(2));
            // What is there before does not matter.
            let mut planes = vec![vec![f32::NAN; height * row_len]; depth];
            for z in 0..depth {
                let (plane, further) = planes[z..].split_first_mut().expect("one a depth");
                let ahead = conv
                    .plane_ahead(z)
                    .and_then(|distance| further.get_mut(distance - 1));
                let ahead = ahead.map_or(&mut [][..], Vec::as_mut_slice);
                let mut ahead = ahead.chunks_exact_mut(row_len);
                let mut rows = plane.chunks_exact_mut(row_len);
                for y in (0..height).step_by(4) {
                    let mut out: Vec<_> = rows.by_ref().take(4).collect();
                    let mut ahead: Vec<_> = ahead.by_ref().take(4).collect();
                    let line = |z, y| geometry.line(&x, 0, [z, y]);
                    let both = [&mut out[..], &mut ahead[..]];
                    conv.rows(level, [z, y], line, both, &mut Vec::new());
                }
            }
            let error = error(&planes.concat(), &expected);
            assert!(error < 2e-6, "{level} {size:?} {channels:?}: {error:e}");
        }
    }
}

#[test]
fn a_pooled_projection_equals_pooling_and_a_product() {
    for_every_level(|case, level| {
        let x = integers(case.input_len(), 1);
        let weight = integers(case.channels * case.channels_out, 2);
        let pooled = formula::max_pool(case, &x);
        let expected = formula::product(&pooled, &weight, case.channels_out);
        let geometry = Geometry::of(&case.input_shape());
        equal(&max_pool::cpu::values(level, &x, geometry), &pooled)?;
        let found = max_pool::cpu::project(level, &x, &weight, case.channels_out, geometry);
        equal(&found, &expected)
    });
}

#[test]
fn a_block_equals_mixer_mlp_and_residual() {
    for_every_level(|case, level| {
        let case = &Case { stride: 1, ..*case };
        let (channels, hidden) = (case.channels, 4 * case.channels);
        let x = numbers(case.input_len(), 1);
        let (weight, bias) = (numbers(3 * case.taps * channels, 2), numbers(channels, 3));
        let (w1, b1) = (numbers(channels * hidden, 4), numbers(hidden, 5));
        let (w2, b2) = (numbers(hidden * channels, 6), numbers(channels, 7));
        let mixed = formula::add(&formula::depthwise_branches(case, &x, &weight), &bias);
        let residual = formula::mlp(&mixed, [&w1, &b1, &w2, &b2]);
        let expected: Vec<f32> = x.iter().zip(residual).map(|(x, y)| x + y).collect();
        let block = MixerMlp {
            filters: depthwise_decomposed::cpu::Filters {
                weight: &weight,
                taps: case.taps,
            },
            bias: &bias,
            w1: &w1,
            b1: &b1,
            w2: &w2,
            b2: &b2,
        };
        let found = block.forward(level, &x, Geometry::of(&case.input_shape()));
        close(&found, &expected, 2e-6)
    });
}

#[test]
fn mlp_equals_the_formula() {
    for level in Level::available() {
        for (rows, inputs, hidden, outputs) in [
            (1, 1, 1, 1),
            (7, 5, 20, 3),
            (50, 32, 128, 32),
            (13, 37, 33, 65),
        ] {
            let x = numbers(rows * inputs, 1)
                .iter()
                .map(|x| 3.0 * x)
                .collect::<Vec<_>>();
            let (w1, b1) = (numbers(inputs * hidden, 2), numbers(hidden, 3));
            let (w2, b2) = (numbers(hidden * outputs, 4), numbers(outputs, 5));
            let expected = formula::mlp(&x, [&w1, &b1, &w2, &b2]);
            let found = Mlp {
                x: &x,
                w1: &w1,
                b1: &b1,
                w2: &w2,
                b2: &b2,
                rows,
            }
            .forward(level);
            // The polynomial in GELU is good to 1.5e-7, the sums to a few 1e-7.
            let error = error(&found, &expected);
            assert!(
                error < 2e-6,
                "{level} {rows}x{inputs}x{hidden}x{outputs}: {error:e}"
            );
        }
    }
}

#[test]
fn hidden_activations_that_are_kept_change_no_bit() {
    for level in Level::available() {
        // More rows than are computed together.
        for (rows, inputs, hidden, outputs) in [(7, 5, 20, 3), (5000, 32, 128, 32)] {
            let sizes = [
                rows * inputs,
                inputs * hidden,
                hidden,
                hidden * outputs,
                outputs,
            ];
            let operands: [Vec<f32>; 5] = [0, 1, 2, 3, 4].map(|i| numbers(sizes[i], i as u32 + 1));
            let operation = Mlp::of(&operands, rows);
            let (out, kept) = operation.forward_keeping(level);
            assert_eq!(out, operation.forward(level), "{level}");
            let gradient = numbers(rows * outputs, 6);
            let [with, without] =
                [Some(kept), None].map(|kept| operation.backward(level, &gradient, kept));
            assert_eq!(
                [with.x, with.w1, with.b1, with.w2, with.b2],
                [without.x, without.w1, without.b1, without.w2, without.b2],
                "{level}"
            );
        }
    }
}

#[test]
fn attention_equals_the_formula() {
    for level in Level::available() {
        for (lengths, heads, channels, biased) in [
            (vec![1], 1, 1, false),
            (vec![3, 1, 7], 2, 10, false),
            (vec![40, 0, 17], 4, 64, false),
            (vec![5, 5], 3, 21, true),
            // More queries than a block has.
            (vec![113], 2, 70, false),
            (vec![61, 61, 61], 2, 64, true),
        ] {
            let tokens: usize = lengths.iter().sum();
            let [q, k, v] = [1, 2, 3].map(|seed| numbers(tokens * channels, seed));
            let bias = biased.then(|| numbers(heads * lengths[0] * lengths[0], 4));
            let bias = bias.as_deref();
            let expected = formula::attention(&q, &k, &v, bias, &lengths, heads, channels);
            let operation = Attention {
                q: &q,
                k: &k,
                v: &v,
                bias,
                lengths: &lengths,
                heads,
                channels,
            };
            let error = error(&operation.forward(level), &expected);
            assert!(error < 2e-6, "{level} {lengths:?} {heads} heads: {error:e}");
        }
    }
}

#[test]
fn attention_to_logits_of_any_size_is_finite() {
    // Exponentials of such logits overflow; their differences decide.
    let (q, k) = ([300.0, -300.0, 300.0], [300.0, 299.0, -300.0]);
    let v = [1.0, 2.0, 4.0];
    for level in Level::available() {
        let operation = Attention {
            q: &q,
            k: &k,
            v: &v,
            bias: None,
            lengths: &[3],
            heads: 1,
            channels: 1,
        };
        assert_eq!(operation.forward(level), [1.0, 4.0, 1.0], "{level}");
    }
}

#[test]
fn gated_units_equal_the_formula() {
    for level in Level::available() {
        for (rows, channels) in [(1, 1), (40, 37), (3, 1365)] {
            let x = numbers(rows * 2 * channels, 1);
            let expected: Vec<f32> = x
                .chunks_exact(2 * channels)
                .flat_map(|row| {
                    let (values, gates) = row.split_at(channels);
                    let gates = formula::mlp(gates, [&[1.0], &[0.0], &[1.0], &[0.0]]);
                    let products = values.iter().zip(gates).map(|(value, gate)| value * gate);
                    products.collect::<Vec<f32>>()
                })
                .collect();
            let error = error(&gelu::cpu::gated(level, &x, channels), &expected);
            assert!(error < 1e-6, "{level} {rows}x{channels}: {error:e}");
        }
    }
}

#[test]
fn batch_norm_equals_the_formula() {
    for level in Level::available() {
        for (rows, channels) in [(9, 1), (70, 37), (3000, 16)] {
            let x = numbers(rows * channels, 1);
            let (gamma, beta) = (numbers(channels, 2), numbers(channels, 3));
            let mut expected = vec![0.0; x.len()];
            for channel in 0..channels {
                let column = || {
                    x.iter()
                        .skip(channel)
                        .step_by(channels)
                        .map(|x| f64::from(*x))
                };
                let mean = column().sum::<f64>() / rows as f64;
                let variance = column().map(|x| (x - mean).powi(2)).sum::<f64>() / rows as f64;
                for (row, x) in column().enumerate() {
                    let z = (x - mean) / (variance + 1e-5).sqrt();
                    let y = z * f64::from(gamma[channel]) + f64::from(beta[channel]);
                    expected[row * channels + channel] = y as f32;
                }
            }
            let affine = [&*gamma, &*beta];
            let (found, _) = batch_norm::cpu::forward(level, &x, affine, 1e-5, false);
            let far = error(&found, &expected);
            assert!(far < 2e-6, "{level} {rows}x{channels}: {far:e}");
            let (found, _) = batch_norm::cpu::forward(level, &x, affine, 1e-5, true);
            expected.iter_mut().for_each(|y| *y = y.max(0.0));
            let far = error(&found, &expected);
            assert!(far < 2e-6, "{level} {rows}x{channels}, rectified: {far:e}");
        }
    }
}

#[test]
fn gelu_is_exact_to_single_precision_over_its_whole_range() {
    let x: Vec<f32> = (-4000..4000).map(|i| i as f32 / 300.0).collect();
    for level in Level::available() {
        let one = [1.0];
        let found = Mlp {
            x: &x,
            w1: &one,
            b1: &[0.0],
            w2: &one,
            b2: &[0.0],
            rows: x.len(),
        }
        .forward(level);
        for (x, found) in x.iter().zip(found) {
            let expected = formula::mlp(&[*x], [&one, &[0.0], &one, &[0.0]])[0];
            assert!(
                (found - expected).abs() <= 2e-7 * (1.0 + x.abs()),
                "{level}: gelu({x}) = {found}, not {expected}"
            );
        }
    }
}

#[test]
fn the_definitions_equal_the_formulas() {
    let device = Device::flex();
    for case in &Case::ALL {
        let data = Dense::of(case);
        let weight_shape = [3, case.taps, case.channels, case.channels_out];
        let x = tensor(&data.x, case.input_shape(), &device)
            .try_into_primitive::<Flex>()
            .expect("flex");
        let weight = tensor(&data.weight, weight_shape, &device)
            .try_into_primitive::<Flex>()
            .expect("flex");
        let bias = tensor(&data.bias, [case.channels_out], &device)
            .try_into_primitive::<Flex>()
            .expect("flex");
        let found = dense_decomposed::reference::conv::<Flex>(x.clone(), weight, bias, case.stride);
        let expected = formula::add(
            &formula::dense_branches(case, &data.x, &data.weight),
            &data.bias,
        );
        assert_eq!(
            values(Tensor::<5>::from_primitive::<Flex>(found)),
            expected,
            "dense, {case:?}"
        );

        let case_1 = &Case { stride: 1, ..*case };
        let (filters, bias) = (
            integers(3 * case.taps * case.channels, 2),
            integers(case.channels, 3),
        );
        let weight = tensor(&filters, [3, case.taps, case.channels], &device);
        let found = depthwise_decomposed::reference::conv::<Flex>(
            x.clone(),
            weight.try_into_primitive::<Flex>().expect("flex"),
            tensor(&bias, [case.channels], &device)
                .try_into_primitive::<Flex>()
                .expect("flex"),
        );
        let expected = formula::add(
            &formula::depthwise_branches(case_1, &data.x, &filters),
            &bias,
        );
        assert_eq!(
            values(Tensor::<5>::from_primitive::<Flex>(found)),
            expected,
            "depthwise, {case:?}"
        );

        let found = max_pool::reference::forward::<Flex>(x);
        let expected = formula::max_pool(case, &data.x);
        assert_eq!(
            values(Tensor::<5>::from_primitive::<Flex>(found)),
            expected,
            "pool, {case:?}"
        );
    }
}

#[test]
fn machine_covers_every_level() {
    let expected = match std::env::consts::ARCH {
        "x86_64" => 3,
        "aarch64" => 2,
        _ => 1,
    };
    let found: Vec<String> = Level::available().map(|level| level.to_string()).collect();
    // A test that did not run is not green; but not every machine has AVX-512, so the gap is said, loudly.
    if found.len() < expected {
        eprintln!(
            "only these levels were tested on this machine: {}",
            found.join(", ")
        );
    }
    assert!(found.contains(&"portable".to_owned()));
}
