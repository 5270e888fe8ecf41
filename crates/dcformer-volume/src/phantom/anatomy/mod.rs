//! A healthy chest, as shapes.

pub(super) mod heart;
pub(super) mod patient;
pub(super) mod skeleton;
pub(super) mod thorax;
pub(super) mod tree;

use self::heart::Heart;
use self::patient::Patient;
use self::thorax::{Lobe, Side, Thorax};
use self::tree::Tree;
use super::random::Random;
use super::scene::{Layer, Paint, Point, Stroke, add, length, path, scale, subtract, tubes};

/// Hounsfield units of air in an airway.
pub(super) const AIR: f32 = -1000.0;
/// Hounsfield units of muscle and other soft tissue.
pub(super) const SOFT_TISSUE: f32 = 45.0;

/// A patient's chest: its measures, and its shapes as strokes.
#[derive(Clone, Debug)]
pub(super) struct Anatomy {
    pub(super) patient: Patient,
    pub(super) thorax: Thorax,
    pub(super) heart: Heart,
    /// Course of the aorta from its root to below the diaphragm.
    pub(super) aorta: Vec<Point>,
    /// Radii of the aorta at its root and its end.
    pub(super) aorta_radius: [f32; 2],
    /// Arteries that leave the arch upwards.
    pub(super) arch_branches: Vec<[Point; 2]>,
    /// Course of the upper caval vein from the neck to the right atrium.
    pub(super) superior_vena_cava: Vec<Point>,
    /// Course of the oesophagus, from above.
    pub(super) oesophagus: Vec<Point>,
    /// Airways of the right and the left lung.
    pub(super) airways: [Tree; 2],
}

impl Anatomy {
    /// Builds the chest of a patient and its strokes. The same `random` gives the same chest.
    pub(super) fn build(patient: Patient, random: &Random) -> (Self, Vec<Stroke>) {
        let heart = Heart::new(&patient);
        let thorax = Thorax::new(&patient, &heart);
        let mut strokes = heart.strokes(&patient);
        strokes.extend(skeleton::strokes(&patient, &thorax, &mut random.stream(1)));
        let aorta = aorta_course(&patient, &thorax, &heart);
        let arch_branches = arch_branches(&thorax, &aorta);
        let superior_vena_cava = caval_course(&thorax, &heart);
        let oesophagus = oesophagus_course(&thorax);
        let airways = [Side::Right, Side::Left].map(|side| {
            let mut random = random.stream(2 + side as u64);
            let leaves = lung_points(&thorax, side, 22, 12.0, &mut random);
            Tree::grow(hilum(&thorax, side), leaves, 1.5, &mut random)
        });
        let radius = 15.0 * patient.aorta * (0.9 + 0.0025 * patient.age as f32);
        let anatomy = Self {
            aorta_radius: [radius, 0.74 * radius],
            patient,
            thorax,
            heart,
            aorta,
            arch_branches,
            superior_vena_cava,
            oesophagus,
            airways,
        };
        anatomy.great_vessels(&mut strokes);
        anatomy.central_airways(&mut strokes);
        for side in [Side::Right, Side::Left] {
            anatomy.lung_vessels(side, &mut random.stream(10 + side as u64), &mut strokes);
            for (from, to, radius) in anatomy.airways[side as usize].segments() {
                airway(from, to, radius, 0.7 + 0.12 * radius[1], &mut strokes);
            }
        }
        (anatomy, strokes)
    }

    fn great_vessels(&self, strokes: &mut Vec<Stroke>) {
        let blood = Paint::Solid(self.patient.blood);
        let layer = Layer::GreatVessels;
        let wall = self.patient.blood.min(SOFT_TISSUE);
        let [root, end] = self.aorta_radius;
        strokes.extend(tubes(
            layer,
            &self.aorta,
            [root + 1.5, end + 1.2],
            Paint::Solid(wall),
        ));
        strokes.extend(tubes(
            Layer::Mediastinum,
            &self.aorta,
            self.aorta_radius,
            blood,
        ));
        for [from, to] in &self.arch_branches {
            strokes.push(Stroke::tube(layer, *from, *to, [5.8, 4.6], blood));
        }
        strokes.extend(tubes(layer, &self.superior_vena_cava, [8.5, 9.0], blood));
        let heart = self.heart.chambers[0].center;
        let s = self.heart.size;
        let trunk = path(
            &[
                add(heart, [8.0 * s, -18.0 * s, 32.0 * s]),
                [20.0, -10.0, -14.0],
            ],
            3,
        );
        strokes.extend(tubes(layer, &trunk, [13.5, 12.5], blood));
        for side in [Side::Right, Side::Left] {
            let hilum = hilum(&self.thorax, side);
            let start = if side == Side::Right {
                [12.0, -4.0, -16.0]
            } else {
                [22.0, -6.0, -10.0]
            };
            let course = path(
                &[
                    start,
                    add(hilum, [-14.0 * side.sign(), -2.0, 2.0]),
                    add(hilum, [4.0 * side.sign(), 0.0, -4.0]),
                ],
                3,
            );
            strokes.extend(tubes(layer, &course, [10.5, 6.5], blood));
        }
        let atrium = self.heart.chambers[1].center;
        let below = [-20.0, 26.0, self.thorax.z[0] - 60.0];
        strokes.extend(tubes(
            layer,
            &path(&[add(atrium, [8.0, 10.0, -20.0 * s]), below], 3),
            [11.0, 11.5],
            blood,
        ));
        strokes.extend(tubes(
            layer,
            &self.oesophagus,
            [7.5, 8.0],
            Paint::Solid(38.0),
        ));
        strokes.extend(tubes(
            Layer::Mediastinum,
            &self.oesophagus,
            [1.8, 1.2],
            Paint::Over(-350.0),
        ));
        let azygos: Vec<Point> = self
            .aorta
            .iter()
            .skip(self.aorta.len() / 2)
            .map(|p| add(*p, [-24.0, 6.0, 0.0]))
            .collect();
        strokes.extend(tubes(layer, &azygos, [3.5, 3.5], blood));
    }

    fn central_airways(&self, strokes: &mut Vec<Stroke>) {
        let carina = carina();
        let top = [2.0, 0.0, self.thorax.z[1] + 60.0];
        airway_path(
            &path(&[top, [0.0, 4.0, 40.0], carina], 4),
            [8.8, 8.5],
            1.6,
            strokes,
        );
        for side in [Side::Right, Side::Left] {
            let radius = if side == Side::Right {
                [7.0, 6.2]
            } else {
                [6.4, 5.4]
            };
            airway_path(
                &path(&[carina, hilum(&self.thorax, side)], 3),
                radius,
                1.4,
                strokes,
            );
        }
    }

    fn lung_vessels(&self, side: Side, random: &mut Random, strokes: &mut Vec<Stroke>) {
        let hilum = hilum(&self.thorax, side);
        let blood = if self.patient.contrast {
            0.8 * self.patient.blood
        } else {
            self.patient.blood
        };
        let paint = Paint::DenserLung(blood);
        // Arteries run with the airways; veins have their own way back to the left atrium.
        let airways = &self.airways[side as usize];
        let mut leaves: Vec<Point> = airways
            .points
            .iter()
            .skip(1)
            .map(|p| add(*p, [3.5 * side.sign(), -2.5, 1.5]))
            .collect();
        leaves.extend(lung_points(&self.thorax, side, 105, 4.0, random));
        let arteries = Tree::grow(
            add(hilum, [5.0 * side.sign(), -4.0, 0.0]),
            leaves,
            0.85,
            random,
        );
        let atrium = self.heart.chambers[2].center;
        let root = add(atrium, [26.0 * side.sign(), 2.0, 0.0]);
        let veins = Tree::grow(
            root,
            lung_points(&self.thorax, side, 85, 4.0, random),
            0.85,
            random,
        );
        for tree in [&arteries, &veins] {
            let segments = tree.segments();
            strokes.extend(segments.map(|(from, to, radius)| {
                Stroke::tube(Layer::LungVessels, from, to, radius, paint)
            }));
        }
    }

    /// A random point of the lungs, at least `depth` from the pleura, that `wanted` accepts; the last try if none does.
    pub(super) fn point_in_lung(
        &self,
        random: &mut Random,
        depth: f32,
        wanted: impl Fn(Point) -> bool,
    ) -> Point {
        let [a, b] = self.patient.cage;
        let mut last = hilum(&self.thorax, Side::Right);
        for _ in 0..400 {
            let point = [
                random.between(-a, a),
                random.between(-b, b),
                random.between(self.thorax.z[0], self.thorax.z[1]),
            ];
            if self.thorax.lung(point) < -depth {
                last = point;
                if wanted(point) {
                    return point;
                }
            }
        }
        last
    }

    /// A random point of one lobe.
    pub(super) fn point_in_lobe(
        &self,
        random: &mut Random,
        depth: f32,
        side: Side,
        lobe: Lobe,
    ) -> Point {
        self.point_in_lung(random, depth, |point| {
            self.thorax.lobe(point) == (side, lobe)
        })
    }

    /// Relative height of a point: 0 at the lowest, 1 at the highest point of the lungs.
    pub(super) fn relative_height(&self, point: Point) -> f32 {
        (point[2] - self.thorax.z[0]) / (self.thorax.z[1] - self.thorax.z[0])
    }
}

/// Where the trachea divides.
pub(super) const fn carina() -> Point {
    [0.0, 12.0, 0.0]
}

/// Where vessels and airways enter a lung.
pub(super) fn hilum(thorax: &Thorax, side: Side) -> Point {
    match side {
        Side::Right => thorax.bend([-38.0, 10.0, -20.0]),
        Side::Left => thorax.bend([39.0, 13.0, -25.0]),
    }
}

/// Points spread through a lung: each the farthest of a few candidates from those already chosen.
pub(super) fn lung_points(
    thorax: &Thorax,
    side: Side,
    count: usize,
    depth: f32,
    random: &mut Random,
) -> Vec<Point> {
    let mut points: Vec<Point> = Vec::with_capacity(count);
    let mut tries = 0;
    while points.len() < count && tries < 60 * count {
        let mut best: Option<(f32, Point)> = None;
        let mut candidates = 0;
        while candidates < 3 && tries < 60 * count {
            tries += 1;
            let x = side.sign() * random.between(8.0, 142.0);
            let point = [
                x,
                random.between(-98.0, 98.0),
                random.between(thorax.z[0], thorax.z[1]),
            ];
            if thorax.lung(point) > -depth {
                continue;
            }
            candidates += 1;
            let gap = points
                .iter()
                .map(|other| length(subtract(*other, point)))
                .fold(f32::INFINITY, f32::min);
            if best.is_none_or(|(widest, _)| gap > widest) {
                best = Some((gap, point));
            }
        }
        points.extend(best.map(|(_, point)| point));
    }
    points
}

/// One piece of an airway: wall and lumen.
pub(super) fn airway(
    from: Point,
    to: Point,
    radius: [f32; 2],
    wall: f32,
    strokes: &mut Vec<Stroke>,
) {
    let outer = radius.map(|value| value + wall);
    strokes.push(Stroke::tube(
        Layer::AirwayWalls,
        from,
        to,
        outer,
        Paint::DenserLung(20.0),
    ));
    strokes.push(Stroke::tube(
        Layer::AirwayLumens,
        from,
        to,
        radius,
        Paint::Lung(AIR),
    ));
}

fn airway_path(points: &[Point], radius: [f32; 2], wall: f32, strokes: &mut Vec<Stroke>) {
    strokes.extend(tubes(
        Layer::AirwayWalls,
        points,
        radius.map(|value| value + wall),
        Paint::Over(25.0),
    ));
    strokes.extend(tubes(Layer::AirwayLumens, points, radius, Paint::Over(AIR)));
}

fn aorta_course(patient: &Patient, thorax: &Thorax, heart: &Heart) -> Vec<Point> {
    let center = heart.chambers[0].center;
    let s = heart.size;
    let arch = 34.0 + 0.12 * (patient.age as f32 - 50.0);
    let behind = thorax.level(0.0).spine_y - 22.0;
    path(
        &[
            add(center, [-14.0 * s, 10.0 * s, 26.0 * s]),
            [-20.0, -16.0, -8.0],
            [-15.0, -18.0, 16.0],
            [0.0, -6.0, arch],
            [17.0, 14.0, arch - 2.0],
            [25.0, behind - 10.0, 12.0],
            [25.0, behind, -30.0],
            [21.0, behind + 3.0, -90.0],
            [12.0, behind, thorax.z[0] - 70.0],
        ],
        4,
    )
    .into_iter()
    .map(|point| thorax.bend(point))
    .collect()
}

fn arch_branches(thorax: &Thorax, aorta: &[Point]) -> Vec<[Point; 2]> {
    let top = thorax.z[1] + 50.0;
    [(11, [-26.0, -2.0]), (13, [22.0, 0.0]), (15, [34.0, 16.0])]
        .into_iter()
        .map(|(index, [x, y])| [aorta[index], [x, y, top]])
        .collect()
}

fn caval_course(thorax: &Thorax, heart: &Heart) -> Vec<Point> {
    let atrium = add(heart.chambers[1].center, [6.0, 4.0, 20.0]);
    path(
        &[
            [-30.0, -12.0, thorax.z[1] + 20.0],
            [-27.0, -10.0, 30.0],
            [-27.0, -4.0, -10.0],
            atrium,
        ],
        4,
    )
}

fn oesophagus_course(thorax: &Thorax) -> Vec<Point> {
    let behind = thorax.level(0.0).spine_y - 24.0;
    let low = thorax.z[0];
    path(
        &[
            [3.0, 18.0, thorax.z[1] + 50.0],
            [5.0, behind - 4.0, 0.0],
            [2.0, behind - 4.0, -60.0],
            [14.0, behind - 16.0, low + 20.0],
            scale([24.0, behind - 26.0, low], 1.0),
        ],
        3,
    )
}
