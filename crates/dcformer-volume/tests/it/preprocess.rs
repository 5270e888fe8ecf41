//! From scan to model input: the authors' values, whatever the storage, the path through the code and the threads.

use std::fs;
use std::path::{Path, PathBuf};

use dcformer_volume::Error;
use dcformer_volume::dataset::ScanMetadata;
use dcformer_volume::geometry::{Affine, Direction, Grid, Orientation, Shape3};
use dcformer_volume::intensity::{Reading, RescalePolicy, Window};
use dcformer_volume::nifti::{self, WriteOptions};
use dcformer_volume::preprocess::{
    Fit, Intensity, ModelInput, Note, OrientationPolicy, PlaneOrder, Preprocess,
};
use dcformer_volume::resample;
use dcformer_volume::scan::ScanOptions;
use dcformer_volume::volume::{Rescale, Volume, Voxels};
use proptest::prelude::*;
use serde::Deserialize;

use crate::variants::VARIANTS;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../golden")
        .join(name)
}

/// An entry of `golden/preprocess/cases.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Case {
    rescale_slope: f64,
    rescale_intercept: f64,
    #[serde(rename = "XYSpacing")]
    xy_spacing: f64,
    #[serde(rename = "ZSpacing")]
    z_spacing: f64,
    #[serde(rename = "file")]
    file: String,
    #[serde(rename = "window_hu")]
    window_hu: [f64; 2],
    #[serde(rename = "shape")]
    shape: Shape3,
    #[serde(rename = "first")]
    first: [usize; 3],
    #[serde(rename = "values")]
    values: String,
}

impl Case {
    fn read(name: &str) -> Self {
        let text = fs::read_to_string(golden("preprocess/cases.json"))
            .expect("golden/preprocess is there");
        let mut cases: std::collections::BTreeMap<String, Self> =
            serde_json::from_str(&text).expect("cases.json holds cases");
        cases
            .remove(name)
            .unwrap_or_else(|| panic!("no case `{name}`"))
    }

    fn preprocess(&self, rescale: RescalePolicy) -> Preprocess {
        let [low_hu, high_hu] = self.window_hu;
        Preprocess {
            orientation: OrientationPolicy::Keep,
            rescale,
            intensity: Intensity::Window(Window { low_hu, high_hu }),
            shape: self.shape,
            ..Preprocess::dcformer()
        }
    }

    fn metadata(&self) -> ScanMetadata {
        ScanMetadata {
            rescale: Some(Rescale {
                slope: self.rescale_slope,
                intercept: self.rescale_intercept,
            }),
            spacing_mm: Some([self.xy_spacing, self.xy_spacing, self.z_spacing]),
        }
    }

    fn scan(&self) -> PathBuf {
        golden("ct").join(&self.file)
    }
}

/// Every third value along each axis, from `first` on.
fn sampled(input: &ModelInput, first: [usize; 3]) -> Vec<f32> {
    let Shape3 {
        depth,
        height,
        width,
    } = input.shape;
    let mut values = Vec::new();
    for d in (first[0]..depth).step_by(3) {
        for h in (first[1]..height).step_by(3) {
            values.extend(
                (first[2]..width)
                    .step_by(3)
                    .map(|w| input.values[(d * height + h) * width + w]),
            );
        }
    }
    values
}

fn check_golden(name: &str) {
    let case = Case::read(name);
    let expected: Vec<f32> = fs::read(golden("preprocess").join(&case.values))
        .expect("golden values are there")
        .as_chunks()
        .0
        .iter()
        .map(|bytes| f32::from_le_bytes(*bytes))
        .collect();
    for policy in [RescalePolicy::Metadata, RescalePolicy::Auto] {
        let input = run_file(&case.preprocess(policy), &case.scan(), &case.metadata());
        let values = sampled(&input, case.first);
        assert_eq!(values.len(), expected.len());
        let largest = values
            .iter()
            .zip(&expected)
            .map(|(got, want)| (got - want).abs())
            .fold(0.0, f32::max);
        // The authors interpolate in float64; ours is float32, whose step at 1000 HU is 6e-5 HU or 1e-7 here.
        assert!(
            largest < 2e-6,
            "{name}, {policy:?}: largest difference {largest}"
        );
    }
}

fn run_file(preprocess: &Preprocess, path: &Path, metadata: &ScanMetadata) -> ModelInput {
    preprocess
        .run_file(path, metadata, &ScanOptions::default())
        .unwrap_or_else(|error| panic!("{error}"))
}

fn run(preprocess: &Preprocess, volume: &Volume) -> ModelInput {
    preprocess
        .run(volume, &ScanMetadata::default())
        .unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn a_chest_becomes_what_the_authors_code_makes_of_it() {
    check_golden("thorax");
}

#[test]
fn an_anisotropic_torso_becomes_what_the_authors_code_makes_of_it() {
    check_golden("torso_anisotropic");
}

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

fn shape(depth: usize, height: usize, width: usize) -> Shape3 {
    Shape3 {
        depth,
        height,
        width,
    }
}

const fn spacing(depth: f64, height: f64, width: f64) -> Fit {
    Fit::SpacingMm {
        depth,
        height,
        width,
    }
}

/// Air, lung, soft tissue and bone in a pattern without symmetry, stored towards L, P, S with spacing 0.8, 0.9, 2 mm.
fn patient(size: [usize; 3]) -> Volume {
    const TISSUES: [i16; 8] = [-1000, -850, -600, -90, 20, 45, 60, 300];
    let affine = Affine {
        matrix: [
            [-0.8, 0.0, 0.0, 50.0],
            [0.0, -0.9, 0.0, -20.0],
            [0.0, 0.0, 2.0, 7.0],
        ],
    };
    let voxels = size.iter().product::<usize>();
    let stored = (0..voxels).map(|index| {
        let noise = (index.wrapping_mul(2_654_435_761) >> 7) % 41;
        TISSUES[(index.wrapping_mul(40_503) >> 4) % 8] + noise as i16 - 20
    });
    Volume {
        voxels: Voxels::I16(stored.collect()),
        rescale: Rescale::NONE,
        grid: Grid { size, affine },
    }
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// In memory and from a file, which are different paths for most orientations.
    #[test]
    fn the_same_patient_stored_in_any_order_gives_the_same_bits(orientation in any_orientation(), preprocess in any_preprocess()) {
        let volume = patient([23, 19, 17]);
        let expected = run(&preprocess, &volume);
        let stored = volume.reoriented(orientation);
        prop_assert_eq!(&run(&preprocess, &stored).values, &expected.values);

        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let path = folder.path().join("scan.nii");
        nifti::write_nifti(&path, &stored, WriteOptions::default()).expect("the folder can be written");
        prop_assert_eq!(&run_file(&preprocess, &path, &ScanMetadata::default()).values, &expected.values);
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
    assert!(
        input
            .values
            .iter()
            .all(|value| *value != -1.0 || volume_has_air(&volume)),
        "nothing is padded"
    );
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

fn volume_has_air(volume: &Volume) -> bool {
    matches!(&volume.voxels, Voxels::I16(stored) if stored.iter().any(|value| *value <= -1000))
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
