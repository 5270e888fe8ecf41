//! The numbers of zero-shot detection (SPEC section 7).

use serde::{Deserialize, Serialize};

use super::Predictions;
use super::ranking::{Outcome, Ranking};
use crate::{Error, Result};

/// Which scores count as "present".
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Threshold {
    /// Scores that round to 1, half to even: above 0.5. The paper's choice.
    #[default]
    Half,
    /// Scores from each label's own threshold up, chosen on other patients ([`Threshold::choose`]).
    Each(Vec<f32>),
    /// The threshold of each label's ROC point nearest to the corner of a perfect test, **chosen on the very volumes
    /// that are measured**: optimistic, but what other work reports (CT-CLIP).
    RocCorner,
}

impl Threshold {
    /// Thresholds for other patients: of each label the ROC point nearest to the corner where sensitivity and
    /// specificity are 1, of equally near ones the most specific. A label with one class keeps 0.5.
    ///
    /// ```
    /// # use dcformer::evaluate::{Predictions, Threshold};
    /// let labels = [false, false, true, true].map(Some).to_vec();
    /// let held_out = Predictions::new(vec!["Effusion".into()], vec![0.1, 0.2, 0.3, 0.4], labels)?;
    /// assert_eq!(Threshold::choose(&held_out), Threshold::Each(vec![0.3]));
    /// # Ok::<(), dcformer::Error>(())
    /// ```
    pub fn choose(predictions: &Predictions) -> Self {
        Self::Each(
            predictions
                .rankings()
                .iter()
                .map(|ranking| roc_corner(ranking).unwrap_or(0.5))
                .collect(),
        )
    }

    /// Whether a score of the label at this place counts as "present". For [`RocCorner`](Self::RocCorner), which is known only
    /// together with all scores, as for [`Half`](Self::Half).
    ///
    /// # Panics
    /// If there is no threshold for the label.
    pub fn is_present(&self, label: usize, score: f32) -> bool {
        match self {
            Self::Each(thresholds) => score >= thresholds[label],
            Self::Half | Self::RocCorner => score > 0.5,
        }
    }

    /// How many volumes at the top of each ranking have the abnormality by this rule.
    pub(super) fn count_present(&self, rankings: &[Ranking]) -> Result<Vec<usize>> {
        let above_half = |ranking: &Ranking| ranking.count_top(|score| score > 0.5);
        let from =
            |ranking: &Ranking, threshold: f32| ranking.count_top(|score| score >= threshold);
        match self {
            Self::Half => Ok(rankings.iter().map(above_half).collect()),
            Self::Each(thresholds) if thresholds.len() != rankings.len() => {
                Err(Error::EvaluationShape {
                    field: "thresholds",
                    found: thresholds.len(),
                    expected: rankings.len(),
                    each: "label name",
                })
            }
            Self::Each(thresholds) => Ok(rankings
                .iter()
                .zip(thresholds)
                .map(|(ranking, t)| from(ranking, *t))
                .collect()),
            Self::RocCorner => {
                let count = |ranking| {
                    roc_corner(ranking).map_or_else(|| above_half(ranking), |t| from(ranking, t))
                };
                Ok(rankings.iter().map(count).collect())
            }
        }
    }
}

/// Threshold of the ROC point nearest to (0, 1), if the label has both classes.
fn roc_corner(ranking: &Ranking) -> Option<f32> {
    let points = ranking.roc();
    let scored = points.iter().filter_map(|point| {
        let distance = point
            .false_positive_rate
            .hypot(1.0 - point.true_positive_rate);
        Some((distance, point.threshold?))
    });
    // `min_by` keeps the first of equals: the highest threshold.
    scored
        .min_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, threshold)| threshold)
}

/// Numbers of a whole set and of each label; `T` is the number or its [`Interval`](super::Interval).
///
/// `None` (in JSON `null`) stands where a number is not defined: AUROC and the specificities need a negative, AUROC,
/// average precision and sensitivity a positive, and everything a known label. Precision and F1 of a label that is
/// never predicted or never present are 0, as in scikit-learn. Means are over the labels where the number is defined.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metrics<T = Option<f64>> {
    /// Share of right answers among all pairs of volume and label.
    pub accuracy: T,
    /// F1 of each label, weighted by its number of positives. 0 without any.
    pub f1_weighted: T,
    /// Share of right answers among all that say "present".
    pub precision_micro: T,
    /// Share of the present abnormalities that are found.
    pub recall_micro: T,
    /// Mean F1 of the labels.
    pub f1_macro: T,
    /// Mean precision of the labels.
    pub precision_macro: T,
    /// Mean sensitivity of the labels; one that is never present counts as 0, as in scikit-learn.
    pub recall_macro: T,
    /// Mean AUROC of the labels.
    pub auroc_mean: T,
    /// Mean average precision of the labels.
    pub average_precision_mean: T,
    /// Area under the ROC curve of each label.
    pub auroc: Vec<T>,
    /// Average precision of each label.
    pub average_precision: Vec<T>,
    /// F1 of each label.
    pub f1: Vec<T>,
    /// Accuracy of each label.
    pub accuracy_each: Vec<T>,
    /// Precision of each label.
    pub precision: Vec<T>,
    /// Sensitivity (recall) of each label.
    pub sensitivity: Vec<T>,
    /// Specificity of each label.
    pub specificity: Vec<T>,
    /// Specificity of each label at the point of its ROC curve where sensitivity + specificity is largest (Youden,
    /// 1950), of equal ones at the most specific. The point is chosen on the volumes that are measured.
    pub specificity_at_youden: Vec<T>,
}

impl Metrics {
    /// Measures predictions.
    ///
    /// # Errors
    /// If there is not one threshold for each label.
    pub fn new(predictions: &Predictions, threshold: &Threshold) -> Result<Self> {
        let rankings = predictions.rankings();
        let present = threshold.count_present(&rankings)?;
        Ok(Self::of(&rankings, &present, |_| 1))
    }

    /// Measures with every volume counted `weight(row)` times.
    pub(super) fn of(
        rankings: &[Ranking],
        present: &[usize],
        weight: impl Fn(usize) -> u64,
    ) -> Self {
        let outcomes: Vec<Outcome> = rankings
            .iter()
            .zip(present)
            .map(|(ranking, present)| ranking.outcome(&weight, *present))
            .collect();
        let each =
            |value: fn(&Outcome) -> Option<f64>| outcomes.iter().map(value).collect::<Vec<_>>();
        let sum = |count: fn(&Outcome) -> u64| outcomes.iter().map(count).sum::<u64>();

        let f1 = each(Outcome::f1);
        let precision = each(Outcome::precision);
        let sensitivity = each(|label| ratio(label.true_positives, label.positives));
        let recall = each(Outcome::recall);
        let auroc = each(|label| label.auroc);
        let average_precision = each(|label| label.average_precision);
        let weighted = outcomes
            .iter()
            .zip(&f1)
            .map(|(label, f1)| label.positives as f64 * f1.unwrap_or(0.0));
        let (positives, known) = (sum(|label| label.positives), sum(|label| label.known()));
        let true_positives = sum(|label| label.true_positives);
        let when_known = |value: f64| (known > 0).then_some(value);

        Self {
            accuracy: ratio(sum(Outcome::right), known),
            f1_weighted: when_known(weighted.sum::<f64>() / positives.max(1) as f64),
            precision_micro: when_known(ratio_or_0(true_positives, sum(Outcome::predicted))),
            recall_micro: when_known(ratio_or_0(true_positives, positives)),
            f1_macro: mean(&f1),
            precision_macro: mean(&precision),
            recall_macro: mean(&recall),
            auroc_mean: mean(&auroc),
            average_precision_mean: mean(&average_precision),
            accuracy_each: each(|label| ratio(label.right(), label.known())),
            specificity: each(|label| {
                ratio(label.negatives - label.false_positives, label.negatives)
            }),
            specificity_at_youden: each(|label| label.specificity_at_youden),
            auroc,
            average_precision,
            f1,
            precision,
            sensitivity,
        }
    }
}

impl<T> Metrics<T> {
    /// The same numbers, each through `f`, always in the same order.
    pub fn map<U>(&self, mut f: impl FnMut(&T) -> U) -> Metrics<U> {
        Metrics {
            accuracy: f(&self.accuracy),
            f1_weighted: f(&self.f1_weighted),
            precision_micro: f(&self.precision_micro),
            recall_micro: f(&self.recall_micro),
            f1_macro: f(&self.f1_macro),
            precision_macro: f(&self.precision_macro),
            recall_macro: f(&self.recall_macro),
            auroc_mean: f(&self.auroc_mean),
            average_precision_mean: f(&self.average_precision_mean),
            auroc: self.auroc.iter().map(&mut f).collect(),
            average_precision: self.average_precision.iter().map(&mut f).collect(),
            f1: self.f1.iter().map(&mut f).collect(),
            accuracy_each: self.accuracy_each.iter().map(&mut f).collect(),
            precision: self.precision.iter().map(&mut f).collect(),
            sensitivity: self.sensitivity.iter().map(&mut f).collect(),
            specificity: self.specificity.iter().map(&mut f).collect(),
            specificity_at_youden: self.specificity_at_youden.iter().map(&mut f).collect(),
        }
    }

    /// All numbers in the order of [`Metrics::map`].
    pub(super) fn values(&self) -> Vec<T>
    where
        T: Copy,
    {
        let mut values = Vec::new();
        self.map(|value| values.push(*value));
        values
    }
}

impl Outcome {
    const fn predicted(&self) -> u64 {
        self.true_positives + self.false_positives
    }

    const fn known(&self) -> u64 {
        self.positives + self.negatives
    }

    const fn right(&self) -> u64 {
        self.true_positives + self.negatives - self.false_positives
    }

    fn f1(&self) -> Option<f64> {
        let whole = self.predicted() + self.positives;
        self.unless_unknown(ratio_or_0(2 * self.true_positives, whole))
    }

    fn precision(&self) -> Option<f64> {
        self.unless_unknown(ratio_or_0(self.true_positives, self.predicted()))
    }

    /// Sensitivity as it enters the mean.
    fn recall(&self) -> Option<f64> {
        self.unless_unknown(ratio_or_0(self.true_positives, self.positives))
    }

    fn unless_unknown(&self, value: f64) -> Option<f64> {
        (self.known() > 0).then_some(value)
    }
}

fn ratio(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

fn ratio_or_0(part: u64, whole: u64) -> f64 {
    ratio(part, whole).unwrap_or(0.0)
}

fn mean(values: &[Option<f64>]) -> Option<f64> {
    let defined: Vec<f64> = values.iter().copied().flatten().collect();
    (!defined.is_empty()).then(|| defined.iter().sum::<f64>() / defined.len() as f64)
}
