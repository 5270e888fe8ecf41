//! The quantizer against its rules in plain loops.

use burn::module::Module;
use burn::tensor::{Device, Distribution, Tensor, TensorData};

use super::{COUNT_EPSILON, DECAY, VectorQuantizer, VectorQuantizerConfig};
use crate::models::Buffer;

/// Three codes of two channels.
fn quantizer(device: &Device) -> VectorQuantizer {
    let embed = || {
        Tensor::from_data(
            TensorData::from([[[1.0, 0.0], [0.0, 1.0], [-0.6, 0.8f32]]]),
            device,
        )
    };
    let mut quantizer = VectorQuantizerConfig {
        codes: 3,
        channels: 2,
    }
    .init(device);
    quantizer.embed = Buffer::new(embed());
    quantizer.embed_average = Buffer::new(embed() * 2.0);
    quantizer.cluster_size = Buffer::new(Tensor::from_data(
        TensorData::from([[2.0, 1.0, 3.0f32]]),
        device,
    ));
    quantizer
}

/// Four tokens: two for the first code, one for each other.
fn tokens(device: &Device) -> Tensor<5> {
    let values = vec![3.0, 0.3, 0.1, 0.5, 0.2, -0.1, -5.0, 6.0f32];
    Tensor::from_data(TensorData::new(values, [1, 2, 1, 2, 2]), device)
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_to_vec().unwrap()
}

#[test]
fn every_token_becomes_the_code_it_points_at() {
    let device = Device::flex();
    let quantized = quantizer(&device).forward(tokens(&device));
    assert_eq!(values(quantized), [1.0, 0.0, 0.0, 1.0, 1.0, 0.0, -0.6, 0.8]);
}

#[test]
fn the_length_of_a_token_does_not_matter() {
    let device = Device::flex();
    let quantizer = VectorQuantizerConfig {
        codes: 7,
        channels: 5,
    }
    .init(&device);
    // More tokens than are compared at once.
    let x = Tensor::random([3, 10, 10, 10, 5], Distribution::Normal(0.0, 1.0), &device);
    let plain = values(quantizer.forward(x.clone()));
    assert_eq!(plain.len(), 15_000);
    assert_eq!(values(quantizer.forward(x * 8.0)), plain);
}

#[test]
fn training_moves_codes_by_the_moving_averages_and_passes_the_gradient_on() {
    let device = Device::flex().autodiff();
    let quantizer = quantizer(&device);
    let x = tokens(&device).require_grad();
    let weights = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0f32];
    let weighted =
        Tensor::<1>::from_data(TensorData::from(weights), &device).reshape([1, 2, 1, 2, 2]);
    let output = quantizer.forward(x.clone());
    let far = |a: &[f32], b: &[f64]| {
        a.iter()
            .zip(b)
            .all(|(&a, &b)| (f64::from(a) - b).abs() < 1e-5)
            && a.len() == b.len()
    };
    assert!(far(
        &values(output.clone()),
        &[1.0, 0.0, 0.0, 1.0, 1.0, 0.0, -0.6, 0.8]
    ));
    let gradients = (output * weighted).sum().backward();
    assert_eq!(values(x.grad(&gradients).unwrap()), weights);

    let unit = |x: f64, y: f64| (x / x.hypot(y), y / x.hypot(y));
    let (a, c) = (unit(3.0, 0.3), unit(0.2, -0.1));
    let sums = [(a.0 + c.0, a.1 + c.1), unit(0.1, 0.5), unit(-5.0, 6.0)];
    let (counts, old_sizes) = ([2.0, 1.0, 1.0], [2.0, 1.0, 3.0]);
    let old = [(2.0, 0.0), (0.0, 2.0), (-1.2, 1.6)];
    let sizes: Vec<f64> = (0..3)
        .map(|at| DECAY * old_sizes[at] + (1.0 - DECAY) * counts[at])
        .collect();
    let total: f64 = sizes.iter().sum();
    let mut expected = Vec::new();
    for at in 0..3 {
        let smoothed = (sizes[at] + COUNT_EPSILON) / (total + 3.0 * COUNT_EPSILON) * total;
        let average = |old: f64, seen: f64| (DECAY * old + (1.0 - DECAY) * seen) / smoothed;
        let code = unit(
            average(old[at].0, sums[at].0),
            average(old[at].1, sums[at].1),
        );
        expected.extend([code.0, code.1]);
    }
    assert!(far(&values(quantizer.embed.value()), &expected));
    assert!(far(&values(quantizer.cluster_size.value()), &sizes));
}

#[test]
fn a_frozen_quantizer_keeps_its_codes_and_still_passes_the_gradient_on() {
    let device = Device::flex().autodiff();
    let quantizer = quantizer(&device).freeze();
    let before = values(quantizer.embed.value());
    let x = tokens(&device).require_grad();
    let gradients = quantizer.forward(x.clone()).sum().backward();
    assert_eq!(values(quantizer.embed.value()), before);
    assert_eq!(values(x.grad(&gradients).unwrap()), [1.0; 8]);
}
