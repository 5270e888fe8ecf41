//! CT-RATE's folders, reports, metadata and labels (SPEC section 5).
//!
//! ```text
//! dataset/train/train_1/train_1_a/train_1_a_1.nii.gz      patient / scan / reconstruction; dataset/valid likewise
//! radiology_text_reports/{train,validation}_reports.csv
//! metadata/{train,validation}_metadata.csv
//! multi_abnormality_labels/{train,valid}_predicted_labels.csv
//! ```
//! The tables may lie beside `dataset` or in it. The second release keeps its volumes in `train_fixed` and
//! `valid_fixed`; where both releases are on disk the second is read, because its headers are right.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use crate::dataset::{
    ABNORMALITIES, DataSet, Problem, ProblemKind, Sample, ScanMetadata, clean_report,
};
use crate::table::{Column, Row, Table};
use crate::volume::Rescale;
use crate::{Error, Result};

/// The two parts of the data set; no patient is in both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// 20,000 patients.
    Train,
    /// 1,304 patients.
    Validation,
}

impl Split {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Train, Self::Validation];

    /// Its name in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Validation => "validation",
        }
    }

    /// Folders of the volumes, in order of preference.
    const fn folders(self) -> [&'static str; 2] {
        match self {
            Self::Train => ["train_fixed", "train"],
            Self::Validation => ["valid_fixed", "valid"],
        }
    }

    const fn reports(self) -> &'static str {
        match self {
            Self::Train => "radiology_text_reports/train_reports.csv",
            Self::Validation => "radiology_text_reports/validation_reports.csv",
        }
    }

    const fn metadata(self) -> &'static str {
        match self {
            Self::Train => "metadata/train_metadata.csv",
            Self::Validation => "metadata/validation_metadata.csv",
        }
    }

    const fn labels(self) -> &'static str {
        match self {
            Self::Train => "multi_abnormality_labels/train_predicted_labels.csv",
            Self::Validation => "multi_abnormality_labels/valid_predicted_labels.csv",
        }
    }
}

/// What to read and what to leave out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Tables with a column `VolumeName` of volumes to leave out (CT-RATE lists those that show no chest).
    pub exclude: Vec<PathBuf>,
}

/// Lists the volumes of a split with their reports, labels and metadata, sorted by name.
///
/// A table that is not there is one problem, and the volumes come without what it would say. Rows and files are
/// matched by name, whether or not the file is still compressed.
///
/// # Errors
/// If the folder of volumes is missing, a folder or table cannot be read, a table lacks a column, or a cell has a
/// value that its column cannot have.
pub fn read(root: &Path, split: Split, options: &Options) -> Result<DataSet> {
    let bases = [root.join("dataset"), root.to_path_buf()];
    let mut problems = Vec::new();
    let mut excluded_names = HashSet::new();
    for list in &options.exclude {
        read_exclusions(list, &mut excluded_names)?;
    }

    let files = list_volumes(&volume_folder(root, &bases, split)?)?;
    let tables = Tables {
        reports: read_rows(&bases, split.reports(), &mut problems, report_reader)?,
        labels: read_rows(&bases, split.labels(), &mut problems, label_reader)?,
        metadata: read_rows(&bases, split.metadata(), &mut problems, metadata_reader)?,
    };

    let on_disk: HashSet<&str> = files.iter().map(VolumeFile::stem).collect();
    let without_file = tables
        .names()
        .into_iter()
        .filter(|name| !on_disk.contains(stem(name)) && !excluded_names.contains(stem(name)));
    problems.extend(without_file.map(|name| Problem {
        kind: ProblemKind::FileMissing,
        name: name.clone(),
    }));

    let mut data = DataSet {
        label_names: ABNORMALITIES.map(String::from).into(),
        ..DataSet::default()
    };
    let mut seen = HashSet::new();
    for file in files {
        if excluded_names.contains(file.stem()) {
            data.excluded.push(file.name);
        } else if !seen.insert(file.stem().to_owned()) {
            problems.push(Problem {
                kind: ProblemKind::DuplicateFile,
                name: file.name,
            });
        } else {
            data.samples.push(tables.sample(file, &mut problems));
        }
    }
    problems.sort();
    data.problems = problems;
    Ok(data)
}

/// A volume found on disk.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct VolumeFile {
    /// File name: `train_1_a_1.nii.gz`.
    name: String,
    path: PathBuf,
    /// Name of the folder directly below the split's folder, if the file lies in one.
    top_folder: Option<String>,
}

impl VolumeFile {
    fn stem(&self) -> &str {
        stem(&self.name)
    }

    /// `train_1` of `train_1_a_1`; a file that is not named so belongs to its folder, or only to itself.
    fn patient(&self) -> String {
        let mut parts = self.stem().rsplitn(3, '_');
        let (reconstruction, scan, patient) = (parts.next(), parts.next(), parts.next());
        let numbered = |part: Option<&str>| {
            part.is_some_and(|part| part.bytes().all(|byte| byte.is_ascii_digit()))
        };
        let lettered = |part: Option<&str>| {
            part.is_some_and(|part| part.bytes().all(|byte| byte.is_ascii_lowercase()))
        };
        match patient {
            Some(patient) if numbered(reconstruction) && lettered(scan) => patient.to_owned(),
            _ => self
                .top_folder
                .clone()
                .unwrap_or_else(|| self.stem().to_owned()),
        }
    }
}

/// A volume's name without the endings that say how its file is stored.
fn stem(name: &str) -> &str {
    let name = name.strip_suffix(".gz").unwrap_or(name);
    name.strip_suffix(".nii").unwrap_or(name)
}

fn volume_folder(root: &Path, bases: &[PathBuf], split: Split) -> Result<PathBuf> {
    let candidates = split
        .folders()
        .into_iter()
        .flat_map(|folder| bases.iter().map(move |base| base.join(folder)));
    candidates
        .into_iter()
        .find(|folder| folder.is_dir())
        .ok_or_else(|| Error::NoVolumes {
            path: root.into(),
            expected: split
                .folders()
                .map(|folder| format!("`dataset/{folder}`"))
                .join(" or "),
        })
}

/// All `.nii` and `.nii.gz` files of a split, sorted by name, then path.
fn list_volumes(folder: &Path) -> Result<Vec<VolumeFile>> {
    /// Patient, scan, file: nothing lies deeper, and a link that leads back up is not followed for ever.
    const LEVELS: usize = 3;

    // One task for each patient: on a network file system 20,000 folders are slow one after the other.
    let lists: Vec<_> = read_folder(folder)?
        .into_par_iter()
        .map(|path| {
            let mut found = Vec::new();
            let top_folder = path.is_dir().then(|| file_name(&path));
            collect_volumes(path, top_folder.as_ref(), LEVELS, &mut found)?;
            Ok(found)
        })
        .collect::<Result<_>>()?;
    let mut files: Vec<VolumeFile> = lists.into_iter().flatten().collect();
    files.sort();
    Ok(files)
}

fn collect_volumes(
    path: PathBuf,
    top_folder: Option<&String>,
    levels: usize,
    found: &mut Vec<VolumeFile>,
) -> Result<()> {
    let name = file_name(&path);
    // Names with a leading dot are the file system's own notes (macOS: `._train_1_a_1.nii.gz`).
    if levels == 0 || name.starts_with('.') {
        return Ok(());
    }
    if path.is_dir() {
        for entry in read_folder(&path)? {
            collect_volumes(entry, top_folder, levels - 1, found)?;
        }
    } else if name.ends_with(".nii.gz") || name.ends_with(".nii") {
        found.push(VolumeFile {
            name,
            path,
            top_folder: top_folder.cloned(),
        });
    }
    Ok(())
}

fn read_folder(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect());
    entries.map_err(|source| Error::Read {
        path: folder.into(),
        source,
    })
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

/// What the three tables say of the volumes.
struct Tables {
    reports: Rows<Option<String>>,
    labels: Rows<Vec<Option<bool>>>,
    metadata: Rows<ScanMetadata>,
}

impl Tables {
    /// Volumes that any table names, each once.
    fn names(&self) -> BTreeSet<&String> {
        self.reports
            .names()
            .chain(self.labels.names())
            .chain(self.metadata.names())
            .collect()
    }

    /// The sample of a file; what a table lacks of it is a problem.
    fn sample(&self, file: VolumeFile, problems: &mut Vec<Problem>) -> Sample {
        let report = self.reports.get(file.stem()).and_then(Option::as_ref);
        let labels = self.labels.get(file.stem());
        let metadata = self.metadata.get(file.stem());
        let unlabelled = labels.is_none_or(|labels| labels.iter().all(Option::is_none));
        for (missing, kind) in [
            (
                self.reports.table_found && report.is_none(),
                ProblemKind::ReportMissing,
            ),
            (
                self.labels.table_found && unlabelled,
                ProblemKind::LabelsMissing,
            ),
            (
                self.metadata.table_found && metadata.is_none(),
                ProblemKind::MetadataMissing,
            ),
        ] {
            if missing {
                problems.push(Problem {
                    kind,
                    name: file.name.clone(),
                });
            }
        }
        Sample {
            patient: file.patient(),
            report: report.cloned(),
            labels: labels
                .cloned()
                .unwrap_or_else(|| vec![None; ABNORMALITIES.len()]),
            metadata: metadata.copied().unwrap_or_default(),
            name: file.name,
            path: file.path,
        }
    }
}

/// Rows of one table by the stem of their volume's name.
struct Rows<T> {
    table_found: bool,
    by_stem: HashMap<String, (String, T)>,
}

impl<T> Rows<T> {
    fn get(&self, stem: &str) -> Option<&T> {
        self.by_stem.get(stem).map(|(_, row)| row)
    }

    /// Volume names as the table writes them.
    fn names(&self) -> impl Iterator<Item = &String> {
        self.by_stem.values().map(|(name, _)| name)
    }
}

/// Reads a table with a function that finds its columns and returns the function that reads a row.
fn read_rows<T, R: FnMut(&Row<'_>) -> Result<T>>(
    bases: &[PathBuf],
    name: &str,
    problems: &mut Vec<Problem>,
    reader: impl FnOnce(&Table, &mut Vec<Problem>) -> Result<R>,
) -> Result<Rows<T>> {
    let mut rows = Rows {
        table_found: false,
        by_stem: HashMap::new(),
    };
    let Some(path) = bases
        .iter()
        .map(|base| base.join(name))
        .find(|path| path.exists())
    else {
        problems.push(Problem {
            kind: ProblemKind::TableMissing,
            name: name.into(),
        });
        return Ok(rows);
    };
    rows.table_found = true;
    let table = Table::open(&path)?;
    let volume = table.column("VolumeName")?;
    let mut read_row = reader(&table, problems)?;
    table.for_each(|row| {
        let name = row.name(volume)?;
        if rows.by_stem.contains_key(stem(name)) {
            problems.push(Problem {
                kind: ProblemKind::DuplicateRow,
                name: name.into(),
            });
        } else {
            rows.by_stem
                .insert(stem(name).into(), (name.into(), read_row(&row)?));
        }
        Ok(())
    })?;
    Ok(rows)
}

fn read_exclusions(path: &Path, names: &mut HashSet<String>) -> Result<()> {
    let table = Table::open(path)?;
    let volume = table.column("VolumeName")?;
    table.for_each(|row| {
        names.insert(stem(row.name(volume)?).to_owned());
        Ok(())
    })
}

type Reader<T> = Box<dyn FnMut(&Row<'_>) -> Result<T>>;

fn report_reader(table: &Table, _: &mut Vec<Problem>) -> Result<Reader<Option<String>>> {
    let findings = table.column("Findings_EN")?;
    // Releases differ in this name.
    let impressions = table
        .find("Impression_EN")
        .map_or_else(|| table.column("Impressions_EN"), Ok)?;
    Ok(Box::new(move |row| {
        Ok(clean_report(&[row.text(findings), row.text(impressions)]))
    }))
}

fn label_reader(table: &Table, problems: &mut Vec<Problem>) -> Result<Reader<Vec<Option<bool>>>> {
    let columns = ABNORMALITIES
        .map(|name| table.column(name))
        .into_iter()
        .collect::<Result<Vec<Column>>>()?;
    let unused = table
        .columns()
        .filter(|(column, name)| *name != "VolumeName" && !columns.contains(column));
    problems.extend(unused.map(|(_, name)| Problem {
        kind: ProblemKind::ColumnUnused,
        name: name.into(),
    }));
    Ok(Box::new(move |row| {
        columns.iter().map(|column| row.label(*column)).collect()
    }))
}

fn metadata_reader(table: &Table, _: &mut Vec<Problem>) -> Result<Reader<ScanMetadata>> {
    let slope = table.column("RescaleSlope")?;
    let intercept = table.column("RescaleIntercept")?;
    let in_plane = table.column("XYSpacing")?;
    let between_slices = table.column("ZSpacing")?;
    Ok(Box::new(move |row| {
        let rescale = match (row.number(slope)?, row.number(intercept)?) {
            (Some(slope), Some(intercept)) => Some(Rescale { slope, intercept }),
            _ => None,
        };
        let spacing_mm = match (
            in_plane_spacing(row, in_plane)?,
            row.number(between_slices)?,
        ) {
            (Some([row_spacing, column_spacing]), Some(z)) if z > 0.0 => {
                Some([column_spacing, row_spacing, z])
            }
            (_, Some(z)) if z <= 0.0 => {
                return Err(row.error(between_slices, "millimetres above 0"));
            }
            _ => None,
        };
        Ok(ScanMetadata {
            rescale,
            spacing_mm,
        })
    }))
}

/// DICOM's pixel spacing as the table writes it, `[0.703125, 0.703125]`: between rows, then between columns.
fn in_plane_spacing(row: &Row<'_>, column: Column) -> Result<Option<[f64; 2]>> {
    let text = row
        .text(column)
        .trim_matches(|c: char| c.is_whitespace() || "[]()".contains(c));
    if text.is_empty() {
        return Ok(None);
    }
    let quoted = |c: char| c.is_whitespace() || c == '\'';
    let values: Vec<Option<f64>> = text
        .split(',')
        .map(|part| {
            part.trim_matches(quoted)
                .parse()
                .ok()
                .filter(|value: &f64| value.is_finite() && *value > 0.0)
        })
        .collect();
    match values[..] {
        [Some(rows), Some(columns)] => Ok(Some([rows, columns])),
        _ => Err(row.error(
            column,
            "two spacings in millimetres, like [0.703125, 0.703125]",
        )),
    }
}

#[cfg(test)]
mod tests;
