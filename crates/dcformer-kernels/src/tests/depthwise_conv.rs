//! Depthwise convolution: values, gradients, any shape, any number of threads.

use burn::tensor::Device;
use proptest::prelude::*;

use super::gradient::{Operand, compare, gradients, unpack};
use super::invariance::assert_same_on_threads;
use super::*;
use crate::KernelOps;
use crate::depthwise_conv::backward::filter_gradients;
use crate::depthwise_conv::cpu::{Filters, forward, input_gradient};
use crate::depthwise_conv::lines::Window;
use crate::depthwise_conv::reference;
use crate::geometry::Geometry;
use crate::simd::Level;

/// A grid `[batch, depth, height, width, channels]` and a window.
#[derive(Clone, Copy, Debug)]
struct Problem {
    shape: [usize; 5],
    window: Window,
}

impl Problem {
    const fn new(shape: [usize; 5], taps: [usize; 3], before: [usize; 3]) -> Self {
        Self {
            shape,
            window: Window { taps, before },
        }
    }

    const ALL: [Self; 12] = [
        // ConvNeXt: full vectors, half a vector, less than half of one, an overlapping last one, grids smaller than the window.
        Self::new([1, 9, 8, 37, 40], [7, 7, 7], [3, 3, 3]),
        Self::new([1, 5, 19, 11, 21], [7, 7, 7], [3, 3, 3]),
        Self::new([1, 2, 3, 9, 30], [3, 5, 7], [2, 0, 6]),
        Self::new([2, 3, 5, 4, 48], [7, 7, 7], [3, 3, 3]),
        Self::new([1, 1, 1, 1, 1], [7, 7, 7], [3, 3, 3]),
        // CT-ViT, which looks back along depth.
        Self::new([2, 6, 5, 3, 64], [3, 3, 3], [2, 1, 1]),
        // InceptionNeXt: several voxels in one vector.
        Self::new([1, 5, 6, 67, 4], [3, 3, 3], [1, 1, 1]),
        Self::new([1, 5, 6, 9, 5], [7, 7, 7], [3, 3, 3]),
        Self::new([3, 2, 4, 70, 3], [3, 3, 3], [1, 1, 1]),
        // Windows of any other kind.
        Self::new([1, 4, 7, 11, 17], [1, 5, 4], [0, 4, 0]),
        Self::new([2, 1, 1, 130, 16], [5, 2, 3], [2, 1, 1]),
        Self::new([1, 7, 1, 2, 12], [13, 1, 9], [6, 0, 4]),
    ];

    fn geometry(&self) -> Geometry {
        Geometry::of(&self.shape)
    }

    fn len(&self) -> usize {
        self.shape.iter().product()
    }

    fn channels(&self) -> usize {
        self.shape[4]
    }

    fn weights(&self) -> usize {
        self.window.len() * self.channels()
    }

    /// Calls `visit(output, input, tap)` for every tap inside the grid; indices are of voxels.
    fn for_each_tap(&self, mut visit: impl FnMut(usize, usize, usize)) {
        let [batch, depth, height, width, _] = self.shape;
        let Window { taps, before } = self.window;
        let sizes = [depth, height, width];
        for output in 0..batch * depth * height * width {
            let position = [
                output / (height * width) % depth,
                output / width % height,
                output % width,
            ];
            for tap in 0..self.window.len() {
                let taps = [
                    tap / (taps[1] * taps[2]),
                    tap / taps[2] % taps[1],
                    tap % taps[2],
                ];
                let at =
                    [0, 1, 2].map(|axis| (position[axis] + taps[axis]).wrapping_sub(before[axis]));
                if (0..3).all(|axis| at[axis] < sizes[axis]) {
                    let volume = output / (depth * height * width);
                    let input = ((volume * depth + at[0]) * height + at[1]) * width + at[2];
                    visit(output, input, tap);
                }
            }
        }
    }

    fn formula(&self, x: &[f32], weight: &[f32], bias: &[f32]) -> Vec<f32> {
        let channels = self.channels();
        let mut out: Vec<f64> = bias
            .iter()
            .cycle()
            .take(self.len())
            .map(|bias| f64::from(*bias))
            .collect();
        self.for_each_tap(|output, input, tap| {
            for c in 0..channels {
                let product =
                    f64::from(weight[tap * channels + c]) * f64::from(x[input * channels + c]);
                out[output * channels + c] += product;
            }
        });
        out.into_iter().map(|value| value as f32).collect()
    }

    /// Gradients of input, weight and bias.
    fn formula_gradients(&self, x: &[f32], weight: &[f32], gradient: &[f32]) -> [Vec<f32>; 3] {
        let channels = self.channels();
        let mut of_x = vec![0.0; x.len()];
        let mut of_weight = vec![0.0; weight.len()];
        let mut of_bias = vec![0.0; channels];
        self.for_each_tap(|output, input, tap| {
            for c in 0..channels {
                let g = f64::from(gradient[output * channels + c]);
                of_x[input * channels + c] += g * f64::from(weight[tap * channels + c]);
                of_weight[tap * channels + c] += g * f64::from(x[input * channels + c]);
            }
        });
        for gradient in gradient.chunks_exact(channels) {
            for (sum, g) in of_bias.iter_mut().zip(gradient) {
                *sum += f64::from(*g);
            }
        }
        [of_x, of_weight, of_bias]
            .map(|values| values.into_iter().map(|value: f64| value as f32).collect())
    }

    fn operands(&self) -> [Operand; 3] {
        let [depth, height, width] = self.window.taps;
        let channels = self.channels();
        [
            Operand::new(numbers(self.len(), 1), &self.shape),
            Operand::new(
                numbers(self.weights(), 2),
                &[depth, height, width, channels],
            ),
            Operand::new(numbers(channels, 3), &[channels]),
        ]
    }
}

/// What a level computes: the output, and the gradients of input, weight and bias.
fn computed(
    problem: &Problem,
    level: Level,
    [x, weight, bias, gradient]: [&[f32]; 4],
) -> [Vec<f32>; 4] {
    let (window, geometry) = (problem.window, problem.geometry());
    let filters = Filters { weight, window };
    let of_filters = filter_gradients(level, x, window, gradient, geometry);
    [
        forward(level, x, filters, bias, geometry),
        input_gradient(level, filters, gradient, geometry),
        of_filters.weight,
        of_filters.bias,
    ]
}

fn expected(problem: &Problem, [x, weight, bias, gradient]: [&[f32]; 4]) -> [Vec<f32>; 4] {
    let [of_x, of_weight, of_bias] = problem.formula_gradients(x, weight, gradient);
    [problem.formula(x, weight, bias), of_x, of_weight, of_bias]
}

/// Transformed products, of seven taps along the width, differ by 4e-6 of the largest value from plain sums; where few
/// taps are inside the grid, the largest value is small.
const TRANSFORMED: f32 = 2e-5;

#[test]
fn every_level_equals_the_formula() {
    for problem in &Problem::ALL {
        // Small integers, whose sums are exact in any order.
        let (x, gradient) = (integers(problem.len(), 1), integers(problem.len(), 4));
        let (weight, bias) = (
            integers(problem.weights(), 2),
            integers(problem.channels(), 3),
        );
        let operands = [&x[..], &weight, &bias, &gradient];
        let expected = expected(problem, operands);
        for level in Level::available() {
            let found = computed(problem, level, operands);
            for (name, (found, expected)) in ["y", "x", "weight", "bias"]
                .iter()
                .zip(found.iter().zip(&expected))
            {
                let transformed = problem.window.taps[2] == 7 && ["y", "x"].contains(name);
                let tolerance = if transformed { TRANSFORMED } else { 0.0 };
                let error = error(found, expected);
                assert!(
                    error <= tolerance,
                    "{level} {problem:?}: {name} differs by {error:e}"
                );
            }
        }
    }
}

#[test]
fn the_definition_equals_the_formula() {
    let device = Device::flex();
    for problem in &Problem::ALL {
        let (x, weight) = (integers(problem.len(), 1), integers(problem.weights(), 2));
        let bias = integers(problem.channels(), 3);
        let [depth, height, width] = problem.window.taps;
        let primitive = |tensor: Tensor<5>| tensor.try_into_primitive::<Flex>().expect("flex");
        let found = reference::forward::<Flex>(
            primitive(tensor(&x, problem.shape, &device)),
            tensor(&weight, [depth, height, width, problem.channels()], &device)
                .try_into_primitive::<Flex>()
                .expect("flex"),
            tensor(&bias, [problem.channels()], &device)
                .try_into_primitive::<Flex>()
                .expect("flex"),
            problem.window.before,
        );
        let found = values(Tensor::<5>::from_primitive::<Flex>(found));
        assert_eq!(found, problem.formula(&x, &weight, &bias), "{problem:?}");
    }
}

#[test]
fn it_has_the_gradient_of_its_definition() {
    for problem in &Problem::ALL {
        let operands = problem.operands();
        let cotangent = numbers(problem.len(), 9);
        let before = problem.window.before;
        let fast = gradients::<5>(&operands, &cotangent, |operands| {
            let [x, weight, bias] = unpack(operands);
            <Differentiated as KernelOps>::depthwise_conv_3d(x, weight, bias, before)
        });
        let definition = gradients::<5>(&operands, &cotangent, |operands| {
            let [x, weight, bias] = unpack(operands);
            reference::forward::<Differentiated>(x, weight, bias, before)
        });
        compare(
            &format!("{problem:?}"),
            &["x", "weight", "bias"],
            &fast,
            &definition,
        );
    }
}

#[test]
fn the_number_of_threads_does_not_change_a_bit() {
    let problem = Problem::new([2, 9, 10, 37, 40], [7, 7, 7], [3, 3, 3]);
    let (x, gradient) = (numbers(problem.len(), 1), numbers(problem.len(), 4));
    let (weight, bias) = (
        numbers(problem.weights(), 2),
        numbers(problem.channels(), 3),
    );
    let step = || computed(&problem, Level::current(), [&x, &weight, &bias, &gradient]);
    assert_same_on_threads(step);
}

#[test]
#[should_panic(expected = "a filter of 3 taps must have fewer zeros in front, got 3")]
fn a_window_that_would_read_nothing_is_refused() {
    let device = Device::flex();
    let x = Tensor::zeros([1, 2, 2, 2, 1], &device);
    let weight = Tensor::zeros([3, 3, 3, 1], &device);
    crate::depthwise_conv(x, weight, Tensor::zeros([1], &device), [1, 3, 1]);
}

/// Grids small enough for plain loops.
fn problem() -> impl Strategy<Value = Problem> {
    let size = || prop_oneof![1 => Just(1), 2 => 2..5_usize, 2 => 5..12_usize];
    let width = prop_oneof![2 => 1..9_usize, 2 => 9..40_usize, 1 => 40..80_usize];
    let channels = prop_oneof![3 => 1..20_usize, 2 => 20..50_usize, 1 => Just(32)];
    let taps = || prop_oneof![Just(7), Just(3), 1..8_usize];
    (
        (1..3_usize, size(), size(), width, channels),
        [taps(), taps(), taps()],
        [0..7_usize, 0..7, 0..7],
    )
        .prop_map(|((n, d, h, w, c), taps, before)| {
            let before = [0, 1, 2].map(|axis| before[axis] % taps[axis]);
            Problem::new([n, d, h, w, c], taps, before)
        })
        .prop_filter("too many products for plain loops", |problem| {
            problem.len() * problem.window.len() < 3_000_000
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn any_shape_and_window_equal_the_formula(problem in problem(), seed in any::<u32>()) {
        let (x, gradient) = (numbers(problem.len(), seed), numbers(problem.len(), seed ^ 1));
        let (weight, bias) = (numbers(problem.weights(), seed ^ 2), numbers(problem.channels(), seed ^ 3));
        let operands = [&x[..], &weight, &bias, &gradient];
        let expected = expected(&problem, operands);
        for level in Level::available() {
            for (found, expected) in computed(&problem, level, operands).iter().zip(&expected) {
                // Without a transform it would be 1e-5: sums of a few thousand products in another order.
                let error = error(found, expected);
                prop_assert!(error < TRANSFORMED, "{level} differs by {error:e}");
            }
        }
    }
}
