//! Lymph nodes and the stomach where it does not belong.

use super::super::anatomy::thorax::Side;
use super::super::anatomy::{SOFT_TISSUE, hilum};
use super::super::scene::{Layer, Paint, Point, Stroke, add, frame, scale};
use super::super::shape::{Ellipsoid, Shape};
use super::{Drawing, Finding, Laterality};

/// Stomach behind the heart, with air above fluid, or with food or fat.
pub(super) fn hiatal_hernia(drawing: &mut Drawing<'_>) -> Finding {
    let thorax = &drawing.anatomy.thorax;
    let size = drawing.graded(28.0, 50.0);
    let t = drawing.random.between(0.22, 0.30) + 0.0015 * size;
    let level = thorax.level(thorax.height(t));
    let sideways = drawing.random.between(-8.0, 12.0) + 0.15 * size;
    let center = [
        level.shift_x + sideways,
        level.spine_y - 16.0 - 0.72 * size,
        level.z,
    ];
    let radius = [1.15 * size, 0.8 * size, 1.1 * size];
    let gravity = drawing.anatomy.patient.gravity();
    let form = drawing
        .random
        .pick(&["air-fluid", "air-fluid", "solid", "fat"]);
    let shell = |margin: f32, hounsfield: f32| {
        let shape = Ellipsoid::upright(center, radius).inflated(margin);
        Stroke::new(
            Layer::Mediastinum,
            Shape::Ellipsoid(shape),
            Paint::Solid(hounsfield),
        )
        .rough(0.08 * size, 0.8 * size)
    };
    let mut strokes = vec![shell(2.0, -80.0), shell(0.0, 48.0)];
    match form {
        "air-fluid" => {
            strokes.push(shell(-4.0, 18.0));
            let air = add(center, [0.0, -0.26 * size * gravity, 0.0]);
            let bubble = radius.map(|value| 0.5 * value);
            strokes.push(Stroke::ball(
                Layer::Mediastinum,
                air,
                bubble,
                Paint::Solid(-960.0),
            ));
        }
        "solid" => {
            strokes.push(shell(-4.0, 35.0).rough(3.0, 9.0));
            let bubbles = 4;
            for _ in 0..bubbles {
                let at = add(center, scale(drawing.random.direction(), 0.45 * size));
                let radius = [drawing.random.between(3.0, 6.5); 3];
                strokes.push(Stroke::ball(
                    Layer::Mediastinum,
                    at,
                    radius,
                    Paint::Solid(-700.0),
                ));
            }
        }
        _ => {
            strokes.push(shell(-5.0, -95.0));
            let inner = add(center, [-0.2 * size, 0.1 * size, 0.0]);
            let radius = radius.map(|value| 0.5 * value);
            strokes.push(Stroke::ball(
                Layer::Mediastinum,
                inner,
                radius,
                Paint::Solid(42.0),
            ));
            let air = radius.map(|value| 0.45 * value);
            strokes.push(Stroke::ball(
                Layer::Mediastinum,
                inner,
                air,
                Paint::Solid(-900.0),
            ));
        }
    }
    drawing.strokes.extend(strokes);
    Finding {
        form,
        ..drawing.finding(Laterality::Midline, "oesophageal hiatus", 2.2 * size)
    }
}

/// Enlarged lymph nodes of mediastinum, hila and armpits.
pub(super) fn lymphadenopathy(drawing: &mut Drawing<'_>) -> Finding {
    let thorax = &drawing.anatomy.thorax;
    let armpit = |side: Side| -> Point {
        let wall = thorax.wall(side, 1.75, thorax.height(0.78), 26.0);
        add(wall, [0.0, -6.0, 0.0])
    };
    let mut stations: Vec<(Point, &'static str)> = vec![
        ([-29.0, 2.0, 24.0], "paratracheal"),
        ([-28.0, 2.0, 46.0], "paratracheal"),
        ([28.0, 8.0, 52.0], "paratracheal"),
        ([2.0, 27.0, -20.0], "subcarinal"),
        ([-6.0, 30.0, -36.0], "subcarinal"),
        ([38.0, -6.0, 8.0], "aortopulmonary"),
        ([-14.0, -46.0, 24.0], "prevascular"),
        ([20.0, -46.0, 14.0], "prevascular"),
        (
            add(hilum(thorax, Side::Right), [-15.0, -8.0, -4.0]),
            "hilar",
        ),
        (
            add(hilum(thorax, Side::Right), [-12.0, 8.0, -22.0]),
            "hilar",
        ),
        (add(hilum(thorax, Side::Left), [16.0, -8.0, 2.0]), "hilar"),
        (add(hilum(thorax, Side::Left), [13.0, 8.0, -20.0]), "hilar"),
        (armpit(Side::Right), "axillary"),
        (armpit(Side::Left), "axillary"),
    ];
    drawing.random.shuffle(&mut stations);
    let count = drawing.graded(7.0, 14.99) as usize;
    let calcified = drawing.random.chance(0.12);
    let mut largest = 0.0_f32;
    for (place, _) in stations.iter().take(count) {
        let radius = drawing.graded(13.0, 20.0) * drawing.random.between(0.8, 1.25);
        largest = largest.max(2.0 * radius);
        // Nodes come in clusters.
        for member in 0..drawing.random.count(1, 3) {
            let shrink = if member == 0 { 1.0 } else { 0.75 };
            let offset = scale(
                drawing.random.direction(),
                if member == 0 { 2.0 } else { 1.1 * radius },
            );
            let axes = frame(drawing.random.direction());
            let node = Ellipsoid {
                center: add(*place, offset),
                axes,
                radius: [1.15, 0.95, 0.9].map(|factor| factor * shrink * radius),
            };
            let hounsfield = SOFT_TISSUE + drawing.random.between(-6.0, 14.0);
            drawing.push(
                Stroke::new(
                    Layer::Mediastinum,
                    Shape::Ellipsoid(node),
                    Paint::Solid(hounsfield),
                )
                .rough(1.2, 8.0),
            );
            if calcified {
                let radius = [0.4 * radius; 3];
                drawing.push(
                    Stroke::ball(Layer::Deposits, node.center, radius, Paint::Over(420.0))
                        .rough(2.0, 4.0),
                );
            }
        }
    }
    let place = stations[0].1;
    Finding {
        count,
        ..drawing.finding(Laterality::Midline, place, largest)
    }
}
