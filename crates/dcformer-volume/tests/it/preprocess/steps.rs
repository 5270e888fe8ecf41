//! How a scan is stored and which way it takes through the code change nothing, and each step does what it says.

use dcformer_volume::dataset::ScanMetadata;
use dcformer_volume::geometry::{Direction, Orientation, Shape3};
use dcformer_volume::intensity::{RescalePolicy, Window};
use dcformer_volume::nifti::{self, WriteOptions};
use dcformer_volume::preprocess::{Fit, Intensity, PlaneOrder, Preprocess};
use dcformer_volume::resample;
use dcformer_volume::volume::{Rescale, Volume, Voxels};
use proptest::prelude::*;

use super::{patient, run, run_file, shape, spacing};
use crate::variants::VARIANTS;

/// Shapes that crop and pad, spacings that enlarge and shrink, both windows and both plane orders.
fn any_preprocess() -> impl Strategy<Value = Preprocess> {
    let size = 1_usize..40;
    let spacing_mm = prop_oneof![Just(0.4), Just(0.8), Just(1.3), Just(2.0), Just(7.0)];
    let fit =
        [spacing_mm.clone(), spacing_mm.clone(), spacing_mm].prop_map(|[d, h, w]| spacing(d, h, w));
    let plane = prop_oneof![Just(PlaneOrder::ColumnsFirst), Just(PlaneOrder::RowsFirst)];
    ([size.clone(), size.clone(), size], fit, plane).prop_map(
        |([depth, height, width], fit, plane)| Preprocess {
            shape: shape(depth, height, width),
            fit,
            plane,
            ..Preprocess::dcformer()
        },
    )
}

fn any_orientation() -> impl Strategy<Value = Orientation> {
    const LINES: [[Direction; 2]; 3] = [
        [Direction::Right, Direction::Left],
        [Direction::Anterior, Direction::Posterior],
        [Direction::Superior, Direction::Inferior],
    ];
    (Just([0, 1, 2]).prop_shuffle(), any::<[bool; 3]>()).prop_map(|(order, opposite)| {
        Orientation([0, 1, 2].map(|axis| LINES[order[axis]][usize::from(opposite[axis])]))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// In memory and from a file, which are different paths for most orientations.
    #[test]
    fn the_same_patient_stored_in_any_order_gives_the_same_bits(orientation in any_orientation(), preprocess in any_preprocess()) {
        let volume = patient([23, 19, 17]);
        let expected = run(&preprocess, &volume);
        let stored = volume.reoriented(orientation);
        prop_assert!(run(&preprocess, &stored) == expected);

        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let path = folder.path().join("scan.nii");
        nifti::write_nifti(&path, &stored, WriteOptions::default()).expect("the folder can be written");
        prop_assert!(run_file(&preprocess, &path, &ScanMetadata::default()) == expected);
    }

    /// The steps one after the other, each over the whole array.
    #[test]
    fn slices_that_arrive_give_what_the_steps_give_on_the_whole_array(preprocess in any_preprocess()) {
        let volume = patient([23, 19, 17]);
        let expected = step_by_step(&preprocess, &volume);
        let input = run(&preprocess, &volume);
        prop_assert_eq!(input.values.len(), expected.len());
        for (index, (got, want)) in input.values.iter().zip(&expected).enumerate() {
            prop_assert!(got == want, "{index}: {got}, expected {want}");
        }
    }
}

/// Clip, resample, window, crop or pad, for scans in Hounsfield units stored towards L, P, S.
fn step_by_step(preprocess: &Preprocess, volume: &Volume) -> Vec<f32> {
    let (
        Voxels::I16(stored),
        Fit::SpacingMm {
            depth,
            height,
            width,
        },
        Intensity::Window(window),
    ) = (&volume.voxels, preprocess.fit, preprocess.intensity)
    else {
        unreachable!("the tests' scans hold integers and are fitted by spacing")
    };
    let ([i_len, j_len, k_len], [i_mm, j_mm, k_mm]) =
        (volume.grid.size, volume.grid.affine.spacing_mm());
    let rows_first = preprocess.plane == PlaneOrder::RowsFirst;
    let (h_len, w_len, h_mm, w_mm) = if rows_first {
        (j_len, i_len, j_mm, i_mm)
    } else {
        (i_len, j_len, i_mm, j_mm)
    };
    let mut clipped = Vec::new();
    for k in 0..k_len {
        for h in 0..h_len {
            for w in 0..w_len {
                let (i, j) = if rows_first { (w, h) } else { (h, w) };
                clipped.push(f32::from(stored[(k * j_len + j) * i_len + i]).clamp(-1000.0, 1000.0));
            }
        }
    }
    let resampled_shape = shape(
        resample::resampled_len(k_len, k_mm, depth),
        resample::resampled_len(h_len, h_mm, height),
        resample::resampled_len(w_len, w_mm, width),
    );
    let resampled = resample::trilinear(&clipped, shape(k_len, h_len, w_len), resampled_shape);
    // Position in the resampled array of a position in the result: SPEC section 4's rule for crop and for padding.
    let position = |at: usize, len: usize, wanted: usize| {
        let shift = if len >= wanted {
            ((len - wanted) / 2) as isize
        } else {
            -(((wanted - len) / 2) as isize)
        };
        usize::try_from(at as isize + shift)
            .ok()
            .filter(|at| *at < len)
    };
    let Shape3 {
        depth,
        height,
        width,
    } = preprocess.shape;
    let mut values = Vec::with_capacity(preprocess.shape.voxels());
    for d in 0..depth {
        for h in 0..height {
            for w in 0..width {
                let source = (|| {
                    let d = position(d, resampled_shape.depth, depth)?;
                    let h = position(h, resampled_shape.height, height)?;
                    let w = position(w, resampled_shape.width, width)?;
                    Some(resampled[(d * resampled_shape.height + h) * resampled_shape.width + w])
                })();
                values.push(source.map_or(preprocess.pad_value, |hu| window.apply(hu)));
            }
        }
    }
    values
}

/// Voxels of one kind of file type, byte order and orientation, or another, are the same voxels.
#[test]
fn every_sound_variant_of_a_file_gives_the_same_input() {
    // Other geometry on purpose (oblique, none, contradictory), or values rounded to 16 HU.
    const DIFFERENT: [&str; 6] = ["v06", "v07", "v18", "v21", "v22", "v27"];
    let small = Preprocess {
        shape: shape(40, 96, 88),
        fit: spacing(4.0, 4.0, 4.0),
        ..Preprocess::dcformer()
    };
    let base = run_file(
        &small,
        &VARIANTS.path("v00_base_i16le.nii.gz"),
        &ScanMetadata::default(),
    );
    let mut compared = 0;
    for (name, file) in &VARIANTS.expected.files {
        if file.expect != "ok" {
            continue;
        }
        let input = run_file(&small, &VARIANTS.path(name), &ScanMetadata::default());
        if !DIFFERENT
            .iter()
            .any(|different| name.starts_with(different))
        {
            assert!(input.values == base.values, "{name} differs from v00");
            compared += 1;
        }
    }
    assert!(compared >= 28, "{compared} variants compared");
}

#[test]
fn the_target_spacing_itself_changes_no_value() {
    let volume = patient([5, 6, 7]);
    let Voxels::I16(stored) = &volume.voxels else {
        unreachable!("patient stores integers")
    };
    let preprocess = Preprocess {
        shape: shape(9, 4, 6),
        fit: spacing(2.0, 0.8, 0.9),
        ..Preprocess::dcformer()
    };
    let input = run(&preprocess, &volume);
    for d in 0..9 {
        for h in 0..4 {
            for w in 0..6 {
                // One slice of padding on each side; of five columns the first four remain.
                let hu = (1..8)
                    .contains(&d)
                    .then(|| f32::from(stored[((d - 1) * 6 + w) * 5 + h]));
                let expected = hu.map_or(-1.0, |hu| Window::DCFORMER.apply(hu));
                assert_eq!(
                    input.values[(d * 4 + h) * 6 + w],
                    expected,
                    "at {d}, {h}, {w}"
                );
            }
        }
    }
}

#[test]
fn preprocessing_is_linear_inside_the_window() {
    let full = Preprocess {
        rescale: RescalePolicy::Metadata,
        shape: shape(20, 20, 20),
        fit: spacing(1.7, 0.7, 1.1),
        ..Preprocess::dcformer_paper()
    };
    let mut volume = patient([23, 19, 17]);
    let with = |volume: &Volume, slope: f64, intercept: f64| {
        let metadata = ScanMetadata {
            rescale: Some(Rescale { slope, intercept }),
            spacing_mm: None,
        };
        full.run(volume, &metadata)
            .expect("the reading is given")
            .values
    };
    // Within [-1000, 1000] before and after, so that nothing is clipped.
    if let Voxels::I16(stored) = &mut volume.voxels {
        stored
            .iter_mut()
            .for_each(|value| *value = (*value).max(-1000));
    }
    let (once, half) = (with(&volume, 1.0, 0.0), with(&volume, 0.5, 100.0));
    for (index, (once, half)) in once.iter().zip(&half).enumerate() {
        let padding = *once == -1.0 && *half == -1.0;
        // 1e-6: three roundings of values up to 1000 HU, over 1000.
        assert!(
            padding || (0.5 * once + 0.1 - half).abs() < 1e-6,
            "{index}: {once} and {half}"
        );
    }
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let volume = patient([40, 33, 50]);
    let preprocess = Preprocess {
        shape: shape(70, 50, 60),
        ..Preprocess::dcformer()
    };
    let with = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .expect("threads can be started");
        pool.install(|| run(&preprocess, &volume))
    };
    assert!(with(1) == with(3));
}

#[test]
fn med3dvlm_stretches_the_foreground() {
    // Background, and values from 10 to 37 in a box that touches one face.
    let (size, from, to) = ([7, 6, 5], [2, 0, 1], [5, 3, 4]);
    let mut volume = patient(size);
    let mut stored = vec![-3000_i16; 210];
    let mut boxed = Vec::new();
    for k in from[2]..to[2] {
        for j in from[1]..to[1] {
            for i in from[0]..to[0] {
                let value = 10 + ((i * 5 + j * 11 + k * 17) % 28) as i16;
                stored[(k * 6 + j) * 7 + i] = value;
                boxed.push((f32::from(value) + 3000.0) / 3037.0);
            }
        }
    }
    assert!(stored.contains(&37), "the largest value is there");
    volume.voxels = Voxels::I16(stored);
    let preprocess = Preprocess {
        shape: shape(4, 8, 5),
        ..Preprocess::med3dvlm()
    };
    let expected = resample::trilinear(&boxed, shape(3, 3, 3), preprocess.shape);
    for orientation in [
        Orientation::LPS,
        Orientation([Direction::Superior, Direction::Right, Direction::Anterior]),
    ] {
        let input = run(&preprocess, &volume.clone().reoriented(orientation));
        for (got, want) in input.values.iter().zip(&expected) {
            // 1e-6: scaling multiplies by the reciprocal of the range.
            assert!(
                (got - want).abs() < 1e-6,
                "{orientation}: {got}, expected {want}"
            );
        }
    }
}
