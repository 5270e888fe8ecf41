//! The stem on the CPU, as a pipeline of planes.
//!
//! A layer of three taps reads three planes of the one before, so it can compute plane `z` as soon as its predecessor has
//! plane `z + 1`. One step computes one plane of every layer, each two planes behind its predecessor; six planes of each
//! layer are kept, the three being read, the one being written, and up to the one two further on, where it leaves what both
//! share ([`pairs`]). What a step reads was written in earlier steps, so all its rows are independent and threads take
//! them as they come.
//!
//! The features of the whole grid, 134 MB for a full chest CT, never exist: planes are read again while they are in the
//! cache, and the memory of the stem is that of a dozen planes.

use rayon::prelude::*;

use super::compose::compose;
use crate::dense_decomposed::cpu::{Filters, RowConv};
use crate::dense_decomposed::pairs;
use crate::dense_decomposed::stencil::{Part, Stencil, StencilRow};
use crate::gelu;
use crate::geometry::Geometry;
use crate::matmul::{Broadcast, Panels, Product, Store};
use crate::max_pool::cpu::PoolScratch;
use crate::memory::zeros;
use crate::simd::Level;

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
type Ring = Vec<Vec<f32>>;

/// A plane being computed.
struct Written {
    layer: usize,
    z: usize,
    plane: Vec<f32>,
    /// The plane further on to which the layer writes as well, and where it is.
    ahead: Option<(usize, Vec<f32>)>,
}

/// Rows of a plane being computed.
struct Task<'a> {
    /// A layer, or the pooling after the last.
    layer: usize,
    z: usize,
    /// The first of the rows.
    y: usize,
    out: &'a mut [f32],
    /// The same rows of the plane further on; empty if there is none.
    ahead: &'a mut [f32],
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
        let mut rings: Vec<Ring> = self
            .layers
            .iter()
            .map(|layer| vec![vec![0.0; height * width * layer.channels()]; kept(layer)])
            .collect();
        let pooled = self.stem.out_geometry(self.volume);
        let mut pooled_planes = out
            .chunks_exact_mut(pooled.len() / pooled.size[0])
            .enumerate();
        let mut next_pooled = pooled_planes.next();
        // Planes that a layer is behind its predecessor: what it reads is of earlier steps.
        let lag = self.radius + 1;
        let last_lag = lag * (self.layers.len() - 1);
        for step in 0_usize.. {
            // The planes being written leave their rings for the step.
            let mut written: Vec<Written> = Vec::new();
            for (index, (layer, ring)) in self.layers.iter().zip(&mut rings).enumerate() {
                let Some(z) = step.checked_sub(lag * index).filter(|z| *z < depth) else {
                    continue;
                };
                let slots = ring.len();
                let mut take = |z: usize| std::mem::take(&mut ring[z % slots]);
                written.push(Written {
                    layer: index,
                    z,
                    plane: take(z),
                    ahead: layer.plane_ahead(z, depth).map(|z| (z, take(z))),
                });
            }
            let mut tasks = Vec::new();
            for written in &mut written {
                let Written {
                    layer,
                    z,
                    plane,
                    ahead,
                } = written;
                let row_len = width * self.layers[*layer].channels();
                let ahead = ahead.as_mut().map_or(&mut [][..], |(_, plane)| plane);
                add_tasks(&mut tasks, [*layer, *z], row_len, plane, ahead);
            }
            // A pooled plane reads up to one plane after its own, all of earlier steps.
            if let Some((z, plane)) = &mut next_pooled
                && step > last_lag + (2 * *z + 1).min(depth - 1)
            {
                let place = [self.layers.len(), *z];
                add_tasks(&mut tasks, place, pooled.row_len(), plane, &mut []);
            }
            let pools = tasks.iter().any(|task| task.layer == self.layers.len());
            // Threads take one task after the other: parts of a list cut in advance would end at different times, and here
            // all wait at every step.
            tasks
                .into_iter()
                .par_bridge()
                .for_each_init(Scratch::default, |scratch, task| {
                    self.rows(x, &rings, grid, task, scratch);
                });
            for written in written {
                let ring = &mut rings[written.layer];
                let slots = ring.len();
                ring[written.z % slots] = written.plane;
                if let Some((z, plane)) = written.ahead {
                    ring[z % slots] = plane;
                }
            }
            if pools {
                next_pooled = pooled_planes.next();
                if next_pooled.is_none() {
                    break;
                }
            }
        }
    }

    fn rows(
        &self,
        x: &[f32],
        rings: &[Ring],
        grid: Geometry,
        task: Task<'_>,
        scratch: &mut Scratch,
    ) {
        let Task {
            layer: index,
            z,
            y,
            out,
            ahead,
        } = task;
        let Some(layer) = self.layers.get(index) else {
            return self.pool(&rings[index - 1], grid, [z, y], out, scratch);
        };
        let row_len = grid.size[2] * layer.channels();
        let mut rows: Vec<&mut [f32]> = out.chunks_exact_mut(row_len).collect();
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
                let mut ahead: Vec<&mut [f32]> = ahead.chunks_exact_mut(row_len).collect();
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
        ring: &Ring,
        grid: Geometry,
        [z, y]: [usize; 2],
        out: &mut [f32],
        scratch: &mut Scratch,
    ) {
        let row_len = grid.size[2].div_ceil(2) * self.projection.columns();
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

fn add_tasks<'a>(
    tasks: &mut Vec<Task<'a>>,
    [layer, z]: [usize; 2],
    row_len: usize,
    plane: &'a mut [f32],
    ahead: &'a mut [f32],
) {
    let mut ahead = ahead.chunks_mut(ROWS * row_len);
    for (chunk, out) in plane.chunks_mut(ROWS * row_len).enumerate() {
        tasks.push(Task {
            layer,
            z,
            y: chunk * ROWS,
            out,
            ahead: ahead.next().unwrap_or_default(),
        });
    }
}

/// The row at a depth and height of a layer whose output has this geometry, if it is inside.
fn plane_line(ring: &Ring, geometry: Geometry, [z, y]: [isize; 2]) -> Option<&[f32]> {
    let [depth, height, width] = geometry.size;
    let z = usize::try_from(z).ok().filter(|z| *z < depth)?;
    let plane = Geometry {
        size: [1, height, width],
        ..geometry
    };
    plane.line(&ring[z % ring.len()], 0, [0, y])
}
