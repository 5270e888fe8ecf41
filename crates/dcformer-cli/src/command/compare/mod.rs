//! `dcformer compare`: which encoder for which budget?

mod page;
mod run;

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use anyhow::{Context, bail, ensure};
use clap::Args;
use dcformer::compare::{
    Budget, Comparison, EncoderName, Entry, Failure, Request, common_volume, read_json, write_json,
};
use dcformer::detect::LabelledScans;
use dcformer::evaluate::Bootstrap;
use dcformer::models::{ImageEncoderConfig, Temperature};
use dcformer::report::TrainingCurve;
use dcformer::train::RunConfig;
use dcformer_volume::geometry::Shape3;
use dcformer_volume::phantom::DataSetConfig;
use dcformer_volume::preprocess::Fit;

pub(crate) use self::run::ComparePart;
use self::run::{Ending, Part, RunFolder, lock};
use crate::args::{Format, Runtime};
use crate::command::phantom::draw;
use crate::interrupt::stop_flag;
use crate::output;
use crate::progress::{duration, note};
use crate::recipe::{phantom_run, phantom_set};
use crate::summary::training_curve;

/// Encoders that are compared where none are named: each network in its smallest size, all of which take the default's
/// volumes, but for TransUNet and CT-ViT, whose training takes several times as long as the others'.
const MODELS: [&str; 6] = [
    "dcformer:nano",
    "dcformer:naive",
    "inceptionnext:nano",
    "poolformer:nano",
    "convnext:nano",
    "vit:naive",
];

/// Passes over the phantoms where no budget is given: what six encoders can do in less than half an hour on two cores.
const EPOCHS: usize = 14;

/// Train several encoders on the same data with the same budget, and put them side by side
///
/// Without a configuration, synthetic chest scans are drawn into the folder. Every encoder learns from the same pairs in the
/// same order, is asked about the same held-out patients, and runs in processes of its own, so that its time and memory are
/// its own. Writes comparison.html with the chart of accuracy against cost, comparison.json, comparison.csv and
/// comparison.md.
///
/// The same command on the same folder goes on with what is not done; encoders may be added. A budget of epochs or steps gives
/// the same accuracies again on any number of threads; one of minutes depends on the machine.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    dcformer compare --out compare/\n  \
    dcformer compare --models dcformer:nano,vit:naive --epochs 2 --train 256 --out quick/\n  \
    dcformer compare --config configs/ct-rate-nano.toml --models dcformer:tiny,ctvit:paper --out ct-rate/")]
pub(crate) struct Compare {
    /// Encoders as NETWORK:SIZE; `dcformer complexity` lists them
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = encoder_name, default_values = MODELS)]
    models: Vec<EncoderName>,
    /// Folder to write
    #[arg(long, value_name = "DIR", default_value = "compare")]
    out: PathBuf,
    /// Data, preprocessing, text encoder and training as for `dcformer train`, instead of synthetic scans
    #[arg(long, value_name = "CONFIG.toml", conflicts_with_all = ["train", "valid"])]
    config: Option<PathBuf>,
    /// Passes over the training pairs; 14 on synthetic scans, else the configuration's
    #[arg(long, value_name = "N", conflicts_with_all = ["steps", "minutes"], value_parser = clap::value_parser!(u32).range(1..))]
    epochs: Option<u32>,
    /// Steps of each encoder, instead of epochs
    #[arg(long, value_name = "N", conflicts_with = "minutes", value_parser = clap::value_parser!(u64).range(1..))]
    steps: Option<u64>,
    /// Minutes of training for each encoder, instead of epochs: as many steps as it can take in them
    #[arg(long, value_name = "M", value_parser = minutes)]
    minutes: Option<f64>,
    /// Synthetic patients to learn from
    #[arg(long, value_name = "N", default_value_t = phantom_set(0).train_patients)]
    train: usize,
    /// Synthetic patients to be asked about
    #[arg(long, value_name = "N", default_value_t = phantom_set(0).valid_patients)]
    valid: usize,
    /// Seed of scans, weights, order and texts; 1, or the configuration's
    #[arg(long, value_name = "SEED")]
    seed: Option<u64>,
    #[command(flatten)]
    format: Format,
    #[command(flatten)]
    runtime: Runtime,
}

/// What came of the encoders.
#[derive(Default)]
struct Results {
    entries: Vec<Entry>,
    /// Of each entry.
    curves: Vec<TrainingCurve>,
    failures: Vec<Failure>,
}

fn encoder_name(text: &str) -> Result<EncoderName, String> {
    text.trim()
        .parse()
        .map_err(|error: dcformer::Error| error.to_string())
}

fn minutes(text: &str) -> Result<f64, String> {
    let found: f64 = text.parse().map_err(|_| "expected a number".to_owned())?;
    if found.is_finite() && found > 0.0 {
        Ok(found)
    } else {
        Err("expected a number above 0".to_owned())
    }
}

impl Compare {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let started = Instant::now();
        self.runtime.start()?;
        let stop = stop_flag()?;
        let config = self.configuration()?;
        self.check(&config)?;
        std::fs::create_dir_all(&self.out)
            .with_context(|| format!("cannot make {}", self.out.display()))?;
        let _lock = lock(&self.out)?;
        if self.config.is_none() {
            self.draw_phantoms(&config)?;
        }
        check_labels(&config)?;
        let budget = self.budget(&config);
        let runs = self.claim_runs(&config, budget)?;
        let Some(results) = self.carry_out(runs, stop)? else {
            note("stopped; the same command goes on");
            return Ok(());
        };
        let Results {
            entries,
            curves,
            failures,
        } = results;
        ensure!(
            !entries.is_empty(),
            "no encoder came to a result: {}",
            reasons(&failures)
        );
        let failed = failures.len();
        let setting = (config.seed, config.preprocess.shape, budget);
        let comparison = Comparison::new(entries, failures, setting, Bootstrap::default())?;
        self.write(comparison, curves, &config)?;
        note(&format!(
            "took {}",
            duration(started.elapsed().as_secs_f64())
        ));
        if failed > 0 {
            bail!(
                "{failed} of {} encoders came to no result",
                self.models.len()
            );
        }
        Ok(())
    }

    /// A folder for each encoder, before the first is trained.
    fn claim_runs(
        &self,
        config: &RunConfig,
        budget: Budget,
    ) -> anyhow::Result<Vec<(RunFolder, Request)>> {
        let claim = |encoder: &EncoderName| {
            let request = Request::new(encoder.clone(), config, budget)?;
            let folder = self.out.join("runs").join(encoder.folder());
            let run = RunFolder { folder };
            run.claim(&request)?;
            Ok((run, request))
        };
        self.models.iter().map(claim).collect()
    }

    /// Trains and measures one encoder after the other; `None` if it was asked to stop.
    fn carry_out(
        &self,
        runs: Vec<(RunFolder, Request)>,
        stop: &AtomicBool,
    ) -> anyhow::Result<Option<Results>> {
        let mut results = Results::default();
        for (index, (run, request)) in runs.into_iter().enumerate() {
            let name = request.encoder.to_string();
            note(&format!("{} of {}: {name}", index + 1, self.models.len()));
            let started = Instant::now();
            let mut ending = run.carry_out(Part::Train, &self.runtime, stop)?;
            if ending == Ending::Done {
                ending = run.carry_out(Part::Measure, &self.runtime, stop)?;
            }
            match ending {
                Ending::Stopped => return Ok(None),
                Ending::Failed(reason) => {
                    note(&format!("{name} came to no result: {reason}"));
                    results.failures.push(Failure {
                        encoder: request.encoder,
                        reason,
                    });
                }
                Ending::Done => {
                    let elapsed_s = started.elapsed().as_secs_f64();
                    note(&format!("{name}: {}", duration(elapsed_s)));
                    results.curves.push(training_curve(&run.metrics())?);
                    results.entries.push(Entry {
                        trained: run.trained()?.context("training is done")?,
                        measured: run.measured()?.context("measuring is done")?,
                        request,
                    });
                }
            }
        }
        Ok(Some(results))
    }

    /// The run that all encoders share.
    fn configuration(&self) -> anyhow::Result<RunConfig> {
        let mut config = match &self.config {
            Some(path) => RunConfig::read(path)?,
            None => self.phantom_configuration()?,
        };
        if let (Some(seed), Some(_)) = (self.seed, &self.config) {
            config.seed = seed;
        }
        Ok(config)
    }

    /// The demonstration's, with volumes that networks of patches of 32 voxels take too.
    fn phantom_configuration(&self) -> anyhow::Result<RunConfig> {
        // The same folder under another name is the same data.
        let phantoms = std::path::absolute(self.phantoms())?;
        let mut config = phantom_run(&phantoms, self.seed.unwrap_or(1));
        // Of the demonstration's chest, 275 x 256 x 307 mm, as much and a little more.
        config.preprocess.shape = Shape3 {
            depth: 32,
            height: 64,
            width: 64,
        };
        config.preprocess.fit = Fit::SpacingMm {
            depth: 8.6,
            height: 4.3,
            width: 4.8,
        };
        // The authors' scale to begin with: from the demonstration's larger one, networks without batch norm (ViT, PoolFormer)
        // give all scans one latent within five steps.
        config.model.temperature = Temperature::Learnable {
            initial_log_scale: 1.0,
        };
        // The demonstration's millimetres.
        config.train.shift_voxels = [2, 3, 3];
        config.train.epochs = EPOCHS;
        config.train.validate_every_epochs = None;
        config.train.batch = config.train.batch.min(self.train);
        Ok(config)
    }

    fn phantoms(&self) -> PathBuf {
        self.out.join("phantoms")
    }

    fn budget(&self, config: &RunConfig) -> Budget {
        match (self.epochs, self.steps, self.minutes) {
            (Some(epochs), ..) => Budget::Epochs(epochs as usize),
            (_, Some(steps), _) => Budget::Steps(steps),
            (.., Some(minutes)) => Budget::Minutes(minutes),
            _ => match config.train.steps {
                Some(steps) => Budget::Steps(steps),
                None => Budget::Epochs(config.train.epochs),
            },
        }
    }

    /// Refuses, before anything is drawn or trained, what some encoder cannot do.
    fn check(&self, config: &RunConfig) -> anyhow::Result<()> {
        for (index, encoder) in self.models.iter().enumerate() {
            ensure!(
                !self.models[..index].contains(encoder),
                "--models names {encoder} twice; expected each encoder once"
            );
        }
        ensure!(
            config.model.start.is_none(),
            "`model.start` is a trained model, expected none: encoders are compared from fresh weights"
        );
        let mut encoders: Vec<ImageEncoderConfig> = Vec::new();
        let mut refused = Vec::new();
        for encoder in &self.models {
            let mut config = config.clone();
            config.model = config.model.with_encoder(&encoder.preset()?)?;
            let encoder = config.model.encoder()?;
            match encoder.grid(config.preprocess.shape) {
                Ok(_) => config.check()?,
                Err(error) => refused.push(error.to_string()),
            }
            encoders.push(encoder);
        }
        if refused.is_empty() {
            return Ok(());
        }
        let common = common_volume(&encoders, config.preprocess.shape);
        let remedy = common.map_or(
            "no size near it is taken by all of them".to_owned(),
            |common| format!("all of them take {common}"),
        );
        bail!("{}; {remedy}", refused.join("; "))
    }

    /// Draws the phantoms, unless they are there.
    fn draw_phantoms(&self, config: &RunConfig) -> anyhow::Result<()> {
        let set = DataSetConfig {
            train_patients: self.train,
            valid_patients: self.valid,
            ..phantom_set(config.seed)
        };
        let path = self.out.join("phantoms.json");
        match read_json::<DataSetConfig>(&path)? {
            Some(found) if found == set => return Ok(()),
            Some(_) => bail!(
                "{} holds phantoms of another seed or number; choose another --out",
                self.out.display()
            ),
            None => {}
        }
        note(&format!(
            "drawing {} synthetic patients",
            set.train_patients + set.valid_patients
        ));
        draw(&self.phantoms(), &set)?;
        Ok(write_json(&path, &set)?)
    }

    /// Writes page, JSON and tables, and prints the numbers.
    fn write(
        &self,
        comparison: Comparison,
        curves: Vec<TrainingCurve>,
        config: &RunConfig,
    ) -> anyhow::Result<()> {
        let [json, csv, markdown, html] =
            ["json", "csv", "md", "html"].map(|kind| self.out.join(format!("comparison.{kind}")));
        write_json(&json, &comparison)?;
        comparison.write_tables(&csv, &markdown)?;
        if self.format.json {
            output::json(&comparison)?;
        } else {
            output::text(&comparison.to_markdown())?;
        }
        let data = match &self.config {
            None => page::Data::Phantoms,
            Some(path) => page::Data::Configured(path.clone()),
        };
        page::report(comparison, curves, config, data)?.write(&html)?;
        note(&format!("the page is {}", html.display()));
        Ok(())
    }
}

/// Refuses data that nothing can be measured on, before anything is trained.
fn check_labels(config: &RunConfig) -> anyhow::Result<()> {
    let data = config.data.validation()?;
    LabelledScans::new(&config.prompts.abnormalities, &data)
        .context("the validation split cannot be measured on")?;
    Ok(())
}

fn reasons(failures: &[Failure]) -> String {
    let reasons: Vec<String> = failures
        .iter()
        .map(|failure| format!("{}: {}", failure.encoder, failure.reason))
        .collect();
    reasons.join("; ")
}
