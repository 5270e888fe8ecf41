//! How long a step takes here: what a budget of minutes is divided by.

use std::path::Path;
use std::sync::Mutex;

use dcformer_volume::dataset::Problem;

use super::checkpoint::remove_folder;
use super::config::RunConfig;
use super::data::Pairs;
use super::run::{Observer, RunOptions, StepReport, train_on};
use crate::error::Result;

/// Steps that are taken to know.
const STEPS: u64 = 5;
/// Of these, the first: memory is claimed, buffers are made.
const WARM_UP: usize = 1;

/// Median seconds of a step of this run, found by taking a few on the first pairs, whose volumes are in memory; `None` if it
/// was asked to stop. `scratch` is a folder to work in, removed in the end.
///
/// # Errors
/// As [`train`](super::train).
pub fn seconds_of_step(
    config: &RunConfig,
    scratch: &Path,
    options: &RunOptions<'_>,
) -> Result<Option<f64>> {
    let mut config = config.resolved()?;
    config.train.steps = Some(STEPS);
    config.train.checkpoint_every_steps = Some(STEPS);
    config.train.validate_every_epochs = None;
    let mut pairs = Pairs::of(config.data.training()?);
    pairs.samples.truncate(config.train.effective_batch());
    remove_folder(scratch)?;
    let watch = Watch::default();
    let outcome = train_on(pairs, None, &config, scratch, options, &watch);
    remove_folder(scratch)?;
    outcome?;
    let mut paces = watch.0.into_inner().unwrap_or_default();
    if (paces.len() as u64) < STEPS {
        return Ok(None);
    }
    let counted = &mut paces[WARM_UP..];
    counted.sort_by(f64::total_cmp);
    let pairs_per_s = counted[counted.len() / 2];
    Ok(Some(config.train.effective_batch() as f64 / pairs_per_s))
}

/// Pairs a second of each step.
#[derive(Default)]
struct Watch(Mutex<Vec<f64>>);

impl Observer for Watch {
    fn problems(&self, _problems: &[Problem], _without_report: usize) {}
    fn reading(&self, _done: usize, _volumes: usize) {}
    fn encoding(&self, _done: usize, _volumes: usize) {}
    fn starting(&self, _step: u64, _steps: u64, _pairs: usize) {}
    fn checkpoint(&self, _step: u64) {}

    fn step(&self, report: &StepReport) {
        if let Ok(mut paces) = self.0.lock() {
            paces.push(report.pairs_per_s);
        }
    }
}
