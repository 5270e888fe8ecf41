//! A data set as one CSV: volume, report, labels.
//!
//! | column | meaning |
//! |---|---|
//! | `volume` | NIfTI file or DICOM folder, relative to the table's folder, or its address; also the sample's name |
//! | `report` | text of the report, optional |
//! | `patient` | whose scan it is, optional; without it every volume is a patient of its own |
//! | `slope`, `intercept` | stored values to Hounsfield units, optional, both or none |
//! | `spacing_x`, `spacing_y`, `spacing_z` | millimetres along the storage axes, optional, all or none |
//! | any other | a label, if its cells are 0, 1 or empty |
//!
//! An empty label cell means *unknown*: such a pair of volume and label counts neither as positive nor as negative. A
//! column with another value in it, with no value at all or without a name is no label, and a [`ProblemKind::ColumnUnused`] says so.

use std::collections::HashSet;
use std::path::Path;

use rayon::prelude::*;

use crate::dataset::{DataSet, Problem, ProblemKind, Sample, ScanMetadata, clean_report};
use crate::table::{Column, Row, Table, parse_label, shorten};
use crate::volume::Rescale;
use crate::{Error, Result, storage};

/// Reads a manifest; samples are in the order of its rows.
///
/// # Errors
/// If the table cannot be read, has no column `volume`, has only some of the columns that belong together, or a number
/// is not one.
pub fn read(path: &Path) -> Result<DataSet> {
    let table = Table::open(path)?;
    let columns = Columns::find(&table)?;
    let mut labels: Vec<LabelColumn> = table
        .columns()
        .filter(|(column, _)| !columns.contains(*column))
        .map(|(column, name)| LabelColumn::new(column, name))
        .collect();

    let mut data = DataSet::default();
    let mut seen = HashSet::new();
    let folder = path.parent().unwrap_or(Path::new(""));
    table.for_each(|row| {
        let name = row.name(columns.volume)?.to_owned();
        if !seen.insert(name.clone()) {
            data.problems.push(Problem {
                kind: ProblemKind::DuplicateRow,
                name,
            });
            return Ok(());
        }
        labels.iter_mut().for_each(|label| label.read(&row));
        let patient = columns
            .patient
            .map(|column| row.text(column).trim())
            .filter(|patient| !patient.is_empty());
        data.samples.push(Sample {
            patient: patient.unwrap_or(&name).to_owned(),
            path: storage::resolve(folder, Path::new(&name)),
            report: columns
                .report
                .and_then(|column| clean_report(&[row.text(column)])),
            labels: Vec::new(),
            metadata: columns.metadata(&row)?,
            name,
        });
        Ok(())
    })?;

    let (labels, unused): (Vec<_>, Vec<_>) = labels.into_iter().partition(LabelColumn::is_label);
    data.problems
        .extend(unused.into_iter().map(|column| column.problem()));
    for (index, sample) in data.samples.iter_mut().enumerate() {
        sample.labels = labels.iter().map(|label| label.values[index]).collect();
    }
    data.label_names = labels.into_iter().map(|label| label.name).collect();
    keep_existing(&mut data)?;
    note_gaps(&mut data, columns.report.is_some());
    data.problems.sort();
    Ok(data)
}

/// The columns with a meaning of their own.
struct Columns {
    volume: Column,
    report: Option<Column>,
    patient: Option<Column>,
    rescale: Option<[Column; 2]>,
    spacing: Option<[Column; 3]>,
}

impl Columns {
    fn find(table: &Table) -> Result<Self> {
        Ok(Self {
            volume: table.column("volume")?,
            report: table.find("report"),
            patient: table.find("patient"),
            rescale: all_or_none(table, ["slope", "intercept"])?,
            spacing: all_or_none(table, ["spacing_x", "spacing_y", "spacing_z"])?,
        })
    }

    fn contains(&self, column: Column) -> bool {
        column == self.volume
            || [self.report, self.patient].contains(&Some(column))
            || self
                .rescale
                .is_some_and(|columns| columns.contains(&column))
            || self
                .spacing
                .is_some_and(|columns| columns.contains(&column))
    }

    fn metadata(&self, row: &Row<'_>) -> Result<ScanMetadata> {
        let rescale = self
            .rescale
            .map(|columns| numbers(row, columns))
            .transpose()?
            .flatten();
        let spacing_mm = self
            .spacing
            .map(|columns| numbers(row, columns))
            .transpose()?
            .flatten();
        if let (Some(values), Some(columns)) = (spacing_mm, self.spacing)
            && let Some(axis) = values.iter().position(|value| *value <= 0.0)
        {
            return Err(row.error(columns[axis], "millimetres above 0"));
        }
        Ok(ScanMetadata {
            rescale: rescale.map(|[slope, intercept]| Rescale { slope, intercept }),
            spacing_mm,
        })
    }
}

fn all_or_none<const N: usize>(
    table: &Table,
    names: [&'static str; N],
) -> Result<Option<[Column; N]>> {
    if names.iter().all(|name| table.find(name).is_none()) {
        return Ok(None);
    }
    let columns = names
        .map(|name| table.column(name))
        .into_iter()
        .collect::<Result<Vec<_>>>()?;
    Ok(columns.try_into().ok())
}

/// Numbers of cells that belong together: `None` if all are empty.
fn numbers<const N: usize>(row: &Row<'_>, columns: [Column; N]) -> Result<Option<[f64; N]>> {
    let mut values = [0.0; N];
    let mut empty = None;
    let mut filled = 0;
    for (value, column) in values.iter_mut().zip(columns) {
        match row.number(column)? {
            Some(number) => {
                *value = number;
                filled += 1;
            }
            None => empty = Some(column),
        }
    }
    match empty {
        Some(column) if filled > 0 => {
            Err(row.error(column, "a number, because the cells beside it have one"))
        }
        Some(_) => Ok(None),
        None => Ok(Some(values)),
    }
}

/// A column that is a label as long as nothing in it speaks against it.
struct LabelColumn {
    column: Column,
    name: String,
    /// One for each sample.
    values: Vec<Option<bool>>,
    /// The first cell that is no label, and its line.
    other: Option<(String, u64)>,
}

impl LabelColumn {
    fn new(column: Column, name: &str) -> Self {
        Self {
            column,
            name: name.into(),
            values: Vec::new(),
            other: None,
        }
    }

    fn read(&mut self, row: &Row<'_>) {
        if self.other.is_some() {
            return;
        }
        let text = row.text(self.column);
        match parse_label(text) {
            Some(label) => self.values.push(label),
            None => self.other = Some((shorten(text), row.line)),
        }
    }

    fn is_label(&self) -> bool {
        !self.name.is_empty() && self.other.is_none() && self.values.iter().any(Option::is_some)
    }

    fn problem(self) -> Problem {
        let reason = match self.other {
            Some((text, line)) => format!("{text:?} in line {line} is not 0, 1 or nothing"),
            None if self.name.is_empty() => "it has no name".into(),
            None => "all its cells are empty".into(),
        };
        Problem {
            kind: ProblemKind::ColumnUnused,
            name: format!("{} ({reason})", self.name),
        }
    }
}

/// Leaves out the samples whose file or folder is not there, and says so.
fn keep_existing(data: &mut DataSet) -> Result<()> {
    let exists = |sample: &Sample| {
        storage::exists(&sample.path).map_err(|source| Error::Read {
            path: sample.path.clone(),
            source,
        })
    };
    let exists: Vec<bool> = data.samples.par_iter().map(exists).collect::<Result<_>>()?;
    let samples = std::mem::take(&mut data.samples);
    for (sample, exists) in samples.into_iter().zip(exists) {
        if exists {
            data.samples.push(sample);
        } else {
            data.problems.push(Problem {
                kind: ProblemKind::FileMissing,
                name: sample.name,
            });
        }
    }
    Ok(())
}

fn note_gaps(data: &mut DataSet, has_reports: bool) {
    for sample in &data.samples {
        let mut problem = |kind| {
            data.problems.push(Problem {
                kind,
                name: sample.name.clone(),
            });
        };
        if has_reports && sample.report.is_none() {
            problem(ProblemKind::ReportMissing);
        }
        if !data.label_names.is_empty() && !sample.is_labelled() {
            problem(ProblemKind::LabelsMissing);
        }
    }
}

#[cfg(test)]
mod tests;
