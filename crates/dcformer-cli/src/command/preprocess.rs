//! `dcformer preprocess`: a scan to a network's input.

use std::path::PathBuf;

use clap::Args;
use dcformer::tensors::{self, Values};
use dcformer_volume::geometry::Shape3;

use crate::args::Runtime;
use crate::progress::note;
use crate::scan_args::ScanArgs;
use crate::steps_args::StepsArgs;

/// Turn a scan into a network's input
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    dcformer preprocess scan.nii.gz --out volume.safetensors\n  \
    dcformer preprocess ct_series/ --out volume.safetensors --shape 128,256,256 --window=-1000,1000")]
pub(crate) struct Preprocess {
    /// NIfTI file or DICOM folder
    #[arg(value_name = "INPUT")]
    input: PathBuf,
    /// File to write: `volume` (1, D, H, W), float32
    #[arg(long, value_name = "F.safetensors")]
    out: PathBuf,
    #[command(flatten)]
    steps: StepsArgs,
    #[command(flatten)]
    scan: ScanArgs,
    #[command(flatten)]
    runtime: Runtime,
}

impl Preprocess {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        self.runtime.start()?;
        let mut steps = self.steps.steps();
        self.scan.adjust(&mut steps);
        let input = steps.run_file(&self.input, &self.scan.metadata(), &self.scan.options())?;
        note(&format!("{}: {}", self.input.display(), input.rescale));
        for sentence in &input.notes {
            note(&format!("{}: {sentence}", self.input.display()));
        }
        let Shape3 {
            depth,
            height,
            width,
        } = input.shape;
        let volume = Values {
            shape: vec![1, depth, height, width],
            values: input.values,
        };
        tensors::write(&self.out, &[("volume", &volume)])?;
        Ok(())
    }
}
