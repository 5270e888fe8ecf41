//! Max pooling on the CPU, with the winner of each window remembered in one byte for the backward pass.

use rayon::prelude::*;

use crate::geometry::{Geometry, RowAt};
use crate::simd::{Kernel, Level, Simd};

/// Voxels along each side of a window.
const WINDOW: usize = 3;

/// Pooled values and, per value, which of the 27 places of its window won.
#[derive(Clone, Debug)]
pub(crate) struct Pooled {
    pub(crate) values: Vec<f32>,
    pub(crate) winners: Vec<u8>,
}

/// See [`max_pool`](super::max_pool()).
pub(crate) fn forward(level: Level, x: &[f32], geometry: Geometry) -> Pooled {
    assert_eq!(x.len(), geometry.len());
    let out = geometry.strided(2);
    let mut pooled = Pooled {
        values: vec![0.0; out.len()],
        winners: vec![0; out.len()],
    };
    if out.len() == 0 {
        return pooled;
    }
    pooled
        .values
        .par_chunks_mut(out.row_len())
        .zip(pooled.winners.par_chunks_mut(out.row_len()))
        .enumerate()
        .for_each(|(row, (values, winners))| {
            level.run(PoolRow {
                x,
                values,
                winners,
                row: out.row(row),
                geometry,
            });
        });
    pooled
}

struct PoolRow<'a> {
    x: &'a [f32],
    values: &'a mut [f32],
    winners: &'a mut [u8],
    row: RowAt,
    geometry: Geometry,
}

/// Places of a window that are inside the volume, given its index along an axis: padding is 1 on each side.
#[inline(always)]
fn places(window: usize, size: usize) -> std::ops::Range<usize> {
    let from = usize::from(window == 0);
    from..WINDOW.min(size + 1 - 2 * window)
}

impl Kernel for PoolRow<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self {
            x,
            values,
            winners,
            row,
            geometry,
        } = self;
        let Geometry {
            size: [depth, height, width],
            channels,
            ..
        } = geometry;
        let cells = values
            .chunks_exact_mut(channels)
            .zip(winners.chunks_exact_mut(channels));
        for (window, (values, winners)) in cells.enumerate() {
            let mut channel = 0;
            while channel < channels {
                let lanes = S::LANES.min(channels - channel);
                let mut best: Option<(S::F32, S::F32)> = None;
                for z in places(row.z, depth) {
                    for y in places(row.y, height) {
                        let source = RowAt {
                            volume: row.volume,
                            z: 2 * row.z + z - 1,
                            y: 2 * row.y + y - 1,
                        };
                        let line = geometry.start(source);
                        for place in places(window, width) {
                            let index = line + (2 * window + place - 1) * channels + channel;
                            let value = simd.load_partial(&x[index..index + lanes]);
                            let name = simd.splat(((z * WINDOW + y) * WINDOW + place) as f32);
                            best = Some(match best {
                                None => (value, name),
                                Some((best, winner)) => {
                                    let behind = simd.sub(best, value);
                                    (
                                        simd.if_negative(behind, value, best),
                                        simd.if_negative(behind, name, winner),
                                    )
                                }
                            });
                        }
                    }
                }
                if let Some((value, winner)) = best {
                    simd.store_partial(value, &mut values[channel..channel + lanes]);
                    let mut names = [0.0; crate::simd::MAX_LANES];
                    simd.store(winner, &mut names);
                    for (winner, name) in winners[channel..channel + lanes].iter_mut().zip(names) {
                        *winner = name as u8;
                    }
                }
                channel += lanes;
            }
        }
    }
}

/// Gradient of the input: every voxel collects from the windows that it won, so threads share no output.
pub(crate) fn backward(
    level: Level,
    gradient: &[f32],
    winners: &[u8],
    geometry: Geometry,
) -> Vec<f32> {
    let out = geometry.strided(2);
    assert_eq!(gradient.len(), out.len());
    assert_eq!(winners.len(), out.len());
    let mut collected = vec![0.0; geometry.len()];
    if collected.is_empty() {
        return collected;
    }
    collected
        .par_chunks_mut(geometry.row_len())
        .enumerate()
        .for_each(|(row, collected)| {
            level.run(CollectRow {
                gradient,
                winners,
                collected,
                row: geometry.row(row),
                geometry,
            });
        });
    collected
}

struct CollectRow<'a> {
    gradient: &'a [f32],
    winners: &'a [u8],
    collected: &'a mut [f32],
    row: RowAt,
    geometry: Geometry,
}

/// The windows that cover a position, with the place that it has in each: one for even positions, two for odd.
#[inline(always)]
fn windows(position: usize, windows: usize) -> impl Iterator<Item = (usize, usize)> {
    let first = (position / 2, if position.is_multiple_of(2) { 1 } else { 2 });
    let second = (!position.is_multiple_of(2)).then_some((position / 2 + 1, 0));
    std::iter::once(first)
        .chain(second)
        .filter(move |(window, _)| *window < windows)
}

impl Kernel for CollectRow<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let Self {
            gradient,
            winners,
            collected,
            row,
            geometry,
        } = self;
        let channels = geometry.channels;
        let out = geometry.strided(2);
        for (position, collected) in collected.chunks_exact_mut(channels).enumerate() {
            for (window_z, z) in windows(row.z, out.size[0]) {
                for (window_y, y) in windows(row.y, out.size[1]) {
                    for (window_x, x) in windows(position, out.size[2]) {
                        let line = out.start(RowAt {
                            volume: row.volume,
                            z: window_z,
                            y: window_y,
                        });
                        let start = line + window_x * channels;
                        let name = ((z * WINDOW + y) * WINDOW + x) as u8;
                        let gradient = &gradient[start..start + channels];
                        let winners = &winners[start..start + channels];
                        for ((collected, gradient), winner) in
                            collected.iter_mut().zip(gradient).zip(winners)
                        {
                            *collected += if *winner == name { *gradient } else { 0.0 };
                        }
                    }
                }
            }
        }
    }
}
