//! Bad input: the message names the file and the cure, the status is 1, and nothing half-written stays.

use std::path::{Path, PathBuf};

use super::{dcformer, repository, text};

/// Runs the program, which must fail, and gives its message.
fn fail(arguments: &[&str]) -> String {
    let output = dcformer(arguments);
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {message}");
    assert!(output.stdout.is_empty(), "{arguments:?}");
    assert!(!message.contains("panicked"), "{arguments:?}: {message}");
    message
}

/// Preprocesses a file that must be refused with a message that names it and says `expected`.
fn refuse(folder: &Path, input: &Path, expected: &str) {
    let out = folder.join("out.safetensors");
    let message = fail(&[
        "preprocess",
        text(input),
        "--out",
        text(&out),
        "--shape",
        "8,8,8",
    ]);
    let name = input
        .file_name()
        .and_then(|name| name.to_str())
        .expect("a name");
    assert!(message.contains(name), "{name}: {message}");
    assert!(
        message.contains(expected),
        "{name}: expected `{expected}` in: {message}"
    );
    let left = std::fs::read_dir(folder).expect("a folder");
    let left: Vec<PathBuf> = left.map(|entry| entry.expect("an entry").path()).collect();
    assert!(
        left.iter().all(|path| path == input || path.is_dir()),
        "{left:?}"
    );
}

/// A folder with one file in it.
fn file(name: &str, bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).expect("it can be written");
    (folder, path)
}

fn thorax() -> Vec<u8> {
    std::fs::read(repository("golden/ct/thorax_1.5mm.nii.gz")).expect("a scan")
}

#[test]
fn damaged_gzip_is_refused() {
    let whole = thorax();
    let (folder, path) = file("cut.nii.gz", &whole[..whole.len() / 2]);
    refuse(folder.path(), &path, "");
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 0x10;
    let (folder, path) = file("flipped.nii.gz", &flipped);
    refuse(folder.path(), &path, "");
}

#[test]
fn files_that_are_no_scan_are_named() {
    for (name, bytes, expected) in [
        ("report.nii.gz", &b"%PDF-1.7 and so on"[..], "PDF"),
        ("empty.nii.gz", &b""[..], "empty"),
        ("notes.nii", &b"The heart is normal."[..], "text"),
    ] {
        let (folder, path) = file(name, bytes);
        refuse(folder.path(), &path, expected);
    }
    let folder = tempfile::tempdir().expect("a folder");
    let empty = folder.path().join("series");
    std::fs::create_dir(&empty).expect("it can be made");
    refuse(folder.path(), &empty, "empty");
    refuse(folder.path(), &folder.path().join("missing.nii.gz"), "");
}

/// A small uncompressed NIfTI-1 file of int16 zeros with one header field overwritten.
fn nifti(offset: usize, field: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 352 + 8 * 8 * 8 * 2];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    put(0, &348_i32.to_le_bytes());
    for (index, size) in [3_i16, 8, 8, 8, 1, 1, 1, 1].into_iter().enumerate() {
        put(40 + 2 * index, &size.to_le_bytes());
    }
    put(70, &4_i16.to_le_bytes());
    put(72, &16_i16.to_le_bytes());
    for index in 0..4 {
        put(76 + 4 * index, &1_f32.to_le_bytes());
    }
    put(108, &352_f32.to_le_bytes());
    put(344, b"n+1\0");
    put(offset, field);
    bytes
}

#[test]
fn headers_that_no_scan_has_are_refused() {
    for (name, bytes, expected) in [
        ("absurd.nii", nifti(42, &30_000_i16.to_le_bytes()), ""),
        ("negative.nii", nifti(42, &(-5_i16).to_le_bytes()), "dim"),
        ("flat.nii", nifti(80, &0_f32.to_le_bytes()), "pixdim"),
        ("nan.nii", nifti(80, &f32::NAN.to_le_bytes()), "pixdim"),
        ("colour.nii", nifti(70, &128_i16.to_le_bytes()), "RGB"),
        ("zeros.nii", nifti(280, &[0]), "--rescale"),
    ] {
        let (folder, path) = file(name, &bytes);
        refuse(folder.path(), &path, expected);
    }
}

#[test]
fn a_scan_that_is_no_ct_is_refused_unless_forced() {
    let head = repository("golden/ct/head_uint8_scaled.nii.gz");
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("out.safetensors");
    let message = fail(&[
        "preprocess",
        text(&head),
        "--out",
        text(&out),
        "--shape",
        "8,8,8",
    ]);
    assert!(
        message.contains("head_uint8_scaled.nii.gz") && message.contains("--rescale"),
        "{message}"
    );
    assert!(!out.exists());
    super::succeed([
        "preprocess",
        text(&head),
        "--out",
        text(&out),
        "--shape",
        "8,8,8",
        "--rescale",
        "header",
    ]);
    assert!(out.exists());
}

#[test]
fn tables_and_checkpoints_of_another_kind_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let model = super::import_official(folder.path());
    let table = folder.path().join("table.csv");
    std::fs::write(&table, "file,label\nscan.nii.gz,1\n").expect("it can be written");
    let message = fail(&["evaluate", "--model", text(&model), "--data", text(&table)]);
    assert!(
        message.contains("table.csv") && message.contains("`volume`"),
        "{message}"
    );

    let other = folder.path().join("other");
    for checkpoint in ["golden/metrics.safetensors", "golden/clip_loss.safetensors"] {
        let message = fail(&[
            "import",
            text(&repository(checkpoint)),
            "--out",
            text(&other),
        ]);
        assert!(
            message.contains("missing") && message.contains("unknown"),
            "{message}"
        );
        assert!(!other.exists());
    }
    let pickle = folder.path().join("evil.pth");
    // A pickle that calls os.system when Python loads it.
    std::fs::write(&pickle, b"cos\nsystem\n(S'touch owned'\ntR.").expect("it can be written");
    let message = fail(&["import", text(&pickle), "--out", text(&other)]);
    assert!(message.contains("evil.pth"), "{message}");
    assert!(!other.exists() && !Path::new("owned").exists());
}

#[test]
fn places_that_cannot_be_written_are_named() {
    let (folder, path) = file("file", b"in the way");
    let scan = repository("golden/ct/thorax_1.5mm.nii.gz");
    let out = path.join("out.safetensors");
    let message = fail(&[
        "preprocess",
        text(&scan),
        "--out",
        text(&out),
        "--shape",
        "8,8,8",
    ]);
    assert!(message.contains("out.safetensors"), "{message}");
    let message = fail(&["phantom", text(&path), "--train", "1", "--valid", "0"]);
    assert!(message.contains("file"), "{message}");
    assert_eq!(std::fs::read(&path).expect("still there"), b"in the way");
    drop(folder);
}
