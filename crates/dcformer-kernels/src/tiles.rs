//! A grid cut into tiles: a few planes of a few rows, the unit of work of most kernels.

use rayon::prelude::*;

use crate::geometry::{Geometry, RowAt};

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

/// Planes and rows of the tiles of a grid: smaller where there would be few. It depends on the grid alone.
pub(crate) fn side(geometry: Geometry) -> [usize; 2] {
    let [depth, height, _] = geometry.size;
    let tiles = |[z, y]: [usize; 2]| geometry.batch * depth.div_ceil(z) * height.div_ceil(y);
    [
        [SIDE, SIDE],
        [SIDE / 2, SIDE],
        [SIDE / 2, SIDE / 2],
        [1, SIDE / 2],
    ]
    .into_iter()
    .find(|side| tiles(*side) >= TILES)
    .unwrap_or([1, 1])
}

/// Cuts a grid into tiles of `side` planes and rows and gives each to `work` with its rows of `out`, on all threads. The
/// results are in the order of the tiles.
pub(crate) fn map_tiles<T, R: Send>(
    out: &mut [f32],
    geometry: Geometry,
    side: [usize; 2],
    init: impl Fn() -> T + Sync + Send,
    work: impl Fn(&mut T, Tile, &mut [&mut [f32]]) -> R + Sync + Send,
) -> Vec<R> {
    if out.is_empty() {
        return Vec::new();
    }
    let [depth, height, _] = geometry.size;
    let per_axis = [depth.div_ceil(side[0]), height.div_ceil(side[1])];
    let mut all: Vec<(Tile, Vec<&mut [f32]>)> = (0..geometry.batch * per_axis[0] * per_axis[1])
        .map(|index| {
            let at = [
                index / per_axis[1] % per_axis[0] * side[0],
                index % per_axis[1] * side[1],
            ];
            let tile = Tile {
                volume: index / (per_axis[0] * per_axis[1]),
                at,
                size: [side[0].min(depth - at[0]), side[1].min(height - at[1])],
            };
            (tile, Vec::with_capacity(tile.size[0] * tile.size[1]))
        })
        .collect();
    for (index, row) in out.chunks_exact_mut(geometry.row_len()).enumerate() {
        let RowAt { volume, z, y } = geometry.row(index);
        let tile = (volume * per_axis[0] + z / side[0]) * per_axis[1] + y / side[1];
        all[tile].1.push(row);
    }
    all.into_par_iter()
        .map_init(init, |state, (tile, mut rows)| work(state, tile, &mut rows))
        .collect()
}
