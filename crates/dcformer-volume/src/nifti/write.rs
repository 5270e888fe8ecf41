//! From volume to file.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use flate2::{Compression, write::GzEncoder};

use super::data_type::DataType;
use super::header::{EXTENDER_LEN, NIFTI_1_LEN};
use crate::geometry::Affine;
use crate::output::write_replacing;
use crate::volume::{Volume, Voxels};
use crate::{Error, Result};

/// Voxels start where the header and the four bytes after it end.
const VOX_OFFSET: usize = NIFTI_1_LEN + EXTENDER_LEN;

/// Bytes encoded at a time.
const CHUNK_BYTES: usize = 256 << 10;

/// `sform_code` and `qform_code` of positions in the scanner's frame.
const SCANNER_POSITIONS: i16 = 1;

/// `xyzt_units` of millimetres.
const MILLIMETRES: u8 = 2;

/// Columns of a matrix are perpendicular, so that a quaternion can express them, up to this cosine: the precision of
/// the fields, float32, with room for a matrix that was computed in it.
const MOST_SHEAR: f64 = 1e-4;

/// How [`write_nifti`] writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteOptions {
    /// Effort of compression, 0 (none) to 9, for names that end in `.gz`. The default, 1, takes half the time of 6 on a
    /// CT and a third more space.
    pub gzip_level: u32,
}

impl Default for WriteOptions {
    fn default() -> Self {
        Self { gzip_level: 1 }
    }
}

/// Writes a NIfTI-1 file, int16 or float32 as the voxels are, compressed if the name ends in `.gz`.
///
/// Positions are written as `sform`, and as `qform` too unless the grid is sheared. The file appears under its name
/// once it is complete; a file that was there is replaced.
///
/// # Panics
/// If the number of voxels is not that of the grid.
///
/// # Errors
/// If an axis is longer than the format's 32767, or the file cannot be written.
pub fn write_nifti(path: &Path, volume: &Volume, options: WriteOptions) -> Result<()> {
    assert_eq!(
        volume.voxels.len(),
        volume.grid.voxels(),
        "voxels do not fill the grid"
    );
    let header = header(path, volume)?;
    let compress = path
        .extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("gz"));
    let write = |file: File| -> io::Result<()> {
        if compress {
            let level = Compression::new(options.gzip_level.min(9));
            let mut encoder = GzEncoder::new(file, level);
            write_all(&mut encoder, &header, &volume.voxels)?;
            encoder.finish()?.flush()
        } else {
            let mut file = BufWriter::new(file);
            write_all(&mut file, &header, &volume.voxels)?;
            file.flush()
        }
    };
    write_replacing(path, write).map_err(|source| Error::Write {
        path: path.into(),
        source,
    })
}

fn write_all(out: &mut impl Write, header: &[u8], voxels: &Voxels) -> io::Result<()> {
    out.write_all(header)?;
    match voxels {
        Voxels::I16(values) => write_values(out, values, i16::to_le_bytes),
        Voxels::F32(values) => write_values(out, values, f32::to_le_bytes),
    }
}

fn write_values<V: Copy, const N: usize>(
    out: &mut impl Write,
    values: &[V],
    to_bytes: impl Fn(V) -> [u8; N],
) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(CHUNK_BYTES);
    for chunk in values.chunks(CHUNK_BYTES / N) {
        bytes.clear();
        chunk
            .iter()
            .for_each(|&value| bytes.extend_from_slice(&to_bytes(value)));
        out.write_all(&bytes)?;
    }
    Ok(())
}

/// Header and extender.
fn header(path: &Path, volume: &Volume) -> Result<Vec<u8>> {
    let data_type = match volume.voxels {
        Voxels::I16(_) => DataType::I16,
        Voxels::F32(_) => DataType::F32,
    };
    let spacing = volume.grid.affine.spacing_mm();
    let mut header = vec![0; VOX_OFFSET];
    let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);

    put(0, &(NIFTI_1_LEN as u32).to_le_bytes());
    put(38, b"r"); // `regular`, which Analyze readers ask for
    let mut dim = [1_i16; 8];
    dim[0] = 3;
    for (dim, size) in dim[1..].iter_mut().zip(volume.grid.size) {
        *dim = i16::try_from(size).map_err(|_| Error::Header {
            path: path.into(),
            field: "dim",
            found: size.to_string(),
            expected: "at most 32767 voxels along an axis",
        })?;
    }
    for (index, dim) in dim.into_iter().enumerate() {
        put(40 + 2 * index, &dim.to_le_bytes());
    }
    put(70, &data_type.code().to_le_bytes());
    put(72, &(8 * data_type.bytes() as u16).to_le_bytes());

    let quaternion = Quaternion::of(&volume.grid.affine);
    let qfac = quaternion.map_or(1.0, |quaternion| quaternion.qfac);
    put_floats(
        &mut put,
        76,
        &[qfac, spacing[0], spacing[1], spacing[2], 1.0, 1.0, 1.0, 1.0],
    );
    put_floats(
        &mut put,
        108,
        &[
            VOX_OFFSET as f64,
            volume.rescale.slope,
            volume.rescale.intercept,
        ],
    );
    put(123, &[MILLIMETRES]);
    if let Some(Quaternion { b, c, d, .. }) = quaternion {
        put(252, &SCANNER_POSITIONS.to_le_bytes());
        let [x, y, z] = volume.grid.affine.matrix.map(|row| row[3]);
        put_floats(&mut put, 256, &[b, c, d, x, y, z]);
    }
    put(254, &SCANNER_POSITIONS.to_le_bytes());
    put_floats(&mut put, 280, volume.grid.affine.matrix.as_flattened());
    put(344, b"n+1\0");
    Ok(header)
}

/// A row of the header's float32 fields.
fn put_floats(put: &mut impl FnMut(usize, &[u8]), at: usize, values: &[f64]) {
    for (index, &value) in values.iter().enumerate() {
        put(at + 4 * index, &(value as f32).to_le_bytes());
    }
}

/// The header's rotation: a unit quaternion whose real part is not negative and not stored, and the handedness.
#[derive(Clone, Copy, Debug)]
struct Quaternion {
    b: f64,
    c: f64,
    d: f64,
    /// -1 if the third axis is reversed after the rotation.
    qfac: f64,
}

impl Quaternion {
    /// Rotation of a matrix with perpendicular columns; `None` if they are not.
    fn of(affine: &Affine) -> Option<Self> {
        let spacing = affine.spacing_mm();
        let qfac = if affine.determinant() < 0.0 {
            -1.0
        } else {
            1.0
        };
        let axis =
            |axis: usize, sign: f64| affine.step_mm(axis).map(|step| sign * step / spacing[axis]);
        let [u, v, w] = [axis(0, 1.0), axis(1, 1.0), axis(2, qfac)];
        let dot = |a: [f64; 3], b: [f64; 3]| a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
        if ![dot(u, v), dot(v, w), dot(w, u)]
            .iter()
            .all(|cosine| cosine.abs() < MOST_SHEAR)
        {
            return None;
        }
        // Four times the square of each part; the largest is a safe divisor for the others.
        let squares = [
            1.0 + u[0] + v[1] + w[2],
            1.0 + u[0] - v[1] - w[2],
            1.0 - u[0] + v[1] - w[2],
            1.0 - u[0] - v[1] + w[2],
        ];
        let largest = (1..4).fold(0, |best, part| {
            if squares[part] > squares[best] {
                part
            } else {
                best
            }
        });
        let parts = match largest {
            0 => [squares[0], v[2] - w[1], w[0] - u[2], u[1] - v[0]],
            1 => [v[2] - w[1], squares[1], v[0] + u[1], w[0] + u[2]],
            2 => [w[0] - u[2], v[0] + u[1], squares[2], w[1] + v[2]],
            _ => [u[1] - v[0], w[0] + u[2], w[1] + v[2], squares[3]],
        };
        let divisor = 2.0 * squares[largest].sqrt();
        let sign = if parts[0] < 0.0 { -1.0 } else { 1.0 };
        let [_, b, c, d] = parts.map(|part| sign * part / divisor);
        Some(Self { b, c, d, qfac })
    }
}
