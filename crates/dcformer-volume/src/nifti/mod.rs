//! NIfTI-1 and NIfTI-2, read and written.
//!
//! A file is known by its content: gzip by its first two bytes, the version and the byte order by the header's
//! length. [`read_nifti`] gives the whole volume; [`NiftiReader`] gives its slices in the order in which they are
//! decompressed, so that work on them can begin before the file has ended.
//!
//! What the reader decides where the standard, or practice, leaves a choice:
//!
//! - `sform` wins over `qform`; a note says so when they disagree. With neither, axes follow `pixdim`, the first
//!   towards left, the volume centred at the origin: nibabel's reading of such files.
//! - `scl_slope` that is 0 or not finite means unscaled values, whatever `scl_inter` says.
//! - Positions in metres or micrometres become millimetres.
//! - A header that contradicts itself or its file (`bitpix` against `datatype`, sizes that the bytes cannot fill) is
//!   an error, never a guess; memory is taken as bytes arrive, not as the header promises.
//! - A gzip checksum is verified, as long as no more than a mebibyte follows the voxels.

mod bytes;
mod data_type;
mod forms;
mod header;
mod read;
mod write;

pub use data_type::Voxel;
pub use read::{NiftiReader, parse_nifti, read_nifti};
pub(crate) use read::{is_image_of_pair, is_nifti, other_of_pair, start_of_file};
pub use write::{WriteOptions, write_nifti};
