//! The volumes of one label in the order of their scores: what every measure of ranking starts from.
//!
//! Sorting is done once; a resample only changes how often each volume counts, so its numbers take one pass.

use serde::{Deserialize, Serialize};

/// Volumes whose label is known, highest score first.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Ranking {
    ranked: Vec<Ranked>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Ranked {
    row: usize,
    positive: bool,
    score: f32,
    /// Whether the next score is lower: only there can a threshold lie.
    ends_tie: bool,
}

/// A point of a ROC curve: the shares of both classes that reach a threshold.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RocPoint {
    /// Scores from here up count as "present"; `None` where none does.
    pub threshold: Option<f32>,
    /// 1 - specificity.
    pub false_positive_rate: f64,
    /// Sensitivity.
    pub true_positive_rate: f64,
}

/// What one label comes to when its volumes count as often as they are weighted.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Outcome {
    /// Present and said so.
    pub(super) true_positives: u64,
    /// Absent, but said to be present.
    pub(super) false_positives: u64,
    pub(super) positives: u64,
    pub(super) negatives: u64,
    /// `None` unless both classes are there.
    pub(super) auroc: Option<f64>,
    /// `None` without a positive.
    pub(super) average_precision: Option<f64>,
    /// `None` unless both classes are there.
    pub(super) specificity_at_youden: Option<f64>,
}

impl Ranking {
    /// Ranks `(score, label)` of consecutive volumes. Scores are finite.
    pub(super) fn new(pairs: impl Iterator<Item = (f32, Option<bool>)>) -> Self {
        let mut ranked: Vec<Ranked> = pairs
            .enumerate()
            .filter_map(|(row, (score, label))| {
                Some(Ranked {
                    row,
                    positive: label?,
                    score,
                    ends_tie: true,
                })
            })
            .collect();
        ranked.sort_by(|a, b| {
            b.score
                .partial_cmp(&a.score)
                .expect("`Predictions::new` refuses scores that are not numbers")
        });
        for index in 1..ranked.len() {
            ranked[index - 1].ends_tie = ranked[index - 1].score != ranked[index].score;
        }
        Self { ranked }
    }

    pub(super) fn known(&self) -> usize {
        self.ranked.len()
    }

    pub(super) fn positives(&self) -> usize {
        self.ranked.iter().filter(|volume| volume.positive).count()
    }

    /// How many of the highest scores fulfil a condition that all scores above one that does fulfil too.
    pub(super) fn count_top(&self, reaches: impl Fn(f32) -> bool) -> usize {
        self.ranked.partition_point(|volume| reaches(volume.score))
    }

    /// Counts every volume `weight(row)` times; the first `present` of the ranking are said to have the abnormality.
    ///
    /// - AUROC: the share of (positive, negative) pairs in the right order, ties half: midranks.
    /// - Average precision: precision at each score that occurs, weighted by the recall gained there, like scikit-learn.
    /// - Youden's point: the largest sensitivity + specificity - 1; of equal ones the most specific.
    pub(super) fn outcome(&self, weight: impl Fn(usize) -> u64, present: usize) -> Outcome {
        let (mut positives, mut negatives) = (0, 0);
        let (mut true_positives, mut false_positives) = (0, 0);
        for (index, volume) in self.ranked.iter().enumerate() {
            if index == present {
                (true_positives, false_positives) = (positives, negatives);
            }
            let class = if volume.positive {
                &mut positives
            } else {
                &mut negatives
            };
            *class += weight(volume.row);
        }
        if present >= self.ranked.len() {
            (true_positives, false_positives) = (positives, negatives);
        }

        let mut above = Tally::default();
        let mut tied = Tally::default();
        let mut twice_ordered_pairs = 0;
        let mut precision_sum = 0.0;
        let mut youden = (0, 0); // the index times both class sizes, and the false positives there
        for volume in &self.ranked {
            let class = if volume.positive {
                &mut tied.positives
            } else {
                &mut tied.negatives
            };
            *class += weight(volume.row);
            if !volume.ends_tie {
                continue;
            }
            twice_ordered_pairs += tied.negatives * (2 * above.positives + tied.positives);
            above.positives += tied.positives;
            above.negatives += tied.negatives;
            if tied.positives > 0 {
                let precision = above.positives as f64 / (above.positives + above.negatives) as f64;
                precision_sum += tied.positives as f64 * precision;
            }
            let index = i128::from(above.positives) * i128::from(negatives)
                - i128::from(above.negatives) * i128::from(positives);
            if index > youden.0 {
                youden = (index, above.negatives);
            }
            tied = Tally::default();
        }

        let both = positives > 0 && negatives > 0;
        Outcome {
            true_positives,
            false_positives,
            positives,
            negatives,
            auroc: both
                .then(|| twice_ordered_pairs as f64 / 2.0 / positives as f64 / negatives as f64),
            average_precision: (positives > 0).then(|| precision_sum / positives as f64),
            specificity_at_youden: both.then(|| (negatives - youden.1) as f64 / negatives as f64),
        }
    }

    /// The whole curve from (0, 0) to (1, 1), a point for each score that occurs; empty unless both classes are there.
    pub(super) fn roc(&self) -> Vec<RocPoint> {
        let positives = self.positives();
        let negatives = self.known() - positives;
        if positives == 0 || negatives == 0 {
            return Vec::new();
        }
        let mut points = vec![RocPoint {
            threshold: None,
            false_positive_rate: 0.0,
            true_positive_rate: 0.0,
        }];
        let mut above = Tally::default();
        for volume in &self.ranked {
            let class = if volume.positive {
                &mut above.positives
            } else {
                &mut above.negatives
            };
            *class += 1;
            if volume.ends_tie {
                points.push(RocPoint {
                    threshold: Some(volume.score),
                    false_positive_rate: above.negatives as f64 / negatives as f64,
                    true_positive_rate: above.positives as f64 / positives as f64,
                });
            }
        }
        points
    }
}

/// Volumes of both classes.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    positives: u64,
    negatives: u64,
}
