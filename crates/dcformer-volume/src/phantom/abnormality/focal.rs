//! Lesions of the lung that have a place.

use std::f32::consts::PI;

use super::super::anatomy::thorax::{Lobe, Side};
use super::super::anatomy::{AIR, hilum};
use super::super::scene::{
    Layer, Paint, Point, Stroke, add, between, frame, normalised, path, scale, subtract, tubes,
};
use super::super::shape::{Ellipsoid, Shape};
use super::{Drawing, Finding, OVER_VESSELS, UNDER_VESSELS, laterality, lobes_name};

/// Plates of collapsed lung above the diaphragm.
pub(super) fn atelectasis(drawing: &mut Drawing<'_>) -> Finding {
    let sides = drawing.sides(0.5);
    let mut lobes = Vec::new();
    let mut size = 0.0_f32;
    for &side in &sides {
        let count = drawing.graded(2.0, 4.99) as usize;
        for _ in 0..count {
            let anatomy = drawing.anatomy;
            let center = anatomy.point_in_lung(&mut drawing.random, 9.0, |point| {
                let t = anatomy.relative_height(point);
                point[0] * side.sign() > 0.0 && (0.12..0.44).contains(&t)
            });
            lobes.push(anatomy.thorax.lobe(center));
            let tilt = [
                drawing.random.between(-0.45, 0.45),
                drawing.random.between(-0.5, 0.5),
                1.0,
            ];
            let long = drawing.graded(30.0, 52.0) * drawing.random.between(0.85, 1.15);
            size = size.max(1.6 * long);
            let plate = Ellipsoid {
                center,
                axes: frame(normalised(tilt)),
                radius: [drawing.graded(5.0, 9.0), long, 0.65 * long],
            };
            let stroke = Stroke::new(
                OVER_VESSELS,
                Shape::Ellipsoid(plate),
                Paint::DenserLung(25.0),
            );
            drawing.push(stroke.rough(1.8, 14.0));
        }
    }
    let place = lobes_name(&lobes);
    let form = drawing
        .random
        .pick(&["linear", "subsegmental", "plate-like", "band"]);
    Finding {
        count: lobes.len(),
        form,
        ..drawing.finding(laterality(sides), place, size)
    }
}

/// Round lesions of up to 30 mm.
pub(super) fn nodules(drawing: &mut Drawing<'_>) -> Finding {
    let count = match drawing.random.below(10) {
        0..=1 => drawing.random.count(1, 3),
        2..=5 => drawing.random.count(6, 12),
        _ => drawing.random.count(14, 28),
    };
    // Single ones are seen because they are large.
    let largest = drawing.graded(9.0, 13.5) * if count == 1 { 1.1 } else { 0.95 };
    let calcified = drawing.random.chance(0.15);
    let mut lobes = Vec::new();
    for index in 0..count {
        let radius = if index == 0 {
            largest
        } else {
            largest * drawing.random.between(0.6, 1.0)
        };
        let depth = radius + 3.0;
        let center = drawing
            .anatomy
            .point_in_lung(&mut drawing.random, depth, |_| true);
        lobes.push(drawing.anatomy.thorax.lobe(center));
        let hounsfield = if calcified {
            350.0
        } else {
            drawing.random.between(15.0, 65.0)
        };
        let axes = frame(drawing.random.direction());
        let shape = Ellipsoid {
            center,
            axes,
            radius: [1.1, 1.0, 0.92].map(|factor| factor * radius),
        };
        let stroke = Stroke::new(
            OVER_VESSELS,
            Shape::Ellipsoid(shape),
            Paint::DenserLung(hounsfield),
        );
        drawing.push(stroke.rough(0.16 * radius, 0.9 * radius));
        if !calcified && radius > 7.0 && drawing.random.chance(0.5) {
            spicules(drawing, center, radius);
        }
    }
    let sides = lobes.iter().map(|&(side, _)| side);
    let form = if calcified { "calcified" } else { "solid" };
    Finding {
        count,
        form,
        ..drawing.finding(laterality(sides), lobes_name(&lobes), 2.0 * largest)
    }
}

fn spicules(drawing: &mut Drawing<'_>, center: Point, radius: f32) {
    for _ in 0..9 {
        let tip = add(center, scale(drawing.random.direction(), 1.7 * radius));
        drawing.push(Stroke::tube(
            OVER_VESSELS,
            center,
            tip,
            [1.6, 0.6],
            Paint::DenserLung(0.0),
        ));
    }
}

/// Patches of ground glass through which vessels stay visible.
pub(super) fn opacity(drawing: &mut Drawing<'_>) -> Finding {
    let count = drawing.random.count(5, drawing.graded(7.0, 12.0) as usize);
    let both = count > 3 || drawing.random.chance(0.4);
    let side = drawing.side();
    let peripheral = drawing.random.chance(0.7);
    let mut lobes = Vec::new();
    let mut size = 0.0_f32;
    for index in 0..count {
        let anatomy = drawing.anatomy;
        let side = if both && index % 2 == 1 {
            side.other()
        } else {
            side
        };
        let depth = if peripheral { 6.0 } else { 14.0 };
        let center = anatomy.point_in_lung(&mut drawing.random, depth, |point| {
            let outside = anatomy.thorax.lung(point) > -22.0;
            point[0] * side.sign() > 0.0 && (!peripheral || outside)
        });
        lobes.push(anatomy.thorax.lobe(center));
        let radius = drawing.graded(25.0, 42.0) * drawing.random.between(0.75, 1.3);
        size = size.max(2.0 * radius);
        let shape = Ellipsoid {
            center,
            axes: frame(drawing.random.direction()),
            radius: [1.2, 1.0, 0.85].map(|factor| factor * radius),
        };
        let density = drawing.graded(280.0, 430.0) * drawing.random.between(0.85, 1.15);
        let stroke = Stroke::new(
            UNDER_VESSELS,
            Shape::Ellipsoid(shape),
            Paint::AddToLung(density),
        );
        drawing.push(
            stroke
                .blurred(0.35 * radius)
                .rough(0.3 * radius, 0.7 * radius),
        );
    }
    let sides = lobes.iter().map(|&(side, _)| side);
    let form = if peripheral { "peripheral" } else { "patchy" };
    Finding {
        count,
        form,
        ..drawing.finding(laterality(sides), lobes_name(&lobes), size)
    }
}

/// Scars: bands from the pleura inwards and a cap of thick pleura, mostly at the top.
pub(super) fn fibrotic_sequela(drawing: &mut Drawing<'_>) -> Finding {
    let sides = drawing.sides(0.75);
    let apical = drawing.random.chance(0.9);
    for &side in &sides {
        let anatomy = drawing.anatomy;
        let zone = if apical { 0.66..0.97 } else { 0.36..0.62 };
        let bands = drawing.graded(11.0, 22.0) as usize;
        for _ in 0..bands {
            let start = anatomy.point_in_lung(&mut drawing.random, 1.0, |point| {
                let near = anatomy.thorax.lung(point) > -7.0;
                near && point[0] * side.sign() > 20.0
                    && zone.contains(&anatomy.relative_height(point))
            });
            let aim = add(
                hilum(&anatomy.thorax, side),
                scale(drawing.random.direction(), 32.0),
            );
            let reach = drawing.graded(24.0, 46.0) * drawing.random.between(0.7, 1.2);
            let way = normalised(subtract(aim, start));
            let end = add(start, scale(way, reach));
            let kink = add(
                between(start, end, 0.5),
                scale(drawing.random.direction(), 0.12 * reach),
            );
            let thick = drawing.graded(2.8, 4.6) * drawing.random.between(0.8, 1.3);
            // The lung along a scar is drawn together.
            let haze = Paint::DenserLung(-600.0);
            let around = [1.4 * thick + 7.0, 0.5 * thick + 5.0];
            drawing.push(Stroke::tube(UNDER_VESSELS, start, end, around, haze).blurred(6.0));
            let band = tubes(
                OVER_VESSELS,
                &path(&[start, kink, end], 2),
                [1.4 * thick, 0.5 * thick],
                Paint::DenserLung(10.0),
            );
            drawing
                .strokes
                .extend(band.into_iter().map(|stroke| stroke.rough(1.0, 6.0)));
        }
        if apical {
            cap(drawing, side);
        }
    }
    let place = if apical { "apex" } else { "middle zone" };
    Finding {
        count: sides.len(),
        ..drawing.finding(laterality(sides), place, drawing.graded(24.0, 46.0))
    }
}

/// Thick pleura over the top of a lung.
fn cap(drawing: &mut Drawing<'_>, side: Side) {
    let thorax = &drawing.anatomy.thorax;
    let top = thorax.level(thorax.height(0.94));
    let radius = 0.75 * top.radius[0];
    let center = [
        top.shift_x + side.sign() * 0.62 * top.radius[0],
        top.center_y,
        top.z,
    ];
    let shape = Ellipsoid::upright(
        center,
        [radius, 0.9 * top.radius[1], drawing.graded(18.0, 32.0)],
    );
    let stroke = Stroke::new(
        OVER_VESSELS,
        Shape::Ellipsoid(shape),
        Paint::DenserLung(25.0),
    );
    drawing.push(stroke.rough(5.0, 9.0));
}

/// Airless lung with open bronchi in it.
pub(super) fn consolidation(drawing: &mut Drawing<'_>) -> Finding {
    let count = drawing
        .random
        .count(1, if drawing.severity > 0.6 { 3 } else { 2 });
    let mut lobes = Vec::new();
    let mut size = 0.0_f32;
    for _ in 0..count {
        let side = drawing.side();
        let lobe = drawing
            .random
            .pick(&[Lobe::Lower, Lobe::Lower, Lobe::Upper, Lobe::Middle]);
        let center = drawing
            .anatomy
            .point_in_lobe(&mut drawing.random, 10.0, side, lobe);
        lobes.push(drawing.anatomy.thorax.lobe(center));
        let radius = drawing.graded(32.0, 50.0) * drawing.random.between(0.85, 1.2);
        size = size.max(2.0 * radius);
        let axes = frame(drawing.random.direction());
        let shape = Ellipsoid {
            center,
            axes,
            radius: [1.2, 0.95, 0.85].map(|factor| factor * radius),
        };
        let stroke = Stroke::new(
            OVER_VESSELS,
            Shape::Ellipsoid(shape),
            Paint::DenserLung(drawing.random.between(25.0, 55.0)),
        );
        drawing.push(stroke.blurred(3.0).rough(0.28 * radius, 0.6 * radius));
        air_bronchograms(drawing, side, center, radius);
    }
    let sides = lobes.iter().map(|&(side, _)| side);
    Finding {
        count,
        ..drawing.finding(laterality(sides), lobes_name(&lobes), size)
    }
}

fn air_bronchograms(drawing: &mut Drawing<'_>, side: Side, center: Point, radius: f32) {
    let hilum = hilum(&drawing.anatomy.thorax, side);
    let way = normalised(subtract(center, hilum));
    let entry = add(center, scale(way, -0.9 * radius));
    let [_, second, third] = frame(way);
    let trunk = add(center, scale(way, -0.2 * radius));
    let mut pieces = vec![(entry, trunk, [2.6, 2.3])];
    for _ in 0..drawing.random.count(3, 5) {
        let (sin, cos) = drawing.random.between(0.0, 2.0 * PI).sin_cos();
        let spread = add(
            scale(second, cos * 0.55 * radius),
            scale(third, sin * 0.55 * radius),
        );
        let tip = add(
            add(
                center,
                scale(way, drawing.random.between(0.2, 0.6) * radius),
            ),
            spread,
        );
        pieces.push((
            between(entry, trunk, drawing.random.between(0.4, 1.0)),
            tip,
            [2.2, 1.3],
        ));
    }
    for (from, to, radius) in pieces {
        drawing.push(Stroke::tube(
            Layer::AirwayLumens,
            from,
            to,
            radius,
            Paint::Lung(0.9 * AIR),
        ));
    }
}
