//! The numbers of retrieval (SPEC section 8).
//!
//! Similarities come as rows, one for each query: `similarity[query][candidate]`. A similarity that is not a number is
//! lower than any other. [`RetrievalAnswers`] are what a model found, [`Retrieval`] the numbers with their intervals.

mod answers;

use std::cmp::Ordering;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

pub use answers::{Agreement, Recall, Retrieval, RetrievalAnswers};

/// The K of recall@K in the literature (CT-CLIP; the paper).
pub const RECALL_AT: [usize; 5] = [1, 5, 10, 50, 100];

/// The K of retrieval between volumes.
pub const VOLUMES_AT: [usize; 4] = [1, 5, 10, 50];

/// Share of queries whose own candidate is among the `k` most similar.
///
/// The candidate that belongs to query `q` is `q`. Ties go to the lower index, so a constant matrix scores `k / n`
/// and not 1. Text → image retrieval passes texts as queries; image → text passes the transpose.
///
/// # Panics
/// If the matrix is not square or empty, or `k` is 0.
///
/// # Example
/// ```
/// # use dcformer::evaluate::retrieval::recall_at;
/// let similarity = [[0.9, 0.1], [0.8, 0.2]];
/// assert_eq!(recall_at(1, &similarity), 0.5); // the second query prefers the first candidate
/// ```
pub fn recall_at<R: AsRef<[f32]> + Sync>(k: usize, similarity: &[R]) -> f64 {
    recall_at_each(&[k], similarity)[0]
}

/// [`recall_at`] for several `k`, at the price of one.
///
/// # Panics
/// If the matrix is not square or empty, or a `k` is 0.
pub fn recall_at_each<R: AsRef<[f32]> + Sync>(ks: &[usize], similarity: &[R]) -> Vec<f64> {
    let queries = similarity.len();
    assert!(queries > 0, "recall needs at least one query");
    assert!(ks.iter().all(|k| *k > 0), "recall@0 means nothing");
    let ranks = ranks(similarity);
    ks.iter()
        .map(|k| ranks.iter().filter(|rank| *rank < k).count() as f64 / queries as f64)
        .collect()
}

/// Of each query, how many candidates are more similar than its own: 0 where it is found first. Candidates and ties are
/// those of [`recall_at`].
///
/// # Panics
/// If the matrix is not square.
pub fn ranks<R: AsRef<[f32]> + Sync>(similarity: &[R]) -> Vec<usize> {
    ranks_by_row(similarity.len(), |query| &similarity[query])
}

/// [`ranks`] of similarities that are made a row at a time: all of fifty thousand volumes would be ten gigabytes.
///
/// # Panics
/// If a row is not as long as there are queries.
pub fn ranks_by_row<R: AsRef<[f32]>>(
    queries: usize,
    row: impl Fn(usize) -> R + Sync,
) -> Vec<usize> {
    (0..queries)
        .into_par_iter()
        .map(|query| {
            let row = row(query);
            let row = checked(query, row.as_ref(), queries);
            (0..queries)
                .filter(|candidate| compare(row, *candidate, query) == Ordering::Less)
                .count()
        })
        .collect()
}

/// The row of a query, which has as many candidates as there are queries.
fn checked(query: usize, row: &[f32], queries: usize) -> &[f32] {
    assert_eq!(
        row.len(),
        queries,
        "row {query} of the similarity matrix must be as long as it has rows"
    );
    row
}

/// Order of two candidates of a query, the better one first.
fn compare(row: &[f32], a: usize, b: usize) -> Ordering {
    // NaN sorts as the lowest similarity, and 0.0 equals -0.0.
    let by_similarity = row[b]
        .partial_cmp(&row[a])
        .unwrap_or_else(|| row[a].is_nan().cmp(&row[b].is_nan()));
    by_similarity.then(a.cmp(&b))
}

/// Which candidates a query may find in retrieval between volumes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Candidates {
    /// Other patients' volumes.
    #[default]
    OtherPatients,
    /// All volumes, the query itself too, which is then found first: CT-CLIP's way, and much too optimistic.
    All,
}

/// Volume → volume: how well the abnormalities of what is found agree with those of the query, for each `k`.
///
/// The mean over queries of the mean over the query's `k` most similar candidates of
/// `|both positive| / |any positive|`. Candidates have at least one abnormality. A query with fewer than `k`
/// candidates is measured on those it has, and one with none is left out; `None` if that is every query.
///
/// `labels[v]` are the labels of volume `v`, `patients[v]` says whose it is.
///
/// # Panics
/// If the matrix is not square, labels or patients are not of as many volumes, or a `k` is 0.
pub fn label_agreement_at<R, L, P>(
    ks: &[usize],
    similarity: &[R],
    labels: &[L],
    patients: &[P],
    candidates: Candidates,
) -> Option<Vec<f64>>
where
    R: AsRef<[f32]> + Sync,
    L: AsRef<[bool]> + Sync,
    P: PartialEq + Sync,
{
    assert_eq!(
        labels.len(),
        similarity.len(),
        "labels must be of as many volumes as there are rows"
    );
    let row = |query: usize| &similarity[query];
    let of_queries = label_agreements_by_row(ks, row, labels, patients, candidates);
    let measured: Vec<&Vec<f64>> = of_queries.iter().flatten().collect();
    let mean = |index: usize| {
        measured.iter().map(|of_query| of_query[index]).sum::<f64>() / measured.len() as f64
    };
    (!measured.is_empty()).then(|| (0..ks.len()).map(mean).collect())
}

/// What [`label_agreement_at`] is the mean of: the agreement of each query for each `k`, or `None` for one without
/// candidates. `row` makes the similarities of a query.
///
/// # Panics
/// If a row is not as long as there are volumes, labels or patients are not of as many, or a `k` is 0.
pub fn label_agreements_by_row<R, L, P>(
    ks: &[usize],
    row: impl Fn(usize) -> R + Sync,
    labels: &[L],
    patients: &[P],
    candidates: Candidates,
) -> Vec<Option<Vec<f64>>>
where
    R: AsRef<[f32]>,
    L: AsRef<[bool]> + Sync,
    P: PartialEq + Sync,
{
    let volumes = labels.len();
    assert_eq!(
        patients.len(),
        volumes,
        "labels and patients must be of as many volumes"
    );
    assert!(ks.iter().all(|k| *k > 0), "agreement at 0 means nothing");
    let most = ks.iter().copied().max().unwrap_or(0);
    let eligible: Vec<usize> = (0..volumes)
        .filter(|volume| labels[*volume].as_ref().contains(&true))
        .collect();

    (0..volumes)
        .into_par_iter()
        .map(|query| {
            let row = row(query);
            let row = checked(query, row.as_ref(), volumes);
            let allowed = |volume: &usize| {
                candidates == Candidates::All || patients[*volume] != patients[query]
            };
            let found = most_similar(
                row,
                eligible.iter().copied().filter(allowed).collect(),
                most,
            );
            let agreements: Vec<f64> = found
                .iter()
                .map(|volume| agreement(labels[query].as_ref(), labels[*volume].as_ref()))
                .collect();
            let mean = |k: &usize| {
                let top = &agreements[..agreements.len().min(*k)];
                top.iter().sum::<f64>() / top.len() as f64
            };
            (!agreements.is_empty()).then(|| ks.iter().map(mean).collect())
        })
        .collect()
}

/// The best `count` candidates, best first.
fn most_similar(row: &[f32], mut candidates: Vec<usize>, count: usize) -> Vec<usize> {
    if count < candidates.len() {
        candidates.select_nth_unstable_by(count, |a, b| compare(row, *a, *b));
        candidates.truncate(count);
    }
    candidates.sort_unstable_by(|a, b| compare(row, *a, *b));
    candidates
}

/// `|both positive| / |any positive|`; at least one is positive in a candidate.
fn agreement(query: &[bool], candidate: &[bool]) -> f64 {
    assert_eq!(
        query.len(),
        candidate.len(),
        "all volumes must have the same labels"
    );
    let pairs = || query.iter().zip(candidate);
    let both = pairs().filter(|(a, b)| **a && **b).count();
    let any = pairs().filter(|(a, b)| **a || **b).count();
    both as f64 / any as f64
}

#[cfg(test)]
mod tests;
