//! A scan in memory: voxels, their meaning and their place.

use std::ops::Range;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::geometry::{AxisMap, Grid, Orientation};

/// Stored values, `i` fastest, then `j`, then `k`.
///
/// Sixteen-bit integers stay integers: a chest CT is 200 MB that way and 400 MB as floats.
#[derive(Clone, Debug, PartialEq)]
pub enum Voxels {
    /// Every integer type whose values fit.
    I16(Vec<i16>),
    /// Everything else.
    ///
    /// Readers keep values that are not finite, since only the files' writers know what they stand for. Preprocessing
    /// decides: infinities clip to the ends of the window like any other value, and NaN, with which programs fill
    /// what the scanner did not see, clips to the lower end, air.
    F32(Vec<f32>),
}

impl Voxels {
    /// Number of voxels.
    pub fn len(&self) -> usize {
        match self {
            Self::I16(values) => values.len(),
            Self::F32(values) => values.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of values that are NaN or infinite.
    pub fn count_not_finite(&self) -> usize {
        match self {
            Self::I16(_) => 0,
            Self::F32(values) => values.iter().filter(|value| !value.is_finite()).count(),
        }
    }
}

/// `value = slope * stored + intercept`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rescale {
    /// Factor.
    pub slope: f64,
    /// Added after the multiplication, in the unit of the result.
    pub intercept: f64,
}

impl Rescale {
    /// Stored values are the values.
    pub const NONE: Self = Self {
        slope: 1.0,
        intercept: 0.0,
    };

    /// Rescales one value.
    pub fn apply(self, stored: f64) -> f64 {
        self.slope * stored + self.intercept
    }
}

/// A scan: stored voxels, the rescaling that its own header asks for, and its grid.
#[derive(Clone, Debug, PartialEq)]
pub struct Volume {
    /// Stored values; `voxels.len() == grid.voxels()`.
    pub voxels: Voxels,
    /// What the header says the values mean (Hounsfield units in a well-formed CT).
    pub rescale: Rescale,
    /// Where the voxels are.
    pub grid: Grid,
}

impl Volume {
    /// The same voxels stored so that the axes point to `target`, or as closely as whole axes can where the grid is
    /// oblique. Nothing is resampled; a volume that is stored so already is returned as it is.
    ///
    /// # Panics
    /// If the number of voxels is not that of the grid.
    pub fn reoriented(self, target: Orientation) -> Self {
        let map = self.grid.axes_to(target);
        assert_eq!(
            self.voxels.len(),
            self.grid.voxels(),
            "voxels do not fill the grid"
        );
        let voxels = match self.voxels {
            unchanged if map == AxisMap::IDENTITY => unchanged,
            Voxels::I16(values) => Voxels::I16(permute(&values, self.grid.size, map)),
            Voxels::F32(values) => Voxels::F32(permute(&values, self.grid.size, map)),
        };
        Self {
            voxels,
            rescale: self.rescale,
            grid: self.grid.mapped(map),
        }
    }
}

/// Edge of a square of voxels that is read along one axis and written along another: at 2 bytes a voxel, rows of two
/// cache lines, and a quarter of a first-level cache.
const TILE: usize = 64;

/// Copies `values`, an array of `size`, with its axes mapped.
pub(crate) fn permute<V: Copy + Default + Send + Sync>(
    values: &[V],
    size: [usize; 3],
    map: AxisMap,
) -> Vec<V> {
    let stored_stride = [1, size[0], size[0] * size[1]];
    let source = Source {
        values,
        size: map.from.map(|axis| size[axis]),
        stride: map.from.map(|axis| stored_stride[axis]),
        reversed: map.reversed,
    };
    let [width, height, _] = source.size;
    let mut out = vec![V::default(); values.len()];
    // The new axis that runs along stored neighbours.
    match map.from.iter().position(|&axis| axis == 0) {
        Some(1) => out
            .par_chunks_mut(width * height)
            .enumerate()
            .for_each_init(
                || vec![V::default(); TILE * TILE],
                |tile, (k, out)| source.copy_plane(1, (2, k), out, width, tile),
            ),
        Some(2) => out
            .par_chunks_mut(width * height * TILE)
            .enumerate()
            .for_each_init(
                || vec![V::default(); TILE * TILE],
                |tile, (block, out)| {
                    let planes = block * TILE..source.size[2].min((block + 1) * TILE);
                    for j in 0..height {
                        source.copy_tiles(
                            2,
                            planes.clone(),
                            (1, j),
                            &mut out[width * j..],
                            width * height,
                            tile,
                        );
                    }
                },
            ),
        _ => out
            .par_chunks_mut(width)
            .enumerate()
            .for_each(|(row, out)| {
                source.copy_row(
                    0,
                    0..width,
                    source.offset(1, row % height) + source.offset(2, row / height),
                    out,
                );
            }),
    }
    out
}

/// A stored array seen along new axes.
struct Source<'a, V> {
    values: &'a [V],
    /// Voxels along the new axes.
    size: [usize; 3],
    /// Distance in `values` from one voxel to the next along the new axes, before any reversal.
    stride: [usize; 3],
    reversed: [bool; 3],
}

impl<V: Copy> Source<'_, V> {
    /// What an index along one axis adds to the position in `values`.
    fn offset(&self, axis: usize, index: usize) -> usize {
        let last = self.size[axis] - 1;
        self.stride[axis]
            * if self.reversed[axis] {
                last - index
            } else {
                index
            }
    }

    /// Copies voxels of the axis `along`, whose neighbours are stored neighbours; `base` is the position that the other
    /// indices give.
    fn copy_row(&self, along: usize, range: Range<usize>, base: usize, out: &mut [V]) {
        let (first, last) = (
            self.offset(along, range.start),
            self.offset(along, range.end - 1),
        );
        let row = &self.values[base + first.min(last)..=base + first.max(last)];
        if self.reversed[along] {
            out.iter_mut()
                .zip(row.iter().rev())
                .for_each(|(out, &value)| *out = value);
        } else {
            out.copy_from_slice(row);
        }
    }

    /// Copies voxels in squares that span the innermost new axis and the axis `along`, whose neighbours are stored
    /// neighbours. Stored voxels along the innermost axis are usually a power of two apart, where caches hold few of
    /// them at once; so each square goes through `tile`, whole cache lines in, whole cache lines out.
    ///
    /// `fixed` is the third axis and the index along it; rows of `out`, one for each of `range`, begin `pitch` apart.
    fn copy_tiles(
        &self,
        along: usize,
        range: Range<usize>,
        fixed: (usize, usize),
        out: &mut [V],
        pitch: usize,
        tile: &mut [V],
    ) {
        let width = self.size[0];
        for first in (0..width).step_by(TILE) {
            let columns = first..width.min(first + TILE);
            for (row, i) in tile.chunks_mut(TILE).zip(columns.clone()) {
                let base = self.offset(0, i) + self.offset(fixed.0, fixed.1);
                self.copy_row(along, range.clone(), base, &mut row[..range.len()]);
            }
            for index in 0..range.len() {
                let out = &mut out[index * pitch..][columns.clone()];
                for (out, row) in out.iter_mut().zip(tile.chunks(TILE)) {
                    *out = row[index];
                }
            }
        }
    }

    /// Copies a whole plane, `along` and the innermost axis, tile by tile.
    fn copy_plane(
        &self,
        along: usize,
        fixed: (usize, usize),
        out: &mut [V],
        pitch: usize,
        tile: &mut [V],
    ) {
        for first in (0..self.size[along]).step_by(TILE) {
            let range = first..self.size[along].min(first + TILE);
            self.copy_tiles(along, range, fixed, &mut out[first * pitch..], pitch, tile);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::geometry::{Affine, Direction};

    /// All 48: six orders of the lines, each axis in either direction.
    fn any_orientation() -> impl Strategy<Value = Orientation> {
        const LINES: [[Direction; 2]; 3] = [
            [Direction::Right, Direction::Left],
            [Direction::Anterior, Direction::Posterior],
            [Direction::Superior, Direction::Inferior],
        ];
        let order = Just([0, 1, 2]).prop_shuffle();
        (order, any::<[bool; 3]>()).prop_map(|(order, opposite)| {
            Orientation([0, 1, 2].map(|axis| LINES[order[axis]][usize::from(opposite[axis])]))
        })
    }

    /// Voxels that all differ, on an oblique, anisotropic grid.
    fn any_volume() -> impl Strategy<Value = Volume> {
        let size = prop_oneof![
            Just([3, 4, 5]),
            Just([70, 2, 67]),
            Just([1, 130, 3]),
            Just([65, 66, 1])
        ];
        (size, -0.6_f64..0.6).prop_map(|(size, angle)| {
            let (sin, cos) = angle.sin_cos();
            let [x, y, z] = [0.7, 0.9, 2.5];
            let matrix = [
                [-x, 0.0, 0.0, 12.0],
                [0.0, -y * cos, -z * sin, -7.0],
                [0.0, -y * sin, z * cos, 80.0],
            ];
            let grid = Grid {
                size,
                affine: Affine { matrix },
            };
            let values = (0..grid.voxels()).map(|value| value as i16).collect();
            Volume {
                voxels: Voxels::I16(values),
                rescale: Rescale::NONE,
                grid,
            }
        })
    }

    /// The formula, one voxel at a time.
    fn permuted_slowly(volume: &Volume, map: AxisMap) -> Vec<i16> {
        let Voxels::I16(values) = &volume.voxels else {
            panic!("the volume holds integers")
        };
        let size = volume.grid.size;
        let new_size = map.from.map(|axis| size[axis]);
        let mut out = Vec::new();
        for k in 0..new_size[2] {
            for j in 0..new_size[1] {
                for i in 0..new_size[0] {
                    let mut stored = [0; 3];
                    for (axis, index) in [i, j, k].into_iter().enumerate() {
                        stored[map.from[axis]] = if map.reversed[axis] {
                            new_size[axis] - 1 - index
                        } else {
                            index
                        };
                    }
                    out.push(values[stored[0] + size[0] * (stored[1] + size[1] * stored[2])]);
                }
            }
        }
        out
    }

    proptest! {
        #[test]
        fn every_orientation_holds_the_same_anatomy(volume in any_volume(), stored in any_orientation()) {
            prop_assert_eq!(volume.grid.orientation(), Orientation::LPS);
            let other = volume.clone().reoriented(stored);
            prop_assert_eq!(other.grid.orientation(), stored);
            prop_assert_eq!(&other.voxels, &Voxels::I16(permuted_slowly(&volume, volume.grid.axes_to(stored))));

            // A voxel keeps its place in the patient.
            let map = volume.grid.axes_to(stored);
            let index = [0, 1, 2].map(|axis| volume.grid.size[axis] / 3);
            let new_index = [0, 1, 2].map(|axis| {
                let index = index[map.from[axis]];
                if map.reversed[axis] { other.grid.size[axis] - 1 - index } else { index }
            });
            let before = volume.grid.affine.apply(index.map(|index| index as f64));
            let after = other.grid.affine.apply(new_index.map(|index| index as f64));
            for (before, after) in before.into_iter().zip(after) {
                // Rounding of sums of a few hundred millimetres.
                prop_assert!((before - after).abs() < 1e-10);
            }

            let back = other.reoriented(Orientation::LPS);
            prop_assert_eq!(&back.voxels, &volume.voxels);
            prop_assert_eq!(back.grid.size, volume.grid.size);
            let pairs = back.grid.affine.matrix.iter().flatten().zip(volume.grid.affine.matrix.iter().flatten());
            for (found, expected) in pairs {
                prop_assert!((found - expected).abs() < 1e-10);
            }
        }
    }
}
