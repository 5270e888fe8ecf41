//! `dcformer import` and `dcformer export`: weights from and to the authors' names.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use dcformer::checkpoint::{Duplicates, ImportOptions, Model, export, import};

use crate::args::Runtime;
use crate::hub;
use crate::progress::note;

/// Bring the authors' weights into a model folder
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    dcformer import official.pth --vocab vocab.txt --out MODEL\n  \
    dcformer import CT-CLIP_v2.pt --vocab vocab.txt --out MODEL\n  \
    dcformer import DCFormer_SigLIP/ --out MODEL\n  \
    dcformer import --hub MagicXin/DCFormer_SigLIP --out MODEL")]
pub(crate) struct Import {
    /// The authors' .pth, CT-CLIP's .pt, the follow-up's folder as its hub has it, or an encoder's .safetensors, as
    /// `export` writes it
    #[arg(value_name = "CHECKPOINT", required_unless_present = "hub")]
    checkpoint: Option<PathBuf>,
    /// A model of Hugging Face's hub, downloaded first; needs a program that was built with the feature `hub`
    #[arg(long, value_name = "OWNER/NAME", conflicts_with = "checkpoint")]
    hub: Option<String>,
    /// Folder of the model to write
    #[arg(long, value_name = "MODEL")]
    out: PathBuf,
    /// Vocabulary of the text encoder: vocab.txt or tokenizer.json; the folder's own if not given
    #[arg(long, value_name = "F")]
    vocab: Option<PathBuf>,
    /// config.json of the text encoder; its sizes are read from the weights if not given
    #[arg(long, value_name = "F")]
    text_config: Option<PathBuf>,
    /// The image encoder; read from the file if not given
    #[arg(long, value_name = "NAME")]
    model_name: Option<String>,
    /// Variant of the image encoder; read from the file if not given
    #[arg(long, value_name = "V")]
    variant: Option<String>,
    #[command(flatten)]
    runtime: Runtime,
}

impl Import {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let device = self.runtime.start()?;
        let options = ImportOptions {
            vocabulary: self.vocab,
            text_config: self.text_config,
            network: self.model_name,
            variant: self.variant,
            ..ImportOptions::default()
        };
        let checkpoint = match (self.checkpoint, &self.hub) {
            (Some(path), _) => path,
            (None, Some(name)) => hub::download(name)?,
            (None, None) => unreachable!("one of the two is required"),
        };
        let model = import(&checkpoint, &options, &device)?;
        model.save(&self.out)?;
        note(&format!(
            "{}: {:.2} M parameters",
            self.out.display(),
            model.parameters() as f64 / 1e6
        ));
        if model.config.clip.text.is_some() && model.tokenizer.is_none() {
            note(
                "without a vocabulary the model encodes images only; import again with --vocab to detect",
            );
        }
        Ok(())
    }
}

/// Write a model's weights in the authors' names
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  dcformer export MODEL --out official.safetensors --duplicates")]
pub(crate) struct Export {
    /// Folder of the model
    #[arg(value_name = "MODEL")]
    model: PathBuf,
    /// File to write
    #[arg(long, value_name = "F.safetensors")]
    out: PathBuf,
    /// Write norms under both of their names, with counters, as PyTorch's strict loading wants them
    #[arg(long)]
    duplicates: bool,
    #[command(flatten)]
    runtime: Runtime,
}

impl Export {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let device = self.runtime.start()?;
        let model = Model::load(&self.model, &device)
            .with_context(|| format!("cannot load the model in {}", self.model.display()))?;
        let duplicates = if self.duplicates {
            Duplicates::Write
        } else {
            Duplicates::Omit
        };
        export(&model, &self.out, duplicates)?;
        Ok(())
    }
}
