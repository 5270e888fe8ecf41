//! What a scene is made of: soft-edged shapes in millimetres, painted in the order of their layers.
//!
//! Positions are in the patient's frame of the phantom: `x` towards left, `y` towards posterior, `z` towards superior,
//! millimetres, the origin between the lungs at the height of the carina.

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

/// Distance-like value of an ellipse at `(x, y)` relative to its centre: exact on the outline, close near it.
pub(super) fn ellipse(x: f32, y: f32, radius: [f32; 2]) -> f32 {
    let (u, v) = (x / radius[0], y / radius[1]);
    let k = (u * u + v * v).sqrt();
    let gradient = ((u / radius[0]).powi(2) + (v / radius[1]).powi(2)).sqrt();
    (k - 1.0) * k.max(1e-3) / gradient.max(1e-6)
}

/// A closed surface with a signed distance, negative inside.
#[derive(Clone, Debug)]
pub(super) enum Shape {
    /// A cone with round ends.
    Tube {
        from: Point,
        to: Point,
        radius: [f32; 2],
    },
    /// An ellipsoid in any direction.
    Ellipsoid(Ellipsoid),
    /// An upright cylinder with an elliptic section.
    Cylinder {
        center: Point,
        radius: [f32; 2],
        half_height: f32,
    },
}

/// An ellipsoid: centre, unit axes and the radius along each.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ellipsoid {
    pub(super) center: Point,
    pub(super) axes: [Point; 3],
    pub(super) radius: [f32; 3],
}

impl Ellipsoid {
    /// An ellipsoid along the patient's axes.
    pub(super) const fn upright(center: Point, radius: [f32; 3]) -> Self {
        Self {
            center,
            axes: [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]],
            radius,
        }
    }

    /// The same, every radius larger by `margin` millimetres.
    pub(super) fn inflated(mut self, margin: f32) -> Self {
        self.radius = self.radius.map(|radius| (radius + margin).max(0.5));
        self
    }

    /// Largest distance from the centre along each of the patient's axes.
    pub(super) fn reach(&self) -> [f32; 3] {
        [0, 1, 2].map(|axis| {
            (0..3)
                .map(|k| (self.axes[k][axis] * self.radius[k]).powi(2))
                .sum::<f32>()
                .sqrt()
        })
    }

    /// The axes divided by their radii: what [`Ellipsoid::distance`] needs at every point.
    fn scaled_axes(&self) -> [Point; 3] {
        [0, 1, 2].map(|k| scale(self.axes[k], 1.0 / self.radius[k]))
    }

    pub(super) fn distance(&self, point: Point) -> f32 {
        ellipsoid_distance(
            &self.scaled_axes(),
            &self.radius,
            subtract(point, self.center),
        )
    }

    /// Lowest and highest corner of the section at height `z`; `None` where there is none.
    fn section(&self, z: f32) -> Option<[[f32; 2]; 2]> {
        // The section of {o : oᵀ M⁻¹ o <= 1} at a height is an ellipse with the conditional mean and covariance of M.
        let squared = self.radius.map(|radius| radius * radius);
        let m = |a: usize, b: usize| {
            (0..3)
                .map(|k| squared[k] * self.axes[k][a] * self.axes[k][b])
                .sum::<f32>()
        };
        let (height, vertical) = (z - self.center[2], m(2, 2));
        let left = 1.0 - height * height / vertical;
        if left < 0.0 {
            return None;
        }
        let [x, y] = [0, 1].map(|axis| {
            let slope = m(axis, 2) / vertical;
            let middle = self.center[axis] + slope * height;
            let half = ((m(axis, axis) - slope * m(axis, 2)).max(0.0) * left).sqrt();
            [middle - half, middle + half]
        });
        Some([[x[0], y[0]], [x[1], y[1]]])
    }
}

fn ellipsoid_distance(scaled_axes: &[Point; 3], radius: &[f32; 3], offset: Point) -> f32 {
    let mut norm = 0.0;
    let mut gradient = 0.0;
    for (axis, radius) in scaled_axes.iter().zip(radius) {
        let q = dot(*axis, offset);
        norm += q * q;
        gradient += (q / radius) * (q / radius);
    }
    let norm = norm.sqrt();
    (norm - 1.0) * norm.max(1e-3) / gradient.sqrt().max(1e-6)
}

/// A [`Shape`] with what its distance needs computed once.
#[derive(Clone, Copy, Debug)]
pub(super) enum Prepared {
    Tube {
        from: Point,
        along: Point,
        inverse: f32,
        radius: [f32; 2],
    },
    Ellipsoid {
        center: Point,
        scaled_axes: [Point; 3],
        radius: [f32; 3],
    },
    Cylinder {
        center: Point,
        radius: [f32; 2],
        half_height: f32,
    },
}

impl Prepared {
    /// Signed distance in millimetres.
    pub(super) fn distance(&self, point: Point) -> f32 {
        match self {
            Self::Tube {
                from,
                along,
                inverse,
                radius,
            } => {
                let offset = subtract(point, *from);
                let at = (dot(*along, offset) * inverse).clamp(0.0, 1.0);
                length(subtract(offset, scale(*along, at))) - lerp(radius[0], radius[1], at)
            }
            Self::Ellipsoid {
                center,
                scaled_axes,
                radius,
            } => ellipsoid_distance(scaled_axes, radius, subtract(point, *center)),
            Self::Cylinder {
                center,
                radius,
                half_height,
            } => {
                let side = ellipse(point[0] - center[0], point[1] - center[1], *radius);
                side.max((point[2] - center[2]).abs() - half_height)
            }
        }
    }
}

impl Shape {
    pub(super) fn prepared(&self) -> Prepared {
        match *self {
            Self::Tube { from, to, radius } => {
                let along = subtract(to, from);
                Prepared::Tube {
                    from,
                    along,
                    inverse: 1.0 / dot(along, along).max(1e-6),
                    radius,
                }
            }
            Self::Ellipsoid(ellipsoid) => Prepared::Ellipsoid {
                center: ellipsoid.center,
                scaled_axes: ellipsoid.scaled_axes(),
                radius: ellipsoid.radius,
            },
            Self::Cylinder {
                center,
                radius,
                half_height,
            } => Prepared::Cylinder {
                center,
                radius,
                half_height,
            },
        }
    }

    /// Signed distance in millimetres.
    #[cfg(test)]
    fn distance(&self, point: Point) -> f32 {
        self.prepared().distance(point)
    }

    /// Lowest and highest corner of a box around everything closer than `margin` at height `z`; `None` if nothing is.
    pub(super) fn section(&self, z: f32, margin: f32) -> Option<[[f32; 2]; 2]> {
        if let Self::Ellipsoid(ellipsoid) = self {
            return ellipsoid.inflated(margin).section(z);
        }
        let [low, high] = self.bounds();
        let within = z >= low[2] - margin && z <= high[2] + margin;
        within.then(|| {
            [
                [low[0] - margin, low[1] - margin],
                [high[0] + margin, high[1] + margin],
            ]
        })
    }

    /// Lowest and highest corner of a box around the shape.
    pub(super) fn bounds(&self) -> [Point; 2] {
        match self {
            Self::Tube { from, to, radius } => {
                let largest = radius[0].max(radius[1]);
                [
                    [0, 1, 2].map(|axis| from[axis].min(to[axis]) - largest),
                    [0, 1, 2].map(|axis| from[axis].max(to[axis]) + largest),
                ]
            }
            Self::Ellipsoid(ellipsoid) => {
                let reach = ellipsoid.reach();
                [
                    subtract(ellipsoid.center, reach),
                    add(ellipsoid.center, reach),
                ]
            }
            Self::Cylinder {
                center,
                radius,
                half_height,
            } => {
                let reach = [radius[0], radius[1], *half_height];
                [subtract(*center, reach), add(*center, reach)]
            }
        }
    }

    /// Smallest radius: what is thinner than a voxel fills only a part of it.
    pub(super) fn thinnest(&self) -> f32 {
        match self {
            Self::Tube { radius, .. } => radius[0].min(radius[1]),
            Self::Ellipsoid(ellipsoid) => {
                ellipsoid.radius.into_iter().fold(f32::INFINITY, f32::min)
            }
            Self::Cylinder {
                radius,
                half_height,
                ..
            } => radius[0].min(radius[1]).min(*half_height),
        }
    }
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
    fn distances_are_zero_on_the_surface_and_negative_inside() {
        let axes = frame(normalised([1.0, 2.0, -0.5]));
        let ellipsoid = Ellipsoid {
            center: [3.0, -2.0, 8.0],
            axes,
            radius: [20.0, 7.0, 11.0],
        };
        for (axis, radius) in axes.iter().zip(ellipsoid.radius) {
            assert!(
                ellipsoid
                    .distance(add(ellipsoid.center, scale(*axis, radius)))
                    .abs()
                    < 1e-3
            );
            assert!(
                (ellipsoid.distance(add(ellipsoid.center, scale(*axis, radius + 1.0))) - 1.0).abs()
                    < 0.15
            );
        }
        assert!(ellipsoid.distance(ellipsoid.center) < 0.0);
        let tube = Shape::Tube {
            from: [0.0; 3],
            to: [10.0, 0.0, 0.0],
            radius: [2.0, 4.0],
        };
        assert!((tube.distance([5.0, 3.0, 0.0])).abs() < 1e-6);
        assert!((tube.distance([16.0, 0.0, 0.0]) - 2.0).abs() < 1e-6);
    }

    #[test]
    fn bounds_hold_every_point_inside() {
        let axes = frame(normalised([0.3, -0.7, 0.6]));
        let shapes = [
            Shape::Ellipsoid(Ellipsoid {
                center: [1.0, 2.0, 3.0],
                axes,
                radius: [9.0, 3.0, 5.0],
            }),
            Shape::Tube {
                from: [-4.0, 1.0, 0.0],
                to: [6.0, -3.0, 8.0],
                radius: [1.0, 3.0],
            },
            Shape::Cylinder {
                center: [0.0, 1.0, 2.0],
                radius: [4.0, 6.0],
                half_height: 3.0,
            },
        ];
        let mut random = super::super::random::Random::new(5);
        for shape in shapes {
            let [low, high] = shape.bounds();
            for _ in 0..5_000 {
                let point = [0, 1, 2].map(|_| random.between(-15.0, 15.0));
                let outside = (0..3)
                    .any(|axis| point[axis] < low[axis] - 1e-4 || point[axis] > high[axis] + 1e-4);
                assert!(
                    !outside || shape.distance(point) > 0.0,
                    "{shape:?} {point:?}"
                );
            }
        }
    }

    #[test]
    fn sections_hold_every_point_near_the_shape() {
        let axes = frame(normalised([0.3, -0.7, 0.6]));
        let shape = Shape::Ellipsoid(Ellipsoid {
            center: [1.0, 2.0, 3.0],
            axes,
            radius: [9.0, 3.0, 5.0],
        });
        let mut random = super::super::random::Random::new(6);
        let mut inside = 0;
        for _ in 0..20_000 {
            let point = [0, 1, 2].map(|_| random.between(-13.0, 13.0));
            // The section holds all that is closer than its margin, up to the error of the distance far from the surface.
            if shape.distance(point) < 1.0 {
                inside += 1;
                let [low, high] = shape.section(point[2], 2.0).unwrap();
                assert!(
                    (0..2).all(|axis| point[axis] >= low[axis] && point[axis] <= high[axis]),
                    "{point:?}"
                );
            }
        }
        assert!(inside > 500);
        assert!(shape.section(30.0, 2.0).is_none());
    }

    #[test]
    fn paths_pass_through_their_points() {
        let points = [[0.0, 0.0, 0.0], [10.0, 5.0, 0.0], [10.0, 20.0, 3.0]];
        let path = path(&points, 4);
        assert_eq!(path.len(), 9);
        assert!(length(subtract(path[4], points[1])) < 1e-4);
        assert!(length(subtract(path[8], points[2])) < 1e-4);
    }
}
