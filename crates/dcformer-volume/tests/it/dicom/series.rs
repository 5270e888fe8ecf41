//! Written series whose answer is known: order, gaps, copies, tilt, rescaling, frames.

use std::path::Path;

use dcformer_volume::Error;
use dcformer_volume::dicom::{DicomOptions, DicomSeries, read_image, read_series, read_stack};
use dcformer_volume::volume::Voxels;
use dicom_dictionary_std::uids;

use super::integers;
use super::write::{Slice, folder};

fn read(path: &Path) -> Result<DicomSeries, Error> {
    read_series(path, &DicomOptions::default())
}

fn allow_gaps() -> DicomOptions {
    DicomOptions {
        allow_gaps: true,
        ..DicomOptions::default()
    }
}

/// One value of each slice.
fn column(series: &DicomSeries) -> Vec<i16> {
    let [columns, rows, _] = series.volume.grid.size;
    integers(&series.volume.voxels)
        .chunks(columns * rows)
        .map(|slice| slice[0])
        .collect()
}

#[test]
fn slices_are_ordered_by_place_and_not_by_name() {
    let folder = folder(&[
        Slice::at(4.0, 3),
        Slice::at(-2.0, 0),
        Slice::at(2.0, 2),
        Slice::at(0.0, 1),
    ]);
    let series = read(folder.path()).unwrap();
    assert_eq!(column(&series), [0, 1, 2, 3]);
    assert_eq!(
        series.volume.grid.affine.swap_lps().matrix[2],
        [0.0, 0.0, 2.0, -2.0]
    );
    assert!(series.notes.is_empty(), "{:?}", series.notes);
}

/// Rows towards the left and columns towards the feet: the normal points to the back.
#[test]
fn coronal_slices_are_ordered_along_their_own_normal() {
    let slices: Vec<_> = [3.0, 1.0, 2.0]
        .map(|y| Slice {
            position: Some([0.0, y, 0.0]),
            orientation: [1.0, 0.0, 0.0, 0.0, 0.0, -1.0],
            spacing: [0.5, 0.25],
            words: vec![y as u16; 12],
            ..Slice::default()
        })
        .into();
    let series = read(folder(&slices).path()).unwrap();
    assert_eq!(column(&series), [1, 2, 3]);
    let expected = [
        [0.25, 0.0, 0.0, 0.0],
        [0.0, 0.0, 1.0, 1.0],
        [0.0, -0.5, 0.0, 0.0],
    ];
    assert_eq!(series.volume.grid.affine.swap_lps().matrix, expected);
}

#[test]
fn missing_slices_are_counted_or_filled() {
    let places = [0.0, 2.0, 4.0, 10.0, 12.0, 16.0];
    let folder = folder(&places.map(|z| Slice::at(z, z as u16)));
    let error = read(folder.path()).unwrap_err();
    assert!(
        matches!(
            error,
            Error::MissingSlices {
                missing: 3,
                expected: 9,
                ..
            }
        ),
        "{error}"
    );
    let said = error.to_string();
    assert!(
        said.contains("of 6.00 mm between 002 and 003, of 4.00 mm between 004 and 005"),
        "{said}"
    );
    let series = read_series(folder.path(), &allow_gaps()).unwrap();
    assert_eq!(column(&series), [0, 2, 4, 6, 8, 10, 12, 14, 16]);
    assert!(
        series.notes.join("").contains("3 missing slices filled"),
        "{:?}",
        series.notes
    );
}

/// A gap that is no multiple, but far larger than the others, is a hole too; one without end is not filled.
#[test]
fn a_hole_between_two_blocks_is_no_uneven_gap() {
    let blocks = folder(&[0.0, 2.0, 4.0, 11.3, 13.3].map(|z| Slice::at(z, 0)));
    assert!(matches!(
        read(blocks.path()),
        Err(Error::MissingSlices { missing: 3, .. })
    ));
    let far = folder(&[0.0, 2.0, 4.0, 90_000.0].map(|z| Slice::at(z, 0)));
    assert!(matches!(
        read_series(far.path(), &allow_gaps()),
        Err(Error::MissingSlices { .. })
    ));
}

/// Thick slices above thin ones, as heads are scanned: the gaps are what was planned.
#[test]
fn gaps_that_the_thickness_covers_are_uneven_and_not_missing() {
    let slices: Vec<_> = [0.0, 4.0, 8.0, 12.0, 20.0, 28.0]
        .map(|z| Slice {
            thickness: if z > 12.0 { 8.0 } else { 4.0 },
            ..Slice::at(z, z as u16)
        })
        .into();
    let series = read(folder(&slices).path()).unwrap();
    assert_eq!(column(&series), [0, 4, 8, 12, 16, 20, 24, 28]);
    assert!(
        series
            .notes
            .join("")
            .contains("(4.00 to 8.00 mm) resampled linearly to 4.00 mm"),
        "{:?}",
        series.notes
    );
}

/// Positions rounded to a tenth of a millimetre are even, and stay what they are.
#[test]
fn rounded_positions_are_even() {
    let slices: Vec<_> = (0..9)
        .map(|k| Slice::at((f64::from(k) * 6.25).round() / 10.0, k as u16))
        .collect();
    let series = read(folder(&slices).path()).unwrap();
    assert_eq!(column(&series), [0, 1, 2, 3, 4, 5, 6, 7, 8]);
    assert!(series.notes.is_empty(), "{:?}", series.notes);
    assert!((series.volume.grid.affine.spacing_mm()[2] - 0.625).abs() < 1e-9);
}

/// A field that is linear in space is reproduced by linear interpolation wherever slices cover it, so the whole
/// correction is checked without repeating it: value = field(place that the grid claims).
#[test]
fn shear_and_resampling_keep_a_linear_field_in_place() {
    let [x, y, z] = [7.0, -11.0, 13.0];
    let field = |place: [f64; 3]| x * place[0] + y * place[1] + z * place[2];
    let (sine, cosine) = (20.0_f64.to_radians().sin(), 20.0_f64.to_radians().cos());
    let orientation = [1.0, 0.0, 0.0, 0.0, cosine, -sine];
    let [rows, columns] = [20_u16, 10_u16];
    let slices: Vec<_> = [0.0, 2.0, 4.0, 5.2, 9.0, 13.0]
        .map(|table| {
            let origin = [-3.0, 2.0, table];
            let pixel = |row: f64, column: f64| {
                field([
                    origin[0] + 0.5 * column,
                    origin[1] + 0.75 * row * cosine,
                    origin[2] - 0.75 * row * sine,
                ])
            };
            let places = (0..rows)
                .flat_map(|row| (0..columns).map(move |column| (row.into(), column.into())));
            Slice {
                position: Some(origin),
                orientation,
                spacing: [0.75, 0.5],
                thickness: 4.0,
                rows,
                columns,
                words: places
                    .map(|(row, column)| pixel(row, column).round() as i16 as u16)
                    .collect(),
                ..Slice::default()
            }
        })
        .into();
    let series = read(folder(&slices).path()).unwrap();
    let grid = series.volume.grid;
    let values = integers(&series.volume.voxels);
    let lowest = *values.iter().min().unwrap();
    let affine = grid.affine.swap_lps();
    let mut covered = 0;
    for (index, &value) in values.iter().enumerate() {
        let [i, j, k] = [
            index % grid.size[0],
            index / grid.size[0] % grid.size[1],
            index / grid.size[0] / grid.size[1],
        ];
        let place = affine.apply([i as f64, j as f64, k as f64]);
        // Height above the first slice and way down its columns; then the row of a slice at that height, which starts
        // where the table has carried it.
        let from_first = [place[1] - 2.0, place[2]];
        let height = from_first[0] * sine + from_first[1] * cosine;
        let down = from_first[0] * cosine - from_first[1] * sine;
        let row = (down + height * sine / cosine) / 0.75;
        // The slices above and below are up to 4 mm along the table, 1.8 rows, apart.
        if !(2.0..f64::from(rows) - 3.0).contains(&row) {
            continue;
        }
        covered += 1;
        // Half a unit from rounding the slices, half from rounding the result.
        assert!(
            (f64::from(value) - field(place)).abs() <= 1.0,
            "{value} at {place:?}, expected {}",
            field(place)
        );
    }
    let slice = usize::from(rows) * usize::from(columns);
    assert!(
        covered >= slice * grid.size[2] * 7 / 10,
        "{covered} voxels were compared"
    );
    assert!(
        values.iter().filter(|&&value| value == lowest).count() > grid.size[0],
        "what no slice covers is filled"
    );
}

#[test]
fn a_file_that_is_there_twice_counts_once() {
    let folder = folder(&[
        Slice::at(0.0, 1),
        Slice::at(1.0, 2),
        Slice::at(2.0, 3),
        Slice::at(1.0, 2),
    ]);
    let series = read(folder.path()).unwrap();
    assert_eq!(column(&series), [1, 2, 3]);
    assert!(
        series
            .notes
            .join("")
            .contains("1 copies of slices left out"),
        "{:?}",
        series.notes
    );
}

#[test]
fn two_acquisitions_of_one_series_are_told_apart_or_refused() {
    let scan = |acquisition, places: &[f64]| -> Vec<Slice> {
        let slice = |&z| Slice {
            acquisition,
            instance: String::new(),
            ..Slice::at(z, acquisition as u16)
        };
        places.iter().map(slice).collect()
    };
    let twice = [scan(1, &[0.0, 1.0]), scan(2, &[0.0, 1.0, 2.0])].concat();
    let series = read(folder(&twice).path()).unwrap();
    assert_eq!(column(&series), [2, 2, 2]);
    assert!(
        series
            .notes
            .join("")
            .contains("took AcquisitionNumber 2 (3 slices)"),
        "{:?}",
        series.notes
    );
    // Step and shoot numbers every slice on its own; that is one scan.
    let steps: Vec<_> = (0..4)
        .flat_map(|step| scan(step, &[f64::from(step)]))
        .collect();
    assert_eq!(column(&read(folder(&steps).path()).unwrap()), [0, 1, 2, 3]);
    let same = [scan(1, &[0.0, 1.0]), scan(1, &[1.0])].concat();
    let error = read(folder(&same).path()).unwrap_err();
    assert!(
        matches!(
            error,
            Error::DuplicateSlices {
                position_mm: 1.0,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn a_localiser_in_the_series_is_left_aside() {
    let localiser = Slice {
        orientation: [1.0, 0.0, 0.0, 0.0, 0.0, -1.0],
        rows: 100,
        columns: 100,
        words: vec![0; 10_000],
        ..Slice::default()
    };
    let folder = folder(&[localiser, Slice::at(0.0, 1), Slice::at(1.0, 2)]);
    let series = read(folder.path()).unwrap();
    assert_eq!(column(&series), [1, 2]);
    assert_eq!(
        (series.alternatives[0].slices, series.alternatives[0].rows),
        (1, 100)
    );
}

#[test]
fn each_slice_is_rescaled_as_it_says() {
    let slice = |z, slope, intercept| Slice {
        slope,
        intercept,
        ..Slice::at(z, 100)
    };
    let whole = read(folder(&[slice(0.0, 1.0, -1024.0), slice(1.0, 3.0, 7.0)]).path()).unwrap();
    assert_eq!(column(&whole), [-924, 307]);
    let broken = read(folder(&[slice(0.0, 0.25, 0.125), slice(1.0, 3.0, 7.0)]).path()).unwrap();
    let Voxels::F32(values) = broken.volume.voxels else {
        panic!("25.125 is no integer")
    };
    assert_eq!([values[0], values[12]], [25.125, 307.0]);
    let large = read(folder(&[slice(0.0, 1.0, 0.0), slice(1.0, 500.0, 0.0)]).path()).unwrap();
    assert!(
        matches!(large.volume.voxels, Voxels::F32(_)),
        "50000 does not fit"
    );
}

/// Twelve bits in the middle of sixteen, with an overlay below and garbage above.
#[test]
fn bits_beside_the_value_do_not_count() {
    let words = vec![0xF008, 0x3FF8, 0x8008, 0x7FFF];
    let words = words.into_iter().cycle().take(12).collect();
    let unsigned = Slice {
        bits: [16, 12, 14],
        signed: false,
        words,
        ..Slice::at(0.0, 0)
    };
    let signed = Slice {
        signed: true,
        ..unsigned.clone()
    };
    let values = |slice: &Slice| {
        let folder = folder(std::slice::from_ref(slice));
        integers(&read_image(&folder.path().join("000")).unwrap().voxels)[..4].to_vec()
    };
    assert_eq!(values(&unsigned), [0xE01, 0x7FF, 0x001, 0xFFF]);
    assert_eq!(values(&signed), [0xE01 - 4096, 0x7FF, 0x001, -1]);
}

#[test]
fn every_uncompressed_syntax_reads_the_same() {
    // Retired, and in archives.
    const EXPLICIT_VR_BIG_ENDIAN: &str = "1.2.840.10008.1.2.2";
    for syntax in [
        uids::IMPLICIT_VR_LITTLE_ENDIAN,
        uids::EXPLICIT_VR_LITTLE_ENDIAN,
        EXPLICIT_VR_BIG_ENDIAN,
    ] {
        let slices = [0.0, 1.0, 2.0].map(|z| Slice {
            syntax,
            ..Slice::at(z, 500 + z as u16)
        });
        let series = read(folder(&slices).path()).unwrap();
        assert_eq!(column(&series), [500, 501, 502], "{syntax}");
    }
}

#[test]
fn frames_of_an_enhanced_ct_are_slices() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("enhanced");
    let slice = Slice {
        class: uids::ENHANCED_CT_IMAGE_STORAGE,
        spacing: [0.5, 0.75],
        ..Slice::default()
    };
    slice.write_enhanced(
        &[[5.0, 6.0, 20.0], [5.0, 6.0, 17.5], [5.0, 6.0, 15.0]],
        &path,
    );
    let series = read(&path).unwrap();
    assert_eq!(
        column(&series),
        [202, 101, 0],
        "each frame by its own place and rescaling"
    );
    let expected = [
        [0.75, 0.0, 0.0, 5.0],
        [0.0, 0.5, 0.0, 6.0],
        [0.0, 0.0, 2.5, 15.0],
    ];
    assert_eq!(series.volume.grid.affine.swap_lps().matrix, expected);
}

#[test]
fn a_stack_of_one_slice_is_as_thick_as_the_slice() {
    let folder = folder(&[Slice {
        thickness: 2.5,
        ..Slice::at(3.0, 9)
    }]);
    let stack = read_stack(folder.path(), &DicomOptions::default()).unwrap();
    assert_eq!(stack.grid.size, [4, 3, 1]);
    assert_eq!(stack.grid.affine.swap_lps().matrix[2], [0.0, 0.0, 2.5, 3.0]);
    assert!(stack.gaps_mm.is_empty());
}

/// JPEG lossless (process 14, first-order prediction) by an encoder of thirty lines.
#[test]
fn jpeg_lossless_decodes_exactly() {
    let words: Vec<u16> = (0..40 * 30_u32)
        .map(|index| (index * index * 31 % 4096) as u16)
        .collect();
    let slice = Slice {
        rows: 30,
        columns: 40,
        bits: [16, 12, 11],
        signed: false,
        intercept: -1024.0,
        coded: Some(jpeg_lossless(&words, 40, 12)),
        syntax: uids::JPEG_LOSSLESS_SV1,
        ..Slice::default()
    };
    let folder = folder(std::slice::from_ref(&slice));
    let image = read_image(&folder.path().join("000")).unwrap();
    let expected: Vec<i16> = words.iter().map(|&word| word as i16 - 1024).collect();
    assert_eq!(integers(&image.voxels), expected);
}

/// ITU-T T.81, annex H, with selection value 1 and a code of five bits for each of the 17 categories.
fn jpeg_lossless(words: &[u16], columns: usize, precision: u8) -> Vec<u8> {
    let rows = words.len() / columns;
    let mut stream = vec![0xFF, 0xD8, 0xFF, 0xC3, 0, 11, precision];
    stream.extend([(rows as u16).to_be_bytes(), (columns as u16).to_be_bytes()].concat());
    stream.extend([
        1, 1, 0x11, 0, 0xFF, 0xC4, 0, 36, 0, 0, 0, 0, 0, 17, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ]);
    stream.extend(0..17_u8);
    stream.extend([0xFF, 0xDA, 0, 8, 1, 1, 0, 1, 0, 0]);
    let (mut bits, mut filled) = (0_u64, 0);
    for (index, &word) in words.iter().enumerate() {
        let predicted = match (index / columns, index % columns) {
            (0, 0) => 1 << (precision - 1),
            (_, 0) => i32::from(words[index - columns]),
            _ => i32::from(words[index - 1]),
        };
        let difference = i32::from(word) - predicted;
        let category = 32 - difference.unsigned_abs().leading_zeros();
        let extra = if difference < 0 {
            difference - 1
        } else {
            difference
        } as u64
            & ((1 << category) - 1);
        bits = bits << (5 + category) | u64::from(category) << category | extra;
        filled += 5 + category;
        while filled >= 8 {
            filled -= 8;
            let byte = (bits >> filled) as u8;
            stream.push(byte);
            if byte == 0xFF {
                stream.push(0);
            }
        }
    }
    stream.push((bits << (8 - filled)) as u8 | ((1 << (8 - filled)) - 1) as u8);
    stream.extend([0xFF, 0xD9]);
    stream
}
