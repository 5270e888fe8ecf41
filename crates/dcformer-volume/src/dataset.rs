//! What a data set is, whatever its layout on disk: samples, and the problems found while listing them.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The 18 abnormalities of CT-RATE, in the order of its label files.
pub const ABNORMALITIES: [&str; 18] = [
    "Medical material",
    "Arterial wall calcification",
    "Cardiomegaly",
    "Pericardial effusion",
    "Coronary artery wall calcification",
    "Hiatal hernia",
    "Lymphadenopathy",
    "Emphysema",
    "Atelectasis",
    "Lung nodule",
    "Lung opacity",
    "Pulmonary fibrotic sequela",
    "Pleural effusion",
    "Mosaic attenuation pattern",
    "Peribronchial thickening",
    "Consolidation",
    "Bronchiectasis",
    "Interlobular septal thickening",
];

/// One volume of a data set with what is known about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Name of the volume, unique in the data set (CT-RATE: `train_1_a_1.nii.gz`).
    pub name: String,
    /// Whose scan it is: splits and bootstrap intervals are by patient (CT-RATE: `train_1`).
    pub patient: String,
    /// NIfTI file or DICOM folder.
    pub path: PathBuf,
    /// Findings and impression, cleaned (SPEC section 5), if there is a report.
    pub report: Option<String>,
    /// One per label name of the data set: present, absent, or `None` where nobody said.
    pub labels: Vec<Option<bool>>,
    /// What a metadata table says of the scan.
    pub metadata: ScanMetadata,
}

impl Sample {
    /// Whether at least one label is known.
    pub fn is_labelled(&self) -> bool {
        self.labels.iter().any(Option::is_some)
    }

    /// Whether there is a text to learn from or to look for.
    pub fn has_report(&self) -> bool {
        let report = self.report.as_deref().unwrap_or_default();
        !report.trim().is_empty()
    }

    /// The examination that the volume is a reconstruction of: of a name in CT-RATE's form what comes before the number of the
    /// reconstruction, of any other the name itself.
    ///
    /// ```
    /// # use dcformer_volume::dataset::{Sample, ScanMetadata};
    /// # let sample = |name: &str, patient: &str| Sample {
    /// #     name: name.into(), patient: patient.into(), path: name.into(), report: None, labels: vec![],
    /// #     metadata: ScanMetadata::default(),
    /// # };
    /// assert_eq!(sample("train_1_a_2.nii.gz", "train_1").study(), "train_1_a");
    /// assert_eq!(sample("scans/1_a_2.nii.gz", "p1").study(), "scans/1_a_2.nii.gz");
    /// ```
    pub fn study(&self) -> &str {
        let of_patient = |name: &str| {
            let rest = name.strip_prefix(&self.patient)?.strip_prefix('_')?;
            let (scan, reconstruction) = rest.split_once('_')?;
            let (number, _) = reconstruction
                .split_once('.')
                .unwrap_or((reconstruction, ""));
            let is_scan = !scan.is_empty() && scan.bytes().all(|byte| byte.is_ascii_lowercase());
            let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
            (is_scan && is_number).then(|| name.len() - reconstruction.len() - 1)
        };
        match of_patient(&self.name) {
            Some(end) => &self.name[..end],
            None => &self.name,
        }
    }
}

/// Facts about a scan from outside its file; `None` where the table says nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ScanMetadata {
    /// Slope and intercept that turn stored values into Hounsfield units.
    pub rescale: Option<crate::volume::Rescale>,
    /// Millimetres between voxel centres along the storage axes `i, j, k`.
    pub spacing_mm: Option<[f64; 3]>,
}

impl ScanMetadata {
    /// The same, and what `other` says where this says nothing.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            rescale: self.rescale.or(other.rescale),
            spacing_mm: self.spacing_mm.or(other.spacing_mm),
        }
    }
}

/// Samples of one split, the names of their labels, and what did not fit together.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DataSet {
    /// Column names of the labels, in order; empty if the data set has none.
    pub label_names: Vec<String>,
    /// Usable samples, in a fixed order.
    pub samples: Vec<Sample>,
    /// Volumes on disk that a list says to leave out, sorted.
    pub excluded: Vec<String>,
    /// Missing files, missing or duplicate rows: counted and listed, never silently dropped. Sorted by kind, then name.
    pub problems: Vec<Problem>,
}

impl DataSet {
    /// Number of problems of each kind that occurs.
    pub fn count_problems(&self) -> BTreeMap<ProblemKind, usize> {
        let mut counts = BTreeMap::new();
        for problem in &self.problems {
            *counts.entry(problem.kind).or_default() += 1;
        }
        counts
    }

    /// Number of different patients.
    pub fn count_patients(&self) -> usize {
        self.samples
            .iter()
            .map(|sample| sample.patient.as_str())
            .collect::<HashSet<_>>()
            .len()
    }

    /// How often each label is known and how often it is positive, in the order of `label_names`.
    pub fn count_labels(&self) -> Vec<LabelCount> {
        let mut counts = vec![LabelCount::default(); self.label_names.len()];
        for sample in &self.samples {
            for (count, label) in counts.iter_mut().zip(&sample.labels) {
                count.known += usize::from(label.is_some());
                count.positive += usize::from(*label == Some(true));
            }
        }
        counts
    }
}

/// How many volumes a label is known of, and present in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LabelCount {
    /// Volumes whose label is known.
    pub known: usize,
    /// Volumes that have the abnormality.
    pub positive: usize,
}

/// Something in a data set that does not fit together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// What is wrong.
    pub kind: ProblemKind,
    /// Name of the volume, row, column or table concerned.
    pub name: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind, self.name)
    }
}

/// Kinds of [`Problem`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum ProblemKind {
    /// A row names a volume that is not on disk.
    FileMissing,
    /// A volume on disk has no report.
    ReportMissing,
    /// A volume on disk has no labels.
    LabelsMissing,
    /// A volume on disk has no metadata.
    MetadataMissing,
    /// Two rows of one table name the same volume; the first counts.
    DuplicateRow,
    /// Two files hold the same volume; the first in alphabetical order counts.
    DuplicateFile,
    /// A table is not on disk; every volume does without it.
    TableMissing,
    /// A column is neither known nor a label (one of its cells is not 0, 1 or empty); it is not used.
    ColumnUnused,
    /// A volume of the data set could not be prepared, so the cache does not have it.
    Quarantined,
}

impl ProblemKind {
    /// What is wrong, as the heading of a list of names.
    pub const fn describe(self) -> &'static str {
        match self {
            Self::FileMissing => "row without a file",
            Self::ReportMissing => "file without a report",
            Self::LabelsMissing => "file without labels",
            Self::MetadataMissing => "file without metadata",
            Self::DuplicateRow => "duplicate row",
            Self::DuplicateFile => "duplicate file",
            Self::TableMissing => "missing table",
            Self::ColumnUnused => "unused column",
            Self::Quarantined => "volume in quarantine",
        }
    }
}

impl fmt::Display for ProblemKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.describe())
    }
}

/// The text of a sample: the parts of a report in a row, cleaned as the authors do (SPEC section 5).
///
/// A part that is only "Not given." is dropped, the others follow each other directly, and the characters `" ' ( )`
/// go. `None` if nothing is left.
///
/// ```
/// use dcformer_volume::dataset::clean_report;
/// assert_eq!(clean_report(&["A nodule (4 mm).", "Not given."]).as_deref(), Some("A nodule 4 mm."));
/// assert_eq!(clean_report(&["Not given.", " "]), None);
/// ```
pub fn clean_report(parts: &[&str]) -> Option<String> {
    let given = parts.iter().filter(|part| part.trim() != "Not given.");
    let text: String = given
        .flat_map(|part| part.chars())
        .filter(|c| !matches!(c, '"' | '\'' | '(' | ')'))
        .collect();
    (!text.trim().is_empty()).then_some(text)
}
