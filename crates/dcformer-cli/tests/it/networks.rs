//! Every network through the program: trained, resumed, exported, imported, used, and given volumes it cannot take.

use std::path::{Path, PathBuf};

use dcformer::tensors::{Values, write};

use crate::{arguments, run, succeed, tensor, text};

/// A network of a few channels, and a size of volumes that it refuses, if there is one.
struct Network {
    name: &'static str,
    variant: &'static str,
    options: &'static str,
    refused: Option<[usize; 3]>,
}

const NETWORKS: [Network; 8] = [
    Network {
        name: "dcformer",
        variant: "nano",
        options: "channels = [8, 8, 16, 16, 24], layer_scale = 0.5",
        refused: None,
    },
    Network {
        name: "dcformer",
        variant: "small-paper",
        options: "channels = [8, 8, 16, 16, 24], blocks = [1, 1, 1, 1], layer_scale = 0.5",
        refused: None,
    },
    Network {
        name: "vit",
        variant: "tiny",
        options: "width = 24, layers = 2, heads = 2, head_dim = 8, hidden = 96, \
                  patch = { depth = 8, height = 8, width = 8 }",
        refused: Some([16, 30, 32]),
    },
    Network {
        name: "convnext",
        variant: "nano",
        options: "channels = [8, 12, 16, 24], blocks = [1, 1, 1, 1], layer_scale = 0.5",
        refused: None,
    },
    Network {
        name: "poolformer",
        variant: "nano",
        options: "channels = [8, 12, 16, 24], blocks = [1, 1, 1, 1], layer_scale = 0.5",
        refused: None,
    },
    Network {
        name: "transunet",
        variant: "naive",
        options: "channels = 4, layers = 2, hidden = 64",
        refused: None,
    },
    Network {
        name: "ctvit",
        variant: "paper",
        options: "width = 24, spatial_layers = 1, temporal_layers = 1, heads = 2, head_dim = 8, \
                  patch = { depth = 4, height = 8, width = 8 }",
        refused: Some([18, 32, 32]),
    },
    Network {
        name: "inceptionnext",
        variant: "nano",
        options: "channels = [8, 8, 16, 16, 24], layer_scale = 0.5",
        refused: None,
    },
];

/// Size of the volumes of training.
const SHAPE: [usize; 3] = [16, 32, 32];

impl Network {
    /// A run of a second or two, 40 steps with a checkpoint after every other.
    fn write_config(&self, path: &Path, phantoms: &Path, shape: [usize; 3]) {
        let [depth, height, width] = shape;
        let config = format!(
            r#"
seed = 3
[data]
layout = "ct-rate"
root = "{}"
[model]
encoder = "{}"
variant = "{}"
options = {{ {} }}
spread_latents = true
temperature = {{ kind = "learnable", initial_log_scale = 2.0 }}
text = {{ kind = "scratch", width = 64, layers = 1, heads = 1, vocabulary = 300, tokens = 128 }}
[preprocess]
shape = {{ depth = {depth}, height = {height}, width = {width} }}
fit = {{ spacing_mm = {{ depth = 16.0, height = 11.0, width = 11.0 }} }}
[train]
epochs = 20
batch = 4
checkpoint_every_steps = 2
keep_checkpoints = 100
[train.optimizer]
learning_rate = 1e-3
"#,
            phantoms.display(),
            self.name,
            self.variant,
            self.options,
        );
        std::fs::write(path, config).expect("it can be written");
    }
}

/// Losses of a run's steps.
fn losses(run: &Path) -> Vec<f64> {
    let lines = std::fs::read_to_string(run.join("metrics.jsonl")).expect("metrics");
    let loss = |line| {
        let step: serde_json::Value = serde_json::from_str(line).expect("JSON");
        step["loss"].as_f64().expect("a loss")
    };
    lines.lines().map(loss).collect()
}

/// A run that knows no more than one that was killed after its second step.
fn cut_after_two_steps(whole: &Path, cut: &Path) {
    let kept = "checkpoints/step-00000002";
    std::fs::create_dir_all(cut.join(kept)).expect("a folder");
    for entry in std::fs::read_dir(whole.join(kept)).expect("a checkpoint") {
        let from = entry.expect("a file").path();
        let name = from.file_name().expect("a name");
        std::fs::copy(&from, cut.join(kept).join(name)).expect("it can be copied");
    }
    std::fs::copy(whole.join("metrics.jsonl"), cut.join("metrics.jsonl"))
        .expect("it can be copied");
}

fn write_volume(path: &Path, shape: [usize; 3]) {
    let values = (0..shape.iter().product::<usize>())
        .map(|at| (at as f32 * 0.37).sin())
        .collect();
    let shape = [vec![1, 1], shape.to_vec()].concat();
    write(path, &[("volume", &Values { shape, values })]).expect("it can be written");
}

fn features(model: &Path, volume: &Path, out: &Path) -> Values {
    succeed(arguments![
        "embed",
        "--model",
        model,
        volume,
        "--out",
        out,
        "--features"
    ]);
    tensor(out, "features")
}

fn phantoms(folder: &Path) -> PathBuf {
    let phantoms = folder.join("phantoms");
    succeed(["phantom", text(&phantoms), "--train", "8", "--valid", "1"]);
    phantoms
}

#[test]
fn every_network_learns_resumes_and_goes_out_and_in_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let phantoms = phantoms(folder.path());
    for (index, network) in NETWORKS.iter().enumerate() {
        let place = |name: &str| folder.path().join(format!("{index}-{name}"));
        let what = format!("{} {}", network.name, network.variant);
        let [config, whole, cut] = ["run.toml", "whole", "cut"].map(place);
        network.write_config(&config, &phantoms, SHAPE);
        succeed(arguments![
            "train",
            &config,
            "--out",
            &whole,
            "--threads",
            "1"
        ]);
        let losses = losses(&whole);
        let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
        let (first, last) = (mean(&losses[..4]), mean(&losses[30..]));
        assert!(
            last < 0.7 * first,
            "{what}: the loss goes from {first} to {last}"
        );

        cut_after_two_steps(&whole, &cut);
        succeed(arguments![
            "train",
            &config,
            "--out",
            &cut,
            "--resume",
            "--threads",
            "2"
        ]);
        let weights =
            |run: &Path| std::fs::read(run.join("model/model.safetensors")).expect("a model");
        assert!(
            weights(&whole) == weights(&cut),
            "{what}: a resumed run is another one"
        );

        let [volume, exported, imported] =
            ["volume.safetensors", "weights.safetensors", "imported"].map(place);
        let model = whole.join("model");
        write_volume(&volume, SHAPE);
        succeed(arguments!["export", &model, "--out", &exported]);
        succeed(arguments!["import", &exported, "--out", &imported]);
        let out = place("features.safetensors");
        let before = features(&model, &volume, &out);
        assert_eq!(features(&imported, &volume, &out), before, "{what}");
        assert!(
            before.values.iter().all(|value| value.is_finite()),
            "{what}"
        );

        if let Some(shape) = network.refused {
            write_volume(&volume, shape);
            let [depth, height, width] = shape;
            let found = format!("{depth}x{height}x{width}");
            run(arguments![
                "embed", "--model", &model, &volume, "--out", &out
            ])
            .failed(&[network.name, &found, "multiples of its patch"]);
            network.write_config(&config, &phantoms, shape);
            run(arguments!["train", &config, "--out", &place("refused")]).failed(&[
                network.name,
                &found,
                "preprocess.shape",
            ]);
            assert!(!place("refused").exists(), "{what}: nothing is begun");
        }
    }
}

#[test]
fn a_projection_of_flattened_features_takes_volumes_of_its_own_size_only() {
    let folder = tempfile::tempdir().expect("a folder");
    let phantoms = phantoms(folder.path());
    let [config, whole, volume, out] = ["run.toml", "run", "volume.safetensors", "out.safetensors"]
        .map(|name| folder.path().join(name));
    let ctvit = NETWORKS
        .iter()
        .find(|network| network.name == "ctvit")
        .expect("CT-ViT");
    ctvit.write_config(&config, &phantoms, SHAPE);
    succeed(arguments!["train", &config, "--out", &whole]);
    let model = whole.join("model");
    // The mean over depth takes any depth.
    write_volume(&volume, [24, 32, 32]);
    succeed(arguments![
        "embed", "--model", &model, &volume, "--out", &out
    ]);
    write_volume(&volume, [16, 32, 40]);
    run(arguments![
        "embed", "--model", &model, &volume, "--out", &out
    ])
    .failed(&["the projection to latents", "16x32x40", "384 values", "480"]);
}

#[test]
fn complexity_lists_what_was_asked_for_and_says_what_is_left_out() {
    let rows = |arguments: &[&str]| {
        let ran = run(["complexity", "--json"].iter().chain(arguments)).succeeded();
        let rows = ran.json();
        let names = rows.as_array().expect("rows").iter();
        let names: Vec<String> = names
            .map(|row| format!("{} {}", row["model"], row["variant"]).replace('"', ""))
            .collect();
        (names, ran.stderr)
    };
    let (names, messages) = rows(&["--model-name", "ctvit", "--shape", "240,480,480"]);
    assert_eq!(names, ["ctvit paper", "ctvit ct-clip"]);
    assert_eq!(messages, "");
    let (names, messages) = rows(&["--model-name", "ctvit"]);
    assert_eq!(names, ["ctvit paper"]);
    assert!(messages.contains("left out: ctvit ct-clip"), "{messages}");
    let (names, _) = rows(&["--model-name", "vit", "--variant", "tiny"]);
    assert_eq!(names, ["vit tiny"]);
    run(["complexity", "--model-name", "vit", "--shape", "100,64,64"])
        .failed(&["vit takes no volume of 100x64x64", "multiples of its patch"]);
}

#[test]
fn networks_are_named_alike_everywhere() {
    let folder = tempfile::tempdir().expect("a folder");
    let phantoms = phantoms(folder.path());
    let config = folder.path().join("run.toml");
    NETWORKS[0].write_config(&config, &phantoms, SHAPE);
    let out = folder.path().join("run");
    for arguments in [
        arguments!["bench", "encoder"].to_vec(),
        arguments!["bench", "train-step"].to_vec(),
        arguments!["complexity"].to_vec(),
        arguments!["train", &config, "--out", &out].to_vec(),
    ] {
        let with = |more: &[&str]| {
            let mut all = arguments.clone();
            all.extend(more.iter().map(std::ffi::OsString::from));
            run(all)
        };
        with(&["--model-name", "resnet"]).failed(&["`resnet`", "dcformer, vit, convnext"]);
        with(&["--model-name", "vit", "--variant", "nano"]).failed(&[
            "variant of vit",
            "`nano`",
            "naive, tiny",
        ]);
    }
    let bench = |network, shape| {
        let settings = ["--runs", "1", "--json", "--shape", shape];
        run(["bench", "encoder", "--model-name", network]
            .iter()
            .chain(&settings))
    };
    for network in [
        "vit",
        "convnext",
        "poolformer",
        "transunet",
        "ctvit",
        "inceptionnext",
    ] {
        bench(network, "32,64,64").succeeded();
    }
    bench("vit", "32,64,60").failed(&[
        "vit takes no volume of 32x64x60",
        "multiples of its patch, 32x32x32",
    ]);
}
