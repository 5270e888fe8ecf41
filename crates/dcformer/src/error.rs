//! What can go wrong between a file and a model.

use std::path::PathBuf;

/// Result of the fallible functions of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong between a file and a model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder could not be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },

    /// Scores, labels, patients and thresholds do not belong together.
    #[error("{field}: found {found} values, expected {expected}, one for each {each}")]
    EvaluationShape {
        /// The list that is too long or too short.
        field: &'static str,
        /// Its length.
        found: usize,
        /// The length that fits.
        expected: usize,
        /// What there must be one for.
        each: &'static str,
    },

    /// A score is no probability.
    #[error(
        "the score of volume {volume} for `{label}` is {found}, expected a probability from 0 to 1"
    )]
    Score {
        /// Row of the volume, from 0.
        volume: usize,
        /// Name of the label.
        label: String,
        /// The score.
        found: f32,
    },

    /// Nothing can be measured without one known label.
    #[error(
        "no label is known for any of {volumes} volumes, expected at least one to compare the scores with"
    )]
    NoKnownLabel {
        /// Number of volumes.
        volumes: usize,
    },
}
