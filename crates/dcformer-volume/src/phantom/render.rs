//! From shapes to voxels: each slice on its own, so that memory stays small and threads make no difference.

use rayon::prelude::*;

use super::acquisition::Acquisition;
use super::anatomy::patient::Patient;
use super::anatomy::thorax::Thorax;
use super::background::Rows;
use super::brush::{Brush, Streaks, Touched};
use super::image_noise::ImageNoise;
use super::parenchyma::Parenchyma;
use super::plane::Positions;
use super::rounding::{index, round};
use super::scene::Stroke;

/// Thickest layer drawn at once, millimetres: thicker slices are the mean of several layers, as in a scanner.
const THICKEST_LAYER_MM: f32 = 3.2;

/// Everything that is drawn.
#[derive(Clone, Debug)]
pub(super) struct Scene {
    pub(super) patient: Patient,
    pub(super) thorax: Thorax,
    pub(super) parenchyma: Parenchyma,
    /// In the order of painting.
    pub(super) strokes: Vec<Stroke>,
    /// Seed of textures that belong to the patient, not to the image.
    pub(super) texture: u64,
}

/// One layer being drawn.
#[derive(Debug, Default)]
pub(super) struct Canvas {
    pub(super) hounsfield: Vec<f32>,
    /// How much of each voxel is lung that is still open to what is painted into lungs.
    pub(super) lung: Vec<f32>,
    /// Room for the background.
    pub(super) rows: Rows,
    /// Room for strokes.
    pub(super) touched: Touched,
    sum: Vec<f32>,
    noise: Vec<f32>,
    image_noise: ImageNoise,
}

impl Scene {
    /// Draws the scene as the acquisition sees it: Hounsfield units, `i` fastest, then `j`, then `k`.
    pub(super) fn render(&self, acquisition: &Acquisition) -> Vec<i16> {
        let columns = acquisition.columns;
        let view = View::new(self, acquisition);
        let mut voxels = vec![0; columns * columns * acquisition.slices];
        voxels
            .par_chunks_exact_mut(columns * columns)
            .enumerate()
            .for_each_init(Canvas::default, |canvas, (k, slice)| {
                view.slice(canvas, k, slice);
            });
        voxels
    }
}

/// A scene as an acquisition sees it, with what is the same in all slices computed once.
#[derive(Debug)]
pub(super) struct View<'a> {
    pub(super) scene: &'a Scene,
    pub(super) acquisition: &'a Acquisition,
    pub(super) positions: Positions,
    /// Hounsfield units of a slice without a patient: air and table.
    pub(super) surroundings: Vec<f32>,
    brushes: Vec<Brush<'a>>,
    streaks: Vec<Streaks>,
}

impl<'a> View<'a> {
    pub(super) fn new(scene: &'a Scene, acquisition: &'a Acquisition) -> Self {
        let columns = acquisition.columns;
        let voxels = (0..columns).flat_map(|j| (0..columns).map(move |i| (i, j)));
        Self {
            scene,
            acquisition,
            positions: acquisition.plane.positions(),
            surroundings: voxels.map(|(i, j)| acquisition.table(i, j)).collect(),
            brushes: scene
                .strokes
                .iter()
                .filter_map(|stroke| Brush::new(stroke, &acquisition.plane, acquisition.edge_mm))
                .collect(),
            streaks: scene.strokes.iter().filter_map(Streaks::of).collect(),
        }
    }

    fn slice(&self, canvas: &mut Canvas, k: usize, out: &mut [i16]) {
        let acquisition = self.acquisition;
        let layers = (acquisition.thickness_mm / THICKEST_LAYER_MM)
            .ceil()
            .max(1.0) as usize;
        let z = acquisition.slice_z(k);
        canvas.sum.clear();
        canvas.sum.resize(out.len(), 0.0);
        for layer in 0..layers {
            let offset = ((layer as f32 + 0.5) / layers as f32 - 0.5) * acquisition.thickness_mm;
            self.layer(canvas, z + offset);
            canvas
                .sum
                .iter_mut()
                .zip(&canvas.hounsfield)
                .for_each(|(sum, value)| *sum += value);
        }
        canvas.noise.resize(out.len(), 0.0);
        let Canvas {
            image_noise, noise, ..
        } = canvas;
        image_noise.fill(
            acquisition.noise_key,
            k,
            acquisition.columns,
            acquisition.kernel,
            noise,
        );
        let deviation = acquisition.noise_at(self.scene.thorax.level(z).t);
        let mean = 1.0 / layers as f32;
        for ((out, sum), noise) in out.iter_mut().zip(&canvas.sum).zip(&canvas.noise) {
            *out = stored(sum * mean + deviation * noise);
        }
        acquisition.pad(out);
    }

    /// Draws the plane at height `z`.
    fn layer(&self, canvas: &mut Canvas, z: f32) {
        let (plane, positions) = (&self.acquisition.plane, &self.positions);
        self.background(canvas, z);
        for brush in self.brushes.iter().filter(|brush| brush.reaches(z)) {
            brush.paint(plane, positions, z, self.scene.texture, canvas);
        }
        for streaks in &self.streaks {
            streaks.paint(plane, positions, z, &mut canvas.hounsfield);
        }
    }
}

/// The whole number that is stored for a value.
fn stored(hounsfield: f32) -> i16 {
    const LOWEST: f32 = -1024.0;
    const HIGHEST: f32 = 3071.0;
    let whole = round(hounsfield.clamp(LOWEST, HIGHEST));
    index(whole - LOWEST) as i16 + LOWEST as i16
}
