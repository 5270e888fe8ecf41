//! The most similar of many latents, exactly: every one is looked at.
//!
//! Slices in, numbers out. A similarity is a dot product of rows of unit length, summed in an order that depends on their
//! length alone, so neither threads nor neighbours change a bit of it.

use std::cmp::Ordering;

use rayon::prelude::*;

/// A row that was found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hit {
    /// Which row, from 0.
    pub row: usize,
    /// Cosine similarity with the query.
    pub similarity: f32,
}

/// Latents to look for the most similar in.
#[derive(Clone, Debug)]
pub struct LatentIndex {
    /// `[rows][width]`
    latents: Vec<f32>,
    width: usize,
    /// What each row belongs to, numbered from 0 in the order of their first rows.
    studies: Vec<u32>,
}

impl LatentIndex {
    /// An index of rows, `[rows][width]` one after the other. `studies` says of each row what it belongs to, numbered from 0:
    /// of rows that belong together, only the most similar is found.
    ///
    /// # Panics
    /// If `width` is 0, or latents and studies are not of as many rows.
    pub fn new(latents: Vec<f32>, width: usize, studies: Vec<u32>) -> Self {
        assert!(width > 0, "rows have at least one number");
        assert_eq!(
            latents.len(),
            studies.len() * width,
            "there must be {width} numbers for each of {} rows",
            studies.len()
        );
        Self {
            latents,
            width,
            studies,
        }
    }

    /// Rows that every search looks at.
    pub fn rows(&self) -> usize {
        self.studies.len()
    }

    /// Numbers of a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The most similar row of each of the `count` most similar studies, best first. Of equal ones the lower row comes first,
    /// and a similarity that is not a number last.
    ///
    /// # Panics
    /// If the query is not as long as a row.
    pub fn search(&self, query: &[f32], count: usize) -> Vec<Hit> {
        let similarities = self.similarities(query);
        let mut best: Vec<Option<Hit>> = vec![None; self.count_studies()];
        for (row, (&similarity, &study)) in similarities.iter().zip(&self.studies).enumerate() {
            let hit = Hit { row, similarity };
            let best = &mut best[study as usize];
            if best.is_none_or(|best| better(&hit, &best).is_lt()) {
                *best = Some(hit);
            }
        }
        let mut hits: Vec<Hit> = best.into_iter().flatten().collect();
        if count < hits.len() {
            hits.select_nth_unstable_by(count, better);
            hits.truncate(count);
        }
        hits.sort_unstable_by(better);
        hits
    }

    fn count_studies(&self) -> usize {
        let last = self.studies.iter().max();
        last.map_or(0, |last| *last as usize + 1)
    }

    /// Similarity of the query with every row.
    fn similarities(&self, query: &[f32]) -> Vec<f32> {
        /// Rows that a thread takes at once: a megabyte or so, enough to be worth the handing over.
        const ROWS: usize = 512;
        assert_eq!(
            query.len(),
            self.width,
            "a query must be as long as the rows"
        );
        let mut similarities = vec![0.0; self.rows()];
        similarities
            .par_chunks_mut(ROWS)
            .zip(self.latents.par_chunks(ROWS * self.width))
            .for_each(|(similarities, rows)| {
                let rows = rows.chunks_exact(self.width);
                for (similarity, row) in similarities.iter_mut().zip(rows) {
                    *similarity = dot(query, row);
                }
            });
        similarities
    }
}

/// Order of two rows that were found, the better one first.
fn better(a: &Hit, b: &Hit) -> Ordering {
    let by_similarity = b
        .similarity
        .partial_cmp(&a.similarity)
        .unwrap_or_else(|| a.similarity.is_nan().cmp(&b.similarity.is_nan()));
    by_similarity.then(a.row.cmp(&b.row))
}

/// Cosine similarity of a query with every candidate, all of unit length.
pub fn similarities<R: AsRef<[f32]>>(query: &[f32], candidates: &[R]) -> Vec<f32> {
    let similarity = |candidate: &R| dot(query, candidate.as_ref());
    candidates.iter().map(similarity).collect()
}

/// Dot product of two rows of one length.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    /// Sums kept side by side, so that the compiler makes vectors of them.
    const LANES: usize = 16;
    let (a, b) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let mut sums = [0.0; LANES];
    for (a, b) in a.0.iter().zip(b.0) {
        for (sum, (a, b)) in sums.iter_mut().zip(a.iter().zip(b)) {
            *sum += a * b;
        }
    }
    let rest = a.1.iter().zip(b.1).map(|(a, b)| a * b);
    sums.iter().copied().chain(rest).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    /// Rows of small integers: their products are exact whatever the order of the sum, and many are equal.
    fn integers(rows: usize, width: usize, seed: u64) -> Vec<f32> {
        let mut random = Random::new(seed, "test", 0);
        (0..rows * width)
            .map(|_| random.below(5) as f32 - 2.0)
            .collect()
    }

    #[test]
    fn hits_are_those_of_a_full_sort_of_all_studies() {
        const ROWS: usize = 1500;
        for width in [1, 7, 16, 40] {
            let latents = integers(ROWS, width, 1);
            let query = integers(1, width, 2);
            // Three rows a study, not side by side.
            let studies: Vec<u32> = (0..ROWS).map(|row| (row % (ROWS / 3)) as u32).collect();
            let mut all: Vec<(i64, usize)> = (0..ROWS)
                .map(|row| {
                    let of_row = &latents[row * width..][..width];
                    let products = of_row.iter().zip(&query).map(|(a, b)| (a * b) as i64);
                    (-products.sum::<i64>(), row)
                })
                .collect();
            all.sort_unstable();
            let mut seen = std::collections::HashSet::new();
            all.retain(|(_, row)| seen.insert(studies[*row]));
            let index = LatentIndex::new(latents, width, studies);
            for count in [0, 1, 10, ROWS / 3, ROWS] {
                let found = index.search(&query, count);
                let found: Vec<(i64, usize)> = found
                    .iter()
                    .map(|hit| (-(hit.similarity as i64), hit.row))
                    .collect();
                assert_eq!(found, all[..count.min(ROWS / 3)], "{width} {count}");
            }
        }
    }

    #[test]
    fn threads_change_no_bit() {
        let mut random = Random::new(3, "test", 0);
        let latents: Vec<f32> = (0..5000 * 33).map(|_| random.normal() as f32).collect();
        let index = LatentIndex::new(latents, 33, (0..5000).collect());
        let query: Vec<f32> = (0..33).map(|_| random.normal() as f32).collect();
        let found = [1, 2, 5].map(|threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
            let pool = pool.build().unwrap();
            pool.install(|| index.search(&query, 100))
        });
        assert_eq!(found[0].len(), 100);
        assert!(found[1] == found[0] && found[2] == found[0]);
    }

    #[test]
    fn what_is_not_a_number_is_found_last() {
        let index = LatentIndex::new(vec![f32::NAN, -1.0, 0.5], 1, vec![0, 1, 2]);
        let rows: Vec<usize> = index.search(&[1.0], 3).iter().map(|hit| hit.row).collect();
        assert_eq!(rows, [2, 1, 0]);
    }

    #[test]
    fn similarity_is_that_of_every_candidate() {
        let candidates = [[0.0, 1.0], [1.0, 0.0]];
        assert_eq!(similarities(&[0.6, 0.8], &candidates), [0.8, 0.6]);
    }
}
