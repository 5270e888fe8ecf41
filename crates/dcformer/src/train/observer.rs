//! What a run tells of itself.

use dcformer_volume::dataset::Problem;
use serde::{Deserialize, Serialize};

use crate::workers::Communicator;

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepReport {
    /// Steps taken, this one included.
    pub step: u64,
    /// Steps of the whole run.
    pub steps: u64,
    /// Epoch, from 0.
    pub epoch: u64,
    /// Mean loss of the step's batches.
    pub loss: f64,
    /// Learning rate of the step.
    pub learning_rate: f64,
    /// Norm of all gradients together, before it was clipped.
    pub gradient_norm: f64,
    /// Pairs a second, over this step.
    pub pairs_per_s: f64,
    /// Mean loss over the validation split after this step, where it was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation_loss: Option<f64>,
}

/// Who is told how a run goes.
pub trait Observer: Sync {
    /// Something in the data does not fit together.
    fn problems(&self, problems: &[Problem], without_report: usize);
    /// Volumes are being read.
    fn reading(&self, done: usize, volumes: usize);
    /// Volumes are being encoded, for what a head starts from.
    fn encoding(&self, done: usize, volumes: usize);
    /// The run starts, or goes on, after this many steps.
    fn starting(&self, step: u64, steps: u64, pairs: usize);
    /// A step is done.
    fn step(&self, report: &StepReport);
    /// A checkpoint is on disk.
    fn checkpoint(&self, step: u64);
}

/// Tells nobody: workers other than the first.
struct Nobody;

impl Observer for Nobody {
    fn problems(&self, _problems: &[Problem], _without_report: usize) {}
    fn reading(&self, _done: usize, _volumes: usize) {}
    fn encoding(&self, _done: usize, _volumes: usize) {}
    fn starting(&self, _step: u64, _steps: u64, _pairs: usize) {}
    fn step(&self, _report: &StepReport) {}
    fn checkpoint(&self, _step: u64) {}
}

/// The observer of the first worker.
pub(super) fn of_first<'a>(
    observer: &'a dyn Observer,
    workers: &dyn Communicator,
) -> &'a dyn Observer {
    if workers.is_first() {
        observer
    } else {
        &Nobody
    }
}
