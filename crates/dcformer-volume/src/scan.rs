//! What a person has: a NIfTI file or a DICOM folder, told apart and read.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::dicom::{self, DicomOptions, DicomSeries, SeriesSummary};
use crate::nifti::{self, NiftiReader};
use crate::volume::Volume;
use crate::{Error, Result, cache, content, storage};

/// Bytes at the start of a file that tell what it is: a NIfTI-1 header, which reaches beyond DICOM's prefix.
const TELLING_BYTES: usize = 348;

/// How [`read_scan`] reads.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ScanOptions {
    /// Which series of a folder, and what to do with tilted or missing slices.
    pub dicom: DicomOptions,
}

/// A scan with its origin and what was decided on the way.
#[derive(Clone, Debug, PartialEq)]
pub struct Scan {
    /// Voxels as the reader gives them: stored values and their rescaling of a NIfTI file, Hounsfield units of DICOM.
    pub volume: Volume,
    /// What it was read from.
    pub source: ScanSource,
    /// Decisions about a doubtful scan, one sentence each, for the user to hear.
    pub notes: Vec<String>,
}

/// What a scan was read from.
#[derive(Clone, Debug, PartialEq)]
pub enum ScanSource {
    /// A NIfTI file or pair.
    Nifti,
    /// A DICOM file or folder.
    Dicom {
        /// The series that was read.
        chosen: SeriesSummary,
        /// What else was there.
        alternatives: Vec<SeriesSummary>,
    },
}

/// Kinds of scans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScanKind {
    /// A NIfTI file, or either file of a pair.
    Nifti,
    /// A DICOM file, or any other folder that is not empty.
    Dicom,
    /// A volume of a cache: no scan any more, but a network's input.
    Prepared,
}

/// Reads a scan: a NIfTI file, a DICOM file, or a folder with a DICOM series, known by content and not by name.
///
/// # Errors
/// If the path names something else, which the message names, or the scan is damaged.
pub fn read_scan(path: &Path, options: &ScanOptions) -> Result<Scan> {
    match scan_kind(path)? {
        ScanKind::Nifti => read_nifti_scan(path),
        ScanKind::Dicom => read_dicom_scan(path, &options.dicom),
        ScanKind::Prepared => Err(Error::NotAScan {
            path: path.into(),
            found: "a volume of a cache, whose scan it does not hold",
        }),
    }
}

/// Which kind of scan a path names.
///
/// # Errors
/// If it names none, or cannot be read.
pub fn scan_kind(path: &Path) -> Result<ScanKind> {
    let read_error = |source| Error::Read {
        path: path.into(),
        source,
    };
    let not_a_scan = |found| Error::NotAScan {
        path: path.into(),
        found,
    };
    if storage::is_address(path) {
        return if cache::is_volume(path) {
            Ok(ScanKind::Prepared)
        } else {
            Err(not_a_scan(
                "an object in a bucket, which only `dcformer prepare` reads",
            ))
        };
    }
    if fs::metadata(path).map_err(read_error)?.is_dir() {
        if cache::is_volume(path) {
            return Ok(ScanKind::Prepared);
        }
        return match fs::read_dir(path).map_err(read_error)?.next() {
            Some(_) => Ok(ScanKind::Dicom),
            None => Err(not_a_scan("an empty folder")),
        };
    }
    let (start, compressed) = nifti::start_of_file(path, TELLING_BYTES)?;
    if nifti::is_nifti(&start) || nifti::is_image_of_pair(path) {
        return Ok(ScanKind::Nifti);
    }
    match (content::is_dicom(&start), compressed) {
        (true, false) => Ok(ScanKind::Dicom),
        (true, true) => Err(not_a_scan("a compressed DICOM file (unpack it first)")),
        (false, _) => Err(not_a_scan(content::describe(&start))),
    }
}

fn read_nifti_scan(path: &Path) -> Result<Scan> {
    let (volume, mut notes) = NiftiReader::open(path)?.into_volume()?;
    let not_finite = volume.voxels.count_not_finite();
    if not_finite > 0 {
        notes.push(format!(
            "{not_finite} voxels are NaN or infinite; NaN is taken as air"
        ));
    }
    Ok(Scan {
        volume,
        source: ScanSource::Nifti,
        notes,
    })
}

fn read_dicom_scan(path: &Path, options: &DicomOptions) -> Result<Scan> {
    let DicomSeries {
        volume,
        chosen,
        alternatives,
        notes,
    } = dicom::read_series(path, options)?;
    Ok(Scan {
        volume,
        source: ScanSource::Dicom {
            chosen,
            alternatives,
        },
        notes,
    })
}
