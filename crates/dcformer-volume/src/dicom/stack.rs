//! Slices in the order of their places, and the values that they hold.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;

use super::header::Header;
use super::pixels::Pixels;
use super::series::{Group, Slice};
use crate::geometry::{Affine, Grid};
use crate::volume::{Rescale, Voxels};
use crate::{Error, Result};

/// Slices closer than this are at one place; positions are written to a thousandth of a millimetre or better.
const SAME_PLACE_MM: f64 = 0.01;

/// Positions farther out than this are no patient's, and their squares would lose millimetres.
const MAX_POSITION_MM: f64 = 1e5;

/// Orientation vectors may be off unit length and right angles by this much.
const ORIENTATION_TOLERANCE: f64 = 0.01;

/// A slice and its place in the frame of the stack, which starts at the first slice.
#[derive(Clone, Copy, Debug)]
pub(super) struct Placed<'a> {
    pub(super) slice: Slice<'a>,
    /// Centre of the first pixel, millimetres, LPS.
    position: [f64; 3],
    /// From the first slice, along a row, along a column and along the normal.
    pub(super) offset_mm: [f64; 3],
}

/// A series in order, its pixels not read yet.
#[derive(Clone, Debug)]
pub(super) struct Stack<'a> {
    pub(super) slices: Vec<Placed<'a>>,
    /// Unit vectors along a row, along a column and normal to both, LPS.
    pub(super) axes: [[f64; 3]; 3],
    /// Between pixels along a row, along a column.
    pub(super) spacing_mm: [f64; 2],
    pub(super) notes: Vec<String>,
}

impl<'a> Stack<'a> {
    /// Orders the slices along their normal, and drops copies of a slice.
    pub(super) fn of(group: &Group<'a>) -> Result<Self> {
        let mut slices = group.slices.clone();
        let (axes, spacing_mm) = frame_of(slices[0])?;
        let mut notes = Vec::new();
        let mut placed = place(&slices, &axes)?;
        let copies = drop_copies(&mut placed);
        if copies > 0 {
            notes.push(format!("{copies} copies of slices left out"));
        }
        if let Some((first, second)) = collision(&placed) {
            slices = placed.iter().map(|placed| placed.slice).collect();
            let Some((kept, note)) = one_acquisition(&slices, &axes)? else {
                return Err(Error::DuplicateSlices {
                    first: first.slice.header.path.clone(),
                    second: second.slice.header.path.clone(),
                    position_mm: dot(first.position, axes[2]),
                });
            };
            placed = kept;
            notes.push(note);
        }
        let origin = placed[0].position;
        for placed in &mut placed {
            let from_first = [0, 1, 2].map(|axis| placed.position[axis] - origin[axis]);
            placed.offset_mm = axes.map(|axis| dot(from_first, axis));
        }
        Ok(Self {
            slices: placed,
            axes,
            spacing_mm,
            notes,
        })
    }

    /// Distances between neighbours along the normal.
    pub(super) fn gaps_mm(&self) -> Vec<f64> {
        self.slices
            .windows(2)
            .map(|pair| pair[1].offset_mm[2] - pair[0].offset_mm[2])
            .collect()
    }

    pub(super) fn files(&self) -> Vec<PathBuf> {
        self.slices
            .iter()
            .map(|placed| placed.slice.header.path.clone())
            .collect()
    }

    /// Columns, rows, slices.
    pub(super) fn size(&self) -> [usize; 3] {
        let header = self.slices[0].slice.header;
        [header.columns.into(), header.rows.into(), self.slices.len()]
    }

    /// Grid of the slices, each step along `k` the mean one; for one slice, its thickness.
    pub(super) fn grid(&self) -> Grid {
        let [first, .., last] = self.slices.as_slice() else {
            let thickness = self.slices[0]
                .slice
                .frame
                .thickness_mm
                .filter(|&mm| mm > 0.0)
                .unwrap_or(1.0);
            return self.grid_with(self.size(), self.axes[2].map(|value| value * thickness));
        };
        let steps = (self.slices.len() - 1) as f64;
        let step = [0, 1, 2].map(|axis| (last.position[axis] - first.position[axis]) / steps);
        self.grid_with(self.size(), step)
    }

    /// Grid that starts at the first slice.
    pub(super) fn grid_with(&self, size: [usize; 3], step_mm: [f64; 3]) -> Grid {
        let origin = self.slices[0].position;
        let [row, column, _] = self.axes;
        let [along_row, along_column] = self.spacing_mm;
        let matrix = [0, 1, 2].map(|axis| {
            [
                row[axis] * along_row,
                column[axis] * along_column,
                step_mm[axis],
                origin[axis],
            ]
        });
        Grid {
            size,
            affine: Affine { matrix }.swap_lps(),
        }
    }

    /// Values of all slices in Hounsfield units: 16-bit integers if every one is exact.
    pub(super) fn read(&self) -> Result<Voxels> {
        let slices: Vec<_> = self.slices.iter().map(|placed| placed.slice).collect();
        read(&slices)
    }
}

/// Values of slices, one after the other, rescaled as each says.
pub(super) fn read(slices: &[Slice<'_>]) -> Result<Voxels> {
    let files: BTreeMap<&Path, &Header> = slices
        .iter()
        .map(|slice| (slice.header.path.as_path(), slice.header))
        .collect();
    let opened: BTreeMap<&Path, Pixels<'_>> = files
        .into_par_iter()
        .map(|(path, header)| Ok((path, Pixels::open(header)?)))
        .collect::<Vec<Result<_>>>()
        .into_iter()
        .collect::<Result<_>>()?;
    let decode = |slice: &Slice<'_>| opened[slice.header.path.as_path()].frame(slice.index);
    let exact = AtomicBool::new(true);
    let integers = fill(slices, |slice, out: &mut [i16]| {
        if exact.load(Ordering::Relaxed)
            && !rescale_exactly(&decode(slice)?, slice.frame.rescale(), out)
        {
            exact.store(false, Ordering::Relaxed);
        }
        Ok(())
    })?;
    if exact.into_inner() {
        return Ok(Voxels::I16(integers));
    }
    drop(integers);
    let floats = fill(slices, |slice, out: &mut [f32]| {
        let rescale = slice.frame.rescale();
        for (out, stored) in out.iter_mut().zip(decode(slice)?) {
            #[allow(
                clippy::cast_possible_truncation,
                reason = "f32 is what a network computes in"
            )]
            let value = rescale.apply(f64::from(stored)) as f32;
            *out = value;
        }
        Ok(())
    })?;
    Ok(Voxels::F32(floats))
}

/// Lets `decode` write each slice, in parallel; the error is that of the first slice that has one.
fn fill<T: Clone + Default + Send>(
    slices: &[Slice<'_>],
    decode: impl Fn(&Slice<'_>, &mut [T]) -> Result<()> + Sync,
) -> Result<Vec<T>> {
    let pixels = slices.first().map_or(1, |slice| {
        usize::from(slice.header.rows) * usize::from(slice.header.columns)
    });
    let mut values = vec![T::default(); pixels * slices.len()];
    let outcomes: Vec<_> = values
        .par_chunks_mut(pixels)
        .zip(slices)
        .map(|(out, slice)| decode(slice, out))
        .collect();
    outcomes.into_iter().collect::<Result<()>>()?;
    Ok(values)
}

/// Rescales into 16-bit integers; `false` if a value is none.
fn rescale_exactly(stored: &[i32], rescale: Rescale, out: &mut [i16]) -> bool {
    let whole =
        |value: f64| (value.fract() == 0.0 && value.abs() <= f64::from(i32::MAX)).then_some(value);
    let (Some(slope), Some(intercept)) = (whole(rescale.slope), whole(rescale.intercept)) else {
        return false;
    };
    #[allow(clippy::cast_possible_truncation, reason = "whole and within 32 bits")]
    let (slope, intercept) = (slope as i64, intercept as i64);
    out.iter_mut().zip(stored).all(|(out, &stored)| {
        match i16::try_from(slope * i64::from(stored) + intercept) {
            Ok(value) => {
                *out = value;
                true
            }
            Err(_) => false,
        }
    })
}

pub(super) fn dot(a: [f64; 3], b: [f64; 3]) -> f64 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

/// Axes and pixel spacing of a slice.
fn frame_of(slice: Slice<'_>) -> Result<([[f64; 3]; 3], [f64; 2])> {
    let wrong = |field, found, expected| Error::Header {
        path: slice.header.path.clone(),
        field,
        found,
        expected,
    };
    let Some([a, b, c, d, e, f]) = slice.frame.orientation else {
        return Err(wrong(
            "ImageOrientationPatient",
            "absent".into(),
            "the directions of rows and columns",
        ));
    };
    let (row, column) = ([a, b, c], [d, e, f]);
    let off = [
        dot(row, row) - 1.0,
        dot(column, column) - 1.0,
        dot(row, column),
    ];
    if off
        .iter()
        .any(|value| value.abs() > 2.0 * ORIENTATION_TOLERANCE)
    {
        let found = format!("{:?}", [a, b, c, d, e, f]);
        return Err(wrong(
            "ImageOrientationPatient",
            found,
            "two unit vectors at a right angle",
        ));
    }
    let normal = [
        row[1] * column[2] - row[2] * column[1],
        row[2] * column[0] - row[0] * column[2],
        row[0] * column[1] - row[1] * column[0],
    ];
    let length = dot(normal, normal).sqrt();
    let Some([between_rows, between_columns]) = slice.frame.pixel_spacing else {
        return Err(wrong(
            "PixelSpacing",
            "absent".into(),
            "two positive numbers of millimetres",
        ));
    };
    let spacing = [between_columns, between_rows];
    if spacing.iter().any(|&mm| mm <= 0.0 || mm > MAX_POSITION_MM) {
        let found = format!("{between_rows}, {between_columns}");
        return Err(wrong(
            "PixelSpacing",
            found,
            "two positive numbers of millimetres",
        ));
    }
    Ok(([row, column, normal.map(|value| value / length)], spacing))
}

/// Slices sorted along the normal; equal places by file.
fn place<'a>(slices: &[Slice<'a>], axes: &[[f64; 3]; 3]) -> Result<Vec<Placed<'a>>> {
    let mut placed = Vec::with_capacity(slices.len());
    for &slice in slices {
        let wrong = |found| Error::Header {
            path: slice.header.path.clone(),
            field: "ImagePositionPatient",
            found,
            expected: "the place of the slice, without which slices cannot be put in order",
        };
        let position = slice
            .frame
            .position
            .ok_or_else(|| wrong("absent".to_owned()))?;
        if position.iter().any(|mm| mm.abs() > MAX_POSITION_MM) {
            return Err(wrong(format!("{position:?}")));
        }
        placed.push(Placed {
            slice,
            position,
            offset_mm: [0.0; 3],
        });
    }
    placed.sort_by(|a, b| {
        let along = |placed: &Placed<'_>| dot(placed.position, axes[2]);
        let file = |placed: &Placed<'a>| (&placed.slice.header.path, placed.slice.index);
        along(a)
            .total_cmp(&along(b))
            .then_with(|| file(a).cmp(&file(b)))
    });
    for placed in &mut placed {
        placed.offset_mm[2] = dot(placed.position, axes[2]);
    }
    Ok(placed)
}

/// Leaves out slices that are another file of the same instance; gives their number.
fn drop_copies(placed: &mut Vec<Placed<'_>>) -> usize {
    let before = placed.len();
    let mut seen = std::collections::HashSet::new();
    placed.retain(|placed| {
        let header = placed.slice.header;
        header.sop_instance.is_empty()
            || seen.insert((header.sop_instance.clone(), placed.slice.index))
    });
    before - placed.len()
}

fn collision<'p, 'a>(placed: &'p [Placed<'a>]) -> Option<(&'p Placed<'a>, &'p Placed<'a>)> {
    let pair = placed
        .windows(2)
        .find(|pair| pair[1].offset_mm[2] - pair[0].offset_mm[2] < SAME_PLACE_MM)?;
    Some((&pair[0], &pair[1]))
}

/// Largest part of a series that was scanned more than once, if the scans can be told apart.
fn one_acquisition<'a>(
    slices: &[Slice<'a>],
    axes: &[[f64; 3]; 3],
) -> Result<Option<(Vec<Placed<'a>>, String)>> {
    type Key = fn(&Header) -> Option<i64>;
    let keys: [(&str, Key); 2] = [
        ("AcquisitionNumber", |header| header.acquisition),
        ("TemporalPositionIdentifier", |header| {
            header.temporal_position
        }),
    ];
    for (name, key) in keys {
        let mut parts: BTreeMap<Option<i64>, Vec<Slice<'a>>> = BTreeMap::new();
        for &slice in slices {
            parts.entry(key(slice.header)).or_default().push(slice);
        }
        let count = parts.len();
        // The first of the largest: `max_by_key` would give the last.
        let Some((value, part)) = parts.into_iter().rev().max_by_key(|(_, part)| part.len()) else {
            continue;
        };
        let placed = place(&part, axes)?;
        if count > 1 && collision(&placed).is_none() {
            let value = value.map_or("none".to_owned(), |value| value.to_string());
            let note = format!(
                "the series was scanned {count} times; took {name} {value} ({} slices)",
                placed.len()
            );
            return Ok(Some((placed, note)));
        }
    }
    Ok(None)
}
