//! What can go wrong between files and arrays.

use std::path::PathBuf;

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong between a scan on disk and a [`Volume`](crate::volume::Volume), or in a data set around it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file or folder could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// File or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },

    /// The file could not be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// File or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },

    /// A header field has a value that no scan can have.
    #[error("{}: header field `{field}` is {found}, expected {expected}", path.display())]
    Header {
        /// File.
        path: PathBuf,
        /// Name in the format's own words.
        field: &'static str,
        /// Value in the file.
        found: String,
        /// What would be right.
        expected: &'static str,
    },
}
