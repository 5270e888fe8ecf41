//! A folder of DICOM slices to one volume in Hounsfield units.
//!
//! Path → `folder` (headers of all files) → `series` (which slices belong together, and which stack is the scan)
//! → `stack` (order along the normal, values) → `tilt` (missing slices, uneven gaps, gantry tilt) → [`Volume`].
//! A file is read by `source` and `elements`, its attributes by `header`, its pixels by `pixels` and the decoders
//! `rle`, `jpeg_ls` and `codestream`.
//!
//! dicom-rs writes the tests' files and does not read ours: it reserves what an element's length claims (4 GB for a
//! file of 39 kB), opens no file without a meta group, and its RLE and JPEG 2000 adapters index beyond damaged data.
#![warn(clippy::cast_possible_truncation)]

mod codestream;
mod elements;
mod folder;
mod header;
mod jpeg_ls;
mod pixels;
mod rle;
mod series;
mod source;
mod stack;
mod tilt;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::geometry::Grid;
use crate::volume::{Rescale, Volume, Voxels};
use crate::{Error, Result};

pub(crate) use folder::files_under;
pub use series::SeriesSummary;

use folder::Folder;
use header::{Header, Scanned};
use series::{Choice, Group, Slice};
use stack::Stack;

/// What to do with a scan whose gantry was tilted, so that its slices do not stack up to a box.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TiltPolicy {
    /// Shear the slices into a rectangular grid.
    #[default]
    Correct,
    /// Stop with an error.
    Refuse,
}

/// How to read a series.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DicomOptions {
    /// Unique identifier of a series, its beginning, or the series' number; without it, the largest CT volume is read.
    pub series: Option<String>,
    /// What to do with a tilted gantry.
    pub tilt: TiltPolicy,
    /// Whether slices may be missing; they are interpolated then.
    pub allow_gaps: bool,
}

/// A series as a volume.
#[derive(Clone, Debug)]
pub struct DicomSeries {
    /// Hounsfield units on a rectangular grid, columns × rows × slices.
    pub volume: Volume,
    /// The series that was read.
    pub chosen: SeriesSummary,
    /// What else was there, the largest CT first.
    pub alternatives: Vec<SeriesSummary>,
    /// What a user should know: choice of series, corrections, files passed over.
    pub notes: Vec<String>,
}

/// A series as its slices are, before any correction.
#[derive(Clone, Debug)]
pub struct SliceStack {
    /// Hounsfield units, slices in the order of their places along the normal (row direction × column direction).
    pub voxels: Voxels,
    /// Grid whose step along `k` is the mean one: exact only for even gaps.
    pub grid: Grid,
    /// Distances between neighbouring slices along the normal.
    pub gaps_mm: Vec<f64>,
    /// File of each slice.
    pub files: Vec<PathBuf>,
    /// The series that was read.
    pub chosen: SeriesSummary,
    /// What else was there, the largest CT first.
    pub alternatives: Vec<SeriesSummary>,
    /// What a user should know.
    pub notes: Vec<String>,
}

/// Pixels of one file, of any modality.
#[derive(Clone, Debug)]
pub struct Image {
    /// Rescaled values, frame after frame.
    pub voxels: Voxels,
    /// Columns, rows, frames.
    pub size: [usize; 3],
    /// `CT`, `MR`, ... or an empty text.
    pub modality: String,
}

/// Reads the largest CT volume under a folder (or in a multi-frame file), or the series that `options` name.
///
/// Files that are not DICOM are passed over. Slices are ordered by their places; copies of a slice are left out; uneven
/// gaps are resampled linearly to the median gap, adjusted so that first and last slice stay where they are; a tilted
/// gantry is corrected. `notes` tell of all this.
///
/// # Errors
/// No CT series (another modality, colour, secondary capture, no DICOM at all); a request that fits no series or
/// several; a single slice; slices without position, orientation or spacing; missing slices unless allowed; two slices
/// at one place; a tilted gantry if that is refused; pixels that cannot be decoded.
pub fn read_series(path: &Path, options: &DicomOptions) -> Result<DicomSeries> {
    let folder = Folder::scan(path)?;
    let Choice {
        chosen,
        alternatives,
    } = series::choose(path, &folder, options.series.as_deref())?;
    let stack = order(&chosen)?;
    if stack.slices.len() == 1 {
        return Err(Error::SingleSlice {
            path: stack.slices[0].slice.header.path.clone(),
        });
    }
    let (plan, corrections) = tilt::plan(path, &stack, options, folder.unreadable())?;
    let (voxels, grid) = plan.apply(stack.read()?, stack.size());
    let mut notes = notes(&folder, &chosen, &alternatives, &stack);
    notes.extend(corrections);
    let volume = Volume {
        voxels,
        rescale: Rescale::NONE,
        grid,
    };
    Ok(DicomSeries {
        volume,
        chosen: chosen.summary(),
        alternatives,
        notes,
    })
}

/// Reads the same slices as [`read_series`] and leaves them as they are: no resampling, gaps and tilt allowed, one slice
/// enough.
///
/// # Errors
/// As [`read_series`], less what concerns gaps, tilt and the number of slices.
pub fn read_stack(path: &Path, options: &DicomOptions) -> Result<SliceStack> {
    let folder = Folder::scan(path)?;
    let Choice {
        chosen,
        alternatives,
    } = series::choose(path, &folder, options.series.as_deref())?;
    let stack = order(&chosen)?;
    let notes = notes(&folder, &chosen, &alternatives, &stack);
    Ok(SliceStack {
        voxels: stack.read()?,
        grid: stack.grid(),
        gaps_mm: stack.gaps_mm(),
        files: stack.files(),
        chosen: chosen.summary(),
        alternatives,
        notes,
    })
}

/// Decodes the grey pixels of one file, whatever its modality.
///
/// # Errors
/// Not DICOM, damaged, without pixels, colour, or coded in a way that is not supported.
pub fn read_image(path: &Path) -> Result<Image> {
    let header = match header::scan(path)? {
        Scanned::Image(header) => header,
        Scanned::Document(modality) => {
            return Err(Error::Header {
                path: path.to_owned(),
                field: "PixelData",
                found: format!("absent (modality {modality:?})"),
                expected: "a picture",
            });
        }
        Scanned::Other => {
            return Err(Error::NotDicom {
                path: path.to_owned(),
            });
        }
    };
    let frames = header.frames.iter().enumerate();
    let slices: Vec<_> = frames
        .map(|(index, frame)| Slice {
            header: &header,
            index,
            frame,
        })
        .collect();
    pixels::check_layout(&header)?;
    let voxels = stack::read(&slices)?;
    let size = [header.columns.into(), header.rows.into(), slices.len()];
    Ok(Image {
        voxels,
        size,
        modality: header.modality.clone(),
    })
}

/// Orders a group whose values can be taken for Hounsfield units.
fn order<'a>(group: &Group<'a>) -> Result<Stack<'a>> {
    for slice in &group.slices {
        let Header {
            path, modality_lut, ..
        } = slice.header;
        let wrong = |field, found: &str, expected| {
            Err(Error::Header {
                path: path.clone(),
                field,
                found: found.to_owned(),
                expected,
            })
        };
        if *modality_lut && slice.frame.slope.is_none() {
            return wrong(
                "ModalityLUTSequence",
                "a table",
                "RescaleSlope and RescaleIntercept",
            );
        }
        if slice.frame.slope == Some(0.0) {
            return wrong("RescaleSlope", "0", "any other number");
        }
    }
    Stack::of(group)
}

fn notes(
    folder: &Folder,
    chosen: &Group<'_>,
    alternatives: &[SeriesSummary],
    stack: &Stack<'_>,
) -> Vec<String> {
    let mut notes = Vec::new();
    if !alternatives.is_empty() {
        let others: Vec<_> = alternatives.iter().map(ToString::to_string).collect();
        notes.push(format!(
            "took {}; also found {}",
            chosen.summary(),
            others.join(", ")
        ));
    }
    let leftovers = folder.leftovers();
    if !leftovers.is_empty() {
        notes.push(format!("passed over {}", leftovers.join(", ")));
    }
    let Slice { header, frame, .. } = stack.slices[0].slice;
    if frame.slope.is_none() && frame.intercept.is_none() {
        notes.push(
            "no RescaleSlope and RescaleIntercept: stored values taken for Hounsfield units"
                .to_owned(),
        );
    } else if !matches!(header.rescale_type.as_str(), "" | "HU") {
        notes.push(format!(
            "values are in {:?} by their RescaleType, not in Hounsfield units",
            header.rescale_type
        ));
    }
    notes.extend(stack.notes.iter().cloned());
    notes
}
