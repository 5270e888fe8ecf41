//! What can go wrong between files and arrays.

use std::path::PathBuf;

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong between a scan on disk and a [`Volume`](crate::volume::Volume), or in a data set around it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file or folder could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// File or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },

    /// The file could not be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// File or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },

    /// A header field has a value that no scan can have.
    #[error("{}: header field `{field}` is {found}, expected {expected}", path.display())]
    Header {
        /// File.
        path: PathBuf,
        /// Name in the format's own words.
        field: &'static str,
        /// Value in the file.
        found: String,
        /// What would be right.
        expected: &'static str,
    },

    /// The file is not DICOM.
    #[error("{}: not a DICOM file", path.display())]
    NotDicom {
        /// File.
        path: PathBuf,
    },

    /// The structure of a DICOM file is broken.
    #[error("{}: DICOM data are damaged or cut off at byte {offset}: {found}; export or copy the file again", path.display())]
    DicomDamaged {
        /// File.
        path: PathBuf,
        /// Place in the file, or in its inflated data set.
        offset: u64,
        /// What is there.
        found: String,
    },

    /// No decoder for the coding of a DICOM file.
    #[error(
        "{}: transfer syntax `{uid}` is not supported; convert the series to Explicit VR Little Endian, JPEG, JPEG-LS, \
         JPEG 2000 or RLE",
        path.display()
    )]
    DicomTransferSyntax {
        /// File.
        path: PathBuf,
        /// Unique identifier of the transfer syntax.
        uid: String,
    },

    /// The pixels of a DICOM file cannot be decoded.
    #[error("{}: pixel data cannot be decoded: {found}; export or copy the file again", path.display())]
    DicomPixels {
        /// File.
        path: PathBuf,
        /// What is wrong with them.
        found: String,
    },

    /// A folder or file holds DICOM, but no CT series, or no DICOM at all.
    #[error("{}: no CT series; found {found}; pass a folder with the slices of a CT scan", path.display())]
    NoCtSeries {
        /// Folder or file.
        path: PathBuf,
        /// What is there instead, and what could not be read.
        found: String,
    },

    /// The series asked for is not there, or the request fits several.
    #[error("{}: series `{asked}` fits {matches} of the series here, expected one; name one of: {found}", path.display())]
    SeriesChoice {
        /// Folder.
        path: PathBuf,
        /// Unique identifier, beginning of one, or number.
        asked: String,
        /// How many fit.
        matches: usize,
        /// The series that are there.
        found: String,
    },

    /// A series of one slice.
    #[error("{}: a single slice is not a volume; pass the folder that holds the whole series", path.display())]
    SingleSlice {
        /// The slice.
        path: PathBuf,
    },

    /// Slices of a series are missing.
    #[error(
        "{}: {missing} of {expected} slices are missing (gaps {places}){unreadable}; export the whole series, or allow \
         gaps to fill them by interpolation",
        folder.display()
    )]
    MissingSlices {
        /// Folder.
        folder: PathBuf,
        /// How many slices the gaps have room for.
        missing: usize,
        /// Slices of the whole series.
        expected: usize,
        /// Length and neighbours of each gap.
        places: String,
        /// Which files could not be read, if any.
        unreadable: String,
    },

    /// Two different slices lie at one place.
    #[error(
        "{} and {}: two slices of one series at {position_mm:.2} mm; keep one acquisition in the folder",
        first.display(), second.display()
    )]
    DuplicateSlices {
        /// One.
        first: PathBuf,
        /// The other.
        second: PathBuf,
        /// Along the normal of the slices.
        position_mm: f64,
    },

    /// The slices of a scan with a tilted gantry, where that is to be refused.
    #[error(
        "{}: the gantry was tilted by {degrees:.1} degrees (slices shift by {shift_mm:.1} mm against each other); let the \
         tilt be corrected, or choose a series without",
        folder.display()
    )]
    GantryTilt {
        /// Folder.
        folder: PathBuf,
        /// Between the normal of the slices and the line of their positions.
        degrees: f64,
        /// Greatest shift within the plane.
        shift_mm: f64,
    },

    /// The places of the slices do not lie on one line.
    #[error(
        "{}: slices shift by {shift_mm:.1} mm within their plane, more than a tilted gantry explains; keep one stack of \
         slices in the folder",
        folder.display()
    )]
    ScatteredSlices {
        /// Folder.
        folder: PathBuf,
        /// Greatest shift within the plane.
        shift_mm: f64,
    },
}
