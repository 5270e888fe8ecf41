//! The header of either version, as one set of checked values.

use std::path::Path;

use super::data_type::{ByteOrder, DataType, DataTypeName};
use super::forms::{Forms, Unit};
use crate::geometry::Grid;
use crate::volume::Rescale;
use crate::{Error, Result, content};

/// Length of a NIfTI-1 header, and the value of its first field.
pub(super) const NIFTI_1_LEN: usize = 348;
/// Length of a NIfTI-2 header, and the value of its first field.
pub(super) const NIFTI_2_LEN: usize = 540;
/// Four bytes after the header say whether extensions follow.
pub(super) const EXTENDER_LEN: usize = 4;

/// What a reader needs of a header.
#[derive(Clone, Debug)]
pub(super) struct Header {
    pub(super) order: ByteOrder,
    pub(super) data_type: DataType,
    /// Offset of the first voxel in its file.
    pub(super) vox_offset: u64,
    /// Whether the voxels follow in the same file; otherwise they are in an `.img` file.
    pub(super) single_file: bool,
    pub(super) grid: Grid,
    pub(super) rescale: Rescale,
    /// Decisions that a user should hear of.
    pub(super) notes: Vec<String>,
}

/// Version of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    One,
    Two,
}

impl Version {
    pub(super) const fn header_len(self) -> usize {
        match self {
            Self::One => NIFTI_1_LEN,
            Self::Two => NIFTI_2_LEN,
        }
    }
}

/// Version and byte order by the header's first field, which is its own length; `None` if it is neither's.
pub(super) fn version_and_order(start: &[u8]) -> Option<(Version, ByteOrder)> {
    let first = *start.first_chunk::<4>()?;
    [ByteOrder::Little, ByteOrder::Big]
        .into_iter()
        .find_map(|order| {
            let len = u32::from_le_bytes(order.to_little(first));
            match usize::try_from(len).ok()? {
                NIFTI_1_LEN => Some((Version::One, order)),
                NIFTI_2_LEN => Some((Version::Two, order)),
                _ => None,
            }
        })
}

impl Header {
    /// Reads and checks a header. `bytes` may go on after it; `path` is for messages.
    pub(super) fn parse(path: &Path, bytes: &[u8]) -> Result<Self> {
        let not_nifti = || Error::NotNifti {
            path: path.into(),
            found: content::describe(bytes),
        };
        let (version, order) = version_and_order(bytes).ok_or_else(not_nifti)?;
        let header = bytes.get(..version.header_len()).ok_or_else(not_nifti)?;
        let fields = Fields {
            path,
            version,
            order,
            bytes: header,
        };

        let single_file = fields.single_file()?;
        let data_type = fields.data_type()?;
        let size = fields.size()?;
        check_len(&fields, size, data_type)?;
        let mut notes = Vec::new();
        let affine = fields.forms().affine(path, size, &mut notes)?;
        Ok(Self {
            order,
            data_type,
            vox_offset: fields.vox_offset(single_file)?,
            single_file,
            grid: Grid { size, affine },
            rescale: fields.rescale()?,
            notes,
        })
    }

    /// Bytes that the voxels take.
    pub(super) fn voxel_bytes(&self) -> u64 {
        // `check_len` has shown that the product fits.
        self.grid.voxels() as u64 * self.data_type.bytes() as u64
    }
}

/// The size in bytes must be a number that this machine can count to.
fn check_len(fields: &Fields<'_>, size: [usize; 3], data_type: DataType) -> Result<()> {
    let bytes = size
        .iter()
        .try_fold(data_type.bytes(), |product, &n| product.checked_mul(n));
    match bytes.filter(|&bytes| isize::try_from(bytes).is_ok()) {
        Some(_) => Ok(()),
        None => Err(fields.error("dim", format!("{size:?}"), "a size that memory can hold")),
    }
}

/// Access to the fields of a header, whichever version and byte order.
struct Fields<'a> {
    path: &'a Path,
    version: Version,
    order: ByteOrder,
    /// Exactly one header.
    bytes: &'a [u8],
}

impl Fields<'_> {
    fn error(&self, field: &'static str, found: impl ToString, expected: &'static str) -> Error {
        Error::Header {
            path: self.path.into(),
            field,
            found: found.to_string(),
            expected,
        }
    }

    /// Little-endian bytes of a field. Offsets are constants of the format, below the header's length.
    fn raw<const N: usize>(&self, at: usize) -> [u8; N] {
        let field: [u8; N] = std::array::from_fn(|index| self.bytes[at + index]);
        self.order.to_little(field)
    }

    fn i16(&self, at: usize) -> i16 {
        i16::from_le_bytes(self.raw(at))
    }

    fn i32(&self, at: usize) -> i32 {
        i32::from_le_bytes(self.raw(at))
    }

    fn i64(&self, at: usize) -> i64 {
        i64::from_le_bytes(self.raw(at))
    }

    fn f32(&self, at: usize) -> f64 {
        f64::from(f32::from_le_bytes(self.raw(at)))
    }

    fn f64(&self, at: usize) -> f64 {
        f64::from_le_bytes(self.raw(at))
    }

    /// A row of floating-point numbers: `float` from `one` in version 1, `double` from `two` in version 2.
    fn floats<const N: usize>(&self, one: usize, two: usize) -> [f64; N] {
        std::array::from_fn(|index| match self.version {
            Version::One => self.f32(one + 4 * index),
            Version::Two => self.f64(two + 8 * index),
        })
    }

    /// The magic string tells whether voxels are in the same file.
    fn single_file(&self) -> Result<bool> {
        let magic = match self.version {
            Version::One => &self.bytes[344..348],
            Version::Two => &self.bytes[4..8],
        };
        match (self.version, magic) {
            (Version::One, b"n+1\0") | (Version::Two, b"n+2\0") => Ok(true),
            (Version::One, b"ni1\0") | (Version::Two, b"ni2\0") => Ok(false),
            _ => Err(self.error(
                "magic",
                format!("\"{}\"", magic.escape_ascii()),
                "n+1, ni1, n+2 or ni2 (an Analyze 7.5 file has none and knows no left and right; convert it to NIfTI \
                 with the program that wrote it)",
            )),
        }
    }

    fn data_type(&self) -> Result<DataType> {
        let (code, bitpix) = match self.version {
            Version::One => (self.i16(70), self.i16(72)),
            Version::Two => (self.i16(12), self.i16(14)),
        };
        let data_type = DataType::from_code(code).ok_or_else(|| {
            let expected =
                "one number per voxel: an integer type of 8 to 64 bits, float32 or float64";
            self.error("datatype", DataTypeName(code), expected)
        })?;
        if usize::try_from(bitpix).ok() != Some(8 * data_type.bytes()) {
            let found = format!("{bitpix} with datatype {}", DataTypeName(code));
            return Err(self.error(
                "bitpix",
                found,
                "the number of bits of the datatype; the header is damaged",
            ));
        }
        Ok(data_type)
    }

    /// Sizes of the three axes of space. Further axes must have one entry.
    fn size(&self) -> Result<[usize; 3]> {
        const NAMES: [&str; 8] = [
            "dim[0]", "dim[1]", "dim[2]", "dim[3]", "dim[4]", "dim[5]", "dim[6]", "dim[7]",
        ];
        let dim: [i64; 8] = std::array::from_fn(|index| match self.version {
            Version::One => i64::from(self.i16(40 + 2 * index)),
            Version::Two => self.i64(16 + 8 * index),
        });
        let rank = usize::try_from(dim[0])
            .ok()
            .filter(|rank| (3..=7).contains(rank))
            .ok_or_else(|| {
                self.error(
                    NAMES[0],
                    dim[0],
                    "3 axes, or up to 7 if the others have size 1",
                )
            })?;
        for axis in 4..=rank {
            if dim[axis] != 1 {
                let expected = "1 (one volume: extract one of the series first, for example with nibabel's \
                                `four_to_three` or FSL's `fslroi`)";
                return Err(self.error(NAMES[axis], dim[axis], expected));
            }
        }
        let mut size = [0; 3];
        for (axis, size) in size.iter_mut().enumerate() {
            let found = dim[axis + 1];
            *size = usize::try_from(found)
                .ok()
                .filter(|&voxels| voxels > 0)
                .ok_or_else(|| self.error(NAMES[axis + 1], found, "at least 1 voxel"))?;
        }
        Ok(size)
    }

    fn vox_offset(&self, single_file: bool) -> Result<u64> {
        let (found, offset) = match self.version {
            Version::One => {
                let offset = self.f32(108);
                let whole = offset >= 0.0 && offset.fract() == 0.0;
                // Exact: a float32 that is a whole number below 2^63.
                (
                    offset.to_string(),
                    (whole && offset < 9.2e18).then_some(offset as u64),
                )
            }
            Version::Two => {
                let offset = self.i64(168);
                (offset.to_string(), u64::try_from(offset).ok())
            }
        };
        let least = if single_file {
            self.version.header_len() + EXTENDER_LEN
        } else {
            0
        };
        offset
            .filter(|&offset| offset >= least as u64)
            .ok_or_else(|| {
                let expected = match (single_file, self.version) {
                    (true, Version::One) => {
                        "a whole number, at least 352: voxels follow the header"
                    }
                    (true, Version::Two) => {
                        "a whole number, at least 544: voxels follow the header"
                    }
                    (false, _) => "a whole number, at least 0",
                };
                self.error("vox_offset", found, expected)
            })
    }

    fn rescale(&self) -> Result<Rescale> {
        let [slope, intercept] = self.floats(112, 176);
        if slope == 0.0 || !slope.is_finite() {
            return Ok(Rescale::NONE);
        }
        if !intercept.is_finite() {
            return Err(self.error(
                "scl_inter",
                intercept,
                "a finite number beside a finite scl_slope",
            ));
        }
        Ok(Rescale { slope, intercept })
    }

    fn forms(&self) -> Forms {
        let (qform_code, sform_code, units) = match self.version {
            Version::One => (
                i32::from(self.i16(252)),
                i32::from(self.i16(254)),
                i32::from(self.bytes[123]),
            ),
            Version::Two => (self.i32(344), self.i32(348), self.i32(500)),
        };
        let pixdim: [f64; 4] = self.floats(76, 104);
        let srow: [f64; 12] = self.floats(280, 400);
        Forms {
            qfac: pixdim[0],
            pixdim: [pixdim[1], pixdim[2], pixdim[3]],
            qform_code,
            quatern: self.floats(256, 352),
            qoffset: self.floats(268, 376),
            sform_code,
            srow: std::array::from_fn(|row| std::array::from_fn(|column| srow[4 * row + column])),
            unit: Unit::from_code(units),
        }
    }
}
