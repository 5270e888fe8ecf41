use std::fs;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

const LABEL_FILE: &str = "multi_abnormality_labels/train_predicted_labels.csv";
const REPORT_FILE: &str = "radiology_text_reports/train_reports.csv";
const METADATA_FILE: &str = "metadata/train_metadata.csv";

fn write(root: &Path, path: &str, content: impl AsRef<[u8]>) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

fn volume(root: &Path, name: &str) {
    let parts: Vec<_> = name.split(['_', '.']).collect();
    let [split, patient, scan, ..] = parts[..] else {
        panic!("{name} is no name of a volume")
    };
    write(
        root,
        &format!("dataset/{split}/{split}_{patient}/{split}_{patient}_{scan}/{name}"),
        "",
    );
}

fn labels(rows: &[(&str, &str)]) -> String {
    let header = format!("VolumeName,{}\n", ABNORMALITIES.join(","));
    header
        + &rows
            .iter()
            .map(|(name, cells)| format!("{name},{cells}\n"))
            .collect::<String>()
}

const NO_LABEL: &str = "0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0";
const ONE_LABEL: &str = "0,0,1,0,0.0,0,0,0,0,0,0,0,0,0,0,0,0,1.0";

/// Two patients, three volumes, everything in order.
fn sound() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    for name in [
        "train_2_a_1.nii.gz",
        "train_1_a_2.nii.gz",
        "train_1_a_1.nii.gz",
    ] {
        volume(root, name);
    }
    write(
        root,
        REPORT_FILE,
        "VolumeName,ClinicalInformation_EN,Technique_EN,Findings_EN,Impressions_EN\n\
         train_1_a_1.nii.gz,x,y,\"A \"\"large\"\" heart,\nno effusion (pleural).\",Patient's heart is large.\n\
         train_1_a_2.nii.gz,x,y,Not given.,Normal.\n\
         train_2_a_1.nii.gz,x,y,Clear lungs.,Not given.\n",
    );
    write(
        root,
        LABEL_FILE,
        labels(&[
            ("train_1_a_1.nii.gz", ONE_LABEL),
            ("train_1_a_2.nii.gz", ONE_LABEL),
            ("train_2_a_1.nii.gz", NO_LABEL),
        ]),
    );
    write(
        root,
        METADATA_FILE,
        "VolumeName,Manufacturer,RescaleSlope,RescaleIntercept,XYSpacing,ZSpacing\n\
         train_1_a_1.nii.gz,S,1,-8192,\"[0.703125, 0.75]\",1.5\n\
         train_1_a_2.nii.gz,S,1.0,-1024.0,\"['0.7', '0.7']\",0.5\n\
         train_2_a_1.nii.gz,S,,,,\n",
    );
    folder
}

fn read_train(root: &Path) -> Result<DataSet> {
    read(root, Split::Train, &Options::default())
}

fn problems(data: &DataSet) -> Vec<(ProblemKind, &str)> {
    data.problems
        .iter()
        .map(|problem| (problem.kind, problem.name.as_str()))
        .collect()
}

#[test]
fn joins_files_reports_labels_and_metadata() {
    let folder = sound();
    let data = read_train(folder.path()).unwrap();
    assert_eq!(problems(&data), []);
    assert_eq!(data.label_names, ABNORMALITIES);

    let names: Vec<_> = data
        .samples
        .iter()
        .map(|sample| (sample.name.as_str(), sample.patient.as_str()))
        .collect();
    let expected = [
        ("train_1_a_1.nii.gz", "train_1"),
        ("train_1_a_2.nii.gz", "train_1"),
        ("train_2_a_1.nii.gz", "train_2"),
    ];
    assert_eq!(names, expected);
    assert_eq!(data.count_patients(), 2);

    let [first, second, third] = &data.samples[..] else {
        panic!("three samples")
    };
    assert_eq!(
        first.path,
        folder
            .path()
            .join("dataset/train/train_1/train_1_a/train_1_a_1.nii.gz")
    );
    // Findings and impressions touch: that is how the authors' models were trained.
    let text = "A large heart,\nno effusion pleural.Patients heart is large.";
    assert_eq!(first.report.as_deref(), Some(text));
    assert_eq!(second.report.as_deref(), Some("Normal."));
    assert_eq!(third.report.as_deref(), Some("Clear lungs."));

    let positive: Vec<_> = (0..18)
        .filter(|index| first.labels[*index] == Some(true))
        .collect();
    assert_eq!(positive, [2, 17]);
    assert!(third.labels.iter().all(|label| *label == Some(false)));
    assert_eq!(
        data.count_labels()[2],
        crate::dataset::LabelCount {
            known: 3,
            positive: 2
        }
    );

    let facts = first.metadata;
    assert_eq!(
        facts.rescale,
        Some(Rescale {
            slope: 1.0,
            intercept: -8192.0
        })
    );
    // DICOM names the distance between rows first; along `i`, the columns, it is the second.
    assert_eq!(facts.spacing_mm, Some([0.75, 0.703125, 1.5]));
    assert_eq!(second.metadata.spacing_mm, Some([0.7, 0.7, 0.5]));
    assert_eq!(third.metadata, ScanMetadata::default());
}

#[test]
fn everything_that_does_not_fit_is_listed() {
    let folder = sound();
    let root = folder.path();
    volume(root, "train_3_a_1.nii.gz"); // no row anywhere
    write(
        root,
        "dataset/train/train_1/train_1_b/train_1_a_1.nii.gz",
        "",
    ); // the same name again
    write(root, "dataset/train/train_1/._train_1_a_1.nii.gz", ""); // not a volume
    let mut table = labels(&[
        ("train_1_a_1.nii.gz", ONE_LABEL),
        ("train_1_a_1.nii.gz", NO_LABEL),
    ]);
    table += &format!("train_1_a_2.nii.gz,{}\n", ",".repeat(17));
    table += &format!("train_2_a_1.nii.gz,{NO_LABEL}\ntrain_9_a_1.nii.gz,{NO_LABEL}\n");
    write(root, LABEL_FILE, table);

    let data = read_train(root).unwrap();
    let expected = [
        (ProblemKind::FileMissing, "train_9_a_1.nii.gz"),
        (ProblemKind::ReportMissing, "train_3_a_1.nii.gz"),
        (ProblemKind::LabelsMissing, "train_1_a_2.nii.gz"),
        (ProblemKind::LabelsMissing, "train_3_a_1.nii.gz"),
        (ProblemKind::MetadataMissing, "train_3_a_1.nii.gz"),
        (ProblemKind::DuplicateRow, "train_1_a_1.nii.gz"),
        (ProblemKind::DuplicateFile, "train_1_a_1.nii.gz"),
    ];
    assert_eq!(problems(&data), expected);
    assert_eq!(data.count_problems()[&ProblemKind::LabelsMissing], 2);
    // A volume without rows is a sample all the same, and the first of two rows counts.
    assert_eq!(data.samples.len(), 4);
    assert_eq!(data.samples[0].labels[2], Some(true));
    assert!(!data.samples[3].is_labelled());
    assert_eq!(data.samples[3].labels.len(), 18);
}

#[test]
fn excluded_volumes_are_named_and_are_no_problem() {
    let folder = sound();
    let list = folder.path().join("no_chest_train.csv");
    fs::write(
        &list,
        "VolumeName\ntrain_1_a_2.nii.gz\ntrain_77_a_1.nii.gz\n",
    )
    .unwrap();
    let data = read(
        folder.path(),
        Split::Train,
        &Options {
            exclude: vec![list],
        },
    )
    .unwrap();
    assert_eq!(data.excluded, ["train_1_a_2.nii.gz"]);
    assert_eq!(data.samples.len(), 2);
    assert_eq!(problems(&data), []);
}

#[test]
fn a_missing_table_is_one_problem_and_a_missing_folder_an_error() {
    let folder = sound();
    fs::remove_file(folder.path().join(METADATA_FILE)).unwrap();
    let data = read_train(folder.path()).unwrap();
    assert_eq!(
        problems(&data),
        [(ProblemKind::TableMissing, METADATA_FILE)]
    );

    let error = read(folder.path(), Split::Validation, &Options::default())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("found no folder `dataset/valid_fixed` or `dataset/valid`"),
        "{error}"
    );
}

#[test]
fn other_layouts_in_use_are_read_too() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    // Tables below `dataset`, the second release, a file somebody decompressed, the other name of the impressions.
    write(
        root,
        "dataset/train_fixed/train_1/train_1_a/train_1_a_1.nii",
        "",
    );
    volume(root, "train_1_a_1.nii.gz");
    write(
        root,
        "dataset/radiology_text_reports/train_reports.csv",
        "VolumeName,Findings_EN,Impression_EN\ntrain_1_a_1.nii.gz,A.,B.\n",
    );
    let data = read_train(root).unwrap();
    assert_eq!(data.samples.len(), 1);
    assert!(
        data.samples[0]
            .path
            .ends_with("train_fixed/train_1/train_1_a/train_1_a_1.nii")
    );
    assert_eq!(data.samples[0].report.as_deref(), Some("A.B."));
    assert_eq!(data.samples[0].patient, "train_1");
    // `root` may be the `dataset` folder itself.
    assert_eq!(
        read_train(&root.join("dataset")).unwrap().samples,
        data.samples
    );
}

#[test]
fn wrong_tables_stop_with_file_place_and_cure() {
    let cases: &[(&str, &str, &str)] = &[
        (
            REPORT_FILE,
            "VolumeName,Findings,Impressions_EN\n",
            "column `Findings_EN` is missing, found `VolumeName`, `Findings`",
        ),
        (
            LABEL_FILE,
            "VolumeName,Cardiomegaly\n",
            "column `Medical material` is missing",
        ),
        (
            METADATA_FILE,
            "VolumeName;RescaleSlope\n",
            "column `VolumeName` is missing, found `VolumeName;RescaleSlope`",
        ),
        (
            METADATA_FILE,
            "VolumeName,VolumeName\n",
            "column `VolumeName` is there twice",
        ),
        (
            REPORT_FILE,
            "VolumeName,Findings_EN,Impressions_EN\na,b\n",
            "line 2 has 2 cells, expected 3 as in the header",
        ),
        (
            LABEL_FILE,
            &labels(&[("a", &ONE_LABEL.replace('1', "2"))]),
            "line 2, column `Cardiomegaly` is \"2\", expected 0, 1 or nothing",
        ),
        (
            LABEL_FILE,
            &labels(&[("", ONE_LABEL)]),
            "line 2, column `VolumeName` is \"\", expected a name",
        ),
        (
            METADATA_FILE,
            "VolumeName,RescaleSlope,RescaleIntercept,XYSpacing,ZSpacing\na,1,0,[0.7],1\n",
            "column `XYSpacing` is \"[0.7]\"",
        ),
        (
            METADATA_FILE,
            "VolumeName,RescaleSlope,RescaleIntercept,XYSpacing,ZSpacing\na,1,0,\"[0.7, -1]\",1\n",
            "column `XYSpacing`",
        ),
        (
            METADATA_FILE,
            "VolumeName,RescaleSlope,RescaleIntercept,XYSpacing,ZSpacing\na,inf,0,,1\n",
            "column `RescaleSlope` is \"inf\", expected a number",
        ),
        (
            METADATA_FILE,
            "VolumeName,RescaleSlope,RescaleIntercept,XYSpacing,ZSpacing\na,1,0,,0\n",
            "column `ZSpacing` is \"0\", expected millimetres above 0",
        ),
    ];
    for (file, content, expected) in cases {
        let folder = sound();
        write(folder.path(), file, content);
        let error = read_train(folder.path()).unwrap_err().to_string();
        assert!(
            error.contains(expected) && error.contains(file),
            "{error}\nexpected: {expected}"
        );
    }
    let folder = sound();
    write(
        folder.path(),
        REPORT_FILE,
        b"VolumeName,Findings_EN,Impressions_EN\na,\xff\xfe,c\n",
    );
    let error = read_train(folder.path()).unwrap_err().to_string();
    assert!(
        error.contains("not UTF-8 in cell 2") && error.contains("save the table as UTF-8"),
        "{error}"
    );
}

#[test]
fn fifty_thousand_rows_are_quick() {
    // As many rows as CT-RATE has, with reports of usual length. The whole test takes 0.7 s here; the limit only
    // catches an algorithm that compares every row with every other, which would take minutes.
    let folder = sound();
    let report = "The trachea and both main bronchi are open. ".repeat(40);
    let mut table = String::from("VolumeName,Findings_EN,Impressions_EN\n");
    let mut label_rows = labels(&[]);
    for patient in 0..25_000 {
        for reconstruction in 1..3 {
            table += &format!("train_{patient}_a_{reconstruction}.nii.gz,\"{report}\",Normal.\n");
            label_rows += &format!("train_{patient}_a_{reconstruction}.nii.gz,{NO_LABEL}\n");
        }
    }
    write(folder.path(), REPORT_FILE, table);
    write(folder.path(), LABEL_FILE, label_rows);
    let start = std::time::Instant::now();
    let data = read_train(folder.path()).unwrap();
    let elapsed = start.elapsed();
    assert_eq!(data.count_problems()[&ProblemKind::FileMissing], 49_997);
    assert!(elapsed.as_secs() < 10, "{elapsed:?}");
}

#[test]
fn patients_are_read_off_the_name_or_the_folder() {
    let file = |name: &str, top: Option<&str>| VolumeFile {
        name: name.into(),
        path: name.into(),
        top_folder: top.map(String::from),
    };
    assert_eq!(
        file("valid_12_b_2.nii.gz", Some("elsewhere")).patient(),
        "valid_12"
    );
    assert_eq!(
        file("scan_final_v2.nii.gz", Some("patient 7")).patient(),
        "patient 7"
    );
    assert_eq!(file("scan.nii", None).patient(), "scan");
}

proptest! {
    #[test]
    fn hostile_tables_give_errors_and_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), header in any::<bool>()) {
        let folder = tempfile::tempdir().unwrap();
        volume(folder.path(), "train_1_a_1.nii.gz");
        for (file, columns) in [
            (REPORT_FILE, "VolumeName,Findings_EN,Impressions_EN\n".to_owned()),
            (METADATA_FILE, "VolumeName,RescaleSlope,RescaleIntercept,XYSpacing,ZSpacing\n".to_owned()),
            (LABEL_FILE, labels(&[])),
        ] {
            let mut content = if header { columns.into_bytes() } else { Vec::new() };
            content.extend(&bytes);
            write(folder.path(), file, content);
        }
        let _ = read_train(folder.path());
    }

    #[test]
    fn cells_that_look_like_spacings_never_panic(cell in "[\\[\\]()', 0-9.eE+\\-naif]{0,24}") {
        let folder = sound();
        let header = "VolumeName,RescaleSlope,RescaleIntercept,XYSpacing,ZSpacing\n";
        write(folder.path(), METADATA_FILE, format!("{header}train_1_a_1.nii.gz,1,0,\"{cell}\",1\n"));
        if let Ok(data) = read_train(folder.path()) {
            let spacing = data.samples[0].metadata.spacing_mm;
            prop_assert!(spacing.is_none_or(|spacing| spacing.iter().all(|value| value.is_finite() && *value > 0.0)));
        }
    }
}
