//! `dcformer finetune`: labels to a model that answers by what it learnt from them.

use std::path::{Path, PathBuf};

use anyhow::ensure;
use clap::{ArgGroup, Args, ValueEnum};
use dcformer::checkpoint::ModelConfig;
use dcformer::finetune::{Examples, FittedLabel, HELD_OUT, LinearProbe, ProbeOptions};
use dcformer::latents::LatentFile;
use dcformer::train::{
    DataConfig, FinetuneConfig, Method, ModelChoice, OptimizerConfig, RunConfig, Schedule,
    TrainConfig,
};
use dcformer_volume::cache;
use serde::Serialize;

use crate::args::{ActivationMemory, List, Runtime};
use crate::command::train::train_on_workers;
use crate::model;
use crate::output::{self, Align};
use crate::progress::note;

/// Teach a model labels
///
/// A part of the training patients is held out: nothing is learnt from them, and the threshold of each label is chosen on
/// them. The validation split of a data set has no part in it, and stays for `evaluate`.
#[derive(Debug, Args)]
#[command(
    group(ArgGroup::new("source").required(true).args(["latents", "data"])),
    after_help = "Examples, a linear probe in seconds, and a run that teaches the image tower too:\n  \
        dcformer embed --model MODEL --data CT-RATE --split train --out latents.parquet\n  \
        dcformer finetune --model MODEL --latents latents.parquet --out PROBED\n  \
        dcformer evaluate --model PROBED --data CT-RATE\n  \
        dcformer finetune --model MODEL --data CT-RATE --method full --out run/\n  \
        dcformer evaluate --model run/model --data CT-RATE"
)]
pub(crate) struct Finetune {
    /// Folder of the model to start from
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// Latents of a labelled data set that the model has made, from `dcformer embed --data`: a linear head is fitted to them
    #[arg(long, value_name = "F.parquet")]
    latents: Option<PathBuf>,
    /// In place of latents a labelled data set, CT-RATE's folder, a cache, or a CSV with columns volume, patient and labels: of
    /// its training split, a run as of `dcformer train` learns
    #[arg(long, value_name = "DIR|CSV")]
    data: Option<PathBuf>,
    /// Folder to write: the model; with --data the run, whose `model` it becomes
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Share of the training patients to hold out
    #[arg(long, value_name = "SHARE", default_value_t = HELD_OUT)]
    held_out: f64,
    /// Seed of who is held out, and of a run
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    seed: u64,
    /// Print what was found for each label as JSON for programs
    #[arg(long, requires = "latents")]
    json: bool,
    #[command(flatten)]
    run: RunArgs,
    #[command(flatten)]
    activation_memory: ActivationMemory,
    #[command(flatten)]
    runtime: Runtime,
}

/// How a run over a data set goes.
#[derive(Debug, Args)]
#[command(next_help_heading = "With --data")]
struct RunArgs {
    /// Which part of the model learns
    #[arg(long, value_enum, default_value_t = MethodChoice::Full, conflicts_with = "latents")]
    method: MethodChoice,
    /// Passes over the volumes, at most
    #[arg(
        long,
        value_name = "N",
        default_value_t = 30,
        conflicts_with = "latents"
    )]
    epochs: usize,
    /// Volumes of a step
    #[arg(
        long,
        value_name = "N",
        default_value_t = 16,
        conflicts_with = "latents"
    )]
    batch: usize,
    /// Peak of the learning rate; 1e-3 for a head alone, else 1e-4, if not given
    #[arg(long, value_name = "RATE", conflicts_with = "latents")]
    learning_rate: Option<f64>,
    /// Epochs in a row without a lower loss of the patients held out, after which it ends
    #[arg(
        long,
        value_name = "N",
        default_value_t = 5,
        conflicts_with = "latents"
    )]
    patience: usize,
    /// Share of the latent's numbers that a step leaves out before the head
    #[arg(
        long,
        value_name = "SHARE",
        default_value_t = 0.0,
        conflicts_with = "latents"
    )]
    dropout: f64,
    /// Voxels that a volume is moved by at most, along depth, height and width, drawn anew each time
    #[arg(long, value_name = "D,H,W", default_value_t = List([0; 3]), conflicts_with = "latents")]
    shift: List<usize, 3>,
    /// Go on from the newest checkpoint in the folder
    #[arg(long, conflicts_with = "latents")]
    resume: bool,
}

/// Which part of the model learns.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum MethodChoice {
    /// A head on the latents alone
    Frozen,
    /// A head and the image tower
    Full,
    /// Both towers by the prompts, without a head: CT-CLIP's fine-tuning by vocabulary
    Vocabulary,
}

impl MethodChoice {
    const fn method(self) -> Method {
        match self {
            Self::Frozen => Method::Frozen,
            Self::Full => Method::Full,
            Self::Vocabulary => Method::Vocabulary,
        }
    }
}

/// What is printed of a linear probe as JSON.
#[derive(Serialize)]
struct Probed<'a> {
    labels: &'a [FittedLabel],
    left_out: &'a [String],
    learnt: usize,
    held_out: usize,
}

impl Finetune {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        match (&self.latents, &self.data) {
            (Some(latents), _) => self.probe(latents),
            (None, Some(data)) => self.train(data),
            (None, None) => unreachable!("one of the two is required"),
        }
    }

    fn train(&self, data: &Path) -> anyhow::Result<()> {
        let config = self.config(data)?;
        self.activation_memory.apply()?;
        let device = self.runtime.start()?;
        train_on_workers(&config, &self.out, self.run.resume, device)
    }

    /// The run: scans and prompts are treated as the model's configuration says.
    fn config(&self, data: &Path) -> anyhow::Result<RunConfig> {
        /// SPEC section 9.
        const GRADIENT_NORM: f64 = 1.0;
        let model = ModelConfig::read(&self.model)?;
        let method = self.run.method.method();
        let rate = self.run.learning_rate.unwrap_or(match method {
            Method::Frozen => 1e-3,
            Method::Full | Method::Vocabulary => 1e-4,
        });
        let (train, validation) = (data.to_owned(), None);
        let data = if cache::is_cache(data) {
            DataConfig::Cache { train, validation }
        } else if data.is_dir() {
            DataConfig::CtRate {
                root: train,
                exclude: Vec::new(),
            }
        } else {
            DataConfig::Manifest { train, validation }
        };
        Ok(RunConfig {
            seed: self.seed,
            data,
            model: ModelChoice {
                start: Some(self.model.clone()),
                ..ModelChoice::default()
            },
            preprocess: model.preprocess,
            train: TrainConfig {
                epochs: self.run.epochs,
                batch: self.run.batch,
                clip_gradient_norm: Some(GRADIENT_NORM),
                report: model.report,
                shift_voxels: self.run.shift.0,
                optimizer: OptimizerConfig {
                    learning_rate: Some(rate),
                    schedule: Schedule::Cosine,
                    ..OptimizerConfig::default()
                },
                ..TrainConfig::default()
            },
            prompts: model.prompts,
            finetune: Some(FinetuneConfig {
                held_out: self.held_out,
                patience: self.run.patience,
                dropout: self.run.dropout,
                ..FinetuneConfig::new(method)
            }),
        })
    }

    fn probe(&self, latents: &Path) -> anyhow::Result<()> {
        let device = self.runtime.start()?;
        let file = LatentFile::open(latents)?;
        file.check_model(&self.model)?;
        let mut model = model::load(&self.model, &device)?;
        let width = model
            .config
            .clip
            .image
            .projection
            .map_or(0, |own| own.outputs);
        file.check_width(width)?;
        // The head answers for scans that are treated as those it has learnt from.
        model.config.preprocess = file.preprocess(&model.config.preprocess)?;
        let options = ProbeOptions {
            held_out: self.held_out,
            seed: self.seed,
        };
        let probe = LinearProbe::fit(&Examples::read(&file)?, &options)?;
        ensure!(
            !is_same(&self.model, &self.out),
            "{}: is the model to start from; name another folder for the new one",
            self.out.display()
        );
        probe.apply(model, &device).save(&self.out)?;
        if !probe.left_out.is_empty() {
            note(&format!(
                "left out, because volumes with or without are missing among those to learn from or those held out: {}",
                probe.left_out.join(", ")
            ));
        }
        if self.json {
            return output::json(&Probed {
                labels: &probe.labels,
                left_out: &probe.left_out,
                learnt: probe.learnt,
                held_out: probe.held_out,
            });
        }
        print(&probe)?;
        note(&format!(
            "learnt from {} volumes, {} held out; the model is in {}",
            probe.learnt,
            probe.held_out,
            self.out.display()
        ));
        Ok(())
    }
}

/// Whether two paths lead to one folder.
fn is_same(a: &Path, b: &Path) -> bool {
    match (a.canonicalize(), b.canonicalize()) {
        (Ok(a), Ok(b)) => a == b,
        _ => false,
    }
}

fn print(probe: &LinearProbe) -> anyhow::Result<()> {
    let row = |label: &FittedLabel| {
        vec![
            label.name.clone(),
            label.positives.to_string(),
            label.negatives.to_string(),
            format!("{:.1e}", label.penalty),
            label
                .held_out_auroc
                .map_or("-".to_owned(), |auroc| format!("{auroc:.3}")),
            format!("{:.3}", label.threshold),
        ]
    };
    let rows: Vec<Vec<String>> = probe.labels.iter().map(row).collect();
    let headings = [
        ("label", Align::Left),
        ("with", Align::Right),
        ("without", Align::Right),
        ("penalty", Align::Right),
        ("AUROC held out", Align::Right),
        ("present from", Align::Right),
    ];
    output::table(&headings, &rows)
}
