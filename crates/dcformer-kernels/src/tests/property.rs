//! Any shape: the fast versions against the formulas on random problems, at every level.

use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;

use super::*;
use crate::dense_conv::cpu::Conv;
use crate::dense_decomposed::cpu::Filters;
use crate::geometry::Geometry;
use crate::matmul::{Broadcast, Panels, Store, matmul, matmul_over_rows};
use crate::mixer_mlp::cpu::MixerMlp;
use crate::simd::Level;
use crate::stem::cpu::Stem;
use crate::{dense_decomposed, depthwise_decomposed, max_pool};

/// Problems small enough for the formulas' plain loops; axes of one voxel, odd sizes and channels of any number among them.
fn problem() -> impl Strategy<Value = Case> {
    let size = || prop_oneof![2 => 1..4_usize, 3 => 4..11_usize, 1 => 11..30_usize];
    let channels = || prop_oneof![3 => 1..40_usize, 1 => Just(16), 1 => Just(32), 1 => Just(48)];
    let taps = prop_oneof![3 => Just(3_usize), 1 => Just(1), 1 => Just(5), 1 => Just(7)];
    (
        1..3_usize,
        [size(), size(), size()],
        [channels(), channels()],
        taps,
        1..5_usize,
    )
        .prop_map(|(batch, size, channels, taps, stride)| {
            Case::new(batch, size, channels, taps, stride)
        })
        .prop_filter("too many products for plain loops", |case| {
            formula::out_voxels(case) * case.taps * case.channels * case.channels_out < 1_500_000
        })
}

/// A problem with a box of taps, different along the axes, and zeros in front.
fn boxes() -> impl Strategy<Value = (Case, [usize; 3], [usize; 3])> {
    let axis = || (1..5_usize).prop_flat_map(|taps| (Just(taps), 0..taps));
    (problem(), [axis(), axis(), axis()])
        .prop_map(|(case, axes)| (case, axes.map(|axis| axis.0), axes.map(|axis| axis.1)))
        .prop_filter("too many products for plain loops", |(case, taps, _)| {
            let taps: usize = taps.iter().product();
            formula::out_voxels(case) * taps * case.channels * case.channels_out < 300_000
        })
}

fn close(what: &str, level: Level, found: &[f32], expected: &[f32]) -> TestCaseResult {
    let error = error(found, expected);
    prop_assert!(error < 1e-5, "{what} at {level} differs by {error:e}");
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn a_dense_convolution_of_any_shape_equals_the_formula(case in problem(), seed in any::<u32>()) {
        let x = numbers(case.input_len(), seed);
        let weight = numbers(3 * case.taps * case.channels * case.channels_out, seed ^ 1);
        let bias = numbers(case.channels_out, seed ^ 2);
        let expected = formula::add(&formula::dense_branches(&case, &x, &weight), &bias);
        let filters = Filters {
            weight: &weight,
            taps: case.taps,
            channels_in: case.channels,
            channels_out: case.channels_out,
        };
        let geometry = Geometry::of(&case.input_shape());
        for level in Level::available() {
            let found =
                dense_decomposed::cpu::conv(level, &x, filters, &bias, geometry, case.stride);
            close("conv", level, &found, &expected)?;
        }
    }

    #[test]
    fn a_convolution_of_any_box_and_shape_equals_the_formula(
        (case, taps, before) in boxes(),
        seed in any::<u32>(),
    ) {
        let steps = taps.iter().product::<usize>() * case.channels;
        // Small integers: sums are exact in any order.
        let (x, weight) = (integers(case.input_len(), seed), integers(steps * case.channels_out, seed ^ 1));
        let bias = integers(case.channels_out, seed ^ 2);
        let gradient = integers(formula::out_voxels(&case) * case.channels_out, seed ^ 3);
        let plain = formula::dense_conv(&case, taps, before, &x, &weight, &bias);
        let expected: Vec<f32> = plain.iter().map(|y| *y as f32).collect();
        let rectified: Vec<f32> = expected.iter().map(|y| y.max(0.0)).collect();
        let conv = Conv {
            weight: &weight,
            taps,
            channels_out: case.channels_out,
            stride: case.stride,
            before,
            geometry: Geometry::of(&case.input_shape()),
        };
        // Σ gradient · y is linear in x and in the weights, so its derivatives are values of the formula.
        let against = |y: Vec<f64>| -> f64 { y.iter().zip(&gradient).map(|(y, g)| y * f64::from(*g)).sum() };
        let no_bias = vec![0.0; case.channels_out];
        for level in Level::available() {
            prop_assert_eq!(&conv.forward(level, &x, &bias, false), &expected);
            prop_assert_eq!(&conv.forward(level, &x, &bias, true), &rectified);
            let of_x = conv.input_gradient(level, &gradient);
            let of_weight = conv.weight_gradient(level, &x, &gradient);
            prop_assert_eq!((of_x.len(), of_weight.len()), (x.len(), weight.len()));
            for index in 0..5 {
                let at = (seed as usize).wrapping_mul(index * 7919 + 1) % x.len();
                let mut one = vec![0.0; x.len()];
                one[at] = 1.0;
                let slope = against(formula::dense_conv(&case, taps, before, &one, &weight, &no_bias));
                prop_assert_eq!(of_x[at], slope as f32, "gradient of x[{}] at {}", at, level);
                let at = (seed as usize).wrapping_mul(index * 104_729 + 1) % weight.len();
                let mut one = vec![0.0; weight.len()];
                one[at] = 1.0;
                let slope = against(formula::dense_conv(&case, taps, before, &x, &one, &no_bias));
                prop_assert_eq!(of_weight[at], slope as f32, "gradient of weight[{}] at {}", at, level);
            }
        }
    }

    #[test]
    fn a_depthwise_convolution_of_any_shape_equals_the_formula(case in problem(), seed in any::<u32>()) {
        let case = Case { stride: 1, ..case };
        let x = numbers(case.input_len(), seed);
        let weight = numbers(3 * case.taps * case.channels, seed ^ 1);
        let bias = numbers(case.channels, seed ^ 2);
        let expected = formula::add(&formula::depthwise_branches(&case, &x, &weight), &bias);
        let filters = depthwise_decomposed::cpu::Filters { weight: &weight, taps: case.taps };
        let geometry = Geometry::of(&case.input_shape());
        for level in Level::available() {
            let found = depthwise_decomposed::tile::conv(level, &x, filters, &bias, geometry);
            close("conv", level, &found, &expected)?;
        }
    }

    #[test]
    fn a_block_of_any_shape_equals_its_parts(case in problem(), seed in any::<u32>()) {
        let case = Case { stride: 1, ..case };
        let (channels, hidden) = (case.channels, case.channels_out);
        let x = numbers(case.input_len(), seed);
        let (weight, bias) = (numbers(3 * case.taps * channels, seed ^ 1), numbers(channels, seed ^ 2));
        let (w1, b1) = (numbers(channels * hidden, seed ^ 3), numbers(hidden, seed ^ 4));
        let (w2, b2) = (numbers(hidden * channels, seed ^ 5), numbers(channels, seed ^ 6));
        let mixed = formula::add(&formula::depthwise_branches(&case, &x, &weight), &bias);
        let residual = formula::mlp(&mixed, [&w1, &b1, &w2, &b2]);
        let expected: Vec<f32> = x.iter().zip(residual).map(|(x, y)| x + y).collect();
        let block = MixerMlp {
            filters: depthwise_decomposed::cpu::Filters { weight: &weight, taps: case.taps },
            bias: &bias,
            w1: &w1,
            b1: &b1,
            w2: &w2,
            b2: &b2,
        };
        for level in Level::available() {
            let found = block.forward(level, &x, Geometry::of(&case.input_shape()));
            close("block", level, &found, &expected)?;
        }
    }

    #[test]
    fn a_stem_of_any_size_equals_its_parts(
        size in [1..40_usize, 1..40_usize, 1..60_usize],
        channels in prop_oneof![Just(8_usize), Just(16), Just(20)],
        stride in 1..5_usize,
        seed in any::<u32>(),
    ) {
        let first = Case::new(1, size, [1, channels], 7, stride);
        prop_assume!(formula::out_voxels(&first) < 4000);
        let x = numbers(first.input_len(), seed);
        let weight = numbers(3 * 7 * channels, seed ^ 1);
        let refinements = numbers(2 * 9 * channels * channels, seed ^ 2);
        let biases = numbers(3 * channels, seed ^ 3);
        let projection = numbers(channels * 5, seed ^ 4);
        let filters = |weight, taps, inputs| Filters { weight, taps, channels_in: inputs, channels_out: channels };
        let mut convs = vec![(filters(&weight[..], 7, 1), &biases[..channels])];
        for index in 0..2 {
            let weight = &refinements[index * 9 * channels * channels..][..9 * channels * channels];
            let bias = &biases[(index + 1) * channels..][..channels];
            convs.push((filters(weight, 3, channels), bias));
        }
        let parts: Vec<(&[f32], &[f32])> = convs.iter().map(|(f, bias)| (f.weight, *bias)).collect();
        let expected = formula::stem(&first, &x, &parts, 3, &projection);
        let stem = Stem { convs, projection: &projection, stride, activate: false };
        for level in Level::available() {
            let found = stem.forward(level, &x, Geometry::of(&first.input_shape()));
            close("stem", level, &found, &expected)?;
        }
    }

    #[test]
    fn pooling_of_any_shape_equals_the_formula(case in problem(), seed in any::<u32>()) {
        let x = numbers(case.input_len(), seed);
        let expected = formula::max_pool(&case, &x);
        let geometry = Geometry::of(&case.input_shape());
        for level in Level::available() {
            prop_assert_eq!(&max_pool::cpu::values(level, &x, geometry), &expected);
            prop_assert_eq!(&max_pool::cpu::forward(level, &x, geometry).values, &expected);
        }
    }

    #[test]
    fn products_of_any_shape_equal_plain_loops(
        [rows, steps, columns] in [1..70_usize, 0..70_usize, 1..70_usize],
        seed in any::<u32>(),
    ) {
        let (a, b) = (numbers(rows * steps, seed), numbers(steps * columns, seed ^ 1));
        let bias = numbers(columns, seed ^ 2);
        let plain = match steps {
            0 => vec![0.0; rows * columns],
            _ => formula::product(&a, &b, columns),
        };
        // `a` read as `[steps, rows]`.
        let turned: Vec<f32> = (0..rows).flat_map(|row| a[row.min(a.len())..].iter().step_by(rows).copied()).collect();
        let over_rows = match steps {
            0 => plain.clone(),
            _ => formula::product(&turned, &b, columns),
        };
        let biased: Vec<f32> = plain.iter().enumerate().map(|(index, p)| p + bias[index % columns]).collect();
        for level in Level::available() {
            let panels = Panels::of(level, &b, steps, columns);
            let mut found = vec![0.0; rows * columns];
            matmul(level, Broadcast::rows(&a, steps), &panels, &mut found, Store::Biased(&bias));
            close("product", level, &found, &biased)?;
            let found = matmul_over_rows(level, &a, &b, [steps, rows, columns]);
            close("product over rows", level, &found, &over_rows)?;
        }
    }
}
