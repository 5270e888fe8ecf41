//! From what a model found to the numbers of SPEC section 8, with intervals by patient.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::{Candidates, RECALL_AT, VOLUMES_AT, label_agreements_by_row, ranks_by_row};
use crate::Result;
use crate::evaluate::{Bootstrap, Interval, Resampled};
use crate::search::similarities;

/// Where a model found what belongs together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetrievalAnswers {
    /// Whose scan the volume of each pair is.
    pub patients: Vec<String>,
    /// For each report, how many volumes are more similar than its own.
    pub text_to_volume: Vec<usize>,
    /// For each volume, how many reports are more similar than its own.
    pub volume_to_text: Vec<usize>,
    /// For each volume, how well the labels of the K most similar volumes agree with its own, for each K of [`VOLUMES_AT`];
    /// `None` for a volume without candidates.
    pub volume_to_volume: Vec<Option<Vec<f64>>>,
    /// Which volumes a volume may find.
    pub candidates: Candidates,
}

impl RetrievalAnswers {
    /// Looks for everything by everything. A pair is a report, its volume, the volume's labels and whose scan it is.
    ///
    /// # Panics
    /// If there are not as many of each.
    pub fn new(
        texts: &[Vec<f32>],
        volumes: &[Vec<f32>],
        labels: &[Vec<bool>],
        patients: Vec<String>,
        candidates: Candidates,
    ) -> Self {
        let pairs = volumes.len();
        assert_eq!(
            (texts.len(), labels.len(), patients.len()),
            (pairs, pairs, pairs),
            "every pair has a report, a volume, labels and a patient"
        );
        let volumes_by = |query: &[f32]| similarities(query, volumes);
        Self {
            text_to_volume: ranks_by_row(pairs, |query| volumes_by(&texts[query])),
            volume_to_text: ranks_by_row(pairs, |query| similarities(&volumes[query], texts)),
            volume_to_volume: label_agreements_by_row(
                &VOLUMES_AT,
                |query| volumes_by(&volumes[query]),
                labels,
                &patients,
                candidates,
            ),
            patients,
            candidates,
        }
    }
}

/// How well a model finds what belongs together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Retrieval {
    /// Pairs of volume and report.
    pub pairs: usize,
    /// Patients that they are of.
    pub patients: usize,
    /// A volume by its report.
    pub text_to_volume: Vec<Recall>,
    /// A report by its volume.
    pub volume_to_text: Vec<Recall>,
    /// Volumes with the same abnormalities by a volume.
    pub volume_to_volume: Vec<Agreement>,
    /// Which volumes a volume may find.
    pub candidates: Candidates,
}

/// Share of queries whose own candidate is among the `k` most similar.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recall {
    /// How many candidates are looked at.
    pub k: usize,
    /// The share.
    pub value: Option<f64>,
    /// Its 95 % interval.
    pub interval: Option<Interval>,
}

/// How well the labels of the `k` most similar volumes agree with the query's.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Agreement {
    /// How many volumes are looked at.
    pub k: usize,
    /// Mean share of the abnormalities of either that both have.
    pub value: f64,
    /// Its 95 % interval.
    pub interval: Option<Interval>,
}

impl Retrieval {
    /// Measures what was found, for every K that is smaller than the number of pairs: among as many candidates as are looked
    /// at, everything is found.
    ///
    /// # Errors
    /// If there is not one patient for each pair.
    pub fn new(found: &RetrievalAnswers, bootstrap: Bootstrap) -> Result<Self> {
        let pairs = found.patients.len();
        let recalls = |ranks: &[usize]| {
            let ks = RECALL_AT.into_iter().filter(|k| *k < pairs);
            ks.map(|k| {
                let recall = Resampled::of_recall(k, ranks, &found.patients, bootstrap)?;
                Ok(Recall {
                    k,
                    value: recall.value(),
                    interval: recall.interval(),
                })
            })
            .collect::<Result<Vec<_>>>()
        };
        let mut volume_to_volume = Vec::new();
        for (index, k) in VOLUMES_AT
            .into_iter()
            .enumerate()
            .filter(|(_, k)| *k < pairs)
        {
            let of_queries = found.volume_to_volume.iter();
            let of_queries: Vec<Option<f64>> = of_queries
                .map(|of_query| of_query.as_ref()?.get(index).copied())
                .collect();
            let agreement = Resampled::of_mean(&of_queries, &found.patients, bootstrap)?;
            volume_to_volume.extend(agreement.value().map(|value| Agreement {
                k,
                value,
                interval: agreement.interval(),
            }));
        }
        Ok(Self {
            pairs,
            patients: found.patients.iter().collect::<HashSet<_>>().len(),
            text_to_volume: recalls(&found.text_to_volume)?,
            volume_to_text: recalls(&found.volume_to_text)?,
            volume_to_volume,
            candidates: found.candidates,
        })
    }

    /// What a guess would come to for a recall at `k`.
    pub fn chance(&self, k: usize) -> f64 {
        k as f64 / self.pairs as f64
    }
}
