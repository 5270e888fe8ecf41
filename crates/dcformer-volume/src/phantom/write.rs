//! A set of phantoms on disk, in CT-RATE's layout.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

use super::random::Random;
use super::{DataSetConfig, Image, Phantom, generate_image};
use crate::dataset::ABNORMALITIES;
use crate::nifti::{WriteOptions, write_nifti};
use crate::output::write_replacing;
use crate::{Error, Result};

/// Marks a folder as a set of phantoms, which may be replaced by another.
const MARK: &str = "phantoms.txt";
const MARK_TEXT: &str = "Synthetic chest scans made by dcformer. They show no patient.\n";
/// What a set consists of; nothing else in the folder is touched.
const PARTS: [&str; 4] = [
    "dataset",
    "radiology_text_reports",
    "metadata",
    "multi_abnormality_labels",
];
/// Patients of the validation split are numbered from here, so that no split depends on the size of the other.
const VALID_PATIENTS_FROM: u64 = 1 << 40;

/// How far [`write_ct_rate`] has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Volumes written.
    pub done: usize,
    /// Volumes of the whole set.
    pub total: usize,
}

/// What [`write_ct_rate`] wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WrittenSet {
    /// Volumes of the training split.
    pub train_volumes: usize,
    /// Volumes of the validation split.
    pub valid_volumes: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Split {
    Train,
    Valid,
}

/// One volume of the set.
#[derive(Clone, Debug)]
struct Entry {
    split: Split,
    image: Image,
    /// Path below the folder, with slashes.
    folder: String,
    name: String,
}

/// Draws a set of phantoms and writes it in CT-RATE's layout: volumes, reports, metadata and labels.
///
/// The same configuration gives the same bytes, whatever the number of threads. `progress` is called after every volume,
/// from any thread. A set that was there is replaced; tables are written last, so that a set without them is unfinished.
///
/// # Errors
/// If the configuration makes no sense, the folder holds anything but a set of phantoms, or something cannot be written.
pub fn write_ct_rate(
    folder: &Path,
    config: &DataSetConfig,
    progress: impl Fn(Progress) + Sync,
) -> Result<WrittenSet> {
    config.phantom.check()?;
    claim(folder)?;
    let entries = entries(config);
    for entry in &entries {
        create_dir_all(&folder.join(&entry.folder))?;
    }
    let done = AtomicUsize::new(0);
    let options = WriteOptions {
        gzip_level: config.compression,
    };
    let rows: Vec<Row> = entries
        .par_iter()
        .map(|entry| {
            let phantom = generate_image(&config.phantom, config.seed, entry.image);
            write_nifti(
                &folder.join(&entry.folder).join(&entry.name),
                &phantom.volume,
                options,
            )?;
            progress(Progress {
                done: done.fetch_add(1, Ordering::Relaxed) + 1,
                total: entries.len(),
            });
            Ok(Row::new(entry, &phantom))
        })
        .collect::<Result<_>>()?;
    let mut volumes = [0; 2];
    for (count, split) in volumes.iter_mut().zip([Split::Train, Split::Valid]) {
        let rows: Vec<&Row> = rows.iter().filter(|row| row.split == split).collect();
        *count = rows.len();
        write_tables(folder, split, &rows)?;
    }
    Ok(WrittenSet {
        train_volumes: volumes[0],
        valid_volumes: volumes[1],
    })
}

/// Takes the folder for this set.
fn claim(folder: &Path) -> Result<()> {
    create_dir_all(folder)?;
    let mark = folder.join(MARK);
    let mut listing = fs::read_dir(folder).map_err(|source| Error::Read {
        path: folder.into(),
        source,
    })?;
    if listing.next().is_some() && !mark.is_file() {
        return Err(Error::NotPhantoms {
            path: folder.into(),
        });
    }
    write_bytes(&mark, MARK_TEXT.as_bytes())?;
    for part in PARTS.map(|part| folder.join(part)) {
        if part.is_dir() {
            fs::remove_dir_all(&part).map_err(|source| Error::Write { path: part, source })?;
        }
    }
    Ok(())
}

fn entries(config: &DataSetConfig) -> Vec<Entry> {
    let mut entries = Vec::new();
    let splits = [
        (Split::Train, 0, config.train_patients),
        (Split::Valid, VALID_PATIENTS_FROM, config.valid_patients),
    ];
    for (split, first, patients) in splits {
        let prefix = split.name();
        for number in 1..=patients as u64 {
            let patient = first + number;
            let mut random = Random::new(config.seed).stream(patient).stream(9);
            let scans = 1 + usize::from(random.chance(config.second_scan));
            for scan in 0..scans {
                let reconstructions = 1 + usize::from(random.chance(config.second_reconstruction));
                let letter = char::from(b'a' + scan as u8);
                for reconstruction in 0..reconstructions {
                    entries.push(Entry {
                        split,
                        image: Image {
                            patient,
                            scan,
                            reconstruction,
                        },
                        folder: format!(
                            "dataset/{prefix}/{prefix}_{number}/{prefix}_{number}_{letter}"
                        ),
                        name: format!("{prefix}_{number}_{letter}_{}.nii.gz", reconstruction + 1),
                    });
                }
            }
        }
    }
    entries
}

impl Split {
    /// Name in paths of volumes and of labels.
    const fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Valid => "valid",
        }
    }

    /// Name in paths of reports and metadata.
    const fn long_name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Valid => "validation",
        }
    }
}

/// What the tables say of one volume.
#[derive(Clone, Debug)]
struct Row {
    split: Split,
    report: Vec<String>,
    metadata: Vec<String>,
    labels: Vec<String>,
}

const REPORT_COLUMNS: [&str; 5] = [
    "VolumeName",
    "ClinicalInformation_EN",
    "Technique_EN",
    "Findings_EN",
    "Impressions_EN",
];

const METADATA_COLUMNS: [&str; 19] = [
    "VolumeName",
    "Manufacturer",
    "ManufacturerModelName",
    "SeriesDescription",
    "PatientSex",
    "PatientAge",
    "PatientPosition",
    "ContrastBolusAgent",
    "ConvolutionKernel",
    "XRayTubeCurrent",
    "ReconstructionDiameter",
    "Rows",
    "Columns",
    "XYSpacing",
    "ZSpacing",
    "RescaleSlope",
    "RescaleIntercept",
    "RescaleType",
    "NumberofSlices",
];

impl Row {
    fn new(entry: &Entry, phantom: &Phantom) -> Self {
        let name = || entry.name.clone();
        let Phantom {
            report,
            metadata,
            volume,
            ..
        } = phantom;
        let report = [
            &report.clinical_information,
            &report.technique,
            &report.findings,
            &report.impressions,
        ];
        let [x, y, z] = metadata.spacing_mm;
        let [columns, rows, slices] = volume.grid.size;
        let contrast = if metadata.contrast { "Iodine" } else { "" };
        Self {
            split: entry.split,
            report: std::iter::once(name())
                .chain(report.into_iter().cloned())
                .collect(),
            metadata: vec![
                name(),
                "dcformer".into(),
                "Phantom".into(),
                format!("Thorax {z} {}", metadata.kernel),
                metadata.sex.to_string(),
                format!("{:03}Y", metadata.age),
                metadata.patient_position.into(),
                contrast.into(),
                metadata.kernel.into(),
                metadata.tube_current_ma.to_string(),
                format!("{:.0}", x * columns as f64),
                rows.to_string(),
                columns.to_string(),
                format!("[{x}, {y}]"),
                z.to_string(),
                metadata.rescale.slope.to_string(),
                metadata.rescale.intercept.to_string(),
                "HU".into(),
                slices.to_string(),
            ],
            labels: std::iter::once(name())
                .chain(
                    phantom
                        .labels
                        .iter()
                        .map(|&label| u8::from(label).to_string()),
                )
                .collect(),
        }
    }
}

fn write_tables(folder: &Path, split: Split, rows: &[&Row]) -> Result<()> {
    let (short, long) = (split.name(), split.long_name());
    let label_columns: Vec<&str> = std::iter::once("VolumeName").chain(ABNORMALITIES).collect();
    let table = |path: String, columns: &[&str], fields: fn(&Row) -> &[String]| {
        write_table(
            &folder.join(path),
            columns,
            rows.iter().map(|row| fields(row)),
        )
    };
    table(
        format!("radiology_text_reports/{long}_reports.csv"),
        &REPORT_COLUMNS,
        |row| &row.report,
    )?;
    table(
        format!("metadata/{long}_metadata.csv"),
        &METADATA_COLUMNS,
        |row| &row.metadata,
    )?;
    table(
        format!("multi_abnormality_labels/{short}_predicted_labels.csv"),
        &label_columns,
        |row| &row.labels,
    )
}

fn write_table<'a>(
    path: &Path,
    columns: &[&str],
    rows: impl Iterator<Item = &'a [String]>,
) -> Result<()> {
    create_dir_all(path.parent().unwrap_or(path))?;
    let failed = |source: std::io::Error| Error::Write {
        path: path.into(),
        source,
    };
    let mut table = csv::Writer::from_writer(Vec::new());
    table
        .write_record(columns)
        .map_err(|error| failed(error.into()))?;
    for row in rows {
        table
            .write_record(row)
            .map_err(|error| failed(error.into()))?;
    }
    let bytes = table
        .into_inner()
        .map_err(|error| failed(error.into_error()))?;
    write_bytes(path, &bytes)
}

fn write_bytes(path: &Path, bytes: &[u8]) -> Result<()> {
    write_replacing(path, |mut file| file.write_all(bytes)).map_err(|source| Error::Write {
        path: path.into(),
        source,
    })
}

fn create_dir_all(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(|source| Error::Write {
        path: PathBuf::from(path),
        source,
    })
}
