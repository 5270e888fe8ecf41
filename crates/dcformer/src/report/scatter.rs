//! Accuracy against cost: a bubble for each encoder, its area the parameters, as in the paper's figure.

use super::chart::interval_text;
use super::html::number;
use super::svg::{Anchor, Axis, Svg};
use crate::evaluate::Interval;

/// An encoder in the plane.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Bubble {
    /// Its name.
    pub(super) name: String,
    /// Cost, above 0.
    pub(super) cost: f64,
    /// Accuracy.
    pub(super) value: f64,
    /// Interval of the accuracy.
    pub(super) interval: Option<Interval>,
    /// What its area stands for.
    pub(super) weight: f64,
    /// Whether it is one of those that the chart is about.
    pub(super) highlighted: bool,
}

/// A chart of bubbles.
#[derive(Clone, Debug)]
pub(super) struct Scatter {
    /// Identifier within the page.
    pub(super) id: &'static str,
    /// Width and height.
    pub(super) size: [f64; 2],
    /// What costs are.
    pub(super) cost: &'static str,
    /// What accuracy is.
    pub(super) accuracy: &'static str,
    /// Radius of the heaviest bubble.
    pub(super) largest: f64,
}

/// A box: left, top, right, bottom.
type Area = [f64; 4];

impl Scatter {
    /// Draws the bubbles, costs on a logarithmic axis; `None` without one.
    pub(super) fn draw(&self, bubbles: &[Bubble]) -> Option<String> {
        let known = |bubble: &&Bubble| {
            bubble.cost > 0.0 && bubble.cost.is_finite() && bubble.value.is_finite()
        };
        let mut bubbles: Vec<&Bubble> = bubbles.iter().filter(known).collect();
        bubbles.sort_by(|a, b| a.cost.total_cmp(&b.cost));
        let (first, last) = (bubbles.first()?, bubbles.last()?);
        let [width, height] = self.size;
        let [left, right, top, bottom] = [46.0, width - 16.0, 16.0, height - 44.0];

        let ends = |end: fn(&Interval) -> f64| {
            move |bubble: &&Bubble| bubble.interval.as_ref().map_or(bubble.value, end)
        };
        let low = bubbles
            .iter()
            .map(ends(|interval| interval.low))
            .fold(f64::INFINITY, f64::min);
        let high = bubbles
            .iter()
            .map(ends(|interval| interval.high))
            .fold(f64::NEG_INFINITY, f64::max);
        let y = Axis::around(low, high, [bottom, top]);
        let x = LogAxis::around(
            first.cost,
            last.cost,
            [left + self.largest, right - self.largest],
        );

        let title = format!("{} against {}", self.accuracy, self.cost);
        let mut svg = Svg::new(self.id, self.size, "chart", &title, &describe(&bubbles));
        svg.vertical_axis(&y, [left, right]);
        svg.line("axis", [left, bottom], [right, bottom]);
        for (cost, label) in x.ticks() {
            let place = x.at(cost);
            svg.line("axis", [place, bottom], [place, bottom + 4.0]);
            svg.text("tick", [place, bottom + 17.0], Anchor::Middle, &label);
        }
        svg.text("label", [right, bottom + 36.0], Anchor::End, self.cost);
        svg.text(
            "label",
            [left, bottom + 36.0],
            Anchor::Start,
            &format!("upwards: {}", self.accuracy),
        );
        let front = frontier(&bubbles);
        svg.path(
            "line chance",
            front
                .iter()
                .map(|bubble| [x.at(bubble.cost), y.at(bubble.value)]),
        );
        self.draw_bubbles(&mut svg, &bubbles, &x, &y, [left, top, right, bottom]);
        Some(svg.finish())
    }

    fn draw_bubbles(&self, svg: &mut Svg, bubbles: &[&Bubble], x: &LogAxis, y: &Axis, plot: Area) {
        /// Half of the width that names keep off an upright line.
        const WHISKER: f64 = 5.0;
        /// The lightest ones stay visible.
        const SMALLEST: f64 = 4.0;
        let heaviest = bubbles
            .iter()
            .map(|bubble| bubble.weight)
            .fold(f64::MIN_POSITIVE, f64::max);
        let radius =
            |bubble: &Bubble| (self.largest * (bubble.weight / heaviest).sqrt()).max(SMALLEST);
        let centre = |bubble: &Bubble| [x.at(bubble.cost), y.at(bubble.value)];
        let mut taken: Vec<Area> = Vec::new();
        for bubble in bubbles {
            let ([cx, cy], r) = (centre(bubble), radius(bubble));
            let class = if bubble.highlighted {
                "first"
            } else {
                "second"
            };
            if let Some(Interval { low, high }) = bubble.interval {
                let (low, high) = (y.at(low), y.at(high));
                svg.line(&format!("line thin {class}"), [cx, low], [cx, high]);
                taken.push([cx - WHISKER, high, cx + WHISKER, low]);
            }
            svg.dot(
                &format!("bubble {class}"),
                [cx, cy],
                (r * 10.0).round() / 10.0,
            );
            taken.push([cx - r * 0.8, cy - r * 0.8, cx + r * 0.8, cy + r * 0.8]);
        }
        for bubble in bubbles {
            let (place, anchor, area) =
                lay_name(&bubble.name, centre(bubble), radius(bubble), &taken, plot);
            svg.text("legend", place, anchor, &bubble.name);
            taken.push(area);
        }
    }
}

/// Where a name covers least of what is drawn already: beside its bubble, above or below it.
fn lay_name(
    name: &str,
    [cx, cy]: [f64; 2],
    radius: f64,
    taken: &[Area],
    [left, top, right, bottom]: Area,
) -> ([f64; 2], Anchor, Area) {
    /// Width of an average character at the size of the legend.
    const CHARACTER: f64 = 7.0;
    /// Height of a line.
    const LINE: f64 = 13.0;
    /// From a base line to the lowest point of its letters.
    const DESCENT: f64 = 3.0;
    let width = CHARACTER * name.chars().count() as f64;
    let (aside, gap) = (radius + 5.0, radius + 4.0);
    let mut places = vec![
        ([cx + aside, cy + 4.0], Anchor::Start),
        ([cx - aside, cy + 4.0], Anchor::End),
        ([cx, cy - gap], Anchor::Middle),
        ([cx, cy + gap + LINE - DESCENT], Anchor::Middle),
    ];
    for lines in [1.0, -1.0, 2.0, -2.0] {
        places.push(([cx + aside, cy + 4.0 + lines * LINE], Anchor::Start));
        places.push(([cx - aside, cy + 4.0 + lines * LINE], Anchor::End));
    }
    let area_of = |[x, y]: [f64; 2], anchor: Anchor| {
        let start = match anchor {
            Anchor::Start => x,
            Anchor::Middle => x - width / 2.0,
            Anchor::End => x - width,
        };
        [start, y + DESCENT - LINE, start + width, y + DESCENT]
    };
    let outside = |area: &Area| {
        (left - area[0]).max(0.0)
            + (area[2] - right).max(0.0)
            + (top - area[1]).max(0.0)
            + (area[3] - bottom).max(0.0)
    };
    let cost = |area: &Area| {
        // A name that is cut off cannot be read at all.
        100.0 * outside(area) + taken.iter().map(|other| overlap(area, other)).sum::<f64>()
    };
    places
        .into_iter()
        .map(|(place, anchor)| (place, anchor, area_of(place, anchor)))
        .min_by(|a, b| cost(&a.2).total_cmp(&cost(&b.2)))
        .expect("there are places to choose from")
}

fn overlap(a: &Area, b: &Area) -> f64 {
    let side = |from: usize, to: usize| (a[to].min(b[to]) - a[from].max(b[from])).max(0.0);
    side(0, 2) * side(1, 3)
}

/// Those that none of less or equal cost reaches, cheapest first. The bubbles are sorted by cost.
fn frontier<'a>(bubbles: &[&'a Bubble]) -> Vec<&'a Bubble> {
    let mut front: Vec<&Bubble> = Vec::new();
    for bubble in bubbles {
        if front.last().is_none_or(|best| bubble.value > best.value) {
            if front.last().is_some_and(|best| best.cost == bubble.cost) {
                front.pop();
            }
            front.push(bubble);
        }
    }
    front
}

fn describe(bubbles: &[&Bubble]) -> String {
    let one = |bubble: &&Bubble| {
        let interval = interval_text(bubble.interval);
        format!(
            "{}: {}{interval} at {}",
            bubble.name,
            number(Some(bubble.value)),
            short(bubble.cost)
        )
    };
    bubbles.iter().map(one).collect::<Vec<_>>().join("; ") + "."
}

/// Three digits.
pub(super) fn short(value: f64) -> String {
    let digits = 2 - value.abs().max(f64::MIN_POSITIVE).log10().floor() as i32;
    format!("{value:.decimals$}", decimals = digits.clamp(0, 9) as usize)
}

/// Maps values above 0 to places so that equal factors are equal distances.
struct LogAxis(Axis);

impl LogAxis {
    /// Room for a name on both sides, or for an axis around a single value.
    const MARGIN: f64 = 1.25;

    fn around(low: f64, high: f64, places: [f64; 2]) -> Self {
        Self(Axis {
            values: [(low / Self::MARGIN).log10(), (high * Self::MARGIN).log10()],
            places,
        })
    }

    fn at(&self, value: f64) -> f64 {
        self.0.at(value.log10())
    }

    /// 1, 2 and 5 of each power of ten within the axis; the powers alone where those are many, every digit where they are
    /// few.
    fn ticks(&self) -> Vec<(f64, String)> {
        const MANY: usize = 9;
        const FEW: usize = 3;
        let [low, high] = self.0.values;
        let within = |steps: &[u8]| -> Vec<(f64, String)> {
            let powers = low.floor() as i32..=high.ceil() as i32;
            let ticks = powers.flat_map(|power| {
                // Read from text, a power of ten is the nearest number, and prints as it was written.
                steps
                    .iter()
                    .filter_map(move |step| format!("{step}e{power}").parse::<f64>().ok())
            });
            let inside = |tick: &f64| (low..=high).contains(&tick.log10());
            ticks
                .filter(inside)
                .map(|tick| (tick, tick.to_string()))
                .collect()
        };
        let usual = within(&[1, 2, 5]);
        match usual.len() {
            0..FEW => within(&[1, 2, 3, 4, 5, 6, 7, 8, 9]),
            FEW..=MANY => usual,
            _ => within(&[1]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bubble(name: &str, cost: f64, value: f64) -> Bubble {
        Bubble {
            name: name.into(),
            cost,
            value,
            interval: Some(Interval {
                low: value - 0.02,
                high: value + 0.02,
            }),
            weight: 1.0,
            highlighted: false,
        }
    }

    const SCATTER: Scatter = Scatter {
        id: "s",
        size: [400.0, 300.0],
        cost: "GMACs",
        accuracy: "mean AUROC",
        largest: 10.0,
    };

    #[test]
    fn ticks_of_a_logarithmic_axis_are_round_and_not_many() {
        let ticks = |low: f64, high: f64| -> Vec<String> {
            let axis = LogAxis::around(low, high, [0.0, 1.0]);
            axis.ticks().into_iter().map(|(_, label)| label).collect()
        };
        assert_eq!(ticks(0.06, 0.3), ["0.05", "0.1", "0.2"]);
        assert_eq!(ticks(1.0, 1.0), ["0.8", "0.9", "1"]);
        assert_eq!(
            ticks(0.05, 0.08),
            ["0.04", "0.05", "0.06", "0.07", "0.08", "0.09", "0.1"]
        );
        assert_eq!(
            ticks(0.001, 90.0),
            ["0.001", "0.01", "0.1", "1", "10", "100"]
        );
    }

    #[test]
    fn equal_factors_are_equal_distances() {
        let axis = LogAxis::around(1.0, 100.0, [0.0, 1.0]);
        assert!((axis.at(10.0) - axis.at(1.0) - (axis.at(100.0) - axis.at(10.0))).abs() < 1e-12);
    }

    #[test]
    fn the_frontier_is_what_nothing_cheaper_reaches() {
        let all = [
            bubble("cheap", 1.0, 0.6),
            bubble("same cost, better", 1.0, 0.7),
            bubble("dear and worse", 2.0, 0.65),
            bubble("dear and better", 3.0, 0.8),
        ];
        let all: Vec<&Bubble> = all.iter().collect();
        let names: Vec<&str> = frontier(&all)
            .iter()
            .map(|bubble| bubble.name.as_str())
            .collect();
        assert_eq!(names, ["same cost, better", "dear and better"]);
    }

    #[test]
    fn bubbles_lie_where_their_numbers_say() {
        let svg = SCATTER
            .draw(&[bubble("a", 1.0, 0.6), bubble("b", 100.0, 0.8)])
            .expect("two bubbles");
        let circles: Vec<&str> = svg.split("<circle").skip(1).collect();
        assert_eq!(circles.len(), 2);
        let attribute = |circle: &str, name: &str| -> f64 {
            let rest = circle.split(&format!("{name}=\"")).nth(1).expect(name);
            rest.split('"').next().unwrap().parse().unwrap()
        };
        // From 0.58 to 0.82 the axis goes from 0.55 to 0.85, from 256 up to 16.
        let y = |value: f64| 256.0 + (value - 0.55) / 0.3 * (16.0 - 256.0);
        for (circle, value) in circles.iter().zip([0.6, 0.8]) {
            assert!(
                (attribute(circle, "cy") - y(value)).abs() < 0.06,
                "{circle}"
            );
        }
        assert!(attribute(circles[0], "cx") < attribute(circles[1], "cx"));
        assert!(svg.contains("a: 0.600, 95 % interval 0.58 to 0.62 at 1.00; b: 0.800"));
    }

    #[test]
    fn names_keep_off_each_other_and_inside() {
        let plot = [40.0, 10.0, 390.0, 260.0];
        let mut taken = Vec::new();
        // Ten bubbles on one spot at the right edge.
        for index in 0..10 {
            let name = format!("encoder {index}");
            let (_, _, area) = lay_name(&name, [380.0, 120.0], 6.0, &taken, plot);
            assert!(area[2] <= 390.0 && area[0] >= 40.0, "{area:?}");
            if index < 4 {
                assert!(taken.iter().all(|other| overlap(&area, other) == 0.0));
            }
            taken.push(area);
        }
    }

    #[test]
    fn what_has_no_place_is_not_drawn() {
        assert_eq!(SCATTER.draw(&[]), None);
        assert_eq!(
            SCATTER.draw(&[bubble("a", 0.0, 0.5), bubble("b", 1.0, f64::NAN)]),
            None
        );
    }

    #[test]
    fn short_numbers_have_three_digits() {
        let found = [0.0667, 0.5, 1.0, 34.205, 701.4, 12_345.6].map(short);
        assert_eq!(found, ["0.0667", "0.500", "1.00", "34.2", "701", "12346"]);
    }
}
