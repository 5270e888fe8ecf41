//! The number of threads and the company in a batch do not change a bit.

use burn::tensor::Device;

use super::*;
use crate::attention::cpu::Attention;
use crate::dense_conv::cpu::Conv;
use crate::dense_decomposed::cpu::Filters;
use crate::dense_decomposed::training::{input_gradient, norm, norm_backward};
use crate::geometry::Geometry;
use crate::simd::Level;
use crate::{batch_norm, depthwise_decomposed, matmul};

fn on_threads<T: Send>(threads: usize, work: impl Fn() -> T + Send + Sync) -> T {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .expect("a thread pool");
    pool.install(work)
}

/// Fails if a number of threads changes a bit of what the work gives.
pub(super) fn assert_same_on_threads<T: PartialEq + Send>(work: impl Fn() -> T + Send + Sync) {
    let one = on_threads(1, &work);
    for threads in [2, 3, 5] {
        assert!(
            on_threads(threads, &work) == one,
            "{threads} threads differ from one"
        );
    }
}

#[test]
fn the_number_of_threads_does_not_change_a_bit() {
    let case = Case::new(2, [9, 10, 27], [16, 32], 3, 1);
    let geometry = Geometry::of(&case.input_shape());
    let x = numbers(case.input_len(), 1);
    let weight = numbers(3 * 3 * 16 * 32, 2);
    let (gamma, beta) = (numbers(96, 3), numbers(96, 4));
    let gradient = numbers(case.input_len() * 2, 5);
    let filters = Filters {
        weight: &weight,
        taps: 3,
        channels_in: 16,
        channels_out: 32,
    };
    let step = || {
        let level = Level::current();
        let (y, statistics) = norm(level, &x, filters, [&gamma, &beta], 1e-5, geometry, 1);
        let out = norm_backward(
            level,
            &x,
            filters,
            &gamma,
            &statistics,
            1e-5,
            &gradient,
            geometry,
            1,
        );
        let of_x = input_gradient(level, &out.branches, filters, geometry, 1);
        (y, of_x, out.weight, out.gamma, out.beta)
    };
    assert_same_on_threads(step);
    let filters = depthwise_decomposed::cpu::Filters {
        weight: &weight[..3 * 3 * 16],
        taps: 3,
    };
    let gamma = &gamma[..48];
    let step = || {
        let level = Level::current();
        let statistics = depthwise_decomposed::cpu::statistics(level, &x, filters, geometry);
        let gradient = &gradient[..x.len()];
        let out = depthwise_decomposed::cpu::norm_backward(
            level,
            &x,
            filters,
            gamma,
            &statistics,
            1e-5,
            gradient,
            geometry,
        );
        (out.x, out.weight, out.gamma, out.beta)
    };
    assert_same_on_threads(step);
}

#[test]
fn products_over_many_rows_do_not_depend_on_threads() {
    let (a, b) = (numbers(10_000 * 5, 1), numbers(10_000 * 7, 2));
    let product = || matmul::matmul_over_rows(Level::current(), &a, &b, [10_000, 5, 7]);
    assert_same_on_threads(product);
}

#[test]
fn dense_convolutions_and_batch_norms_do_not_depend_on_threads() {
    let case = Case::new(2, [9, 10, 27], [16, 40], 3, 2);
    let x = numbers(case.input_len(), 1);
    let weight = numbers(27 * 16 * 40, 2);
    let conv = Conv {
        weight: &weight,
        taps: [3; 3],
        channels_out: 40,
        stride: 2,
        before: [1; 3],
        geometry: Geometry::of(&case.input_shape()),
    };
    let (gamma, beta) = (numbers(40, 3), numbers(40, 4));
    let step = || {
        let level = Level::current();
        let y = conv.forward(level, &x, &beta, false);
        let affine = [&*gamma, &*beta];
        let (z, statistics) = batch_norm::cpu::forward(level, &y, affine, 1e-5, true);
        let out = batch_norm::cpu::backward(level, &y, affine, &statistics, 1e-5, true, &z);
        let of_weight = conv.weight_gradient(level, &x, &out.x);
        (z, conv.input_gradient(level, &out.x), of_weight, out.gamma)
    };
    assert_same_on_threads(step);
}

#[test]
fn gradients_of_biased_attention_do_not_depend_on_threads() {
    let [q, k, v, g] = [1, 2, 3, 4].map(|seed| numbers(3 * 61 * 64, seed));
    let bias = numbers(2 * 61 * 61, 5);
    let step = || {
        let attention = Attention {
            q: &q,
            k: &k,
            v: &v,
            bias: Some(&bias),
            lengths: &[61; 3],
            heads: 2,
            channels: 64,
        };
        let out = attention.backward(Level::current(), &g);
        (out.q, out.k, out.v, out.bias)
    };
    assert_same_on_threads(step);
}

#[test]
fn a_volume_gives_the_same_alone_and_in_a_batch() {
    let device = Device::flex();
    let one = Case::new(1, [5, 6, 13], [8, 16], 3, 1);
    let x = numbers(2 * one.input_len(), 1);
    let weight = tensor(&numbers(3 * 3 * 8 * 16, 2), [3, 3, 8, 16], &device);
    let bias = tensor(&numbers(16, 3), [16], &device);
    let both = crate::dense_decomposed_conv(
        tensor(&x, [2, 5, 6, 13, 8], &device),
        weight.clone(),
        bias.clone(),
        1,
    );
    let second = tensor(&x[one.input_len()..], one.input_shape(), &device);
    let alone = crate::dense_decomposed_conv(second, weight, bias, 1);
    let both = values(both);
    assert!(both[both.len() / 2..] == values(alone));
}
