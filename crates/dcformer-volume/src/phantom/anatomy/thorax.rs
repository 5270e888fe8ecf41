//! The shape of the trunk: rib cage, lungs, mediastinum and diaphragm as distances.

use super::super::scene::{Point, ellipse, lerp, smooth_max, smooth_min, smoothstep};
use super::super::shape::{Ellipsoid, PreparedEllipsoid, map_points};
use super::heart::Heart;
use super::patient::Patient;

/// Side of the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in super::super) enum Side {
    Right,
    Left,
}

impl Side {
    /// -1 towards right, 1 towards left: the sign of `x`.
    pub(in super::super) const fn sign(self) -> f32 {
        match self {
            Self::Right => -1.0,
            Self::Left => 1.0,
        }
    }

    pub(in super::super) const fn other(self) -> Self {
        match self {
            Self::Right => Self::Left,
            Self::Left => Self::Right,
        }
    }
}

/// Part of a lung between fissures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in super::super) enum Lobe {
    Upper,
    /// Right lung: middle lobe; left lung: lingula.
    Middle,
    Lower,
}

/// The trunk's shape.
#[derive(Clone, Debug)]
pub(in super::super) struct Thorax {
    cage: [f32; 2],
    wall: f32,
    fat: f32,
    /// Lowest and highest point of the lungs.
    pub(in super::super) z: [f32; 2],
    /// Height of the domes, right and left.
    domes: [f32; 2],
    dome_drop: f32,
    heart: [PreparedEllipsoid; 3],
    heart_z: [f32; 2],
    scoliosis: f32,
    /// The left breast, if any; the right one is its mirror image.
    breast: Option<Ellipsoid>,
}

/// What is constant on one height.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Level {
    pub(in super::super) z: f32,
    /// Relative height: 0 at the lowest, 1 at the highest point of the lungs.
    pub(in super::super) t: f32,
    /// Inside of the rib cage: radii and centre.
    pub(in super::super) radius: [f32; 2],
    pub(in super::super) center_y: f32,
    /// Radii and centre of the skin's outline.
    body: [f32; 2],
    body_y: f32,
    /// Half widths of the mediastinum in front, in the middle and behind.
    mediastinum: [f32; 3],
    /// Centre of the vertebral column.
    pub(in super::super) spine_y: f32,
    heart: bool,
    /// Thickness of the muscle around the cage.
    pub(in super::super) muscle: f32,
    /// Sideways shift of everything on this height.
    pub(in super::super) shift_x: f32,
}

/// Relative height above which there is neck only.
const TOP: f32 = 1.03;

/// Height of the carina between the lowest and the highest point of the lungs.
pub(in super::super) const CARINA: f32 = 0.62;

impl Thorax {
    pub(in super::super) fn new(patient: &Patient, heart: &Heart) -> Self {
        let z = Self::extent(patient);
        let dome = |lift: f32, t: f32| lerp(z[0], z[1], t) + lift;
        let [right, left] = patient.dome_lift;
        let margin = 3.0 + patient.pericardial_fluid;
        let chambers = heart.chambers.map(|chamber| chamber.inflated(margin));
        let breast = || {
            let size = 34.0 + 0.8 * patient.fat;
            let center = [
                0.55 * patient.cage[0],
                -patient.cage[1] - 10.0,
                lerp(z[0], z[1], 0.36),
            ];
            Ellipsoid::upright(center, [1.25 * size, size, 1.3 * size])
        };
        Self {
            cage: patient.cage,
            wall: patient.muscle,
            fat: patient.fat,
            z,
            domes: [dome(right, 0.29), dome(left, 0.24)],
            dome_drop: 0.24 * patient.lung_height,
            heart: chambers.map(|chamber| chamber.prepared()),
            heart_z: [0, 1].map(|end| {
                let reach = |e: &Ellipsoid| {
                    if end == 0 {
                        e.center[2] - e.reach()[2]
                    } else {
                        e.center[2] + e.reach()[2]
                    }
                };
                let ends = chambers.iter().map(reach);
                if end == 0 {
                    ends.fold(f32::INFINITY, f32::min) - 8.0
                } else {
                    ends.fold(f32::NEG_INFINITY, f32::max) + 8.0
                }
            }),
            scoliosis: patient.scoliosis,
            breast: patient.female.then(breast),
        }
    }

    /// Lowest and highest point of the lungs; the carina is at 0.
    pub(in super::super) fn extent(patient: &Patient) -> [f32; 2] {
        [
            -CARINA * patient.lung_height,
            (1.0 - CARINA) * patient.lung_height,
        ]
    }

    /// Height of a relative height.
    pub(in super::super) fn height(&self, t: f32) -> f32 {
        lerp(self.z[0], self.z[1], t)
    }

    /// What is constant at height `z`.
    pub(in super::super) fn level(&self, z: f32) -> Level {
        let t = (z - self.z[0]) / (self.z[1] - self.z[0]);
        let s = ((t - 0.3) / 0.72).clamp(0.0, 1.0);
        let below = (0.3 - t).max(0.0);
        let width =
            self.cage[0] * ((1.0 - s.powf(2.2)).powf(0.62) - 0.22 * below * below).max(0.02);
        let depth = self.cage[1] * ((1.0 - s.powf(2.6)).powf(0.55) - 0.2 * below * below).max(0.02);
        let shoulders = smoothstep(0.62, 1.0, t);
        let neck = smoothstep(1.0, 1.2, t);
        let body_width = self.cage[0] * (1.0 - 0.22 * below * below) + self.wall + self.fat;
        let body_depth = self.cage[1] + self.wall + 0.9 * self.fat;
        // Front, middle and back of the mediastinum at t = 0.1, 0.45, 0.66, 0.85 and 1.
        const WIDTHS: [(f32, [f32; 3]); 5] = [
            (0.10, [16.0, 22.0, 26.0]),
            (0.45, [7.0, 26.0, 22.0]),
            (0.66, [7.0, 31.0, 20.0]),
            (0.85, [20.0, 32.0, 20.0]),
            (1.00, [34.0, 34.0, 30.0]),
        ];
        let upper = WIDTHS
            .iter()
            .position(|(height, _)| *height > t)
            .unwrap_or(WIDTHS.len() - 1)
            .max(1);
        let ((t0, low), (t1, high)) = (WIDTHS[upper - 1], WIDTHS[upper]);
        let at = smoothstep(t0, t1, t);
        Level {
            z,
            t,
            radius: [width, depth],
            center_y: 16.0 * s * s,
            body: [
                lerp(body_width + 62.0 * shoulders, 88.0, neck),
                lerp(body_depth - 14.0 * shoulders, 76.0, neck),
            ],
            body_y: 9.0 + 8.0 * shoulders,
            mediastinum: [0, 1, 2].map(|k| lerp(low[k], high[k], at)),
            spine_y: self.cage[1] - 23.0 + 6.0 * s * s,
            heart: z > self.heart_z[0] && z < self.heart_z[1],
            muscle: self.wall + 26.0 * shoulders,
            shift_x: self.scoliosis * (1.6 * (t - 0.5)).sin(),
        }
    }

    /// Distance to the skin.
    pub(in super::super) fn body(&self, level: &Level, x: f32, y: f32) -> f32 {
        let mut out = [0.0];
        self.bodies(level, &[x], &[y], &mut out);
        out[0]
    }

    /// [`Thorax::body`] of many points.
    pub(in super::super) fn bodies(&self, level: &Level, x: &[f32], y: &[f32], out: &mut [f32]) {
        map_points(x, y, out, |x, y| {
            squircle(x, y - level.body_y, level.body, 0.42)
        });
        let front = -0.5 * self.cage[1];
        if let Some(breast) = &self.breast
            && y.iter().any(|y| *y < front)
        {
            let breast = breast.prepared();
            for ((&x, &y), outline) in x.iter().zip(y).zip(out) {
                let distance = breast.distance([x.abs(), y, level.z]);
                let joined = smooth_min(*outline, distance, 14.0);
                let near = (*outline < 60.0) & (y < front);
                *outline = if near { joined } else { *outline };
            }
        }
    }

    /// Distances to the inside of the rib cage; above the lungs, to the middle of the neck.
    pub(in super::super) fn cages(&self, level: &Level, x: &[f32], y: &[f32], out: &mut [f32]) {
        if level.t > TOP {
            map_points(x, y, out, |x, y| {
                ellipse(x, y - level.center_y, [46.0, 38.0])
            });
        } else {
            map_points(x, y, out, |x, y| {
                squircle(x, y - level.center_y, level.radius, 0.34)
            });
        }
    }

    /// Distances to the lung, negative inside it, and to the space below the diaphragm (vertical, positive above it) of
    /// points on a level, where [`Thorax::cages`] is `cage`.
    pub(in super::super) fn fields(
        &self,
        level: &Level,
        [x, y]: [&[f32]; 2],
        cage: &[f32],
        lung: &mut [f32],
        diaphragm: &mut [f32],
    ) {
        if level.t > TOP {
            lung.fill(50.0);
            diaphragm.fill(50.0);
            return;
        }
        map_points(x, y, diaphragm, |x, y| {
            level.z - self.diaphragm_at(x, y - level.center_y)
        });
        let [front, middle, back] = level.mediastinum;
        let around = cage.iter().zip(&*diaphragm);
        for (((&x, &y), (&cage, &diaphragm)), lung) in x.iter().zip(y).zip(around).zip(&mut *lung) {
            let v = ((y - level.center_y) / level.radius[1]).clamp(-1.0, 1.0);
            let half = lerp(middle, if v < 0.0 { front } else { back }, v * v);
            let behind = y - level.spine_y - 9.0;
            let spine = 31.0 - (x * x + behind * behind).sqrt();
            let inside = smooth_max(smooth_max(cage, spine, 8.0), half - (x - 1.0).abs(), 10.0);
            *lung = smooth_max(inside, -0.8 * diaphragm, 7.0);
        }
        if level.heart {
            for ((&x, &y), lung) in x.iter().zip(y).zip(lung) {
                let [a, b, c] = self.heart.map(|chamber| chamber.distance([x, y, level.z]));
                let heart = smooth_min(smooth_min(a, b, 14.0), c, 14.0);
                let pushed = smooth_max(*lung, -heart, 7.0);
                *lung = if *lung < 30.0 { pushed } else { *lung };
            }
        }
    }

    /// Farthest skin of a level from the middle along `x` and `y`, with a margin for its edge.
    pub(in super::super) fn reach(&self, level: &Level) -> [f32; 2] {
        const MARGIN: f32 = 8.0;
        let front = match &self.breast {
            Some(breast) => breast.reach()[1] - breast.center[1],
            None => 0.0,
        };
        let back = level.body[1] + level.body_y;
        [level.body[0] + MARGIN, back.max(front) + MARGIN]
    }

    /// Distance to the lung at any point.
    pub(in super::super) fn lung(&self, point: Point) -> f32 {
        let level = self.level(point[2]);
        let (x, y) = ([point[0] - level.shift_x], [point[1]]);
        let [mut cage, mut lung, mut diaphragm] = [[0.0]; 3];
        self.cages(&level, &x, &y, &mut cage);
        self.fields(&level, [&x, &y], &cage, &mut lung, &mut diaphragm);
        lung[0]
    }

    /// Height of the diaphragm.
    fn diaphragm_at(&self, x: f32, yc: f32) -> f32 {
        let [a, b] = self.cage;
        let dome = |height: f32, center: f32, width: f32| {
            let (u, v) = ((x - center) / width, (yc + 6.0) / b);
            height - self.dome_drop * (u * u + v * v)
        };
        let right = dome(self.domes[0], -0.5 * a, 0.56 * a);
        let left = dome(self.domes[1], 0.52 * a, 0.54 * a);
        let middle = dome(
            0.5 * (self.domes[0] + self.domes[1]) - 16.0,
            0.05 * a,
            0.8 * a,
        );
        smooth_max(smooth_max(right, left, 16.0), middle, 16.0)
    }

    /// Distance in height to the oblique fissure (positive above and in front of it) at a point of a lung.
    pub(in super::super) fn oblique_fissure(&self, point: Point) -> f32 {
        let v = point[1] / self.cage[1];
        let bow = 0.03 * (point[0].abs() / self.cage[0] - 0.5);
        point[2] - self.height(0.42 + 0.27 * v + bow)
    }

    /// Distance in height to the horizontal fissure of the right lung.
    pub(in super::super) fn horizontal_fissure(&self, point: Point) -> f32 {
        point[2] - self.height(0.52 + 0.05 * (point[0].abs() / self.cage[0] - 0.5))
    }

    /// Side and lobe of a point of a lung.
    pub(in super::super) fn lobe(&self, point: Point) -> (Side, Lobe) {
        let side = if point[0] < 0.0 {
            Side::Right
        } else {
            Side::Left
        };
        if self.oblique_fissure(point) < 0.0 {
            return (side, Lobe::Lower);
        }
        let lingula = if side == Side::Left { 14.0 } else { 0.0 };
        (
            side,
            if self.horizontal_fissure(point) < -lingula {
                Lobe::Middle
            } else {
                Lobe::Upper
            },
        )
    }

    /// The point of the inner chest wall at an angle around the trunk: 0 is straight back, `PI` straight to the front,
    /// on the given side.
    pub(in super::super) fn wall(&self, side: Side, angle: f32, z: f32, outwards: f32) -> Point {
        let level = self.level(z);
        let (sin, cos) = angle.sin_cos();
        // Along the ray, the squircle's outline solves r^2 - s cos^2 sin^2 r^4 = 1 in the cage's own units.
        let q = 0.34 * sin * sin * cos * cos;
        let r = if q < 1e-4 {
            1.0
        } else {
            ((1.0 - (1.0 - 4.0 * q).sqrt()) / (2.0 * q)).sqrt()
        };
        let [a, b] = level.radius;
        [
            side.sign() * (a * r + outwards) * sin + level.shift_x,
            level.center_y + (b * r + outwards) * cos,
            z,
        ]
    }

    /// Shifts a point of the straight patient to where the bent patient has it.
    pub(in super::super) fn bend(&self, mut point: Point) -> Point {
        point[0] += self.level(point[2]).shift_x;
        point
    }
}

/// Distance-like value of an ellipse made squarer: `u^2 + v^2 - s u^2 v^2 = 1`.
fn squircle(x: f32, y: f32, radius: [f32; 2], squareness: f32) -> f32 {
    let (u, v) = (x / radius[0], y / radius[1]);
    let (uu, vv) = (u * u, v * v);
    let k = (uu + vv - squareness * uu.min(1.0) * vv.min(1.0)).sqrt();
    let gradient = (uu / (radius[0] * radius[0]) + vv / (radius[1] * radius[1])).sqrt();
    (k - 1.0) * k.max(1e-3) / gradient.max(1e-6)
}

#[cfg(test)]
mod tests {
    use super::super::super::random::Random;
    use super::*;

    fn thorax(seed: u64) -> (Patient, Thorax) {
        let patient = Patient::sample(&mut Random::new(seed));
        let heart = Heart::new(&patient);
        let thorax = Thorax::new(&patient, &heart);
        (patient, thorax)
    }

    #[test]
    fn lungs_lie_inside_the_cage_and_the_cage_inside_the_body() {
        let (_, thorax) = thorax(3);
        let mut inside = 0;
        for z in [-100.0, -60.0, -20.0, 20.0, 60.0] {
            let level = thorax.level(z);
            for y in (-120..120).step_by(6) {
                for x in (-160..160).step_by(6) {
                    let mut cage = [0.0];
                    thorax.cages(&level, &[x as f32], &[y as f32], &mut cage);
                    if thorax.lung([x as f32 + level.shift_x, y as f32, z]) < 0.0 {
                        inside += 1;
                        assert!(cage[0] < 0.0);
                        assert!(thorax.body(&level, x as f32, y as f32) < -5.0);
                    }
                }
            }
        }
        assert!(inside > 1_500, "{inside}");
    }

    #[test]
    fn total_lung_capacity_is_that_of_an_adult() {
        for seed in 0..8 {
            let (_, thorax) = thorax(seed);
            let mut voxels = 0;
            for z in (-170..100).step_by(5) {
                for y in (-130..130).step_by(5) {
                    for x in (-170..170).step_by(5) {
                        voxels += i32::from(thorax.lung([x as f32, y as f32, z as f32]) < 0.0);
                    }
                }
            }
            let litres = voxels as f32 * 125e-6;
            assert!((2.0..7.5).contains(&litres), "seed {seed}: {litres} l");
        }
    }

    #[test]
    fn wall_points_lie_on_the_cage() {
        let (_, thorax) = thorax(5);
        for angle in [0.2, 0.8, 1.5, 2.4, 3.0] {
            let point = thorax.wall(Side::Left, angle, 10.0, 0.0);
            let level = thorax.level(10.0);
            let mut distance = [f32::NAN];
            thorax.cages(
                &level,
                &[point[0] - level.shift_x],
                &[point[1]],
                &mut distance,
            );
            assert!(distance[0].abs() < 1.0, "{angle}: {distance:?}");
        }
    }
}
