//! Sizes and shapes; values are in `tests/it/golden.rs`.

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Distribution, Tensor};

use super::{DcformerEncoder, DcformerEncoderConfig, StemActivation};
use crate::complexity::PAPER_VOLUME;
use crate::models::{Encoder, EncoderConfig, ImageEncoderConfig, Statistics};

/// A network of a few channels, so that tests take no time.
fn small_config() -> DcformerEncoderConfig {
    DcformerEncoderConfig {
        kernels: [5, 3, 3, 3],
        ..DcformerEncoderConfig::new([4, 4, 8, 8, 12], [1, 2, 1, 1])
    }
}

fn volume(shape: [usize; 5], device: &Device) -> Tensor<5> {
    Tensor::random(shape, Distribution::Normal(0.0, 1.0), device)
}

fn values(tensor: Tensor<5>) -> Vec<f32> {
    tensor.into_data().try_to_vec().unwrap()
}

/// Parameters that are learnt: buffers ask for no gradient.
fn learnt_parameters(encoder: &DcformerEncoder) -> u64 {
    #[derive(Default)]
    struct Counter(u64);
    impl ModuleVisitor for Counter {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if param.val().is_require_grad() {
                self.0 += param.lazy_shape().num_elements() as u64;
            }
        }
    }
    let mut counter = Counter::default();
    encoder.visit(&mut counter);
    counter.0
}

#[test]
fn presets_have_the_parameters_of_the_table() {
    let table = [
        ("nano", 789_216),
        ("naive", 5_851_680),
        ("tiny", 14_657_472),
        ("small", 18_244_800),
    ];
    for (variant, expected) in table {
        let config = DcformerEncoderConfig::variant(variant).unwrap();
        let encoder = config.init(&Device::flex().autodiff());
        assert_eq!(learnt_parameters(&encoder), expected, "{variant}");
    }
}

#[test]
fn the_count_of_the_formula_is_the_count_of_the_network() {
    for config in [
        small_config(),
        DcformerEncoderConfig::new([2, 6, 4, 10, 6], [3, 1, 2, 4]),
    ] {
        let encoder = config.init(&Device::flex().autodiff());
        let counted = config.cost(PAPER_VOLUME).total().params;
        assert_eq!(learnt_parameters(&encoder), counted, "{config:?}");
    }
    // The follow-up's sizes, whose parameters no table states: counted without building them.
    for (variant, expected) in [("base", 33_868_864), ("large", 185_125_440)] {
        let config = DcformerEncoderConfig::variant(variant).unwrap();
        assert_eq!(config.cost(PAPER_VOLUME).total().params, expected);
    }
}

#[test]
fn an_unknown_variant_is_answered_with_the_known_ones() {
    let message = DcformerEncoderConfig::variant("huge")
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("huge") && message.contains("nano, naive"),
        "{message}"
    );
}

#[test]
fn sizes_are_rounded_up_at_every_stride() {
    let device = Device::flex();
    let encoder = small_config().init(&device);
    let stages = encoder.forward_stages(volume([2, 1, 5, 33, 65], &device), Statistics::ByDevice);
    let shapes: Vec<_> = stages.iter().map(|stage| stage.dims()).collect();
    let expected = [
        [2, 2, 9, 17, 4],
        [2, 1, 5, 9, 4],
        [2, 1, 3, 5, 8],
        [2, 1, 2, 3, 8],
        [2, 1, 1, 2, 12],
    ];
    assert_eq!(shapes, expected);
    let one = encoder.forward(volume([1, 1, 1, 1, 1], &device), Statistics::ByDevice);
    assert_eq!(one.dims(), [1, 1, 1, 1, 12]);
}

#[test]
fn a_volume_alone_gives_what_it_gives_in_a_batch() {
    let device = Device::flex();
    let encoder = small_config().init(&device);
    let both = volume([2, 1, 16, 16, 32], &device);
    let batch = encoder.forward(both.clone(), Statistics::ByDevice);
    for index in 0..2 {
        let alone = encoder.forward(both.clone().narrow(0, index, 1), Statistics::ByDevice);
        let expected = batch.clone().narrow(0, index, 1);
        // Sums of one length in one order; only vector tails may be taken differently.
        let far = (alone - expected).abs().max().into_scalar::<f32>();
        assert!(far < 1e-5, "{far}");
    }
}

#[test]
fn shifting_the_volume_by_the_whole_stride_shifts_the_features() {
    // The inside of a large volume is reached by no border: kernels reach 5 voxels of a grid, the last grid has strides
    // of 64, and one shift of 64 is one position.
    let device = Device::flex();
    let mut config = small_config();
    config.kernels = [1; 4];
    let encoder = config.init(&device);
    let wide = volume([1, 1, 4, 4, 64 * 7], &device);
    let zeros = || Tensor::zeros([1, 1, 4, 4, 64], &device);
    let shifted = Tensor::cat(vec![zeros(), wide.clone().narrow(4, 0, 64 * 6)], 4);
    let (plain, shifted) = (
        encoder.forward(wide, Statistics::ByDevice),
        encoder.forward(shifted, Statistics::ByDevice),
    );
    let far = (plain.narrow(3, 2, 3) - shifted.narrow(3, 3, 3))
        .abs()
        .max();
    assert!(far.into_scalar::<f32>() < 1e-5);
}

#[test]
fn batch_statistics_move_the_running_ones_only_in_training() {
    let device = Device::flex().autodiff();
    let encoder = small_config().init(&device);
    let x = volume([2, 1, 32, 32, 32], &device);
    let running =
        |encoder: &DcformerEncoder| values(encoder.forward(x.clone(), Statistics::Running));

    let before = running(&encoder);
    let trained = values(encoder.forward(x.clone(), Statistics::Batch));
    assert_eq!(running(&encoder), before, "a pass that does not count");
    assert_eq!(
        values(
            encoder
                .clone()
                .freeze()
                .forward(x.clone(), Statistics::ByDevice)
        ),
        before
    );
    assert_eq!(running(&encoder), before, "a frozen encoder");

    let copy = encoder.clone();
    assert_eq!(
        values(encoder.forward(x.clone(), Statistics::ByDevice)),
        trained
    );
    assert_ne!(running(&encoder), before, "a training pass");
    assert_eq!(running(&copy), before, "a copy goes its own way");
}

#[test]
fn what_is_folded_is_folded_again_when_weights_change() {
    let device = Device::flex();
    let encoder = small_config().init(&device);
    let x = volume([1, 1, 16, 16, 16], &device);
    let first = values(encoder.forward(x.clone(), Statistics::ByDevice));

    /// Doubles every parameter.
    struct Double;
    impl burn::module::ModuleMapper for Double {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            param.map(|value| value * 2.0)
        }
    }
    let doubled = encoder.clone().map(&mut Double);
    let second = values(doubled.forward(x.clone(), Statistics::ByDevice));
    assert_ne!(first, second);
    // A record knows nothing of what was folded: what it gives is what the new weights give.
    let fresh = small_config()
        .init(&device)
        .load_record(doubled.into_record());
    assert_eq!(
        values(fresh.forward(x.clone(), Statistics::ByDevice)),
        second
    );
    assert_eq!(values(encoder.forward(x, Statistics::ByDevice)), first);
}

#[test]
fn the_stem_has_an_activation_only_if_asked() {
    let device = Device::flex();
    let config = small_config();
    let plain = config.init(&device);
    let mut with = config.clone();
    with.stem_activation = StemActivation::Gelu;
    let with = with.init(&device).load_record(plain.clone().into_record());
    let x = volume([1, 1, 8, 8, 8], &device);
    let stem = |encoder: &DcformerEncoder| {
        values(
            encoder
                .forward_stages(x.clone(), Statistics::ByDevice)
                .swap_remove(0),
        )
    };
    // GELU is never below -0.17; sums of random values are.
    assert!(stem(&plain).iter().any(|value| *value < -0.17));
    assert!(stem(&with).iter().all(|value| *value > -0.171));
}

#[test]
fn configurations_of_before_there_was_attention_are_read() {
    let json = r#"{"network": "dcformer", "channels": [32, 32, 64, 128, 256], "blocks": [1, 1, 1, 1],
        "kernels": [13, 11, 9, 7], "stem_activation": "none", "layer_scale": 1e-6}"#;
    let config: ImageEncoderConfig = serde_json::from_str(json).unwrap();
    assert_eq!(
        config,
        ImageEncoderConfig::Dcformer(DcformerEncoderConfig::nano())
    );
}
