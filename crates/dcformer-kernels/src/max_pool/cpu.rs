//! Max pooling on the CPU, with the winner of each window remembered in one byte for the backward pass.

use rayon::prelude::*;

use crate::geometry::{Geometry, RowAt};
use crate::matmul::{Broadcast, Panels, Product, Store};
use crate::memory::zeros;
use crate::simd::{Kernel, Level, Simd};

/// Voxels along each side of a window.
const WINDOW: usize = 3;

/// Pooled values and, per value, which of the 27 places of its window won.
#[derive(Clone, Debug)]
pub(crate) struct Pooled {
    pub(crate) values: Vec<f32>,
    pub(crate) winners: Vec<u8>,
}

/// The positions inside an axis of `size` that a window reads: padding is 1 on each side.
#[inline(always)]
fn windows_of(window: usize, size: usize) -> std::ops::Range<usize> {
    (2 * window).saturating_sub(1)..(2 * window + 2).min(size)
}

/// The name of a winner: its place in the window, counted from the window's own first position, which may be padding.
#[inline(always)]
fn name_of(places: [(usize, usize); 3]) -> usize {
    places.into_iter().fold(0, |name, (position, window)| {
        name * WINDOW + position + 1 - 2 * window
    })
}

/// [`max_pool`](super::max_pool()) of whole rows: the largest of the lines that its windows reach, then of neighbours.
struct PoolLines<'a> {
    /// `[voxels, channels]` each, at least one.
    lines: &'a [&'a [f32]],
    channels: usize,
    /// Room for a line.
    tallest: &'a mut Vec<f32>,
    /// `[ceil(voxels / 2), channels]`
    out: &'a mut [f32],
}

impl Kernel for PoolLines<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self {
            lines,
            channels,
            tallest,
            out,
        } = self;
        let len = lines[0].len();
        tallest.resize(len, 0.0);
        for (index, tallest) in tallest.chunks_mut(S::LANES).enumerate() {
            let here = index * S::LANES..index * S::LANES + tallest.len();
            let mut largest = simd.load_partial(&lines[0][here.clone()]);
            for line in &lines[1..] {
                largest = simd.max(largest, simd.load_partial(&line[here.clone()]));
            }
            simd.store_partial(largest, tallest);
        }
        for (window, out) in out.chunks_exact_mut(channels).enumerate() {
            let voxels = windows_of(window, len / channels);
            for (index, out) in out.chunks_mut(S::LANES).enumerate() {
                let at = |voxel: usize| {
                    let start = voxel * channels + index * S::LANES;
                    simd.load_partial(&tallest[start..start + out.len()])
                };
                let mut largest = at(voxels.start);
                for voxel in voxels.start + 1..voxels.end {
                    largest = simd.max(largest, at(voxel));
                }
                simd.store_partial(largest, out);
            }
        }
    }
}

/// Room that a thread uses again.
#[derive(Debug, Default)]
pub(crate) struct PoolScratch {
    tallest: Vec<f32>,
    pooled: Vec<f32>,
}

impl PoolScratch {
    /// One row of the pooled grid, `[ceil(width / 2), channels]`; `line` gives the rows of a grid of `geometry`'s sizes.
    pub(crate) fn row<'a>(
        &mut self,
        level: Level,
        [z, y]: [usize; 2],
        geometry: Geometry,
        line: impl Fn([isize; 2]) -> Option<&'a [f32]>,
    ) -> &[f32] {
        let [depth, height, _] = geometry.size;
        let lines: Vec<&[f32]> = windows_of(z, depth)
            .flat_map(|z| windows_of(y, height).map(move |y| [z as isize, y as isize]))
            .filter_map(line)
            .collect();
        self.pooled.resize(geometry.strided(2).row_len(), 0.0);
        level.run(PoolLines {
            lines: &lines,
            channels: geometry.channels,
            tallest: &mut self.tallest,
            out: &mut self.pooled,
        });
        &self.pooled
    }
}

/// The pooled rows, each given to `finish` with its place in the output, on all threads.
fn for_each_pooled_row(
    level: Level,
    x: &[f32],
    geometry: Geometry,
    out: &mut [f32],
    columns: usize,
    finish: impl Fn(&[f32], &mut [f32]) + Sync,
) {
    assert_eq!(x.len(), geometry.len());
    let pooled = geometry.strided(2);
    if out.is_empty() || geometry.len() == 0 {
        return;
    }
    out.par_chunks_mut(pooled.size[2] * columns)
        .enumerate()
        .for_each_init(PoolScratch::default, |scratch, (row, out)| {
            let row = pooled.row(row);
            let line = |at| geometry.line(x, row.volume, at);
            finish(scratch.row(level, [row.z, row.y], geometry, line), out);
        });
}

/// See [`max_pool`](super::max_pool()); without the winners.
pub(crate) fn values(level: Level, x: &[f32], geometry: Geometry) -> Vec<f32> {
    let mut out = zeros(geometry.strided(2).len());
    for_each_pooled_row(
        level,
        x,
        geometry,
        &mut out,
        geometry.channels,
        |row, out| {
            out.copy_from_slice(row);
        },
    );
    out
}

/// See [`pool_project`](super::pool_project()); `weight`: `[channels, channels_out]`.
pub(crate) fn project(
    level: Level,
    x: &[f32],
    weight: &[f32],
    channels_out: usize,
    geometry: Geometry,
) -> Vec<f32> {
    let panels = Panels::of(level, weight, geometry.channels, channels_out);
    let mut out = zeros(geometry.strided(2).with_channels(channels_out).len());
    for_each_pooled_row(level, x, geometry, &mut out, channels_out, |row, out| {
        level.run(Product {
            a: Broadcast::rows(row, geometry.channels),
            b: &panels,
            out,
            store: Store::Plain,
        });
    });
    out
}

/// See [`max_pool`](super::max_pool()).
pub(crate) fn forward(level: Level, x: &[f32], geometry: Geometry) -> Pooled {
    assert_eq!(x.len(), geometry.len());
    let out = geometry.strided(2);
    let mut pooled = Pooled {
        values: zeros(out.len()),
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
                for z in windows_of(row.z, depth) {
                    for y in windows_of(row.y, height) {
                        let line = geometry.start(RowAt { z, y, ..row });
                        for position in windows_of(window, width) {
                            let index = line + position * channels + channel;
                            let value = simd.load_partial(&x[index..index + lanes]);
                            let places = [(z, row.z), (y, row.y), (position, window)];
                            let name = simd.splat(name_of(places) as f32);
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
    let mut collected = zeros(geometry.len());
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
    let odd = position % 2;
    [(position / 2, 1 + odd), (position / 2 + 1, 0)]
        .into_iter()
        .take(1 + odd)
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
