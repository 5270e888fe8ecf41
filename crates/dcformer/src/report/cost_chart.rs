//! The charts of the paper's study of costs, each a file of its own.

use super::chart::lay_legend;
use super::svg::{Anchor, Axis, LogAxis, Svg};
use crate::complexity::published::{Compared, Comparison};
use crate::complexity::{Curve, Figure, Point};

/// A quantity that a chart shows beside another one.
struct Panel {
    title: &'static str,
    of: fn(&Point) -> u64,
    /// Places of the plot's left and right end.
    span: [f64; 2],
}

const PANELS: [Panel; 2] = [
    Panel {
        title: "Parameters",
        of: |point| point.params,
        span: [62.0, 384.0],
    },
    Panel {
        title: "Multiply-adds (the paper's FLOPs)",
        of: |point| point.macs,
        span: [462.0, 784.0],
    },
];

/// What convolutions cost over the size of their kernel: parameters and multiply-adds side by side, on logarithmic axes,
/// since the curves lie up to six powers of ten apart.
pub(super) fn figure(figure: &Figure) -> String {
    const SIZE: [f64; 2] = [800.0, 356.0];
    const TOP: f64 = 66.0;
    const BOTTOM: f64 = 284.0;
    let title = format!("Figure {}: {}", figure.number, figure.title);
    let mut svg = Svg::document("figure", SIZE, &title, &describe(figure));
    let names = figure.curves.iter();
    let legend: Vec<_> = names
        .map(|curve| (look(curve), curve.name.to_owned()))
        .collect();
    lay_legend(&mut svg, &legend);
    for Panel { title, of, span } in PANELS {
        let values = || figure.curves.iter().flat_map(|curve| &curve.points).map(of);
        let lowest = values().min().unwrap_or(1) as f64;
        let highest = values().max().unwrap_or(1) as f64;
        let y = LogAxis::around(lowest, highest, [BOTTOM, TOP]);
        let kernels = || figure.curves.iter().flat_map(|curve| &curve.points);
        let x = Axis {
            values: [
                kernels().map(|point| point.kernel).min().unwrap_or(0) as f64,
                kernels().map(|point| point.kernel).max().unwrap_or(1) as f64,
            ],
            places: [span[0] + 14.0, span[1] - 14.0],
        };
        svg.text(
            "heading",
            [span[0] - 40.0, TOP - 16.0],
            Anchor::Start,
            title,
        );
        svg.level_lines(y.ticks(), span);
        svg.line("axis", [span[0], BOTTOM], [span[1], BOTTOM]);
        for point in figure.curves.first().map_or(&[][..], |curve| &curve.points) {
            let place = [x.at(point.kernel as f64), BOTTOM + 17.0];
            svg.text("tick", place, Anchor::Middle, &point.kernel.to_string());
        }
        let label = [span[1], BOTTOM + 36.0];
        svg.text(
            "label",
            label,
            Anchor::End,
            "kernel size, taps along each axis",
        );
        for curve in &figure.curves {
            let place = |point: &Point| [x.at(point.kernel as f64), y.at(of(point) as f64)];
            let look = look(curve);
            svg.path(look, curve.points.iter().map(place));
            let dot = look.replace("line", "dot");
            curve
                .points
                .iter()
                .for_each(|point| svg.dot(&dot, place(point), 3.5));
        }
    }
    let assumed = format!("Counted: {}.", figure.assumed);
    svg.text("label", [22.0, SIZE[1] - 12.0], Anchor::Start, &assumed);
    svg.finish()
}

/// Colour and stroke of a curve, the same in every figure.
fn look(curve: &Curve) -> &'static str {
    match curve.name {
        "3D standard" => "line second",
        "3D depthwise" => "line second dashed",
        "2D standard" => "line first",
        "2D depthwise" => "line first dashed",
        _ => "line third",
    }
}

fn describe(figure: &Figure) -> String {
    let curves = figure.curves.iter().filter_map(|curve| {
        let (first, last) = (curve.points.first()?, curve.points.last()?);
        Some(format!(
            "{}: from {} parameters and {} multiply-adds with a kernel of {} to {} and {} with {}.",
            curve.name, first.params, first.macs, first.kernel, last.params, last.macs, last.kernel
        ))
    });
    let curves: Vec<String> = curves.collect();
    format!("{} Counted: {}.", curves.join(" "), figure.assumed)
}

/// A quantity that the comparison shows beside another one.
struct Quantity {
    heading: &'static str,
    of: fn(&Comparison) -> &Compared,
    /// What its printed numbers are in.
    unit: f64,
    /// Places of the plot's left and right end.
    span: [f64; 2],
}

const QUANTITIES: [Quantity; 2] = [
    Quantity {
        heading: "Parameters",
        of: |row| &row.params,
        unit: 1e6,
        span: [170.0, 450.0],
    },
    Quantity {
        heading: "Multiply-adds (the paper's FLOPs)",
        of: |row| &row.macs,
        unit: 1e9,
        span: [490.0, 770.0],
    },
];

/// Height of a row of the comparison, and where the first one begins.
const ROW: f64 = 20.0;
const ROWS_TOP: f64 = 70.0;

/// The height of a row's middle.
fn row_middle(index: usize) -> f64 {
    ROWS_TOP + ROW * (index as f64 + 0.5)
}

/// What networks cost here and in the paper: a row for each, a dot for the count and a ring around it for the printed
/// number.
pub(super) fn comparison(rows: &[(String, &Comparison)]) -> String {
    let bottom = ROWS_TOP + ROW * rows.len() as f64;
    let title = "Table 1: cost of the encoders for a volume of 512 x 512 x 256";
    let size = [800.0, bottom + 30.0];
    let mut svg = Svg::document("table", size, title, &describe_comparison(rows));
    svg.dot("dot first", [50.0, 14.0], 4.0);
    svg.text("legend", [62.0, 18.5], Anchor::Start, "counted");
    svg.dot("ring", [140.0, 14.0], 7.0);
    svg.text(
        "legend",
        [154.0, 18.5],
        Anchor::Start,
        "printed in the paper",
    );
    for (index, (name, _)) in rows.iter().enumerate() {
        let place = [QUANTITIES[0].span[0] - 14.0, row_middle(index) + 4.5];
        svg.text("name", place, Anchor::End, name);
    }
    for quantity in &QUANTITIES {
        quantity_panel(&mut svg, quantity, rows, bottom);
    }
    svg.finish()
}

fn quantity_panel(svg: &mut Svg, quantity: &Quantity, rows: &[(String, &Comparison)], bottom: f64) {
    let Quantity {
        heading,
        of,
        unit,
        span,
    } = *quantity;
    let counted = || rows.iter().map(|(_, row)| of(row).counted as f64);
    let highest = counted().fold(1.0, f64::max);
    let x = LogAxis::around(counted().fold(highest, f64::min), highest, span);
    svg.text(
        "heading",
        [span[0], ROWS_TOP - 16.0],
        Anchor::Start,
        heading,
    );
    svg.line("axis", [span[0], bottom], [span[1], bottom]);
    for (place, label) in x.ticks() {
        svg.line("axis", [place, ROWS_TOP], [place, bottom + 4.0]);
        svg.text("tick", [place, bottom + 18.0], Anchor::Middle, &label);
    }
    for (index, (_, row)) in rows.iter().enumerate() {
        let (y, row) = (row_middle(index), of(row));
        svg.line("grid", [span[0], y], [span[1], y]);
        svg.dot("dot first", [x.at(row.counted as f64), y], 4.0);
        svg.dot("ring", [x.at(row.printed * unit), y], 7.0);
    }
}

fn describe_comparison(rows: &[(String, &Comparison)]) -> String {
    let apart = |row: &Compared| row.difference_percent.abs();
    let numbers = rows.iter().flat_map(|(name, row)| {
        QUANTITIES
            .iter()
            .map(move |quantity| (name, (quantity.of)(row)))
    });
    let farthest = numbers.max_by(|a, b| apart(a.1).total_cmp(&apart(b.1)));
    let farthest = farthest.map_or(String::new(), |(name, row)| {
        format!(
            " The farthest apart are those of {name}: {:+.2} %.",
            row.difference_percent
        )
    });
    format!(
        "Parameters and multiply-adds of {} networks, counted and as the paper prints them.{farthest}",
        rows.len()
    )
}
