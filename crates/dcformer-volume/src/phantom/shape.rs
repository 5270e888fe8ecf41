//! Closed surfaces as distances.

use super::scene::{Point, add, between, dot, ellipse, length, lerp, scale, subtract};

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

    /// With what its distance needs computed once.
    pub(super) fn prepared(&self) -> PreparedEllipsoid {
        PreparedEllipsoid {
            center: self.center,
            scaled_axes: [0, 1, 2].map(|k| scale(self.axes[k], 1.0 / self.radius[k])),
            radius: self.radius,
        }
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

/// An [`Ellipsoid`] with what its distance needs computed once.
#[derive(Clone, Copy, Debug)]
pub(super) struct PreparedEllipsoid {
    center: Point,
    /// The axes divided by their radii.
    scaled_axes: [Point; 3],
    radius: [f32; 3],
}

impl PreparedEllipsoid {
    /// Signed distance in millimetres: exact on the surface, close near it.
    pub(super) fn distance(&self, point: Point) -> f32 {
        let offset = subtract(point, self.center);
        let mut norm = 0.0;
        let mut gradient = 0.0;
        for (axis, radius) in self.scaled_axes.iter().zip(self.radius) {
            let q = dot(*axis, offset);
            norm += q * q;
            gradient += (q / radius) * (q / radius);
        }
        let norm = norm.sqrt();
        (norm - 1.0) * norm.max(1e-3) / gradient.sqrt().max(1e-6)
    }
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
    Ellipsoid(PreparedEllipsoid),
    Cylinder {
        center: Point,
        radius: [f32; 2],
        half_height: f32,
    },
}

impl Prepared {
    /// Signed distances in millimetres of points at height `z`.
    pub(super) fn distances(&self, x: &[f32], y: &[f32], z: f32, out: &mut [f32]) {
        match *self {
            Self::Tube {
                from,
                along,
                inverse,
                radius,
            } => map_points(x, y, out, |x, y| {
                let offset = subtract([x, y, z], from);
                let at = (dot(along, offset) * inverse).clamp(0.0, 1.0);
                length(subtract(offset, scale(along, at))) - lerp(radius[0], radius[1], at)
            }),
            Self::Ellipsoid(ellipsoid) => {
                map_points(x, y, out, |x, y| ellipsoid.distance([x, y, z]));
            }
            Self::Cylinder {
                center,
                radius,
                half_height,
            } => map_points(x, y, out, |x, y| {
                let side = ellipse(x - center[0], y - center[1], radius);
                side.max((z - center[2]).abs() - half_height)
            }),
        }
    }
}

/// One value a point: a loop that becomes vector code.
pub(super) fn map_points(x: &[f32], y: &[f32], out: &mut [f32], value: impl Fn(f32, f32) -> f32) {
    for ((&x, &y), out) in x.iter().zip(y).zip(out) {
        *out = value(x, y);
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
            Self::Ellipsoid(ellipsoid) => Prepared::Ellipsoid(ellipsoid.prepared()),
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
        let [x, y, z] = point;
        let mut out = [0.0];
        self.prepared().distances(&[x], &[y], z, &mut out);
        out[0]
    }

    /// Lowest and highest corner of a box around everything closer than `margin` at height `z`; `None` if nothing is.
    pub(super) fn section(&self, z: f32, margin: f32) -> Option<[[f32; 2]; 2]> {
        match self {
            Self::Tube { from, to, radius } => Some(tube_section(
                [*from, *to],
                radius[0].max(radius[1]) + margin,
                z,
            )),
            Self::Ellipsoid(ellipsoid) => ellipsoid.inflated(margin).section(z),
            Self::Cylinder { .. } => {
                let [low, high] = self.bounds_with(margin);
                let within = z >= low[2] && z <= high[2];
                within.then_some([[low[0], low[1]], [high[0], high[1]]])
            }
        }
    }

    /// Lowest and highest corner of a box around everything closer than `margin`.
    pub(super) fn bounds_with(&self, margin: f32) -> [Point; 2] {
        // A margin is added to the radii of an ellipsoid; rounding on the way makes less than a hundredth.
        let ([low, high], margin) = match self {
            Self::Ellipsoid(ellipsoid) => {
                (Self::Ellipsoid(ellipsoid.inflated(margin)).bounds(), 0.01)
            }
            _ => (self.bounds(), margin),
        };
        [
            low.map(|value| value - margin),
            high.map(|value| value + margin),
        ]
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

/// A box around the part of a tube that comes near a height: `reach` is the distance from its axis.
fn tube_section([from, to]: [Point; 2], reach: f32, z: f32) -> [[f32; 2]; 2] {
    // Rounding on the way makes less than a hundredth.
    let reach = reach + 0.01;
    let rise = to[2] - from[2];
    let mut ends = [0.0, 1.0];
    if rise.abs() > 0.01 {
        let [a, b] = [-reach, reach].map(|side| (z + side - from[2]) / rise);
        ends = [a.min(b), a.max(b)].map(|at| at.clamp(0.0, 1.0));
    }
    let [a, b] = ends.map(|at| between(from, to, at));
    [
        [0, 1].map(|axis| a[axis].min(b[axis]) - reach),
        [0, 1].map(|axis| a[axis].max(b[axis]) + reach),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::random::Random;
    use super::super::scene::{frame, normalised};
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
            let distance = |along: f32| {
                let point = add(ellipsoid.center, scale(*axis, along));
                ellipsoid.prepared().distance(point)
            };
            assert!(distance(radius).abs() < 1e-3);
            assert!((distance(radius + 1.0) - 1.0).abs() < 0.15);
        }
        assert!(ellipsoid.prepared().distance(ellipsoid.center) < 0.0);
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
        let mut random = Random::new(5);
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
        let mut random = Random::new(6);
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
    fn sections_of_tubes_hold_every_point_near_them() {
        let mut random = Random::new(7);
        for to in [[9.0, -6.0, 30.0], [9.0, -6.0, 0.001], [0.0, 0.0, -12.0]] {
            let shape = Shape::Tube {
                from: [1.0, 2.0, 0.0],
                to,
                radius: [3.0, 1.0],
            };
            let mut inside = 0;
            for _ in 0..20_000 {
                let point = [
                    random.between(-9.0, 15.0),
                    random.between(-12.0, 8.0),
                    random.between(-20.0, 36.0),
                ];
                if shape.distance(point) <= 1.5 {
                    inside += 1;
                    let [low, high] = shape.section(point[2], 1.5).unwrap();
                    assert!(
                        (0..2).all(|axis| point[axis] >= low[axis] && point[axis] <= high[axis]),
                        "{to:?} {point:?}"
                    );
                }
            }
            assert!(inside > 500, "{inside}");
        }
    }
}
