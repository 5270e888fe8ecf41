use std::sync::{Barrier, Mutex};

use burn::tensor::{Device, Tensor, TensorData};

use super::*;
use crate::{batch_norm, dense_decomposed_norm, depthwise_decomposed_norm};

/// Another order of the same sums, in parts of the largest value.
const TOLERANCE: f32 = 1e-5;

const EPSILON: f64 = 1e-5;

/// Two threads. Sums of two numbers do not depend on which comes first.
struct Pair {
    sums: Mutex<Vec<f64>>,
    both: Barrier,
}

impl SumOverWorkers for Pair {
    fn workers(&self) -> usize {
        2
    }

    fn sum(&self, values: &mut [f64]) {
        let mut sums = self.sums.lock().unwrap();
        sums.resize(values.len(), 0.0);
        for (sum, value) in sums.iter_mut().zip(&*values) {
            *sum += value;
        }
        drop(sums);
        self.both.wait();
        values.copy_from_slice(&self.sums.lock().unwrap());
        if self.both.wait().is_leader() {
            self.sums.lock().unwrap().clear();
        }
        self.both.wait();
    }
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_to_vec().unwrap()
}

/// Output, mean, variance, and gradients of the four operands, if they have one, of a norm of some of the volumes; the
/// operands are input, filters, scales and shifts.
fn of_volumes(
    volumes: std::ops::Range<usize>,
    norm: impl Fn([Tensor<5>; 4]) -> (Tensor<5>, Vec<f32>, Vec<f32>),
    sizes: [[usize; 5]; 4],
) -> Vec<Vec<f32>> {
    let device = Device::flex().autodiff();
    let wave = |sizes: [usize; 5], phase: f32| -> Tensor<5> {
        let count = sizes.iter().product();
        let values = (0..count).map(|index: usize| (index as f32 * 0.7 + phase).sin() + 0.3);
        Tensor::from_data(TensorData::new(values.collect::<Vec<_>>(), sizes), &device)
    };
    let [x, weight, gamma, beta] = sizes;
    let operands = [
        wave(x, 0.1).slice(volumes.clone()),
        wave(weight, 0.2),
        wave(gamma, 0.3),
        wave(beta, 0.4),
    ]
    .map(|operand| operand.detach().require_grad());
    let (output, mean, variance) = norm(operands.clone());
    let [_, d, h, w, c] = output.dims();
    let towards = wave([x[0], d, h, w, c], 0.9).slice(volumes);
    let gradients = (output.clone() * towards).sum().backward();
    let mut all = vec![values(output.detach()), mean, variance];
    all.extend(operands.iter().map(|operand| {
        let gradient = operand.grad(&gradients);
        gradient.map_or_else(Vec::new, values)
    }));
    all
}

#[track_caller]
fn assert_shared(
    norm: impl Fn([Tensor<5>; 4]) -> (Tensor<5>, Vec<f32>, Vec<f32>) + Sync,
    sizes: [[usize; 5]; 4],
) {
    let whole = of_volumes(0..4, &norm, sizes);
    let pair = Arc::new(Pair {
        sums: Mutex::default(),
        both: Barrier::new(2),
    });
    let halves = std::thread::scope(|scope| {
        let threads = [0..2, 2..4].map(|volumes| {
            let (pair, norm) = (Arc::clone(&pair), &norm);
            scope.spawn(move || synchronized(pair, || of_volumes(volumes, norm, sizes)))
        });
        threads.map(|thread| thread.join().unwrap())
    });
    let [first, second] = halves;
    for (index, whole) in whole.iter().enumerate() {
        let (first, second) = (&first[index], &second[index]);
        let both: Vec<f32> = match index {
            // Output and gradient of the input: of the one, then of the other.
            0 | 3 => [&first[..], second].concat(),
            // Statistics: each has those of both.
            1 | 2 => {
                assert_eq!(first, second);
                first.clone()
            }
            // Gradients of the rest: shares.
            _ => first.iter().zip(second).map(|(a, b)| a + b).collect(),
        };
        assert_eq!(both.len(), whole.len());
        let largest = whole
            .iter()
            .fold(1e-3f32, |most, value| value.abs().max(most));
        for (both, whole) in both.iter().zip(whole) {
            let far = (both - whole).abs();
            assert!(far < TOLERANCE * largest, "{index}: {both}, not {whole}");
        }
    }
}

#[test]
fn dense_norms_of_two_workers_are_the_norm_of_all_volumes() {
    for stride in [1, 2] {
        let norm = |[x, weight, gamma, beta]: [Tensor<5>; 4]| {
            let weight = weight.reshape([3, 3, 2, 5]);
            let [gamma, beta] = [gamma, beta].map(|table| table.reshape([3, 5]));
            let out = dense_decomposed_norm(x, weight, gamma, beta, stride, EPSILON);
            (out.output, values(out.mean), values(out.variance))
        };
        let table = [1, 1, 1, 3, 5];
        assert_shared(norm, [[4, 3, 6, 5, 2], [1, 3, 3, 2, 5], table, table]);
    }
}

#[test]
fn depthwise_norms_of_two_workers_are_the_norm_of_all_volumes() {
    let norm = |[x, weight, gamma, beta]: [Tensor<5>; 4]| {
        let weight = weight.reshape([3, 5, 6]);
        let [gamma, beta] = [gamma, beta].map(|table| table.reshape([3, 6]));
        let out = depthwise_decomposed_norm(x, weight, gamma, beta, EPSILON);
        (out.output, values(out.mean), values(out.variance))
    };
    let table = [1, 1, 1, 3, 6];
    assert_shared(norm, [[4, 3, 6, 5, 6], [1, 1, 3, 5, 6], table, table]);
}

#[test]
fn plain_norms_of_two_workers_are_the_norm_of_all_volumes() {
    for rectify in [false, true] {
        let norm = |[x, _, gamma, beta]: [Tensor<5>; 4]| {
            let sizes = x.dims();
            let rows = x.reshape([sizes[..4].iter().product::<usize>(), sizes[4]]);
            let [gamma, beta] = [gamma, beta].map(|table| table.reshape([6]));
            let out = batch_norm(rows, gamma, beta, EPSILON, rectify);
            let output = out.output.reshape(sizes);
            (output, values(out.mean), values(out.variance))
        };
        let table = [1, 1, 1, 1, 6];
        assert_shared(norm, [[4, 3, 6, 5, 6], [1; 5], table, table]);
    }
}

#[test]
fn norms_are_shared_within_the_call_only() {
    let pair = || -> Arc<Pair> {
        Arc::new(Pair {
            sums: Mutex::default(),
            both: Barrier::new(2),
        })
    };
    assert_eq!(batch_workers(), 1);
    let panicked = std::panic::catch_unwind(|| {
        synchronized(pair(), || {
            assert_eq!(batch_workers(), 2);
            panic!("in the middle");
        })
    });
    assert!(panicked.is_err());
    assert_eq!(batch_workers(), 1);
}
