//! Losses against their formulas in plain loops; the golden loss is in `tests/it/golden.rs`.

use burn::tensor::{Device, Tensor, TensorData};

use super::{LogitScale, MAX_SCALE, Temperature};

const IMAGE: [[f32; 3]; 2] = [[0.6, 0.8, 0.0], [0.0, -0.6, 0.8]];
const TEXT: [[f32; 3]; 2] = [[1.0, 0.0, 0.0], [0.28, 0.0, 0.96]];

fn tensor(rows: [[f32; 3]; 2], device: &Device) -> Tensor<2> {
    Tensor::from_data(TensorData::from(rows), device)
}

fn similarity(i: usize, j: usize) -> f64 {
    (0..3)
        .map(|at| f64::from(IMAGE[i][at]) * f64::from(TEXT[j][at]))
        .sum()
}

fn loss(scale: &LogitScale, device: &Device) -> f32 {
    scale
        .loss(tensor(IMAGE, device), tensor(TEXT, device))
        .into_scalar()
}

#[test]
fn the_softmax_loss_is_its_formula() {
    let device = Device::flex();
    for factor in [1.0, std::f64::consts::E, 40.0] {
        let exp = |i, j| (factor * similarity(i, j)).exp();
        let expected: f64 = (0..2)
            .map(|own| {
                let row = exp(own, 0) + exp(own, 1);
                let column = exp(0, own) + exp(1, own);
                -((exp(own, own) / row).ln() + (exp(own, own) / column).ln()) / 4.0
            })
            .sum();
        let found = loss(&Temperature::Fixed { scale: factor }.init(&device), &device);
        assert!(
            (f64::from(found) - expected).abs() < 1e-5,
            "{factor}: {found} {expected}"
        );
    }
}

#[test]
fn the_sigmoid_loss_is_its_formula() {
    let device = Device::flex();
    let temperature = Temperature::Sigmoid {
        initial_log_scale: 1.5,
        initial_bias: -0.5,
    };
    let mut expected = 0.0;
    for i in 0..2 {
        for j in 0..2 {
            let sign = if i == j { 1.0 } else { -1.0 };
            let logit = sign * (1.5f64.exp() * similarity(i, j) - 0.5);
            expected += (1.0 + (-logit).exp()).ln() / 2.0;
        }
    }
    let found = loss(&temperature.init(&device), &device);
    assert!(
        (f64::from(found) - expected).abs() < 1e-5,
        "{found} {expected}"
    );
}

#[test]
fn a_learnt_scale_stops_at_its_bound() {
    let device = Device::flex();
    let scale = |initial_log_scale| {
        let temperature = Temperature::Learnable { initial_log_scale };
        temperature
            .init(&device)
            .scale(&device)
            .into_scalar::<f32>()
    };
    assert!((scale(2.0) - 2f32.exp()).abs() < 1e-5);
    assert_eq!(scale(50.0), MAX_SCALE as f32);
    // SigLIP has no bound.
    let sigmoid = Temperature::Sigmoid {
        initial_log_scale: 5.0,
        initial_bias: 0.0,
    };
    let found = sigmoid.init(&device).scale(&device).into_scalar::<f32>();
    assert!((found - 5f32.exp()).abs() < 1e-4, "{found}");
}

#[test]
fn logits_are_similarities_scaled_and_shifted() {
    let device = Device::flex();
    for (temperature, scale, bias) in [
        (Temperature::Fixed { scale: 3.0 }, 3.0, 0.0),
        (
            Temperature::Sigmoid {
                initial_log_scale: 1.2,
                initial_bias: -0.7,
            },
            1.2f64.exp(),
            -0.7,
        ),
    ] {
        let module = temperature.init(&device);
        let logits = module.logits(tensor(IMAGE, &device), tensor(TEXT, &device));
        let found: Vec<f32> = logits.into_data().try_to_vec().unwrap();
        for i in 0..2 {
            for j in 0..2 {
                let expected = scale * similarity(i, j) + bias;
                assert!((f64::from(found[2 * i + j]) - expected).abs() < 1e-6);
            }
        }
    }
}

#[test]
fn learnt_temperatures_have_the_gradient_of_finite_differences() {
    let device = Device::flex().autodiff();
    let (log_scale, bias) = (1.2, -0.7);
    let at = |initial_log_scale, initial_bias| {
        Temperature::Sigmoid {
            initial_log_scale,
            initial_bias,
        }
        .init(&device)
    };
    let module = at(log_scale, bias);
    let gradients = module
        .loss(tensor(IMAGE, &device), tensor(TEXT, &device))
        .backward();
    let gradient = |param: &Option<burn::module::Param<Tensor<1>>>| {
        let value = param.as_ref().unwrap().val();
        value.grad(&gradients).unwrap().into_scalar::<f32>()
    };
    // Central differences of a smooth function at 1e-2: their error is below 1e-4, float32's below 1e-4.
    let step = 1e-2;
    let slope = |up: LogitScale, down: LogitScale| {
        (loss(&up, &device) - loss(&down, &device)) / (2.0 * step as f32)
    };
    let expected = slope(at(log_scale + step, bias), at(log_scale - step, bias));
    assert!((gradient(&module.log_scale) - expected).abs() < 5e-4);
    let expected = slope(at(log_scale, bias + step), at(log_scale, bias - step));
    assert!((gradient(&module.bias) - expected).abs() < 5e-4);
}

#[test]
fn probabilities_are_the_softmax_over_the_two_prompts() {
    let device = Device::flex();
    let scale = Temperature::Fixed { scale: 3.0 }.init(&device);
    let (image, present) = (tensor(IMAGE, &device), tensor(TEXT, &device));
    let absent = tensor([[0.0, 1.0, 0.0], [0.0, 0.6, -0.8]], &device);
    let found: Vec<f32> = scale
        .probabilities(image, present, absent)
        .into_data()
        .try_to_vec()
        .unwrap();
    let absent = [[0.8, 0.48], [-0.6, -1.0]];
    for i in 0..2 {
        for j in 0..2 {
            let (yes, no) = (
                (3.0 * similarity(i, j)).exp(),
                (3.0f64 * absent[i][j]).exp(),
            );
            assert!((f64::from(found[2 * i + j]) - yes / (yes + no)).abs() < 1e-6);
        }
    }
}

#[test]
fn the_loss_of_several_texts_is_the_mean_of_their_losses() {
    let device = Device::flex();
    let second = [TEXT[1], [0.0, 0.6, 0.8]];
    for temperature in [Temperature::CLIP, Temperature::SIGLIP] {
        let scale = temperature.init(&device);
        let loss =
            |text: Tensor<2>| -> f32 { scale.loss(tensor(IMAGE, &device), text).into_scalar() };
        let (one, other) = (tensor(TEXT, &device), tensor(second, &device));
        let both = loss(Tensor::cat(vec![one.clone(), other.clone()], 0));
        let mean = (loss(one) + loss(other)) / 2.0;
        assert!((both - mean).abs() < 1e-5 * mean, "{both} {mean}");
    }
}
