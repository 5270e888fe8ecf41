//! Phantoms as a whole: what is drawn is there, nothing else changes, files are what CT-RATE's readers expect.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::*;
use crate::Error;
use crate::dataset::ABNORMALITIES;
use crate::geometry::Orientation;
use crate::nifti::read_nifti;

/// Small and coarse: a test draws dozens.
fn config() -> PhantomConfig {
    PhantomConfig {
        columns: 96,
        ..PhantomConfig::default()
    }
}

fn with(labels: &[usize], patient: u64) -> Phantom {
    let image = Image {
        patient,
        ..Image::default()
    };
    generate_with(&config(), 5, image, |all| {
        *all = std::array::from_fn(|index| labels.contains(&index));
    })
}

fn stored(phantom: &Phantom) -> &[i16] {
    match &phantom.volume.voxels {
        Voxels::I16(voxels) => voxels,
        Voxels::F32(_) => panic!("phantoms are int16"),
    }
}

fn millilitres(phantom: &Phantom, voxels: usize) -> f64 {
    voxels as f64 * phantom.metadata.spacing_mm.iter().product::<f64>() / 1_000.0
}

#[test]
fn a_phantom_depends_on_seed_and_number_only() {
    let pool = |threads| {
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap()
    };
    let alone = pool(1).install(|| generate(&config(), 5, 3));
    let together = pool(3).install(|| {
        generate(&config(), 5, 2);
        generate(&config(), 5, 3)
    });
    assert_eq!(alone, together);
    assert_ne!(alone.volume.voxels, generate(&config(), 5, 4).volume.voxels);
    assert_ne!(alone.volume.voxels, generate(&config(), 6, 3).volume.voxels);
}

#[test]
fn tissues_have_their_hounsfield_units() {
    let phantom = with(&[], 1);
    let count = |low: i16, high: i16| {
        let inside = stored(&phantom)
            .iter()
            .filter(|value| (low..high).contains(value));
        millilitres(&phantom, inside.count()) / 1_000.0
    };
    // Litres of an adult's chest: lung, fat, muscle with blood, bone.
    for (tissue, from, to, litres) in [
        ("lung", -940, -700, 2.0..7.5),
        ("fat", -140, -60, 1.5..12.0),
        ("soft tissue", 10, 90, 2.5..14.0),
        ("bone", 250, 1_500, 0.2..2.5),
    ] {
        let drawn = count(from, to);
        assert!(litres.contains(&drawn), "{tissue}: {drawn} l");
    }
    assert_eq!(count(1_500, i16::MAX), 0.0, "nothing is as dense as metal");
}

/// Where an abnormality turns tissue of one range of Hounsfield units into another, and how much of it at least, in
/// millilitres.
const CHANGES: [(usize, [i16; 2], [i16; 2], f64); 18] = [
    (0, [-1024, 900], [900, 3072], 1.0),
    (1, [-1024, 250], [250, 1_500], 2.0),
    (2, [-1000, -600], [-120, 120], 150.0),
    (3, [-1000, -600], [-60, 60], 60.0),
    (4, [-1024, 150], [180, 1_500], 1.0),
    (5, [-1000, 0], [0, 80], 15.0),
    (6, [-1000, 0], [0, 450], 10.0),
    (7, [-940, -750], [-1_024, -930], 80.0),
    (8, [-1000, -700], [-500, 80], 15.0),
    (9, [-1000, -700], [-500, 500], 1.5),
    (10, [-1000, -700], [-720, -200], 60.0),
    (11, [-1000, -700], [-650, 80], 20.0),
    (12, [-1000, -700], [-60, 80], 60.0),
    (13, [-1000, -700], [-780, -500], 100.0),
    (14, [-1000, -700], [-650, 80], 15.0),
    (15, [-1000, -700], [-200, 120], 50.0),
    (16, [-1000, -700], [-650, 80], 10.0),
    (17, [-1000, -700], [-720, -200], 60.0),
];

#[test]
fn every_abnormality_changes_the_tissue_that_it_should() {
    for (index, from, to, least) in CHANGES {
        for patient in 1..4 {
            let (healthy, ill) = (with(&[], patient), with(&[index], patient));
            assert_eq!(ill.findings.len(), 1);
            assert_eq!(ill.findings[0].abnormality, index);
            let pairs = stored(&healthy).iter().zip(stored(&ill));
            let changed = pairs.filter(|&(&before, &after)| {
                let within = |[low, high]: [i16; 2], value: i16| (low..high).contains(&value);
                after.abs_diff(before) > 15 && within(from, before) && within(to, after)
            });
            let changed = millilitres(&healthy, changed.count());
            assert!(
                changed > least,
                "{} of patient {patient}: {changed} ml",
                ABNORMALITIES[index]
            );
        }
    }
}

#[test]
fn findings_change_nothing_about_the_scanner() {
    for patient in 0..6 {
        let (healthy, ill) = (
            with(&[], patient),
            with(&(0..18).collect::<Vec<_>>(), patient),
        );
        assert_eq!(healthy.volume.grid, ill.volume.grid);
        assert_eq!(healthy.metadata, ill.metadata);
        // The lowest corner of the volume: air, table or padding, with the same noise.
        assert_eq!(stored(&healthy)[..10], stored(&ill)[..10]);
    }
}

#[test]
fn findings_do_not_change_each_other() {
    // A nodule is drawn in the same place whether or not there are calcifications.
    let (both, one) = (with(&[1, 9], 2), with(&[9], 2));
    assert_eq!(both.findings[1], one.findings[0]);
}

#[test]
fn a_large_heart_takes_more_than_half_of_the_width() {
    for patient in 0..10 {
        let ratio = |labels: &[usize]| {
            let root = Random::new(5).stream(patient);
            let mut body = Patient::sample(&mut root.stream(1));
            let labels: [bool; 18] = std::array::from_fn(|index| labels.contains(&index));
            abnormality::change_patient(&mut body, &labels, &root.stream(4), 0);
            body.cardiothoracic_ratio
        };
        assert!(ratio(&[2]) > 0.53);
        assert!(ratio(&[]) < 0.47);
    }
}

#[test]
fn fluid_lies_at_the_back_of_who_lies_on_the_back() {
    for patient in 0..12 {
        let (healthy, ill) = (with(&[], patient), with(&[12], patient));
        let columns = healthy.volume.grid.size[0];
        let rows = |wanted: &dyn Fn(i16, i16) -> bool| {
            let pairs = stored(&healthy).iter().zip(stored(&ill)).enumerate();
            let rows: Vec<usize> = pairs
                .filter(|&(_, (&before, &after))| wanted(before, after))
                .map(|(voxel, _)| voxel / columns % columns)
                .collect();
            rows.iter().sum::<usize>() as f64 / rows.len() as f64
        };
        let lung = rows(&|before, _| (-950..-700).contains(&before));
        let fluid = rows(&|before, after| before < -600 && after > -60);
        let behind = healthy.metadata.patient_position == "HFS";
        assert_eq!(fluid > lung, behind, "patient {patient}: {fluid} {lung}");
    }
}

#[test]
fn reconstructions_differ_in_noise_and_scans_in_what_heals() {
    let image = |scan, reconstruction| {
        let image = Image {
            patient: 8,
            scan,
            reconstruction,
        };
        generate_image(&config(), 5, image)
    };
    let (first, sharp, later) = (image(0, 0), image(0, 1), image(1, 0));
    assert_eq!(first.labels, sharp.labels);
    assert_eq!(first.report, sharp.report);
    assert_eq!(first.volume.grid, sharp.volume.grid);
    assert_ne!(first.metadata.kernel, sharp.metadata.kernel);
    assert_ne!(first.volume.voxels, sharp.volume.voxels);
    assert_eq!(
        (first.metadata.age, first.metadata.sex),
        (later.metadata.age, later.metadata.sex)
    );
    assert_ne!(first.volume.voxels, later.volume.voxels);
}

#[test]
fn raw_values_and_the_metadata_make_hounsfield_units() {
    let raw = PhantomConfig {
        storage: Storage::Raw,
        ..config()
    };
    let (units, raw) = (generate(&config(), 5, 0), generate(&raw, 5, 0));
    assert_eq!(units.metadata, raw.metadata);
    for (&value, &raw_value) in stored(&units).iter().zip(stored(&raw)) {
        assert_eq!(
            raw.metadata.rescale.apply(f64::from(raw_value)),
            f64::from(value)
        );
    }
}

#[test]
fn volumes_lie_as_ct_rates_do() {
    let phantom = with(&[], 0);
    let grid = phantom.volume.grid;
    assert_eq!(grid.orientation(), Orientation::LPS);
    assert_eq!(phantom.volume.rescale, Rescale::NONE);
    let spacing = grid.affine.spacing_mm();
    for (found, said) in spacing.iter().zip(phantom.metadata.spacing_mm) {
        assert!((found - said).abs() < 1e-9);
    }
    // The liver is on the right: low slices are denser at small i, where the right side is.
    let [columns, rows, _] = grid.size;
    let lung = |half: fn(usize, usize) -> bool| {
        let low = stored(&phantom)[..columns * rows * 14].iter().enumerate();
        low.filter(|&(voxel, &value)| {
            value < -700 && value > -950 && half(voxel % columns, columns)
        })
        .count()
    };
    assert!(lung(|i, columns| i < columns / 2) < lung(|i, columns| i >= columns / 2));
}

#[test]
fn reports_name_what_is_there_and_only_that() {
    // A word that every sentence about a finding's presence holds, in lower case.
    const WORDS: [(usize, &[&str]); 4] = [
        (12, &["pleural effusion", "pleural space"]),
        (9, &["nodul"]),
        (5, &["hernia"]),
        (15, &["consolidat"]),
    ];
    for patient in 0..40 {
        let phantom = with(&[12, 5], patient);
        let text = phantom.report.findings.to_lowercase();
        for (index, words) in WORDS {
            let about = text
                .split(". ")
                .filter(|sentence| words.iter().any(|word| sentence.contains(word)));
            let denied = |sentence: &str| {
                ["no ", "not ", "no indication"]
                    .iter()
                    .any(|word| sentence.contains(word))
            };
            let (absent, present): (Vec<&str>, Vec<&str>) = about.partition(|s| denied(s));
            assert_eq!(present.is_empty(), !phantom.labels[index], "{text}");
            assert!(absent.is_empty() || !phantom.labels[index], "{text}");
        }
    }
}

/// Every file below a folder with its bytes.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap();
                all.insert(name.to_str().unwrap().to_owned(), fs::read(&path).unwrap());
            }
        }
    }
    all
}

fn small_set() -> DataSetConfig {
    DataSetConfig {
        phantom: PhantomConfig {
            columns: 32,
            ..PhantomConfig::default()
        },
        train_patients: 6,
        valid_patients: 2,
        second_scan: 0.5,
        second_reconstruction: 0.5,
        ..DataSetConfig::default()
    }
}

#[test]
fn a_set_is_written_in_ct_rates_layout() {
    let folder = tempfile::tempdir().unwrap();
    let set = small_set();
    let written = write_ct_rate(folder.path(), &set, |_| {}).unwrap();
    let files = files(folder.path());
    let volumes: Vec<&String> = files
        .keys()
        .filter(|name| name.ends_with(".nii.gz"))
        .collect();
    assert_eq!(volumes.len(), written.train_volumes + written.valid_volumes);
    assert!(
        written.train_volumes > 6,
        "some have a second scan or reconstruction"
    );
    assert!(files.contains_key("dataset/train/train_1/train_1_a/train_1_a_1.nii.gz"));
    assert!(files.contains_key("dataset/valid/valid_2/valid_2_a/valid_2_a_1.nii.gz"));

    for (table, columns, rows) in [
        (
            "radiology_text_reports/train_reports.csv",
            5,
            written.train_volumes,
        ),
        (
            "radiology_text_reports/validation_reports.csv",
            5,
            written.valid_volumes,
        ),
        ("metadata/train_metadata.csv", 19, written.train_volumes),
        (
            "metadata/validation_metadata.csv",
            19,
            written.valid_volumes,
        ),
        (
            "multi_abnormality_labels/train_predicted_labels.csv",
            19,
            written.train_volumes,
        ),
        (
            "multi_abnormality_labels/valid_predicted_labels.csv",
            19,
            written.valid_volumes,
        ),
    ] {
        let mut reader = csv::Reader::from_reader(files[table].as_slice());
        assert_eq!(reader.headers().unwrap().len(), columns, "{table}");
        assert_eq!(&reader.headers().unwrap()[0], "VolumeName");
        let names: Vec<String> = reader
            .records()
            .map(|row| row.unwrap()[0].to_owned())
            .collect();
        assert_eq!(names.len(), rows, "{table}");
        assert!(
            names
                .iter()
                .all(|name| volumes.iter().any(|path| path.ends_with(name)))
        );
    }

    let first = read_nifti(
        &folder
            .path()
            .join("dataset/train/train_1/train_1_a/train_1_a_1.nii.gz"),
    )
    .unwrap();
    assert_eq!(
        first.voxels,
        generate(&set.phantom, set.seed, 1).volume.voxels
    );
}

#[test]
fn the_same_set_has_the_same_bytes() {
    let write = |threads: usize| {
        let folder = tempfile::tempdir().unwrap();
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| write_ct_rate(folder.path(), &small_set(), |_| {}))
            .unwrap();
        files(folder.path())
    };
    assert!(write(1) == write(3));
}

#[test]
fn a_set_takes_the_place_of_another_and_of_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    write_ct_rate(folder.path(), &small_set(), |_| {}).unwrap();
    let fewer = DataSetConfig {
        train_patients: 1,
        valid_patients: 1,
        second_scan: 0.0,
        second_reconstruction: 0.0,
        ..small_set()
    };
    fs::write(folder.path().join("notes.txt"), "mine").unwrap();
    write_ct_rate(folder.path(), &fewer, |_| {}).unwrap();
    let left = files(folder.path());
    assert_eq!(
        left.keys().filter(|name| name.ends_with(".nii.gz")).count(),
        2
    );
    assert_eq!(left["notes.txt"], b"mine");

    let foreign = tempfile::tempdir().unwrap();
    fs::write(foreign.path().join("thesis.tex"), "precious").unwrap();
    let error = write_ct_rate(foreign.path(), &fewer, |_| {}).unwrap_err();
    assert!(matches!(error, Error::NotPhantoms { .. }), "{error}");
    assert_eq!(files(foreign.path()).len(), 1);
}

#[test]
fn a_configuration_that_no_scanner_has_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let broken = [
        PhantomConfig {
            columns: 0,
            ..PhantomConfig::default()
        },
        PhantomConfig {
            slice_spacing_mm: Vec::new(),
            ..PhantomConfig::default()
        },
        PhantomConfig {
            slice_spacing_mm: vec![0.0],
            ..PhantomConfig::default()
        },
        PhantomConfig {
            field_of_view_mm: [400.0, 300.0],
            ..PhantomConfig::default()
        },
        PhantomConfig {
            field_of_view_mm: [f32::NAN, 300.0],
            ..PhantomConfig::default()
        },
    ];
    for phantom in broken {
        let set = DataSetConfig {
            phantom,
            ..small_set()
        };
        let error = write_ct_rate(folder.path(), &set, |_| {}).unwrap_err();
        assert!(matches!(error, Error::PhantomConfig { .. }), "{error}");
    }
    assert!(files(folder.path()).is_empty());
}
