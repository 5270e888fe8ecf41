//! `dcformer preprocess`: a scan to a network's input.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use dcformer::tensors::{self, Values};
use dcformer_volume::geometry::Shape3;
use dcformer_volume::intensity::Window;
use dcformer_volume::preprocess::{Intensity, Preprocess as Steps};

use crate::args::{List, Runtime};
use crate::progress::note;
use crate::scan_args::ScanArgs;

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
    /// Whose preprocessing
    #[arg(long, value_enum, default_value_t = Preset::Dcformer)]
    preset: Preset,
    /// Voxels of the result
    #[arg(long, value_name = "D,H,W")]
    shape: Option<List<usize, 3>>,
    /// Hounsfield units that become -1 and 1
    #[arg(long, value_name = "LO,HI", allow_hyphen_values = true)]
    window: Option<List<f64, 2>>,
    #[command(flatten)]
    scan: ScanArgs,
    #[command(flatten)]
    runtime: Runtime,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Preset {
    /// The authors' code: 0.75 x 0.75 x 1.5 mm, 512 x 512 x 256, [-1000, 200] HU
    Dcformer,
    /// The paper's text: the same with [-1000, 1000] HU
    DcformerPaper,
    /// CT-CLIP: 480 x 480 x 240, [-1000, 1000] HU
    CtClip,
    /// Med3DVLM: foreground stretched to 256 x 256 x 128, smallest to largest value
    Med3dvlm,
}

impl Preprocess {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        self.runtime.start()?;
        let mut steps = match self.preset {
            Preset::Dcformer => Steps::dcformer(),
            Preset::DcformerPaper => Steps::dcformer_paper(),
            Preset::CtClip => Steps::ct_clip(),
            Preset::Med3dvlm => Steps::med3dvlm(),
        };
        if let Some(List([depth, height, width])) = self.shape {
            steps.shape = Shape3 {
                depth,
                height,
                width,
            };
        }
        if let Some(List([low_hu, high_hu])) = self.window {
            steps.intensity = Intensity::Window(Window { low_hu, high_hu });
        }
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
