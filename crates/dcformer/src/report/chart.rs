//! The charts of a report.

use super::html::{number, thousands};
use super::svg::{Anchor, Axis, Svg};
use super::{LossPoint, TrainingCurve};
use crate::evaluate::{Evaluation, Interval, ReliabilityBin, calibration_error};

/// Size of the charts that stand side by side.
const WIDE: [f64; 2] = [360.0, 264.0];
/// Their plot area: left, right, top, bottom.
const PLOT: [f64; 4] = [40.0, 346.0, 34.0, 220.0];
/// Lines drawn for single steps; more steps are averaged in groups.
const MOST_POINTS: usize = 400;

/// Loss over steps; `None` without two points.
pub(super) fn loss(id: &str, curve: &TrainingCurve) -> Option<String> {
    let (train, validation) = (grouped(&finite(&curve.train)), finite(&curve.validation));
    let smooth = running_mean(&train);
    let all: Vec<[f64; 2]> = train.iter().chain(&validation).copied().collect();
    if all.len() < 2 {
        return None;
    }
    let highest = |side: usize| {
        all.iter()
            .map(|point| point[side])
            .fold(f64::NEG_INFINITY, f64::max)
    };
    let lowest_loss = all
        .iter()
        .map(|point| point[1])
        .fold(f64::INFINITY, f64::min);
    let [left, right, top, bottom] = PLOT;
    let x = Axis {
        values: [0.0, highest(0).max(1.0)],
        places: [left, right],
    };
    let y = Axis::around(lowest_loss, highest(1), [bottom, top]);
    let place = |point: &[f64; 2]| [x.at(point[0]), y.at(point[1])];

    let mut legend = Vec::new();
    for (class, name, line) in [
        ("line first", "training", &smooth),
        ("line second", "validation", &validation),
    ] {
        if let Some([_, loss]) = line.last() {
            legend.push((class, format!("{name} {loss:.3}")));
        }
    }
    let ends: Vec<&str> = legend.iter().map(|(_, name)| name.as_str()).collect();
    let description = format!(
        "Loss over {} steps, at the end: {}.",
        thousands(highest(0) as usize),
        ends.join(", ")
    );

    let mut svg = Svg::new(id, WIDE, "chart", "Loss during training", &description);
    svg.vertical_axis(&y, [left, right]);
    svg.horizontal_axis(&x, bottom, |value, _| thousands(value as usize));
    svg.text(
        "label",
        [right, bottom + 36.0],
        Anchor::End,
        "optimiser steps",
    );
    svg.path("line first faint", train.iter().map(place));
    svg.path("line first", smooth.iter().map(place));
    svg.path("line second", validation.iter().map(place));
    validation
        .iter()
        .for_each(|point| svg.dot("dot second", place(point), 3.0));
    lay_legend(&mut svg, &legend);
    Some(svg.finish())
}

fn finite(points: &[LossPoint]) -> Vec<[f64; 2]> {
    let drawn = points.iter().filter(|point| point.loss.is_finite());
    drawn.map(|point| [point.step as f64, point.loss]).collect()
}

/// Means of consecutive points, at most [`MOST_POINTS`] of them.
fn grouped(points: &[[f64; 2]]) -> Vec<[f64; 2]> {
    let size = points.len().div_ceil(MOST_POINTS).max(1);
    let mean = |group: &[[f64; 2]]| {
        [0, 1].map(|side| group.iter().map(|point| point[side]).sum::<f64>() / group.len() as f64)
    };
    points.chunks(size).map(mean).collect()
}

/// Mean over a window of a fifteenth of the curve, half of it at the ends: single steps scatter with their batch.
fn running_mean(points: &[[f64; 2]]) -> Vec<[f64; 2]> {
    let reach = points.len() / 30;
    let mean = |index: usize| {
        let window = &points[index.saturating_sub(reach)..(index + reach + 1).min(points.len())];
        window.iter().map(|point| point[1]).sum::<f64>() / window.len() as f64
    };
    (0..points.len())
        .map(|index| [points[index][0], mean(index)])
        .collect()
}

/// Names of the lines, above the plot.
pub(super) fn lay_legend(svg: &mut Svg, entries: &[(&str, String)]) {
    /// Width of an average character at the size of the legend.
    const CHARACTER: f64 = 7.2;
    let mut x = PLOT[0];
    for (class, name) in entries {
        if class.starts_with("line") {
            svg.line(class, [x, 14.0], [x + 18.0, 14.0]);
        } else {
            svg.rectangle(class, [x + 3.0, 8.0], [12.0, 12.0]);
        }
        svg.text("legend", [x + 24.0, 18.5], Anchor::Start, name);
        x += 24.0 + CHARACTER * name.chars().count() as f64 + 22.0;
    }
}

/// Scores of pairs where the abnormality is present and where it is absent, as shares of their class.
pub(super) fn score_histogram(id: &str, bins: &[ReliabilityBin]) -> String {
    let total = |count: fn(&ReliabilityBin) -> u64| bins.iter().map(count).sum::<u64>();
    let totals = [total(|bin| bin.positives), total(|bin| bin.negatives)];
    let shares = |bin: &ReliabilityBin| {
        let share = |count: u64, total: u64| count as f64 / total.max(1) as f64;
        [
            share(bin.positives, totals[0]),
            share(bin.negatives, totals[1]),
        ]
    };
    let highest = bins.iter().flat_map(shares).fold(0.0, f64::max);
    let [left, right, top, bottom] = PLOT;
    let x = Axis {
        values: [0.0, 1.0],
        places: [left, right],
    };
    let y = Axis::around(0.0, highest, [bottom, top]);
    let description = format!(
        "Histogram of the scores of {} present and {} absent abnormalities in ten bins from 0 to 1.",
        thousands(totals[0] as usize),
        thousands(totals[1] as usize)
    );
    let mut svg = Svg::new(id, WIDE, "chart", "Scores by class", &description);
    svg.vertical_axis(&y, [left, right]);
    for bin in bins {
        let half = (x.at(bin.high) - x.at(bin.low)) / 2.0 - 3.0;
        for (index, share) in shares(bin).into_iter().enumerate() {
            let corner = [x.at(bin.low) + 3.0 + index as f64 * half, y.at(share)];
            svg.rectangle(
                ["bar second", "bar first"][index],
                corner,
                [half - 1.0, bottom - y.at(share)],
            );
        }
    }
    svg.horizontal_axis(&x, bottom, |_, text| text.into());
    svg.text("label", [right, bottom + 36.0], Anchor::End, "score");
    lay_legend(
        &mut svg,
        &[
            ("bar second", "present".into()),
            ("bar first", "absent".into()),
        ],
    );
    svg.finish()
}

/// Observed share over score: a perfectly calibrated model lies on the diagonal.
pub(super) fn reliability(id: &str, bins: &[ReliabilityBin]) -> String {
    let [left, right, top, bottom] = PLOT;
    let x = Axis {
        values: [0.0, 1.0],
        places: [left, right],
    };
    let y = Axis {
        values: [0.0, 1.0],
        places: [bottom, top],
    };
    let error = calibration_error(bins);
    let description = format!(
        "Share of pairs where the abnormality is present over their mean score, in ten bins. Expected calibration error {error:.3}."
    );
    let mut svg = Svg::new(id, WIDE, "chart", "Reliability", &description);
    svg.vertical_axis(&y, [left, right]);
    svg.horizontal_axis(&x, bottom, |_, text| text.into());
    svg.text("label", [right, bottom + 36.0], Anchor::End, "mean score");
    svg.line("line chance", [left, bottom], [right, top]);
    let most = bins
        .iter()
        .map(ReliabilityBin::count)
        .max()
        .unwrap_or(1)
        .max(1);
    let places: Vec<_> = bins
        .iter()
        .filter_map(|bin| Some(([x.at(bin.mean_score), y.at(bin.observed()?)], bin.count())))
        .collect();
    svg.path("line first", places.iter().map(|(place, _)| *place));
    for (place, count) in places {
        // The area of a dot is its number of pairs, but the rarest stay visible.
        svg.dot(
            "dot first",
            place,
            (2.5 + 5.5 * (count as f64 / most as f64).sqrt()).round(),
        );
    }
    lay_legend(
        &mut svg,
        &[
            ("line first", "observed share".into()),
            ("line chance", "calibrated".into()),
        ],
    );
    svg.finish()
}

/// One label's ROC curve, with the point of the threshold in use.
pub(super) fn roc(id: &str, evaluation: &Evaluation, label: usize) -> String {
    const SIZE: [f64; 2] = [170.0, 158.0];
    const LEFT: f64 = 22.0;
    const RIGHT: f64 = 164.0;
    const TOP: f64 = 6.0;
    const BOTTOM: f64 = 140.0;
    let points = &evaluation.roc[label];
    let metrics = &evaluation.metrics;
    let place = |false_positive_rate: f64, true_positive_rate: f64| {
        [
            LEFT + false_positive_rate * (RIGHT - LEFT),
            BOTTOM - true_positive_rate * (BOTTOM - TOP),
        ]
    };
    let title = format!("ROC curve of {}", evaluation.support[label].name);
    let mut svg = Svg::new(id, SIZE, "roc", &title, &describe_roc(evaluation, label));
    svg.rectangle("frame", [LEFT, TOP], [RIGHT - LEFT, BOTTOM - TOP]);
    svg.line("line chance", place(0.0, 0.0), place(1.0, 1.0));
    svg.text("tick", [LEFT, BOTTOM + 14.0], Anchor::Middle, "0");
    svg.text("tick", [RIGHT, BOTTOM + 14.0], Anchor::Middle, "1");
    svg.text("tick", [LEFT - 5.0, BOTTOM + 4.0], Anchor::End, "0");
    svg.text("tick", [LEFT - 5.0, TOP + 8.0], Anchor::End, "1");
    if points.is_empty() {
        svg.text("label", place(0.5, 0.6), Anchor::Middle, "one class only");
        return svg.finish();
    }
    let curve = || {
        points
            .iter()
            .map(|point| place(point.false_positive_rate, point.true_positive_rate))
    };
    svg.path("area", curve().chain([place(1.0, 0.0)]));
    svg.path("line first", curve());
    svg.text(
        "value",
        [RIGHT - 6.0, BOTTOM - 8.0],
        Anchor::End,
        &number(metrics.auroc[label]),
    );
    if let (Some(sensitivity), Some(specificity)) =
        (metrics.sensitivity[label], metrics.specificity[label])
    {
        svg.dot("dot second", place(1.0 - specificity, sensitivity), 3.5);
    }
    svg.finish()
}

fn describe_roc(evaluation: &Evaluation, label: usize) -> String {
    if evaluation.roc[label].is_empty() {
        return "No curve: the abnormality is present in all of the volumes or in none.".into();
    }
    let interval = interval_text(evaluation.intervals.auroc[label]);
    format!(
        "Area under the curve {}{interval}.",
        number(evaluation.metrics.auroc[label])
    )
}

/// Axis of the dots with whiskers: from the chance of a coin or below to 1.
#[derive(Clone, Copy, Debug)]
pub(super) struct Whiskers {
    axis: Axis,
}

impl Whiskers {
    const SIZE: [f64; 2] = [190.0, 24.0];

    /// An axis that holds every interval and 0.5.
    pub(super) fn new(intervals: &[Option<Interval>], values: &[Option<f64>]) -> Self {
        let lows = intervals
            .iter()
            .flatten()
            .map(|interval| interval.low)
            .chain(values.iter().copied().flatten());
        let low = (lows.fold(0.4, f64::min) * 10.0).floor() / 10.0;
        Self {
            axis: Axis {
                values: [low, 1.0],
                places: [14.0, 176.0],
            },
        }
    }

    /// The numbers of the axis, as the head of the column.
    pub(super) fn head(&self, id: &str) -> String {
        let [low, high] = self.axis.values;
        let mut svg = Svg::new(
            id,
            Self::SIZE,
            "whisker",
            "Axis of the AUROC",
            &format!("From {low:.1} to {high:.1}."),
        );
        for (value, label) in self.axis.ticks() {
            svg.text("tick", [self.axis.at(value), 18.0], Anchor::Middle, &label);
        }
        svg.finish()
    }

    /// One row: the value and its interval, with a line where guessing would be.
    pub(super) fn row(
        &self,
        id: &str,
        name: &str,
        value: Option<f64>,
        interval: Option<Interval>,
    ) -> String {
        let description = format!("{}{}", number(value), interval_text(interval));
        let mut svg = Svg::new(
            id,
            Self::SIZE,
            "whisker",
            &format!("AUROC of {name}"),
            &description,
        );
        let x = |value: f64| self.axis.at(value);
        svg.line("grid", [x(self.axis.values[0]), 12.0], [x(1.0), 12.0]);
        svg.line("line chance", [x(0.5), 0.0], [x(0.5), 24.0]);
        if let Some(Interval { low, high }) = interval {
            svg.line("line first", [x(low), 12.0], [x(high), 12.0]);
            for end in [low, high] {
                svg.line("line first", [x(end), 8.0], [x(end), 16.0]);
            }
        }
        if let Some(value) = value {
            svg.dot("dot first", [x(value), 12.0], 4.5);
        }
        svg.finish()
    }
}

/// ", 95 % interval 0.81 to 0.93", or nothing.
pub(super) fn interval_text(interval: Option<Interval>) -> String {
    interval.map_or_else(String::new, |Interval { low, high }| {
        format!(", 95 % interval {low:.2} to {high:.2}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_curves_are_thinned_and_smoothing_keeps_a_straight_line() {
        let points: Vec<[f64; 2]> = (0..10_000)
            .map(|step| [f64::from(step), 5.0 - f64::from(step) / 2500.0])
            .collect();
        let thin = grouped(&points);
        assert_eq!(thin.len(), MOST_POINTS);
        let smooth = running_mean(&thin);
        let reach = MOST_POINTS / 30;
        for index in reach..MOST_POINTS - reach {
            assert!(
                (smooth[index][1] - thin[index][1]).abs() < 1e-9
                    && smooth[index][0] == thin[index][0]
            );
        }
        // At an end half of the window is left, and its mean lies a quarter of the window inside.
        let step = thin[0][1] - thin[1][1];
        assert!((thin[0][1] - smooth[0][1] - step * reach as f64 / 2.0).abs() < 1e-9);
    }

    #[test]
    fn whiskers_hold_every_interval() {
        let low = Interval {
            low: 0.13,
            high: 0.6,
        };
        let whiskers = Whiskers::new(&[None, Some(low)], &[Some(0.9), None]);
        assert_eq!(whiskers.axis.values, [0.1, 1.0]);
        assert_eq!(Whiskers::new(&[], &[]).axis.values, [0.4, 1.0]);
    }
}
