//! A NIfTI file to a network's input, resampled while it is decompressed.

use std::path::Path;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;

use crate::dataset::ScanMetadata;
use crate::error::Result;
use crate::intensity::{Candidates, Sample, Stored};
use crate::nifti::{NiftiReader, Voxel};
use crate::volume::Rescale;

use super::assembly::Assembly;
use super::in_memory::accept;
use super::layout::Layout;
use super::plan::{self, Plan};
use super::{Fit, Intensity, ModelInput, Note, Preprocess};

/// Voxels in a slab: eight slices of a chest CT, whose float copies stay in the last cache.
const SLAB_VOXELS: usize = 8 * 512 * 512;

/// Slabs between the two threads: one being filled, one being used, one for the difference in their speed.
const SLABS: usize = 3;

/// Slabs held back until the reading of their values is guessed: 64 slices, of which even the first of a chest hold air
/// and soft tissue.
const GUESS_SLABS: usize = 8;

impl Preprocess {
    /// A NIfTI file; `None` if it must be read into memory first: its slices do not lie one after the other, or the
    /// configuration looks at all of it before the first value can be made.
    pub(super) fn run_stream(
        &self,
        path: &Path,
        metadata: &ScanMetadata,
    ) -> Result<Option<ModelInput>> {
        let reader = NiftiReader::open(path)?;
        let grid = reader.grid();
        let layout = Layout::new(grid.orientation(), self.orientation, self.plane);
        if layout.depth.number != 2 || self.needs_whole_scan() {
            return Ok(None);
        }
        let mut notes = Vec::new();
        let spacing_mm = plan::spacing_mm(path, self, &grid, metadata, &mut notes)?;
        let candidates = Candidates::new(path, self.rescale, metadata.rescale, reader.rescale())?;
        let plan = Plan::new(
            self,
            layout,
            grid.size,
            spacing_mm,
            &grid.size.map(|len| 0..len),
        );

        let mut reader = Some(reader);
        let mut known = candidates.only();
        loop {
            let reader = reader.take().map_or_else(|| NiftiReader::open(path), Ok)?;
            let pass = if reader.fits_i16() {
                self.pass::<i16>(reader, &plan, &candidates, known)?
            } else {
                self.pass::<f32>(reader, &plan, &candidates, known)?
            };
            let mut pass_notes = notes.clone();
            let rescale = accept(
                path,
                &candidates,
                &pass.sample,
                grid.voxels(),
                &mut pass_notes,
            )?;
            if rescale.rescale == pass.rescale {
                pass_notes.extend(pass.file_notes.into_iter().map(Note::File));
                return Ok(Some(ModelInput {
                    shape: self.shape,
                    values: pass.values,
                    rescale,
                    notes: pass_notes,
                }));
            }
            // The first slices misled: the rest of the scan speaks for another reading. It is read again, which is
            // cheaper than keeping every scan in memory for the sake of a few.
            known = Some(rescale.rescale);
        }
    }

    /// Whether the values depend on voxels far from them, in ways other than the choice of a reading.
    fn needs_whole_scan(&self) -> bool {
        self.intensity == Intensity::MinMax
            || matches!(
                self.fit,
                Fit::Stretch {
                    crop_foreground: true
                }
            )
    }

    /// Reads the file once, on a thread of its own, and makes the result under the reading that is known, or else
    /// guessed from the first slabs.
    fn pass<V: Voxel + Stored>(
        &self,
        reader: NiftiReader,
        plan: &Plan,
        candidates: &Candidates,
        known: Option<Rescale>,
    ) -> Result<Pass> {
        let size = reader.grid().size;
        let slab_slices = (SLAB_VOXELS / plan.slice_voxels).clamp(1, size[2]);
        let mut sample = Sample::new(size);
        let mut held: Vec<Slab<V>> = Vec::new();
        let mut started: Option<(Rescale, Assembly<'_>)> = None;
        let start = |sample: &Sample| {
            let rescale = known.unwrap_or_else(|| candidates.guess(sample));
            let (conversion, scale) = self.conversion(rescale, None);
            (rescale, Assembly::new(plan, conversion, scale))
        };
        let file_notes = thread::scope(|scope| {
            let (full, slabs) = mpsc::sync_channel(SLABS);
            let (spare, empty) = mpsc::channel();
            // The receiver lives as long as the thread; once it has ended, nobody needs buffers.
            let give_back = |buffer| drop(spare.send(buffer));
            (0..SLABS).for_each(|_| give_back(Vec::new()));
            let thread = scope.spawn(move || read_slabs(reader, slab_slices, &empty, &full));
            for slab in slabs {
                sample.visit(
                    slab.first * plan.slice_voxels,
                    slab.stored(plan.slice_voxels),
                );
                held.push(slab);
                if known.is_none() && started.is_none() && held.len() < GUESS_SLABS {
                    give_back(Vec::new());
                    continue;
                }
                let (_, assembly) = started.get_or_insert_with(|| start(&sample));
                for slab in held.drain(..) {
                    assembly.push(slab.first, slab.stored(plan.slice_voxels));
                    give_back(slab.buffer);
                }
            }
            thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })?;
        // A scan of fewer slabs than the guess waits for.
        let (rescale, mut assembly) = started.unwrap_or_else(|| start(&sample));
        held.iter()
            .for_each(|slab| assembly.push(slab.first, slab.stored(plan.slice_voxels)));
        Ok(Pass {
            values: assembly.finish(),
            rescale,
            sample,
            file_notes,
        })
    }
}

/// What one reading of a file gives.
struct Pass {
    values: Vec<f32>,
    /// The reading under which they were made.
    rescale: Rescale,
    sample: Sample,
    file_notes: Vec<String>,
}

/// Neighbouring slices of a file.
struct Slab<V> {
    /// Number of the first one.
    first: usize,
    slices: usize,
    /// Their stored values.
    buffer: Vec<V>,
}

impl<V> Slab<V> {
    fn stored(&self, slice_voxels: usize) -> &[V] {
        &self.buffer[..self.slices * slice_voxels]
    }
}

/// Fills buffers until the file or the interest in it ends; the file's notes. Buffers may come empty and are enlarged
/// here, so that a short scan takes no more memory than it has slices.
fn read_slabs<V: Voxel>(
    mut reader: NiftiReader,
    slab_slices: usize,
    empty: &Receiver<Vec<V>>,
    full: &SyncSender<Slab<V>>,
) -> Result<Vec<String>> {
    let [columns, rows, _] = reader.grid().size;
    let mut first = 0;
    while reader.slices_left() > 0
        && let Ok(mut buffer) = empty.recv()
    {
        buffer.resize(
            slab_slices.min(reader.slices_left()) * columns * rows,
            V::default(),
        );
        let slices = reader.read_slices(&mut buffer)?;
        let slab = Slab {
            first,
            slices,
            buffer,
        };
        if full.send(slab).is_err() {
            break;
        }
        first += slices;
    }
    Ok(reader.notes().to_vec())
}
