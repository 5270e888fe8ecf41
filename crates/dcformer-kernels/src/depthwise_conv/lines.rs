//! How the kernels of a depthwise convolution see a grid: a window of taps, and rows cut into vectors with zeros around.

use std::ops::Range;

use crate::geometry::ranges;
use crate::simd::Simd;

/// Vectors of a strip: the lines that a row of outputs reads, seven of them in ConvNeXt, fit into a first-level cache.
const STRIP: usize = 32;

/// The taps of a filter along depth, height and width, and how many of them lie before its centre.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) taps: [usize; 3],
    pub(crate) before: [usize; 3],
}

impl Window {
    /// Number of taps.
    pub(crate) fn len(self) -> usize {
        self.taps.iter().product()
    }

    /// The window of the filters read backwards: what an input's gradient collects from.
    pub(crate) fn reversed(self) -> Self {
        let mut before = self.before;
        for (before, taps) in before.iter_mut().zip(self.taps) {
            *before = taps - 1 - *before;
        }
        Self { before, ..self }
    }

    /// The taps of the output at `position` whose inputs are inside an axis of `size`.
    #[inline(always)]
    pub(super) fn inside(self, axis: usize, position: usize, size: usize) -> Range<usize> {
        let (taps, before) = (self.taps[axis], self.before[axis]);
        before.saturating_sub(position)..taps.min(size + before - position)
    }

    /// The tap with which the output at `output` reads `input`, if it does.
    #[inline(always)]
    pub(super) fn tap(self, axis: usize, output: usize, input: usize) -> Option<usize> {
        (input + self.before[axis])
            .checked_sub(output)
            .filter(|tap| *tap < self.taps[axis])
    }

    /// Of some outputs, those that read an input inside an axis of `size` with this tap.
    #[inline(always)]
    pub(super) fn outputs(
        self,
        axis: usize,
        tap: usize,
        outputs: Range<usize>,
        size: usize,
    ) -> Range<usize> {
        let before = self.before[axis];
        let end = (size + before).saturating_sub(tap).min(outputs.end);
        before.saturating_sub(tap).max(outputs.start)..end
    }

    /// The inputs inside an axis of `size` that any of the outputs reads.
    #[inline(always)]
    pub(super) fn reach(self, axis: usize, outputs: Range<usize>, size: usize) -> Range<usize> {
        let behind = self.taps[axis] - 1 - self.before[axis];
        outputs.start.saturating_sub(self.before[axis])..(outputs.end + behind).min(size)
    }
}

/// How channels are cut into vectors.
///
/// A vector holds as many channels as it has lanes; the last begins early enough to be full, so that some channels are
/// computed twice and no load is partial. Of fewer channels than lanes, a vector holds all, of as many neighbouring voxels
/// as fit; lanes left over carry no meaning.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packing {
    channels: usize,
    lanes: usize,
}

impl Packing {
    #[inline(always)]
    pub(super) fn new(channels: usize, lanes: usize) -> Self {
        Self { channels, lanes }
    }

    /// Whether every lane of a vector is a channel of one voxel.
    #[inline(always)]
    pub(super) fn is_whole(self) -> bool {
        self.channels >= self.lanes
    }

    /// Vectors that cover the channels.
    #[inline(always)]
    pub(super) fn vectors(self) -> usize {
        self.channels.div_ceil(self.lanes)
    }

    /// Neighbouring voxels in one vector.
    #[inline(always)]
    pub(super) fn voxels(self) -> usize {
        (self.lanes / self.channels).max(1)
    }

    /// Channels of a voxel in one vector, and values from a voxel to the next in a line.
    #[inline(always)]
    pub(super) fn stride(self) -> usize {
        self.channels.min(self.lanes)
    }

    /// Values from a vector to the next in a line.
    #[inline(always)]
    pub(super) fn step(self) -> usize {
        self.voxels() * self.stride()
    }

    /// First channel of a vector.
    #[inline(always)]
    pub(super) fn first(self, vector: usize) -> usize {
        (vector * self.lanes).min(self.channels - self.stride())
    }

    /// Fills the lanes of a vector with values of their channels; those that mean none stay as they are.
    pub(super) fn pack(self, vector: usize, channels: &[f32], lanes: &mut [f32]) {
        let channels = &channels[self.first(vector)..][..self.stride()];
        for lanes in lanes.chunks_exact_mut(channels.len()) {
            lanes.copy_from_slice(channels);
        }
    }

    /// Writes a vector's lanes to their channels, the sum over the voxels of the vector.
    pub(super) fn unpack<T: Copy + Into<f64>>(self, vector: usize, lanes: &[T], to: &mut [f32]) {
        let (stride, first) = (self.stride(), self.first(vector));
        for (channel, to) in to[first..first + stride].iter_mut().enumerate() {
            let voxels = lanes[channel..self.step()].iter().step_by(stride);
            *to = voxels.map(|lane| (*lane).into()).sum::<f64>() as f32;
        }
    }

    /// The strips of a row of `width` voxels: what is computed at a time.
    pub(super) fn strips(self, width: usize) -> impl Iterator<Item = Range<usize>> {
        ranges(width, STRIP * self.voxels())
    }

    /// Values of a line for `vectors` outputs of `taps` taps.
    #[inline(always)]
    pub(super) fn line_len(self, vectors: usize, taps: usize) -> usize {
        (vectors * self.voxels() + taps - 1) * self.stride() + self.lanes - self.stride()
    }
}

/// A strip of a row in one vector of channels, with `before` voxels in front.
#[derive(Clone, Debug)]
pub(super) struct Strip {
    pub(super) packing: Packing,
    pub(super) vector: usize,
    pub(super) voxels: Range<usize>,
    pub(super) before: usize,
}

impl Strip {
    /// Vectors of the strip's outputs.
    #[inline(always)]
    pub(super) fn vectors(&self) -> usize {
        self.voxels.len().div_ceil(self.packing.voxels())
    }

    /// Copies the first `end` voxels of a row, `[width, channels]`, as far as the strip has room for them; zeros elsewhere.
    #[inline(always)]
    pub(super) fn copy<S: Simd>(&self, simd: S, row: &[f32], end: usize, line: &mut [f32]) {
        let channels = self.packing.channels;
        let (stride, first) = (self.packing.stride(), self.packing.first(self.vector));
        let from = self.voxels.start.saturating_sub(self.before);
        let zeros = (from + self.before - self.voxels.start) * stride;
        let voxels = ((line.len() - zeros) / stride).min(end - from);
        let (head, rest) = line.split_at_mut(zeros);
        let (values, tail) = rest.split_at_mut(voxels * stride);
        head.fill(0.0);
        tail.fill(0.0);
        let row = &row[from * channels..];
        if stride == channels {
            values.copy_from_slice(&row[..values.len()]);
            return;
        }
        for (voxel, to) in values.chunks_exact_mut(S::LANES).enumerate() {
            simd.store(simd.load(&row[voxel * channels + first..]), to);
        }
    }
}
