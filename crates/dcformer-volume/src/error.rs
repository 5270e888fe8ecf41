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

    /// A table has no column of a name that it must have.
    #[error(
        "{}: column `{column}` is missing, found {}; add or rename it (columns are separated by commas)",
        path.display(),
        listed(found)
    )]
    MissingColumn {
        /// Table.
        path: PathBuf,
        /// The column looked for.
        column: &'static str,
        /// The columns that are there.
        found: Vec<String>,
    },

    /// A table names one column twice.
    #[error("{}: column `{column}` is there twice; keep one of them", path.display())]
    RepeatedColumn {
        /// Table.
        path: PathBuf,
        /// The repeated name.
        column: String,
    },

    /// A row of a table cannot be taken apart.
    #[error("{}: line {line} has {found}, expected {expected}", path.display())]
    TableRow {
        /// Table.
        path: PathBuf,
        /// Line on which the row begins, from 1.
        line: u64,
        /// What is there.
        found: String,
        /// What would be right.
        expected: String,
    },

    /// A cell of a table has a value that its column cannot have.
    #[error("{}: line {line}, column `{column}` is {found:?}, expected {expected}", path.display())]
    Cell {
        /// Table.
        path: PathBuf,
        /// Line on which the row begins, from 1.
        line: u64,
        /// Name of the column.
        column: String,
        /// The cell's text, shortened if it is long.
        found: String,
        /// What would be right.
        expected: &'static str,
    },

    /// A folder does not hold a data set of the layout asked for.
    #[error("{}: found no folder {expected}; name the folder that holds it", path.display())]
    NoVolumes {
        /// Folder looked at.
        path: PathBuf,
        /// The folders that were tried.
        expected: String,
    },
}

/// Names in backquotes, separated by commas; a long list is cut, because a file that is no table can have any number.
fn listed(names: &[String]) -> String {
    const SHOWN: usize = 40;
    if names.iter().all(String::is_empty) {
        return "no names".into();
    }
    let mut text = names
        .iter()
        .take(SHOWN)
        .map(|name| format!("`{name}`"))
        .collect::<Vec<_>>()
        .join(", ");
    if names.len() > SHOWN {
        text.push_str(&format!(" and {} more", names.len() - SHOWN));
    }
    text
}
