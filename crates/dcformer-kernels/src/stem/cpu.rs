//! The stem on the CPU, as a pipeline of planes.
//!
//! A layer of three taps reads three planes of the one before, so it can compute plane `z` as soon as its predecessor has
//! plane `z + 1`. One step computes one plane of every layer, each two planes behind its predecessor; six planes of each
//! layer are kept, the three being read, the one being written, and up to the one two further on, where it leaves what both
//! share ([`pairs`]). What a step reads was written in earlier steps, so all its rows are independent: threads take them as
//! they come, and do not sleep between steps ([`in_steps`]).
//!
//! The features of the whole grid, 134 MB for a full chest CT, never exist: planes are read again while they are in the
//! cache, and the memory of the stem is that of a dozen planes.

use super::compose::compose;
use crate::dense_decomposed::cpu::{Filters, RowConv};
use crate::dense_decomposed::pairs;
use crate::dense_decomposed::stencil::{Part, Stencil, StencilRow};
use crate::gelu;
use crate::geometry::Geometry;
use crate::matmul::{Broadcast, Panels, Product, Store};
use crate::max_pool::cpu::PoolScratch;
use crate::memory::zeros;
use crate::shared::SharedSlice;
use crate::simd::Level;
use crate::workers::in_steps;

/// The operands of one call.
#[derive(Debug)]
pub(crate) struct Stem<'a> {
    /// Filters and bias of each convolution.
    pub(crate) convs: Vec<(Filters<'a>, &'a [f32])>,
    /// `[channels, channels_out]`
    pub(crate) projection: &'a [f32],
    pub(crate) stride: usize,
    pub(crate) activate: bool,
}

/// Rows of one task.
const ROWS: usize = pairs::ROWS;

impl Stem<'_> {
    /// The geometry of the output; `geometry` is the input's.
    pub(crate) fn out_geometry(&self, geometry: Geometry) -> Geometry {
        let grid = self.grid(geometry);
        let outputs = self.projection.len() / grid.channels.max(1);
        grid.strided(2).with_channels(outputs)
    }

    /// The geometry after the convolutions.
    fn grid(&self, geometry: Geometry) -> Geometry {
        let channels = self
            .convs
            .last()
            .map_or(0, |(filters, _)| filters.channels_out);
        geometry.strided(self.stride).with_channels(channels)
    }

    /// See [`stem`](super::stem()); of one channel.
    pub(crate) fn forward(&self, level: Level, x: &[f32], geometry: Geometry) -> Vec<f32> {
        assert_eq!(x.len(), geometry.len());
        assert_eq!(geometry.channels, 1);
        let out_geometry = self.out_geometry(geometry);
        let mut out = zeros(out_geometry.len());
        if out.is_empty() || x.is_empty() {
            return out;
        }
        let layers = self.layers(level, geometry);
        let channels = self.grid(geometry).channels;
        let radius = layers.iter().map(Layer::radius).fold(1, usize::max);
        let pipeline = Pipeline {
            level,
            radius,
            stem: self,
            layers: &layers,
            projection: Panels::of(level, self.projection, channels, out_geometry.channels),
            volume: Geometry {
                batch: 1,
                ..geometry
            },
        };
        for (x, out) in x
            .chunks_exact(geometry.len() / geometry.batch)
            .zip(out.chunks_exact_mut(out_geometry.len() / geometry.batch))
        {
            pipeline.run(x, out);
        }
        out
    }

    fn layers(&self, level: Level, geometry: Geometry) -> Vec<Layer<'_>> {
        let (first, bias) = self.convs[0];
        let (parts, rest) = match &self.convs[1..] {
            [second, rest @ ..] if !self.activate => {
                (compose([(first, bias), *second], self.stride), rest)
            }
            rest => (vec![Part::decomposed(first, bias)], rest),
        };
        let channels = first.channels_out;
        let stencil = Stencil::new(level, &parts, channels, geometry, self.stride);
        let mut layers = vec![Layer::Volume(Box::new(stencil))];
        for (filters, bias) in rest {
            let conv = RowConv::new(level, *filters, bias, self.grid(geometry).size);
            layers.push(Layer::Planes(Box::new(conv)));
        }
        layers
    }
}

/// A layer, by what it reads.
enum Layer<'a> {
    /// The volume of one channel.
    Volume(Box<Stencil>),
    /// The planes of the layer before.
    Planes(Box<RowConv<'a>>),
}

impl Layer<'_> {
    /// Planes before and after its own that it reads of the layer before.
    fn radius(&self) -> usize {
        match self {
            Self::Volume(_) => 0,
            Self::Planes(conv) => conv.radius,
        }
    }

    /// The plane to which the computation of plane `z` of `depth` writes as well.
    fn plane_ahead(&self, z: usize, depth: usize) -> Option<usize> {
        match self {
            Self::Volume(_) => None,
            Self::Planes(conv) => conv.plane_ahead(z).map(|ahead| z + ahead),
        }
        .filter(|ahead| *ahead < depth)
    }

    /// Of its output.
    fn channels(&self) -> usize {
        match self {
            Self::Volume(stencil) => stencil.channels_out(),
            Self::Planes(conv) => conv.channels_out,
        }
    }
}

struct Pipeline<'a> {
    level: Level,
    /// Planes before and after its own that a layer reads, at most.
    radius: usize,
    stem: &'a Stem<'a>,
    layers: &'a [Layer<'a>],
    projection: Panels,
    /// One volume of input.
    volume: Geometry,
}

/// The last planes of a layer, plane `z` at `z` modulo their number.
type Ring<'a> = Vec<SharedSlice<'a>>;

/// Rows of a plane to be computed.
#[derive(Clone, Copy)]
struct Task {
    /// A layer, or the pooling after the last.
    layer: usize,
    z: usize,
    /// The first of the rows.
    y: usize,
}

/// Room that a thread uses again.
#[derive(Default)]
struct Scratch {
    conv: Vec<f32>,
    pool: PoolScratch,
}

impl Pipeline<'_> {
    fn run(&self, x: &[f32], out: &mut [f32]) {
        let grid = Geometry {
            batch: 1,
            ..self.stem.grid(self.volume)
        };
        let [depth, height, width] = grid.size;
        // Those that the next layer reads, the one being written, and what lies up to the one that is written as well.
        let kept =
            |layer: &Layer<'_>| 2 * self.radius + 2 + layer.plane_ahead(0, usize::MAX).unwrap_or(0);
        let mut planes: Vec<Vec<Vec<f32>>> = self
            .layers
            .iter()
            .map(|layer| {
                let plane = || zeros(height * width * layer.channels());
                (0..kept(layer)).map(|_| plane()).collect()
            })
            .collect();
        let rings: Vec<Ring<'_>> = planes
            .iter_mut()
            .map(|ring| ring.iter_mut().map(|p| SharedSlice::new(p)).collect())
            .collect();
        let pooled = self.stem.out_geometry(self.volume);
        let steps = self.steps([depth, height], pooled);
        let counts: Vec<usize> = steps.iter().map(Vec::len).collect();
        let out = SharedSlice::new(out);
        in_steps(&counts, Scratch::default, |scratch, step, task| {
            self.rows(x, (&rings, out), grid, steps[step][task], scratch);
        });
    }

    /// What is computed in each step, which needs nothing but what earlier ones left.
    fn steps(&self, [depth, height]: [usize; 2], pooled: Geometry) -> Vec<Vec<Task>> {
        // Planes that a layer is behind its predecessor: what it reads is of earlier steps.
        let lag = self.radius + 1;
        let last_lag = lag * (self.layers.len() - 1);
        let [pooled_depth, pooled_height, _] = pooled.size;
        let mut next_pooled = 0;
        let mut steps = Vec::new();
        for step in 0_usize.. {
            if next_pooled == pooled_depth {
                break;
            }
            let mut tasks = Vec::new();
            let mut add = |layer, z, height| {
                let rows = (0..height).step_by(ROWS);
                tasks.extend(rows.map(|y| Task { layer, z, y }));
            };
            for layer in 0..self.layers.len() {
                if let Some(z) = step.checked_sub(lag * layer).filter(|z| *z < depth) {
                    add(layer, z, height);
                }
            }
            // A pooled plane reads up to one plane after its own, all of earlier steps.
            if step > last_lag + (2 * next_pooled + 1).min(depth - 1) {
                add(self.layers.len(), next_pooled, pooled_height);
                next_pooled += 1;
            }
            // Flat volumes leave pauses.
            if !tasks.is_empty() {
                steps.push(tasks);
            }
        }
        steps
    }

    fn rows(
        &self,
        x: &[f32],
        (rings, out): (&[Ring<'_>], SharedSlice<'_>),
        grid: Geometry,
        Task { layer: index, z, y }: Task,
        scratch: &mut Scratch,
    ) {
        let [depth, height, width] = grid.size;
        let Some(layer) = self.layers.get(index) else {
            return self.pool((&rings[index - 1], out), grid, [z, y], scratch);
        };
        let row_len = width * layer.channels();
        let part = y * row_len..(y + ROWS).min(height) * row_len;
        let rows = |z: usize| {
            // SAFETY: a step writes one plane of a layer, and one further on that its own last step wrote to or a later one
            // will read; of both, every task has rows of its own. `plane_line` reads planes of earlier steps.
            let rows = unsafe { rings[index][z % rings[index].len()].part(part.clone()) };
            rows.chunks_exact_mut(row_len).collect::<Vec<_>>()
        };
        let ahead = layer.plane_ahead(z, depth).map(rows);
        let mut rows = rows(z);
        match layer {
            Layer::Volume(stencil) => {
                for (y, out) in (y..).zip(rows) {
                    self.level.run(StencilRow {
                        x,
                        stencil,
                        at: [z, y],
                        out,
                        activate: self.stem.activate,
                    });
                }
            }
            Layer::Planes(conv) => {
                let read = grid.with_channels(conv.channels_in);
                let line = |z, y| plane_line(&rings[index - 1], read, [z, y]);
                let mut ahead = ahead.unwrap_or_default();
                let out = [&mut rows[..], &mut ahead[..]];
                conv.rows(self.level, [z, y], line, out, &mut scratch.conv);
                if self.stem.activate {
                    for row in rows {
                        gelu::cpu::forward(self.level, row);
                    }
                }
            }
        }
    }

    /// Rows of the pooled and projected grid.
    fn pool(
        &self,
        (ring, out): (&Ring<'_>, SharedSlice<'_>),
        grid: Geometry,
        [z, y]: [usize; 2],
        scratch: &mut Scratch,
    ) {
        let [height, width] = [grid.size[1], grid.size[2]].map(|size| size.div_ceil(2));
        let row_len = width * self.projection.columns();
        let [first, last] = [y, (y + ROWS).min(height)].map(|y| (z * height + y) * row_len);
        // SAFETY: every row of the output belongs to one task, and nobody reads any.
        let out = unsafe { out.part(first..last) };
        for (y, out) in (y..).zip(out.chunks_exact_mut(row_len)) {
            let line = |at| plane_line(ring, grid, at);
            let pooled = scratch.pool.row(self.level, [z, y], grid, line);
            self.level.run(Product {
                a: Broadcast::rows(pooled, grid.channels),
                b: &self.projection,
                out,
                store: Store::Plain,
            });
        }
    }
}

/// The row at a depth and height of a layer whose output has this geometry, if it is inside.
fn plane_line<'a>(ring: &Ring<'a>, geometry: Geometry, [z, y]: [isize; 2]) -> Option<&'a [f32]> {
    let [depth, height, width] = geometry.size;
    let z = usize::try_from(z).ok().filter(|z| *z < depth)?;
    let plane = Geometry {
        size: [1, height, width],
        ..geometry
    };
    // SAFETY: what a step reads was written in earlier steps, and its plane leaves the ring in a later one: see `Pipeline::run`
    // for the number of planes.
    let values = unsafe { ring[z % ring.len()].all() };
    plane.line(values, 0, [0, y])
}
