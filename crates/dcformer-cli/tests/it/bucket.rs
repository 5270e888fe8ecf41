//! What a bucket holds is what a folder holds. `scripts/with_s3_server.sh` gives these tests a server.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use dcformer_volume::storage;

use super::prepare::{assert_same_files, start_shard, write_phantoms};
use super::training::write_config;
use super::{Ran, arguments, run, succeed, text};

/// An address of its own for a test, if there is a server.
fn address(test: &str) -> Option<PathBuf> {
    /// Address of a bucket, to which the usual variables of the environment open the door.
    const BUCKET: &str = "DCFORMER_TEST_BUCKET";
    let Some(bucket) = std::env::var_os(BUCKET) else {
        // Not by `eprintln!`, which is caught and not shown when a test passes.
        writeln!(
            std::io::stderr(),
            "skipped {test}: {BUCKET} names no bucket; scripts/with_s3_server.sh starts a server"
        )
        .expect("a terminal or a file");
        return None;
    };
    let own = format!("{test}-{}", std::process::id());
    Some(PathBuf::from(bucket).join(own))
}

#[test]
fn killed_shards_make_in_a_bucket_the_cache_of_a_folder() {
    let Some(parts) = address("shards") else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let [phantoms, whole] = ["phantoms", "whole"].map(|name| folder.path().join(name));
    write_phantoms(&phantoms, 32, 8);
    let bad = "dataset/train/train_5/train_5_a/train_5_a_1.nii.gz";
    std::fs::write(phantoms.join(bad), "%PDF-1.7").expect("it can be written");
    let options = ["--shape", "32,128,128", "--json"];
    let prepare = |data: &Path, cache: &Path| {
        let arguments = arguments!["prepare", data, "--out", cache];
        run(arguments.into_iter().chain(options.map(Into::into))).succeeded()
    };
    prepare(&phantoms, &whole);

    let mut killed = 0;
    for (index, after_ms) in [(0, 60), (1, 90), (2, 130), (3, 100), (0, 75)] {
        let mut child = start_shard(&phantoms, &parts, index);
        std::thread::sleep(Duration::from_millis(after_ms));
        child.kill().expect("it can be killed");
        killed += usize::from(!child.wait().expect("it ends").success());
    }
    assert!(killed >= 3, "only {killed} of 5 were killed at work");
    for index in 0..4 {
        let mut shard = start_shard(&phantoms, &parts, index);
        assert!(shard.wait().expect("it ends").success());
    }
    let copy = storage::fetch(&parts).expect("a cache");
    assert_same_files(&whole, copy.path());
    let again = prepare(&phantoms, &parts).json();
    let reasons = serde_json::json!({"not a scan": 1});
    assert_eq!(again["quarantined"], reasons);
    assert_eq!(
        (&again["prepared"], &again["already"]),
        (&0.into(), &39.into())
    );

    // The scans may lie in a bucket too: here those that a manifest lists, which are volumes' neighbours.
    let data = parts.with_extension("scans");
    for name in [
        "train_1/train_1_a/train_1_a_1",
        "train_2/train_2_a/train_2_a_1",
    ] {
        let name = format!("dataset/train/{name}.nii.gz");
        let bytes = std::fs::read(phantoms.join(&name)).expect("a phantom");
        storage::write(&data.join(&name), &bytes).expect("a bucket");
    }
    let other = folder.path().join("other");
    assert_eq!(prepare(&data, &other).json()["prepared"], 2);
    let shard = "volumes/train_2_a_1.nii.gz.zarr/c.0.0.0";
    let [one, other] = [&whole, &other].map(|cache| std::fs::read(cache.join(shard)));
    assert!(one.expect("a volume") == other.expect("a volume"));
}

#[test]
fn training_from_a_bucket_gives_the_same_bits() {
    let Some(in_bucket) = address("training") else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let [phantoms, in_folder, config] =
        ["phantoms", "cache", "config.toml"].map(|name| folder.path().join(name));
    succeed(["phantom", text(&phantoms), "--train", "8", "--valid", "4"]);
    write_config(&config, &phantoms);
    let scans = format!("layout = \"ct-rate\"\nroot = \"{}\"", phantoms.display());
    let written = std::fs::read_to_string(&config).expect("a configuration");
    assert!(written.contains(&scans));
    let train = |cache: &Path, name: &str| {
        let out = folder.path().join(name);
        run(arguments![
            "prepare", &phantoms, "--out", cache, "--like", &config
        ])
        .succeeded();
        let data = format!("layout = \"cache\"\ntrain = \"{}\"", cache.display());
        let own = folder.path().join(format!("{name}.toml"));
        std::fs::write(&own, written.replace(&scans, &data)).expect("it can be written");
        run(arguments!["train", &own, "--out", &out]).succeeded();
        std::fs::read(out.join("model/model.safetensors")).expect("a trained model")
    };
    let (one, other) = (train(&in_folder, "one"), train(&in_bucket, "other"));
    assert!(one == other, "the weights differ");
    let model = folder.path().join("one/model");
    let evaluate = |data: &Path| {
        let evaluate = arguments!["evaluate", "--model", &model, "--data", data, "--json"];
        run(evaluate).succeeded().json()
    };
    let (one, other) = (evaluate(&in_folder), evaluate(&in_bucket));
    assert_eq!(one["volumes"], 4);
    assert_eq!(one, other);
}

#[test]
fn a_bucket_that_cannot_be_used_says_why() {
    let Some(bucket) = address("errors") else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    write_phantoms(folder.path(), 1, 1);
    let prepare = |cache: &Path, change: &dyn Fn(&mut Command)| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dcformer"));
        command.args(arguments![
            "prepare",
            folder.path(),
            "--out",
            cache,
            "--shape",
            "16,32,32"
        ]);
        change(&mut command);
        Ran::new(command.output().expect("the program can be started"))
    };
    let missing = Path::new("s3://no-such-bucket-of-dcformer/cache");
    prepare(missing, &|_| {}).failed(&["there is no bucket s3://no-such-bucket-of-dcformer"]);
    let nowhere = |command: &mut Command| {
        command.env("AWS_ENDPOINT_URL", "http://127.0.0.1:1");
    };
    prepare(&bucket, &nowhere).failed(&["cannot be reached", "AWS_ENDPOINT_URL"]);
    let anonymous = |command: &mut Command| {
        for variable in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"] {
            command.env_remove(variable);
        }
        command.env("AWS_METADATA_ENDPOINT", "http://127.0.0.1:1");
    };
    prepare(&bucket, &anonymous).failed(&["no credentials", "set AWS_ACCESS_KEY_ID"]);
    let half = |command: &mut Command| {
        command.env_remove("AWS_SECRET_ACCESS_KEY");
    };
    prepare(&bucket, &half).failed(&["AWS_SECRET_ACCESS_KEY"]);
}
