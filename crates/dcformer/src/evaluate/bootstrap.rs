//! Intervals by resampling patients.
//!
//! Volumes of one patient resemble each other, so patients are drawn, not volumes: each resample takes as many patients as
//! there are, with replacement, and all their volumes. Drawing volumes would make the intervals too narrow.

use std::collections::HashMap;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{Metrics, Predictions, Threshold};
use crate::random::Random;
use crate::{Error, Result};

/// How to resample.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Bootstrap {
    /// Number of resamples.
    pub resamples: usize,
    /// Seed of the draws: the same seed gives the same intervals, on any number of threads.
    pub seed: u64,
}

impl Default for Bootstrap {
    /// 1000 resamples, as is usual for 95 % percentile intervals (Efron and Tibshirani, 1993, section 13.3), seed 0.
    fn default() -> Self {
        Self {
            resamples: 1000,
            seed: 0,
        }
    }
}

/// 95 % percentile interval: 2.5 % of the resamples lie below, 2.5 % above.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

impl Bootstrap {
    /// Interval of every number of [`Metrics`]; `patients` says of each volume whose scan it is.
    ///
    /// Thresholds that depend on the data are chosen once, on all volumes. A number that is not defined in a resample
    /// (a rare label may not be drawn) is left out of its interval, and there is no interval if that happens in more
    /// than half of them.
    ///
    /// # Errors
    /// If there is not one patient for each volume, or not one threshold for each label.
    pub fn intervals<P: AsRef<str> + Sync>(
        &self,
        predictions: &Predictions,
        patients: &[P],
        threshold: &Threshold,
    ) -> Result<Metrics<Option<Interval>>> {
        let rankings = predictions.rankings();
        let present = threshold.count_present(&rankings)?;
        let resampled = self.resample(predictions.volumes(), patients, |weight| {
            Metrics::of(&rankings, &present, weight).values()
        })?;
        let mut place = 0;
        Ok(Metrics::of(&rankings, &present, |_| 1).map(|_| {
            place += 1;
            self.interval(resampled.iter().map(|resample| resample[place - 1]))
        }))
    }

    /// What `measure` makes of each resample; `weight(volume)` says how often a volume counts in it. The resamples depend
    /// on the seed and on who is whose patient only: what several systems come to on them can be compared pair by pair.
    ///
    /// # Errors
    /// If there is not one patient for each of the `volumes`.
    pub(super) fn resample<P: AsRef<str> + Sync, T: Send>(
        &self,
        volumes: usize,
        patients: &[P],
        measure: impl Fn(&dyn Fn(usize) -> u64) -> T + Sync,
    ) -> Result<Vec<T>> {
        if patients.len() != volumes {
            return Err(Error::EvaluationShape {
                field: "patients",
                found: patients.len(),
                expected: volumes,
                each: "volume",
            });
        }
        let (patient_of, patients) = number_patients(patients);
        let draws = (0..self.resamples as u64).into_par_iter();
        Ok(draws
            .map(|index| {
                let mut random = Random::new(self.seed, "bootstrap", index);
                let mut times_drawn = vec![0u64; patients];
                (0..patients).for_each(|_| times_drawn[random.below(patients)] += 1);
                measure(&|volume| times_drawn[patient_of[volume]])
            })
            .collect())
    }

    /// The interval of a number from what it comes to in each resample.
    pub(super) fn interval(
        &self,
        resampled: impl IntoIterator<Item = Option<f64>>,
    ) -> Option<Interval> {
        let mut values: Vec<f64> = resampled.into_iter().flatten().collect();
        if values.is_empty() || values.len() * 2 < self.resamples {
            return None;
        }
        values.sort_by(f64::total_cmp);
        Some(Interval {
            low: percentile(&values, 0.025),
            high: percentile(&values, 0.975),
        })
    }
}

/// Numbers patients in the order of their first volume; also returns how many there are.
fn number_patients<P: AsRef<str>>(patients: &[P]) -> (Vec<usize>, usize) {
    let mut numbers = HashMap::new();
    let numbered = patients
        .iter()
        .map(|patient| {
            let next = numbers.len();
            *numbers.entry(patient.as_ref()).or_insert(next)
        })
        .collect();
    (numbered, numbers.len())
}

/// Percentile of sorted values, linear between neighbours (numpy's default).
fn percentile(sorted: &[f64], share: f64) -> f64 {
    let position = share * (sorted.len() - 1) as f64;
    let (below, fraction) = (position.floor() as usize, position.fract());
    let above = (below + 1).min(sorted.len() - 1);
    sorted[below] + fraction * (sorted[above] - sorted[below])
}

#[cfg(test)]
mod tests;
