//! Caches and scans in a bucket: one in memory, and one of a server if `scripts/with_s3_server.sh` has started it.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use dcformer_volume::cache::{self, Listing};
use dcformer_volume::ct_rate::Split;
use dcformer_volume::dataset::ScanMetadata;
use dcformer_volume::scan::ScanOptions;
use dcformer_volume::storage;

use super::{
    assert_same_files, listings, phantoms, prepare_all, prepare_some, scan, settings, shard, tree,
};

/// Buckets with a folder for a test.
fn buckets(test: &str) -> Vec<PathBuf> {
    /// Address of a bucket, to which the usual variables of the environment open the door.
    const BUCKET: &str = "DCFORMER_TEST_BUCKET";
    let memory = PathBuf::from(format!("memory://{test}/a/b"));
    let server = std::env::var_os(BUCKET).map(PathBuf::from);
    if server.is_none() {
        // Not by `eprintln!`, which is caught and not shown when a test passes.
        writeln!(
            std::io::stderr(),
            "{test}: in memory only; {BUCKET} names no bucket, scripts/with_s3_server.sh starts a server"
        )
        .expect("a terminal or a file");
    }
    let own = format!("{test}-{}", std::process::id());
    let server = server.map(|bucket| bucket.join(own));
    [memory].into_iter().chain(server).collect()
}

/// Copies a folder to an address.
fn upload(folder: &Path, address: &Path) {
    for (name, bytes) in tree(folder) {
        storage::write(&address.join(name), &bytes).expect("a bucket");
    }
}

#[track_caller]
fn assert_holds(address: &Path, folder: &Path) {
    let copy = storage::fetch(address).expect("a cache");
    assert_same_files(folder, copy.path());
}

#[test]
fn a_cache_in_a_bucket_has_the_bytes_of_one_in_a_folder() {
    for bucket in buckets("parts") {
        prepare_in_parts(&bucket);
    }
}

fn prepare_in_parts(parts: &Path) {
    let (data, folder) = (phantoms(), tempfile::tempdir().expect("a folder"));
    let bad = scan(data.path(), "train_2_a_1.nii.gz");
    let good = fs::read(&bad).expect("a scan");
    fs::write(&bad, "no scan").expect("it can be written");
    let whole = folder.path().join("whole");
    prepare_all(data.path(), &whole);

    assert_eq!(prepare_some(data.path(), parts, shard(1, 2), 1).left, 4);
    let error = cache::read(parts, &[None]).expect_err("it is not complete");
    assert!(error.to_string().contains("no manifest.csv yet"), "{error}");
    // What a process leaves that is killed between two uploads.
    let cut = parts.join("volumes/valid_1_a_1.nii.gz.zarr/c.0.0.0");
    storage::write(&cut, b"half").expect("a bucket");
    let summary = prepare_some(data.path(), parts, shard(0, 2), usize::MAX);
    assert_eq!((summary.prepared, summary.left), (3, 1));
    let summary = prepare_some(data.path(), parts, shard(1, 2), usize::MAX);
    assert_eq!((summary.quarantined.len(), summary.left), (1, 0));
    assert_holds(parts, &whole);

    // A volume of which something was lost is made again, and what is in quarantine.
    storage::write(&cut, b"half").expect("a bucket");
    fs::write(&bad, good).expect("it can be written");
    let summary = prepare_all(data.path(), parts);
    assert_eq!((summary.prepared, summary.already), (2, 3));
    fs::remove_dir_all(&whole).expect("it can be removed");
    prepare_all(data.path(), &whole);
    assert_holds(parts, &whole);
}

#[test]
fn volumes_of_a_bucket_are_loaded_like_those_of_a_folder() {
    for bucket in buckets("load") {
        load_volumes(&bucket.join("cache"));
    }
}

fn load_volumes(address: &Path) {
    let (data, folder) = (phantoms(), tempfile::tempdir().expect("a folder"));
    let local = folder.path().join("cache");
    prepare_all(data.path(), &local);
    prepare_all(data.path(), address);
    assert!(cache::is_cache(address) && !cache::is_cache(&address.join("volumes/none.zarr")));
    assert_eq!(cache::settings(address).expect("settings"), settings());

    let splits = Split::ALL.map(Some);
    let [one, other] =
        [&local, address].map(|cache: &Path| cache::read(cache, &splits).expect("a cache"));
    assert_eq!(one.samples.len(), 5);
    assert_eq!(one.label_names, other.label_names);
    for (one, other) in one.samples.iter().zip(&other.samples) {
        let place = one.path.strip_prefix(&local).expect("in the cache");
        assert_eq!(other.path, address.join(place));
        let load = |path: &Path| {
            let options = ScanOptions::default();
            let preprocess = settings().preprocess;
            preprocess.run_file_half(path, &ScanMetadata::default(), &options)
        };
        assert!(load(&one.path).expect("a volume") == load(&other.path).expect("a volume"));
    }
    let lost = &other.samples[0].path;
    storage::write(&lost.join("c.0.0.0"), &[7; 100]).expect("a bucket");
    let load = |path: &Path| {
        let (metadata, options) = (ScanMetadata::default(), ScanOptions::default());
        settings().preprocess.run_file(path, &metadata, &options)
    };
    let error = load(lost).expect_err("it is damaged").to_string();
    assert!(error.contains(lost.to_str().expect("a name")), "{error}");
    assert!(error.contains("the file is damaged"), "{error}");
    load(&address.join("volumes/none.zarr")).expect_err("it is not there");
}

#[test]
fn scans_of_a_bucket_are_prepared_like_those_of_a_folder() {
    for bucket in buckets("scans") {
        prepare_scans(&bucket);
    }
}

fn prepare_scans(address: &Path) {
    let (data, folder) = (phantoms(), tempfile::tempdir().expect("a folder"));
    let bad = scan(data.path(), "train_2_a_1.nii.gz");
    let good = fs::read(&bad).expect("a scan");
    fs::write(&bad, &good[..good.len() / 2]).expect("it can be written");
    upload(data.path(), address);
    let [from_folder, from_bucket] = ["folder", "bucket"].map(|name| folder.path().join(name));
    prepare_all(data.path(), &from_folder);
    let summary = prepare_all(address, &from_bucket);
    assert_eq!((summary.prepared, summary.quarantined.len()), (4, 1));

    // The same but for where the scan lies.
    let [here, there] = [data.path(), address].map(|path| path.to_str().expect("a name"));
    for (name, bytes) in tree(&from_folder) {
        let other = fs::read(from_bucket.join(&name)).expect("the same file");
        match name.to_str() {
            Some(table) if table.starts_with("quarantine") => {
                let text = String::from_utf8(bytes).expect("a text");
                let moved = text.replace(here, there);
                assert_eq!(moved.as_bytes(), other, "{table}");
            }
            _ => assert!(bytes == other, "{} differs", name.display()),
        }
    }
    let again = prepare_all(address, &from_bucket);
    assert_eq!((again.prepared, again.already), (0, 4));
}

#[test]
fn a_table_of_a_bucket_lists_files_and_folders_beside_it() {
    for bucket in buckets("table") {
        read_table(&bucket);
    }
}

fn read_table(bucket: &Path) {
    let data = phantoms();
    let address = bucket.join("list.csv");
    let place = |name: &str| bucket.join(name);
    let one = fs::read(scan(data.path(), "train_1_a_1.nii.gz")).expect("a scan");
    for name in ["scans/1.nii.gz", "series/1.dcm", "series/deeper/2.dcm"] {
        storage::write(&place(name), &one).expect("a bucket");
    }
    let rows = format!(
        "volume,sick\nscans/1.nii.gz,1\nseries,0\n{},0\nnone,1\n",
        place("scans/1.nii.gz").display()
    );
    storage::write(&address, rows.as_bytes()).expect("a bucket");
    let listings = listings(&address);
    let [Listing { data, .. }] = &listings[..] else {
        panic!("one listing");
    };
    let paths: Vec<&Path> = data.samples.iter().map(|sample| &*sample.path).collect();
    let [file, series] = ["scans/1.nii.gz", "series"].map(place);
    assert_eq!(paths, [&*file, &*series, &*file]);
    assert_eq!(data.problems.len(), 1);
    let series = storage::fetch(&series).expect("a folder");
    let files: Vec<PathBuf> = tree(series.path()).into_keys().collect();
    assert_eq!(files, ["1.dcm", "deeper/2.dcm"].map(PathBuf::from));
    let copy = series.path().to_owned();
    drop(series);
    assert!(!copy.exists());
}

#[test]
fn an_address_without_a_bucket_says_so() {
    for (address, said) in [
        ("s3://", "names no bucket"),
        ("s3:///key", "names no bucket"),
        ("memory://b/a//b", "empty path segment"),
    ] {
        let error = storage::fetch(Path::new(address)).expect_err("no bucket");
        assert!(error.to_string().contains(said), "{error}");
    }
}
