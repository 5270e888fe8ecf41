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
    #[error("cannot write {} (name a place that may be written and has room)", path.display())]
    Write {
        /// File or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },

    /// A header field has a value that no scan can have.
    #[error("{}: header field `{field}` is {found}, expected {expected}; export the scan again", path.display())]
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

    /// The file is no NIfTI file.
    #[error(
        "{}: this is {found}, expected a NIfTI file (.nii, .nii.gz, or .hdr with .img)",
        path.display()
    )]
    NotNifti {
        /// File.
        path: PathBuf,
        /// What it seems to be.
        found: &'static str,
    },

    /// A path names nothing that can be read as a scan.
    #[error(
        "{}: this is {found}, expected a NIfTI file, a DICOM file or a folder of DICOM files",
        path.display()
    )]
    NotAScan {
        /// File or folder.
        path: PathBuf,
        /// What it seems to be.
        found: &'static str,
    },

    /// The header is there, but not the file with the voxels.
    #[error(
        "{}: the voxels belong in {}, which is not there; keep both files in one folder",
        path.display(),
        image.display()
    )]
    ImageMissing {
        /// Header file.
        path: PathBuf,
        /// File that it needs.
        image: PathBuf,
    },

    /// The header describes more voxels than a file of this length can hold.
    #[error(
        "{}: the header describes {described} bytes, more than a file of {stored} bytes can hold; copy or download it again",
        path.display()
    )]
    LargerThanFile {
        /// File with the voxels.
        path: PathBuf,
        /// Bytes up to the last voxel.
        described: u64,
        /// Length of the file, compressed if it is.
        stored: u64,
    },

    /// The file ends before its last voxel.
    #[error(
        "{}: the file holds {found} bytes, expected {expected} for the voxels that its header describes; copy or download it again",
        path.display()
    )]
    Truncated {
        /// File with the voxels.
        path: PathBuf,
        /// Bytes in it, after decompression.
        found: u64,
        /// Bytes up to the last voxel.
        expected: u64,
    },

    /// A compressed stream is broken or its checksum is wrong.
    #[error(
        "{}: the compressed data are damaged after {position} bytes; copy or download the file again",
        path.display()
    )]
    Damaged {
        /// File.
        path: PathBuf,
        /// Bytes decompressed before.
        position: u64,
        /// What the decompressor says.
        source: std::io::Error,
    },

    /// The volume does not fit into this machine's memory.
    #[error("{}: no memory for {bytes} bytes of voxels", path.display())]
    OutOfMemory {
        /// File.
        path: PathBuf,
        /// Bytes asked for.
        bytes: u64,
    },

    /// A set of phantoms would be written into a folder that holds something else.
    #[error(
        "{}: the folder holds files that are not a set of phantoms, expected an empty or new folder; choose another",
        path.display()
    )]
    NotPhantoms {
        /// Folder.
        path: PathBuf,
    },

    /// Phantoms are asked for that no scanner makes.
    #[error("phantoms: `{field}` is {found}, expected {expected}")]
    PhantomConfig {
        /// Field of the configuration.
        field: &'static str,
        /// Its value.
        found: String,
        /// What would be right.
        expected: &'static str,
    },

    /// A field of the preprocessing configuration has a value that cannot be carried out.
    #[error("preprocessing: `{field}` is {found}, expected {expected}")]
    PreprocessField {
        /// Name of the field.
        field: &'static str,
        /// Value in the configuration.
        found: String,
        /// What would be right.
        expected: &'static str,
    },

    /// The size of a scan and its number of voxels disagree, or there are none.
    #[error("{}: the scan has {found} voxels, expected {} ({}x{}x{})", path.display(), size.iter().product::<usize>(), size[0], size[1], size[2])]
    VoxelCount {
        /// File or folder.
        path: PathBuf,
        /// Voxels there are.
        found: usize,
        /// Voxels along the storage axes.
        size: [usize; 3],
    },

    /// The distance between voxels is not a length.
    #[error("{}: the spacing is {found_mm:?} mm, expected three finite lengths above 0; give it with --spacing X,Y,Z", path.display())]
    SpacingUnusable {
        /// File or folder.
        path: PathBuf,
        /// Along the storage axes.
        found_mm: [f64; 3],
    },

    /// The metadata's slope and intercept are asked for, but there are none.
    #[error(
        "{}: rescaling is `metadata`, but the metadata has no slope and intercept for this scan; give --slope and --intercept, or use --rescale auto",
        path.display()
    )]
    RescaleMissing {
        /// File or folder.
        path: PathBuf,
    },

    /// A slope or intercept cannot be applied.
    #[error(
        "{}: slope {slope} and intercept {intercept} of the {reading} cannot be applied, expected finite numbers and a slope other than 0; use --rescale none, or give --slope and --intercept",
        path.display()
    )]
    RescaleUnusable {
        /// File or folder.
        path: PathBuf,
        /// Where they come from.
        reading: crate::intensity::Reading,
        /// Factor.
        slope: f64,
        /// Added after it.
        intercept: f64,
    },

    /// The values of a scan do not look like CT, however they are read.
    #[error(
        "{}: {found} do not look like CT in Hounsfield units (air near -1000, soft tissue near 0), tried {tried}; \
         if this is CT, say how to read it: --rescale header, --rescale none, or --slope and --intercept with --rescale metadata",
        path.display()
    )]
    NotHounsfield {
        /// File or folder.
        path: PathBuf,
        /// Range of the stored values.
        found: String,
        /// Readings that were tried.
        tried: String,
    },

    /// Most of a scan is NaN or infinite.
    #[error(
        "{}: {found} of {voxels} voxels are NaN or infinite, expected at most half; the file was written by a failed computation, make it again",
        path.display()
    )]
    NotFinite {
        /// File or folder.
        path: PathBuf,
        /// Voxels without a finite value.
        found: usize,
        /// All voxels.
        voxels: usize,
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

    /// A table has no column of a name that it must have.
    #[error(
        "{}: column `{column}` is missing, found {}; add or rename it (columns are separated by commas)",
        path.display(),
        listed(found)
    )]
    MissingColumn {
        /// Table.
        path: PathBuf,
        /// The column looked for.
        column: &'static str,
        /// The columns that are there.
        found: Vec<String>,
    },

    /// A table names one column twice.
    #[error("{}: column `{column}` is there twice; keep one of them", path.display())]
    RepeatedColumn {
        /// Table.
        path: PathBuf,
        /// The repeated name.
        column: String,
    },

    /// A row of a table cannot be taken apart.
    #[error("{}: line {line} has {found}, expected {expected}", path.display())]
    TableRow {
        /// Table.
        path: PathBuf,
        /// Line on which the row begins, from 1.
        line: u64,
        /// What is there.
        found: String,
        /// What would be right.
        expected: String,
    },

    /// A cell of a table has a value that its column cannot have.
    #[error("{}: line {line}, column `{column}` is {found:?}, expected {expected}", path.display())]
    Cell {
        /// Table.
        path: PathBuf,
        /// Line on which the row begins, from 1.
        line: u64,
        /// Name of the column.
        column: String,
        /// The cell's text, shortened if it is long.
        found: String,
        /// What would be right.
        expected: &'static str,
    },

    /// A folder does not hold a data set of the layout asked for.
    #[error("{}: found no folder {expected}; name the folder that holds it", path.display())]
    NoVolumes {
        /// Folder looked at.
        path: PathBuf,
        /// The folders that were tried.
        expected: String,
    },

    /// A folder holds no cache, or one of another version.
    #[error("{}: {found}, expected a folder that `dcformer prepare` wrote", path.display())]
    NotACache {
        /// Folder.
        path: PathBuf,
        /// What is there instead.
        found: String,
    },

    /// Volumes of a cache are still to be prepared.
    #[error("{}: the cache has no manifest.csv yet; let `dcformer prepare`, with every shard, go to its end", path.display())]
    CacheUnfinished {
        /// Folder.
        path: PathBuf,
    },

    /// A file of a cache is not what was written.
    #[error("{}: the file is damaged: {found}; delete the volume's folder and run `dcformer prepare` again", path.display())]
    CacheDamaged {
        /// File.
        path: PathBuf,
        /// What is wrong.
        found: String,
    },

    /// A cache was prepared in another way than it is to be used or continued.
    #[error(
        "{}: prepared with `{field}` = {found}, expected {expected}; use the settings of the cache, or prepare another",
        path.display()
    )]
    PreparedOtherwise {
        /// Cache, or volume of one.
        path: PathBuf,
        /// Setting that differs.
        field: String,
        /// Its value in the cache.
        found: String,
        /// Its value now.
        expected: String,
    },

    /// Facts or choices about a scan are given for a volume that is prepared already.
    #[error(
        "{}: the volume is prepared already; slope, intercept, spacing and series apply to scans only, leave them out",
        path.display()
    )]
    PreparedAlready {
        /// Volume of a cache.
        path: PathBuf,
    },

    /// Two volumes to prepare have one name.
    #[error("the data set has two volumes called `{name}`; names must differ, rename one")]
    RepeatedName {
        /// Name.
        name: String,
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

/// Names in backquotes, separated by commas; a long list is cut, because a file that is no table can have any number.
fn listed(names: &[String]) -> String {
    const SHOWN: usize = 40;
    if names.iter().all(String::is_empty) {
        return "no names".into();
    }
    let mut text = names
        .iter()
        .take(SHOWN)
        .map(|name| format!("`{name}`"))
        .collect::<Vec<_>>()
        .join(", ");
    if names.len() > SHOWN {
        text.push_str(&format!(" and {} more", names.len() - SHOWN));
    }
    text
}
