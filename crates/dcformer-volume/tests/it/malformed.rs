//! Broken and hostile files give errors that name file and field, and cost no more than they hold.

use std::fs;
use std::path::Path;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use dcformer_volume::geometry::{Affine, Grid};
use dcformer_volume::nifti::{NiftiReader, WriteOptions, parse_nifti, read_nifti, write_nifti};
use dcformer_volume::volume::{Rescale, Volume, Voxels};
use proptest::prelude::*;

use crate::allocation::largest_allocation;
use crate::variants::{VARIANTS, gunzip, gzip};

/// Part of the message for each broken file.
const MESSAGES: [(&str, &str); 14] = [
    (
        "m01_rgb24.nii.gz",
        "`datatype` is 128 (RGB24), expected one number per voxel",
    ),
    (
        "m02_trunc_gz.nii.gz",
        "bytes, expected 246112 for the voxels",
    ),
    (
        "m03_trunc_raw.nii",
        "describes 246112 bytes, more than a file of 123056 bytes can hold",
    ),
    (
        "m04_hugedims.nii.gz",
        "more than a file of 107 bytes can hold",
    ),
    ("m05_dim0.nii.gz", "`dim[0]` is 0, expected 3 axes"),
    ("m06_dim0.nii.gz", "`dim[0]` is 99, expected 3 axes"),
    ("m07_dim0.nii.gz", "`dim[0]` is -1, expected 3 axes"),
    (
        "m08_negdim.nii.gz",
        "`dim[1]` is -64, expected at least 1 voxel",
    ),
    (
        "m09_offset_past_eof.nii.gz",
        "the header describes 1000245760 bytes",
    ),
    (
        "m10_offset_nan.nii.gz",
        "`vox_offset` is NaN, expected a whole number, at least 352",
    ),
    ("m11_bitpix.nii.gz", "`bitpix` is 8 with datatype 4 (int16)"),
    ("m12_empty.nii.gz", "this is an empty file"),
    (
        "m13_badcrc.nii.gz",
        "the compressed data are damaged after 246112 bytes",
    ),
    (
        "m15_badpixdim.nii.gz",
        "`pixdim[1]` is 0, expected a distance above 0",
    ),
];

/// The largest chunk or guess for files of this folder, whose volumes take 246 kB.
const MOST_BYTES: usize = 2 << 20;

#[test]
fn every_broken_variant_says_what_is_wrong() {
    let broken = VARIANTS
        .expected
        .files
        .iter()
        .filter(|(_, file)| file.expect.starts_with("error"));
    assert_eq!(broken.count(), MESSAGES.len());
    for (name, message) in MESSAGES {
        let path = VARIANTS.path(name);
        let (result, bytes) = largest_allocation(|| read_nifti(&path));
        let error = result.expect_err(name).to_string();
        assert!(error.contains(message), "{error}");
        assert!(error.starts_with(path.to_str().unwrap()), "{error}");
        assert!(bytes <= MOST_BYTES, "{name}: {bytes} bytes at once");
    }
}

#[test]
fn zeros_after_the_volume_are_not_inflated() {
    let path = VARIANTS.path("m14_gzbomb.nii.gz");
    let start = Instant::now();
    let (result, bytes) = largest_allocation(|| NiftiReader::open(&path).unwrap().into_volume());
    let (volume, notes) = result.unwrap();
    // The 300 MB would take longer than this; the volume and one more mebibyte take a few milliseconds.
    assert!(
        start.elapsed() < Duration::from_millis(100),
        "{:?}",
        start.elapsed()
    );
    assert!(bytes <= MOST_BYTES, "{bytes} bytes at once");
    assert_eq!(
        volume,
        read_nifti(&VARIANTS.path("v00_base_i16le.nii.gz")).unwrap()
    );
    assert!(
        notes.join("\n").contains("checksum was not verified"),
        "{notes:?}"
    );
}

#[test]
fn a_plausible_size_takes_memory_only_as_voxels_arrive() {
    // 512x512x300 voxels are 157 MB; so well could DEFLATE compress, but the file holds 246 kB.
    let mut bytes = gunzip(&fs::read(VARIANTS.path("v00_base_i16le.nii.gz")).unwrap());
    for (axis, size) in [512_i16, 512, 300].into_iter().enumerate() {
        bytes[42 + 2 * axis..][..2].copy_from_slice(&size.to_le_bytes());
    }
    let bytes = gzip(&bytes);
    let (result, largest) = largest_allocation(|| parse_nifti(Path::new("claims.nii.gz"), &bytes));
    let error = result.unwrap_err().to_string();
    assert!(
        error.contains("holds 246112 bytes, expected 157286752"),
        "{error}"
    );
    assert!(largest <= MOST_BYTES, "{largest} bytes at once");
}

#[test]
fn headers_that_no_volume_can_have_are_refused() {
    let base = gunzip(&fs::read(VARIANTS.path("v20_sform_only.nii.gz")).unwrap());
    let two = gunzip(&fs::read(VARIANTS.path("v09_nifti2.nii.gz")).unwrap());
    let nan = f32::NAN.to_le_bytes();
    let cases: [(&[u8], usize, &[u8], &str); 13] = [
        (&base, 0, b"\x5d\x01", "this is a file of another kind"),
        (
            &base,
            344,
            b"nii\0",
            "`magic` is \"nii\\x00\", expected n+1",
        ),
        (&base, 344, b"\0\0\0\0", "Analyze 7.5"),
        (
            &base,
            40,
            &[4, 0, 64, 0, 64, 0, 15, 0, 2, 0],
            "`dim[4]` is 2, expected 1 (one volume",
        ),
        (&base, 40, &[2, 0], "`dim[0]` is 2, expected 3 axes"),
        (
            &base,
            70,
            &32_i16.to_le_bytes(),
            "`datatype` is 32 (complex64)",
        ),
        (&base, 108, &351.0_f32.to_le_bytes(), "`vox_offset` is 351"),
        (
            &base,
            108,
            &352.5_f32.to_le_bytes(),
            "`vox_offset` is 352.5",
        ),
        (
            &base,
            108,
            &f32::INFINITY.to_le_bytes(),
            "`vox_offset` is inf",
        ),
        (&base, 116, &nan, "`scl_inter` is NaN"),
        (&base, 280, &[0; 48], "`srow_x, srow_y, srow_z` is"),
        (
            &two,
            400,
            &1e-200_f64.to_le_bytes(),
            "`srow_x, srow_y, srow_z` is",
        ),
        (
            &two,
            24,
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f],
            "`dim` is [9223372036854775807, 64, 30]",
        ),
    ];
    for (file, at, change, message) in cases {
        let mut bytes = file.to_vec();
        bytes[at..at + change.len()].copy_from_slice(change);
        let error = parse_nifti(Path::new("changed.nii"), &bytes)
            .expect_err(message)
            .to_string();
        assert!(error.contains(message), "{error}, expected {message}");
        assert!(error.starts_with("changed.nii: "), "{error}");
    }
}

/// A small file of each kind that the writer makes, and a big-endian one of version 2.
static SMALL_FILES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("small.nii");
    let grid = Grid {
        size: [5, 4, 3],
        affine: Affine::from_spacing_mm([0.7, 0.8, 1.5]),
    };
    let integers = Voxels::I16((0..60).collect());
    let floats = Voxels::F32((0..60_i16).map(f32::from).collect());
    let mut files = Vec::new();
    for voxels in [integers, floats] {
        write_nifti(
            &path,
            &Volume {
                voxels,
                rescale: Rescale::NONE,
                grid,
            },
            WriteOptions::default(),
        )
        .unwrap();
        files.push(fs::read(&path).unwrap());
    }
    let mut two = gunzip(&fs::read(VARIANTS.path("v10_nifti2_be.nii.gz")).unwrap());
    for (axis, size) in [5_i64, 4, 3].into_iter().enumerate() {
        two[24 + 8 * axis..][..8].copy_from_slice(&size.to_be_bytes());
    }
    two.truncate(544 + 120);
    files.push(two);
    files
});

/// Reads both as a whole and in slabs. Either an error, or as many voxels as the header says.
fn read_anyhow(bytes: &[u8]) {
    let path = Path::new("mutated.nii");
    if let Ok(volume) = parse_nifti(path, bytes) {
        assert_eq!(volume.voxels.len(), volume.grid.voxels());
        assert!(
            volume
                .grid
                .affine
                .spacing_mm()
                .iter()
                .all(|&spacing| spacing > 0.0)
        );
    }
    if let Ok(mut reader) = NiftiReader::from_bytes(path, bytes) {
        let [columns, rows, slices] = reader.grid().size;
        // A hostile header may describe a slice that the file cannot hold only where the reader has checked less than
        // this test allocates.
        assert!(columns * rows * slices <= 1032 * bytes.len());
        let mut slab = vec![0.0_f32; columns * rows];
        while reader.read_slices(&mut slab).is_ok_and(|slices| slices > 0) {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn damaged_files_never_panic(
        file in 0..3_usize,
        // Most flips hit the header, where they matter.
        flips in prop::collection::vec((prop_oneof![3 => 0..360_usize, 1 => 0..2000_usize], 0..8_u32), 0..8),
        compressed_flips in prop::collection::vec((0..1000_usize, 0..8_u32), 0..3),
        cut in prop_oneof![3 => Just(usize::MAX), 1 => 0..700_usize],
        compress: bool,
    ) {
        let flip = |bytes: &mut [u8], flips: &[(usize, u32)]| {
            for &(at, bit) in flips {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << bit;
                }
            }
        };
        let mut bytes = SMALL_FILES[file].clone();
        flip(&mut bytes, &flips);
        if compress {
            bytes = gzip(&bytes);
            flip(&mut bytes, &compressed_flips);
        }
        bytes.truncate(cut);
        read_anyhow(&bytes);
    }
}
