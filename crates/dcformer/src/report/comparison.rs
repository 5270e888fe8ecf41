//! The page of a comparison: which encoder for which budget.

mod tables;

use std::fmt::Write;
use std::path::Path;

use super::chart::{self, interval_text};
use super::html::{escape, number};
use super::scatter::{Bubble, Scatter};
use super::{Facts, TrainingCurve, page};
use crate::Result;
use crate::compare::{Compared, Comparison};

/// What the page of a comparison shows.
#[derive(Clone, Debug, PartialEq)]
pub struct ComparisonReport {
    /// Heading of the page.
    pub title: String,
    /// One or two sentences below it: what was done.
    pub summary: String,
    /// The command that was run.
    pub command: String,
    /// The numbers.
    pub comparison: Comparison,
    /// How the loss of each encoder fell, in the order of the comparison.
    pub training: Vec<TrainingCurve>,
    /// Facts about data and training.
    pub facts: Vec<Facts>,
    /// The configuration that all encoders share, as text.
    pub configuration: String,
    /// What the reader must know before believing the numbers, beside what every page says.
    pub limits: Vec<String>,
}

impl ComparisonReport {
    /// The whole page. All text is escaped: none of it can become markup.
    pub fn to_html(&self) -> String {
        let comparison = &self.comparison;
        let body = [
            page::header(&self.title, &self.summary, &self.command),
            result(comparison),
            failures(comparison),
            tables::detection(comparison),
            tables::differences(comparison),
            tables::retrieval(comparison),
            tables::costs(comparison),
            tables::abnormalities(comparison),
            training(comparison, &self.training),
            page::facts(&self.facts),
            page::configuration(&self.configuration),
            page::limits(&self.limits, true),
        ];
        page::document(&self.title, &body.concat())
    }

    /// Writes the page; a file of that name is replaced only once the new one is complete.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        crate::checkpoint::write_file(path, self.to_html().as_bytes())
    }
}

/// Its name as HTML.
fn name(compared: &Compared) -> String {
    escape(&compared.encoder.to_string())
}

/// The encoders in the plane of accuracy and a cost.
fn bubbles(comparison: &Comparison, cost: fn(&Compared) -> f64) -> Vec<Bubble> {
    let bubble = |compared: &Compared| {
        let detection = &compared.detection;
        Some(Bubble {
            name: compared.encoder.to_string(),
            cost: cost(compared),
            value: detection.metrics.auroc_mean?,
            interval: detection.intervals.auroc_mean,
            weight: compared.cost.params as f64,
            highlighted: compared.encoder.model == "dcformer",
        })
    };
    comparison.encoders.iter().filter_map(bubble).collect()
}

/// The chart of the paper, the same over time, and a sentence that says who is ahead.
fn result(comparison: &Comparison) -> String {
    let scatter = |id, cost, size, largest| Scatter {
        id,
        size,
        cost,
        accuracy: "mean AUROC",
        largest,
    };
    let macs = scatter("by-macs", "GMACs of one volume", [1060.0, 420.0], 28.0);
    let time = scatter(
        "by-time",
        "milliseconds for one volume",
        [520.0, 320.0],
        18.0,
    );
    let training = scatter("by-training", "seconds of training", [520.0, 320.0], 18.0);
    let figure = |heading, chart: Option<String>, caption: &str| {
        let chart = chart.unwrap_or_default();
        format!("<figure><h3>{heading}</h3>{chart}{caption}</figure>")
    };
    let by_macs = figure(
        "Accuracy against multiply-adds",
        macs.draw(&bubbles(comparison, |compared| compared.cost.gmacs)),
        "<figcaption>Area: parameters. Upright lines: 95 % intervals. Dashed: the encoders that no cheaper one reaches. \
         DCFormer in blue. Axes of costs are logarithmic.</figcaption>",
    );
    let by_time = figure(
        "Accuracy against time, measured here",
        time.draw(&bubbles(comparison, |compared| {
            compared.inference.seconds * 1e3
        })),
        "",
    );
    let by_training = figure(
        "Accuracy against training, measured here",
        training.draw(&bubbles(comparison, |compared| compared.training.seconds)),
        "",
    );
    let body = format!(
        "<p class=\"verdict-line\">{}</p><div class=\"charts wide\">{by_macs}</div>\
         <div class=\"charts two\">{by_time}{by_training}</div>",
        verdict(comparison)
    );
    page::section("Result", &body)
}

/// Who is ahead, and of whom that cannot be said.
fn verdict(comparison: &Comparison) -> String {
    let ranked = comparison.ranked();
    let Some((best, others)) = ranked.split_first() else {
        return "No encoder came to a result.".into();
    };
    let difference = |other: &Compared| comparison.auroc_difference(&best.encoder, &other.encoder);
    let names = |sure: bool| -> String {
        let of_kind = others.iter().filter(|other| {
            difference(other).is_some_and(|difference| difference.is_above()) == sure
        });
        of_kind
            .map(|other| name(other))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let mut sentence = format!(
        "<b>{}</b> is ahead with a mean AUROC of <b>{}</b>{}.",
        name(best),
        number(best.detection.metrics.auroc_mean),
        interval_text(best.detection.intervals.auroc_mean)
    );
    let (sure, unsure) = (names(true), names(false));
    const EXPLAINED: &str = "than the choice of patients explains";
    let _ = match (sure.is_empty(), unsure.is_empty()) {
        (true, true) => Ok(()),
        (false, true) => write!(sentence, " The difference to {sure} is more {EXPLAINED}."),
        (true, false) => write!(
            sentence,
            " The difference to {unsure} is no more {EXPLAINED}."
        ),
        (false, false) => write!(
            sentence,
            " The difference to {sure} is more {EXPLAINED}; that to {unsure} is not."
        ),
    };
    sentence
}

fn failures(comparison: &Comparison) -> String {
    if comparison.failures.is_empty() {
        return String::new();
    }
    let mut body = String::from("<ul class=\"limits\">");
    for failure in &comparison.failures {
        let (name, reason) = (failure.encoder.to_string(), &failure.reason);
        let _ = write!(
            body,
            "<li><b>{}</b>: {}</li>",
            escape(&name),
            escape(reason)
        );
    }
    body.push_str("</ul>");
    page::section("Encoders without a result", &body)
}

fn training(comparison: &Comparison, curves: &[TrainingCurve]) -> String {
    let mut figures = String::new();
    for (index, (compared, curve)) in comparison.encoders.iter().zip(curves).enumerate() {
        if let Some(chart) = chart::loss(&format!("loss-{index}"), curve) {
            let _ = write!(
                figures,
                "<figure><h3>{}</h3>{chart}</figure>",
                name(compared)
            );
        }
    }
    if figures.is_empty() {
        return figures;
    }
    let note = "<p class=\"note\">Loss over the steps of training. Strong line: mean of neighbouring steps; faint line: single \
                steps. An encoder whose loss still falls at the end would gain from a larger budget.</p>";
    page::section(
        "Training",
        &format!("<div class=\"charts\">{figures}</div>{note}"),
    )
}
