//! The tables of a cache: `manifest.csv`, a row for each volume, and `quarantine.csv`, a row for each that has none.

use std::collections::BTreeSet;
use std::path::Path;

use super::plan::{Item, Plan, State};
use super::{Quarantined, VOLUMES, settings};
use crate::ct_rate::Split;
use crate::dataset::{DataSet, Problem, ProblemKind, Sample, ScanMetadata};
use crate::table::Table;
use crate::{Error, Result, storage};

const MANIFEST: &str = "manifest.csv";
const QUARANTINE: &str = "quarantine.csv";

/// The columns of the manifest before the labels.
const COLUMNS: [&str; 10] = [
    "volume",
    "name",
    "split",
    "patient",
    "source_sha256",
    "source_bytes",
    "preset",
    "version",
    "shape",
    "report",
];

/// Refuses labels that have the name of a column.
pub(super) fn check_labels(cache: &Path, plan: &Plan<'_>) -> Result<()> {
    match plan.labels.iter().find(|label| COLUMNS.contains(label)) {
        Some(label) => Err(Error::RepeatedColumn {
            path: cache.join(MANIFEST),
            column: (*label).to_owned(),
        }),
        None => Ok(()),
    }
}

/// Writes both tables; every volume must be ready or in quarantine.
pub(super) fn write(cache: &Path, plan: &Plan<'_>, states: &[State]) -> Result<()> {
    let mut manifest = csv::Writer::from_writer(Vec::new());
    let mut quarantine = csv::Writer::from_writer(Vec::new());
    let header = COLUMNS.iter().chain(&plan.labels);
    let in_memory = "rows of as many cells as the header go into memory";
    manifest.write_record(header).expect(in_memory);
    quarantine
        .write_record(["name", "split", "reason", "message"])
        .expect(in_memory);
    for (item, state) in plan.items.iter().zip(states) {
        let split = item.split.map_or("", Split::name);
        match state {
            State::Ready(record, shape) => {
                let row = [
                    format!("{VOLUMES}/{}", item.key),
                    record.name.clone(),
                    split.to_owned(),
                    item.sample.patient.clone(),
                    record.source.sha256.clone(),
                    record.source.bytes.to_string(),
                    record
                        .preprocess
                        .preset_name()
                        .unwrap_or("custom")
                        .to_owned(),
                    record.version.clone(),
                    shape.to_string(),
                    item.sample.report.clone().unwrap_or_default(),
                ];
                let labels = plan.labels.iter().map(|label| cell(item, label).to_owned());
                manifest
                    .write_record(row.into_iter().chain(labels))
                    .expect(in_memory);
            }
            State::Quarantined(Quarantined {
                name,
                reason,
                message,
            }) => quarantine
                .write_record([name, split, reason, message])
                .expect(in_memory),
            State::Open => unreachable!("tables are written when no volume is open"),
        }
    }
    write_shared(
        &cache.join(QUARANTINE),
        &quarantine.into_inner().expect(in_memory),
    )?;
    write_shared(
        &cache.join(MANIFEST),
        &manifest.into_inner().expect(in_memory),
    )
}

/// A label of a volume as the manifest has it.
fn cell(item: &Item<'_>, label: &str) -> &'static str {
    let place = item.labels.iter().position(|own| own == label);
    match place.and_then(|place| item.sample.labels.get(place).copied().flatten()) {
        Some(true) => "1",
        Some(false) => "0",
        None => "",
    }
}

/// Writes a file that every process would write alike. Where it is there already, it stays: its readers, and others that
/// are writing it at this moment, notice nothing.
pub(super) fn write_shared(path: &Path, bytes: &[u8]) -> Result<()> {
    // One byte more would be seen.
    let most = bytes.len() as u64 + 1;
    let is_there = || storage::read(path, most).is_ok_and(|found| found == bytes);
    if is_there() {
        return Ok(());
    }
    match storage::write(path, bytes) {
        Err(source) if !is_there() => Err(Error::Write {
            path: path.into(),
            source,
        }),
        _ => Ok(()),
    }
}

/// The volumes of a cache as a data set: those of these splits, where `None` is the one of data sets that have none.
/// Volumes in quarantine are problems.
///
/// # Errors
/// If the folder is no cache, is not complete, or its tables are damaged.
pub fn read(cache: &Path, splits: &[Option<Split>]) -> Result<DataSet> {
    settings(cache)?;
    let manifest = cache.join(MANIFEST);
    if !is_file(&manifest)? {
        return Err(Error::CacheUnfinished { path: cache.into() });
    }
    let table = Table::open(&manifest)?;
    let [volume, name, split_column, patient, report] =
        ["volume", "name", "split", "patient", "report"].map(|name| table.column(name));
    let (volume, name, split_column) = (volume?, name?, split_column?);
    let (patient, report) = (patient?, report?);
    let (labels, label_names): (Vec<_>, Vec<_>) = table
        .columns()
        .filter(|(_, name)| !COLUMNS.contains(name))
        .map(|(column, name)| (column, name.to_owned()))
        .unzip();
    let mut data = DataSet {
        label_names,
        ..DataSet::default()
    };
    let volumes = Volumes::of(cache)?;
    let is_wanted = |text: &str| {
        let mut names = splits.iter().map(|split| split.map_or("", Split::name));
        names.any(|name| name == text)
    };
    table.for_each(|row| {
        if !is_wanted(row.text(split_column)) {
            return Ok(());
        }
        let path = cache.join(row.name(volume)?);
        if !volumes.contains(&path) {
            data.problems.push(Problem {
                kind: ProblemKind::FileMissing,
                name: row.name(name)?.to_owned(),
            });
            return Ok(());
        }
        let report = row.text(report);
        data.samples.push(Sample {
            name: row.name(name)?.to_owned(),
            patient: row.text(patient).to_owned(),
            path,
            report: (!report.is_empty()).then(|| report.to_owned()),
            labels: labels
                .iter()
                .map(|label| row.label(*label))
                .collect::<Result<_>>()?,
            metadata: ScanMetadata::default(),
        });
        Ok(())
    })?;
    add_quarantined(cache, &is_wanted, &mut data.problems)?;
    data.problems.sort();
    Ok(data)
}

/// Adds the rows of `quarantine.csv` whose split is wanted.
fn add_quarantined(
    cache: &Path,
    is_wanted: &dyn Fn(&str) -> bool,
    problems: &mut Vec<Problem>,
) -> Result<()> {
    let quarantine = cache.join(QUARANTINE);
    if !is_file(&quarantine)? {
        return Ok(());
    }
    let table = Table::open(&quarantine)?;
    let (name, split) = (table.column("name")?, table.column("split")?);
    table.for_each(|row| {
        if is_wanted(row.text(split)) {
            problems.push(Problem {
                kind: ProblemKind::Quarantined,
                name: row.name(name)?.to_owned(),
            });
        }
        Ok(())
    })
}

/// Which volumes there are. A look at a folder is quick; a bucket is asked for all names at once, which are kept.
enum Volumes {
    InFolder,
    InBucket(BTreeSet<String>),
}

impl Volumes {
    fn of(cache: &Path) -> Result<Self> {
        let path = cache.join(VOLUMES);
        if !storage::is_address(&path) {
            return Ok(Self::InFolder);
        }
        let names = storage::names_in(&path);
        let names = names.map_err(|source| Error::Read { path, source })?;
        Ok(Self::InBucket(names))
    }

    fn contains(&self, volume: &Path) -> bool {
        match self {
            Self::InFolder => volume.is_dir(),
            Self::InBucket(names) => {
                let name = volume.file_name().and_then(|name| name.to_str());
                name.is_some_and(|name| names.contains(name))
            }
        }
    }
}

/// Whether a cache has this file.
pub(super) fn is_file(path: &Path) -> Result<bool> {
    storage::is_file(path).map_err(|source| Error::Read {
        path: path.into(),
        source,
    })
}
