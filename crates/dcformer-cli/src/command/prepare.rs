//! `dcformer prepare`: a data set to a cache of preprocessed volumes.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, ensure};
use clap::Args;
use dcformer::checkpoint::ModelConfig;
use dcformer::train::RunConfig;
use dcformer_volume::cache::{self, Job, Listing, Progress as Done, Quarantined, Settings};
use dcformer_volume::ct_rate;
use dcformer_volume::preprocess::Preprocess;
use serde::Serialize;

use crate::args::{Format, Runtime};
use crate::command::train::say_problems;
use crate::interrupt::stop_flag;
use crate::output;
use crate::progress::Progress;
use crate::scan_args::ScanArgs;
use crate::steps_args::StepsArgs;

/// Preprocess a data set once, for training and evaluation to load
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    dcformer prepare CT-RATE --out cache/\n  \
    dcformer prepare train.csv --out cache/ --like configs/run.toml\n  \
    dcformer prepare CT-RATE --out cache/ --shard $SLURM_ARRAY_TASK_ID/8     one of eight jobs\n  \
    dcformer prepare s3://archive/CT-RATE --out s3://archive/cache           in a bucket (a build with --features s3)\n\n\
    The same command goes on after a stop or a kill, makes what is missing, and tries again what is in quarantine.")]
pub(crate) struct Prepare {
    /// CT-RATE's folder, or a CSV with a column volume; or its address in a bucket
    #[arg(value_name = "DIR|CSV")]
    data: PathBuf,
    /// Folder to write: volumes, manifest.csv and quarantine.csv; new, or begun with the same settings; or an address
    #[arg(long, value_name = "CACHE")]
    out: PathBuf,
    /// Preprocess as this run's configuration or model says, instead of a preset
    #[arg(long, value_name = "CONFIG.toml|MODEL", conflicts_with = "preset")]
    like: Option<PathBuf>,
    #[command(flatten)]
    steps: StepsArgs,
    /// Table of volumes to leave out, of CT-RATE; may be given several times
    #[arg(long, value_name = "CSV")]
    exclude: Vec<PathBuf>,
    /// Make only every N-th volume, from number I on, counted from 0: one of N jobs that need not know of each other
    #[arg(long, value_name = "I/N", default_value = "0/1")]
    shard: Shard,
    #[command(flatten)]
    format: Format,
    #[command(flatten)]
    scan: ScanArgs,
    #[command(flatten)]
    runtime: Runtime,
}

/// `I/N`.
#[derive(Clone, Copy, Debug)]
struct Shard(cache::Shard);

impl FromStr for Shard {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let numbers = text.split_once('/');
        let parsed = numbers.and_then(|(index, of)| {
            let (index, of) = (index.parse().ok()?, of.parse::<NonZero<usize>>().ok()?);
            (index < of.get()).then_some(cache::Shard { index, of })
        });
        let wrong = "expected I/N with I from 0 to N - 1, such as 0/8";
        parsed.map(Self).ok_or(wrong)
    }
}

/// Volumes that came to nothing, counted by the reason.
#[derive(Debug, Default, Serialize)]
#[serde(transparent)]
pub(crate) struct Quarantine(BTreeMap<String, usize>);

impl Quarantine {
    pub(crate) fn of(volumes: &[Quarantined]) -> Self {
        let mut counts = BTreeMap::new();
        for volume in volumes {
            *counts.entry(volume.reason.clone()).or_default() += 1;
        }
        Self(counts)
    }
}

/// "3 (1 x damaged file, 2 x not a scan)", or "0".
impl Display for Quarantine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.values().sum::<usize>())?;
        let reasons = self.0.iter();
        let reasons = reasons.map(|(reason, count)| format!("{count} x {reason}"));
        let reasons: Vec<String> = reasons.collect();
        if reasons.is_empty() {
            return Ok(());
        }
        write!(f, " ({})", reasons.join(", "))
    }
}

/// What is printed in the end.
#[derive(Debug, Serialize)]
struct Report {
    /// Volumes made by this run.
    prepared: usize,
    /// Volumes that were there already.
    already: usize,
    /// Volumes that could not be made, by the reason.
    quarantined: Quarantine,
    /// Volumes still to be made, by other shards or after a stop.
    left: usize,
}

impl Prepare {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        self.runtime.start()?;
        let settings = self.settings()?;
        let exclude = self.exclude.clone();
        let listings = Listing::all(&self.data, &ct_rate::Options { exclude })?;
        for listing in &listings {
            say_problems(&listing.data.problems);
        }
        let volumes: usize = listings
            .iter()
            .map(|listing| listing.data.samples.len())
            .sum();
        ensure!(
            volumes > 0,
            "{}: there are no volumes to prepare",
            self.data.display()
        );
        let job = Job {
            settings,
            shard: self.shard.0,
            workers: NonZero::new(rayon::current_num_threads()).unwrap_or(NonZero::<usize>::MIN),
            stop: stop_flag()?,
        };
        let report = prepare(&listings, &self.out, &job)?;
        if self.format.json {
            output::json(&report)
        } else {
            output::text(&report.sentence(&self.out))
        }
    }

    fn settings(&self) -> anyhow::Result<Settings> {
        let mut preprocess = match &self.like {
            None => self.steps.steps(),
            Some(path) => {
                let mut preprocess = preprocessing_of(path)?;
                self.steps.adjust(&mut preprocess);
                preprocess
            }
        };
        self.scan.adjust(&mut preprocess);
        Ok(Settings {
            preprocess,
            scan: self.scan.options(),
            metadata: self.scan.metadata(),
        })
    }
}

/// The preprocessing of a model's folder or a run's configuration.
fn preprocessing_of(path: &Path) -> anyhow::Result<Preprocess> {
    Ok(if path.is_dir() {
        ModelConfig::read(path)?.preprocess
    } else {
        RunConfig::read(path)?.preprocess
    })
}

/// Prepares with a progress bar that names every volume that goes into quarantine.
fn prepare(listings: &[Listing], cache: &Path, job: &Job<'_>) -> anyhow::Result<Report> {
    let bar = std::sync::OnceLock::new();
    let show = |done: &Done<'_>| {
        let bar = bar.get_or_init(|| Progress::new("preparing", 0, done.of as u64));
        if let Some(bad) = done.quarantined {
            bar.say(&format!("quarantine: {}: {}", bad.name, bad.message));
        }
        bar.set(done.done as u64, "");
    };
    let summary = cache::prepare(listings, cache, job, &show)
        .with_context(|| format!("cannot prepare {}", cache.display()))?;
    if let Some(bar) = bar.get() {
        bar.finish();
    }
    Ok(Report {
        prepared: summary.prepared,
        already: summary.already,
        quarantined: Quarantine::of(&summary.quarantined),
        left: summary.left,
    })
}

impl Report {
    fn sentence(&self, cache: &Path) -> String {
        let Self {
            prepared,
            already,
            quarantined,
            left,
        } = self;
        let mut text =
            format!("prepared {prepared}, already there {already}, in quarantine {quarantined}");
        if *left == 0 {
            text += &format!(
                "\nthe cache is complete: {}\n",
                cache.join("manifest.csv").display()
            );
        } else {
            text += &format!("\n{left} volumes are left to other shards or another run\n");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::Shard;

    #[test]
    fn shards_are_counted_from_0() {
        let parsed = |text: &str| {
            let shard = text.parse::<Shard>().ok()?.0;
            Some((shard.index, shard.of.get()))
        };
        assert_eq!(parsed("0/1"), Some((0, 1)));
        assert_eq!(parsed("3/4"), Some((3, 4)));
        for wrong in ["4/4", "0/0", "1", "1/", "-1/4", "a/b", "1/4/2", ""] {
            assert_eq!(parsed(wrong), None, "{wrong}");
        }
    }
}
