//! What a data set is, whatever its layout on disk: samples, and the problems found while listing them.

use std::path::PathBuf;

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
    /// One per label name of the data set, if the volume is labelled.
    pub labels: Option<Vec<bool>>,
    /// What a metadata table says of the scan.
    pub metadata: ScanMetadata,
}

/// Facts about a scan from outside its file; `None` where the table says nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ScanMetadata {
    /// Slope and intercept that turn stored values into Hounsfield units.
    pub rescale: Option<crate::volume::Rescale>,
    /// Millimetres between voxel centres along the storage axes `i, j, k`.
    pub spacing_mm: Option<[f64; 3]>,
}

/// Samples of one split, the names of their labels, and what did not fit together.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DataSet {
    /// Column names of the labels, in order; empty if the data set has none.
    pub label_names: Vec<String>,
    /// Usable samples, in a fixed order.
    pub samples: Vec<Sample>,
    /// Missing files, missing or duplicate rows: counted and listed, never silently dropped.
    pub problems: Vec<Problem>,
}

/// Something in a data set that does not fit together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Name of the volume or row concerned.
    pub name: String,
    /// What is wrong with it.
    pub kind: ProblemKind,
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
    /// Two rows name the same volume; the first counts.
    DuplicateRow,
}
