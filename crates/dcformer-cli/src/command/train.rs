//! `dcformer train`: scans and reports to a model.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use clap::Args;
use dcformer::Device;
use dcformer::models::preset;
use dcformer::train::{Observer, Outcome, RunConfig, RunOptions, StepReport, train};
use dcformer_volume::dataset::{Problem, ProblemKind};

use crate::args::{ActivationMemory, Runtime};
use crate::interrupt::stop_flag;
use crate::progress::{Progress, note};
use crate::workers::on_workers;

/// Train a model on scans and reports
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  \
    dcformer train configs/smoke.toml --out run/\n  \
    dcformer train configs/smoke.toml --out run/ --resume    go on after a stop\n  \
    mpirun -n 2 dcformer train configs/smoke.toml --out run/    two workers (build with the feature `mpi`)")]
pub(crate) struct Train {
    /// Configuration of the run
    #[arg(value_name = "CONFIG.toml")]
    config: PathBuf,
    /// Folder of the run: checkpoints, metrics.jsonl, and in the end the model
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Go on from the newest checkpoint in the folder
    #[arg(long)]
    resume: bool,
    /// Seed of the run, instead of the configuration's
    #[arg(long, value_name = "SEED")]
    seed: Option<u64>,
    /// The image encoder, instead of the configuration's
    #[arg(long, value_name = "NAME")]
    model_name: Option<String>,
    /// Its size, instead of the configuration's
    #[arg(long, value_name = "V")]
    variant: Option<String>,
    /// Volumes that are encoded together, instead of the configuration's: less memory, the same contrast
    #[arg(long, value_name = "N")]
    micro_batch: Option<usize>,
    #[command(flatten)]
    activation_memory: ActivationMemory,
    #[command(flatten)]
    runtime: Runtime,
}

impl Train {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let mut config = RunConfig::read(&self.config)?;
        if let Some(seed) = self.seed {
            config.seed = seed;
        }
        if self.micro_batch.is_some() {
            config.train.micro_batch = self.micro_batch;
        }
        self.choose_encoder(&mut config)?;
        self.activation_memory.apply()?;
        let device = self.runtime.start()?;
        train_on_workers(&config, &self.out, self.resume, device)
    }

    /// A network named without its size is the first of its rows in `dcformer complexity`.
    fn choose_encoder(&self, config: &mut RunConfig) -> anyhow::Result<()> {
        let variant = self.variant.as_deref();
        if let Some(network) = &self.model_name {
            let preset = preset(network, variant)?;
            config.model.encoder = preset.network.to_owned();
            config.model.variant = preset.variant.to_owned();
        } else if let Some(variant) = variant {
            config.model.variant = variant.to_owned();
        }
        Ok(())
    }
}

/// Trains with the other workers, if there are any, and says how it ended.
pub(crate) fn train_on_workers(
    config: &RunConfig,
    folder: &Path,
    resume: bool,
    device: Device,
) -> anyhow::Result<()> {
    on_workers(|workers| {
        let options = RunOptions {
            device,
            resume,
            stop: stop_flag()?,
            workers,
        };
        match train_with_progress(config, folder, &options)? {
            Outcome::Complete(_) => note(&format!(
                "the model is in {}",
                folder.join("model").display()
            )),
            Outcome::Stopped { step } => {
                note(&format!("stopped after step {step}; go on with --resume"));
            }
        }
        Ok(())
    })
}

/// Trains with a progress bar.
pub(crate) fn train_with_progress(
    config: &RunConfig,
    folder: &Path,
    options: &RunOptions<'_>,
) -> anyhow::Result<Outcome> {
    let watcher = Watcher::default();
    let outcome = train(config, folder, options, &watcher);
    for bar in [&watcher.reading, &watcher.encoding, &watcher.training] {
        if let Some(bar) = bar.get() {
            bar.finish();
        }
    }
    Ok(outcome?)
}

/// Shows a run on standard error.
#[derive(Default)]
struct Watcher {
    reading: OnceLock<Progress>,
    encoding: OnceLock<Progress>,
    training: OnceLock<Progress>,
}

impl Observer for Watcher {
    fn problems(&self, problems: &[Problem], without_report: usize) {
        say_problems(problems);
        if without_report > 0 {
            note(&format!(
                "{without_report} volumes without a report are left out"
            ));
        }
    }

    fn reading(&self, done: usize, volumes: usize) {
        self.reading
            .get_or_init(|| Progress::new("reading", 0, volumes as u64))
            .set(done as u64, "");
    }

    fn encoding(&self, done: usize, volumes: usize) {
        self.reading.get().inspect(|bar| bar.finish());
        self.encoding
            .get_or_init(|| Progress::new("encoding", 0, volumes as u64))
            .set(done as u64, "");
    }

    fn starting(&self, step: u64, steps: u64, pairs: usize) {
        for bar in [&self.reading, &self.encoding] {
            bar.get().inspect(|bar| bar.finish());
        }
        let training = self
            .training
            .get_or_init(|| Progress::new("training", step, steps));
        let from = if step > 0 {
            format!(", from step {step}")
        } else {
            String::new()
        };
        training.say(&format!("{pairs} pairs, {steps} steps{from}"));
    }

    fn step(&self, report: &StepReport) {
        if let Some(training) = self.training.get() {
            let StepReport {
                step,
                epoch,
                loss,
                pairs_per_s,
                ..
            } = report;
            training.set(
                *step,
                &format!(
                    "epoch {}, loss {loss:.3}, {pairs_per_s:.1} pairs/s",
                    epoch + 1
                ),
            );
            if let Some(loss) = report.validation_loss {
                training.say(&format!(
                    "validation loss after epoch {}: {loss:.3}",
                    epoch + 1
                ));
            }
        }
    }

    fn checkpoint(&self, _step: u64) {}
}

/// Problems shown by name before the rest is only counted.
const SHOWN: usize = 5;

/// Counts the problems of a data set by kind and names the first ones.
pub(crate) fn say_problems(problems: &[Problem]) {
    let mut kinds: Vec<ProblemKind> = problems.iter().map(|problem| problem.kind).collect();
    kinds.sort();
    kinds.dedup();
    for kind in kinds {
        let names: Vec<&str> = problems
            .iter()
            .filter(|problem| problem.kind == kind)
            .map(|problem| problem.name.as_str())
            .collect();
        let more = if names.len() > SHOWN { ", ..." } else { "" };
        note(&format!(
            "{} x {kind}: {}{more}",
            names.len(),
            names[..names.len().min(SHOWN)].join(", ")
        ));
    }
}
