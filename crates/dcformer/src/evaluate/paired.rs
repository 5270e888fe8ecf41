//! Is one model better than another? Differences on the same volumes, with intervals from the same resamples of patients.
//!
//! Two models that answer about the same patients err on the same hard ones, so each model's own interval is wider than
//! what decides between them: the interval of the difference, taken resample by resample.

use serde::{Deserialize, Serialize};

use super::{Bootstrap, Interval, Metrics, Predictions, Threshold};
use crate::Result;

/// A number of one model, on all volumes and in each resample.
#[derive(Clone, Debug, PartialEq)]
pub struct Resampled {
    value: Option<f64>,
    resamples: Vec<Option<f64>>,
    bootstrap: Bootstrap,
}

/// By how much a number of one model is above another's.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// On all volumes; `None` where the number is not defined.
    pub value: Option<f64>,
    /// Its 95 % interval: the models differ by more than the choice of patients explains if it does not hold 0.
    pub interval: Option<Interval>,
}

impl Resampled {
    /// A number of detection. `patients` says of each volume whose scan it is.
    ///
    /// # Errors
    /// As [`Bootstrap::intervals`].
    pub fn of_metric<P: AsRef<str> + Sync>(
        metric: fn(&Metrics) -> Option<f64>,
        predictions: &Predictions,
        patients: &[P],
        bootstrap: Bootstrap,
    ) -> Result<Self> {
        let rankings = predictions.rankings();
        let present = Threshold::Half.count_present(&rankings)?;
        let resamples = bootstrap.resample(predictions.volumes(), patients, |weight| {
            metric(&Metrics::of(&rankings, &present, weight))
        })?;
        Ok(Self {
            value: metric(&Metrics::of(&rankings, &present, |_| 1)),
            resamples,
            bootstrap,
        })
    }

    /// Recall at `k` from the rank of each query's own candidate (from 0, see [`ranks`](super::retrieval::ranks)). Queries are
    /// resampled by patient; the candidates that they are looked for among stay all of them.
    ///
    /// # Errors
    /// If there is not one patient for each rank.
    pub fn of_recall<P: AsRef<str> + Sync>(
        k: usize,
        ranks: &[usize],
        patients: &[P],
        bootstrap: Bootstrap,
    ) -> Result<Self> {
        let found = ranks
            .iter()
            .map(|rank| Some(f64::from(u8::from(*rank < k))));
        Self::of_mean(&found.collect::<Vec<_>>(), patients, bootstrap)
    }

    /// The mean of what each query comes to, over the queries that come to something. Resampled as for
    /// [`of_recall`](Self::of_recall).
    ///
    /// # Errors
    /// If there is not one patient for each query.
    pub fn of_mean<P: AsRef<str> + Sync>(
        of_queries: &[Option<f64>],
        patients: &[P],
        bootstrap: Bootstrap,
    ) -> Result<Self> {
        let mean = |weight: &dyn Fn(usize) -> u64| {
            let (mut sum, mut all) = (0.0, 0);
            for (query, value) in of_queries.iter().enumerate() {
                if let Some(value) = value {
                    let weight = weight(query);
                    sum += weight as f64 * value;
                    all += weight;
                }
            }
            (all > 0).then(|| sum / all as f64)
        };
        Ok(Self {
            value: mean(&|_| 1),
            resamples: bootstrap.resample(of_queries.len(), patients, mean)?,
            bootstrap,
        })
    }

    /// The number on all volumes.
    pub fn value(&self) -> Option<f64> {
        self.value
    }

    /// Its 95 % interval.
    pub fn interval(&self) -> Option<Interval> {
        self.bootstrap.interval(self.resamples.iter().copied())
    }

    /// How far it is above the same number of another model. Both must come from the same patients in the same order.
    ///
    /// # Panics
    /// If the numbers come from different resamples.
    pub fn above(&self, other: &Self) -> Difference {
        assert_eq!(
            (self.bootstrap, self.resamples.len()),
            (other.bootstrap, other.resamples.len()),
            "numbers are compared on the same resamples"
        );
        let minus = |(a, b): (&Option<f64>, &Option<f64>)| Some((*a)? - (*b)?);
        let pairs = self.resamples.iter().zip(&other.resamples);
        Difference {
            value: minus((&self.value, &other.value)),
            interval: self.bootstrap.interval(pairs.map(minus)),
        }
    }
}

impl Difference {
    /// Whether the whole interval lies above 0.
    pub fn is_above(&self) -> bool {
        self.interval.is_some_and(|interval| interval.low > 0.0)
    }

    /// Whether the whole interval lies below 0.
    pub fn is_below(&self) -> bool {
        self.interval.is_some_and(|interval| interval.high < 0.0)
    }

    /// The same seen from the other model.
    #[must_use]
    pub fn reversed(&self) -> Self {
        Self {
            value: self.value.map(|value| -value),
            interval: self.interval.map(|Interval { low, high }| Interval {
                low: -high,
                high: -low,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    const BOOTSTRAP: Bootstrap = Bootstrap {
        resamples: 500,
        seed: 4,
    };

    fn patients(volumes: usize) -> Vec<String> {
        (0..volumes)
            .map(|volume| (volume / 2).to_string())
            .collect()
    }

    /// Scores of one label, the true ones higher by `signal` than the others, with noise that all models share.
    fn predictions(signal: f64) -> Predictions {
        let mut random = Random::new(1, "test", 0);
        let labels: Vec<bool> = (0..80).map(|volume| volume % 3 == 0).collect();
        let scores = labels.iter().map(|label| {
            let noise = random.normal();
            let score = 0.5 + 0.08 * (noise + if *label { signal } else { 0.0 });
            score.clamp(0.0, 1.0) as f32
        });
        let scores = scores.collect();
        let labels = labels.into_iter().map(Some).collect();
        Predictions::new(vec!["Effusion".into()], scores, labels).unwrap()
    }

    fn auroc(signal: f64) -> Resampled {
        let metric = |metrics: &Metrics| metrics.auroc_mean;
        Resampled::of_metric(metric, &predictions(signal), &patients(80), BOOTSTRAP).unwrap()
    }

    #[test]
    fn the_interval_of_a_number_is_that_of_its_evaluation() {
        let intervals = BOOTSTRAP
            .intervals(&predictions(1.0), &patients(80), &Threshold::Half)
            .unwrap();
        assert_eq!(auroc(1.0).interval(), intervals.auroc_mean);
    }

    #[test]
    fn a_model_equals_itself_in_every_resample() {
        let same = auroc(1.0).above(&auroc(1.0));
        assert_eq!(same.value, Some(0.0));
        assert_eq!(
            same.interval,
            Some(Interval {
                low: 0.0,
                high: 0.0
            })
        );
        assert!(!same.is_above() && !same.is_below());
    }

    #[test]
    fn a_difference_is_surer_than_the_numbers_it_is_made_of() {
        let (better, worse) = (auroc(1.5), auroc(1.0));
        let difference = better.above(&worse);
        assert!(difference.is_above(), "{difference:?}");
        let (Some(better), Some(worse)) = (better.interval(), worse.interval()) else {
            panic!("both have intervals");
        };
        assert!(better.low < worse.high, "the intervals themselves overlap");
        let reversed = difference.reversed();
        assert!(reversed.is_below());
        assert_eq!(reversed.reversed(), difference);
    }

    #[test]
    fn recall_counts_queries_by_how_often_their_patient_is_drawn() {
        let ranks = [0, 4, 5, 2];
        let recall =
            |k, patients: &[&str]| Resampled::of_recall(k, &ranks, patients, BOOTSTRAP).unwrap();
        assert_eq!(recall(5, &["a", "a", "b", "b"]).value(), Some(0.75));
        // Of two patients, one with 2 of 2 found and one with 1 of 2, a resample has 4, 3 or 2 of 4.
        let found = recall(5, &["a", "a", "b", "b"]);
        let mut values: Vec<f64> = found.resamples.iter().copied().flatten().collect();
        values.sort_by(f64::total_cmp);
        values.dedup();
        assert_eq!(values, [0.5, 0.75, 1.0]);
        assert!(Resampled::of_recall(1, &ranks, &["a"], BOOTSTRAP).is_err());
    }

    #[test]
    fn queries_that_come_to_nothing_are_not_counted() {
        let of_queries = [Some(0.25), None, Some(0.75), None];
        let mean = Resampled::of_mean(&of_queries, &["a", "a", "b", "c"], BOOTSTRAP).unwrap();
        assert_eq!(mean.value(), Some(0.5));
        // Patient c alone comes to nothing; of the others a resample has a, b, or both in some proportion.
        let interval = mean.interval().unwrap();
        assert_eq!((interval.low, interval.high), (0.25, 0.75));
        assert!(mean.resamples.contains(&None) && mean.resamples.contains(&Some(0.5)));
    }
}
