//! From scan to model input.

mod arguments; // thin scans, odd geometry, configuration
mod authors; // the values of the authors' code
mod reading; // which reading of the values, and values there are not
mod steps; // storage, the path through the code and threads change nothing; the steps one by one

use std::path::{Path, PathBuf};

use dcformer_volume::dataset::ScanMetadata;
use dcformer_volume::geometry::{Affine, Grid, Shape3};
use dcformer_volume::preprocess::{Fit, ModelInput, Preprocess};
use dcformer_volume::scan::ScanOptions;
use dcformer_volume::volume::{Rescale, Volume, Voxels};

pub(crate) fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../golden")
        .join(name)
}

pub(crate) fn run_file(
    preprocess: &Preprocess,
    path: &Path,
    metadata: &ScanMetadata,
) -> ModelInput {
    preprocess
        .run_file(path, metadata, &ScanOptions::default())
        .unwrap_or_else(|error| panic!("{error}"))
}

pub(crate) fn run(preprocess: &Preprocess, volume: &Volume) -> ModelInput {
    preprocess
        .run(volume, &ScanMetadata::default())
        .unwrap_or_else(|error| panic!("{error}"))
}

pub(crate) fn shape(depth: usize, height: usize, width: usize) -> Shape3 {
    Shape3 {
        depth,
        height,
        width,
    }
}

pub(crate) const fn spacing(depth: f64, height: f64, width: f64) -> Fit {
    Fit::SpacingMm {
        depth,
        height,
        width,
    }
}

/// Air, lung, soft tissue and bone in a pattern without symmetry, stored towards L, P, S with spacing 0.8, 0.9, 2 mm.
pub(crate) fn patient(size: [usize; 3]) -> Volume {
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
