//! Findings of the parenchyma, the airways and the pleural spaces.

use super::super::anatomy::thorax::{Lobe, Side};
use super::super::anatomy::tree::Tree;
use super::super::anatomy::{airway, hilum, lung_points};
use super::super::parenchyma::{Effusion, Emphysema, Mosaic, Septa};
use super::super::scene::{Layer, Paint, Point, Stroke, add};
use super::{Drawing, Finding, Laterality, OVER_VESSELS, UNDER_VESSELS, laterality, lobe_name};

/// Holes in the parenchyma, mostly of the upper lobes, and bullae.
pub(super) fn emphysema(drawing: &mut Drawing<'_>) -> Finding {
    let paraseptal = drawing.random.chance(0.25);
    let size = if paraseptal {
        drawing.graded(14.0, 22.0)
    } else {
        drawing.graded(10.0, 20.0)
    };
    drawing.parenchyma.emphysema = Some(Emphysema {
        loss: drawing.graded(0.7, 1.0),
        size,
        bottom: drawing.graded(0.4, 0.05),
        paraseptal,
        seed: drawing.random.next(),
    });
    let bullae = if drawing.severity > 0.5 {
        drawing.random.count(4, 10)
    } else {
        drawing.random.count(1, 4)
    };
    for _ in 0..bullae {
        let anatomy = drawing.anatomy;
        let radius = drawing.random.between(7.0, drawing.graded(12.0, 24.0));
        let center = anatomy.point_in_lung(&mut drawing.random, 0.6 * radius, |point| {
            anatomy.relative_height(point) > 0.6 && anatomy.thorax.lung(point) > -1.2 * radius
        });
        let wall = [radius + 1.0; 3];
        drawing.push(Stroke::ball(
            OVER_VESSELS,
            center,
            wall,
            Paint::DenserLung(-550.0),
        ));
        drawing.push(Stroke::ball(
            OVER_VESSELS,
            center,
            [radius; 3],
            Paint::LighterLung(-995.0),
        ));
    }
    let form = if paraseptal {
        "paraseptal"
    } else {
        "centrilobular"
    };
    Finding {
        form,
        count: bullae,
        ..drawing.finding(Laterality::Bilateral, "upper lobe", size)
    }
}

/// Fluid that lies where gravity takes it.
pub(super) fn pleural_effusion(drawing: &mut Drawing<'_>) -> Finding {
    let sides = drawing.sides(0.45);
    let mut size = 0.0_f32;
    for &side in &sides {
        let depth = drawing.graded(0.34, 1.05) * drawing.random.between(0.85, 1.15);
        let top = drawing.graded(0.45, 0.85) * drawing.random.between(0.92, 1.08);
        size = size.max(depth * drawing.anatomy.patient.cage[1]);
        let hounsfield = drawing.random.between(2.0, 18.0);
        drawing.parenchyma.effusion[side as usize] = Some(Effusion {
            depth,
            top,
            hounsfield,
        });
    }
    drawing.finding(laterality(sides), "pleural space", size)
}

/// Lobules of trapped air among normal ones.
pub(super) fn mosaic_attenuation(drawing: &mut Drawing<'_>) -> Finding {
    let size = drawing.random.between(26.0, 40.0);
    drawing.parenchyma.mosaic = Some(Mosaic {
        size,
        difference: drawing.graded(240.0, 380.0),
        dark: drawing.random.between(0.4, 0.6),
        seed: drawing.random.next(),
    });
    drawing.finding(Laterality::Bilateral, "lung", size)
}

/// Thick sleeves around the bronchi.
pub(super) fn peribronchial_thickening(drawing: &mut Drawing<'_>) -> Finding {
    let wall = drawing.graded(3.0, 5.4);
    let mut strokes = Vec::new();
    for side in [Side::Right, Side::Left] {
        let root = hilum(&drawing.anatomy.thorax, side);
        let mut leaves: Vec<Point> = drawing.anatomy.airways[side as usize].points[1..].to_vec();
        leaves.extend(lung_points(
            &drawing.anatomy.thorax,
            side,
            22,
            12.0,
            &mut drawing.random,
        ));
        let tree = Tree::grow(root, leaves, 1.5, &mut drawing.random);
        for (from, to, radius) in tree.segments() {
            let radius = radius.map(|value| value.min(4.0));
            airway(
                from,
                to,
                radius,
                wall * (0.7 + 0.1 * radius[1]),
                &mut strokes,
            );
        }
    }
    drawing.strokes.extend(strokes);
    drawing.finding(Laterality::Bilateral, "central bronchi", wall)
}

/// Bronchi wider than their arteries, out to where none should be seen.
pub(super) fn bronchiectasis(drawing: &mut Drawing<'_>) -> Finding {
    let sides = drawing.sides(0.75);
    let lobe = drawing
        .random
        .pick(&[Lobe::Lower, Lobe::Lower, Lobe::Middle, Lobe::Upper]);
    let cystic = drawing.random.chance(0.6);
    let widest = drawing.graded(6.0, 9.0);
    let mut strokes = Vec::new();
    for &side in &sides {
        let anatomy = drawing.anatomy;
        let count = drawing.graded(20.0, 34.0) as usize;
        let leaves: Vec<Point> = (0..count)
            .map(|_| anatomy.point_in_lobe(&mut drawing.random, 9.0, side, lobe))
            .collect();
        let tree = Tree::grow(
            hilum(&anatomy.thorax, side),
            leaves,
            1.5,
            &mut drawing.random,
        );
        for (from, to, radius) in tree.segments() {
            // Wide to the end: a cylinder, not a cone.
            let radius = radius.map(|value| (value + 0.55 * widest).min(widest));
            airway(from, to, radius, 2.6, &mut strokes);
            // The lung between wide bronchi is crowded and inflamed.
            let around = radius.map(|value| value + 8.0);
            let haze = Paint::DenserLung(-560.0);
            strokes.push(Stroke::tube(UNDER_VESSELS, from, to, around, haze).blurred(7.0));
            let beside = [0.0, -(radius[1] + 3.2), 1.0];
            let artery = Paint::DenserLung(anatomy.patient.blood);
            strokes.push(Stroke::tube(
                Layer::LungVessels,
                add(from, beside),
                add(to, beside),
                [2.0, 1.6],
                artery,
            ));
            if cystic {
                let sac = [1.5 * widest; 3];
                strokes.push(Stroke::ball(
                    Layer::AirwayWalls,
                    to,
                    sac.map(|value| value + 1.4),
                    Paint::DenserLung(20.0),
                ));
                strokes.push(Stroke::ball(
                    Layer::AirwayLumens,
                    to,
                    sac,
                    Paint::Lung(-985.0),
                ));
            }
        }
    }
    drawing.strokes.extend(strokes);
    let form = if cystic { "cystic" } else { "cylindrical" };
    let place = if lobe == Lobe::Middle && sides.len() == 2 {
        "middle lobe and lingula"
    } else {
        lobe_name(sides[0], lobe)
    };
    Finding {
        form,
        ..drawing.finding(laterality(sides), place, 2.0 * widest)
    }
}

/// Thick walls of lobules, seen as a net of polygons below the pleura.
pub(super) fn septal_thickening(drawing: &mut Drawing<'_>) -> Finding {
    let thickness = drawing.graded(1.6, 2.8);
    drawing.parenchyma.septa = Some(Septa {
        size: drawing.random.between(19.0, 25.0),
        thickness,
        reach: drawing.graded(30.0, 50.0),
        top: drawing.random.between(0.6, 1.1),
        hounsfield: -40.0,
        seed: drawing.random.next(),
    });
    drawing.finding(Laterality::Bilateral, "lower lobe", thickness)
}
