//! Strokes onto a canvas.

use super::anatomy::AIR;
use super::plane::{Plane, Positions};
use super::render::Canvas;
use super::scene::{Paint, Stroke, coverage, lerp};
use super::shape::{Prepared, Shape};
use super::texture::Lattice;

/// How far metal's artefacts reach, millimetres.
const STREAK_REACH_MM: f32 = 95.0;

/// A stroke with what is the same at all heights computed once.
#[derive(Clone, Debug)]
pub(super) struct Brush<'a> {
    stroke: &'a Stroke,
    shape: Prepared,
    /// Lowest and highest point that it touches.
    z: [f32; 2],
    /// Columns and rows that it touches at any height.
    ranges: [[usize; 2]; 2],
    /// How far from the shape voxels are touched, and how much farther beside thin tubes.
    margin: f32,
    reach: f32,
    /// Width of the transition at the outline.
    width: f32,
    /// Largest share of a voxel that it fills.
    fullness: f32,
}

impl<'a> Brush<'a> {
    /// For voxels whose edges are `edge` millimetres wide; `None` if it touches none of the plane.
    pub(super) fn new(stroke: &'a Stroke, plane: &Plane, edge: f32) -> Option<Self> {
        let thinnest = stroke.shape.thinnest();
        // A thin tube or plate fills the part of the voxel that overlaps it, however far it is from the centre.
        let reach = if matches!(stroke.shape, Shape::Tube { .. }) {
            (0.5 * edge - thinnest).max(0.0)
        } else {
            0.0
        };
        let margin =
            0.5 * (edge + stroke.blur) + stroke.roughness.map_or(0.0, |[amplitude, _]| amplitude);
        let [low, high] = stroke.shape.bounds_with(margin);
        Some(Self {
            stroke,
            shape: stroke.shape.prepared(),
            z: [low[2], high[2]],
            ranges: plane.range([low[0], low[1]], [high[0], high[1]])?,
            margin,
            reach,
            width: edge + stroke.blur,
            fullness: (2.0 * thinnest / edge).min(1.0),
        })
    }

    /// Whether it may touch the plane at height `z`.
    pub(super) fn reaches(&self, z: f32) -> bool {
        z >= self.z[0] && z <= self.z[1]
    }

    /// Columns and rows that may be touched at height `z`.
    fn ranges(&self, plane: &Plane, z: f32) -> Option<[[usize; 2]; 2]> {
        // Thin tubes are touched farther out than the margin, but not beyond the box around the whole tube.
        let margin = self.margin + 0.5 * self.reach;
        let [low, high] = self.stroke.shape.section(z, margin)?;
        let near = plane.range(low, high)?;
        let ranges = [0, 1].map(|axis| {
            let ([first, last], [near_first, near_last]) = (self.ranges[axis], near[axis]);
            [first.max(near_first), last.min(near_last)]
        });
        let some = ranges.iter().all(|[first, last]| first <= last);
        some.then_some(ranges)
    }

    /// Paints the plane at height `z`. `texture` is the seed of the outline's irregularity.
    pub(super) fn paint(
        &self,
        plane: &Plane,
        positions: &Positions,
        z: f32,
        texture: u64,
        canvas: &mut Canvas,
    ) {
        let Some([[first, last], [top, bottom]]) = self.ranges(plane, z) else {
            return;
        };
        let Canvas {
            hounsfield,
            lung,
            touched,
            ..
        } = canvas;
        let rows = (top..=bottom).map(|j| j * plane.columns + first..=j * plane.columns + last);
        touched.x.clear();
        touched.y.clear();
        for row in rows.clone() {
            touched.x.extend_from_slice(&positions.x[row.clone()]);
            touched.y.extend_from_slice(&positions.y[row]);
        }
        let share = self.share(z, texture, touched);
        for (row, share) in rows.zip(share.chunks_exact(last + 1 - first)) {
            let (hounsfield, lung) = (&mut hounsfield[row.clone()], &mut lung[row]);
            paint(self.stroke.paint, share, hounsfield, lung);
        }
    }

    /// Share of each voxel that is painted.
    fn share<'t>(&self, z: f32, texture: u64, touched: &'t mut Touched) -> &'t [f32] {
        let Touched {
            x,
            y,
            distance,
            irregularity,
            outline,
        } = touched;
        distance.resize(x.len(), 0.0);
        self.shape.distances(x, y, z, distance);
        if let Some([amplitude, length]) = self.stroke.roughness {
            let lowest = |values: &[f32]| values.iter().copied().fold(f32::INFINITY, f32::min);
            let highest = |values: &[f32]| values.iter().copied().fold(-f32::INFINITY, f32::max);
            let (low, high) = ([lowest(x), lowest(y)], [highest(x), highest(y)]);
            outline.fill(texture, low, high, z, length);
            irregularity.resize(x.len(), 0.0);
            outline.row(x, y, irregularity);
            for (distance, irregularity) in distance.iter_mut().zip(irregularity) {
                let rough = *distance + amplitude * *irregularity;
                let near = distance.abs() < self.width + amplitude;
                *distance = if near { rough } else { *distance };
            }
        }
        for value in &mut *distance {
            *value = coverage(*value - 0.5 * self.reach, self.width).min(self.fullness);
        }
        distance
    }
}

/// Room for the voxels that a stroke may touch.
#[derive(Debug, Default)]
pub(super) struct Touched {
    x: Vec<f32>,
    y: Vec<f32>,
    /// From the stroke's shape; then the share that is painted.
    distance: Vec<f32>,
    irregularity: Vec<f32>,
    outline: Lattice,
}

/// Bright and dark rays around metal.
#[derive(Clone, Debug)]
pub(super) struct Streaks {
    center: [f32; 2],
    /// Lowest and highest point of the metal.
    z: [f32; 2],
    amplitude: f32,
}

impl Streaks {
    /// Those of a stroke, if it has any.
    pub(super) fn of(stroke: &Stroke) -> Option<Self> {
        let [low, high] = stroke.shape.bounds();
        (stroke.streaks > 0.0).then(|| Self {
            center: [0, 1].map(|axis| 0.5 * (low[axis] + high[axis])),
            z: [low[2], high[2]],
            amplitude: stroke.streaks,
        })
    }

    /// Draws them at height `z`.
    pub(super) fn paint(
        &self,
        plane: &Plane,
        positions: &Positions,
        z: f32,
        hounsfield: &mut [f32],
    ) {
        if z < self.z[0] || z > self.z[1] {
            return;
        }
        let center = self.center;
        let reach = STREAK_REACH_MM;
        let Some([[first, last], [top, bottom]]) = plane.range(
            [center[0] - reach, center[1] - reach],
            [center[0] + reach, center[1] + reach],
        ) else {
            return;
        };
        for j in top..=bottom {
            for i in first..=last {
                let voxel = j * plane.columns + i;
                let (dx, dy) = (
                    positions.x[voxel] - center[0],
                    positions.y[voxel] - center[1],
                );
                let squared = dx * dx + dy * dy;
                if squared < 9.0 || squared > reach * reach {
                    continue;
                }
                let (cos2, sin2) = ((dx * dx - dy * dy) / squared, 2.0 * dx * dy / squared);
                let (cos4, sin4) = (cos2 * cos2 - sin2 * sin2, 2.0 * cos2 * sin2);
                let cos8 = cos4 * cos4 - sin4 * sin4;
                let fall = (1.0 - squared.sqrt() / reach) / (1.0 + 0.06 * squared.sqrt());
                let voxel = &mut hounsfield[voxel];
                if *voxel > AIR + 60.0 {
                    *voxel += self.amplitude
                        * fall
                        * (0.5 * cos8 + 0.5 * cos4 - 0.4 * cos2 * cos2 * sin4);
                }
            }
        }
    }
}

/// Paints a row of voxels, each by its share. A share of 0 changes nothing.
fn paint(paint: Paint, share: &[f32], hounsfield: &mut [f32], lung: &mut [f32]) {
    let voxels = hounsfield.iter_mut().zip(lung).zip(share);
    match paint {
        Paint::Solid(value) => voxels.for_each(|((hounsfield, lung), share)| {
            *hounsfield = lerp(*hounsfield, value, *share);
            *lung *= 1.0 - share;
        }),
        Paint::Over(value) => voxels.for_each(|((hounsfield, _), share)| {
            *hounsfield = lerp(*hounsfield, value, *share);
        }),
        Paint::Lung(value) => voxels.for_each(|((hounsfield, lung), share)| {
            *hounsfield = lerp(*hounsfield, value, share * *lung);
        }),
        Paint::DenserLung(value) => voxels.for_each(|((hounsfield, lung), share)| {
            let denser = lerp(*hounsfield, value, share * *lung);
            *hounsfield = if value > *hounsfield {
                denser
            } else {
                *hounsfield
            };
        }),
        Paint::LighterLung(value) => voxels.for_each(|((hounsfield, lung), share)| {
            let lighter = lerp(*hounsfield, value, share * *lung);
            *hounsfield = if value < *hounsfield {
                lighter
            } else {
                *hounsfield
            };
        }),
        Paint::AddToLung(value) => voxels.for_each(|((hounsfield, lung), share)| {
            *hounsfield += value * share * *lung;
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::super::scene::Layer;
    use super::super::shape::Ellipsoid;
    use super::*;

    const PLANE: Plane = Plane {
        columns: 24,
        spacing: 3.0,
        origin: [-34.0, -35.0],
        rotation: [0.96, 0.28],
    };

    /// One voxel, as the doc of [`Paint`] has it.
    fn painted(paint: Paint, share: f32, [hounsfield, lung]: [f32; 2]) -> [f32; 2] {
        let mix = |value: f32, share: f32| hounsfield + (value - hounsfield) * share;
        match paint {
            _ if share <= 0.0 => [hounsfield, lung],
            Paint::Solid(value) => [mix(value, share), lung * (1.0 - share)],
            Paint::Over(value) => [mix(value, share), lung],
            Paint::Lung(value) => [mix(value, share * lung), lung],
            Paint::DenserLung(value) if value > hounsfield => [mix(value, share * lung), lung],
            Paint::LighterLung(value) if value < hounsfield => [mix(value, share * lung), lung],
            Paint::DenserLung(_) | Paint::LighterLung(_) => [hounsfield, lung],
            Paint::AddToLung(value) => [hounsfield + value * share * lung, lung],
        }
    }

    /// Every voxel of the box around the whole stroke, whatever the height.
    fn painted_slowly(stroke: &Stroke, edge: f32, z: f32, canvas: &mut [Vec<f32>; 2]) {
        let positions = PLANE.positions();
        let thinnest = stroke.shape.thinnest();
        let reach = match stroke.shape {
            Shape::Tube { .. } => (0.5 * edge - thinnest).max(0.0),
            _ => 0.0,
        };
        let [low, high] = stroke.shape.bounds_with(0.5 * (edge + stroke.blur));
        if z < low[2] || z > high[2] {
            return;
        }
        let range = PLANE.range([low[0], low[1]], [high[0], high[1]]);
        let [[first, last], [top, bottom]] = range.expect("the case lies in the plane");
        for j in top..=bottom {
            for i in first..=last {
                let voxel = j * PLANE.columns + i;
                let [x, y] = [positions.x[voxel], positions.y[voxel]];
                let mut distance = [0.0];
                stroke
                    .shape
                    .prepared()
                    .distances(&[x], &[y], z, &mut distance);
                let share = coverage(distance[0] - 0.5 * reach, edge + stroke.blur)
                    .min((2.0 * thinnest / edge).min(1.0));
                let before = [canvas[0][voxel], canvas[1][voxel]];
                [canvas[0][voxel], canvas[1][voxel]] = painted(stroke.paint, share, before);
            }
        }
    }

    #[test]
    fn a_brush_paints_every_voxel_that_a_stroke_covers() {
        let shapes = [
            Shape::Tube {
                from: [-20.0, 4.0, -9.0],
                to: [22.0, -12.0, 11.0],
                radius: [2.0, 0.4],
            },
            Shape::Ellipsoid(Ellipsoid::upright([3.0, -5.0, 2.0], [17.0, 9.0, 8.0])),
            Shape::Cylinder {
                center: [-4.0, 6.0, 0.0],
                radius: [12.0, 7.0],
                half_height: 6.0,
            },
        ];
        let paints = [
            Paint::Solid(500.0),
            Paint::Over(20.0),
            Paint::Lung(-950.0),
            Paint::DenserLung(-500.0),
            Paint::LighterLung(-500.0),
            Paint::AddToLung(130.0),
        ];
        let edge = 3.5;
        let count = PLANE.columns * PLANE.columns;
        for (shape, paint) in shapes
            .iter()
            .flat_map(|shape| paints.map(|paint| (shape, paint)))
        {
            let stroke = Stroke::new(Layer::Heart, shape.clone(), paint).blurred(1.5);
            let brush = Brush::new(&stroke, &PLANE, edge).expect("it lies in the plane");
            let mut touched = 0;
            for z in [-12.5, -7.0, -1.5, 0.0, 4.0, 9.9, 30.0] {
                let before = [
                    (0..count)
                        .map(|i| -900.0 + (i % 19) as f32 * 50.0)
                        .collect(),
                    (0..count)
                        .map(|i| (i % 5) as f32 / 4.0)
                        .collect::<Vec<f32>>(),
                ];
                let mut expected = before.clone();
                painted_slowly(&stroke, edge, z, &mut expected);
                let mut canvas = Canvas::default();
                [canvas.hounsfield, canvas.lung] = before.clone();
                if brush.reaches(z) {
                    brush.paint(&PLANE, &PLANE.positions(), z, 1, &mut canvas);
                }
                assert_eq!(canvas.hounsfield, expected[0], "{stroke:?} {z}");
                assert_eq!(canvas.lung, expected[1], "{stroke:?} {z}");
                touched += before[0]
                    .iter()
                    .zip(&expected[0])
                    .filter(|(a, b)| a != b)
                    .count();
            }
            assert!(touched > 20, "{stroke:?}: {touched}");
        }
    }
}
