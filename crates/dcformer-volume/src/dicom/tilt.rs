//! From slices at any places along a line to a rectangular grid: missing slices, uneven gaps, gantry tilt.
//!
//! A gantry tilted by an angle takes slices whose positions move along the table and not along their normal, so that
//! each is shifted within its plane against the one before. The grid keeps the directions of rows, columns and normal,
//! and every slice is moved to where it was: a shear. Between slices, values are interpolated linearly along the
//! normal.

use rayon::prelude::*;

use super::stack::Stack;
use super::{DicomOptions, TiltPolicy};
use crate::geometry::Grid;
use crate::volume::Voxels;
use crate::{Error, Result};

/// A slice may be off its place on an even grid by this share of the spacing ...
const EVEN_SHARE: f64 = 0.05;

/// ... or by this much: positions rounded to a tenth of a millimetre.
const EVEN_MM: f64 = 0.051;

/// Shifts within the plane up to this many pixels, over the whole scan, are rounding of positions and orientation.
const STRAIGHT_PIXELS: f64 = 0.5;

/// Without a reason in the slices' thickness, a gap of more than this many usual ones is a hole.
const MAX_STRETCH: f64 = 3.0;

/// Thickness that accounts for a gap, as a share of it.
const COVERING: f64 = 0.75;

/// Gantries tilt by up to 30 degrees; positions at a steeper angle are not those of one scan.
const MAX_DEGREES: f64 = 45.0;

/// Nor are those by which a sheared slice would be this many times its size: a metre at 30 degrees is 577 mm.
const MAX_GROWTH: f64 = 4.0;

/// How to get from a stack to a grid.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Straightening {
    grid: Grid,
    /// Shift of each slice within the grid's planes, in pixels along rows and columns.
    shifts: Vec<[f64; 2]>,
    /// Place of each slice along the normal, in slices of the grid.
    places: Vec<f64>,
    /// Nothing is to be computed.
    as_is: bool,
}

/// Checks the places of slices against what `options` allow, and says what has to be done to them.
pub(super) fn plan(
    folder: &std::path::Path,
    stack: &Stack<'_>,
    options: &DicomOptions,
    unreadable: Option<String>,
) -> Result<(Straightening, Vec<String>)> {
    let gaps = stack.gaps_mm();
    let missing = holes(&gaps, stack);
    if missing.count > 0 && (!options.allow_gaps || missing.count > 8 * stack.slices.len()) {
        return Err(Error::MissingSlices {
            folder: folder.to_owned(),
            missing: missing.count,
            expected: stack.slices.len() + missing.count,
            places: missing.places.join(", "),
            unreadable: unreadable
                .map(|files| format!("; found {files}"))
                .unwrap_or_default(),
        });
    }
    let mut notes = Vec::new();
    if missing.count > 0 {
        notes.push(format!(
            "{} missing slices filled by interpolation ({})",
            missing.count,
            missing.places.join(", ")
        ));
    }
    let tilt = Tilt::of(stack);
    if tilt.growth > MAX_GROWTH || tilt.degrees > MAX_DEGREES {
        return Err(Error::ScatteredSlices {
            folder: folder.to_owned(),
            shift_mm: tilt.shift_mm,
        });
    }
    if tilt.pixels > STRAIGHT_PIXELS && options.tilt == TiltPolicy::Refuse {
        return Err(Error::GantryTilt {
            folder: folder.to_owned(),
            degrees: tilt.degrees,
            shift_mm: tilt.shift_mm,
        });
    }
    let plan = straightening(stack, &gaps, tilt.pixels > STRAIGHT_PIXELS);
    if tilt.pixels > STRAIGHT_PIXELS {
        let [columns, rows, _] = stack.size();
        notes.push(format!(
            "gantry tilt of {:.1} degrees corrected by shear ({columns}x{rows} pixels became {}x{})",
            tilt.degrees, plan.grid.size[0], plan.grid.size[1]
        ));
    }
    if !plan.is_even() {
        notes.push(format!(
            "uneven gaps between slices ({:.2} to {:.2} mm) resampled linearly to {:.2} mm ({} slices became {})",
            gaps.iter().copied().fold(f64::INFINITY, f64::min),
            gaps.iter().copied().fold(0.0, f64::max),
            plan.grid.affine.spacing_mm()[2],
            stack.slices.len(),
            plan.grid.size[2]
        ));
    }
    Ok((plan, notes))
}

struct Holes {
    count: usize,
    places: Vec<String>,
}

/// Gaps that other slices belong into: whole multiples of the usual gap among usual ones, or far larger ones.
///
/// A gap that the thickness of a slice beside it covers is how the scan was planned.
fn holes(gaps: &[f64], stack: &Stack<'_>) -> Holes {
    let usual = median(gaps);
    let tolerance = |gap: f64| (gap * EVEN_SHARE).max(EVEN_MM);
    let multiple = |gap: f64| (gap / usual).round();
    let all_multiples = gaps
        .iter()
        .all(|&gap| (gap - multiple(gap) * usual).abs() <= tolerance(gap));
    let mut holes = Holes {
        count: 0,
        places: Vec::new(),
    };
    for (&gap, pair) in gaps.iter().zip(stack.slices.windows(2)) {
        let thickness = |index: usize| pair[index].slice.frame.thickness_mm.unwrap_or(0.0);
        let covered = thickness(0).max(thickness(1)) >= COVERING * gap;
        let too_long = gap > MAX_STRETCH * usual || (all_multiples && multiple(gap) >= 2.0);
        if covered || !too_long {
            continue;
        }
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "saturates; at least 1 before it"
        )]
        let missing = multiple(gap) as usize - 1;
        holes.count = holes.count.saturating_add(missing);
        let name = |index: usize| {
            let path = &pair[index].slice.header.path;
            path.file_name().unwrap_or(path.as_os_str()).display()
        };
        holes.places.push(format!(
            "of {gap:.2} mm between {} and {}",
            name(0),
            name(1)
        ));
    }
    holes
}

/// The lower one of the two in the middle.
fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
        .get(sorted.len().saturating_sub(1) / 2)
        .copied()
        .unwrap_or(1.0)
}

struct Tilt {
    degrees: f64,
    shift_mm: f64,
    /// Greatest shift.
    pixels: f64,
    /// Size of a sheared slice against its own.
    growth: f64,
}

impl Tilt {
    fn of(stack: &Stack<'_>) -> Self {
        let mut tilt = Self {
            degrees: 0.0,
            shift_mm: 0.0,
            pixels: 0.0,
            growth: 1.0,
        };
        for placed in &stack.slices {
            let [along_row, along_column, along_normal] = placed.offset_mm;
            let shift = along_row.hypot(along_column);
            // Below a pixel the angle is that of rounding.
            if shift > tilt.shift_mm {
                tilt.shift_mm = shift;
                if shift > STRAIGHT_PIXELS * stack.spacing_mm[0].min(stack.spacing_mm[1]) {
                    tilt.degrees = shift.atan2(along_normal).to_degrees();
                }
            }
            for axis in [0, 1] {
                let pixels = placed.offset_mm[axis].abs() / stack.spacing_mm[axis];
                tilt.pixels = tilt.pixels.max(pixels);
                tilt.growth = tilt.growth.max(1.0 + pixels / stack.size()[axis] as f64);
            }
        }
        tilt
    }
}

fn straightening(stack: &Stack<'_>, gaps: &[f64], tilted: bool) -> Straightening {
    let [columns, rows, slices] = stack.size();
    let length = gaps.iter().sum::<f64>();
    let mean = length / gaps.len() as f64;
    let depth = |index: usize| stack.slices[index].offset_mm[2];
    let even = (0..slices).all(|index| {
        (depth(index) - index as f64 * mean).abs() <= (mean * EVEN_SHARE).max(EVEN_MM)
    });
    // Both ends stay where they are, so the spacing is the median gap but for what makes it divide the length.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "holes bound it"
    )]
    let steps = if even {
        slices - 1
    } else {
        (length / median(gaps)).round().max(1.0) as usize
    };
    let step_mm = length / steps as f64;
    let places = (0..slices)
        .map(|index| {
            if even {
                index as f64
            } else {
                depth(index) / step_mm
            }
        })
        .collect();
    if !tilted {
        let mean_step = stack
            .grid()
            .affine
            .swap_lps()
            .step_mm(2)
            .map(|mm| mm * (slices - 1) as f64 / steps as f64);
        let grid = stack.grid_with([columns, rows, steps + 1], mean_step);
        return Straightening {
            grid,
            shifts: vec![[0.0; 2]; slices],
            places,
            as_is: even,
        };
    }
    let shifts: Vec<_> = stack
        .slices
        .iter()
        .map(|placed| [0, 1].map(|axis| placed.offset_mm[axis] / stack.spacing_mm[axis]))
        .collect();
    // Whole pixels, so that the first slice is copied and not interpolated.
    let least = [0, 1].map(|axis| {
        shifts
            .iter()
            .map(|shift| shift[axis])
            .fold(0.0, f64::min)
            .floor()
    });
    let most = [0, 1].map(|axis| {
        shifts
            .iter()
            .map(|shift| shift[axis])
            .fold(0.0, f64::max)
            .ceil()
    });
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "growth is bounded"
    )]
    let grown = [0, 1].map(|axis| stack.size()[axis] + (most[axis] - least[axis]) as usize);
    let mut grid = stack.grid_with(
        [grown[0], grown[1], steps + 1],
        stack.axes[2].map(|value| value * step_mm),
    );
    let origin = grid.affine.apply([least[0], least[1], 0.0]);
    for (row, origin) in grid.affine.matrix.iter_mut().zip(origin) {
        row[3] = origin;
    }
    let shifts = shifts
        .iter()
        .map(|shift| [0, 1].map(|axis| shift[axis] - least[axis]))
        .collect();
    Straightening {
        grid,
        shifts,
        places,
        as_is: false,
    }
}

impl Straightening {
    fn is_even(&self) -> bool {
        self.places
            .iter()
            .enumerate()
            .all(|(index, &place)| place == index as f64)
    }

    /// Moves the values of a stack of `size` onto the grid. What no slice covers gets the stack's lowest value, as
    /// scanners write outside their field of view. Integers are rounded to the nearest.
    pub(super) fn apply(self, voxels: Voxels, size: [usize; 3]) -> (Voxels, Grid) {
        if self.as_is {
            return (voxels, self.grid);
        }
        let voxels = match voxels {
            Voxels::I16(values) => {
                let lowest = values.iter().copied().min().unwrap_or(0);
                // Interpolation stays between its inputs.
                #[allow(clippy::cast_possible_truncation, reason = "between 16-bit values")]
                let round = |value: f32| value.round() as i16;
                Voxels::I16(self.resample(&values, size, f32::from(lowest), round))
            }
            Voxels::F32(values) => {
                let lowest = values.iter().copied().fold(f32::INFINITY, f32::min);
                Voxels::F32(self.resample(&values, size, lowest, |value| value))
            }
        };
        (voxels, self.grid)
    }

    fn resample<T>(
        &self,
        values: &[T],
        size: [usize; 3],
        outside: f32,
        finish: impl Fn(f32) -> T + Sync,
    ) -> Vec<T>
    where
        T: Copy + Default + Into<f32> + Send + Sync,
    {
        let [columns, rows, slices] = size;
        let [width, height, depth] = self.grid.size;
        let mut out = vec![T::default(); width * height * depth];
        out.par_chunks_mut(width * height)
            .enumerate()
            .for_each(|(index, plane)| {
                let place = index as f64;
                let above = self
                    .places
                    .partition_point(|&slice| slice <= place)
                    .clamp(1, slices.max(2) - 1);
                let below = above - 1;
                let between = self.places[above] - self.places[below];
                let share = ((place - self.places[below]) / between).clamp(0.0, 1.0);
                let mut sums = vec![0.0; width];
                for (row, line) in plane.chunks_exact_mut(width).enumerate() {
                    sums.fill(0.0);
                    for (slice, weight) in [(below, 1.0 - share), (above, share)] {
                        let [right, down] = self.shifts[slice];
                        let pixels = &values[slice * rows * columns..][..rows * columns];
                        let (first_row, row_share) = split(row as f64 - down);
                        let (first_column, column_share) = split(-right);
                        for (source, weight) in [
                            (first_row, weight * (1.0 - row_share)),
                            (first_row + 1, weight * row_share),
                        ] {
                            let source = usize::try_from(source).ok().filter(|&row| row < rows);
                            let source =
                                source.map_or(&[][..], |row| &pixels[row * columns..][..columns]);
                            add(
                                &mut sums,
                                source,
                                first_column,
                                weight * (1.0 - column_share),
                                outside,
                            );
                            add(
                                &mut sums,
                                source,
                                first_column + 1,
                                weight * column_share,
                                outside,
                            );
                        }
                    }
                    for (out, &sum) in line.iter_mut().zip(&sums) {
                        *out = finish(sum);
                    }
                }
            });
        out
    }
}

/// Whole part, rounded down, and the rest.
#[allow(
    clippy::cast_possible_truncation,
    reason = "a bounded number of pixels"
)]
fn split(place: f64) -> (i64, f64) {
    (place.floor() as i64, place - place.floor())
}

/// Adds `weight * source[x + offset]` to each `sums[x]`, with `outside` where there is no source.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "weights are f32; ranges are clamped"
)]
fn add<T: Copy + Into<f32>>(
    sums: &mut [f32],
    source: &[T],
    offset: i64,
    weight: f64,
    outside: f32,
) {
    if weight == 0.0 {
        return;
    }
    let weight = weight as f32;
    let width = sums.len() as i64;
    let start = (-offset).clamp(0, width);
    let end = (source.len() as i64 - offset).clamp(start, width);
    let (before, rest) = sums.split_at_mut(start as usize);
    let (within, after) = rest.split_at_mut((end - start) as usize);
    before
        .iter_mut()
        .chain(after)
        .for_each(|sum| *sum += weight * outside);
    let source = source
        .get((start + offset).max(0) as usize..)
        .unwrap_or_default();
    for (sum, &value) in within.iter_mut().zip(source) {
        *sum += weight * value.into();
    }
}
