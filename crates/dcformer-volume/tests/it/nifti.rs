//! Every way to write a volume reads the same.

use std::fs;
use std::path::Path;

use dcformer_volume::Error;
use dcformer_volume::geometry::{Affine, Grid, Orientation};
use dcformer_volume::nifti::{NiftiReader, WriteOptions, parse_nifti, read_nifti, write_nifti};
use dcformer_volume::volume::{Rescale, Volume, Voxels};
use sha2::{Digest, Sha256};

use crate::variants::{Expected, File, VARIANTS, gunzip, gzip};

/// Positions in the files are float32, those of `qform` products of several: a hundred millimetres keep five digits.
const POSITION_TOLERANCE_MM: f64 = 1e-4;

/// Rescaled values in storage order.
fn values(volume: &Volume) -> Vec<f64> {
    let rescale = |value| volume.rescale.apply(value);
    match &volume.voxels {
        Voxels::I16(stored) => stored
            .iter()
            .map(|&value| rescale(f64::from(value)))
            .collect(),
        Voxels::F32(stored) => stored
            .iter()
            .map(|&value| rescale(f64::from(value)))
            .collect(),
    }
}

fn affines_agree(found: &Affine, expected: &[[f64; 4]]) -> Result<(), String> {
    let pairs = found
        .matrix
        .as_flattened()
        .iter()
        .zip(expected.as_flattened());
    match pairs
        .into_iter()
        .all(|(found, expected)| (found - expected).abs() < POSITION_TOLERANCE_MM)
    {
        true => Ok(()),
        false => Err(format!("affine {:?}, expected {expected:?}", found.matrix)),
    }
}

/// The base volume in RAS, by the one path that every variant is compared with; its hash is nibabel's.
fn base(expected: &Expected) -> Vec<f64> {
    let volume = read_nifti(&VARIANTS.path("v00_base_i16le.nii.gz")).expect("the base is whole");
    let values = values(&volume.reoriented(Orientation::RAS));
    assert_eq!(sha256(&values), expected.base.sha256);
    values
}

fn sha256(values: &[f64]) -> String {
    let bytes: Vec<u8> = values
        .iter()
        .flat_map(|&value| (value as i16).to_le_bytes())
        .collect();
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Whether a file holds the base volume, in the values' tolerance and in the place that `geometry` names.
fn check(name: &str, file: &File, expected: &Expected, base: &[f64]) -> Result<(), String> {
    let volume = read_nifti(&VARIANTS.path(name)).map_err(|error| error.to_string())?;
    let stored = values(&volume);
    let grid = volume.grid;
    let reoriented = volume.reoriented(Orientation::RAS);
    let canonical = &expected.base.canonical_affine_ras[..3];
    let found = match file.geometry.as_str() {
        "same" => {
            affines_agree(&reoriented.grid.affine, canonical)?;
            values(&reoriented)
        }
        "affine = Rx(15deg) @ base" => {
            let (sin, cos) = 15.0_f64.to_radians().sin_cos();
            let [x, y, z] = [canonical[0], canonical[1], canonical[2]];
            let turned =
                |a: f64, b: f64| std::array::from_fn(|column| a * y[column] + b * z[column]);
            affines_agree(
                &reoriented.grid.affine,
                &[x, turned(cos, -sin), turned(sin, cos)],
            )?;
            values(&reoriented)
        }
        // The files' axes are stored as the base's, whatever these headers say of them.
        "conflict" => {
            let sform = [
                [1.0, 0.0, 0.0, -10.0],
                [0.0, 1.0, 0.0, -20.0],
                [0.0, 0.0, 1.0, -30.0],
            ];
            affines_agree(&grid.affine, &sform)?;
            as_base(stored, grid)
        }
        _ => {
            let [x, y, z] = [5.171875, 5.171875, 8.0];
            let centred = [
                [-x, 0.0, 0.0, 31.5 * x],
                [0.0, y, 0.0, -31.5 * y],
                [0.0, 0.0, z, -14.5 * z],
            ];
            affines_agree(&grid.affine, &centred)?;
            as_base(stored, grid)
        }
    };
    if reoriented.grid.size != expected.base.canonical_shape_xyz {
        return Err(format!("size {:?}", reoriented.grid.size));
    }
    if file.abs_tol_hu == 0.0 && !name.starts_with("v27") && sha256(&found) != expected.base.sha256
    {
        return Err("the hash differs".into());
    }
    let worst = found
        .iter()
        .zip(base)
        .filter(|(found, _)| found.is_finite())
        .map(|(found, base)| (found - base).abs())
        .fold(0.0, f64::max);
    if worst > file.abs_tol_hu {
        return Err(format!(
            "values differ by {worst}, allowed {}",
            file.abs_tol_hu
        ));
    }
    Ok(())
}

/// Values stored in LPS as the base's file is, brought to RAS.
fn as_base(stored: Vec<f64>, grid: Grid) -> Vec<f64> {
    let lps = Affine {
        matrix: [
            [-1.0, 0.0, 0.0, 0.0],
            [0.0, -1.0, 0.0, 0.0],
            [0.0, 0.0, 1.0, 0.0],
        ],
    };
    let volume = Volume {
        voxels: Voxels::F32(stored.into_iter().map(|value| value as f32).collect()),
        rescale: Rescale::NONE,
        grid: Grid {
            affine: lps,
            ..grid
        },
    };
    values(&volume.reoriented(Orientation::RAS))
}

#[test]
fn every_variant_equals_the_base() {
    let expected = &VARIANTS.expected;
    let base = base(expected);
    let good: Vec<_> = expected
        .files
        .iter()
        .filter(|(name, _)| name.starts_with('v'))
        .collect();
    assert_eq!(good.len(), 34);
    let wrong: Vec<String> = good
        .into_iter()
        .filter_map(|(name, file)| {
            check(name, file, expected, &base)
                .err()
                .map(|wrong| format!("{name}: {wrong}"))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn integers_that_fit_stay_integers() {
    let is_i16 = |name: &str| {
        matches!(
            read_nifti(&VARIANTS.path(name)).unwrap().voxels,
            Voxels::I16(_)
        )
    };
    assert!(is_i16("v00_base_i16le.nii.gz"));
    assert!(is_i16("v04_u16_inter.nii.gz"));
    assert!(is_i16("v07_i8_slope.nii.gz"));
    assert!(is_i16("v08_i32.nii.gz"));
    assert!(!is_i16("v02_f32.nii.gz"));
}

#[test]
fn a_wide_value_in_the_last_chunk_turns_all_into_floats() {
    // int32; the last voxel becomes 70000, which needs 17 bits.
    let mut bytes = gunzip(&fs::read(VARIANTS.path("v08_i32.nii.gz")).unwrap());
    let last = bytes.len() - 4;
    bytes[last..].copy_from_slice(&70_000_i32.to_le_bytes());
    let volume = parse_nifti(Path::new("wide.nii"), &bytes).unwrap();
    let Voxels::F32(found) = volume.voxels else {
        panic!("70000 is no i16")
    };
    let Voxels::I16(narrow) = read_nifti(&VARIANTS.path("v08_i32.nii.gz")).unwrap().voxels else {
        panic!("all values fit")
    };
    let (found_last, found) = found.split_last().unwrap();
    assert_eq!(*found_last, 70_000.0);
    assert!(
        found
            .iter()
            .zip(&narrow)
            .all(|(&found, &narrow)| found == f32::from(narrow))
    );
}

#[test]
fn values_that_are_not_finite_stay() {
    let volume = read_nifti(&VARIANTS.path("v27_f32_nan_inf.nii.gz")).unwrap();
    assert_eq!(volume.voxels.count_not_finite(), 3);
    let Voxels::F32(values) = volume.voxels else {
        panic!("the file holds float32")
    };
    assert!(values[0].is_nan());
    assert_eq!(values[1..3], [f32::INFINITY, f32::NEG_INFINITY]);
}

#[test]
fn slabs_of_any_height_are_the_volume() {
    for name in [
        "v00_base_i16le.nii.gz",
        "v10_nifti2_be.nii.gz",
        "v28_multimember.nii.gz",
        "v30_raw_named.nii.gz",
    ] {
        let whole = read_nifti(&VARIANTS.path(name)).unwrap();
        let Voxels::I16(expected) = &whole.voxels else {
            panic!("{name} holds int16")
        };
        for height in [1, 7, 30, 64] {
            let mut reader = NiftiReader::open(&VARIANTS.path(name)).unwrap();
            assert!(reader.fits_i16());
            assert_eq!(
                (reader.grid(), reader.rescale()),
                (whole.grid, whole.rescale)
            );
            let slice = 64 * 64;
            let mut slab = vec![0_i16; height * slice];
            let mut found = Vec::new();
            loop {
                let slices = reader.read_slices(&mut slab).unwrap();
                if slices == 0 {
                    break;
                }
                found.extend_from_slice(&slab[..slices * slice]);
                assert_eq!(reader.slices_left(), 30 - found.len() / slice);
            }
            assert!(found == *expected, "{name} in slabs of {height}");
        }
    }
}

#[test]
fn doubtful_headers_are_reported() {
    let notes = |name: &str| {
        NiftiReader::open(&VARIANTS.path(name))
            .unwrap()
            .into_volume()
            .unwrap()
            .1
            .join("\n")
    };
    assert_eq!(notes("v00_base_i16le.nii.gz"), "");
    assert!(notes("v22_conflict_forms.nii.gz").contains("sform is used, not qform"));
    assert!(notes("v21_noform.nii.gz").contains("no orientation"));
    assert!(notes("v32_trailing_bytes.nii.gz").contains("777 bytes after the last voxel"));
}

#[test]
fn rubbish_after_the_compressed_data_is_reported() {
    let mut bytes = fs::read(VARIANTS.path("v00_base_i16le.nii.gz")).unwrap();
    bytes.extend([0; 512]);
    let (_, notes) = NiftiReader::from_bytes(Path::new("padded.nii.gz"), &bytes)
        .unwrap()
        .into_volume()
        .unwrap();
    assert_eq!(
        notes,
        ["bytes after the end of the compressed data were ignored"]
    );
}

#[test]
fn either_file_of_a_pair_opens_both() {
    for [header, image] in [
        ["v11_pair.hdr", "v11_pair.img"],
        ["v12_pair.hdr.gz", "v12_pair.img.gz"],
    ] {
        let by_header = read_nifti(&VARIANTS.path(header)).unwrap();
        assert_eq!(read_nifti(&VARIANTS.path(image)).unwrap(), by_header);
    }
    let folder = tempfile::tempdir().unwrap();
    let alone = folder.path().join("alone.hdr");
    fs::copy(VARIANTS.path("v11_pair.hdr"), &alone).unwrap();
    let error = read_nifti(&alone).unwrap_err();
    assert!(
        matches!(&error, Error::ImageMissing { image, .. } if image.ends_with("alone.img")),
        "{error}"
    );
}

/// The base's file with changed header bytes.
fn with_header(changes: &[(usize, &[u8])]) -> Vec<u8> {
    let mut bytes = gunzip(&fs::read(VARIANTS.path("v00_base_i16le.nii.gz")).unwrap());
    for (at, change) in changes {
        bytes[*at..at + change.len()].copy_from_slice(change);
    }
    bytes
}

#[test]
fn metres_and_micrometres_become_millimetres() {
    let base = parse_nifti(Path::new("mm.nii"), &with_header(&[]))
        .unwrap()
        .grid
        .affine;
    for (unit, factor) in [(1_u8, 1e3), (3, 1e-3)] {
        let found = parse_nifti(Path::new("unit.nii"), &with_header(&[(123, &[unit])]))
            .unwrap()
            .grid
            .affine;
        let expected = base.matrix.map(|row| row.map(|value| value * factor));
        assert_eq!(found.matrix, expected);
    }
}

#[test]
fn half_turns_and_rounded_quaternions_are_rotations() {
    // 180 degrees about x, with a rounding error that makes the sum of squares exceed 1.
    let b = 1.000_001_f32;
    let bytes = with_header(&[
        (252, &1_i16.to_le_bytes()),
        (254, &0_i16.to_le_bytes()),
        (76, &1.0_f32.to_le_bytes()),
        (256, &b.to_le_bytes()),
        (260, &[0; 8]),
    ]);
    let grid = parse_nifti(Path::new("turned.nii"), &bytes).unwrap().grid;
    assert_eq!(grid.orientation().to_string(), "RPI");
    assert_eq!(grid.affine.spacing_mm(), [5.171875, 5.171875, 8.0]);
}

/// Names of formats that the writer makes, and the voxels for each.
fn written() -> impl Iterator<Item = (&'static str, Voxels)> {
    let size = 5 * 4 * 3;
    let integers = Voxels::I16((0..size).map(|value| value * 500 - 15_000).collect());
    let floats = Voxels::F32(
        (0..size)
            .map(|value| f32::from(value) / 7.0 - 3.0)
            .collect(),
    );
    ["w.nii", "w.nii.gz"]
        .into_iter()
        .flat_map(move |name| [(name, integers.clone()), (name, floats.clone())])
}

#[test]
fn what_is_written_is_read_again() {
    let folder = tempfile::tempdir().unwrap();
    // Exact in float32. Left-handed and with the axes in another order, so that handedness and a large turn matter.
    let affine = Affine {
        matrix: [
            [0.0, 0.0, 2.5, -7.0],
            [-0.75, 0.0, 0.0, 30.0],
            [0.0, 0.5, 0.0, -80.5],
        ],
    };
    for (name, voxels) in written() {
        let volume = Volume {
            voxels,
            rescale: Rescale {
                slope: 0.5,
                intercept: -1024.0,
            },
            grid: Grid {
                size: [5, 4, 3],
                affine,
            },
        };
        let path = folder.path().join(name);
        for gzip_level in [0, 1, 6] {
            write_nifti(&path, &volume, WriteOptions { gzip_level }).unwrap();
            assert_eq!(read_nifti(&path).unwrap(), volume);
        }
        // The same by `qform` alone.
        let bytes = fs::read(&path).unwrap();
        let mut bytes = if bytes.starts_with(&[0x1f, 0x8b]) {
            gunzip(&bytes)
        } else {
            bytes
        };
        bytes[254..256].fill(0);
        let by_qform = parse_nifti(&path, &gzip(&bytes)).unwrap();
        affines_agree(&by_qform.grid.affine, &affine.matrix).unwrap();
    }
    let names: Vec<_> = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names.len(), 2, "nothing else is left behind: {names:?}");
}

#[test]
fn sheared_grids_are_written_without_qform() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sheared.nii");
    let affine = Affine {
        matrix: [
            [1.0, 0.0, 0.0, 0.0],
            [0.0, 1.0, 0.5, 0.0],
            [0.0, 0.0, 2.0, 0.0],
        ],
    };
    let grid = Grid {
        size: [2, 2, 2],
        affine,
    };
    let volume = Volume {
        voxels: Voxels::I16(vec![1; 8]),
        rescale: Rescale::NONE,
        grid,
    };
    write_nifti(&path, &volume, WriteOptions::default()).unwrap();
    assert_eq!(fs::read(&path).unwrap()[252..254], [0, 0]);
    assert_eq!(read_nifti(&path).unwrap(), volume);
}

#[test]
fn a_volume_too_long_for_the_format_is_refused_and_nothing_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("long.nii");
    let grid = Grid {
        size: [32_768, 1, 1],
        affine: Affine::from_spacing_mm([1.0; 3]),
    };
    let volume = Volume {
        voxels: Voxels::I16(vec![0; 32_768]),
        rescale: Rescale::NONE,
        grid,
    };
    let error = write_nifti(&path, &volume, WriteOptions::default()).unwrap_err();
    assert!(error.to_string().contains("`dim` is 32768"), "{error}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}
