//! How often scores of a certain height are right.

use serde::{Deserialize, Serialize};

use super::Predictions;

/// Number of bins between 0 and 1.
const BINS: usize = 10;

/// The pairs of volume and label whose score lies in one tenth of `0..=1`, all labels together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ReliabilityBin {
    /// Lowest score that belongs here.
    pub low: f64,
    /// Scores from here on belong to the next bin (1 itself to the last).
    pub high: f64,
    /// Pairs where the abnormality is present.
    pub positives: u64,
    /// Pairs where it is absent.
    pub negatives: u64,
    /// Mean score, 0 if the bin is empty.
    pub mean_score: f64,
}

impl ReliabilityBin {
    /// Number of pairs.
    pub const fn count(&self) -> u64 {
        self.positives + self.negatives
    }

    /// Share of the pairs where the abnormality is present, unless the bin is empty.
    pub fn observed(&self) -> Option<f64> {
        (self.count() > 0).then(|| self.positives as f64 / self.count() as f64)
    }
}

pub(super) fn bins(predictions: &Predictions) -> Vec<ReliabilityBin> {
    let edge = |index: usize| index as f64 / BINS as f64;
    let mut bins: Vec<ReliabilityBin> = (0..BINS)
        .map(|index| ReliabilityBin {
            low: edge(index),
            high: edge(index + 1),
            ..ReliabilityBin::default()
        })
        .collect();
    for (score, label) in predictions.known() {
        let score = f64::from(score);
        let bin = &mut bins[((score * BINS as f64) as usize).min(BINS - 1)];
        *(if label {
            &mut bin.positives
        } else {
            &mut bin.negatives
        }) += 1;
        bin.mean_score += score;
    }
    for bin in &mut bins {
        bin.mean_score /= bin.count().max(1) as f64;
    }
    bins
}

/// Expected calibration error: the mean distance between score and observed share over all pairs (Naeini et al., 2015).
pub fn calibration_error(bins: &[ReliabilityBin]) -> f64 {
    let pairs: u64 = bins.iter().map(ReliabilityBin::count).sum();
    let distance =
        |bin: &ReliabilityBin| Some(bin.count() as f64 * (bin.observed()? - bin.mean_score).abs());
    bins.iter().filter_map(distance).sum::<f64>() / pairs.max(1) as f64
}
