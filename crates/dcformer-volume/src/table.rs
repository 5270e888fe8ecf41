//! A CSV table with named columns, read row by row.

use std::collections::HashSet;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::{Error, Result, storage};

/// A table whose header is read and whose rows are not yet.
pub(crate) struct Table {
    path: PathBuf,
    columns: Vec<String>,
    reader: csv::Reader<Box<dyn Read>>,
}

/// Place of a column in its table; comes from [`Table::find`] or [`Table::column`] only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Column(usize);

/// One row of a table.
pub(crate) struct Row<'a> {
    path: &'a Path,
    columns: &'a [String],
    record: &'a csv::StringRecord,
    /// Line on which the row begins, from 1.
    pub(crate) line: u64,
}

impl Table {
    /// Opens a table and reads its header.
    ///
    /// # Errors
    /// If the file cannot be read, is not UTF-8, or names a column twice.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let file = storage::open(path).map_err(|source| Error::Read {
            path: path.into(),
            source,
        })?;
        // Reports are long: a larger buffer than the default saves system calls.
        let mut reader = csv::ReaderBuilder::new()
            .buffer_capacity(1 << 20)
            .from_reader(file);
        let header = reader.headers().map_err(|error| table_error(path, error))?;
        // Spreadsheet programs put a byte order mark before the first name.
        let columns: Vec<String> = header
            .iter()
            .map(|name| name.trim_start_matches('\u{feff}').trim().to_owned())
            .collect();
        let mut seen = HashSet::new();
        if let Some(column) = columns.iter().find(|name| !seen.insert(name.as_str())) {
            return Err(Error::RepeatedColumn {
                path: path.into(),
                column: column.clone(),
            });
        }
        Ok(Self {
            path: path.into(),
            columns,
            reader,
        })
    }

    /// The column of this name, if there is one.
    pub(crate) fn find(&self, name: &str) -> Option<Column> {
        self.columns
            .iter()
            .position(|column| column == name)
            .map(Column)
    }

    /// The column of this name.
    ///
    /// # Errors
    /// If there is none: the message lists those that are there.
    pub(crate) fn column(&self, name: &'static str) -> Result<Column> {
        let missing = || Error::MissingColumn {
            path: self.path.clone(),
            column: name,
            found: self.columns.clone(),
        };
        self.find(name).ok_or_else(missing)
    }

    /// All columns with their names, in order.
    pub(crate) fn columns(&self) -> impl Iterator<Item = (Column, &str)> {
        self.columns
            .iter()
            .enumerate()
            .map(|(index, name)| (Column(index), name.as_str()))
    }

    /// Calls `visit` with every row, in order, until it fails.
    ///
    /// # Errors
    /// If a row has not as many cells as the header or is not UTF-8, and whatever `visit` returns.
    pub(crate) fn for_each(mut self, mut visit: impl FnMut(Row<'_>) -> Result<()>) -> Result<()> {
        let mut record = csv::StringRecord::new();
        while self
            .reader
            .read_record(&mut record)
            .map_err(|error| table_error(&self.path, error))?
        {
            let line = record.position().map_or(0, csv::Position::line);
            visit(Row {
                path: &self.path,
                columns: &self.columns,
                record: &record,
                line,
            })?;
        }
        Ok(())
    }
}

impl Row<'_> {
    /// A cell as it stands.
    pub(crate) fn text(&self, column: Column) -> &str {
        self.record.get(column.0).unwrap_or_default()
    }

    /// A cell without the white space around it, which must not be empty.
    pub(crate) fn name(&self, column: Column) -> Result<&str> {
        match self.text(column).trim() {
            "" => Err(self.error(column, "a name")),
            name => Ok(name),
        }
    }

    /// A finite number, or `None` if the cell is empty.
    pub(crate) fn number(&self, column: Column) -> Result<Option<f64>> {
        match self.text(column).trim() {
            "" => Ok(None),
            text => match text.parse::<f64>() {
                Ok(value) if value.is_finite() => Ok(Some(value)),
                _ => Err(self.error(column, "a number")),
            },
        }
    }

    /// A label, or `None` if the cell is empty.
    pub(crate) fn label(&self, column: Column) -> Result<Option<bool>> {
        parse_label(self.text(column)).ok_or_else(|| self.error(column, "0, 1 or nothing"))
    }

    /// The error that this cell is not what it should be.
    pub(crate) fn error(&self, column: Column, expected: &'static str) -> Error {
        Error::Cell {
            path: self.path.into(),
            line: self.line,
            column: self.columns.get(column.0).cloned().unwrap_or_default(),
            found: shorten(self.text(column)),
            expected,
        }
    }
}

/// `Some(None)` for an empty cell, `None` if the text is no label. Labels that went through floats are labels still.
pub(crate) fn parse_label(text: &str) -> Option<Option<bool>> {
    match text.trim() {
        "" => Some(None),
        "0" | "0.0" => Some(Some(false)),
        "1" | "1.0" => Some(Some(true)),
        _ => None,
    }
}

/// The beginning of a text, for a message.
pub(crate) fn shorten(text: &str) -> String {
    const SHOWN: usize = 60;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

fn table_error(path: &Path, error: csv::Error) -> Error {
    let path = path.to_owned();
    let line = error.position().map_or(0, csv::Position::line);
    match error.into_kind() {
        csv::ErrorKind::Io(source) => Error::Read { path, source },
        csv::ErrorKind::UnequalLengths {
            expected_len, len, ..
        } => {
            let expected = format!(
                "{expected_len} as in the header; put text with commas or newlines in double quotes"
            );
            Error::TableRow {
                path,
                line,
                found: format!("{len} cells"),
                expected,
            }
        }
        csv::ErrorKind::Utf8 { err, .. } => {
            let found = format!("bytes that are not UTF-8 in cell {}", err.field() + 1);
            Error::TableRow {
                path,
                line,
                found,
                expected: "text; save the table as UTF-8".into(),
            }
        }
        kind => Error::TableRow {
            path,
            line,
            found: format!("{kind:?}"),
            expected: "a row of a CSV table".into(),
        },
    }
}
