//! What medicine left in or on the patient.

use std::f32::consts::TAU;

use super::super::anatomy::Anatomy;
use super::super::anatomy::skeleton::sternum_point;
use super::super::anatomy::thorax::Side;
use super::super::scene::{Layer, Paint, Point, Stroke, add, frame, lerp, normalised, path, tubes};
use super::super::shape::{Ellipsoid, Shape};
use super::{Drawing, Finding, laterality};

const METAL: Paint = Paint::Over(3_000.0);
const PLASTIC: Paint = Paint::Over(900.0);

/// Share of patients with an implant who are monitored too.
const MONITORED: f32 = 0.8;

/// Port, pacemaker, wires of an opened breast bone, screws in the spine, or electrodes.
pub(super) fn medical_material(drawing: &mut Drawing<'_>) -> Finding {
    let side = if drawing.random.chance(0.6) {
        Side::Right
    } else {
        Side::Left
    };
    let (form, size, sides) = match drawing.random.below(10) {
        0..=2 => (port(drawing, side), 26.0, vec![side]),
        3..=5 => (pacemaker(drawing), 46.0, vec![Side::Left]),
        6..=7 => (sternal_wires(drawing), 18.0, vec![]),
        8 => (spinal_fixation(drawing), 45.0, vec![]),
        _ => (electrodes(drawing), 14.0, vec![]),
    };
    if form != ELECTRODES && drawing.random.chance(MONITORED) {
        electrodes(drawing);
    }
    Finding {
        form,
        ..drawing.finding(laterality(sides), "", size)
    }
}

/// Position under the skin of the upper chest, and the direction out of it.
fn pocket(drawing: &Drawing<'_>, side: Side) -> (Point, Point) {
    let thorax = &drawing.anatomy.thorax;
    let patient = &drawing.anatomy.patient;
    let z = thorax.height(0.80);
    let level = thorax.level(z);
    let depth = |y: f32| thorax.body(&level, side.sign() * 0.5 * patient.cage[0], y);
    // From the inside towards the skin until 11 mm are left.
    let mut y = -0.3 * patient.cage[1];
    while depth(y) < -11.0 && y > -260.0 {
        y -= 1.0;
    }
    (
        [side.sign() * 0.5 * patient.cage[0] + level.shift_x, y, z],
        normalised([0.25 * side.sign(), -1.0, 0.1]),
    )
}

fn port(drawing: &mut Drawing<'_>, side: Side) -> &'static str {
    let (center, out) = pocket(drawing, side);
    let chamber = |margin: f32| {
        Shape::Ellipsoid(Ellipsoid {
            center,
            axes: frame(out),
            radius: [7.0 + margin, 14.0 + margin, 14.0 + margin],
        })
    };
    drawing.push(Stroke::new(Layer::Devices, chamber(0.0), METAL).with_streaks(260.0));
    drawing.push(Stroke::new(
        Layer::Devices,
        chamber(-4.5),
        Paint::Over(300.0),
    ));
    let vein = drawing.anatomy.superior_vena_cava.clone();
    let neck = [
        0.5 * (center[0] + vein[0][0]),
        center[1] + 12.0,
        vein[0][2] + 6.0,
    ];
    let mut course = vec![center, neck];
    course.extend(vein.iter().take(vein.len() * 3 / 4).step_by(2));
    let catheter = tubes(Layer::Devices, &path(&course, 3), [2.2, 2.2], PLASTIC);
    drawing.strokes.extend(catheter);
    "port catheter"
}

fn pacemaker(drawing: &mut Drawing<'_>) -> &'static str {
    let (center, out) = pocket(drawing, Side::Left);
    let body = Ellipsoid {
        center,
        axes: frame(out),
        radius: [6.5, 24.0, 21.0],
    };
    drawing.push(Stroke::new(Layer::Devices, Shape::Ellipsoid(body), METAL).with_streaks(420.0));
    let vein = drawing.anatomy.superior_vena_cava.clone();
    let heart = &drawing.anatomy.heart;
    let apex = heart.surface(0.5, 1.2, -10.0 * heart.size);
    let appendage = add(heart.chambers[1].center, [2.0, -14.0, 4.0]);
    for tip in [apex, appendage] {
        let mut course = vec![
            center,
            add(center, [-18.0, 14.0, 22.0]),
            [4.0, -18.0, vein[0][2] - 4.0],
        ];
        course.extend(vein.iter().skip(2).step_by(3));
        course.push(tip);
        let lead = tubes(Layer::Devices, &path(&course, 3), [1.7, 1.7], METAL);
        drawing.strokes.extend(lead);
        drawing.push(Stroke::ball(Layer::Devices, tip, [2.6; 3], METAL).with_streaks(90.0));
    }
    "pacemaker"
}

fn sternal_wires(drawing: &mut Drawing<'_>) -> &'static str {
    let anatomy = drawing.anatomy;
    let wires = drawing.random.count(5, 7);
    for wire in 0..wires {
        let t = 0.36 + 0.44 * wire as f32 / (wires - 1) as f32;
        let center = sternum_point(&anatomy.patient, &anatomy.thorax, t);
        let steps = 12;
        let tilt = drawing.random.between(-0.15, 0.15);
        let point = |step: usize| {
            let (sin, cos) = (TAU * step as f32 / steps as f32).sin_cos();
            add(center, [19.0 * cos, 9.5 * sin, 19.0 * cos * tilt])
        };
        for step in 0..steps {
            drawing.push(Stroke::tube(
                Layer::Devices,
                point(step),
                point(step + 1),
                [2.0, 2.0],
                METAL,
            ));
        }
        // The twisted ends in front.
        let knot = add(center, [drawing.random.between(-4.0, 4.0), -10.5, 0.0]);
        drawing
            .push(Stroke::ball(Layer::Devices, knot, [3.2, 2.4, 2.8], METAL).with_streaks(180.0));
    }
    // The heart was operated on: clips along the graft.
    for _ in 0..drawing.random.count(2, 5) {
        let at = anatomy.heart.surface(
            drawing.random.between(0.8, 1.9),
            drawing.random.between(0.2, 1.2),
            5.0,
        );
        drawing.push(Stroke::ball(Layer::Devices, at, [2.2; 3], METAL).with_streaks(60.0));
    }
    "sternotomy wires"
}

fn spinal_fixation(drawing: &mut Drawing<'_>) -> &'static str {
    let thorax = &drawing.anatomy.thorax;
    let first = drawing.random.between(0.1, 0.5);
    let screws = drawing.random.count(3, 4);
    let mut strokes = Vec::new();
    for sign in [-1.0, 1.0] {
        let mut heads = Vec::new();
        for screw in 0..screws {
            let level = thorax.level(thorax.height(first) + 25.0 * screw as f32);
            let tip = [level.shift_x + 5.0 * sign, level.spine_y - 6.0, level.z];
            let head = [level.shift_x + 17.0 * sign, level.spine_y + 36.0, level.z];
            strokes.push(
                Stroke::tube(Layer::Devices, tip, head, [2.6, 3.0], METAL).with_streaks(240.0),
            );
            heads.push(head);
        }
        strokes.extend(tubes(Layer::Devices, &heads, [3.2, 3.2], METAL));
    }
    drawing.strokes.extend(strokes);
    "spinal fixation"
}

const ELECTRODES: &str = "monitoring electrodes";

/// Electrodes on the skin of the chest, with cables that run over it to one plug.
fn electrodes(drawing: &mut Drawing<'_>) -> &'static str {
    const PLACES: [(f32, f32); 8] = [
        (-0.75, 0.80),
        (0.75, 0.80),
        (-0.6, 0.22),
        (0.8, 0.25),
        (0.1, 0.5),
        (0.45, 0.36),
        (-0.3, 0.45),
        (0.65, 0.48),
    ];
    let anatomy = drawing.anatomy;
    let plug = [drawing.random.between(-0.4, 0.4), -0.05];
    for (x, t) in PLACES {
        let t = t + drawing.random.between(-0.04, 0.04);
        let x = x + drawing.random.between(-0.06, 0.06);
        let disc = Ellipsoid {
            center: skin(anatomy, [x, t], 1.5),
            axes: frame([0.0, 1.0, 0.0]),
            radius: [3.2, 10.0, 10.0],
        };
        drawing
            .push(Stroke::new(Layer::Devices, Shape::Ellipsoid(disc), METAL).with_streaks(120.0));
        let steps = 7;
        let cable: Vec<Point> = (0..=steps)
            .map(|step| {
                let at = step as f32 / steps as f32;
                skin(anatomy, [lerp(x, plug[0], at), lerp(t, plug[1], at)], 4.0)
            })
            .collect();
        let strokes = tubes(Layer::Devices, &cable, [2.4, 2.4], PLASTIC);
        drawing.strokes.extend(strokes);
    }
    ELECTRODES
}

/// The skin of the front at a sideways position (in half widths of the chest) and a relative height, `above` it in
/// millimetres.
fn skin(anatomy: &Anatomy, [x, t]: [f32; 2], above: f32) -> Point {
    let level = anatomy.thorax.level(anatomy.thorax.height(t));
    let x = x * anatomy.patient.cage[0];
    let mut y = 0.0;
    while anatomy.thorax.body(&level, x, y) < above && y > -280.0 {
        y -= 1.0;
    }
    [x + level.shift_x, y, level.z]
}
