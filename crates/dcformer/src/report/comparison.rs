//! The page of a comparison: which encoder for which budget.

use std::fmt::Write;
use std::path::Path;

use super::chart::{self, Whiskers, interval_text};
use super::html::{count, duration, escape, number, thousands};
use super::scatter::{Bubble, Scatter, short};
use super::{Facts, TrainingCurve, page};
use crate::Result;
use crate::compare::{Compared, Comparison, Recall, Retrieval};
use crate::evaluate::{Difference, Interval, Support};

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
            detection(comparison),
            differences(comparison),
            retrieval(comparison),
            costs(comparison),
            abnormalities(comparison),
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

/// A table that scrolls where it is too wide; `head` are the cells of its first row.
fn table(class: &str, label: &str, head: &str, rows: &str) -> String {
    format!(
        "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"{label}\"><table class=\"labels {class}\">\
         <thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )
}

fn heads(names: &[&str]) -> String {
    names
        .iter()
        .map(|name| format!("<th scope=\"col\">{name}</th>"))
        .collect()
}

/// A number over its interval.
fn stacked(value: Option<f64>, interval: Option<Interval>) -> String {
    let below = interval.map_or(String::new(), |_| page::range(interval));
    format!("{}<small>{below}</small>", number(value))
}

fn name(compared: &Compared) -> String {
    escape(&compared.encoder.to_string())
}

/// The chart of the paper, the same over time, and a sentence that says who is ahead.
fn result(comparison: &Comparison) -> String {
    let bubbles = |cost: fn(&Compared) -> f64| -> Vec<Bubble> {
        let of = |compared: &Compared| {
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
        comparison.encoders.iter().filter_map(of).collect()
    };
    let scatter = |id, cost, size, largest| Scatter {
        id,
        size,
        cost,
        accuracy: "mean AUROC",
        largest,
    };
    let mut body = format!("<p class=\"verdict-line\">{}</p>", verdict(comparison));
    let counted = scatter("by-macs", "GMACs of one volume", [760.0, 400.0], 26.0);
    if let Some(chart) = counted.draw(&bubbles(|compared| compared.cost.gmacs)) {
        let _ = write!(
            body,
            "<div class=\"charts wide\"><figure><h3>Accuracy against multiply-adds</h3>{chart}<figcaption>Area: parameters. \
             Upright lines: 95 % intervals. Dashed: the encoders that no cheaper one reaches. DCFormer in blue. The axis of \
             costs is logarithmic.</figcaption></figure></div>"
        );
    }
    let mut pair = String::new();
    let timed = scatter(
        "by-time",
        "milliseconds for one volume",
        [520.0, 320.0],
        18.0,
    );
    let trained = scatter("by-training", "seconds of training", [520.0, 320.0], 18.0);
    for (heading, chart) in [
        (
            "Accuracy against time, measured here",
            timed.draw(&bubbles(|c| c.inference.seconds * 1e3)),
        ),
        (
            "Accuracy against training, measured here",
            trained.draw(&bubbles(|c| c.training.seconds)),
        ),
    ] {
        if let Some(chart) = chart {
            let _ = write!(pair, "<figure><h3>{heading}</h3>{chart}</figure>");
        }
    }
    let _ = write!(body, "<div class=\"charts two\">{pair}</div>");
    page::section("Result", &body)
}

/// Who is ahead, and of whom that cannot be said.
fn verdict(comparison: &Comparison) -> String {
    let ranked = comparison.ranked();
    let Some((best, others)) = ranked.split_first() else {
        return "No encoder came to a result.".into();
    };
    let difference = |other: &Compared| comparison.auroc_difference(&best.encoder, &other.encoder);
    let unsure: Vec<String> = others
        .iter()
        .filter(|other| !difference(other).is_some_and(|difference| difference.is_above()))
        .map(|other| name(other))
        .collect();
    let mut sentence = format!(
        "<b>{}</b> is ahead with a mean AUROC of <b>{}</b>{}.",
        name(best),
        number(best.detection.metrics.auroc_mean),
        interval_text(best.detection.intervals.auroc_mean)
    );
    let others = others.len();
    let sure = others - unsure.len();
    let _ = match (others, unsure.as_slice()) {
        (0, _) => Ok(()),
        (_, []) => write!(
            sentence,
            " It is better than each of the others by more than the choice of patients explains."
        ),
        (_, unsure) => write!(
            sentence,
            " It is better than {sure} of {others} others by more than the choice of patients explains; of these it cannot be \
             told: {}.",
            unsure.join(", ")
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

fn detection(comparison: &Comparison) -> String {
    let ranked = comparison.ranked();
    let of =
        |value: fn(&Compared) -> Option<f64>| ranked.iter().map(|c| value(c)).collect::<Vec<_>>();
    let intervals: Vec<Option<Interval>> = ranked
        .iter()
        .map(|compared| compared.detection.intervals.auroc_mean)
        .collect();
    let whiskers = Whiskers::new(
        &intervals,
        &of(|compared| compared.detection.metrics.auroc_mean),
    );
    let mut rows = String::new();
    for (index, compared) in ranked.iter().enumerate() {
        let (metrics, intervals) = (&compared.detection.metrics, &compared.detection.intervals);
        let plot = whiskers.row(
            &format!("auroc-{index}"),
            &compared.encoder.to_string(),
            metrics.auroc_mean,
            intervals.auroc_mean,
        );
        let _ = write!(
            rows,
            "<tr><th scope=\"row\">{}</th><td><b>{}</b></td><td class=\"plot\">{plot}</td>",
            name(compared),
            number(metrics.auroc_mean)
        );
        for (value, interval) in [
            (
                metrics.average_precision_mean,
                intervals.average_precision_mean,
            ),
            (metrics.accuracy, intervals.accuracy),
            (metrics.f1_weighted, intervals.f1_weighted),
            (metrics.precision_micro, intervals.precision_micro),
            (metrics.recall_micro, intervals.recall_micro),
        ] {
            let _ = write!(rows, "<td>{}</td>", stacked(value, interval));
        }
        rows.push_str("</tr>");
    }
    let axis = format!("95 % interval{}", whiskers.head("auroc-axis"));
    let head = heads(&["Encoder", "Mean AUROC"])
        + &format!("<th scope=\"col\" class=\"plot\">{axis}</th>")
        + &heads(&[
            "Mean average precision",
            "Accuracy",
            "F1, weighted",
            "Precision",
            "Recall",
        ]);
    let body = table("stacked", "Zero-shot detection", &head, &rows)
        + &format!(
            "<p class=\"note\">{} of {}, {} abnormalities, asked in words. Ranges are 95 % intervals: {} resamples of patients, seed \
             {}. Scores above 0.5 count as present; AUROC and average precision need no threshold.</p>",
            count(comparison.volumes, "volume"),
            count(comparison.patients, "patient"),
            comparison.support.len(),
            thousands(comparison.bootstrap.resamples),
            comparison.bootstrap.seed
        );
    page::section("Zero-shot detection", &body)
}

/// Row minus column, for every two encoders.
fn differences(comparison: &Comparison) -> String {
    let ranked = comparison.ranked();
    if ranked.len() < 2 {
        return String::new();
    }
    let names: Vec<String> = ranked.iter().map(|compared| name(compared)).collect();
    let mut rows = String::new();
    for (row, first) in ranked.iter().enumerate() {
        let _ = write!(rows, "<tr><th scope=\"row\">{}</th>", names[row]);
        for second in &ranked {
            let difference = comparison.auroc_difference(&first.encoder, &second.encoder);
            rows.push_str(&difference.map_or_else(|| "<td></td>".into(), difference_cell));
        }
        rows.push_str("</tr>");
    }
    let columns: Vec<&str> = ["Row minus column"]
        .into_iter()
        .chain(names.iter().map(String::as_str))
        .collect();
    let body = table(
        "stacked pairs",
        "Differences of the mean AUROC",
        &heads(&columns),
        &rows,
    ) + "<p class=\"note\">Differences of the mean AUROC with 95 % intervals, from the same resamples of patients for both \
           encoders: two encoders err on the same hard patients, so this decides better than whether their own intervals \
           overlap. Coloured where the interval does not hold 0. No correction is made for the number of pairs.</p>";
    page::section("Is one better than the other?", &body)
}

fn difference_cell(difference: Difference) -> String {
    let class = match (difference.is_above(), difference.is_below()) {
        (true, _) => "above",
        (_, true) => "below",
        _ => "unsure",
    };
    let signed = |value: f64| format!("{value:+.3}").replace('-', "−");
    let value = difference.value.map_or("–".into(), signed);
    let below = difference
        .interval
        .map_or(String::new(), |Interval { low, high }| {
            format!("{} to {}", signed(low), signed(high))
        });
    format!("<td class=\"{class}\">{value}<small>{below}</small></td>")
}

fn retrieval(comparison: &Comparison) -> String {
    let mut ranked = comparison.ranked();
    ranked.retain(|compared| compared.retrieval.is_some());
    let Some(first) = ranked
        .first()
        .and_then(|compared| compared.retrieval.as_ref())
    else {
        return String::new();
    };
    /// The K that are shown; all are in the JSON.
    const SHOWN: [usize; 3] = [1, 5, 10];
    let shown = |recalls: &[Recall]| -> Vec<Recall> {
        recalls
            .iter()
            .filter(|recall| SHOWN.contains(&recall.k))
            .copied()
            .collect()
    };
    let agreements = |found: &Retrieval| -> Vec<(usize, f64)> {
        let all = found
            .volume_to_volume
            .iter()
            .filter(|found| SHOWN.contains(&found.k));
        all.map(|found| (found.k, found.value)).collect()
    };
    let mut columns = vec!["Encoder".to_owned()];
    columns.extend(
        shown(&first.text_to_volume)
            .iter()
            .map(|r| format!("Text → volume R@{}", r.k)),
    );
    columns.extend(
        shown(&first.volume_to_text)
            .iter()
            .map(|r| format!("Volume → text R@{}", r.k)),
    );
    columns.extend(
        agreements(first)
            .iter()
            .map(|(k, _)| format!("Volume → volume @{k}")),
    );
    let mut rows = String::new();
    for compared in &ranked {
        let Some(found) = &compared.retrieval else {
            continue;
        };
        let _ = write!(rows, "<tr><th scope=\"row\">{}</th>", name(compared));
        for recall in [shown(&found.text_to_volume), shown(&found.volume_to_text)].concat() {
            let _ = write!(rows, "<td>{}</td>", stacked(recall.value, recall.interval));
        }
        for (_, value) in agreements(found) {
            let _ = write!(rows, "<td>{value:.3}</td>");
        }
        rows.push_str("</tr>");
    }
    rows.push_str("<tr class=\"guess\"><th scope=\"row\">a guess</th>");
    for recall in [shown(&first.text_to_volume), shown(&first.volume_to_text)].concat() {
        let _ = write!(rows, "<td>{:.3}</td>", recall.k as f64 / first.pairs as f64);
    }
    rows.push_str(&"<td>–</td>".repeat(agreements(first).len()));
    rows.push_str("</tr>");
    let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
    let body = table("stacked", "Retrieval", &heads(&columns), &rows)
        + &format!(
            "<p class=\"note\">R@K: share of {} whose own counterpart is among the K most similar of all. Intervals resample the \
             patients of the queries. Volume → volume: mean share of the abnormalities of either that both have, among the K most \
             similar volumes of other patients.</p>",
            count(first.pairs, "pair")
        );
    page::section("Retrieval", &body)
}

fn costs(comparison: &Comparison) -> String {
    let mut rows = String::new();
    let memory = |mb: Option<f64>| mb.map_or("–".into(), |mb| thousands(mb.round() as usize));
    for compared in comparison.ranked() {
        let Compared {
            cost,
            training,
            inference,
            ..
        } = compared;
        let millions = |count: u64| format!("{:.2}", count as f64 / 1e6);
        let paper = cost.gmacs_of_paper_volume.map_or("–".into(), short);
        let cells = [
            millions(cost.params),
            millions(cost.params_with_projection),
            short(cost.gmacs),
            paper,
            cost.grid.to_string().replace('x', " × "),
            short(inference.seconds * 1e3),
            memory(inference.peak_rss_mb),
            short(training.pairs_per_s),
            memory(training.peak_rss_mb),
            thousands(training.pairs as usize),
            duration(training.seconds),
        ];
        let cells: String = cells
            .iter()
            .map(|cell| format!("<td>{cell}</td>"))
            .collect();
        let _ = write!(
            rows,
            "<tr><th scope=\"row\">{}</th>{cells}</tr>",
            name(compared)
        );
    }
    let head = heads(&[
        "Encoder",
        "Parameters, M",
        "with projection",
        "GMACs",
        "of 512 × 512 × 256",
        "Last grid",
        "ms a volume",
        "MB encoding",
        "Training, pairs/s",
        "MB training",
        "Pairs seen",
        "Time of training",
    ]);
    let machines: Vec<String> = machines(comparison);
    let body = table("", "Cost and speed", &head, &rows)
        + &format!(
            "<p class=\"note\">Counted for volumes of {} voxels, as the paper counts. Measured on this machine ({}): milliseconds are \
             the median of {} runs of the encoder with one volume; training is the whole step with text encoder and optimiser. \
             Memory is the most that a process of its own held: one that loads the model and encodes one volume after the other, \
             and one that trains, with all training volumes.</p>",
            comparison.volume,
            escape(&machines.join("; ")),
            comparison
                .encoders
                .first()
                .map_or(0, |compared| compared.inference.runs)
        );
    page::section("Cost and speed", &body)
}

/// Threads and instruction sets behind the times; more than one if the comparison was resumed on another machine.
fn machines(comparison: &Comparison) -> Vec<String> {
    let mut machines: Vec<String> = comparison
        .encoders
        .iter()
        .flat_map(|compared| {
            let (training, inference) = (&compared.training, &compared.inference);
            [
                (training.threads, &training.simd),
                (inference.threads, &inference.simd),
            ]
        })
        .map(|(threads, simd)| format!("{}, {simd}", count(threads, "thread")))
        .collect();
    machines.sort();
    machines.dedup();
    machines
}

/// AUROC of each abnormality, by encoder.
fn abnormalities(comparison: &Comparison) -> String {
    let ranked = comparison.ranked();
    let mut rows = String::new();
    for (label, Support { name, positive, .. }) in comparison.support.iter().enumerate() {
        let aurocs: Vec<Option<f64>> = ranked
            .iter()
            .map(|compared| compared.detection.metrics.auroc[label])
            .collect();
        let best = aurocs
            .iter()
            .copied()
            .flatten()
            .fold(f64::NEG_INFINITY, f64::max);
        let _ = write!(
            rows,
            "<tr><th scope=\"row\">{}</th><td>{positive}</td>",
            escape(name)
        );
        for (compared, auroc) in ranked.iter().zip(aurocs) {
            let class = if auroc == Some(best) {
                " class=\"best\""
            } else {
                ""
            };
            let cell = stacked(auroc, compared.detection.intervals.auroc[label]);
            let _ = write!(rows, "<td{class}>{cell}</td>");
        }
        rows.push_str("</tr>");
    }
    let names: Vec<String> = ranked.iter().map(|compared| name(compared)).collect();
    let columns: Vec<&str> = ["AUROC of", "Present in"]
        .into_iter()
        .chain(names.iter().map(String::as_str))
        .collect();
    let body = table(
        "stacked",
        "AUROC of each abnormality",
        &heads(&columns),
        &rows,
    ) + "<p class=\"note\">The best of each row in bold; between neighbours it is mostly chance. A dash stands where all volumes \
           or none have the abnormality.</p>";
    page::section("Each abnormality", &body)
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
