//! Where the voxels are: the header's two transforms and what to do with neither.

use std::ops::RangeInclusive;
use std::path::Path;

use crate::geometry::Affine;
use crate::{Error, Result};

/// Columns of a matrix whose volume is below this share of a box with the same edges do not span space.
const LEAST_INDEPENDENCE: f64 = 1e-3;

/// Distances between voxels that some instrument could have, in any of the units. Products of three of them are far
/// from the limits of floating point.
const POSSIBLE_STEPS: RangeInclusive<f64> = 1e-9..=1e9;

/// A sum of squares of `quatern` this far above 1 is no rounding of float32.
const QUATERNION_SLACK: f64 = 1e-3;

/// Unit of lengths in a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Metre,
    /// Also where the header does not say.
    Millimetre,
    Micrometre,
}

impl Unit {
    /// Unit of space in `xyzt_units`.
    pub(super) const fn from_code(xyzt_units: i32) -> Self {
        match xyzt_units & 7 {
            1 => Self::Metre,
            3 => Self::Micrometre,
            _ => Self::Millimetre,
        }
    }

    const fn millimetres(self) -> f64 {
        match self {
            Self::Metre => 1e3,
            Self::Millimetre => 1.0,
            Self::Micrometre => 1e-3,
        }
    }

    const fn plural(self) -> &'static str {
        match self {
            Self::Metre => "metres",
            Self::Millimetre => "millimetres",
            Self::Micrometre => "micrometres",
        }
    }
}

/// The header's fields about space, as stored.
#[derive(Clone, Debug)]
pub(super) struct Forms {
    /// `pixdim[0]`: negative for a left-handed `qform`.
    pub(super) qfac: f64,
    /// `pixdim[1..=3]`.
    pub(super) pixdim: [f64; 3],
    pub(super) qform_code: i32,
    /// `quatern_b`, `quatern_c`, `quatern_d`.
    pub(super) quatern: [f64; 3],
    pub(super) qoffset: [f64; 3],
    pub(super) sform_code: i32,
    /// `srow_x`, `srow_y`, `srow_z`.
    pub(super) srow: [[f64; 4]; 3],
    pub(super) unit: Unit,
}

impl Forms {
    /// Voxel indices to millimetres. Tells in `notes` what was decided.
    pub(super) fn affine(
        &self,
        path: &Path,
        size: [usize; 3],
        notes: &mut Vec<String>,
    ) -> Result<Affine> {
        let factor = self.unit.millimetres();
        let affine = match (self.sform_code > 0, self.qform_code > 0) {
            (true, with_qform) => {
                let sform =
                    check_affine(path, "srow_x, srow_y, srow_z", Affine { matrix: self.srow })?;
                // A broken `qform` beside a good `sform` is nobody's concern.
                let qform = if with_qform {
                    self.qform(path).ok()
                } else {
                    None
                };
                if let Some(distance) = qform.and_then(|qform| disagreement(&sform, &qform, size)) {
                    let distance = distance * factor;
                    notes.push(format!(
                        "the header's sform and qform place voxels up to {distance:.1} mm apart; sform is used, not qform"
                    ));
                }
                sform
            }
            (false, true) => self.qform(path)?,
            (false, false) => {
                notes.push(
                    "the header gives no orientation; its first axis is taken to run to the left, the second to the \
                     front, the third upwards"
                        .into(),
                );
                self.no_form(path, size)?
            }
        };
        if self.unit != Unit::Millimetre {
            notes.push(format!(
                "the header's lengths are in {}; they became millimetres",
                self.unit.plural()
            ));
        }
        Ok(Affine {
            matrix: affine.matrix.map(|row| row.map(|value| value * factor)),
        })
    }

    /// `pixdim[1..=3]`, if they are distances.
    fn checked_pixdim(&self, path: &Path) -> Result<[f64; 3]> {
        const NAMES: [&str; 3] = ["pixdim[1]", "pixdim[2]", "pixdim[3]"];
        for (field, value) in NAMES.into_iter().zip(self.pixdim) {
            if !(value.is_finite() && value > 0.0) {
                return Err(Error::Header {
                    path: path.into(),
                    field,
                    found: value.to_string(),
                    expected: "a distance above 0: the spacing of the voxels is needed, and the header has no sform",
                });
            }
        }
        Ok(self.pixdim)
    }

    /// Rotation by a unit quaternion, spacing from `pixdim`, third axis reversed where `qfac` is negative.
    fn qform(&self, path: &Path) -> Result<Affine> {
        const FIELD: &str = "quatern_b, quatern_c, quatern_d";
        let spacing = self.checked_pixdim(path)?;
        let squares: f64 = self.quatern.iter().map(|value| value * value).sum();
        // NaN is in no range.
        if !(0.0..=1.0 + QUATERNION_SLACK).contains(&squares) {
            return Err(Error::Header {
                path: path.into(),
                field: FIELD,
                found: format!("{:?}", self.quatern),
                expected: "part of a quaternion of length 1",
            });
        }
        // Rounding may leave a half turn slightly above 1: then the real part is 0, and the rest is normalised.
        let length = squares.sqrt().max(1.0);
        let [b, c, d] = self.quatern.map(|value| value / length);
        let a = (1.0 - squares).max(0.0).sqrt();
        let rotation = [
            [
                a * a + b * b - c * c - d * d,
                2.0 * (b * c - a * d),
                2.0 * (b * d + a * c),
            ],
            [
                2.0 * (b * c + a * d),
                a * a + c * c - b * b - d * d,
                2.0 * (c * d - a * b),
            ],
            [
                2.0 * (b * d - a * c),
                2.0 * (c * d + a * b),
                a * a + d * d - b * b - c * c,
            ],
        ];
        let third = if self.qfac < 0.0 {
            -spacing[2]
        } else {
            spacing[2]
        };
        let [x, y, z] = rotation;
        let row = |[i, j, k]: [f64; 3], offset| [i * spacing[0], j * spacing[1], k * third, offset];
        let [offset_x, offset_y, offset_z] = self.qoffset;
        let affine = Affine {
            matrix: [row(x, offset_x), row(y, offset_y), row(z, offset_z)],
        };
        check_affine(path, "qoffset_x, qoffset_y, qoffset_z", affine)
    }

    /// Axes along L, A, S with the volume's centre at the origin, as nibabel places volumes of unknown orientation.
    fn no_form(&self, path: &Path, size: [usize; 3]) -> Result<Affine> {
        let [x, y, z] = self.checked_pixdim(path)?;
        let mut affine = Affine::from_spacing_mm([-x, y, z]);
        for (row, n) in affine.matrix.iter_mut().zip(size) {
            row[3] = -row[..3].iter().sum::<f64>() * (n - 1) as f64 / 2.0;
        }
        check_affine(path, "pixdim[1], pixdim[2], pixdim[3]", affine)
    }
}

/// A matrix that gives every voxel its own place.
fn check_affine(path: &Path, field: &'static str, affine: Affine) -> Result<Affine> {
    let spacing = affine.spacing_mm();
    let finite = affine
        .matrix
        .as_flattened()
        .iter()
        .all(|value| value.is_finite());
    let possible = spacing.iter().all(|step| POSSIBLE_STEPS.contains(step));
    let box_volume: f64 = spacing.iter().product();
    let independent = affine.determinant().abs() > LEAST_INDEPENDENCE * box_volume;
    if !(finite && possible && independent) {
        return Err(Error::Header {
            path: path.into(),
            field,
            found: format!("{:?}", affine.matrix),
            expected: "steps of a possible length in three independent directions; write the header again with the right \
                       geometry",
        });
    }
    Ok(affine)
}

/// How far apart two placements of a volume are at its worst corner, in the header's unit, if that is more than
/// rounding: half the smallest spacing.
fn disagreement(first: &Affine, second: &Affine, size: [usize; 3]) -> Option<f64> {
    let last = size.map(|n| (n - 1) as f64);
    let worst = (0..8_usize)
        .map(|corner| {
            let index = [0, 1, 2].map(|axis| {
                if corner >> axis & 1 == 1 {
                    last[axis]
                } else {
                    0.0
                }
            });
            let (a, b) = (first.apply(index), second.apply(index));
            (0..3)
                .map(|line| (a[line] - b[line]).powi(2))
                .sum::<f64>()
                .sqrt()
        })
        .fold(0.0, f64::max);
    let smallest = first.spacing_mm().into_iter().fold(f64::INFINITY, f64::min);
    (worst > smallest / 2.0).then_some(worst)
}
