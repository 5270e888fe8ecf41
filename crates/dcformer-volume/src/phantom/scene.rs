//! What a scene is made of: soft-edged shapes in millimetres, painted in the order of their layers.
//!
//! Positions are in the patient's frame of the phantom: `x` towards left, `y` towards posterior, `z` towards superior,
//! millimetres, the origin between the lungs at the height of the carina.

use super::shape::{Ellipsoid, Shape};

/// A position or a direction.
pub(super) type Point = [f32; 3];

pub(super) fn add(a: Point, b: Point) -> Point {
    [a[0] + b[0], a[1] + b[1], a[2] + b[2]]
}

pub(super) fn subtract(a: Point, b: Point) -> Point {
    [a[0] - b[0], a[1] - b[1], a[2] - b[2]]
}

pub(super) fn scale(a: Point, factor: f32) -> Point {
    a.map(|value| value * factor)
}

pub(super) fn dot(a: Point, b: Point) -> f32 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

pub(super) fn length(a: Point) -> f32 {
    dot(a, a).sqrt()
}

pub(super) fn normalised(a: Point) -> Point {
    scale(a, 1.0 / length(a).max(1e-6))
}

pub(super) fn cross(a: Point, b: Point) -> Point {
    [
        a[1] * b[2] - a[2] * b[1],
        a[2] * b[0] - a[0] * b[2],
        a[0] * b[1] - a[1] * b[0],
    ]
}

/// `a` at 0, `b` at 1.
pub(super) fn lerp(a: f32, b: f32, at: f32) -> f32 {
    a + (b - a) * at
}

/// The point between two points, `a` at 0, `b` at 1.
pub(super) fn between(a: Point, b: Point, at: f32) -> Point {
    [
        lerp(a[0], b[0], at),
        lerp(a[1], b[1], at),
        lerp(a[2], b[2], at),
    ]
}

/// Two directions that make a right-handed frame with a unit direction.
pub(super) fn frame(axis: Point) -> [Point; 3] {
    let helper = if axis[2].abs() < 0.8 {
        [0.0, 0.0, 1.0]
    } else {
        [1.0, 0.0, 0.0]
    };
    let second = normalised(cross(helper, axis));
    [axis, second, cross(axis, second)]
}

/// 0 below `low`, 1 above `high`, a smooth step between.
pub(super) fn smoothstep(low: f32, high: f32, x: f32) -> f32 {
    let t = ((x - low) / (high - low)).clamp(0.0, 1.0);
    t * t * (3.0 - 2.0 * t)
}

/// Maximum of two distances with the edge rounded over `k` millimetres.
pub(super) fn smooth_max(a: f32, b: f32, k: f32) -> f32 {
    let h = (k - (a - b).abs()).max(0.0);
    a.max(b) + h * h * (0.25 / k)
}

/// Minimum of two distances with the edge rounded over `k` millimetres.
pub(super) fn smooth_min(a: f32, b: f32, k: f32) -> f32 {
    -smooth_max(-a, -b, k)
}

/// Share of a voxel of width `width` that lies inside a surface at signed distance `distance` from its centre.
pub(super) fn coverage(distance: f32, width: f32) -> f32 {
    (0.5 - distance / width).clamp(0.0, 1.0)
}

/// Distance-like value of an ellipse at `(x, y)` relative to its centre: exact on the outline, close near it.
pub(super) fn ellipse(x: f32, y: f32, radius: [f32; 2]) -> f32 {
    let (u, v) = (x / radius[0], y / radius[1]);
    let k = (u * u + v * v).sqrt();
    let gradient = ((u / radius[0]).powi(2) + (v / radius[1]).powi(2)).sqrt();
    (k - 1.0) * k.max(1e-3) / gradient.max(1e-6)
}

/// What a shape does to the voxels inside it. Hounsfield units.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Paint {
    /// Takes the place of whatever was there; lung ends where it begins.
    Solid(f32),
    /// Takes the place of whatever was there and leaves the extent of the lung alone.
    Over(f32),
    /// Inside lung only: takes the place of the parenchyma.
    Lung(f32),
    /// Inside lung only, where it makes the voxel denser.
    DenserLung(f32),
    /// Inside lung only, where it makes the voxel lighter.
    LighterLung(f32),
    /// Inside lung only: added to what is there.
    AddToLung(f32),
}

/// Order of painting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Layer {
    Heart,
    GreatVessels,
    Mediastinum,
    LungBackground,
    LungVessels,
    LungLesions,
    AirwayWalls,
    AirwayLumens,
    Bone,
    Marrow,
    Deposits,
    Devices,
}

/// A shape with its paint.
#[derive(Clone, Debug)]
pub(super) struct Stroke {
    pub(super) shape: Shape,
    pub(super) paint: Paint,
    pub(super) layer: Layer,
    /// Width of the transition at the outline in addition to the voxel's own, millimetres.
    pub(super) blur: f32,
    /// Amplitude in millimetres and length in millimetres of the outline's irregularity.
    pub(super) roughness: Option<[f32; 2]>,
    /// Amplitude in Hounsfield units of the artefacts that the object casts over its slices.
    pub(super) streaks: f32,
}

impl Stroke {
    pub(super) const fn new(layer: Layer, shape: Shape, paint: Paint) -> Self {
        Self {
            shape,
            paint,
            layer,
            blur: 0.0,
            roughness: None,
            streaks: 0.0,
        }
    }

    pub(super) const fn tube(
        layer: Layer,
        from: Point,
        to: Point,
        radius: [f32; 2],
        paint: Paint,
    ) -> Self {
        Self::new(layer, Shape::Tube { from, to, radius }, paint)
    }

    pub(super) const fn ball(layer: Layer, center: Point, radius: [f32; 3], paint: Paint) -> Self {
        Self::new(
            layer,
            Shape::Ellipsoid(Ellipsoid::upright(center, radius)),
            paint,
        )
    }

    pub(super) const fn blurred(mut self, blur: f32) -> Self {
        self.blur = blur;
        self
    }

    pub(super) const fn rough(mut self, amplitude: f32, length: f32) -> Self {
        self.roughness = Some([amplitude, length]);
        self
    }

    pub(super) const fn with_streaks(mut self, amplitude: f32) -> Self {
        self.streaks = amplitude;
        self
    }
}

/// A round path through points, as tubes.
pub(super) fn path(points: &[Point], steps: usize) -> Vec<Point> {
    let mut all = vec![points[0]];
    for leg in 0..points.len() - 1 {
        let p = |offset: isize| {
            points[(leg as isize + offset).clamp(0, points.len() as isize - 1) as usize]
        };
        let (a, b, c, d) = (p(-1), p(0), p(1), p(2));
        for step in 1..=steps {
            let t = step as f32 / steps as f32;
            // Catmull and Rom's cubic.
            all.push([0, 1, 2].map(|axis| {
                0.5 * (2.0 * b[axis]
                    + (c[axis] - a[axis]) * t
                    + (2.0 * a[axis] - 5.0 * b[axis] + 4.0 * c[axis] - d[axis]) * t * t
                    + (3.0 * b[axis] - a[axis] - 3.0 * c[axis] + d[axis]) * t * t * t)
            }));
        }
    }
    all
}

/// Tubes along a path, the radius going from the first to the second value.
pub(super) fn tubes(layer: Layer, points: &[Point], radius: [f32; 2], paint: Paint) -> Vec<Stroke> {
    let legs = (points.len() - 1) as f32;
    let at = |index: usize| lerp(radius[0], radius[1], index as f32 / legs);
    points
        .windows(2)
        .enumerate()
        .map(|(index, leg)| Stroke::tube(layer, leg[0], leg[1], [at(index), at(index + 1)], paint))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_pass_through_their_points() {
        let points = [[0.0, 0.0, 0.0], [10.0, 5.0, 0.0], [10.0, 20.0, 3.0]];
        let path = path(&points, 4);
        assert_eq!(path.len(), 9);
        assert!(length(subtract(path[4], points[1])) < 1e-4);
        assert!(length(subtract(path[8], points[2])) < 1e-4);
    }
}
