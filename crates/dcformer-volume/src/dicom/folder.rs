//! Everything under a path, sorted into images, documents, other files and files that cannot be read.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::header::{self, Header, Scanned};
use crate::{Error, Result};

/// What is under a path.
#[derive(Debug, Default)]
pub(super) struct Folder {
    /// By path.
    pub(super) images: Vec<Header>,
    /// DICOM without a picture: how many of each modality.
    documents: BTreeMap<String, usize>,
    /// Files that are not DICOM.
    others: usize,
    /// DICOM that cannot be read.
    problems: Vec<Error>,
}

impl Folder {
    /// Reads the headers of all files under a folder, or of one file; parallel, in the order of their paths.
    pub(super) fn scan(path: &Path) -> Result<Self> {
        let read_error = |source| Error::Read {
            path: path.to_owned(),
            source,
        };
        if std::fs::metadata(path).map_err(read_error)?.is_file() {
            let scanned = header::scan(path)?;
            let folder = Self::collect(vec![Ok(scanned)]);
            if folder.others > 0 {
                return Err(Error::NotDicom {
                    path: path.to_owned(),
                });
            }
            return Ok(folder);
        }
        let mut files = Vec::new();
        let mut problems = Vec::new();
        list(path, &mut files, &mut problems)?;
        let scanned: Vec<_> = files.par_iter().map(|file| header::scan(file)).collect();
        let mut folder = Self::collect(scanned);
        folder.problems.splice(0..0, problems);
        Ok(folder)
    }

    fn collect(scanned: Vec<Result<Scanned>>) -> Self {
        let mut folder = Self::default();
        for scanned in scanned {
            match scanned {
                Ok(Scanned::Image(header)) => folder.images.push(*header),
                Ok(Scanned::Document(modality)) => {
                    *folder.documents.entry(modality).or_default() += 1;
                }
                Ok(Scanned::Other) => folder.others += 1,
                Err(problem) => folder.problems.push(problem),
            }
        }
        folder
    }

    /// What is there beside the images, one phrase each, for notes and errors.
    pub(super) fn leftovers(&self) -> Vec<String> {
        let mut phrases: Vec<_> = self.unreadable().into_iter().collect();
        for (modality, count) in &self.documents {
            let kind = if modality.is_empty() {
                "of no modality, such as a DICOMDIR"
            } else {
                modality
            };
            phrases.push(format!(
                "{count} DICOM {} without pixels ({kind})",
                files(*count)
            ));
        }
        if self.others > 0 {
            phrases.push(format!(
                "{} {} that {} not DICOM",
                self.others,
                files(self.others),
                are(self.others)
            ));
        }
        phrases
    }

    /// The DICOM files that cannot be read, the first few with the reason.
    pub(super) fn unreadable(&self) -> Option<String> {
        const SHOWN: usize = 3;
        let count = self.problems.len();
        if count == 0 {
            return None;
        }
        let mut reasons: Vec<_> = self
            .problems
            .iter()
            .take(SHOWN)
            .map(ToString::to_string)
            .collect();
        if count > SHOWN {
            reasons.push(format!("and {} more", count - SHOWN));
        }
        Some(format!(
            "{count} {} that cannot be read ({})",
            files(count),
            reasons.join("; ")
        ))
    }
}

/// All files under a folder, sorted within each; links to folders are not followed.
///
/// # Errors
/// If the folder, or one in it, cannot be read.
pub(crate) fn files_under(folder: &Path) -> Result<Vec<PathBuf>> {
    let (mut files, mut problems) = (Vec::new(), Vec::new());
    list(folder, &mut files, &mut problems)?;
    match problems.pop() {
        Some(problem) => Err(problem),
        None => Ok(files),
    }
}

fn files(count: usize) -> &'static str {
    if count == 1 { "file" } else { "files" }
}

fn are(count: usize) -> &'static str {
    if count == 1 { "is" } else { "are" }
}

/// Files under a folder, sorted. Links to folders are not followed, so that none is walked twice.
fn list(folder: &Path, files: &mut Vec<PathBuf>, problems: &mut Vec<Error>) -> Result<()> {
    let read_error = |source| Error::Read {
        path: folder.to_owned(),
        source,
    };
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(read_error)? {
        entries.push(entry.map_err(read_error)?);
    }
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        let kind = entry.file_type().map_err(read_error)?;
        if kind.is_dir() {
            if let Err(problem) = list(&path, files, problems) {
                problems.push(problem);
            }
        } else if kind.is_file() || path.is_file() {
            files.push(path);
        }
    }
    Ok(())
}
