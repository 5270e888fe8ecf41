//! Average pooling: values, gradient, any shape, any number of threads.

use burn::tensor::Device;
use proptest::prelude::*;

use super::gradient::{Operand, compare, gradients, unpack};
use super::invariance::assert_same_on_threads;
use super::*;
use crate::KernelOps;
use crate::average_pool::{cpu, reference};
use crate::geometry::Geometry;
use crate::simd::Level;

/// The mean of the neighbours inside the grid, `[batch, depth, height, width, channels]`, and its gradient for `cotangent`.
fn formula(shape: [usize; 5], x: &[f32], cotangent: &[f32]) -> [Vec<f32>; 2] {
    let [batch, depth, height, width, channels] = shape;
    let (mut mean, mut gradient) = (Vec::new(), vec![0.0_f64; x.len()]);
    let near = |index: usize, size: usize| index.saturating_sub(1)..(index + 2).min(size);
    let voxels = batch * depth * height * width;
    for voxel in 0..voxels {
        let (n, z) = (
            voxel / (depth * height * width),
            voxel / (height * width) % depth,
        );
        let (y, x_) = (voxel / width % height, voxel % width);
        let neighbours: Vec<usize> = near(z, depth)
            .flat_map(|z| near(y, height).map(move |y| (z, y)))
            .flat_map(|(z, y)| {
                near(x_, width).map(move |x| ((n * depth + z) * height + y) * width + x)
            })
            .collect();
        for c in 0..channels {
            let at = |neighbour: &usize| neighbour * channels + c;
            let sum: f64 = neighbours
                .iter()
                .map(|neighbour| f64::from(x[at(neighbour)]))
                .sum();
            mean.push((sum / neighbours.len() as f64) as f32);
            let share = f64::from(cotangent[voxel * channels + c]) / neighbours.len() as f64;
            for neighbour in &neighbours {
                gradient[at(neighbour)] += share;
            }
        }
    }
    [
        mean,
        gradient.into_iter().map(|value| value as f32).collect(),
    ]
}

const SHAPES: [[usize; 5]; 5] = [
    [2, 3, 4, 5, 40],
    [1, 1, 1, 1, 1],
    [1, 1, 2, 3, 5],
    [2, 2, 1, 9, 16],
    [1, 5, 6, 1, 3],
];

#[test]
fn it_has_the_gradient_and_the_values_of_its_definition() {
    let device = Device::flex();
    for shape in SHAPES {
        let len = shape.iter().product();
        let operands = [Operand::new(numbers(len, 1), &shape)];
        let cotangent = numbers(len, 9);
        let fast = gradients::<5>(&operands, &cotangent, |operands| {
            let [x] = unpack(operands);
            <Differentiated as KernelOps>::average_pool_3d(x)
        });
        let definition = gradients::<5>(&operands, &cotangent, |operands| {
            let [x] = unpack(operands);
            reference::forward::<Differentiated>(x)
        });
        compare(&format!("{shape:?}"), &["x"], &fast, &definition);

        let x = tensor(&numbers(len, 1), shape, &device);
        let definition =
            reference::forward::<Flex>(x.clone().try_into_primitive::<Flex>().expect("flex"));
        let definition = values(Tensor::<5>::from_primitive::<Flex>(definition));
        let [mean, _] = formula(shape, &numbers(len, 1), &cotangent);
        assert!(error(&definition, &mean) < 1e-6, "{shape:?}");
        assert!(
            error(&values(crate::average_pool(x)), &mean) < 1e-6,
            "{shape:?}"
        );
    }
}

#[test]
fn the_number_of_threads_does_not_change_a_bit() {
    let shape = [2, 5, 6, 7, 40];
    let x = numbers(shape.iter().product(), 1);
    let geometry = Geometry::of(&shape);
    let step = || {
        let level = Level::current();
        (
            cpu::forward(level, &x, geometry),
            cpu::backward(level, &x, geometry),
        )
    };
    assert_same_on_threads(step);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn any_shape_equals_the_formula(
        shape in [1..3_usize, 1..7, 1..7, 1..40, 1..40],
        seed in any::<u32>(),
    ) {
        let len = shape.iter().product();
        let (x, cotangent) = (numbers(len, seed), numbers(len, seed ^ 1));
        let [mean, gradient] = formula(shape, &x, &cotangent);
        let geometry = Geometry::of(&shape);
        for level in Level::available() {
            // Sums of 27 values and two products with a share.
            let error_of = |found: Vec<f32>, expected: &[f32]| error(&found, expected);
            let far = error_of(cpu::forward(level, &x, geometry), &mean);
            prop_assert!(far < 2e-6, "{level} differs by {far:e}");
            let far = error_of(cpu::backward(level, &cotangent, geometry), &gradient);
            prop_assert!(far < 2e-6, "gradient at {level} differs by {far:e}");
        }
    }
}
