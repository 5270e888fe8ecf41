//! How good are scores? Slices in, numbers out; nothing here knows tensors or files.
//!
//! [`Predictions`] pairs scores with labels, [`Metrics`] are the numbers of SPEC section 7, [`Bootstrap`] puts intervals
//! around them, and [`Evaluation`] is all of it together, as a report shows it. Retrieval (SPEC section 8) has its
//! numbers in [`retrieval`]. Whether one model is better than another is a [`Difference`].

mod bootstrap;
mod metrics;
mod paired;
mod ranking;
mod reliability;
pub mod retrieval;

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

pub use bootstrap::{Bootstrap, Interval};
pub use metrics::{Metrics, Threshold};
pub use paired::{Difference, Resampled};
pub use ranking::RocPoint;
pub use reliability::{ReliabilityBin, calibration_error};

use crate::{Error, Result};
use ranking::Ranking;

/// Scores of volumes and what is true of them.
///
/// # Shapes
/// Scores and labels are `[volumes, label_names]`, one volume after the other.
#[derive(Clone, Debug, PartialEq)]
pub struct Predictions {
    label_names: Vec<String>,
    scores: Vec<f32>,
    labels: Vec<Option<bool>>,
}

impl Predictions {
    /// Pairs probabilities with labels; a label that nobody knows is `None` and its pair counts nowhere.
    ///
    /// # Errors
    /// If the lengths do not fit each other, a score is outside `0..=1` or not a number, or no label is known.
    pub fn new(
        label_names: Vec<String>,
        scores: Vec<f32>,
        labels: Vec<Option<bool>>,
    ) -> Result<Self> {
        let names = label_names.len();
        let volumes = scores.len().checked_div(names).unwrap_or(0);
        for (field, found) in [("scores", scores.len()), ("labels", labels.len())] {
            if found != volumes * names || names == 0 {
                let each = "volume and label name";
                return Err(Error::EvaluationShape {
                    field,
                    found,
                    expected: volumes * names,
                    each,
                });
            }
        }
        if let Some(index) = scores.iter().position(|score| !(0.0..=1.0).contains(score)) {
            let label = label_names[index % names].clone();
            return Err(Error::Score {
                volume: index / names,
                label,
                found: scores[index],
            });
        }
        if labels.iter().all(Option::is_none) {
            return Err(Error::NoKnownLabel { volumes });
        }
        Ok(Self {
            label_names,
            scores,
            labels,
        })
    }

    /// Number of volumes.
    pub fn volumes(&self) -> usize {
        self.scores.len() / self.label_names.len()
    }

    /// Names of the labels, in order.
    pub fn label_names(&self) -> &[String] {
        &self.label_names
    }

    /// Score of a volume for a label.
    ///
    /// # Panics
    /// If there is no such volume or label.
    pub fn score(&self, volume: usize, label: usize) -> f32 {
        self.scores[self.index(volume, label)]
    }

    /// What is true of a volume, if it is known.
    ///
    /// # Panics
    /// As [`score`](Self::score).
    pub fn label(&self, volume: usize, label: usize) -> Option<bool> {
        self.labels[self.index(volume, label)]
    }

    fn index(&self, volume: usize, label: usize) -> usize {
        let names = self.label_names.len();
        assert!(
            label < names,
            "there are {names} labels, asked for number {label}"
        );
        volume * names + label
    }

    /// Every score whose label is known, with the label.
    fn known(&self) -> impl Iterator<Item = (f32, bool)> {
        self.scores
            .iter()
            .zip(&self.labels)
            .filter_map(|(score, label)| Some((*score, (*label)?)))
    }

    /// Volumes in the order of their scores, for each label.
    fn rankings(&self) -> Vec<Ranking> {
        let names = self.label_names.len();
        (0..names)
            .map(|column| {
                let pairs = (column..self.scores.len())
                    .step_by(names)
                    .map(|index| (self.scores[index], self.labels[index]));
                Ranking::new(pairs)
            })
            .collect()
    }
}

/// How many volumes a label is known of and present in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Support {
    /// Name of the label.
    pub name: String,
    /// Volumes whose label is known.
    pub known: usize,
    /// Volumes that have the abnormality.
    pub positive: usize,
}

/// Everything measured on one set of predictions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Number of volumes.
    pub volumes: usize,
    /// Number of different patients.
    pub patients: usize,
    /// What is known of each label.
    pub support: Vec<Support>,
    /// Which scores counted as "present".
    pub threshold: Threshold,
    /// The numbers.
    pub metrics: Metrics,
    /// 95 % intervals of the numbers.
    pub intervals: Metrics<Option<Interval>>,
    /// How the intervals were found.
    pub bootstrap: Bootstrap,
    /// The ROC curve of each label; empty where the label has one class only.
    pub roc: Vec<Vec<RocPoint>>,
    /// How often scores of a certain height are right, all labels together.
    pub reliability: Vec<ReliabilityBin>,
}

impl Evaluation {
    /// Measures predictions; `patients` says of each volume whose scan it is.
    ///
    /// # Errors
    /// If there is not one patient for each volume, or not one threshold for each label.
    pub fn new<P: AsRef<str> + Sync>(
        predictions: &Predictions,
        patients: &[P],
        threshold: Threshold,
        bootstrap: Bootstrap,
    ) -> Result<Self> {
        let metrics = Metrics::new(predictions, &threshold)?;
        let intervals = bootstrap.intervals(predictions, patients, &threshold)?;
        let rankings = predictions.rankings();
        let support = rankings.iter().zip(&predictions.label_names);
        Ok(Self {
            volumes: predictions.volumes(),
            patients: patients
                .iter()
                .map(AsRef::as_ref)
                .collect::<HashSet<_>>()
                .len(),
            support: support
                .map(|(ranking, name)| Support {
                    name: name.clone(),
                    known: ranking.known(),
                    positive: ranking.positives(),
                })
                .collect(),
            threshold,
            metrics,
            intervals,
            bootstrap,
            roc: rankings.iter().map(Ranking::roc).collect(),
            reliability: reliability::bins(predictions),
        })
    }
}

#[cfg(test)]
mod tests;
