//! From shapes to voxels: each slice on its own, so that memory stays small and threads make no difference.

use rayon::prelude::*;

use super::acquisition::Acquisition;
use super::anatomy::patient::Patient;
use super::anatomy::thorax::{Level, Thorax};
use super::anatomy::{AIR, SOFT_TISSUE};
use super::parenchyma::Parenchyma;
use super::scene::{Paint, Point, Shape, Stroke, ellipse, lerp, smoothstep};
use super::texture::{ImageNoise, SliceNoise, noise};

/// Thickest layer drawn at once, millimetres: thicker slices are the mean of several layers, as in a scanner.
const THICKEST_LAYER_MM: f32 = 3.2;
const FAT: f32 = -98.0;
const SKIN: f32 = 20.0;
/// How far metal's artefacts reach, millimetres.
const STREAK_REACH_MM: f32 = 95.0;

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
struct Canvas {
    hounsfield: Vec<f32>,
    /// How much of each voxel is lung that is still open to what is painted into lungs.
    lung: Vec<f32>,
    sum: Vec<f32>,
    noise: Vec<f32>,
    image_noise: ImageNoise,
    fine: SliceNoise,
    coarse: SliceNoise,
}

/// Where the voxels of a slice are in the patient's frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plane {
    pub(super) columns: usize,
    pub(super) spacing: f32,
    pub(super) origin: [f32; 2],
    /// Cosine and sine of the patient's rotation about the table's axis.
    pub(super) rotation: [f32; 2],
}

impl Plane {
    fn point(&self, i: usize, j: usize) -> [f32; 2] {
        let (u, v) = (
            self.origin[0] + i as f32 * self.spacing,
            self.origin[1] + j as f32 * self.spacing,
        );
        let [cos, sin] = self.rotation;
        [cos * u + sin * v, cos * v - sin * u]
    }

    /// Voxel coordinates of a position.
    fn voxel(&self, x: f32, y: f32) -> [f32; 2] {
        let [cos, sin] = self.rotation;
        let (u, v) = (cos * x - sin * y, cos * y + sin * x);
        [
            (u - self.origin[0]) / self.spacing,
            (v - self.origin[1]) / self.spacing,
        ]
    }

    /// Ranges of columns and rows that hold a box of the patient's frame.
    fn range(&self, low: [f32; 2], high: [f32; 2]) -> Option<[[usize; 2]; 2]> {
        let center = self.voxel(0.5 * (low[0] + high[0]), 0.5 * (low[1] + high[1]));
        let half = [0.5 * (high[0] - low[0]), 0.5 * (high[1] - low[1])];
        let [cos, sin] = self.rotation.map(f32::abs);
        let reach = [cos * half[0] + sin * half[1], sin * half[0] + cos * half[1]];
        let mut ranges = [[0; 2]; 2];
        for axis in 0..2 {
            let reach = reach[axis] / self.spacing;
            let first = (center[axis] - reach).ceil().max(0.0);
            let last = (center[axis] + reach)
                .floor()
                .min(self.columns as f32 - 1.0);
            if first > last {
                return None;
            }
            ranges[axis] = [first as usize, last as usize];
        }
        Some(ranges)
    }
}

/// Share of a voxel of width `width` that lies inside a surface at signed distance `distance` from its centre.
fn coverage(distance: f32, width: f32) -> f32 {
    (0.5 - distance / width).clamp(0.0, 1.0)
}

impl Scene {
    /// Draws the scene as the acquisition sees it: Hounsfield units, `i` fastest, then `j`, then `k`.
    pub(super) fn render(&self, acquisition: &Acquisition) -> Vec<i16> {
        let columns = acquisition.columns;
        let mut voxels = vec![0; columns * columns * acquisition.slices];
        voxels
            .par_chunks_exact_mut(columns * columns)
            .enumerate()
            .for_each_init(Canvas::default, |canvas, (k, slice)| {
                self.slice(acquisition, canvas, k, slice);
            });
        voxels
    }

    fn slice(&self, acquisition: &Acquisition, canvas: &mut Canvas, k: usize, out: &mut [i16]) {
        let layers = (acquisition.thickness_mm / THICKEST_LAYER_MM)
            .ceil()
            .max(1.0) as usize;
        let z = acquisition.slice_z(k);
        canvas.sum.clear();
        canvas.sum.resize(out.len(), 0.0);
        for layer in 0..layers {
            let offset = ((layer as f32 + 0.5) / layers as f32 - 0.5) * acquisition.thickness_mm;
            self.layer(acquisition, canvas, z + offset);
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
        let deviation = acquisition.noise_at(self.thorax.level(z).t);
        let mean = 1.0 / layers as f32;
        for ((out, sum), noise) in out.iter_mut().zip(&canvas.sum).zip(&canvas.noise) {
            *out = (sum * mean + deviation * noise)
                .round()
                .clamp(-1024.0, 3071.0) as i16;
        }
        acquisition.pad(out);
    }

    /// Draws the plane at height `z`.
    fn layer(&self, acquisition: &Acquisition, canvas: &mut Canvas, z: f32) {
        let plane = &acquisition.plane;
        let edge = acquisition.edge_mm;
        self.background(acquisition, canvas, z);
        for stroke in &self.strokes {
            let margin = 0.5 * (edge + stroke.blur)
                + stroke.roughness.map_or(0.0, |[amplitude, _]| amplitude);
            let section = stroke.shape.section(z, margin);
            if let Some(ranges) = section.and_then(|[low, high]| plane.range(low, high)) {
                self.stroke(stroke, plane, edge, z, ranges, canvas);
            }
        }
        for stroke in self.strokes.iter().filter(|stroke| stroke.streaks > 0.0) {
            self.streaks(stroke, plane, z, canvas);
        }
    }

    fn stroke(
        &self,
        stroke: &Stroke,
        plane: &Plane,
        edge: f32,
        z: f32,
        ranges: [[usize; 2]; 2],
        canvas: &mut Canvas,
    ) {
        let width = edge + stroke.blur;
        let thinnest = stroke.shape.thinnest();
        let fullness = (2.0 * thinnest / edge).min(1.0);
        // A thin tube or plate fills the part of the voxel that overlaps it, however far it is from the centre.
        let reach = if matches!(stroke.shape, Shape::Tube { .. }) {
            (0.5 * edge - thinnest).max(0.0)
        } else {
            0.0
        };
        let shape = stroke.shape.prepared();
        let [[first, last], [top, bottom]] = ranges;
        for j in top..=bottom {
            for i in first..=last {
                let [x, y] = plane.point(i, j);
                let point = [x, y, z];
                let mut distance = shape.distance(point);
                if let Some([amplitude, length]) = stroke.roughness
                    && distance.abs() < width + amplitude
                {
                    distance += amplitude * noise(self.texture, point, length);
                }
                let share = coverage(distance - 0.5 * reach, width).min(fullness);
                if share > 0.0 {
                    let voxel = j * plane.columns + i;
                    paint(
                        stroke.paint,
                        share,
                        &mut canvas.hounsfield[voxel],
                        &mut canvas.lung[voxel],
                    );
                }
            }
        }
    }

    /// Bright and dark rays around metal.
    fn streaks(&self, stroke: &Stroke, plane: &Plane, z: f32, canvas: &mut Canvas) {
        let [low, high] = stroke.shape.bounds();
        if z < low[2] || z > high[2] {
            return;
        }
        let center = [0.5 * (low[0] + high[0]), 0.5 * (low[1] + high[1])];
        let reach = STREAK_REACH_MM;
        let Some([[first, last], [top, bottom]]) = plane.range(
            [center[0] - reach, center[1] - reach],
            [center[0] + reach, center[1] + reach],
        ) else {
            return;
        };
        for j in top..=bottom {
            for i in first..=last {
                let [x, y] = plane.point(i, j);
                let (dx, dy) = (x - center[0], y - center[1]);
                let squared = dx * dx + dy * dy;
                if squared < 9.0 || squared > reach * reach {
                    continue;
                }
                let (cos2, sin2) = ((dx * dx - dy * dy) / squared, 2.0 * dx * dy / squared);
                let (cos4, sin4) = (cos2 * cos2 - sin2 * sin2, 2.0 * cos2 * sin2);
                let cos8 = cos4 * cos4 - sin4 * sin4;
                let fall = (1.0 - squared.sqrt() / reach) / (1.0 + 0.06 * squared.sqrt());
                let voxel = &mut canvas.hounsfield[j * plane.columns + i];
                if *voxel > AIR + 60.0 {
                    *voxel += stroke.streaks
                        * fall
                        * (0.5 * cos8 + 0.5 * cos4 - 0.4 * cos2 * cos2 * sin4);
                }
            }
        }
    }

    /// Air, table, chest wall, mediastinal fat, lungs and belly.
    fn background(&self, acquisition: &Acquisition, canvas: &mut Canvas, z: f32) {
        let plane = &acquisition.plane;
        let count = plane.columns * plane.columns;
        canvas.hounsfield.clear();
        canvas.hounsfield.resize(count, AIR);
        canvas.lung.clear();
        canvas.lung.resize(count, 0.0);
        let level = self.thorax.level(z);
        let reach = self.thorax.reach(&level);
        canvas
            .fine
            .fill(self.texture, reach.map(|side| -side), reach, z, 6.5);
        canvas
            .coarse
            .fill(self.texture ^ 1, reach.map(|side| -side), reach, z, 21.0);
        let edge = acquisition.edge_mm;
        let far = |x: f32, y: f32| x.abs() > reach[0] || y.abs() > reach[1];
        for j in 0..plane.columns {
            for i in 0..plane.columns {
                let [x, y] = plane.point(i, j);
                let x = x - level.shift_x;
                let voxel = j * plane.columns + i;
                let body = if far(x, y) {
                    f32::INFINITY
                } else {
                    self.thorax.body(&level, x, y)
                };
                if body > edge {
                    canvas.hounsfield[voxel] = acquisition.table(i, j);
                    continue;
                }
                let textures = [canvas.fine.at(x, y), canvas.coarse.at(x, y)];
                let cage = self.thorax.cage(&level, x, y);
                let inside = coverage(cage, edge);
                let mut value = 0.0;
                if inside > 0.0 {
                    let (inner, lung) = self.inside(&level, [x, y], cage, textures, edge);
                    value = inner;
                    canvas.lung[voxel] = lung * inside;
                }
                if inside < 1.0 {
                    let wall = self.wall(&level, [x, y], [body, cage], textures, edge);
                    value = lerp(wall, value, inside);
                }
                canvas.hounsfield[voxel] = value;
            }
        }
    }

    /// Hounsfield units of skin, fat and muscle around the rib cage.
    fn wall(
        &self,
        level: &Level,
        [x, y]: [f32; 2],
        [body, cage]: [f32; 2],
        [fine, coarse]: [f32; 2],
        edge: f32,
    ) -> f32 {
        let skin = lerp(AIR, SKIN, coverage(body, edge));
        let fat = lerp(skin, FAT + 8.0 * fine, coverage(body + 2.2, edge));
        // The back's long muscles fill the corner beside the spine.
        let back = if y > level.center_y {
            0.25 * y * smoothstep(60.0, 10.0, x.abs())
        } else {
            0.0
        };
        let end = level.muscle * (1.0 + 0.25 * coarse) + back;
        // Fat between the muscles of the shoulders.
        let planes = smoothstep(0.1, 0.5, coarse + 0.4 * fine) * smoothstep(0.6, 0.9, level.t);
        let muscle = lerp(SOFT_TISSUE + 8.0 + 5.0 * fine, FAT, planes);
        lerp(
            fat,
            muscle,
            coverage(cage - end, edge).min(coverage(body + 5.0, edge)),
        )
    }

    /// Hounsfield units and share of lung of a point inside the rib cage.
    fn inside(
        &self,
        level: &Level,
        [x, y]: [f32; 2],
        cage: f32,
        textures: [f32; 2],
        edge: f32,
    ) -> (f32, f32) {
        let point = [x, y, level.z];
        let field = self.thorax.field(level, x, y, cage);
        let open = coverage(field.lung, edge);
        let (lung, air) = if open > 0.0 {
            self.parenchyma.at(
                &self.thorax,
                &self.patient,
                level,
                point,
                &field,
                textures,
                edge,
            )
        } else {
            (0.0, 0.0)
        };
        if open == 1.0 {
            return (lung, air);
        }
        let between = if field.diaphragm < 0.0 {
            self.belly(point, field.diaphragm, textures[0])
        } else {
            FAT + 6.0 * textures[0]
        };
        (lerp(between, lung, open), open * air)
    }

    /// Liver, stomach and spleen below the diaphragm.
    fn belly(&self, point: Point, below: f32, fine: f32) -> f32 {
        if below > -3.0 {
            return 40.0;
        }
        let [a, b] = self.patient.cage;
        let z = self.thorax.height(0.1);
        let [x, y, _] = point;
        let contrast = if self.patient.contrast { 35.0 } else { 0.0 };
        let stomach =
            ellipse(x - 0.42 * a, y + 0.1 * b, [0.36 * a, 0.42 * b]) + 0.12 * (point[2] - z).abs();
        if stomach < 0.0 {
            let dependent = (y + 0.1 * b) * self.patient.gravity();
            return if stomach > -4.0 {
                40.0
            } else if dependent < -0.12 * b {
                -970.0
            } else {
                22.0 + 10.0 * fine
            };
        }
        let spleen = ellipse(x - 0.66 * a, y - 0.45 * b, [0.24 * a, 0.36 * b]);
        if spleen < 0.0 {
            return 50.0 + contrast + 3.0 * fine;
        }
        let liver = smoothstep(26.0, 8.0, x + 0.15 * y + 6.0 * fine)
            * smoothstep(0.9 * b, 0.8 * b, y + 0.2 * x.abs());
        lerp(FAT, 58.0 + contrast + 3.0 * fine, liver)
    }
}

fn paint(paint: Paint, share: f32, hounsfield: &mut f32, lung: &mut f32) {
    match paint {
        Paint::Solid(value) => {
            *hounsfield = lerp(*hounsfield, value, share);
            *lung *= 1.0 - share;
        }
        Paint::Over(value) => *hounsfield = lerp(*hounsfield, value, share),
        Paint::Lung(value) => *hounsfield = lerp(*hounsfield, value, share * *lung),
        Paint::DenserLung(value) => {
            if value > *hounsfield {
                *hounsfield = lerp(*hounsfield, value, share * *lung);
            }
        }
        Paint::LighterLung(value) => {
            if value < *hounsfield {
                *hounsfield = lerp(*hounsfield, value, share * *lung);
            }
        }
        Paint::AddToLung(value) => *hounsfield += value * share * *lung,
    }
}
