//! What commands that preprocess without a model share: whose preprocessing, and what of it is otherwise.

use clap::{Args, ValueEnum};
use dcformer_volume::intensity::Window;
use dcformer_volume::preprocess::{Intensity, Preprocess};

use crate::args::List;

/// A preset and changes to it.
#[derive(Clone, Debug, Args)]
pub(crate) struct StepsArgs {
    /// Whose preprocessing
    #[arg(long, value_enum, default_value_t = Preset::Dcformer)]
    preset: Preset,
    /// Voxels of the result
    #[arg(long, value_name = "D,H,W")]
    shape: Option<List<usize, 3>>,
    /// Hounsfield units that become -1 and 1
    #[arg(long, value_name = "LO,HI", allow_hyphen_values = true)]
    window: Option<List<f64, 2>>,
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

impl StepsArgs {
    /// The preset with the changes.
    pub(crate) fn steps(&self) -> Preprocess {
        let mut steps = match self.preset {
            Preset::Dcformer => Preprocess::dcformer(),
            Preset::DcformerPaper => Preprocess::dcformer_paper(),
            Preset::CtClip => Preprocess::ct_clip(),
            Preset::Med3dvlm => Preprocess::med3dvlm(),
        };
        self.adjust(&mut steps);
        steps
    }

    /// The changes, to any preprocessing.
    pub(crate) fn adjust(&self, steps: &mut Preprocess) {
        if let Some(shape) = self.shape {
            steps.shape = shape.into();
        }
        if let Some(List([low_hu, high_hu])) = self.window {
            steps.intensity = Intensity::Window(Window { low_hu, high_hu });
        }
    }
}
