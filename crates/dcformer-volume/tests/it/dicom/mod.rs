//! DICOM: real series against values of independent readers, written series whose answer is known, damage.

mod damaged; // files that must be refused, and in what words
mod real; // tests/data/dicom
mod series; // choice, order, gaps, tilt
mod write; // slices written by another library

use std::path::PathBuf;

use dcformer_volume::volume::Voxels;
use sha2::{Digest, Sha256};

/// A file or folder of tests/data/dicom.
fn data(name: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data/dicom")
        .join(name);
    assert!(
        path.exists(),
        "{} is missing; git checkout, or scripts/crop_dicom.py",
        path.display()
    );
    path
}

fn integers(voxels: &Voxels) -> &[i16] {
    match voxels {
        Voxels::I16(values) => values,
        Voxels::F32(_) => panic!("values are whole and small, and should stay integers"),
    }
}

fn sha256(values: &[i16]) -> String {
    let bytes: Vec<u8> = values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
