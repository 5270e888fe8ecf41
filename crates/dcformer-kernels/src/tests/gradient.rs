//! Gradients: each operation's own backward pass against the framework's derivative of the definition, and the
//! definition against finite differences of the formula.

use burn::backend::TensorMetadata;
use burn::tensor::Device;

use super::*;
use crate::{attention, batch_norm, dense_conv, dense_decomposed, depthwise_decomposed};
use crate::{gelu, layer_norm, max_pool, mlp};

/// Sums over up to a few thousand voxels in two different orders, and a division by a small deviation. Measured 2e-5
/// at worst, on the case with the fewest voxels per statistic.
const TOLERANCE: f32 = 1e-4;

pub(super) type Primitive = <Differentiated as burn::backend::BackendTypes>::FloatTensorPrimitive;

fn primitive<const D: usize>(tensor: Tensor<D>) -> Primitive {
    tensor
        .try_into_primitive::<Differentiated>()
        .expect("an autodiff tensor on flex")
}

/// Gradients of `Σ operation(operands) · cotangent` with respect to every operand.
pub(super) fn gradients<const D: usize>(
    operands: &[Operand],
    cotangent: &[f32],
    operation: impl FnOnce(Vec<Primitive>) -> Primitive,
) -> Vec<Vec<f32>> {
    let device = Device::flex().autodiff();
    let leaves: Vec<_> = operands
        .iter()
        .map(|operand| operand.leaf(&device))
        .collect();
    let out = Tensor::<D>::from_primitive::<Differentiated>(operation(leaves.clone()));
    let shape = out.dims();
    let loss = (out * tensor(cotangent, shape, &device)).sum();
    let gradients = loss.backward();
    let flat = |leaf: Primitive| {
        let len = leaf.shape().num_elements();
        let leaf = Tensor::<1>::from_primitive::<Differentiated>(leaf);
        values(
            leaf.grad(&gradients)
                .expect("every operand has a gradient")
                .reshape([len]),
        )
    };
    leaves.into_iter().map(flat).collect()
}

#[derive(Clone, Debug)]
pub(super) struct Operand {
    values: Vec<f32>,
    shape: Vec<usize>,
}

impl Operand {
    pub(super) fn new(values: Vec<f32>, shape: &[usize]) -> Self {
        Self {
            values,
            shape: shape.to_vec(),
        }
    }

    fn leaf(&self, device: &Device) -> Primitive {
        let data = || TensorData::new(self.values.clone(), self.shape.clone());
        match self.shape.len() {
            1 => primitive(Tensor::<1>::from_data(data(), device).require_grad()),
            2 => primitive(Tensor::<2>::from_data(data(), device).require_grad()),
            3 => primitive(Tensor::<3>::from_data(data(), device).require_grad()),
            4 => primitive(Tensor::<4>::from_data(data(), device).require_grad()),
            _ => primitive(Tensor::<5>::from_data(data(), device).require_grad()),
        }
    }
}

pub(super) fn compare(what: &str, names: &[&str], found: &[Vec<f32>], expected: &[Vec<f32>]) {
    let wrong: Vec<String> = names
        .iter()
        .zip(found.iter().zip(expected))
        .map(|(name, (found, expected))| (name, error(found, expected)))
        .filter(|(_, error)| *error > TOLERANCE)
        .map(|(name, error)| format!("{what}: gradient of {name} differs by {error:e}"))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Takes the operands out of a vector.
pub(super) fn unpack<const N: usize>(operands: Vec<Primitive>) -> [Primitive; N] {
    operands
        .try_into()
        .unwrap_or_else(|_| panic!("the operation has {N} operands"))
}

/// Cases with enough voxels that no statistic is degenerate.
fn cases() -> impl Iterator<Item = Case> {
    Case::ALL
        .into_iter()
        .filter(|case| formula::out_voxels(case) > 8)
}

fn dense_operands(case: &Case) -> [Operand; 4] {
    let (taps, inputs, outputs) = (case.taps, case.channels, case.channels_out);
    [
        Operand::new(numbers(case.input_len(), 1), &case.input_shape()),
        Operand::new(
            numbers(3 * taps * inputs * outputs, 2),
            &[3, taps, inputs, outputs],
        ),
        Operand::new(numbers(3 * outputs, 3), &[3, outputs]),
        Operand::new(numbers(3 * outputs, 4), &[3, outputs]),
    ]
}

#[test]
fn dense_norm_has_the_gradient_of_its_definition() {
    for case in cases() {
        let cotangent = numbers(formula::out_voxels(&case) * case.channels_out, 9);
        let operands = dense_operands(&case);
        let fast = gradients::<5>(&operands, &cotangent, |operands| {
            let [x, weight, gamma, beta] = unpack(operands);
            <Differentiated as crate::KernelOps>::dense_decomposed_norm(
                x,
                weight,
                gamma,
                beta,
                case.stride,
                1e-5,
            )
            .0
        });
        let definition = gradients::<5>(&operands, &cotangent, |operands| {
            let [x, weight, gamma, beta] = unpack(operands);
            dense_decomposed::reference::norm::<Differentiated>(
                x,
                weight,
                gamma,
                beta,
                case.stride,
                1e-5,
            )
            .0
        });
        compare(
            &format!("{case:?}"),
            &["x", "weight", "gamma", "beta"],
            &fast,
            &definition,
        );
    }
}

#[test]
fn depthwise_norm_has_the_gradient_of_its_definition() {
    for case in cases() {
        let (taps, channels) = (case.taps, case.channels);
        let operands = [
            Operand::new(numbers(case.input_len(), 1), &case.input_shape()),
            Operand::new(numbers(3 * taps * channels, 2), &[3, taps, channels]),
            Operand::new(numbers(3 * channels, 3), &[3, channels]),
            Operand::new(numbers(3 * channels, 4), &[3, channels]),
        ];
        let cotangent = numbers(case.input_len(), 9);
        let fast = gradients::<5>(&operands, &cotangent, |operands| {
            let [x, weight, gamma, beta] = unpack(operands);
            <Differentiated as crate::KernelOps>::depthwise_decomposed_norm(
                x, weight, gamma, beta, 1e-5,
            )
            .0
        });
        let definition = gradients::<5>(&operands, &cotangent, |operands| {
            let [x, weight, gamma, beta] = unpack(operands);
            depthwise_decomposed::reference::norm::<Differentiated>(x, weight, gamma, beta, 1e-5).0
        });
        compare(
            &format!("{case:?}"),
            &["x", "weight", "gamma", "beta"],
            &fast,
            &definition,
        );
    }
}

#[test]
fn max_pooling_has_the_gradient_of_its_definition() {
    for case in &Case::ALL {
        let operands = [Operand::new(
            numbers(case.input_len(), 1),
            &case.input_shape(),
        )];
        let outputs = formula::max_pool(case, &operands[0].values).len();
        let cotangent = numbers(outputs, 9);
        let fast = gradients::<5>(&operands, &cotangent, |operands| {
            let [x] = unpack(operands);
            <Differentiated as crate::KernelOps>::max_pool_3d(x)
        });
        let definition = gradients::<5>(&operands, &cotangent, |operands| {
            let [x] = unpack(operands);
            max_pool::reference::forward::<Differentiated>(x)
        });
        compare(&format!("{case:?}"), &["x"], &fast, &definition);
    }
}

#[test]
fn mlp_has_the_gradient_of_its_definition() {
    for (rows, inputs, hidden, outputs) in [(1, 1, 1, 1), (7, 5, 20, 3), (5000, 16, 64, 16)] {
        let operands = [
            Operand::new(numbers(rows * inputs, 1), &[rows, inputs]),
            Operand::new(numbers(inputs * hidden, 2), &[inputs, hidden]),
            Operand::new(numbers(hidden, 3), &[hidden]),
            Operand::new(numbers(hidden * outputs, 4), &[hidden, outputs]),
            Operand::new(numbers(outputs, 5), &[outputs]),
        ];
        let cotangent = numbers(rows * outputs, 9);
        let fast = gradients::<2>(&operands, &cotangent, |operands| {
            let [x, w1, b1, w2, b2] = unpack(operands);
            <Differentiated as crate::KernelOps>::mlp(x, w1, b1, w2, b2)
        });
        let definition = gradients::<2>(&operands, &cotangent, |operands| {
            let [x, w1, b1, w2, b2] = unpack(operands);
            mlp::reference::forward::<Differentiated>(x, w1, b1, w2, b2)
        });
        compare(
            &format!("{rows} rows"),
            &["x", "w1", "b1", "w2", "b2"],
            &fast,
            &definition,
        );
    }
}

/// Notes the values of an operation's output on its way.
fn keep_values(outputs: &mut Vec<Vec<f32>>, out: Primitive) -> Primitive {
    let tensor = Tensor::<2>::from_primitive::<Differentiated>(out.clone());
    outputs.push(values(tensor));
    out
}

#[test]
fn gelu_has_the_gradient_and_the_values_of_its_definition() {
    let operands = [Operand::new(
        numbers(40_001, 1).iter().map(|x| 6.0 * x).collect(),
        &[40_001, 1],
    )];
    let cotangent = numbers(40_001, 9);
    let mut outputs = Vec::new();
    let mut keep = |out| keep_values(&mut outputs, out);
    let fast = gradients::<2>(&operands, &cotangent, |operands| {
        let [x] = unpack(operands);
        keep(<Differentiated as crate::KernelOps>::exact_gelu(x))
    });
    let definition = gradients::<2>(&operands, &cotangent, |operands| {
        let [x] = unpack(operands);
        keep(gelu::reference::forward::<Differentiated>(x))
    });
    compare("gelu", &["x"], &fast, &definition);
    assert!(error(&outputs[0], &outputs[1]) < 1e-6);
}

#[test]
fn layer_norm_has_the_gradient_and_the_values_of_its_definition() {
    for (rows, channels) in [(1, 2), (300, 37), (5, 128)] {
        let operands = [
            Operand::new(numbers(rows * channels, 1), &[rows, channels]),
            Operand::new(numbers(channels, 2), &[channels]),
            Operand::new(numbers(channels, 3), &[channels]),
        ];
        let cotangent = numbers(rows * channels, 9);
        let mut outputs = Vec::new();
        let mut keep = |out| keep_values(&mut outputs, out);
        let fast = gradients::<2>(&operands, &cotangent, |operands| {
            let [x, gamma, beta] = unpack(operands);
            keep(<Differentiated as crate::KernelOps>::layer_norm_rows(
                x, gamma, beta, 1e-12,
            ))
        });
        let definition = gradients::<2>(&operands, &cotangent, |operands| {
            let [x, gamma, beta] = unpack(operands);
            keep(layer_norm::reference::forward::<Differentiated>(
                x, gamma, beta, 1e-12,
            ))
        });
        compare(
            &format!("{rows}x{channels}"),
            &["x", "gamma", "beta"],
            &fast,
            &definition,
        );
        assert!(error(&outputs[0], &outputs[1]) < 1e-6);
    }
}

#[test]
fn attention_has_the_gradient_of_its_definition() {
    for (lengths, heads, channels) in [
        (vec![1], 1, 2),
        (vec![3, 1, 7], 2, 10),
        (vec![40, 17], 4, 64),
        (vec![101], 2, 64),
    ] {
        let tokens: usize = lengths.iter().sum();
        let operands = [1, 2, 3]
            .map(|seed| Operand::new(numbers(tokens * channels, seed), &[tokens, channels]));
        let cotangent = numbers(tokens * channels, 9);
        let fast = gradients::<2>(&operands, &cotangent, |operands| {
            let [q, k, v] = unpack(operands);
            <Differentiated as crate::KernelOps>::packed_attention(q, k, v, lengths.clone(), heads)
        });
        let definition = gradients::<2>(&operands, &cotangent, |operands| {
            let [q, k, v] = unpack(operands);
            attention::reference::forward::<Differentiated>(q, k, v, None, &lengths, heads)
        });
        compare(
            &format!("{lengths:?}"),
            &["q", "k", "v"],
            &fast,
            &definition,
        );
    }
}

#[test]
fn biased_attention_has_the_gradient_of_its_definition() {
    for (sequences, tokens, heads, channels) in [(1, 1, 1, 2), (3, 7, 2, 10), (2, 61, 2, 64)] {
        let shape = [sequences * tokens, channels];
        let operand = |seed| Operand::new(numbers(shape[0] * channels, seed), &shape);
        let bias = numbers(heads * tokens * tokens, 4);
        let operands = [
            operand(1),
            operand(2),
            operand(3),
            Operand::new(bias, &[heads, tokens, tokens]),
        ];
        let cotangent = numbers(shape[0] * channels, 9);
        let mut outputs = Vec::new();
        let mut keep = |out| keep_values(&mut outputs, out);
        let fast = gradients::<2>(&operands, &cotangent, |operands| {
            let [q, k, v, bias] = unpack(operands);
            keep(<Differentiated as crate::KernelOps>::biased_attention(
                q, k, v, bias,
            ))
        });
        let definition = gradients::<2>(&operands, &cotangent, |operands| {
            let [q, k, v, bias] = unpack(operands);
            keep(attention::reference::biased::<Differentiated>(
                q, k, v, bias,
            ))
        });
        let what = format!("{sequences} sequences of {tokens}");
        compare(&what, &["q", "k", "v", "bias"], &fast, &definition);
        assert!(error(&outputs[0], &outputs[1]) < 2e-6);
    }
}

#[test]
fn gated_units_have_the_gradient_of_their_definition() {
    for (rows, channels) in [(1, 1), (40, 37)] {
        let operands = [Operand::new(
            numbers(rows * 2 * channels, 1),
            &[rows, 2 * channels],
        )];
        let cotangent = numbers(rows * channels, 9);
        let fast = gradients::<2>(&operands, &cotangent, |operands| {
            let [x] = unpack(operands);
            <Differentiated as crate::KernelOps>::gated_gelu_rows(x)
        });
        let definition = gradients::<2>(&operands, &cotangent, |operands| {
            let [x] = unpack(operands);
            gelu::reference::gated::<Differentiated>(x)
        });
        compare(&format!("{rows}x{channels}"), &["x"], &fast, &definition);
    }
}

#[test]
fn a_dense_convolution_has_the_gradient_of_its_definition() {
    for (case, before) in [
        (Case::new(2, [9, 10, 27], [1, 32], 7, 4), [3; 3]),
        (Case::new(1, [5, 6, 13], [32, 40], 3, 2), [1; 3]),
        (Case::new(2, [4, 1, 9], [20, 5], 2, 2), [0; 3]),
        (Case::new(1, [5, 4, 7], [3, 33], 3, 1), [2, 1, 0]),
        (Case::new(1, [5, 4, 7], [6, 4], 1, 2), [0; 3]),
    ] {
        let (taps, inputs, outputs) = (case.taps, case.channels, case.channels_out);
        let shape = [taps, taps, taps, inputs, outputs];
        let operands = [
            Operand::new(numbers(case.input_len(), 1), &case.input_shape()),
            Operand::new(numbers(shape.iter().product(), 2), &shape),
            Operand::new(numbers(outputs, 3), &[outputs]),
        ];
        let cotangent = numbers(formula::out_voxels(&case) * outputs, 9);
        for rectify in [false, true] {
            let mut outputs = Vec::new();
            let mut keep = |out| keep_values(&mut outputs, out);
            let fast = gradients::<5>(&operands, &cotangent, |operands| {
                let [x, weight, bias] = unpack(operands);
                keep(<Differentiated as crate::KernelOps>::dense_conv_3d(
                    x,
                    weight,
                    bias,
                    case.stride,
                    before,
                    rectify,
                ))
            });
            let definition = gradients::<5>(&operands, &cotangent, |operands| {
                let [x, weight, bias] = unpack(operands);
                keep(dense_conv::reference::forward::<Differentiated>(
                    x,
                    weight,
                    bias,
                    case.stride,
                    before,
                    rectify,
                ))
            });
            let what = format!("{case:?}, rectified: {rectify}");
            compare(&what, &["x", "weight", "bias"], &fast, &definition);
            assert!(error(&outputs[0], &outputs[1]) < 1e-5, "{what}");
        }
    }
}

#[test]
fn a_batch_norm_has_the_gradient_of_its_definition() {
    for (rows, channels) in [(9, 2), (300, 37), (1500, 16)] {
        let operands = [
            Operand::new(numbers(rows * channels, 1), &[rows, channels]),
            Operand::new(numbers(channels, 2), &[channels]),
            Operand::new(numbers(channels, 3), &[channels]),
        ];
        let cotangent = numbers(rows * channels, 9);
        for rectify in [false, true] {
            let fast = gradients::<2>(&operands, &cotangent, |operands| {
                let [x, gamma, beta] = unpack(operands);
                let (out, ..) = <Differentiated as crate::KernelOps>::batch_norm_rows(
                    x, gamma, beta, 1e-5, rectify,
                );
                out
            });
            let definition = gradients::<2>(&operands, &cotangent, |operands| {
                let [x, gamma, beta] = unpack(operands);
                let (out, ..) =
                    batch_norm::reference::forward::<Differentiated>(x, gamma, beta, 1e-5, rectify);
                out
            });
            let what = format!("{rows}x{channels}, rectified: {rectify}");
            compare(&what, &["x", "gamma", "beta"], &fast, &definition);
        }
    }
}

/// The framework's derivative of the definition is itself judged by differences of the formula, in double precision.
#[test]
fn the_definition_has_the_gradient_of_the_formula() {
    let case = Case::new(1, [3, 4, 5], [2, 3], 3, 2);
    let operands = dense_operands(&case);
    let cotangent = numbers(formula::out_voxels(&case) * case.channels_out, 9);
    let found = gradients::<5>(&operands, &cotangent, |operands| {
        let [x, weight, gamma, beta] = unpack(operands);
        dense_decomposed::reference::norm::<Differentiated>(
            x,
            weight,
            gamma,
            beta,
            case.stride,
            1e-5,
        )
        .0
    });
    let loss = |operands: &[Operand; 4]| -> f64 {
        let branches = formula::dense_branches(&case, &operands[0].values, &operands[1].values);
        let y = formula::normalise(&branches, &operands[2].values, &operands[3].values, 1e-5);
        y.iter()
            .zip(&cotangent)
            .map(|(y, g)| f64::from(*y) * f64::from(*g))
            .sum()
    };
    /// The outputs are rounded to single precision, so a small step drowns in it and a large one bends: 1e-2 gives 1e-3.
    const STEP: f32 = 1e-2;
    for operand in 0..4 {
        for index in (0..operands[operand].values.len()).step_by(3) {
            let at = |step: f32| {
                let mut moved = operands.clone();
                moved[operand].values[index] += step;
                loss(&moved)
            };
            let expected = (at(STEP) - at(-STEP)) / f64::from(2.0 * STEP);
            let found = f64::from(found[operand][index]);
            let scale = 1.0 + expected.abs();
            assert!(
                (found - expected).abs() < 5e-3 * scale,
                "operand {operand}[{index}]: {found}, not {expected}"
            );
        }
    }
}
