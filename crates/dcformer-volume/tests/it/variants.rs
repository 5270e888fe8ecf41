//! The files of `tests/data/variants`, put together from what is kept of them.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use serde::Deserialize;

/// All variants, written to Cargo's folder for tests once per run.
pub(crate) static VARIANTS: LazyLock<Variants> = LazyLock::new(Variants::new);

/// A folder of variants, and what to expect of them.
pub(crate) struct Variants {
    folder: PathBuf,
    pub(crate) expected: Expected,
}

/// `expected.json`.
#[derive(Deserialize)]
pub(crate) struct Expected {
    pub(crate) base: Base,
    pub(crate) files: std::collections::BTreeMap<String, File>,
}

/// The volume that all files hold.
#[derive(Deserialize)]
pub(crate) struct Base {
    pub(crate) canonical_shape_xyz: [usize; 3],
    #[serde(rename = "canonical_affine_RAS")]
    pub(crate) canonical_affine_ras: [[f64; 4]; 4],
    #[serde(rename = "sha256_i16le_x_fastest_RAS")]
    pub(crate) sha256: String,
}

/// One file.
#[derive(Deserialize)]
pub(crate) struct File {
    pub(crate) abs_tol_hu: f64,
    pub(crate) geometry: String,
    pub(crate) expect: String,
}

impl Variants {
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn new() -> Self {
        let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/variants");
        let json =
            fs::read(kept.join("expected.json")).expect("expected.json is in the repository");
        let expected: Expected =
            serde_json::from_slice(&json).expect("expected.json is as described");
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("variants");
        fs::create_dir_all(&folder).expect("Cargo's folder for tests can be written");
        let parts = Parts::read(&kept);
        for name in expected.files.keys() {
            write(&folder.join(name), &parts.file(name));
        }
        // The images of the pairs have no entries of their own.
        write(&folder.join("v11_pair.img"), &parts.voxels);
        write(&folder.join("v12_pair.img.gz"), &gzip(&parts.voxels));
        Self { folder, expected }
    }
}

/// Writes a file that appears whole, since another run of the tests may be reading it.
fn write(path: &Path, bytes: &[u8]) {
    let unfinished = path.with_added_extension(std::process::id().to_string());
    fs::write(&unfinished, bytes).expect("Cargo's folder for tests can be written");
    fs::rename(&unfinished, path).expect("both names are in one folder");
}

/// What files are made of.
struct Parts {
    kept: PathBuf,
    /// `v00` as stored.
    base_gz: Vec<u8>,
    /// `v00` decompressed.
    base: Vec<u8>,
    /// Its voxels.
    voxels: Vec<u8>,
    /// The same in the other byte order.
    voxels_big_endian: Vec<u8>,
}

impl Parts {
    fn read(kept: &Path) -> Self {
        let base_gz =
            fs::read(kept.join("v00_base_i16le.nii.gz")).expect("v00 is in the repository");
        let base = gunzip(&base_gz);
        let voxels = base[352..].to_vec();
        let voxels_big_endian = voxels
            .as_chunks()
            .0
            .iter()
            .flat_map(|&[low, high]| [high, low])
            .collect();
        Self {
            kept: kept.into(),
            base_gz,
            base,
            voxels,
            voxels_big_endian,
        }
    }

    fn kept(&self, name: &str) -> Vec<u8> {
        fs::read(self.kept.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// The bytes of a file of `expected.json`.
    fn file(&self, name: &str) -> Vec<u8> {
        let stem = name.split('.').next().unwrap_or(name);
        match &name[..3] {
            "v03" => {
                let floats = gunzip(&self.kept("v02_f32.nii.gz"));
                let doubles = floats[352..]
                    .as_chunks()
                    .0
                    .iter()
                    .map(|&value| f64::from(f32::from_le_bytes(value)));
                [
                    self.kept("heads/v03_f64.head"),
                    doubles.flat_map(f64::to_le_bytes).collect(),
                ]
                .concat()
            }
            "v27" => {
                let mut floats = gunzip(&self.kept("v02_f32.nii.gz"));
                for (index, value) in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY]
                    .into_iter()
                    .enumerate()
                {
                    floats[352 + 4 * index..][..4].copy_from_slice(&value.to_le_bytes());
                }
                gzip(&floats)
            }
            "v28" => [gzip(&self.base[..100_000]), gzip(&self.base[100_000..])].concat(),
            "v29" => self.base_gz.clone(),
            "v30" => self.base.clone(),
            "v32" => gzip(&[self.base.as_slice(), &[0; 777]].concat()),
            "m02" => self.base_gz[..self.base_gz.len() / 2].to_vec(),
            "m03" => self.base[..self.base.len() / 2].to_vec(),
            "m12" => Vec::new(),
            "m13" => {
                let mut file = self.base_gz.clone();
                let checksum = file.len() - 8;
                file[checksum] ^= 0xff;
                file
            }
            "m14" => {
                let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
                encoder.write_all(&self.base).expect("memory");
                let zeros = vec![0; 1 << 20];
                (0..300).for_each(|_| encoder.write_all(&zeros).expect("memory"));
                encoder.finish().expect("memory")
            }
            _ if self.kept.join(name).exists() => self.kept(name),
            "v10" => gzip(
                &[
                    self.kept(&format!("heads/{stem}.head")),
                    self.voxels_big_endian.clone(),
                ]
                .concat(),
            ),
            _ => gzip(
                &[
                    self.kept(&format!("heads/{stem}.head")),
                    self.voxels.clone(),
                ]
                .concat(),
            ),
        }
    }
}

/// Compresses, fast.
pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}

/// Decompresses all members.
pub(crate) fn gunzip(bytes: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    MultiGzDecoder::new(bytes)
        .read_to_end(&mut plain)
        .expect("a kept file is whole");
    plain
}
