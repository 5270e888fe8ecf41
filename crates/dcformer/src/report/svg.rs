//! Drawing charts as SVG: axes with round ticks, lines, dots and words.
//!
//! Lengths are in the units of the view box. Colours come from classes of the page's style sheet, so that one drawing
//! serves light, dark and print.

use std::fmt::Write;

use super::html::escape;

/// Colours and strokes of the classes, for drawings outside of a page.
const STYLE: &str = include_str!("chart.css");
const FONTS: &str = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', 'Noto Sans', Arial, sans-serif";

/// Maps values to places along one side of a chart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Axis {
    /// Values at both ends.
    pub(super) values: [f64; 2],
    /// Places of both ends; the second may be the smaller one (values grow upwards, places downwards).
    pub(super) places: [f64; 2],
}

impl Axis {
    pub(super) fn at(&self, value: f64) -> f64 {
        let ([low, high], [start, end]) = (self.values, self.places);
        start + (value - low) / (high - low) * (end - start)
    }

    /// From the round number below the values to the one above.
    pub(super) fn around(low: f64, high: f64, places: [f64; 2]) -> Self {
        let high = if high > low { high } else { low + 1.0 };
        let step = round_step(low, high);
        Self {
            values: [(low / step).floor() * step, (high / step).ceil() * step],
            places,
        }
    }

    /// About five round numbers within the axis, with the decimals that tell them apart.
    pub(super) fn ticks(&self) -> Vec<(f64, String)> {
        let [low, high] = self.values;
        let step = round_step(low, high);
        let decimals = (-step.log10().floor()).clamp(0.0, 9.0) as usize;
        let first = (low / step - 1e-9).ceil() as i64;
        let last = (high / step + 1e-9).floor() as i64;
        (first..=last)
            .map(|index| {
                (
                    index as f64 * step,
                    format!("{:.decimals$}", index as f64 * step),
                )
            })
            .collect()
    }
}

/// 1, 2 or 5 times a power of ten, about a fifth of the range.
fn round_step(low: f64, high: f64) -> f64 {
    let rough = (high - low) / 5.0;
    let power = 10f64.powf(rough.log10().floor());
    let factor = [1.0, 2.0, 5.0]
        .into_iter()
        .find(|factor| factor * power >= rough * 0.999)
        .unwrap_or(10.0);
    factor * power
}

/// Maps positive values to places along one side of a chart, equal factors to equal lengths.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct LogAxis {
    /// Of the logarithms.
    axis: Axis,
}

impl LogAxis {
    /// From the number of the form 1, 2 or 5 times a power of ten below the values to the one above.
    pub(super) fn around(low: f64, high: f64, places: [f64; 2]) -> Self {
        let start = round_numbers().rfind(|step| *step <= low).unwrap_or(low);
        let end = round_numbers().find(|step| *step >= high && *step > start);
        Self {
            axis: Axis {
                values: [start, end.unwrap_or(high)].map(f64::log10),
                places,
            },
        }
    }

    pub(super) fn at(&self, value: f64) -> f64 {
        self.axis.at(value.log10())
    }

    /// Places and names of the powers of ten within the axis, and of twice and five times them where those are few.
    pub(super) fn ticks(&self) -> Vec<(f64, String)> {
        const FEW: usize = 3;
        let [low, high] = self.axis.values;
        let within = |number: &f64| (low - 1e-9..=high + 1e-9).contains(&number.log10());
        let is_power = |number: &f64| (number.log10().round() - number.log10()).abs() < 1e-9;
        let numbers = || round_numbers().filter(within);
        let powers = numbers().filter(is_power).count();
        numbers()
            .filter(|number| powers < FEW || is_power(number))
            .map(|number| (self.at(number), prefixed(number)))
            .collect()
    }
}

/// 1, 2 and 5 times the powers of ten.
fn round_numbers() -> impl DoubleEndedIterator<Item = f64> {
    (-12..=18).flat_map(|power| [1.0, 2.0, 5.0].map(|step| step * 10f64.powi(power)))
}

/// "200", "1 k", "50 M".
fn prefixed(number: f64) -> String {
    const PREFIXES: [(f64, &str); 4] = [(1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")];
    let prefix = PREFIXES.into_iter().find(|(unit, _)| number >= *unit);
    let (unit, name) = prefix.unwrap_or((1.0, ""));
    format!("{}{name}", number / unit)
}

/// Which end or middle of a word its place names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// A drawing in progress.
#[derive(Debug)]
pub(super) struct Svg {
    markup: String,
}

impl Svg {
    /// Begins a drawing in a page; `title` names it and `description` says in words what it shows, for those who cannot
    /// see it.
    pub(super) fn new(
        id: &str,
        size: [f64; 2],
        class: &str,
        title: &str,
        description: &str,
    ) -> Self {
        Self::begin(&format!("class=\"{class}\""), id, size, title, description)
    }

    /// Begins a drawing that is a file of its own, with its own colours and background.
    pub(super) fn document(id: &str, size: [f64; 2], title: &str, description: &str) -> Self {
        let [width, height] = size;
        let attributes = format!(
            "xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" font-family=\"{FONTS}\""
        );
        let mut svg = Self::begin(&attributes, id, size, title, description);
        svg.push(format_args!("<style>{STYLE}</style>"));
        svg.rectangle("card", [0.0; 2], size);
        svg
    }

    fn begin(attributes: &str, id: &str, size: [f64; 2], title: &str, description: &str) -> Self {
        let [width, height] = size;
        let (title, description) = (escape(title), escape(description));
        let markup = format!(
            "<svg {attributes} viewBox=\"0 0 {width} {height}\" role=\"img\" aria-labelledby=\"{id}-t {id}-d\">\
             <title id=\"{id}-t\">{title}</title><desc id=\"{id}-d\">{description}</desc>"
        );
        Self { markup }
    }

    pub(super) fn line(&mut self, class: &str, from: [f64; 2], to: [f64; 2]) {
        self.push(format_args!(
            "<line class=\"{class}\" x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\"/>",
            from[0], from[1], to[0], to[1]
        ));
    }

    pub(super) fn rectangle(&mut self, class: &str, corner: [f64; 2], size: [f64; 2]) {
        self.push(format_args!(
            "<rect class=\"{class}\" x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\"/>",
            corner[0], corner[1], size[0], size[1]
        ));
    }

    pub(super) fn dot(&mut self, class: &str, place: [f64; 2], radius: f64) {
        self.push(format_args!(
            "<circle class=\"{class}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"{radius}\"/>",
            place[0], place[1]
        ));
    }

    /// A line through places. Places that fall on the one before, at a tenth of a unit, and those in the middle of a
    /// level or upright stretch are left out: a ROC curve of thousands of volumes stays small.
    pub(super) fn path(&mut self, class: &str, places: impl IntoIterator<Item = [f64; 2]>) {
        let mut corners: Vec<[i64; 2]> = Vec::new();
        for place in places {
            let place = place.map(|value| (value * 10.0).round() as i64);
            match corners[..] {
                [.., last] if last == place => continue,
                [.., before, last]
                    if (0..2)
                        .any(|side| before[side] == last[side] && last[side] == place[side]) =>
                {
                    corners.pop();
                }
                _ => {}
            }
            corners.push(place);
        }
        self.push(format_args!("<path class=\"{class}\" d=\""));
        for (index, [x, y]) in corners.into_iter().enumerate() {
            let command = if index == 0 { 'M' } else { 'L' };
            self.push(format_args!(
                "{command}{} {}",
                x as f64 / 10.0,
                y as f64 / 10.0
            ));
        }
        self.push(format_args!("\"/>"));
    }

    pub(super) fn text(&mut self, class: &str, place: [f64; 2], anchor: Anchor, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        self.push(format_args!(
            "<text class=\"{class}\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{}</text>",
            place[0],
            place[1],
            escape(text)
        ));
    }

    /// Grid lines and numbers of an upright axis, between two places from left to right.
    pub(super) fn vertical_axis(&mut self, axis: &Axis, span: [f64; 2]) {
        let ticks = axis.ticks().into_iter();
        self.level_lines(ticks.map(|(value, label)| (axis.at(value), label)), span);
    }

    /// Grid lines at places along an upright axis, each with its name.
    pub(super) fn level_lines(
        &mut self,
        ticks: impl IntoIterator<Item = (f64, String)>,
        [left, right]: [f64; 2],
    ) {
        for (y, label) in ticks {
            self.line("grid", [left, y], [right, y]);
            self.text("tick", [left - 6.0, y + 4.0], Anchor::End, &label);
        }
    }

    /// Base line and numbers of a level axis at the height `y`.
    pub(super) fn horizontal_axis(
        &mut self,
        axis: &Axis,
        y: f64,
        label: impl Fn(f64, &str) -> String,
    ) {
        self.line("axis", [axis.places[0], y], [axis.places[1], y]);
        for (value, text) in axis.ticks() {
            let x = axis.at(value);
            self.line("axis", [x, y], [x, y + 4.0]);
            self.text("tick", [x, y + 17.0], Anchor::Middle, &label(value, &text));
        }
    }

    pub(super) fn finish(mut self) -> String {
        self.markup.push_str("</svg>");
        self.markup
    }

    fn push(&mut self, markup: std::fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let _ = self.markup.write_fmt(markup);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(low: f64, high: f64) -> Vec<String> {
        Axis {
            values: [low, high],
            places: [0.0, 1.0],
        }
        .ticks()
        .into_iter()
        .map(|(_, label)| label)
        .collect()
    }

    #[test]
    fn ticks_are_round() {
        assert_eq!(labels(0.0, 1.0), ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        assert_eq!(
            labels(0.0, 10_000.0),
            ["0", "2000", "4000", "6000", "8000", "10000"]
        );
        assert_eq!(labels(0.93, 1.41), ["1.0", "1.1", "1.2", "1.3", "1.4"]);
        assert_eq!(labels(-1.0, 1.0), ["-1.0", "-0.5", "0.0", "0.5", "1.0"]);
        assert_eq!(
            labels(0.0021, 0.0024).first().map(String::as_str),
            Some("0.0021")
        );
    }

    #[test]
    fn equal_factors_are_equal_lengths() {
        let axis = LogAxis::around(576.0, 8_998_912.0, [100.0, 0.0]);
        // From 500 to 10 M.
        assert_eq!([axis.at(500.0), axis.at(1e7)].map(f64::round), [100.0, 0.0]);
        assert!((axis.at(1e3) - axis.at(1e4) - axis.at(1e5) + axis.at(1e6)).abs() < 1e-9);
        let names: Vec<String> = axis.ticks().into_iter().map(|(_, name)| name).collect();
        assert_eq!(names, ["1 k", "10 k", "100 k", "1 M", "10 M"]);
        let narrow = LogAxis::around(27.1e9, 207.5e9, [0.0, 1.0]).ticks();
        let names: Vec<String> = narrow.into_iter().map(|(_, name)| name).collect();
        assert_eq!(names, ["20 G", "50 G", "100 G", "200 G", "500 G"]);
        assert_eq!(
            [0.5, 1.0, 2e2, 5e9, 1e14].map(prefixed),
            ["0.5", "1", "200", "5 G", "100 T"]
        );
        let one = LogAxis::around(1.0, 1.0, [0.0, 1.0]);
        assert_eq!((one.at(1.0), one.at(2.0)), (0.0, 1.0));
    }

    #[test]
    fn an_axis_around_values_holds_them_even_if_they_are_one() {
        for (low, high) in [(0.31, 2.9), (1.0, 1.0), (-3.0, 12_345.0), (1e-6, 2e-6)] {
            let axis = Axis::around(low, high, [300.0, 20.0]);
            assert!(axis.values[0] <= low && axis.values[1] >= high, "{axis:?}");
            assert!(
                (20.0..=300.0).contains(&axis.at(low)) && (20.0..=300.0).contains(&axis.at(high))
            );
            assert!((2..=9).contains(&axis.ticks().len()), "{axis:?}");
        }
    }

    #[test]
    fn a_path_keeps_its_corners_only() {
        let mut svg = Svg::new("c", [10.0, 10.0], "", "<t>", "d");
        let staircase = [
            [0.0, 0.0],
            [0.0, 0.01],
            [0.0, 1.0],
            [0.0, 2.0],
            [1.0, 2.0],
            [2.0, 2.0],
            [3.0, 3.0],
        ];
        svg.path("p", staircase);
        let markup = svg.finish();
        assert!(markup.contains("d=\"M0 0L0 2L2 2L3 3\""), "{markup}");
        assert!(markup.contains("&lt;t&gt;"));
    }
}
