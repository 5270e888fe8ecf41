use std::fs;
use std::path::PathBuf;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

/// A folder with three scans, one of them a folder of slices, and a manifest.
fn folder_with(manifest: impl AsRef<[u8]>) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("scans/series")).unwrap();
    fs::write(folder.path().join("scans/a.nii.gz"), "").unwrap();
    fs::write(folder.path().join("b.nii"), "").unwrap();
    let path = folder.path().join("data.csv");
    fs::write(&path, manifest).unwrap();
    (folder, path)
}

fn problems(data: &DataSet) -> Vec<(ProblemKind, &str)> {
    data.problems
        .iter()
        .map(|problem| (problem.kind, problem.name.as_str()))
        .collect()
}

#[test]
fn every_known_column_is_used_and_the_others_are_labels() {
    let (folder, path) = folder_with(
        "\u{feff}volume,report,patient,slope,intercept,spacing_x,spacing_y,spacing_z,Nodule, Effusion ,age\n\
         scans/a.nii.gz,\"A nodule, (small).\",p1,1,-1024,0.7,0.8,2.5,1,,63\n\
         b.nii,Not given.,p1,,,,,,0,1.0,\n\
         scans/series,,,,,,,,,,1\n",
    );
    let data = read(&path).unwrap();
    assert_eq!(data.label_names, ["Nodule", "Effusion"]);
    let expected = [
        (ProblemKind::ReportMissing, "b.nii"),
        (ProblemKind::ReportMissing, "scans/series"),
        (ProblemKind::LabelsMissing, "scans/series"),
        (
            ProblemKind::ColumnUnused,
            "age (\"63\" in line 2 is not 0, 1 or nothing)",
        ),
    ];
    assert_eq!(problems(&data), expected);

    let [first, second, third] = &data.samples[..] else {
        panic!("three samples")
    };
    assert_eq!(first.path, folder.path().join("scans/a.nii.gz"));
    assert_eq!(first.report.as_deref(), Some("A nodule, small."));
    assert_eq!(first.labels, [Some(true), None]);
    assert_eq!(
        first.metadata.rescale,
        Some(Rescale {
            slope: 1.0,
            intercept: -1024.0
        })
    );
    assert_eq!(first.metadata.spacing_mm, Some([0.7, 0.8, 2.5]));
    assert_eq!(second.labels, [Some(false), Some(true)]);
    assert_eq!(second.metadata, ScanMetadata::default());
    assert_eq!(
        [&*first.patient, &*second.patient, &*third.patient],
        ["p1", "p1", "scans/series"]
    );
}

#[test]
fn a_list_of_volumes_is_a_manifest() {
    let (_folder, path) = folder_with("volume\nb.nii\nscans/a.nii.gz\n");
    let data = read(&path).unwrap();
    assert_eq!(problems(&data), []);
    assert_eq!(
        data.samples
            .iter()
            .map(|sample| &*sample.name)
            .collect::<Vec<_>>(),
        ["b.nii", "scans/a.nii.gz"]
    );
    assert!(data.label_names.is_empty() && data.samples[0].labels.is_empty());
}

#[test]
fn missing_files_and_repeated_rows_are_listed() {
    let (_folder, path) = folder_with("volume,x\nb.nii,1\ngone.nii,1\nb.nii,0\n");
    let data = read(&path).unwrap();
    assert_eq!(
        problems(&data),
        [
            (ProblemKind::FileMissing, "gone.nii"),
            (ProblemKind::DuplicateRow, "b.nii")
        ]
    );
    assert_eq!(data.samples.len(), 1);
    assert_eq!(data.samples[0].labels, [Some(true)]);
}

#[test]
fn a_column_without_name_or_values_is_no_label() {
    // Tables written with a row number in front have a column without a name.
    let (_folder, path) = folder_with(",volume,empty\n0,b.nii,\n1,scans/a.nii.gz,\n");
    let data = read(&path).unwrap();
    assert!(data.label_names.is_empty());
    let expected = [
        (ProblemKind::ColumnUnused, " (it has no name)"),
        (ProblemKind::ColumnUnused, "empty (all its cells are empty)"),
    ];
    assert_eq!(problems(&data), expected);
}

#[test]
fn wrong_manifests_stop_with_file_place_and_cure() {
    let cases = [
        ("", "column `volume` is missing"),
        (
            "Volume,report\n",
            "column `volume` is missing, found `Volume`, `report`",
        ),
        ("volume,slope\nb.nii,1\n", "column `intercept` is missing"),
        (
            "volume,spacing_x,spacing_z\n",
            "column `spacing_y` is missing",
        ),
        (
            "volume,slope,intercept\nb.nii,1,\n",
            "line 2, column `intercept` is \"\", expected a number, because",
        ),
        (
            "volume,slope,intercept\nb.nii,1,NaN\n",
            "column `intercept` is \"NaN\", expected a number",
        ),
        (
            "volume,spacing_x,spacing_y,spacing_z\nb.nii,1,0,1\n",
            "column `spacing_y` is \"0\", expected millimetres above 0",
        ),
        ("volume,x\nb.nii\n", "line 2 has 1 cells, expected 2"),
        (
            "volume,x\n  ,1\n",
            "line 2, column `volume` is \"  \", expected a name",
        ),
        ("volume,x,x\n", "column `x` is there twice"),
    ];
    for (content, expected) in cases {
        let (_folder, path) = folder_with(content);
        let error = read(&path).unwrap_err().to_string();
        assert!(
            error.contains(expected) && error.contains("data.csv"),
            "{error}\nexpected: {expected}"
        );
    }
    let error = read(Path::new("no/such/file.csv")).unwrap_err().to_string();
    assert!(error.contains("no/such/file.csv"), "{error}");
}

proptest! {
    #[test]
    fn hostile_manifests_give_errors_and_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), header in any::<bool>()) {
        let mut content = if header { b"volume,report,slope,intercept,label\n".to_vec() } else { Vec::new() };
        content.extend(bytes);
        let (_folder, path) = folder_with(content);
        let _ = read(&path);
    }
}
