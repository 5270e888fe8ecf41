//! A cache is the same however it came about, and as good as the scans.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use dcformer_volume::phantom::{DataSetConfig, PhantomConfig, write_ct_rate};

use super::training::{metrics, write_config};
use super::{Ran, arguments, repository, run, small_model, succeed, tensor, text};

/// All files under a folder with their bytes.
fn tree(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let bytes = std::fs::read(&path).expect("a file");
                files.insert(
                    path.strip_prefix(folder).expect("in there").to_owned(),
                    bytes,
                );
            }
        }
    }
    files
}

#[track_caller]
pub(super) fn assert_same_files(one: &Path, other: &Path) {
    let (one, other) = (tree(one), tree(other));
    let names = |tree: &BTreeMap<PathBuf, _>| tree.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&one), names(&other));
    for (name, bytes) in &one {
        assert!(other[name] == *bytes, "{} differs", name.display());
    }
}

/// Chests small enough for a test of many.
pub(super) fn write_phantoms(folder: &Path, train_patients: usize, valid_patients: usize) {
    let config = DataSetConfig {
        phantom: PhantomConfig {
            columns: 64,
            slice_spacing_mm: vec![10.0],
            ..PhantomConfig::default()
        },
        train_patients,
        valid_patients,
        ..DataSetConfig::default()
    };
    write_ct_rate(folder, &config, |_| {}).expect("phantoms");
}

/// Starts one of four jobs.
pub(super) fn start_shard(phantoms: &Path, cache: &Path, index: usize) -> Child {
    Command::new(env!("CARGO_BIN_EXE_dcformer"))
        .args(["prepare", text(phantoms), "--out", text(cache)])
        .args(["--shape", "32,128,128", "--threads", "2"])
        .args(["--shard", &format!("{index}/4")])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program can be started")
}

/// Waits for a shard to be at work, then lets it work on for so long.
fn wait_for_work(cache: &Path, child: &mut Child, on_ms: u64) {
    let entries = || std::fs::read_dir(cache.join("volumes")).map_or(0, Iterator::count);
    let (before, started) = (entries(), Instant::now());
    while entries() <= before && child.try_wait().expect("a status").is_none() {
        assert!(
            started.elapsed() < Duration::from_secs(120),
            "nothing is written"
        );
        std::thread::sleep(Duration::from_micros(200));
    }
    std::thread::sleep(Duration::from_millis(on_ms));
}

#[test]
fn killed_shards_make_the_cache_of_one_go() {
    let folder = tempfile::tempdir().expect("a folder");
    let [phantoms, whole, parts] =
        ["phantoms", "whole", "parts"].map(|name| folder.path().join(name));
    write_phantoms(&phantoms, 320, 80);
    let scan = |name: &str| {
        let [split, patient, ..] = *name.split('_').collect::<Vec<_>>() else {
            unreachable!("names have parts");
        };
        let folder = format!("dataset/{split}/{split}_{patient}/{split}_{patient}_a");
        phantoms.join(folder).join(format!("{name}.nii.gz"))
    };
    let plant = |name: &str, change: fn(Vec<u8>) -> Vec<u8>| {
        let bytes = std::fs::read(scan(name)).expect("a phantom");
        std::fs::write(scan(name), change(bytes)).expect("it can be written");
    };
    plant("train_5_a_1", |mut bytes| {
        bytes.truncate(bytes.len() / 2);
        bytes
    });
    plant("train_9_a_1", |_| b"%PDF-1.7".to_vec());
    plant("valid_3_a_1", |_| Vec::new());

    let options = ["--shape", "32,128,128", "--json"];
    let prepare = |cache: &Path| {
        let arguments = arguments!["prepare", phantoms.as_path(), "--out", cache];
        run(arguments.into_iter().chain(options.map(Into::into))).succeeded()
    };
    let report = prepare(&whole).json();
    let reasons = serde_json::json!({"damaged file": 1, "not a scan": 2});
    assert_eq!(report["prepared"], 397);
    assert_eq!(report["quarantined"], reasons);
    assert_eq!(report["left"], 0);
    let quarantine = std::fs::read_to_string(whole.join("quarantine.csv")).expect("a table");
    for part in [
        "train_5_a_1.nii.gz,train,damaged file,",
        "train_9_a_1.nii.gz,train,not a scan,",
        "valid_3_a_1.nii.gz,validation,not a scan,",
        "a PDF document",
        "an empty file",
    ] {
        assert!(quarantine.contains(part), "no {part:?} in {quarantine}");
    }

    let mut killed = 0;
    for (index, on_ms) in [(0, 31), (1, 0), (2, 17), (0, 9), (3, 1)] {
        let mut child = start_shard(&phantoms, &parts, index);
        wait_for_work(&parts, &mut child, on_ms);
        child.kill().expect("it can be killed");
        killed += usize::from(!child.wait().expect("it ends").success());
    }
    assert_eq!(killed, 5, "not all were killed at work");
    assert!(!parts.join("manifest.csv").exists());
    let shards: Vec<Child> = (0..4)
        .map(|index| start_shard(&phantoms, &parts, index))
        .collect();
    for mut shard in shards {
        assert!(shard.wait().expect("it ends").success());
    }
    assert_same_files(&whole, &parts);

    let again = prepare(&parts).json();
    assert_eq!(
        (&again["prepared"], &again["already"]),
        (&0.into(), &397.into())
    );
    assert_eq!(again["quarantined"], reasons);
}

#[test]
fn training_from_a_cache_gives_the_same_bits() {
    let folder = tempfile::tempdir().expect("a folder");
    let [phantoms, cache, scans_config, cache_config] =
        ["phantoms", "cache", "scans.toml", "cache.toml"].map(|name| folder.path().join(name));
    succeed(["phantom", text(&phantoms), "--train", "8", "--valid", "4"]);
    write_config(&scans_config, &phantoms);
    succeed([
        "prepare",
        text(&phantoms),
        "--out",
        text(&cache),
        "--like",
        text(&scans_config),
    ]);
    // The scans are not needed any more.
    let moved = folder.path().join("moved");
    let config = std::fs::read_to_string(&scans_config).expect("a configuration");
    let data = format!("layout = \"ct-rate\"\nroot = \"{}\"", phantoms.display());
    assert!(config.contains(&data));
    let config = format!("{config}weight_decay = 0.1\n");
    std::fs::write(&scans_config, &config).expect("it can be written");
    let from_cache = config.replace(&data, "layout = \"cache\"\ntrain = \"cache\"");
    std::fs::write(&cache_config, from_cache).expect("it can be written");

    let train = |config: &Path, name: &str| {
        let out = folder.path().join(name);
        succeed(["train", text(config), "--out", text(&out)]);
        out
    };
    let scans_run = train(&scans_config, "scans_run");
    std::fs::rename(&phantoms, moved).expect("it can be moved");
    let cache_run = train(&cache_config, "cache_run");
    let [one, other] = [&scans_run, &cache_run]
        .map(|run| std::fs::read(run.join("model/model.safetensors")).expect("a trained model"));
    assert!(one == other, "the weights differ");
    let losses = |run: &Path| -> Vec<f64> {
        let lines = metrics(run).into_iter();
        lines.filter_map(|line| line["loss"].as_f64()).collect()
    };
    assert_eq!(losses(&scans_run), losses(&cache_run));

    let model = scans_run.join("model");
    let evaluate = arguments!["evaluate", "--model", &model, "--data", &cache, "--json"];
    let evaluation = run(evaluate).succeeded().json();
    assert_eq!(evaluation["volumes"], 4);
    let latents = folder.path().join("latents.safetensors");
    run(arguments![
        "embed", "--model", &model, &cache, "--out", &latents
    ])
    .succeeded();
    assert_eq!(tensor(&latents, "image_latents").shape[0], 12);
    // A network that wants other volumes says so.
    let other = small_model(folder.path());
    let volume = cache.join("volumes/train_1_a_1.nii.gz.zarr");
    run(arguments!["detect", "--model", &other, &volume]).failed(&[
        "train_1_a_1.nii.gz.zarr",
        "prepared with `fit.",
        "prepare another",
    ]);
}

#[test]
fn preparing_what_cannot_be_prepared_says_why() {
    let folder = tempfile::tempdir().expect("a folder");
    let (cache, list) = (folder.path().join("cache"), folder.path().join("list.csv"));
    let prepare = |data: &Path, more: &[&str]| -> Ran {
        let arguments = arguments!["prepare", data, "--out", &cache];
        run(arguments.into_iter().chain(more.iter().map(Into::into)))
    };
    prepare(folder.path(), &[]).failed(&["found no folder"]);
    std::fs::write(&list, "volume\nmissing.nii.gz\n").expect("it can be written");
    prepare(&list, &[]).failed(&["row without a file", "no volumes to prepare"]);
    let scan = repository("golden/ct/thorax_1.5mm.nii.gz");
    std::fs::write(&list, format!("volume\n{}\n", scan.display())).expect("it can be written");
    let small = ["--shape", "16,32,32"];
    prepare(&list, &small).succeeded();
    prepare(&list, &["--shape", "16,32,64"])
        .failed(&["`preprocess.shape.width` = 32, expected 64"]);
    prepare(&list, &[]).failed(&["prepared with `preprocess.shape."]);
    assert_eq!(prepare(&list, &["--shard", "2/2"]).status, Some(2));
    #[cfg(not(feature = "s3"))]
    run(arguments!["prepare", &list, "--out", "s3://bucket/cache"])
        .failed(&["cannot prepare s3://bucket/cache", "`--features s3`"]);
}
