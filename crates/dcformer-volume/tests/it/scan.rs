//! Files and folders are told apart by content.

use std::fs;

use dcformer_volume::scan::{ScanKind, ScanOptions, ScanSource, read_scan, scan_kind};

use crate::variants::{VARIANTS, gzip};

#[test]
fn nifti_files_are_scans_whatever_their_names() {
    for name in [
        "v00_base_i16le.nii.gz",
        "v29_gz_named.nii",
        "v30_raw_named.nii.gz",
        "v11_pair.hdr",
        "v11_pair.img",
    ] {
        let scan = read_scan(&VARIANTS.path(name), &ScanOptions::default()).unwrap();
        assert_eq!(scan.source, ScanSource::Nifti);
        assert_eq!(scan.volume.grid.size, [64, 64, 30]);
    }
}

#[test]
fn notes_of_the_reader_come_with_the_scan() {
    let notes = |name: &str| {
        read_scan(&VARIANTS.path(name), &ScanOptions::default())
            .unwrap()
            .notes
    };
    assert_eq!(notes("v00_base_i16le.nii.gz"), [""; 0]);
    assert_eq!(
        notes("v27_f32_nan_inf.nii.gz"),
        ["3 voxels are NaN or infinite; NaN is taken as air"]
    );
    assert_eq!(notes("v22_conflict_forms.nii.gz").len(), 1);
}

#[test]
fn what_is_no_scan_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let mut dicom = vec![0; 128];
    dicom.extend(b"DICM");
    let cases: [(&str, Vec<u8>, &str); 6] = [
        (
            "report.nii.gz",
            b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n".into(),
            "this is a PDF document, expected a NIfTI file",
        ),
        ("empty.dcm", Vec::new(), "this is an empty file"),
        (
            "notes.nii",
            b"A chest CT, see the report.\n".into(),
            "this is a text file",
        ),
        (
            "page.nii.gz",
            gzip(b"<!DOCTYPE html><html></html>"),
            "this is a web page",
        ),
        (
            "slice.dcm.gz",
            gzip(&dicom),
            "this is a compressed DICOM file (unpack it first)",
        ),
        ("zeros.img", vec![0; 1000], "this is a file of zeros"),
    ];
    for (name, bytes, message) in cases {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        let error = read_scan(&path, &ScanOptions::default())
            .unwrap_err()
            .to_string();
        assert!(error.contains(message), "{error}");
        assert!(error.starts_with(path.to_str().unwrap()), "{error}");
    }
    let empty = tempfile::tempdir().unwrap();
    let error = read_scan(empty.path(), &ScanOptions::default())
        .unwrap_err()
        .to_string();
    assert!(error.contains("this is an empty folder"), "{error}");
    let error = read_scan(&folder.path().join("missing.nii"), &ScanOptions::default())
        .unwrap_err()
        .to_string();
    assert!(error.contains("cannot read"), "{error}");
}

#[test]
fn dicom_is_known_by_its_prefix() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("IM0001");
    let mut dicom = vec![0; 128];
    dicom.extend(b"DICM");
    fs::write(&path, dicom).unwrap();
    assert_eq!(scan_kind(&path).unwrap(), ScanKind::Dicom);
    assert_eq!(scan_kind(folder.path()).unwrap(), ScanKind::Dicom);
}
