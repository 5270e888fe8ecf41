//! Spine, ribs, sternum, collar bones and shoulder blades.

use std::f32::consts::PI;

use super::super::random::Random;
use super::super::scene::{Layer, Paint, Point, Stroke, add, frame, normalised};
use super::super::shape::{Ellipsoid, Shape};
use super::patient::Patient;
use super::thorax::{Side, Thorax};

const CORTEX: f32 = 520.0;
const DISC: f32 = 85.0;
/// Height of a vertebra with its disc, millimetres.
const VERTEBRA: f32 = 25.0;

pub(super) fn strokes(patient: &Patient, thorax: &Thorax, random: &mut Random) -> Vec<Stroke> {
    let mut strokes = Vec::new();
    let density = (230.0 - 1.7 * patient.age as f32 + 25.0 * random.normal()).clamp(70.0, 260.0);
    spine(thorax, density, random, &mut strokes);
    for side in [Side::Right, Side::Left] {
        for rib in 0..11 {
            rib_strokes(thorax, side, rib, &mut strokes);
        }
        shoulder(patient, thorax, side, &mut strokes);
    }
    sternum(patient, thorax, &mut strokes);
    strokes
}

/// A bone with a shell and marrow inside.
fn bone(shape: impl Fn(f32) -> Shape, shell: f32, marrow: f32, strokes: &mut Vec<Stroke>) {
    strokes.push(Stroke::new(Layer::Bone, shape(0.0), Paint::Solid(CORTEX)));
    strokes.push(Stroke::new(
        Layer::Marrow,
        shape(-shell),
        Paint::Solid(marrow),
    ));
}

fn spine(thorax: &Thorax, density: f32, random: &mut Random, strokes: &mut Vec<Stroke>) {
    let phase = random.between(0.0, VERTEBRA);
    let [low, high] = [thorax.z[0] - 80.0, thorax.z[1] + 70.0];
    let count = ((high - low) / VERTEBRA) as usize;
    for index in 0..count {
        let z = low + phase + index as f32 * VERTEBRA;
        let level = thorax.level(z);
        let center = [level.shift_x, level.spine_y, z];
        // Vertebrae grow from neck to loin.
        let size = 1.12 - 0.22 * level.t.clamp(0.0, 1.2);
        let body = |margin: f32| Shape::Cylinder {
            center,
            radius: [17.0 * size + margin, 14.0 * size + margin],
            half_height: 10.0 + margin,
        };
        bone(body, 1.8, density, strokes);
        let disc = Shape::Cylinder {
            center: add(center, [0.0, 0.0, VERTEBRA / 2.0]),
            radius: [17.5 * size, 14.5 * size],
            half_height: 3.2,
        };
        strokes.push(Stroke::new(Layer::Bone, disc, Paint::Solid(DISC)));
        let back = |y: f32, z: f32| add(center, [0.0, y * size, z]);
        for sign in [-1.0, 1.0] {
            let foot = add(back(13.0, 2.0), [10.0 * sign, 0.0, 0.0]);
            let tip = add(back(29.0, 4.0), [30.0 * sign, 0.0, 0.0]);
            strokes.push(Stroke::tube(
                Layer::Bone,
                foot,
                tip,
                [5.0, 4.0],
                Paint::Solid(380.0),
            ));
            let arch = back(32.0, -2.0);
            strokes.push(Stroke::tube(
                Layer::Bone,
                add(foot, [3.0 * sign, 6.0, 0.0]),
                arch,
                [4.5, 4.0],
                Paint::Solid(420.0),
            ));
        }
        strokes.push(Stroke::tube(
            Layer::Bone,
            back(32.0, -3.0),
            back(50.0, -16.0),
            [4.0, 3.2],
            Paint::Solid(400.0),
        ));
    }
    // The canal is continuous, so it comes after the arches.
    for leg in 0..count {
        let at = |index: usize| {
            let z = low + phase + index as f32 * VERTEBRA;
            let level = thorax.level(z);
            [level.shift_x, level.spine_y + 22.0, z]
        };
        strokes.push(Stroke::tube(
            Layer::Marrow,
            at(leg),
            at(leg + 1),
            [8.0, 8.0],
            Paint::Solid(25.0),
        ));
    }
}

fn rib_strokes(thorax: &Thorax, side: Side, rib: usize, strokes: &mut Vec<Stroke>) {
    let t = 1.03 - 0.094 * rib as f32;
    let slope = (12.0 + 8.0 * rib as f32).min(60.0);
    let steps = 18;
    // Lower ribs end before they reach the sternum.
    let end = PI
        * if rib < 7 {
            0.9
        } else {
            0.8 - 0.06 * (rib as f32 - 7.0)
        };
    let point = |step: usize| {
        let angle = 0.22 + (end - 0.22) * step as f32 / steps as f32;
        let drop = slope * (1.0 - (angle - 0.2).cos());
        thorax.wall(side, angle, thorax.height(t) - drop, 6.5)
    };
    for step in 0..steps {
        let (from, to) = (point(step), point(step + 1));
        // The front ends are cartilage.
        let cartilage = step >= steps - 3;
        let radius = if cartilage { 5.0 } else { 5.4 };
        let hounsfield = if cartilage { 110.0 } else { CORTEX };
        strokes.push(Stroke::tube(
            Layer::Bone,
            from,
            to,
            [radius, radius],
            Paint::Solid(hounsfield),
        ));
        if !cartilage {
            strokes.push(Stroke::tube(
                Layer::Marrow,
                from,
                to,
                [3.2, 3.2],
                Paint::Solid(150.0),
            ));
        }
    }
}

fn sternum(patient: &Patient, thorax: &Thorax, strokes: &mut Vec<Stroke>) {
    for (t, radius) in [(0.75, [23.0, 7.0, 24.0]), (0.50, [17.0, 6.5, 50.0])] {
        let center = sternum_point(patient, thorax, t);
        let shape =
            |margin: f32| Shape::Ellipsoid(Ellipsoid::upright(center, radius).inflated(margin));
        bone(shape, 2.0, 120.0, strokes);
    }
}

/// Middle of the breast bone at a relative height.
pub(in super::super) fn sternum_point(patient: &Patient, thorax: &Thorax, t: f32) -> Point {
    let level = thorax.level(thorax.height(t));
    [
        level.shift_x,
        level.center_y - level.radius[1] - 4.0 - 0.1 * patient.muscle,
        level.z,
    ]
}

fn shoulder(patient: &Patient, thorax: &Thorax, side: Side, strokes: &mut Vec<Stroke>) {
    let sign = side.sign();
    let inner = add(
        sternum_point(patient, thorax, 0.86),
        [16.0 * sign, 4.0, 6.0],
    );
    let middle = add(inner, [60.0 * sign, 10.0, 16.0]);
    let outer = add(middle, [55.0 * sign, 34.0, 14.0]);
    for (from, to) in [(inner, middle), (middle, outer)] {
        strokes.push(Stroke::tube(
            Layer::Bone,
            from,
            to,
            [6.5, 6.0],
            Paint::Solid(CORTEX),
        ));
        strokes.push(Stroke::tube(
            Layer::Marrow,
            from,
            to,
            [3.8, 3.5],
            Paint::Solid(170.0),
        ));
    }
    let [a, b] = patient.cage;
    let center = [sign * (0.76 * a), 0.80 * b + 14.0, thorax.height(0.80)];
    let normal = normalised([0.55 * sign, 0.8, 0.25]);
    let axes = frame(normal);
    let blade = |margin: f32| {
        Shape::Ellipsoid(Ellipsoid {
            center,
            axes,
            radius: [4.5 + margin, 36.0 + margin, 62.0 + margin],
        })
    };
    bone(blade, 1.6, 200.0, strokes);
    // Muscle on both faces of the blade.
    let cushion = Ellipsoid {
        center,
        axes,
        radius: [17.0, 44.0, 68.0],
    };
    strokes.push(Stroke::new(
        Layer::Heart,
        Shape::Ellipsoid(cushion),
        Paint::Over(52.0),
    ));
}
