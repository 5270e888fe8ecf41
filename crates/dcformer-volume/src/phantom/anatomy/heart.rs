//! Heart and coronary arteries.

use super::super::scene::{Layer, Paint, Point, Stroke, add, cross, normalised, scale};
use super::super::shape::{Ellipsoid, Shape};
use super::patient::Patient;
use super::thorax::Thorax;

/// Place and size of the heart.
#[derive(Clone, Debug)]
pub(in super::super) struct Heart {
    /// Outlines of ventricles, right atrium and left atrium.
    pub(in super::super) chambers: [Ellipsoid; 3],
    /// Size relative to a heart 117 mm wide.
    pub(in super::super) size: f32,
}

/// Width of the three outlines together at size 1: from the right atrium's to the left ventricle's border.
const WIDTH: f32 = 117.0;
/// Fat between muscle and pericardium, millimetres.
const EPICARDIAL_FAT: f32 = 6.0;

impl Heart {
    pub(in super::super) fn new(patient: &Patient) -> Self {
        let size = patient.cardiothoracic_ratio * 2.0 * patient.cage[0] / WIDTH;
        let axis = normalised([0.72, -0.46, -0.52]);
        let across = normalised(cross(axis, [0.0, 0.0, 1.0]));
        let axes = [axis, across, cross(axis, across)];
        let [low, high] = Thorax::extent(patient);
        let center = [
            25.0 * size,
            -patient.cage[1] + 12.0 + 45.0 * size,
            low + 0.41 * (high - low) + 6.0 * (size - 1.0),
        ];
        let at = |offset: Point| add(center, scale(offset, size));
        let radii = |radius: [f32; 3]| radius.map(|value| value * size);
        Self {
            chambers: [
                Ellipsoid {
                    center,
                    axes,
                    radius: radii([62.0, 42.0, 43.0]),
                },
                Ellipsoid::upright(at([-38.0, 3.0, 12.0]), radii([26.0, 30.0, 34.0])),
                Ellipsoid::upright(at([-8.0, 34.0, 22.0]), radii([38.0, 21.0, 27.0])),
            ],
            size,
        }
    }

    /// A point of the surface of the ventricles, `outwards` millimetres above it: `polar` is the angle from the apex,
    /// `around` the angle around the long axis, 0 towards the front and left.
    pub(in super::super) fn surface(&self, polar: f32, around: f32, outwards: f32) -> Point {
        let Ellipsoid {
            center,
            axes,
            radius,
        } = self.chambers[0].inflated(outwards);
        let (sin, cos) = polar.sin_cos();
        let (sin_around, cos_around) = around.sin_cos();
        let weights = [
            cos * radius[0],
            -sin * cos_around * radius[1],
            sin * sin_around * radius[2],
        ];
        (0..3).fold(center, |point, k| add(point, scale(axes[k], weights[k])))
    }

    /// Courses of the coronary arteries: anterior descending, circumflex, right.
    pub(in super::super) fn coronaries(&self) -> [Vec<Point>; 3] {
        let course = |polar: [f32; 2], around: [f32; 2]| {
            let steps = 14;
            (0..=steps)
                .map(|step| {
                    let at = step as f32 / steps as f32;
                    let mix = |ends: [f32; 2]| ends[0] + (ends[1] - ends[0]) * at;
                    self.surface(mix(polar), mix(around), 2.0)
                })
                .collect()
        };
        [
            course([1.95, 0.35], [0.55, 0.25]),
            course([1.9, 1.75], [0.3, -1.5]),
            course([2.0, 1.8], [1.6, 3.4]),
        ]
    }

    pub(in super::super) fn strokes(&self, patient: &Patient) -> Vec<Stroke> {
        let mut strokes = Vec::new();
        let mut shells = |margin: f32, hounsfield: f32| {
            for chamber in self.chambers {
                let shape = Shape::Ellipsoid(chamber.inflated(margin));
                strokes.push(Stroke::new(Layer::Heart, shape, Paint::Solid(hounsfield)));
            }
        };
        let fluid = patient.pericardial_fluid;
        shells(1.5 + fluid, 30.0);
        if fluid > 0.0 {
            shells(fluid, 6.0);
        }
        shells(0.0, -85.0);
        shells(-EPICARDIAL_FAT, if patient.contrast { 90.0 } else { 50.0 });
        for cavity in self.cavities() {
            strokes.push(
                Stroke::new(
                    Layer::Heart,
                    Shape::Ellipsoid(cavity),
                    Paint::Solid(patient.blood),
                )
                .blurred(3.0),
            );
        }
        for course in self.coronaries() {
            for leg in course.windows(2) {
                let blood = Paint::Over(patient.blood);
                strokes.push(Stroke::tube(
                    Layer::Mediastinum,
                    leg[0],
                    leg[1],
                    [1.4, 1.4],
                    blood,
                ));
            }
        }
        strokes
    }

    /// Left and right ventricle, right and left atrium.
    fn cavities(&self) -> [Ellipsoid; 4] {
        let [ventricles, right, left] = self.chambers;
        let s = self.size;
        let inside = |sideways: f32, up: f32, radius: [f32; 3]| {
            let offset = add(
                scale(ventricles.axes[1], sideways * s),
                scale(ventricles.axes[2], up * s),
            );
            let center = add(ventricles.center, offset);
            Ellipsoid {
                center,
                axes: ventricles.axes,
                radius: radius.map(|value| value * s),
            }
        };
        [
            inside(-13.0, -8.0, [38.0, 15.0, 20.0]),
            inside(20.0, 10.0, [42.0, 11.0, 22.0]),
            right.inflated(-7.0 * s),
            left.inflated(-6.0 * s),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::random::Random;
    use super::*;

    #[test]
    fn the_hearts_width_follows_the_cardiothoracic_ratio() {
        let mut patient = Patient::sample(&mut Random::new(2));
        for ratio in [0.4, 0.46, 0.6] {
            patient.cardiothoracic_ratio = ratio;
            let heart = Heart::new(&patient);
            let (mut low, mut high) = (f32::INFINITY, f32::NEG_INFINITY);
            for chamber in &heart.chambers {
                low = low.min(chamber.center[0] - chamber.reach()[0]);
                high = high.max(chamber.center[0] + chamber.reach()[0]);
            }
            let measured = (high - low) / (2.0 * patient.cage[0]);
            assert!((measured - ratio).abs() < 0.012, "{measured} {ratio}");
        }
    }

    #[test]
    fn coronary_arteries_run_on_the_heart() {
        let patient = Patient::sample(&mut Random::new(2));
        let heart = Heart::new(&patient);
        for course in heart.coronaries() {
            for point in course {
                let nearest = heart
                    .chambers
                    .iter()
                    .map(|chamber| chamber.prepared().distance(point))
                    .fold(f32::INFINITY, f32::min);
                assert!(nearest < 3.0, "{nearest}");
            }
        }
    }
}
