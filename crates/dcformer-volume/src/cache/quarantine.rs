//! Volumes that could not be prepared, each with its reason.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::zarr::{read_json, to_json};
use crate::{Error, Result, storage};

/// Folder of the records.
pub(super) const FOLDER: &str = "quarantine";

/// A volume that could not be prepared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantined {
    /// Its name in the data set.
    pub name: String,
    /// Why, in the few words that such volumes are counted by.
    pub reason: String,
    /// Why, in full.
    pub message: String,
}

impl Quarantined {
    /// What `work` makes of the volume of this name, or why nothing; the program goes on even where it panics.
    ///
    /// # Errors
    /// The volume with its reason.
    pub fn unless<T>(name: &str, work: impl FnOnce() -> Result<T>) -> Result<T, Self> {
        match catch_unwind(AssertUnwindSafe(work)) {
            Ok(result) => result.map_err(|error| Self::new(name, &error)),
            Err(panic) => Err(Self::panicked(name, &*panic)),
        }
    }

    fn new(name: &str, error: &Error) -> Self {
        Self {
            name: name.into(),
            reason: reason(error).into(),
            message: with_sources(error),
        }
    }

    /// A volume at which the program failed: a defect of ours that must not end the work of a night.
    fn panicked(name: &str, panic: &(dyn std::any::Any + Send)) -> Self {
        let text = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied());
        Self {
            name: name.into(),
            reason: "defect of the program".into(),
            message: format!(
                "{}; please report it, with the scan if it may be shared",
                text.unwrap_or("no message")
            ),
        }
    }

    /// The record of a volume, if there is one that can be read.
    pub(super) fn read(cache: &Path, key: &str) -> Option<Self> {
        read_json(&place(cache, key)).ok()
    }

    pub(super) fn write(&self, cache: &Path, key: &str) -> Result<()> {
        let path = place(cache, key);
        storage::write(&path, &to_json(self)).map_err(|source| Error::Write { path, source })
    }
}

/// Forgets that a volume could not be prepared.
pub(super) fn release(cache: &Path, key: &str) -> Result<()> {
    let path = place(cache, key);
    storage::remove(&path).map_err(|source| Error::Write { path, source })
}

fn place(cache: &Path, key: &str) -> PathBuf {
    cache.join(FOLDER).join(file_name(key))
}

/// Name of a volume's record.
pub(super) fn file_name(key: &str) -> String {
    format!("{key}.json")
}

/// An error and what caused it.
fn with_sources(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}

/// The kind of an error, as a heading under which volumes are counted.
fn reason(error: &Error) -> &'static str {
    match error {
        Error::Read { .. } => "cannot be read",
        Error::NotNifti { .. } | Error::NotAScan { .. } | Error::NotDicom { .. } => "not a scan",
        Error::NoCtSeries { .. } | Error::SeriesChoice { .. } | Error::SingleSlice { .. } => {
            "no CT series"
        }
        Error::Header { .. }
        | Error::ImageMissing { .. }
        | Error::LargerThanFile { .. }
        | Error::Truncated { .. }
        | Error::Damaged { .. }
        | Error::DicomDamaged { .. }
        | Error::DicomPixels { .. }
        | Error::CacheDamaged { .. } => "damaged file",
        Error::DicomTransferSyntax { .. } => "unsupported coding",
        Error::MissingSlices { .. }
        | Error::DuplicateSlices { .. }
        | Error::ScatteredSlices { .. }
        | Error::GantryTilt { .. } => "slices do not make a volume",
        Error::NotHounsfield { .. }
        | Error::RescaleMissing { .. }
        | Error::RescaleUnusable { .. } => "values are not CT",
        Error::NotFinite { .. } => "values are not finite",
        Error::VoxelCount { .. } | Error::SpacingUnusable { .. } => "unusable geometry",
        Error::OutOfMemory { .. } => "no memory",
        _ => "other",
    }
}
