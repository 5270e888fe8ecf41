//! What holds for every network.

use std::collections::BTreeMap;

use burn::module::{ModuleVisitor, Param};
use burn::tensor::Distribution;

use super::*;
use crate::complexity::PAPER_VOLUME;

/// Learnt parameters by the layer they belong to: the longest name that their path begins with.
struct ByLayer {
    path: Vec<String>,
    layers: BTreeMap<String, u64>,
}

impl ModuleVisitor for ByLayer {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        // Weights are drawn at first use, and here never: what is there already is a buffer, unless it asks for gradients.
        if param.is_initialized() && !param.val().is_require_grad() {
            return;
        }
        // The first part is the name of the network.
        let layer = (1..=self.path.len())
            .rev()
            .map(|end| self.path[1..end].join("."))
            .find(|name| self.layers.contains_key(name));
        let count = param.lazy_shape().num_elements() as u64;
        match layer {
            Some(layer) => *self.layers.get_mut(&layer).unwrap() += count,
            None => panic!("{} is in no layer of the description", self.path.join(".")),
        }
    }
}

/// The size of a volume that the network takes, whatever its strides.
fn volume_of(config: &ImageEncoderConfig) -> Shape3 {
    let patches = [16, 32, 40, 48, 64].map(|size| Shape3 {
        depth: size / 2 * 2,
        height: 2 * size,
        width: size,
    });
    let volumes = patches.into_iter().chain([PAPER_VOLUME, CT_CLIP_VOLUME]);
    let mut volumes = volumes.filter(|volume| config.grid(*volume).is_ok());
    volumes.next().expect("a volume that it takes")
}

const CT_CLIP_VOLUME: Shape3 = Shape3 {
    depth: 240,
    height: 480,
    width: 480,
};

#[test]
fn every_layer_has_the_parameters_of_its_description() {
    for Preset {
        network,
        variant,
        config,
    } in presets()
    {
        let mut cost = Cost::default();
        cost.append(config.cost(volume_of(&config)));
        let mut found = ByLayer {
            path: Vec::new(),
            layers: BTreeMap::new(),
        };
        let mut expected = BTreeMap::new();
        for layer in cost.layers() {
            found.layers.insert(layer.name.clone(), 0);
            let previous = expected.insert(layer.name.clone(), layer.amount.params);
            assert_eq!(previous, None, "{network}: two layers are {}", layer.name);
        }
        config.init(&Device::flex().autodiff()).visit(&mut found);
        assert_eq!(found.layers, expected, "{network} {variant}");
    }
}

#[test]
fn every_network_has_one_name() {
    let mut seen = std::collections::BTreeSet::new();
    for row in presets() {
        assert!(
            seen.insert((row.network, row.variant)),
            "{} {}",
            row.network,
            row.variant
        );
        assert_eq!(row.config.network(), row.network);
        assert_eq!(row.config.variant_name(), Some(row.variant));
        let json = serde_json::to_value(&row.config).unwrap();
        assert_eq!(json["network"], row.network, "the name in `config.json`");
        assert_eq!(
            serde_json::from_value::<ImageEncoderConfig>(json).unwrap(),
            row.config
        );
        row.config.check().unwrap();
    }
}

/// Each network with a few channels, so that tests take no time.
fn small_configs() -> Vec<ImageEncoderConfig> {
    let small = [
        (
            "dcformer",
            r#"{"channels": [4, 4, 8, 8, 16], "blocks": [1, 2, 1, 1], "kernels": [5, 3, 3, 3]}"#,
        ),
        (
            "dcformer",
            r#"{"channels": [4, 4, 8, 8, 16], "blocks": [1, 2, 1, 1], "kernels": [5, 3, 3, 3],
                "mixers": ["convolution", "attention", "convolution", "attention"]}"#,
        ),
        (
            "vit",
            r#"{"width": 12, "layers": 2, "heads": 2, "head_dim": 5,
                "patch": {"depth": 8, "height": 8, "width": 4}, "positions": {"depth": 2, "height": 3, "width": 2}}"#,
        ),
        (
            "convnext",
            r#"{"channels": [4, 5, 6, 7], "blocks": [1, 2, 1, 1], "layer_scale": 0.5}"#,
        ),
        (
            "poolformer",
            r#"{"channels": [4, 5, 6, 7], "blocks": [1, 2, 1, 1], "layer_scale": 0.5}"#,
        ),
        (
            "transunet",
            r#"{"channels": 2, "layers": 2, "hidden": 12, "positions": {"depth": 2, "height": 3, "width": 2}}"#,
        ),
        (
            "ctvit",
            r#"{"width": 12, "patch": {"depth": 4, "height": 8, "width": 8}, "spatial_layers": 1,
                "temporal_layers": 2, "heads": 2, "head_dim": 5}"#,
        ),
        (
            "inceptionnext",
            r#"{"channels": [4, 8, 12, 16, 24], "blocks": [1, 2, 1, 1], "layer_scale": 0.5}"#,
        ),
    ];
    let configs = small.map(|(network, options)| {
        let options = serde_json::from_str(options).expect("JSON");
        preset(network, None)
            .unwrap()
            .config
            .with_options(options)
            .unwrap()
    });
    configs.to_vec()
}

#[test]
fn every_network_has_a_small_one_in_these_tests() {
    let mut all: Vec<&str> = presets().iter().map(|row| row.network).collect();
    all.dedup();
    let mut small: Vec<&str> = small_configs()
        .iter()
        .map(ImageEncoderConfig::network)
        .collect();
    small.dedup();
    assert_eq!(small, all);
}

fn noise(volume: Shape3, batch: usize, device: &Device) -> Tensor<5> {
    let shape = [batch, 1, volume.depth, volume.height, volume.width];
    Tensor::random(shape, Distribution::Normal(0.0, 1.0), device)
}

fn farthest(found: Tensor<5>, expected: Tensor<5>) -> f32 {
    (found - expected).abs().max().into_scalar()
}

#[test]
fn features_have_the_size_that_was_stated() {
    let device = Device::flex();
    for config in small_configs() {
        let volume = volume_of(&config);
        let Shape3 {
            depth,
            height,
            width,
        } = config.grid(volume).unwrap();
        let features = config
            .init(&device)
            .forward(noise(volume, 2, &device), Statistics::ByDevice);
        assert_eq!(
            features.dims(),
            [2, depth, height, width, config.features()],
            "{config:?}"
        );
    }
}

#[test]
fn the_last_stage_is_the_whole_network() {
    let device = Device::flex();
    for config in small_configs() {
        let volume = noise(volume_of(&config), 1, &device);
        let encoder = config.init(&device);
        let whole = encoder.forward(volume.clone(), Statistics::ByDevice);
        let mut stages = encoder.forward_stages(volume, Statistics::ByDevice);
        let last = stages.pop().expect("at least one stage");
        // Computed as one, layers are other sums of the same numbers.
        let far = farthest(whole, last);
        assert!(far < 1e-5, "{config:?}: {far}");
    }
}

#[test]
fn a_volume_alone_gives_what_it_gives_in_a_batch() {
    let device = Device::flex();
    for config in small_configs() {
        let both = noise(volume_of(&config), 2, &device);
        let encoder = config.init(&device);
        let batch = encoder.forward(both.clone(), Statistics::ByDevice);
        for index in 0..2 {
            let alone = encoder.forward(both.clone().narrow(0, index, 1), Statistics::ByDevice);
            // Sums of one length in one order; only vector tails may be taken differently.
            let far = farthest(alone, batch.clone().narrow(0, index, 1));
            assert!(far < 1e-5, "{config:?}: {far}");
        }
    }
}

#[test]
fn an_empty_volume_is_refused() {
    for row in presets() {
        let empty = Shape3 {
            depth: 0,
            ..PAPER_VOLUME
        };
        let message = row.config.grid(empty).unwrap_err().to_string();
        assert!(
            message.contains("0x512x512") && message.contains(row.network),
            "{message}"
        );
    }
}

#[test]
fn unknown_names_and_options_are_answered_with_the_known_ones() {
    let message = preset("resnet", None).unwrap_err().to_string();
    assert!(
        message.contains("resnet") && message.contains("dcformer"),
        "{message}"
    );
    let message = preset("dcformer", Some("huge")).unwrap_err().to_string();
    assert!(
        message.contains("huge") && message.contains("nano, naive"),
        "{message}"
    );
    let options = |json| serde_json::from_str(json).unwrap();
    let nano = preset("dcformer", Some("nano")).unwrap().config;
    let error = nano
        .with_options(options(r#"{"blokcs": [1, 1, 1, 1]}"#))
        .unwrap_err();
    let source = std::error::Error::source(&error)
        .expect("a cause")
        .to_string();
    assert!(
        source.contains("blokcs") && source.contains("`blocks`"),
        "{source}"
    );
    let error = nano
        .with_options(options(r#"{"kernels": [4, 3, 3, 3]}"#))
        .unwrap_err();
    assert!(error.to_string().contains("odd"), "{error}");
    assert_eq!(
        nano.with_options(options(r#"{"layer_scale": 0.5}"#))
            .unwrap(),
        ImageEncoderConfig::Dcformer(DcformerEncoderConfig {
            layer_scale: 0.5,
            ..DcformerEncoderConfig::nano()
        })
    );
}

/// Every whole number in a configuration, by its place.
fn sizes(config: &serde_json::Value, at: &str, found: &mut Vec<String>) {
    match config {
        serde_json::Value::Number(number) if number.is_u64() => found.push(at.to_owned()),
        serde_json::Value::Array(values) => {
            for (index, value) in values.iter().enumerate() {
                sizes(value, &format!("{at}/{index}"), found);
            }
        }
        serde_json::Value::Object(fields) => {
            for (name, value) in fields {
                sizes(value, &format!("{at}/{name}"), found);
            }
        }
        _ => {}
    }
}

#[test]
fn sizes_with_which_nothing_can_be_built_are_refused() {
    for config in small_configs() {
        let json = serde_json::to_value(&config).unwrap();
        let mut places = Vec::new();
        sizes(&json, "", &mut places);
        assert!(places.len() >= 6, "{json}");
        for place in places {
            for size in [0, u64::MAX / 2] {
                let mut changed = json.clone();
                *changed.pointer_mut(&place).unwrap() = size.into();
                let changed: ImageEncoderConfig = serde_json::from_value(changed).unwrap();
                let message = changed.check().expect_err(&place).to_string();
                let field = place.split('/').nth(1).unwrap();
                assert!(
                    message.contains(field) && message.contains(config.network()),
                    "{place} = {size}: {message}"
                );
            }
        }
    }
}
