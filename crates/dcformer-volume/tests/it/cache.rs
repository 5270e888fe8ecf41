//! A cache holds what preprocessing makes, however it came about, and nothing else is taken for it.

use std::collections::BTreeMap;
use std::fs;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use dcformer_volume::cache::{
    self, Job, Listing, PreparedVolume, Progress, Settings, Shard, Summary, prepare,
};
use dcformer_volume::ct_rate::{self, Split};
use dcformer_volume::dataset::{ProblemKind, ScanMetadata};
use dcformer_volume::geometry::Shape3;
use dcformer_volume::phantom::{DataSetConfig, PhantomConfig, write_ct_rate};
use dcformer_volume::preprocess::{Fit, Preprocess};
use dcformer_volume::scan::ScanOptions;
use proptest::prelude::*;
use sha2::{Digest, Sha256};

use crate::allocation::largest_allocation;

#[cfg(feature = "s3")]
mod bucket;
mod hostile;

fn settings() -> Settings {
    Settings {
        preprocess: Preprocess {
            shape: Shape3 {
                depth: 20,
                height: 48,
                width: 40,
            },
            fit: Fit::SpacingMm {
                depth: 16.0,
                height: 8.0,
                width: 8.0,
            },
            ..Preprocess::dcformer()
        },
        ..Settings::default()
    }
}

/// Five small chests, three of them to learn from.
fn phantoms() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let config = DataSetConfig {
        phantom: PhantomConfig {
            columns: 64,
            slice_spacing_mm: vec![10.0],
            ..PhantomConfig::default()
        },
        train_patients: 3,
        valid_patients: 2,
        ..DataSetConfig::default()
    };
    write_ct_rate(folder.path(), &config, |_| {}).expect("phantoms");
    folder
}

fn listings(data: &Path) -> Vec<Listing> {
    Listing::all(data, &ct_rate::Options::default()).expect("a data set")
}

/// The file of a phantom.
fn scan(data: &Path, name: &str) -> PathBuf {
    let listings = listings(data);
    let mut samples = listings.iter().flat_map(|listing| &listing.data.samples);
    let sample = samples.find(|sample| sample.name == name);
    sample.expect("a phantom of that name").path.clone()
}

fn shard(index: usize, of: usize) -> Shard {
    let of = NonZero::new(of).expect("not 0");
    Shard { index, of }
}

/// Prepares a shard and stops after so many volumes.
fn prepare_some(data: &Path, cache: &Path, shard: Shard, most: usize) -> Summary {
    let stop = AtomicBool::new(most == 0);
    let done = AtomicUsize::new(0);
    // Two at once would both be done with before the first one stops them.
    let workers = if most == usize::MAX { 2 } else { 1 };
    let job = Job {
        settings: settings(),
        shard,
        workers: NonZero::new(workers).expect("not 0"),
        stop: &stop,
    };
    let count = |_: &Progress<'_>| {
        if done.fetch_add(1, Ordering::Relaxed) + 1 >= most {
            stop.store(true, Ordering::Relaxed);
        }
    };
    prepare(&listings(data), cache, &job, &count).expect("a cache")
}

fn prepare_all(data: &Path, cache: &Path) -> Summary {
    prepare_some(data, cache, Shard::WHOLE, usize::MAX)
}

/// All files under a folder with their bytes.
fn tree(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let bytes = fs::read(&path).expect("a file");
                let name = path.strip_prefix(folder).expect("it is in there");
                files.insert(name.to_owned(), bytes);
            }
        }
    }
    files
}

#[track_caller]
fn assert_same_files(one: &Path, other: &Path) {
    let (one, other) = (tree(one), tree(other));
    let names = |tree: &BTreeMap<PathBuf, _>| tree.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&one), names(&other));
    for (name, bytes) in &one {
        assert!(other[name] == *bytes, "{} differs", name.display());
    }
}

#[test]
fn the_cache_holds_what_preprocessing_makes() {
    let (data, folder) = (phantoms(), tempfile::tempdir().expect("a folder"));
    let cache = folder.path().join("cache");
    let summary = prepare_all(data.path(), &cache);
    assert_eq!((summary.prepared, summary.already, summary.left), (5, 0, 0));
    assert!(cache::is_cache(&cache) && !cache::is_cache(data.path()));
    assert_eq!(cache::settings(&cache).expect("settings"), settings());

    for split in Split::ALL {
        let original = ct_rate::read(data.path(), split, &ct_rate::Options::default());
        let original = original.expect("phantoms");
        let prepared = cache::read(&cache, &[Some(split)]).expect("a cache");
        assert_eq!(prepared.label_names, original.label_names);
        assert_eq!(prepared.problems, []);
        assert_eq!(prepared.samples.len(), original.samples.len());
        for (prepared, original) in prepared.samples.iter().zip(&original.samples) {
            assert_eq!(
                (
                    &prepared.name,
                    &prepared.patient,
                    &prepared.report,
                    &prepared.labels
                ),
                (
                    &original.name,
                    &original.patient,
                    &original.report,
                    &original.labels
                )
            );
            let preprocess = settings().preprocess;
            let (nothing, options) = (ScanMetadata::default(), ScanOptions::default());
            let run = |path, metadata| preprocess.run_file(path, metadata, &options);
            let from_scan = run(&original.path, &original.metadata).expect("a volume");
            let from_cache = run(&prepared.path, &nothing).expect("a volume");
            assert_eq!(from_cache.rescale, from_scan.rescale);
            assert_eq!(from_cache.shape, from_scan.shape);
            let half = preprocess.run_file_half(&prepared.path, &nothing, &options);
            assert!(half.expect("a volume") == from_scan.to_half());
            // Half the distance of two half floats below 1, of 600 HU.
            for (one, other) in from_cache.values.iter().zip(&from_scan.values) {
                assert!((one - other).abs() * 600.0 <= 0.1465, "{one} and {other}");
            }
            let volume = PreparedVolume::open(&prepared.path).expect("a volume");
            let sha256 = Sha256::digest(fs::read(&original.path).expect("a scan"));
            let sha256: String = sha256.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(volume.record().source.sha256, sha256);
        }
    }
}

#[test]
fn shards_and_stops_leave_the_same_bytes() {
    let (data, folder) = (phantoms(), tempfile::tempdir().expect("a folder"));
    fs::write(scan(data.path(), "train_2_a_1.nii.gz"), "no scan").expect("it can be written");
    let [whole, parts] = ["whole", "parts"].map(|name| folder.path().join(name));
    assert_eq!(prepare_all(data.path(), &whole).left, 0);

    assert_eq!(prepare_some(data.path(), &parts, shard(1, 2), 1).left, 4);
    // What a killed process leaves.
    let volumes = parts.join("volumes");
    fs::create_dir(volumes.join("train_1_a_1.nii.gz.zarr.77-1f.tmp")).expect("a folder");
    fs::write(
        volumes.join("train_1_a_1.nii.gz.zarr.77-1f.tmp/c.0.0.0"),
        "half",
    )
    .expect("a file");
    let error = cache::read(&parts, &[None]).expect_err("it is not complete");
    assert!(error.to_string().contains("no manifest.csv yet"), "{error}");
    assert_eq!(
        prepare_some(data.path(), &parts, shard(0, 2), usize::MAX).left,
        1
    );
    assert_eq!(
        prepare_some(data.path(), &parts, shard(1, 2), usize::MAX).left,
        0
    );
    assert_same_files(&whole, &parts);

    // A volume whose bytes were lost is made again, and all others stay.
    let lost = volumes.join("valid_1_a_1.nii.gz.zarr/c.0.0.0");
    let bytes = fs::read(&lost).expect("a volume");
    fs::write(&lost, &bytes[..bytes.len() / 2]).expect("it can be written");
    let summary = prepare_all(data.path(), &parts);
    assert_eq!((summary.prepared, summary.already), (1, 3));
    assert_same_files(&whole, &parts);
}

#[test]
fn bad_scans_go_into_quarantine_and_only_they_are_tried_again() {
    let (data, folder) = (phantoms(), tempfile::tempdir().expect("a folder"));
    let cache = folder.path().join("cache");
    let names = [
        "train_1_a_1.nii.gz",
        "train_3_a_1.nii.gz",
        "valid_2_a_1.nii.gz",
    ];
    let [text, cut, damaged] = names.map(|name| scan(data.path(), name));
    let good = [&text, &cut, &damaged].map(|path| fs::read(path).expect("a phantom"));
    fs::write(&text, "<html>404</html>").expect("it can be written");
    fs::write(&cut, &good[1][..good[1].len() / 2]).expect("it can be written");
    let mut flipped = good[2].clone();
    let middle = flipped.len() / 2;
    flipped[middle..middle + 100].fill(0x55);
    fs::write(&damaged, &flipped).expect("it can be written");

    let summary = prepare_all(data.path(), &cache);
    assert_eq!((summary.prepared, summary.left), (2, 0));
    let found: Vec<(&str, &str)> = summary
        .quarantined
        .iter()
        .map(|bad| (bad.name.as_str(), bad.reason.as_str()))
        .collect();
    let reasons = ["not a scan", "damaged file", "damaged file"];
    assert_eq!(found, names.into_iter().zip(reasons).collect::<Vec<_>>());
    let table = fs::read_to_string(cache.join("quarantine.csv")).expect("a table");
    assert_eq!(table.lines().count(), 4, "{table}");
    assert!(
        table.contains("train_1_a_1.nii.gz,train,not a scan"),
        "{table}"
    );
    assert!(
        table.contains("a web page (the download went wrong)"),
        "{table}"
    );
    let data_set = cache::read(&cache, &[Some(Split::Validation), None]).expect("a cache");
    assert_eq!(data_set.samples.len(), 1);
    assert_eq!(data_set.problems.len(), 1);
    assert_eq!(data_set.problems[0].kind, ProblemKind::Quarantined);
    assert_eq!(data_set.problems[0].name, "valid_2_a_1.nii.gz");

    for (path, bytes) in [&text, &cut].into_iter().zip(&good) {
        fs::write(path, bytes).expect("it can be written");
    }
    let again = prepare_all(data.path(), &cache);
    assert_eq!((again.prepared, again.already), (2, 2));
    assert_eq!(again.quarantined.len(), 1);
    fs::write(&damaged, &good[2]).expect("it can be written");
    assert_eq!(prepare_all(data.path(), &cache).quarantined, []);
    let whole = folder.path().join("whole");
    prepare_all(data.path(), &whole);
    assert_same_files(&whole, &cache);
}

#[test]
fn a_scan_that_changed_is_prepared_again() {
    let (data, folder) = (phantoms(), tempfile::tempdir().expect("a folder"));
    let cache = folder.path().join("cache");
    prepare_all(data.path(), &cache);
    let [one, other] =
        ["train_1_a_1.nii.gz", "train_2_a_1.nii.gz"].map(|name| scan(data.path(), name));
    fs::copy(&other, &one).expect("it can be copied");
    let summary = prepare_all(data.path(), &cache);
    assert_eq!((summary.prepared, summary.already), (1, 4));
    let record = |name: &str| {
        let volume = PreparedVolume::open(&cache.join("volumes").join(name));
        volume.expect("a volume").record().clone()
    };
    let [one, other] = ["train_1_a_1.nii.gz.zarr", "train_2_a_1.nii.gz.zarr"].map(record);
    assert_eq!(one.source, other.source);
}

#[test]
fn a_cache_is_continued_and_used_with_its_own_settings_only() {
    let (data, folder) = (phantoms(), tempfile::tempdir().expect("a folder"));
    let cache = folder.path().join("cache");
    prepare_some(data.path(), &cache, Shard::WHOLE, 2);
    let mut other = settings();
    other.preprocess.shape.depth = 24;
    let never = AtomicBool::new(false);
    let job = Job {
        settings: other.clone(),
        shard: Shard::WHOLE,
        workers: NonZero::<usize>::MIN,
        stop: &never,
    };
    let error = prepare(&listings(data.path()), &cache, &job, &|_| {});
    let error = error.expect_err("other settings").to_string();
    assert!(
        error.contains("`preprocess.shape.depth` = 20, expected 24"),
        "{error}"
    );

    prepare_all(data.path(), &cache);
    let volume = cache.join("volumes/train_1_a_1.nii.gz.zarr");
    let load = |preprocess: &Preprocess, metadata| {
        preprocess.run_file(&volume, metadata, &ScanOptions::default())
    };
    let nothing = ScanMetadata::default();
    let error = load(&other.preprocess, &nothing).expect_err("another shape");
    assert!(
        error
            .to_string()
            .contains("`shape.depth` = 20, expected 24"),
        "{error}"
    );
    let spacing = ScanMetadata {
        spacing_mm: Some([1.0; 3]),
        ..nothing
    };
    let error = load(&settings().preprocess, &spacing).expect_err("too late");
    assert!(error.to_string().contains("prepared already"), "{error}");
    load(&settings().preprocess, &nothing).expect("as it was prepared");
}
