//! Real series and slices, against pydicom's values.

use std::path::Path;

use dcformer_volume::dicom::{DicomOptions, TiltPolicy, read_image, read_series, read_stack};
use dcformer_volume::volume::Voxels;
use serde_json::Value;

use super::{data, integers, sha256};

fn numbers(value: &Value) -> Vec<f64> {
    value
        .as_array()
        .unwrap()
        .iter()
        .map(|value| value.as_f64().unwrap())
        .collect()
}

/// Shape, place, gaps and values of one series; what is wrong, if anything.
fn compare(name: &str, expected: &Value) -> Result<(), String> {
    let stack =
        read_stack(&data(name), &DicomOptions::default()).map_err(|error| error.to_string())?;
    let [columns, rows, slices] = stack.grid.size;
    let check = |right: bool, what: &str| {
        if right {
            Ok(())
        } else {
            Err(format!("{name}: {what}"))
        }
    };
    check(
        numbers(&expected["shape_zyx"]) == [slices as f64, rows as f64, columns as f64],
        "shape",
    )?;
    // DICOM's decimal strings have sixteen digits, positions up to a thousand millimetres.
    const SAME_MM: f64 = 1e-6;
    let close = |a: &[f64], b: &[f64]| {
        a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < SAME_MM)
    };
    for (row, expected) in stack
        .grid
        .affine
        .swap_lps()
        .matrix
        .iter()
        .zip(expected["affine_LPS_ijk"].as_array().unwrap())
    {
        check(
            close(row, &numbers(expected)),
            &format!("affine {row:?}, expected {expected}"),
        )?;
    }
    check(
        close(&stack.gaps_mm, &numbers(&expected["slice_gaps"])),
        "gaps",
    )?;
    let values = integers(&stack.voxels);
    check(
        values.iter().min().map(|&value| value.into()) == expected["min"].as_i64(),
        "least value",
    )?;
    check(
        values.iter().max().map(|&value| value.into()) == expected["max"].as_i64(),
        "greatest value",
    )?;
    check(sha256(values) == expected["sha256_i16le_zyx"], "values")
}

#[test]
fn every_series_equals_an_independent_reader() {
    let expected: Value =
        serde_json::from_str(&std::fs::read_to_string(data("expected.json")).unwrap()).unwrap();
    let series = expected.as_object().unwrap();
    assert_eq!(series.len(), 5);
    let wrong: Vec<_> = series
        .iter()
        .filter_map(|(name, expected)| compare(name, expected).err())
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Hashes of the rescaled values as 16-bit integers, by pydicom 3.0.2 with pylibjpeg.
#[test]
fn every_coding_of_a_slice_decodes_exactly() {
    const MR_SMALL: &str = "88617aaa46138fb1b6e2a951e762d962382354d69f47f8c04d4abff2f6a6a63e";
    const CT_SMALL: &str = "743dc0a86c09496177526f2a903e7d18016eacfee47afabd89b198224c8f8e5d";
    let cases = [
        ("MR_small", MR_SMALL),        // explicit, little-endian
        ("MR_small_padded", MR_SMALL), // more pixel data than pixels
        ("MR_small_implicit", MR_SMALL),
        ("MR_small_bigendian", MR_SMALL),
        ("MR_small_RLE", MR_SMALL),
        ("MR_small_jpeg_ls_lossless", MR_SMALL),
        ("MR_small_jp2klossless", MR_SMALL),
        ("CT_small", CT_SMALL),
        ("no_meta", CT_SMALL), // neither preamble nor meta group, and a stray byte before the data set
        (
            "JPEG2000",
            "0b1224a6dcd0dcebb1ae6966270b620a8aecc3e20d7fe5b01504e574e1814ac6",
        ),
        (
            "J2K_pixelrep_mismatch",
            "1296350a0006ef6908ce4aa11717e3e8a236b63478a097bbfb45ac7a5fca6359",
        ),
        (
            "JPEGLSNearLossless_08",
            "5a92d12c46d60428811b4c409ac148e7c947375019474c1fabee7d3b7bd26a13",
        ),
        (
            "image_dfl",
            "4497866512b32b3919e7036e0caf223867bf6daf373be3ebba075d5e0c4dc454",
        ), // deflated
    ];
    let wrong: Vec<_> = cases
        .iter()
        .filter_map(
            |(name, expected)| match read_image(&data(&format!("pydicom/{name}.dcm"))) {
                Ok(image) if sha256(integers(&image.voxels)) == *expected => None,
                Ok(_) => Some(format!("{name}: other values")),
                Err(error) => Some(error.to_string()),
            },
        )
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Unsigned 16-bit values beyond `i16` become floats and lose nothing.
#[test]
fn near_lossless_jpeg_ls_of_sixteen_bits() {
    let image = read_image(&data("pydicom/JPEGLSNearLossless_16.dcm")).unwrap();
    let Voxels::F32(values) = image.voxels else {
        panic!("65535 does not fit 16-bit integers")
    };
    assert!(values.iter().all(|value| value.fract() == 0.0));
    let wrapped: Vec<i16> = values.iter().map(|&value| value as u16 as i16).collect();
    assert_eq!(
        sha256(&wrapped),
        "f929318278115ce952d85c011f752634e266720680e807bd03bf97ded3f0d3e4"
    );
}

#[test]
fn jpeg_baseline_is_within_a_rounding_of_libjpeg() {
    let image = read_image(&data("jpeg_baseline.dcm")).unwrap();
    let expected = std::fs::read(data("jpeg_baseline.raw")).unwrap();
    let values = integers(&image.voxels);
    assert_eq!(values.len(), expected.len());
    // The standard leaves the rounding of the cosine transform open (ITU-T T.83: one unit).
    for (found, expected) in values.iter().zip(expected) {
        assert!(
            (found - i16::from(expected)).abs() <= 1,
            "{found} for {expected}"
        );
    }
}

#[test]
fn the_larger_reconstruction_of_a_study_is_taken_or_the_one_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let nested = folder.path().join("study/b70");
    std::fs::create_dir_all(&nested).unwrap();
    copy(&data("lungpetctdx_A0002_B40f"), folder.path());
    copy(&data("lungpetctdx_A0002_B70f_3slices"), &nested);
    // As exports have them: a report, a directory file, a picture of something else, a note.
    copy_file("pydicom/reportsi.dcm", &folder.path().join("DICOMDIR"));
    copy_file("pydicom/MR_small.dcm", &folder.path().join("IM000001"));
    std::fs::write(folder.path().join("README.txt"), "from the archive").unwrap();

    let largest = read_series(folder.path(), &DicomOptions::default()).unwrap();
    assert_eq!(largest.volume.grid.size, [48, 48, 30]);
    assert_eq!(largest.alternatives.len(), 2);
    let said = largest.notes.join("\n");
    assert!(
        said.contains("took CT series 3 \"ThoraxRoutine  8.0.0  B40f\""),
        "{said}"
    );
    assert!(
        said.contains("(3 slices of 48x48)") && said.contains("MR series"),
        "{said}"
    );
    assert!(
        said.contains("1 file that is not DICOM") && said.contains("(SR)"),
        "{said}"
    );

    let uid = &largest.alternatives[0].uid;
    for asked in ["2", uid, &uid[..45]] {
        let options = DicomOptions {
            series: Some(asked.into()),
            ..DicomOptions::default()
        };
        let series = read_series(folder.path(), &options).unwrap();
        assert_eq!(
            (series.volume.grid.size, &series.chosen.uid),
            ([48, 48, 3], uid),
            "{asked}"
        );
    }
    for (asked, matches) in [("1.3.6", "fits 3 "), ("7", "fits 0 "), ("", "fits 3 ")] {
        let options = DicomOptions {
            series: Some(asked.into()),
            ..DicomOptions::default()
        };
        let error = read_series(folder.path(), &options)
            .unwrap_err()
            .to_string();
        assert!(error.contains(matches) && error.contains("B70f"), "{error}");
    }
}

#[test]
fn a_tilted_head_is_straightened_or_refused() {
    let path = data("ge_head_tilt_varspacing");
    let stack = read_stack(&path, &DicomOptions::default()).unwrap();
    let series = read_series(&path, &DicomOptions::default()).unwrap();
    let grid = series.volume.grid;
    // 5.492 mm a slice along the table, ten times, at 18.5 degrees, in pixels of 0.488 mm: 36 more rows.
    assert_eq!(grid.size, [48, 48 + 36, 14]);
    let [a, b, c] = [0, 1, 2].map(|axis| grid.affine.step_mm(axis));
    for (a, b) in [(a, b), (b, c), (c, a)] {
        assert!(
            a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>().abs() < 1e-6,
            "axes at right angles"
        );
    }
    // The first slice is moved by whole pixels, so it is still there, in a place that both affines agree on.
    let values = integers(&series.volume.voxels);
    let original = integers(&stack.voxels);
    let lowest = *original.iter().min().unwrap();
    for row in 0..grid.size[1] {
        let line = &values[row * 48..][..48];
        match row.checked_sub(36) {
            Some(source) => assert_eq!(line, &original[source * 48..][..48], "row {row}"),
            None => assert!(line.iter().all(|&value| value == lowest), "row {row}"),
        }
    }
    let there = grid.affine.apply([3.0, 40.0, 0.0]);
    let here = stack.grid.affine.apply([3.0, 4.0, 0.0]);
    assert!(
        there.iter().zip(here).all(|(a, b)| (a - b).abs() < 1e-6),
        "{there:?} {here:?}"
    );
    let said = series.notes.join("\n");
    assert!(
        said.contains("18.5 degrees") && said.contains("11 slices became 14"),
        "{said}"
    );

    let refuse = DicomOptions {
        tilt: TiltPolicy::Refuse,
        ..DicomOptions::default()
    };
    let error = read_series(&path, &refuse).unwrap_err().to_string();
    assert!(error.contains("tilted by 18.5 degrees"), "{error}");
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let read = |threads| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| read_series(&data("ge_head_tilt_varspacing"), &DicomOptions::default()))
            .unwrap()
            .volume
    };
    assert_eq!(read(1), read(5));
}

fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

fn copy_file(from: &str, to: &Path) {
    std::fs::copy(data(from), to).unwrap();
}
