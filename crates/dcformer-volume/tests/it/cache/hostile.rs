//! Damaged and hostile caches give errors, at no cost.

use super::*;

/// A cache of one phantom; its folder, the volume's, and its values.
fn small_cache() -> (tempfile::TempDir, PathBuf, Vec<f32>) {
    let (data, folder) = (phantoms(), tempfile::tempdir().expect("a folder"));
    let cache = folder.path().join("cache");
    prepare_all(data.path(), &cache);
    let volume = cache.join("volumes/train_1_a_1.nii.gz.zarr");
    let values = load(&volume).expect("a volume");
    (folder, volume, values)
}

fn load(volume: &Path) -> dcformer_volume::Result<Vec<f32>> {
    let (nothing, options) = (ScanMetadata::default(), ScanOptions::default());
    let input = settings().preprocess.run_file(volume, &nothing, &options);
    input.map(|input| input.values)
}

/// Loading fails with a message of this part, and takes no more memory than the volume has.
#[track_caller]
fn refused(volume: &Path, part: &str) {
    let (result, bytes) = largest_allocation(|| load(volume));
    let error = result.expect_err(part).to_string();
    assert!(error.contains(part), "{error}");
    assert!(error.contains(&volume.display().to_string()), "{error}");
    // The volume, or the largest description that is read at all, in a buffer that doubles.
    assert!(bytes <= 2 << 20, "{bytes} bytes for: {error}");
}

#[test]
fn a_changed_or_missing_byte_is_found() {
    let (_folder, volume, values) = small_cache();
    let shard = volume.join("c.0.0.0");
    let bytes = fs::read(&shard).expect("a shard");
    for at in (0..bytes.len())
        .step_by(bytes.len() / 50)
        .chain(bytes.len() - 24..bytes.len())
    {
        let mut changed = bytes.clone();
        changed[at] ^= 0x10;
        fs::write(&shard, changed).expect("it can be written");
        refused(&volume, "checksum");
    }
    for length in [0, 1, 19, 20, 21, bytes.len() / 2, bytes.len() - 1] {
        fs::write(&shard, &bytes[..length]).expect("it can be written");
        refused(&volume, "the file is damaged");
    }
    fs::write(&shard, [&bytes[..], &[0]].concat()).expect("it can be written");
    refused(&volume, "checksum");
    fs::remove_file(&shard).expect("it can be removed");
    refused(&volume, "cannot read");
    fs::write(&shard, &bytes).expect("it can be written");
    assert!(load(&volume).expect("a volume") == values);
}

#[test]
fn what_the_metadata_claim_is_held_against_the_format() {
    let (_folder, volume, _) = small_cache();
    let metadata = volume.join("zarr.json");
    let text = fs::read_to_string(&metadata).expect("metadata");
    for (from, to, part) in [
        ("\"float16\"", "\"float64\"", "its array is"),
        ("\"zstd\"", "\"lz4\"", "its array is"),
        (
            "\"depth\": 20",
            "\"depth\": 2000000000",
            "its shape is 20x48x40",
        ),
        (
            "    20,\n    48,\n    40",
            "    20,\n    48,\n    4000000000",
            "its shape is",
        ),
        ("\"format\": 1", "\"format\": 2", "its format is 2"),
        ("\"crc32c\"", "\"crc\"", "unknown variant"),
        ("\"sha256\"", "\"md5\"", "sha256"),
        ("{", "", "the file is damaged"),
    ] {
        assert!(text.contains(from), "{from}");
        fs::write(&metadata, text.replace(from, to)).expect("it can be written");
        refused(&volume, part);
    }
    // Both shapes at once: a volume that nobody asked for.
    let huge = text
        .replace("\"depth\": 20", "\"depth\": 1000000")
        .replace("    20,\n    48", "    1000000,\n    48");
    fs::write(&metadata, huge).expect("it can be written");
    refused(&volume, "damaged");
    fs::write(&metadata, " ".repeat(3 << 20)).expect("it can be written");
    refused(&volume, "the file is damaged");
}

#[test]
fn a_folder_that_is_no_cache_says_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let read = || cache::read(folder.path(), &[None]).expect_err("no cache");
    let error = read().to_string();
    assert!(error.contains("it has no zarr.json"), "{error}");
    assert!(error.contains("`dcformer prepare`"), "{error}");
    let group = "{\"zarr_format\":3,\"node_type\":\"group\",\"attributes\":{}}";
    fs::write(folder.path().join("zarr.json"), group).expect("it can be written");
    let error = read().to_string();
    assert!(error.contains("dcformer_cache"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever lies in the shard's place, with checksums that are right.
    #[test]
    fn rubbish_with_right_checksums_is_an_error(
        mut frame in proptest::collection::vec(any::<u8>(), 30..400),
        like_a_frame in any::<bool>(),
    ) {
        let (_folder, volume, _) = small_cache();
        if like_a_frame {
            frame[..4].copy_from_slice(&[2, 1, 0x91, 2]);
            let length = frame.len() as u32;
            frame[4..8].copy_from_slice(&(20 * 48 * 40 * 2_u32).to_le_bytes());
            frame[8..12].copy_from_slice(&(20 * 48 * 40 * 2_u32).to_le_bytes());
            frame[12..16].copy_from_slice(&length.to_le_bytes());
            frame[16..20].copy_from_slice(&20_u32.to_le_bytes());
            frame[20..24].copy_from_slice(&(length - 24).to_le_bytes());
        }
        frame.extend(crc32c::crc32c(&frame).to_le_bytes());
        let mut index = [0, frame.len() as u64].map(u64::to_le_bytes).concat();
        index.extend(crc32c::crc32c(&index).to_le_bytes());
        fs::write(volume.join("c.0.0.0"), [frame, index].concat()).expect("it can be written");
        prop_assert!(load(&volume).is_err());
    }
}
