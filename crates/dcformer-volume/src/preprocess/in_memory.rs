//! A volume in memory to a network's input.

use std::ops::Range;
use std::path::Path;

use rayon::prelude::*;

use crate::dataset::ScanMetadata;
use crate::error::{Error, Result};
use crate::geometry::AxisMap;
use crate::intensity::{Candidates, Conversion, RescaleDecision, Sample, Scale, Stored};
use crate::volume::{self, Rescale, Volume, Voxels};

use super::assembly::Assembly;
use super::layout::{Layout, StorageAxis};
use super::plan::{self, Plan};
use super::{Fit, Intensity, ModelInput, Note, Preprocess};

/// Slices pushed at once: enough for all threads, few enough that their float copies stay in the last cache.
pub(super) const SLAB_SLICES: usize = 8;

impl Preprocess {
    /// [`Preprocess::run`] with a name for messages.
    pub(super) fn run_named(
        &self,
        path: &Path,
        volume: &Volume,
        metadata: &ScanMetadata,
    ) -> Result<ModelInput> {
        self.check()?;
        let size = volume.grid.size;
        if volume.voxels.is_empty() || volume.voxels.len() != volume.grid.voxels() {
            return Err(Error::VoxelCount {
                path: path.to_owned(),
                found: volume.voxels.len(),
                size,
            });
        }
        let mut notes = Vec::new();
        let spacing_mm = plan::spacing_mm(path, self, &volume.grid, metadata, &mut notes)?;
        let candidates = Candidates::new(path, self.rescale, metadata.rescale, volume.rescale)?;
        let layout = Layout::new(volume.grid.orientation(), self.orientation, self.plane);
        let place = Place {
            size,
            spacing_mm,
            layout,
        };
        match &volume.voxels {
            Voxels::I16(stored) => self.run_stored(path, stored, place, &candidates, notes),
            Voxels::F32(stored) => self.run_stored(path, stored, place, &candidates, notes),
        }
    }

    fn run_stored<T: Stored>(
        &self,
        path: &Path,
        stored: &[T],
        place: Place,
        candidates: &Candidates,
        mut notes: Vec<Note>,
    ) -> Result<ModelInput> {
        let mut sample = Sample::new(place.size);
        sample.visit(0, stored);
        let rescale = accept(path, candidates, &sample, stored.len(), &mut notes)?;
        let range = (self.intensity == Intensity::MinMax).then(|| value_range(stored));
        let (conversion, scale) = self.conversion(rescale.rescale, range);
        let region = match self.fit {
            Fit::Stretch {
                crop_foreground: true,
            } => foreground(stored, place.size, conversion),
            _ => place.size.map(|len| 0..len),
        };
        let values = if place.layout.depth.number == 2 {
            self.assemble(stored, place, &region, conversion, scale)
        } else {
            let (stored, place, region) = slices_slowest(stored, place, region);
            self.assemble(&stored, place, &region, conversion, scale)
        };
        Ok(ModelInput {
            shape: self.shape,
            values,
            rescale,
            notes,
        })
    }

    fn assemble<T: Stored>(
        &self,
        stored: &[T],
        place: Place,
        region: &[Range<usize>; 3],
        conversion: Conversion,
        scale: Scale,
    ) -> Vec<f32> {
        let plan = Plan::new(self, place.layout, place.size, place.spacing_mm, region);
        let mut assembly = Assembly::new(&plan, conversion, scale);
        for (number, slab) in stored.chunks(SLAB_SLICES * plan.slice_voxels).enumerate() {
            assembly.push(number * SLAB_SLICES, slab);
        }
        assembly.finish()
    }

    /// What happens to a value before and after resampling; `range` is that of the stored values, for
    /// [`Intensity::MinMax`].
    pub(super) fn conversion(
        &self,
        rescale: Rescale,
        range: Option<[f32; 2]>,
    ) -> (Conversion, Scale) {
        match self.intensity {
            Intensity::Window(window) => (
                Conversion::hounsfield(rescale, window.clip_hu()),
                window.scale(),
            ),
            Intensity::MinMax => {
                let [low, high] = range.unwrap_or_default();
                let conversion = if rescale.slope < 0.0 {
                    Conversion::unit_range(high, low)
                } else {
                    Conversion::unit_range(low, high)
                };
                (conversion, Scale::UNIT)
            }
        }
    }
}

/// How a scan's values are read, if they can be used at all.
///
/// # Errors
/// [`Error::NotFinite`], [`Error::NotHounsfield`].
pub(super) fn accept(
    path: &Path,
    candidates: &Candidates,
    sample: &Sample,
    voxels: usize,
    notes: &mut Vec<Note>,
) -> Result<RescaleDecision> {
    // Resampling tools write NaN outside the scan, which is harmless; more than half is a failed computation.
    if sample.not_finite > voxels / 2 {
        return Err(Error::NotFinite {
            path: path.to_owned(),
            found: sample.not_finite,
            voxels,
        });
    }
    if sample.not_finite > 0 {
        notes.push(Note::NotFinite {
            voxels: sample.not_finite,
        });
    }
    candidates.decide(path, sample)
}

/// Where stored voxels are and what their axes mean.
#[derive(Clone, Copy)]
struct Place {
    size: [usize; 3],
    spacing_mm: [f64; 3],
    layout: Layout,
}

/// Smallest and largest finite value; zeros if there is none.
fn value_range<T: Stored>(stored: &[T]) -> [f32; 2] {
    let finite = stored
        .iter()
        .map(|stored| stored.widen())
        .filter(|value| value.is_finite());
    let [low, high] = finite.fold([f32::INFINITY, f32::NEG_INFINITY], |[low, high], value| {
        [low.min(value), high.max(value)]
    });
    if low <= high { [low, high] } else { [0.0; 2] }
}

/// The smallest box, along the storage axes, that holds every value above 0; everything if there is none.
fn foreground<T: Stored>(
    stored: &[T],
    size: [usize; 3],
    conversion: Conversion,
) -> [Range<usize>; 3] {
    let join = |a: Range<usize>, b: Range<usize>| match (a.is_empty(), b.is_empty()) {
        (true, _) => b,
        (_, true) => a,
        _ => a.start.min(b.start)..a.end.max(b.end),
    };
    let above = |stored: &T| conversion.apply(stored.widen()) > 0.0;
    let row_box = |(number, row): (usize, &[T])| {
        let Some(first) = row.iter().position(above) else {
            return [0..0, 0..0, 0..0];
        };
        let last = row.iter().rposition(above).unwrap_or(first);
        let (j, k) = (number % size[1], number / size[1]);
        [first..last + 1, j..j + 1, k..k + 1]
    };
    let joined = stored.par_chunks(size[0]).enumerate().map(row_box).reduce(
        || [0..0, 0..0, 0..0],
        |[a, b, c], [d, e, f]| [join(a, d), join(b, e), join(c, f)],
    );
    if joined[0].is_empty() {
        size.map(|len| 0..len)
    } else {
        joined
    }
}

/// A copy whose slowest axis is the depth axis, as [`Assembly`] needs it.
fn slices_slowest<T: Stored>(
    stored: &[T],
    place: Place,
    region: [Range<usize>; 3],
) -> (Vec<T>, Place, [Range<usize>; 3]) {
    let depth = place.layout.depth.number;
    let order = [[1, 2, 0], [0, 2, 1], [0, 1, 2]][depth];
    let map = AxisMap {
        from: order,
        reversed: [false; 3],
    };
    let copy = volume::permute(stored, place.size, map);
    let renumbered = |axis: StorageAxis| StorageAxis {
        number: order
            .iter()
            .position(|old| *old == axis.number)
            .unwrap_or(axis.number),
        ..axis
    };
    let Layout {
        depth,
        height,
        width,
    } = place.layout;
    let place = Place {
        size: order.map(|number| place.size[number]),
        spacing_mm: order.map(|number| place.spacing_mm[number]),
        layout: Layout {
            depth: renumbered(depth),
            height: renumbered(height),
            width: renumbered(width),
        },
    };
    let region = order.map(|number| region[number].clone());
    (copy, place, region)
}
