//! Sizes and strides of a channels-last volume, shared by the kernels.

use std::ops::Range;

/// Sizes of a `[batch, depth, height, width, channels]` array. Every index into one comes from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    pub(crate) batch: usize,
    /// Depth, height, width.
    pub(crate) size: [usize; 3],
    pub(crate) channels: usize,
}

/// A row: all voxels of one `z` and `y` of one volume.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RowAt {
    pub(crate) volume: usize,
    pub(crate) z: usize,
    pub(crate) y: usize,
}

impl Geometry {
    pub(crate) fn of(shape: &[usize]) -> Self {
        let [batch, depth, height, width, channels] = *shape else {
            panic!("a volume has five dimensions, got {shape:?}")
        };
        Self {
            batch,
            size: [depth, height, width],
            channels,
        }
    }

    pub(crate) fn with_channels(self, channels: usize) -> Self {
        Self { channels, ..self }
    }

    /// Sizes after a stride, rounded up.
    pub(crate) fn strided(self, stride: usize) -> Self {
        Self {
            size: self.size.map(|size| size.div_ceil(stride)),
            ..self
        }
    }

    pub(crate) fn voxels(&self) -> usize {
        self.batch * self.size.iter().product::<usize>()
    }

    pub(crate) fn len(&self) -> usize {
        self.voxels() * self.channels
    }

    pub(crate) fn rows(&self) -> usize {
        self.batch * self.size[0] * self.size[1]
    }

    pub(crate) fn row_len(&self) -> usize {
        self.size[2] * self.channels
    }

    #[inline(always)]
    pub(crate) fn row(&self, index: usize) -> RowAt {
        let [depth, height, _] = self.size;
        RowAt {
            volume: index / (depth * height),
            z: index / height % depth,
            y: index % height,
        }
    }

    /// Index of the first value of a row.
    #[inline(always)]
    pub(crate) fn start(&self, row: RowAt) -> usize {
        let [depth, height, _] = self.size;
        ((row.volume * depth + row.z) * height + row.y) * self.row_len()
    }

    /// The row of `values` at a depth and height, if that is inside the volume.
    #[inline(always)]
    pub(crate) fn line<'a>(
        &self,
        values: &'a [f32],
        volume: usize,
        [z, y]: [isize; 2],
    ) -> Option<&'a [f32]> {
        let z = usize::try_from(z).ok().filter(|z| *z < self.size[0])?;
        let y = usize::try_from(y).ok().filter(|y| *y < self.size[1])?;
        let start = self.start(RowAt { volume, z, y });
        Some(&values[start..start + self.row_len()])
    }

    /// Values between neighbours along depth, height, width.
    #[inline(always)]
    pub(crate) fn strides(&self) -> [usize; 3] {
        let [_, height, width] = self.size;
        [
            height * width * self.channels,
            width * self.channels,
            self.channels,
        ]
    }

    pub(crate) fn shape(&self) -> [usize; 5] {
        let [depth, height, width] = self.size;
        [self.batch, depth, height, width, self.channels]
    }
}

/// Rows of one partial sum over a whole volume: about 32 partials whatever the size, so that the order of additions
/// depends on the data alone and never on the number of threads.
pub(crate) fn rows_per_partial(rows: usize) -> usize {
    rows.div_ceil(32).max(1)
}

/// `0..len` cut into ranges of `step`, the last one shorter where it does not fit.
pub(crate) fn ranges(len: usize, step: usize) -> impl Iterator<Item = Range<usize>> {
    (0..len)
        .step_by(step)
        .map(move |start| start..(start + step).min(len))
}
