//! A grid cut into tiles: a few planes of a few rows, the unit of work of most kernels.

use std::mem::MaybeUninit;

use rayon::prelude::*;

use crate::geometry::{Geometry, RowAt};
use crate::memory::zeroed;

/// Planes and rows of a tile.
const SIDE: usize = 4;
/// Tiles that a grid should have, so that threads find work.
const TILES: usize = 8;

/// Planes and rows of one volume.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tile {
    pub(crate) volume: usize,
    /// First plane and row.
    pub(crate) at: [usize; 2],
    /// Planes and rows.
    pub(crate) size: [usize; 2],
}

impl Tile {
    fn per_axis(geometry: Geometry, side: [usize; 2]) -> [usize; 2] {
        let [depth, height, _] = geometry.size;
        [depth.div_ceil(side[0]), height.div_ceil(side[1])]
    }

    fn per_volume(geometry: Geometry, side: [usize; 2]) -> usize {
        Self::per_axis(geometry, side).iter().product()
    }

    /// The tile with this number: tiles along height follow each other, then along depth, then volumes.
    fn of(geometry: Geometry, side: [usize; 2], index: usize) -> Self {
        let [depth, height, _] = geometry.size;
        let [planes, rows] = Self::per_axis(geometry, side);
        let at = [index / rows % planes * side[0], index % rows * side[1]];
        Self {
            volume: index / (planes * rows),
            at,
            size: [side[0].min(depth - at[0]), side[1].min(height - at[1])],
        }
    }

    /// The number of the tile that has this row.
    fn index_of(geometry: Geometry, side: [usize; 2], row: RowAt) -> usize {
        let [planes, rows] = Self::per_axis(geometry, side);
        (row.volume * planes + row.z / side[0]) * rows + row.y / side[1]
    }

    /// The rows of the tile, plane by plane.
    pub(crate) fn rows(self) -> impl Iterator<Item = RowAt> {
        let Self { volume, at, size } = self;
        (0..size[0]).flat_map(move |z| {
            (0..size[1]).map(move |y| RowAt {
                volume,
                z: at[0] + z,
                y: at[1] + y,
            })
        })
    }
}

/// The tiles of a grid, in their order.
pub(crate) fn tiles(geometry: Geometry, side: [usize; 2]) -> impl Iterator<Item = Tile> {
    let count = geometry.batch * Tile::per_volume(geometry, side);
    (0..count).map(move |index| Tile::of(geometry, side, index))
}

/// Planes and rows of the tiles of a grid: smaller where there would be few. It depends on the grid alone.
pub(crate) fn side(geometry: Geometry) -> [usize; 2] {
    let mut side = [SIDE; 2];
    while side != [1, 1] && geometry.batch * Tile::per_volume(geometry, side) < TILES {
        let axis = usize::from(side[0] < side[1]);
        side[axis] = side[axis].div_ceil(2);
    }
    side
}

/// Computes `N` grids of values tile by tile, on all threads: `work` fills the rows of a tile, which are zeros before. Its
/// results are in the order of the tiles.
///
/// A row is cleared when its tile's turn comes, while it is on its way to the cache anyway: a pass over memory less than
/// clearing the grids first.
pub(crate) fn map_tiles<T, R: Send, const N: usize>(
    geometry: Geometry,
    side: [usize; 2],
    init: impl Fn() -> T + Sync + Send,
    work: impl Fn(&mut T, Tile, [&mut [&mut [f32]]; N]) -> R + Sync + Send,
) -> ([Vec<f32>; N], Vec<R>) {
    let len = geometry.len();
    let mut grids: [Vec<f32>; N] = std::array::from_fn(|_| Vec::with_capacity(len));
    if len == 0 {
        return (grids, Vec::new());
    }
    let tiles = grids
        .each_mut()
        .map(|grid| cut(&mut grid.spare_capacity_mut()[..len], geometry, side));
    let mut of_tile: Vec<[Vec<&mut [MaybeUninit<f32>]>; N]> = Vec::new();
    let mut tiles = tiles.map(Vec::into_iter);
    for _tile in 0..tiles.first().map_or(0, ExactSizeIterator::len) {
        of_tile.push(tiles.each_mut().map(|rows| rows.next().expect("as many")));
    }
    let results = of_tile
        .into_par_iter()
        .enumerate()
        .map_init(init, |state, (index, rows)| {
            let mut rows = rows.map(|rows| rows.into_iter().map(zeroed).collect::<Vec<_>>());
            let rows = rows.each_mut().map(Vec::as_mut_slice);
            work(state, Tile::of(geometry, side, index), rows)
        })
        .collect();
    for grid in &mut grids {
        // SAFETY: the capacity is `len` at least. Every value lies in a row of a tile, and each tile was visited, whose rows
        // were cleared: a panic in one would have left this function.
        unsafe { grid.set_len(len) };
    }
    (grids, results)
}

/// The rows of a grid, tile by tile.
fn cut<V>(grid: &mut [V], geometry: Geometry, side: [usize; 2]) -> Vec<Vec<&mut [V]>> {
    let mut tiles: Vec<Vec<&mut [V]>> = Vec::new();
    tiles.resize_with(geometry.batch * Tile::per_volume(geometry, side), Vec::new);
    for (index, row) in grid.chunks_exact_mut(geometry.row_len()).enumerate() {
        tiles[Tile::index_of(geometry, side, geometry.row(index))].push(row);
    }
    tiles
}
