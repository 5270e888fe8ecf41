//! Thin scans, odd geometry and configurations, right and wrong.

use dcformer_volume::Error;
use dcformer_volume::dataset::ScanMetadata;
use dcformer_volume::geometry::Affine;
use dcformer_volume::intensity::{RescalePolicy, Window};
use dcformer_volume::preprocess::{Intensity, Note, Preprocess};
use dcformer_volume::volume::Voxels;

use super::{patient, run, shape, spacing};

#[test]
fn scans_thinner_than_a_voxel_become_one_voxel() {
    for size in [[1, 1, 1], [1, 7, 1], [9, 1, 3], [4, 5, 1]] {
        let mut volume = patient(size);
        volume.voxels = Voxels::I16(vec![50; size.iter().product()]);
        let preprocess = Preprocess {
            rescale: RescalePolicy::None,
            shape: shape(3, 3, 3),
            fit: spacing(40.0, 40.0, 40.0),
            ..Preprocess::dcformer()
        };
        let input = run(&preprocess, &volume);
        let mut expected = vec![-1.0; 27];
        expected[13] = Window::DCFORMER.apply(50.0);
        assert_eq!(input.values, expected, "{size:?}");
        assert!(input.notes.contains(&Note::ThinnerThanAVoxel));
        let stretched = run(
            &Preprocess {
                rescale: RescalePolicy::None,
                shape: shape(2, 3, 4),
                ..Preprocess::med3dvlm()
            },
            &volume,
        );
        assert_eq!(
            stretched.values,
            vec![0.0; 24],
            "a constant is background: {size:?}"
        );
    }
}

#[test]
fn the_metadata_spacing_counts_and_a_contradiction_is_noted() {
    let volume = patient([8, 9, 10]);
    let preprocess = Preprocess {
        shape: shape(20, 16, 18),
        fit: spacing(1.0, 0.5, 0.5),
        ..Preprocess::dcformer()
    };
    let metadata = ScanMetadata {
        rescale: None,
        spacing_mm: Some([1.0, 1.0, 2.0]),
    };
    let input = preprocess
        .run(&volume, &metadata)
        .expect("this looks like CT");
    let mut described = volume.clone();
    described.grid.affine = Affine {
        matrix: [
            [-1.0, 0.0, 0.0, 0.0],
            [0.0, -1.0, 0.0, 0.0],
            [0.0, 0.0, 2.0, 0.0],
        ],
    };
    assert!(input.values == run(&preprocess, &described).values);
    assert!(input.values != run(&preprocess, &volume).values);
    assert!(
        matches!(
            input.notes[..],
            [Note::SpacingDiffers {
                metadata_mm: [1.0, 1.0, 2.0],
                ..
            }]
        ),
        "{:?}",
        input.notes
    );
    for unusable in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let metadata = ScanMetadata {
            rescale: None,
            spacing_mm: Some([0.8, unusable, 2.0]),
        };
        assert!(
            matches!(
                preprocess.run(&volume, &metadata),
                Err(Error::SpacingUnusable { .. })
            ),
            "{unusable}"
        );
    }
    // A spacing that would make 10^12 voxels costs nothing: only what survives the crop is computed.
    let metadata = ScanMetadata {
        rescale: None,
        spacing_mm: Some([1e12, 1e12, 1e12]),
    };
    assert_eq!(
        preprocess
            .run(&volume, &metadata)
            .expect("large, not impossible")
            .values
            .len(),
        20 * 16 * 18
    );
}

#[test]
fn voxels_that_do_not_fill_the_grid_are_an_error() {
    let mut volume = patient([4, 4, 4]);
    volume.grid.size = [4, 4, 5];
    let error = Preprocess::dcformer()
        .run(&volume, &ScanMetadata::default())
        .expect_err("64 voxels for 80");
    assert!(
        matches!(error, Error::VoxelCount { found: 64, .. }),
        "{error}"
    );
    volume.grid.size = [4, 0, 4];
    volume.voxels = Voxels::F32(Vec::new());
    assert!(matches!(
        Preprocess::dcformer().run(&volume, &ScanMetadata::default()),
        Err(Error::VoxelCount { .. })
    ));
}

#[test]
fn a_preset_survives_its_configuration_file() {
    for preset in [
        Preprocess::dcformer(),
        Preprocess::dcformer_paper(),
        Preprocess::ct_clip(),
        Preprocess::med3dvlm(),
    ] {
        preset.check().expect("presets can be carried out");
        let text = serde_json::to_string(&preset).expect("plain data");
        assert_eq!(
            serde_json::from_str::<Preprocess>(&text).expect("what was written"),
            preset,
            "{text}"
        );
    }
    assert_eq!(
        serde_json::from_str::<Preprocess>("{}").expect("all fields have defaults"),
        Preprocess::dcformer()
    );
}

#[test]
fn a_mistyped_configuration_is_an_error_that_names_the_field() {
    for text in [
        r#"{ "spacing": 1 }"#,
        r#"{ "shape": { "depth": 1, "height": 1, "width": 1, "length": 1 } }"#,
        r#"{ "fit": { "spacing_mm": { "depth": 1, "height": 1, "width": 1, "length": 1 } } }"#,
        r#"{ "intensity": { "window": { "low_hu": -1000, "high_hu": 200, "length": 1 } } }"#,
    ] {
        let error = serde_json::from_str::<Preprocess>(text)
            .expect_err(text)
            .to_string();
        assert!(error.contains("unknown field"), "{text}: {error}");
    }
    let dcformer = Preprocess::dcformer;
    let window = |low_hu, high_hu| Intensity::Window(Window { low_hu, high_hu });
    for (preprocess, field) in [
        (
            Preprocess {
                shape: shape(0, 512, 512),
                ..dcformer()
            },
            "shape",
        ),
        (
            Preprocess {
                shape: shape(usize::MAX, 2, 2),
                ..dcformer()
            },
            "shape",
        ),
        (
            Preprocess {
                intensity: window(200.0, -1000.0),
                ..dcformer()
            },
            "intensity.window",
        ),
        (
            Preprocess {
                intensity: window(f64::NAN, 200.0),
                ..dcformer()
            },
            "intensity.window",
        ),
        (
            Preprocess {
                fit: spacing(1.5, 0.0, 0.75),
                ..dcformer()
            },
            "fit.spacing_mm",
        ),
        (
            Preprocess {
                pad_value: f32::NAN,
                ..dcformer()
            },
            "pad_value",
        ),
    ] {
        let error = preprocess
            .run(&patient([4, 4, 4]), &ScanMetadata::default())
            .expect_err(field);
        assert!(error.to_string().contains(&format!("`{field}`")), "{error}");
    }
}
