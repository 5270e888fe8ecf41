//! Which reading of stored values is taken, and what becomes of values that are none.

use dcformer_volume::Error;
use dcformer_volume::dataset::ScanMetadata;
use dcformer_volume::intensity::{Reading, RescalePolicy};
use dcformer_volume::nifti::{self, WriteOptions};
use dcformer_volume::preprocess::{Note, Preprocess};
use dcformer_volume::scan::ScanOptions;
use dcformer_volume::volume::{Rescale, Voxels};

use super::{golden, patient, run, run_file, shape, spacing};
use crate::variants::VARIANTS;

#[test]
fn a_picture_of_a_ct_is_refused_until_the_user_insists() {
    let head = golden("ct/head_uint8_scaled.nii.gz");
    let small = Preprocess {
        shape: shape(8, 16, 16),
        ..Preprocess::dcformer()
    };
    let error = small
        .run_file(&head, &ScanMetadata::default(), &ScanOptions::default())
        .expect_err("0 to 563 are no HU");
    let message = error.to_string();
    assert!(
        message.contains("head_uint8_scaled.nii.gz") && message.contains("--rescale"),
        "{message}"
    );
    for (rescale, reading) in [
        (RescalePolicy::Header, Reading::Header),
        (RescalePolicy::None, Reading::Stored),
    ] {
        let input = run_file(
            &Preprocess {
                rescale,
                ..small.clone()
            },
            &head,
            &ScanMetadata::default(),
        );
        assert_eq!(
            (input.rescale.reading, input.rescale.forced),
            (reading, true)
        );
    }
}

#[test]
fn metadata_of_the_first_release_do_not_ruin_a_scan_of_the_second() {
    let path = golden("ct/thorax_1.5mm.nii.gz");
    let small = Preprocess {
        shape: shape(20, 30, 30),
        ..Preprocess::dcformer()
    };
    let plain = run_file(&small, &path, &ScanMetadata::default());
    for intercept in [-1024.0, -8192.0] {
        let metadata = ScanMetadata {
            rescale: Some(Rescale {
                slope: 1.0,
                intercept,
            }),
            spacing_mm: None,
        };
        let input = run_file(&small, &path, &metadata);
        assert_eq!(input.rescale.reading, Reading::Stored, "{}", input.rescale);
        assert_eq!(input.values, plain.values);
    }
}

/// The first slices of a scan may suggest a reading that the rest refutes; the file is then read once more.
#[test]
fn slices_that_mislead_do_not_decide() {
    const SIZE: [usize; 3] = [512, 512, 80];
    let mut volume = patient([512, 512, 16]);
    let Voxels::I16(body) = &volume.voxels else {
        unreachable!("patient stores integers")
    };
    // Zeros, as a masked scan begins: they look like CT neither as they are nor with the metadata's intercept.
    let mut stored = vec![0; 512 * 512 * 64];
    stored.extend(body);
    volume.voxels = Voxels::I16(stored);
    volume.grid.size = SIZE;
    let metadata = ScanMetadata {
        rescale: Some(Rescale {
            slope: 1.0,
            intercept: -1024.0,
        }),
        spacing_mm: None,
    };
    let preprocess = Preprocess {
        shape: shape(60, 20, 20),
        ..Preprocess::dcformer()
    };
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let path = folder.path().join("scan.nii");
    nifti::write_nifti(&path, &volume, WriteOptions::default()).expect("the folder can be written");
    let from_file = run_file(&preprocess, &path, &metadata);
    assert_eq!(from_file.rescale.reading, Reading::Stored);
    assert!(
        from_file
            == preprocess
                .run(&volume, &metadata)
                .expect("this looks like CT")
    );
}

#[test]
fn voxels_that_are_not_finite_become_air_and_are_counted() {
    let native = Preprocess {
        shape: shape(30, 64, 64),
        fit: spacing(8.0, 5.171875, 5.171875),
        ..Preprocess::dcformer()
    };
    let sound = run_file(
        &native,
        &VARIANTS.path("v00_base_i16le.nii.gz"),
        &ScanMetadata::default(),
    );
    let input = run_file(
        &native,
        &VARIANTS.path("v27_f32_nan_inf.nii.gz"),
        &ScanMetadata::default(),
    );
    assert!(
        input.notes.contains(&Note::NotFinite { voxels: 3 }),
        "{:?}",
        input.notes
    );
    let mut expected = sound.values;
    // Stored voxels 0, 1, 2 along i are the first column of the first three rows.
    (0..3).for_each(|i| expected[i * 64] = -1.0);
    assert!(input.values == expected);
}

#[test]
fn a_scan_without_values_is_refused() {
    let mut volume = patient([6, 5, 4]);
    let Voxels::I16(stored) = &volume.voxels else {
        unreachable!("patient stores integers")
    };
    let holes = |count: usize| {
        Voxels::F32(
            stored
                .iter()
                .enumerate()
                .map(|(index, value)| {
                    if index < count {
                        f32::NAN
                    } else {
                        f32::from(*value)
                    }
                })
                .collect(),
        )
    };
    let (half, more) = (holes(60), holes(61));
    let forced = Preprocess {
        rescale: RescalePolicy::None,
        shape: shape(4, 6, 5),
        ..Preprocess::dcformer()
    };
    volume.voxels = half;
    assert!(
        run(&forced, &volume)
            .values
            .iter()
            .all(|value| value.is_finite())
    );
    volume.voxels = more;
    let error = forced
        .run(&volume, &ScanMetadata::default())
        .expect_err("61 of 120 voxels are NaN");
    assert!(
        matches!(
            error,
            Error::NotFinite {
                found: 61,
                voxels: 120,
                ..
            }
        ),
        "{error}"
    );
}

/// The reader's thread hands its error on, and nobody waits for slices that do not come.
#[test]
fn broken_files_are_errors_however_far_they_were_read() {
    let small = Preprocess {
        rescale: RescalePolicy::None,
        shape: shape(4, 4, 4),
        ..Preprocess::dcformer()
    };
    let mut broken = 0;
    for (name, file) in &VARIANTS.expected.files {
        let path = VARIANTS.path(name);
        let result = small.run_file(&path, &ScanMetadata::default(), &ScanOptions::default());
        if file.expect.starts_with("error") && !file.expect.contains("or ") {
            let error = result.expect_err(name).to_string();
            assert!(error.contains(name.as_str()), "{name}: {error}");
            broken += 1;
        }
    }
    assert!(broken >= 8, "{broken} broken files");
}
