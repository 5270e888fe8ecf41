//! The block on the CPU, tile by tile: a tile's mixed values, hidden values and outputs stay in the near caches.

use crate::depthwise_decomposed::cpu::Filters;
use crate::depthwise_decomposed::tile::{ConvolveTile, PaddedFilters};
use crate::geometry::Geometry;
use crate::matmul::{Broadcast, Panels, Product, Store};
use crate::simd::Level;
use crate::tiles::{Tile, map_tiles, side};

/// The operands of one call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MixerMlp<'a> {
    pub(crate) filters: Filters<'a>,
    pub(crate) bias: &'a [f32],
    pub(crate) w1: &'a [f32],
    pub(crate) b1: &'a [f32],
    pub(crate) w2: &'a [f32],
    pub(crate) b2: &'a [f32],
}

/// Values of the hidden layer that are computed together: 256 KB, part of a second-level cache.
const HIDDEN_VALUES: usize = 64 * 1024;

/// Room that a thread uses again.
#[derive(Default)]
struct Scratch {
    mixed: Vec<f32>,
    hidden: Vec<f32>,
}

impl MixerMlp<'_> {
    /// See [`mixer_mlp`](super::mixer_mlp()).
    pub(crate) fn forward(&self, level: Level, x: &[f32], geometry: Geometry) -> Vec<f32> {
        assert_eq!(x.len(), geometry.len());
        let (channels, hidden) = (geometry.channels, self.b1.len());
        let filters = PaddedFilters::new(level, self.filters, self.bias);
        let w1 = Panels::of(level, self.w1, channels, hidden);
        let w2 = Panels::of(level, self.w2, hidden, channels);
        // A multiple of every register tile's height.
        let voxels = (HIDDEN_VALUES / hidden.max(1))
            .clamp(24, 384)
            .next_multiple_of(24);
        let work = |scratch: &mut Scratch, tile: Tile, [out]: [&mut [&mut [f32]]; 1]| {
            let row_len = geometry.row_len();
            scratch.mixed.resize(out.len() * row_len, 0.0);
            let mut mixed: Vec<&mut [f32]> = scratch.mixed.chunks_exact_mut(row_len).collect();
            level.run(ConvolveTile {
                x,
                filters: &filters,
                geometry,
                tile,
                out: &mut mixed,
            });
            for mixed in scratch.mixed.chunks_mut(voxels * channels) {
                let rows = mixed.len() / channels;
                scratch.hidden.resize(rows * hidden, 0.0);
                level.run(Product {
                    a: Broadcast::rows(mixed, channels),
                    b: &w1,
                    out: &mut scratch.hidden,
                    store: Store::BiasedGelu(self.b1),
                });
                level.run(Product {
                    a: Broadcast::rows(&scratch.hidden, hidden),
                    b: &w2,
                    out: mixed,
                    store: Store::Biased(self.b2),
                });
            }
            let residual = scratch.mixed.chunks_exact(row_len);
            for ((row, residual), out) in tile.rows().zip(residual).zip(out) {
                let x = &x[geometry.start(row)..][..row_len];
                for ((out, x), residual) in out.iter_mut().zip(x).zip(residual) {
                    *out = x + residual;
                }
            }
        };
        let ([out], _) = map_tiles(geometry, side(geometry), Scratch::default, work);
        out
    }
}
