//! A run that is killed and resumed ends like one that never was.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use safetensors::SafeTensors;

use super::{dcformer, run, succeed, text};

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
    let [phantoms, config] = ["phantoms", "run.toml"].map(|name| folder.path().join(name));
    succeed(["phantom", text(&phantoms), "--train", "8", "--valid", "1"]);
    write_config(&config, &phantoms);
    assert_killed_is_whole(&config);
}

/// What is encoded in parts and drawn for each volume does not depend on where a run was interrupted, either, nor on threads.
#[test]
fn a_killed_run_in_parts_with_augmentation_ends_with_the_same_bits() {
    let folder = tempfile::tempdir().expect("a folder");
    let [phantoms, config, changed] =
        ["phantoms", "run.toml", "changed.toml"].map(|name| folder.path().join(name));
    succeed(["phantom", text(&phantoms), "--train", "8", "--valid", "1"]);
    write_config(&config, &phantoms);
    rewrite(
        &config,
        &changed,
        &[
            ("seed = 3", "seed = 4"),
            ("batch = 4", AUGMENTED),
            ("{ sentences = { most = 3 } }", "\"shuffled\""),
        ],
    );
    let whole = assert_killed_is_whole(&changed);

    // Each of them has an effect.
    for (setting, other) in [
        ("micro_batch = 3", "micro_batch = 1"),
        ("mirror_left_right = 0.5", ""),
        ("intensity_scale = 0.1", ""),
        ("intensity_offset = 0.1", ""),
        ("noise = 0.05", ""),
        ("\"shuffled\"", "\"whole\""),
    ] {
        rewrite(&changed, &config, &[(setting, other)]);
        let run = folder.path().join("other");
        succeed(["train", text(&config), "--out", text(&run)]);
        assert!(weights(&run) != weights(&whole), "{setting}");
        std::fs::remove_dir_all(&run).expect("it can be removed");
    }
}

/// Everything that changes a volume, and a batch in parts that do not divide it.
const AUGMENTED: &str = "batch = 4
micro_batch = 3
mirror_left_right = 0.5
intensity_scale = 0.1
intensity_offset = 0.1
noise = 0.05";

/// A configuration with some words replaced.
#[track_caller]
fn rewrite(from: &Path, to: &Path, replaced: &[(&str, &str)]) {
    let mut config = std::fs::read_to_string(from).expect("a configuration");
    for (old, new) in replaced {
        assert!(config.contains(old), "no {old} in {config}");
        config = config.replace(old, new);
    }
    std::fs::write(to, config).expect("it can be written");
}

fn weights(run: &Path) -> Vec<u8> {
    std::fs::read(run.join("model/model.safetensors")).expect("a trained model")
}

/// Starts a run and kills it as soon as it has a checkpoint.
#[track_caller]
pub(super) fn kill_at<I: AsRef<OsStr>>(arguments: impl IntoIterator<Item = I>, checkpoint: &Path) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_dcformer"))
        .args(arguments)
        .stderr(Stdio::null())
        .spawn()
        .expect("the program can be started");
    let started = Instant::now();
    while !checkpoint.exists() {
        assert!(
            started.elapsed() < Duration::from_secs(120),
            "no checkpoint appeared"
        );
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().expect("it can be killed");
    child.wait().expect("it ends");
}

/// A run that is killed and resumed leaves the same files as one that is not, which is given.
#[track_caller]
fn assert_killed_is_whole(config: &Path) -> PathBuf {
    let [whole, killed] = ["whole", "killed"].map(|name| config.with_file_name(name));
    succeed([
        "train",
        text(config),
        "--out",
        text(&whole),
        "--threads",
        "1",
    ]);

    kill_at(
        [
            "train",
            text(config),
            "--out",
            text(&killed),
            "--threads",
            "2",
            // Room for the hidden activations of some layers.
            "--activation-memory",
            "0.001",
        ],
        &killed.join("checkpoints/step-00000002"),
    );
    let again = dcformer(["train", text(config), "--out", text(&killed)]);
    assert_eq!(
        again.status.code(),
        Some(1),
        "a run is not replaced in silence"
    );
    assert!(String::from_utf8_lossy(&again.stderr).contains("--resume"));
    let resume = ["train", text(config), "--out", text(&killed), "--resume"];
    succeed(resume.into_iter().chain(["--activation-memory", "1"]));
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
    whole
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

#[test]
fn with_frozen_statistics_a_batch_in_parts_is_the_batch() {
    let folder = tempfile::tempdir().expect("a folder");
    let [phantoms, config, first, frozen] =
        ["phantoms", "run.toml", "first", "frozen.toml"].map(|name| folder.path().join(name));
    succeed(["phantom", text(&phantoms), "--train", "8", "--valid", "1"]);
    write_config(&config, &phantoms);
    succeed(["train", text(&config), "--out", text(&first)]);
    let start = format!("[model]\nstart = {:?}", text(&first.join("model")));
    rewrite(
        &config,
        &frozen,
        &[
            ("[model]", start.as_str()),
            ("batch = 4", "batch = 4\nbatch_norm = \"frozen\""),
        ],
    );
    let run = |name: &str, micro_batch: &str| {
        let out = folder.path().join(name);
        succeed([
            "train",
            text(&frozen),
            "--out",
            text(&out),
            "--micro-batch",
            micro_batch,
        ]);
        out
    };
    let [whole, parts] = [run("whole", "4"), run("parts", "3")];
    for (whole, parts) in metrics(&whole).iter().zip(metrics(&parts)) {
        for name in ["loss", "gradient_norm"] {
            let [whole, parts] = [whole, &parts].map(|line| line[name].as_f64().expect(name));
            // Rounding of the first steps grows in those that follow.
            assert!(
                (whole - parts).abs() < 1e-4 * whole,
                "{name}: {whole}, {parts}"
            );
        }
    }
    assert_eq!(metrics(&parts).len(), 6);
    let written = std::fs::read_to_string(parts.join("config.toml")).expect("a configuration");
    assert!(written.contains("micro_batch = 3"), "{written}");

    // Running statistics are those of the model it started from, everything else has moved.
    let (before, after) = (weights(&first), weights(&parts));
    let [before, after] =
        [&before, &after].map(|bytes| SafeTensors::deserialize(bytes).expect("safetensors"));
    let same = |name: &&str| {
        let of = |file: &SafeTensors<'_>| file.tensor(name).expect(name).data().to_vec();
        of(&before) == of(&after)
    };
    let names = before.names();
    let (running, learnt): (Vec<&str>, Vec<&str>) =
        names.into_iter().partition(|name| name.contains("running"));
    assert!(!running.is_empty() && running.iter().all(same));
    assert!(!learnt.iter().all(same));
}

#[test]
fn what_cannot_be_done_in_parts_or_frozen_or_mirrored_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let [phantoms, config, changed, out] =
        ["phantoms", "run.toml", "changed.toml", "run"].map(|name| folder.path().join(name));
    succeed(["phantom", text(&phantoms), "--train", "8", "--valid", "1"]);
    write_config(&config, &phantoms);
    let quantizer = "[model]\nquantizer = { codes = 16, channels = 256 }";
    let refused = |replaced: &[(&str, &str)], parts: &[&str]| {
        rewrite(&config, &changed, replaced);
        run(["train", text(&changed), "--out", text(&out)]).failed(parts);
    };
    refused(
        &[("batch = 4", "batch = 4\nmicro_batch = 0")],
        &["train.micro_batch", "at least 1"],
    );
    refused(
        &[
            ("batch = 4", "batch = 4\nmicro_batch = 2"),
            ("[model]", quantizer),
        ],
        &["train.micro_batch", "quantizer"],
    );
    refused(
        &[("batch = 4", "batch = 4\nbatch_norm = \"frozen\"")],
        &["train.batch_norm", "model.start"],
    );
    refused(
        &[
            ("batch = 4", "batch = 4\nmirror_left_right = 0.5"),
            ("[preprocess]", "[preprocess]\norientation = \"keep\""),
        ],
        &["train.mirror_left_right", "canonical"],
    );
}
