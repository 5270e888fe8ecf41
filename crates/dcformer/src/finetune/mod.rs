//! Fine-tuning: a model that was trained with reports learns from labels (SPEC section 9).
//!
//! Here is what needs no training loop: the [`LinearProbe`], which is the exact optimum of a head over latents that
//! [`latents`](crate::latents) keeps, and what all ways share: [who is held out](held_out_rows) to choose by, and
//! [how much a positive counts](positive_weights). The ways that go through the scans again are runs of
//! [`train`](crate::train), with a [`FinetuneConfig`](crate::train::FinetuneConfig).

mod logistic;
mod minimise;
mod probe;

use std::collections::BTreeSet;

pub use probe::{Examples, FittedLabel, LinearProbe, ProbeOptions};

use crate::error::{Error, Result};
use crate::random::Random;

/// Share of the patients that is held out unless another is asked for.
pub const HELD_OUT: f64 = 0.2;

/// Of each row whether its patient is held out: nothing is learnt from them, penalty, end and thresholds are chosen on them.
/// So many patients, rounded, are drawn by the seed, whatever the order of the rows; at least one on either side.
///
/// # Errors
/// [`Error::HeldOut`] if the share is not between 0 and 1, or there is one patient only.
pub fn held_out_rows<P: AsRef<str>>(patients: &[P], share: f64, seed: u64) -> Result<Vec<bool>> {
    let distinct: BTreeSet<&str> = patients.iter().map(AsRef::as_ref).collect();
    let count = distinct.len();
    if !(share > 0.0 && share < 1.0) || count < 2 {
        return Err(Error::HeldOut {
            share,
            patients: count,
        });
    }
    let mut order: Vec<&str> = distinct.into_iter().collect();
    Random::new(seed, "held-out patients", 0).shuffle(&mut order);
    order.truncate(((share * count as f64).round() as usize).clamp(1, count - 1));
    let held_out: BTreeSet<&str> = order.into_iter().collect();
    let is_held_out = |patient: &P| held_out.contains(patient.as_ref());
    Ok(patients.iter().map(is_held_out).collect())
}

/// What a positive of each label counts, where a negative counts 1: the number of negatives for each positive, so that both
/// classes weigh the same. `None` for a label of which one class is all that is known.
///
/// # Shapes
/// - `rows`: of each volume its labels, as many as `labels`
pub fn positive_weights<'a>(
    rows: impl IntoIterator<Item = &'a Vec<Option<bool>>>,
    labels: usize,
) -> Vec<Option<f64>> {
    let mut counts = vec![[0usize; 2]; labels];
    for row in rows {
        for (count, label) in counts.iter_mut().zip(row) {
            if let Some(present) = label {
                count[usize::from(*present)] += 1;
            }
        }
    }
    let weight = |[negatives, positives]: [usize; 2]| {
        (negatives > 0 && positives > 0).then(|| negatives as f64 / positives as f64)
    };
    counts.into_iter().map(weight).collect()
}

#[cfg(test)]
mod tests;
