//! A run that is killed and resumed ends like one that never was.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::{dcformer, succeed, text};

/// A run of a second or two: 6 steps with a checkpoint after each.
pub(super) fn write_config(path: &Path, phantoms: &Path) {
    let config = format!(
        r#"
seed = 3
[data]
layout = "ct-rate"
root = "{}"
[model]
layer_scale = 0.5
text = {{ kind = "scratch", width = 32, layers = 1, heads = 2, vocabulary = 300, tokens = 128 }}
[preprocess]
shape = {{ depth = 16, height = 32, width = 32 }}
fit = {{ spacing_mm = {{ depth = 16.0, height = 11.0, width = 11.0 }} }}
[train]
epochs = 3
batch = 4
report = {{ sentences = {{ most = 3 }} }}
texts_per_volume = 2
shift_voxels = [1, 2, 2]
checkpoint_every_steps = 1
[train.optimizer]
learning_rate = 1e-3
"#,
        phantoms.display()
    );
    std::fs::write(path, config).expect("it can be written");
}

#[test]
fn a_killed_run_ends_with_the_same_bits() {
    let folder = tempfile::tempdir().expect("a folder");
    let [phantoms, config, whole, killed] =
        ["phantoms", "run.toml", "whole", "killed"].map(|name| folder.path().join(name));
    succeed(["phantom", text(&phantoms), "--train", "8", "--valid", "1"]);
    write_config(&config, &phantoms);
    succeed([
        "train",
        text(&config),
        "--out",
        text(&whole),
        "--threads",
        "1",
    ]);

    let mut child = Command::new(env!("CARGO_BIN_EXE_dcformer"))
        .args([
            "train",
            text(&config),
            "--out",
            text(&killed),
            "--threads",
            "2",
        ])
        .stderr(Stdio::null())
        .spawn()
        .expect("the program can be started");
    let started = Instant::now();
    while !killed.join("checkpoints/step-00000002").exists() {
        assert!(
            started.elapsed() < Duration::from_secs(120),
            "no checkpoint appeared"
        );
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().expect("it can be killed");
    child.wait().expect("it ends");

    let again = dcformer(["train", text(&config), "--out", text(&killed)]);
    assert_eq!(
        again.status.code(),
        Some(1),
        "a run is not replaced in silence"
    );
    assert!(String::from_utf8_lossy(&again.stderr).contains("--resume"));
    succeed(["train", text(&config), "--out", text(&killed), "--resume"]);
    for name in [
        "model/model.safetensors",
        "model/config.json",
        "model/vocab.txt",
    ] {
        let [whole, killed] =
            [&whole, &killed].map(|run| std::fs::read(run.join(name)).expect("a trained model"));
        assert!(whole == killed, "{name} differs");
    }
    let steps = |run: &Path| -> Vec<u64> {
        let lines = metrics(run).into_iter();
        lines.filter_map(|line| line["step"].as_u64()).collect()
    };
    assert_eq!(steps(&killed), [1, 2, 3, 4, 5, 6]);
    assert_eq!(steps(&whole), [1, 2, 3, 4, 5, 6]);
}

/// The lines of a run's `metrics.jsonl`.
pub(super) fn metrics(run: &Path) -> Vec<serde_json::Value> {
    let lines = std::fs::read_to_string(run.join("metrics.jsonl")).expect("metrics");
    let line = |line| serde_json::from_str(line).expect("JSON");
    lines.lines().map(line).collect()
}

#[test]
fn a_validation_measures_and_changes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let [phantoms, config, plain, validated] =
        ["phantoms", "run.toml", "plain", "validated"].map(|name| folder.path().join(name));
    succeed(["phantom", text(&phantoms), "--train", "8", "--valid", "5"]);
    write_config(&config, &phantoms);
    succeed(["train", text(&config), "--out", text(&plain)]);
    let settings = std::fs::read_to_string(&config).expect("a configuration");
    let validating = |every: u64| {
        let key = format!("[train]\nvalidate_every_epochs = {every}\n");
        std::fs::write(&config, settings.replace("[train]\n", &key)).expect("it can be written");
    };
    validating(2);
    succeed(["train", text(&config), "--out", text(&validated)]);

    let weights = |run: &Path| std::fs::read(run.join("model/model.safetensors")).expect("a model");
    assert!(weights(&plain) == weights(&validated));
    // Three epochs of two steps: after the second, and in the end.
    let measured: Vec<(u64, f64)> = metrics(&validated)
        .into_iter()
        .filter_map(|line| Some((line["step"].as_u64()?, line["validation_loss"].as_f64()?)))
        .collect();
    let steps: Vec<u64> = measured.iter().map(|(step, _)| *step).collect();
    assert_eq!(steps, [4, 6]);
    // Batches of 4: a model that knows nothing has a loss of ln 4 = 1.39.
    assert!(measured.iter().all(|(_, loss)| (0.5..3.0).contains(loss)));
    assert_ne!(measured[0].1, measured[1].1);
    assert!(
        metrics(&plain)
            .iter()
            .all(|line| line["validation_loss"].is_null())
    );

    validating(0);
    let refused = dcformer([
        "train",
        text(&config),
        "--out",
        text(&folder.path().join("x")),
    ]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("train.validate_every_epochs"));
}
