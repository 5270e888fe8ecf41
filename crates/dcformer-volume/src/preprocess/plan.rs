//! Which voxels of a scan make which values of the result: worked out before any is read.

use std::ops::Range;
use std::path::Path;

use crate::crop;
use crate::dataset::ScanMetadata;
use crate::error::{Error, Result};
use crate::geometry::{Grid, Shape3};
use crate::resample::{self, Tap};

use super::layout::{Layout, StorageAxis};
use super::{Fit, Note, Preprocess};

/// One axis of the result.
#[derive(Clone, Debug)]
pub(super) struct AxisPlan {
    /// Storage axis it comes from.
    pub(super) storage: StorageAxis,
    /// Voxels along it.
    pub(super) len: usize,
    /// Positions, counted in the result's direction, that some value needs.
    pub(super) source: Range<usize>,
    /// One per value that is not padding; positions count from `source.start`.
    pub(super) taps: Vec<Tap>,
    /// Values that are not padding.
    pub(super) target: Range<usize>,
}

impl AxisPlan {
    /// `region` of the axis resampled to `resampled` voxels, then cropped or padded to `wanted`.
    fn new(
        storage: StorageAxis,
        len: usize,
        region: Range<usize>,
        resampled: usize,
        wanted: usize,
    ) -> Self {
        let placement = crop::centre(resampled, wanted);
        let mut taps = resample::taps(region.len(), resampled, placement.source.clone());
        let read =
            taps.first().map_or(0, |tap| tap.lower)..taps.last().map_or(0, |tap| tap.upper + 1);
        for tap in &mut taps {
            tap.lower -= read.start;
            tap.upper -= read.start;
        }
        let source = region.start + read.start..region.start + read.end;
        Self {
            storage,
            len,
            source,
            taps,
            target: placement.target(),
        }
    }

    /// Storage index of a position counted from `source.start`.
    pub(super) fn index(&self, position: usize) -> usize {
        let position = self.source.start + position;
        if self.storage.reversed {
            self.len - 1 - position
        } else {
            position
        }
    }
}

/// The three axes of the result.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) depth: AxisPlan,
    pub(super) height: AxisPlan,
    pub(super) width: AxisPlan,
    pub(super) shape: Shape3,
    pub(super) pad_value: f32,
    /// Voxels in a stored slice.
    pub(super) slice_voxels: usize,
    /// Voxels from one row of a stored slice to the next.
    pub(super) row_stride: usize,
}

impl Plan {
    /// For slices stored along the axis `layout.depth`, the slowest one (or made so, see [`super::assembly`]).
    ///
    /// `region` is the part of each storage axis that is used.
    pub(super) fn new(
        preprocess: &Preprocess,
        layout: Layout,
        size: [usize; 3],
        spacing_mm: [f64; 3],
        region: &[Range<usize>; 3],
    ) -> Self {
        let Shape3 {
            depth,
            height,
            width,
        } = preprocess.shape;
        let axis = |storage: StorageAxis, wanted: usize, target_mm: Option<f64>| {
            let (len, region) = (size[storage.number], region[storage.number].clone());
            let region = if storage.reversed {
                len - region.end..len - region.start
            } else {
                region
            };
            let resampled = target_mm.map_or(wanted, |target_mm| {
                resample::resampled_len(region.len(), spacing_mm[storage.number], target_mm)
            });
            AxisPlan::new(storage, len, region, resampled, wanted)
        };
        let target_mm = preprocess.fit.target_mm();
        Self {
            depth: axis(layout.depth, depth, target_mm.map(|target| target[0])),
            height: axis(layout.height, height, target_mm.map(|target| target[1])),
            width: axis(layout.width, width, target_mm.map(|target| target[2])),
            shape: preprocess.shape,
            pad_value: preprocess.pad_value,
            slice_voxels: size[layout.height.number] * size[layout.width.number],
            row_stride: size[layout.height.number.min(layout.width.number)],
        }
    }

    /// Whether the height of the result runs along the rows of a stored slice, so that slices are transposed.
    pub(super) fn transposed(&self) -> bool {
        self.height.storage.number < self.width.storage.number
    }
}

impl Fit {
    /// Wanted spacing along depth, height, width.
    fn target_mm(self) -> Option<[f64; 3]> {
        match self {
            Self::SpacingMm {
                depth,
                height,
                width,
            } => Some([depth, height, width]),
            Self::Stretch { .. } => None,
        }
    }
}

/// The spacing that counts, and what there is to say about it.
///
/// # Errors
/// [`Error::SpacingUnusable`].
pub(super) fn spacing_mm(
    path: &Path,
    preprocess: &Preprocess,
    grid: &Grid,
    metadata: &ScanMetadata,
    notes: &mut Vec<Note>,
) -> Result<[f64; 3]> {
    let header_mm = grid.affine.spacing_mm();
    let spacing_mm = metadata.spacing_mm.unwrap_or(header_mm);
    let Some(target_mm) = preprocess.fit.target_mm() else {
        return Ok(spacing_mm);
    };
    if !spacing_mm
        .iter()
        .all(|spacing| spacing.is_finite() && *spacing > 0.0)
    {
        return Err(Error::SpacingUnusable {
            path: path.to_owned(),
            found_mm: spacing_mm,
        });
    }
    // Tables and headers round differently; a thousandth changes no size by more than a voxel.
    if spacing_mm
        .iter()
        .zip(header_mm)
        .any(|(used, header)| (used / header - 1.0).abs() > 1e-3)
    {
        notes.push(Note::SpacingDiffers {
            metadata_mm: spacing_mm,
            header_mm,
        });
    }
    let layout = Layout::new(grid.orientation(), preprocess.orientation, preprocess.plane);
    let thin = |(axis, target): (StorageAxis, f64)| {
        (grid.size[axis.number] as f64 * spacing_mm[axis.number]) < target
    };
    if [layout.depth, layout.height, layout.width]
        .into_iter()
        .zip(target_mm)
        .any(thin)
    {
        notes.push(Note::ThinnerThanAVoxel);
    }
    Ok(spacing_mm)
}
