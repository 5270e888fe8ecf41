//! Heart, pericardium and arteries.

use std::f32::consts::TAU;

use super::super::scene::{
    Layer, Paint, Stroke, add, between, frame, length, normalised, scale, subtract,
};
use super::super::shape::{Ellipsoid, Shape};
use super::{Drawing, Finding, Laterality};

/// The heart is large: [`super::change_patient`] has made it so.
pub(super) fn cardiomegaly(drawing: &mut Drawing<'_>) -> Finding {
    let width =
        2.0 * drawing.anatomy.patient.cage[0] * drawing.anatomy.patient.cardiothoracic_ratio;
    drawing.finding(Laterality::Midline, "heart", width)
}

/// Fluid surrounds the heart: [`super::change_patient`] has put it there.
pub(super) fn pericardial_effusion(drawing: &mut Drawing<'_>) -> Finding {
    drawing.finding(
        Laterality::Midline,
        "pericardium",
        drawing.anatomy.patient.pericardial_fluid,
    )
}

/// Flat plaques on the walls of the aorta and of the arteries from its arch.
pub(super) fn arterial_calcification(drawing: &mut Drawing<'_>) -> Finding {
    let count = drawing.graded(28.0, 70.0) as usize;
    let aorta = &drawing.anatomy.aorta;
    let legs = aorta.len() - 1;
    let [root, end] = drawing.anatomy.aorta_radius;
    let mut plaques = Vec::new();
    for _ in 0..count {
        // Arch and descending aorta first; the ascending part is spared longest.
        let at = drawing.random.between(0.18, 0.97) * legs as f32;
        let leg = (at as usize).min(legs - 1);
        let center = between(aorta[leg], aorta[leg + 1], at - leg as f32);
        let along = normalised(subtract(aorta[leg + 1], aorta[leg]));
        let radius = root + (end - root) * at / legs as f32;
        plaques.push(plaque(drawing, center, along, radius));
    }
    for [from, to] in drawing.anatomy.arch_branches.clone() {
        if drawing.random.chance(drawing.graded(0.2, 0.8)) {
            let along = normalised(subtract(to, from));
            let center = between(from, to, drawing.random.between(0.15, 0.5));
            plaques.push(plaque(drawing, center, along, 5.0));
        }
    }
    drawing.strokes.extend(plaques);
    let place = drawing.random.pick(&[
        "aorta",
        "thoracic aorta",
        "aortic arch and descending aorta",
    ]);
    Finding {
        count,
        ..drawing.finding(Laterality::Midline, place, 8.0)
    }
}

fn plaque(drawing: &mut Drawing<'_>, center: [f32; 3], along: [f32; 3], radius: f32) -> Stroke {
    let [_, second, third] = frame(along);
    let (sin, cos) = drawing.random.between(0.0, TAU).sin_cos();
    let out = add(scale(second, cos), scale(third, sin));
    let around = add(scale(third, cos), scale(second, -sin));
    let size = drawing.graded(4.0, 8.0) * drawing.random.between(0.7, 1.4);
    let ellipsoid = Ellipsoid {
        center: add(center, scale(out, radius - 0.3)),
        axes: [out, along, around],
        radius: [
            drawing.random.between(2.6, 4.0),
            1.3 * size,
            size.min(0.7 * radius),
        ],
    };
    let hounsfield = drawing.random.between(600.0, 1_100.0);
    Stroke::new(
        Layer::Deposits,
        Shape::Ellipsoid(ellipsoid),
        Paint::Over(hounsfield),
    )
}

/// Calcified stretches of the coronary arteries.
pub(super) fn coronary_calcification(drawing: &mut Drawing<'_>) -> Finding {
    const NAMES: [&str; 3] = [
        "left anterior descending artery",
        "circumflex artery",
        "right coronary artery",
    ];
    let courses = drawing.anatomy.heart.coronaries();
    let vessels = match drawing.severity {
        mild if mild < 0.35 => 1,
        moderate if moderate < 0.5 => 2,
        _ => 3,
    };
    let radius = drawing.graded(3.2, 5.0);
    let mut size = 0.0_f32;
    for course in courses.iter().take(vessels) {
        let share = drawing.graded(0.7, 1.0);
        let legs = course.len() - 1;
        let mut leg = 0;
        while leg < (0.85 * legs as f32) as usize {
            let stretch = drawing.random.count(1, 3);
            if drawing.random.chance(share) {
                let last = (leg + stretch).min(legs);
                size = size.max(length(subtract(course[last], course[leg])));
                for step in leg..last {
                    let hounsfield = drawing.random.between(700.0, 1_200.0);
                    let radius = [radius * drawing.random.between(0.8, 1.2); 2];
                    let shape = Paint::Over(hounsfield);
                    drawing.push(Stroke::tube(
                        Layer::Deposits,
                        course[step],
                        course[step + 1],
                        radius,
                        shape,
                    ));
                }
            }
            leg += stretch;
        }
    }
    // The first stretch of the anterior descending artery is always involved.
    let radius = [radius; 2];
    drawing.push(Stroke::tube(
        Layer::Deposits,
        courses[0][2],
        courses[0][4],
        radius,
        Paint::Over(950.0),
    ));
    let place = if vessels == 3 {
        "coronary arteries"
    } else {
        NAMES[0]
    };
    Finding {
        count: vessels,
        ..drawing.finding(Laterality::Midline, place, size.max(10.0))
    }
}
