//! Files and folders that must be refused, each with a message that names the file and the cure.

use std::path::Path;

use dcformer_volume::Error;
use dcformer_volume::dicom::{DicomOptions, read_image, read_series};
use dicom_dictionary_std::uids;
use proptest::prelude::*;

use super::data;
use super::write::{Slice, folder};

fn refusal(path: &Path) -> String {
    let error = read_series(path, &DicomOptions::default())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains(&path.display().to_string()),
        "the message names no file: {error}"
    );
    error
}

fn contains_all(error: &str, parts: &[&str]) {
    for part in parts {
        assert!(error.contains(part), "{part:?} is not in: {error}");
    }
}

fn three(slice: &Slice) -> tempfile::TempDir {
    folder(&[0.0, 1.0, 2.0].map(|z| Slice {
        position: Some([0.0, 0.0, z]),
        ..slice.clone()
    }))
}

#[test]
fn other_pictures_are_refused_by_what_they_are() {
    contains_all(
        &refusal(&data("pydicom/MR_small.dcm")),
        &["no CT series", "MR series", "pass a folder"],
    );
    contains_all(&refusal(&data("pydicom/ExplVR_BigEnd.dcm")), &["US series"]);
    contains_all(
        &refusal(&data("pydicom/reportsi.dcm")),
        &["without pixels (SR)"],
    );
    contains_all(&refusal(&data("pydicom/liver_1frame.dcm")), &["SEG series"]);
    let colour = three(&Slice {
        photometric: "RGB",
        words: vec![0; 36],
        ..Slice::default()
    });
    contains_all(&refusal(colour.path()), &["CT colour series"]);
    let capture = three(&Slice {
        class: uids::SECONDARY_CAPTURE_IMAGE_STORAGE,
        ..Slice::default()
    });
    contains_all(&refusal(capture.path()), &["CT secondary capture series"]);
    let error = read_image(&data("pydicom/ExplVR_BigEnd.dcm"))
        .unwrap_err()
        .to_string();
    contains_all(&error, &["`SamplesPerPixel` is 3 (RGB)", "colour"]);
}

#[test]
fn a_single_slice_is_not_a_volume() {
    contains_all(
        &refusal(&data("pydicom/CT_small.dcm")),
        &["single slice", "pass the folder"],
    );
}

#[test]
fn a_folder_without_dicom_says_what_is_there() {
    let folder = tempfile::tempdir().unwrap();
    contains_all(&refusal(folder.path()), &["nothing: the folder is empty"]);
    let pdf = folder.path().join("report.dcm");
    std::fs::write(&pdf, b"%PDF-1.7\n%\xE2\xE3\xCF\xD3\n1 0 obj").unwrap();
    contains_all(&refusal(folder.path()), &["1 file that is not DICOM"]);
    contains_all(&refusal(&pdf), &["not a DICOM file"]);
    contains_all(&refusal(&folder.path().join("nowhere")), &["cannot read"]);
}

#[test]
fn slices_without_a_place_are_refused() {
    let slices = folder(&[0, 1, 2].map(|number| Slice {
        position: None,
        words: vec![number; 12],
        ..Slice::default()
    }));
    contains_all(
        &read_series(slices.path(), &DicomOptions::default())
            .unwrap_err()
            .to_string(),
        &[
            "`ImagePositionPatient` is absent",
            "cannot be put in order",
            "000",
        ],
    );
    for (slice, field) in [
        (
            Slice {
                spacing: [0.0, 0.0],
                ..Slice::default()
            },
            "`PixelSpacing` is 0, 0",
        ),
        (
            Slice {
                spacing: [-1.0, 1.0],
                ..Slice::default()
            },
            "`PixelSpacing` is -1, 1",
        ),
        (
            Slice {
                orientation: [0.0; 6],
                ..Slice::default()
            },
            "`ImageOrientationPatient`",
        ),
        (
            Slice {
                slope: 0.0,
                ..Slice::default()
            },
            "`RescaleSlope` is 0",
        ),
    ] {
        let folder = three(&slice);
        let error = read_series(folder.path(), &DicomOptions::default()).unwrap_err();
        assert!(matches!(error, Error::Header { .. }), "{error}");
        contains_all(&error.to_string(), &[field]);
    }
}

#[test]
fn slices_on_no_line_are_refused() {
    let places = [[0.0, 0.0, 0.0], [0.0, 400.0, 1.0], [0.0, 0.0, 2.0]];
    let folder = folder(&places.map(|place| Slice {
        position: Some(place),
        ..Slice::default()
    }));
    let error = read_series(folder.path(), &DicomOptions::default()).unwrap_err();
    assert!(
        matches!(
            error,
            Error::ScatteredSlices {
                shift_mm: 400.0,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn a_truncated_file_is_named_and_the_gap_it_leaves_too() {
    contains_all(
        &refusal(&data("pydicom/MR_truncated.dcm")),
        &["PixelData of 8192 bytes where 8130 are left"],
    );
    let folder = folder(&[0.0, 1.0, 2.0, 3.0].map(|z| Slice::at(z, 0)));
    let broken = folder.path().join("002");
    let bytes = std::fs::read(&broken).unwrap();
    std::fs::write(&broken, &bytes[..bytes.len() - 10]).unwrap();
    contains_all(
        &refusal(folder.path()),
        &[
            "1 of 4 slices are missing",
            "1 file that cannot be read",
            "002",
            "cut off",
        ],
    );
}

#[test]
fn every_truncation_of_a_slice_is_an_error() {
    let bytes = std::fs::read(data("pydicom/MR_small_RLE.dcm")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("slice");
    // Behind the delimiter of the pixel data is padding.
    let delimiter = bytes
        .windows(4)
        .rposition(|window| window == [0xFE, 0xFF, 0xDD, 0xE0])
        .unwrap();
    for length in (0..delimiter + 8).step_by(97) {
        std::fs::write(&path, &bytes[..length]).unwrap();
        assert!(
            read_image(&path).is_err(),
            "{length} of {} bytes",
            bytes.len()
        );
    }
}

#[test]
fn what_no_decoder_knows_is_named() {
    let folder = three(&Slice {
        syntax: "1.2.840.10008.1.2.4.100",
        coded: Some(vec![0; 8]),
        ..Slice::default()
    });
    contains_all(
        &refusal(folder.path()),
        &[
            "3 files that cannot be read",
            "1.2.840.10008.1.2.4.100",
            "convert",
        ],
    );
    let error = read_image(&data("pydicom/JPGExtended.dcm"))
        .unwrap_err()
        .to_string();
    contains_all(&error, &["Jpeg pixels", "SamplePrecision(12)"]);
}

/// Replaces the four bytes of a length field behind an element's tag and value representation.
fn with_length(path: &Path, element: [u8; 6], length: u32) -> Vec<u8> {
    let mut bytes = std::fs::read(path).unwrap();
    let place = bytes
        .windows(6)
        .position(|window| window == element)
        .unwrap()
        + 8;
    bytes[place..place + 4].copy_from_slice(&length.to_le_bytes());
    bytes
}

#[test]
fn a_length_is_believed_only_as_far_as_the_file_goes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hostile.dcm");
    let pixels = with_length(
        &data("pydicom/CT_small.dcm"),
        [0xE0, 0x7F, 0x10, 0x00, b'O', b'W'],
        0xFFFF_FFFE,
    );
    std::fs::write(&path, &pixels).unwrap();
    contains_all(&refusal(&path), &["PixelData of 4294967294 bytes where 3"]);
    // Rows and Columns of 65535 with the pixels of 128 x 128.
    let mut bytes = std::fs::read(data("pydicom/CT_small.dcm")).unwrap();
    for element in [0x10, 0x11] {
        let place = bytes
            .windows(6)
            .position(|window| window == [0x28, 0, element, 0, b'U', b'S'])
            .unwrap()
            + 8;
        bytes[place..place + 2].copy_from_slice(&[0xFF, 0xFF]);
    }
    std::fs::write(&path, &bytes).unwrap();
    contains_all(
        &read_image(&path).unwrap_err().to_string(),
        &["32768 bytes, expected 8589672450"],
    );
    // The same in a compressed file, where the header alone cannot tell.
    let mut bytes = std::fs::read(data("pydicom/MR_small_RLE.dcm")).unwrap();
    for element in [0x10, 0x11] {
        let place = bytes
            .windows(6)
            .position(|window| window == [0x28, 0, element, 0, b'U', b'S'])
            .unwrap()
            + 8;
        bytes[place..place + 2].copy_from_slice(&[0xFF, 0xFF]);
    }
    std::fs::write(&path, &bytes).unwrap();
    contains_all(
        &read_image(&path).unwrap_err().to_string(),
        &["bytes for 65535x65535 pixels"],
    );
}

/// Sequences in sequences, each of undefined length.
#[test]
fn nesting_without_end_is_refused() {
    let mut bytes = vec![0; 128];
    bytes.extend(b"DICM");
    for _ in 0..10_000 {
        bytes.extend([
            0x08, 0, 0x40, 0x11, b'S', b'Q', 0, 0, 0xFF, 0xFF, 0xFF, 0xFF,
        ]);
        bytes.extend([0xFE, 0xFF, 0x00, 0xE0, 0xFF, 0xFF, 0xFF, 0xFF]);
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("nested.dcm");
    std::fs::write(&path, bytes).unwrap();
    contains_all(&refusal(&path), &["nested beyond reason"]);
}

/// Which files to damage: every coding that we decode ourselves, the frame around it, and one of another crate's.
const VICTIMS: [&str; 6] = [
    "pydicom/MR_small_RLE.dcm",
    "pydicom/MR_small_jpeg_ls_lossless.dcm",
    "pydicom/MR_small_bigendian.dcm",
    "pydicom/MR_small_implicit.dcm",
    "pydicom/image_dfl.dcm",
    "jpeg_baseline.dcm",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn flipped_bits_never_panic(
        victim in prop::sample::select(&VICTIMS[..]),
        flips in prop::collection::vec((any::<prop::sample::Index>(), 0..8_u8), 1..6),
        head in prop::bool::ANY,
    ) {
        let mut bytes = std::fs::read(data(victim)).unwrap();
        // The header decides most, and is the smaller part.
        let reach = if head { bytes.len().min(2000) } else { bytes.len() };
        for (place, bit) in flips {
            bytes[place.index(reach)] ^= 1 << bit;
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("slice");
        std::fs::write(&path, bytes).unwrap();
        let _ = read_image(&path);
        prop_assert!(read_series(folder.path(), &DicomOptions::default()).is_err(), "one slice is no volume");
    }
}
