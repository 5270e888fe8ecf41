//! The tables of a comparison's page: a row for each encoder, best first.

use std::fmt::Write;

use super::name;
use crate::compare::{Compared, Comparison};
use crate::evaluate::retrieval::{Agreement, Recall, Retrieval};
use crate::evaluate::{Difference, Interval, Support};
use crate::report::chart::Whiskers;
use crate::report::html::{count, duration, escape, number, thousands};
use crate::report::page::{self, heads, stacked, wide_table as table};
use crate::report::scatter::short;

pub(super) fn detection(comparison: &Comparison) -> String {
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
    let rows = ranked.iter().enumerate();
    let rows: String = rows
        .map(|(index, compared)| detection_row(index, compared, &whiskers))
        .collect();
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

fn detection_row(index: usize, compared: &Compared, whiskers: &Whiskers) -> String {
    let (metrics, intervals) = (&compared.detection.metrics, &compared.detection.intervals);
    let plot = whiskers.row(
        &format!("auroc-{index}"),
        &compared.encoder.to_string(),
        metrics.auroc_mean,
        intervals.auroc_mean,
    );
    let cells = [
        (
            metrics.average_precision_mean,
            intervals.average_precision_mean,
        ),
        (metrics.accuracy, intervals.accuracy),
        (metrics.f1_weighted, intervals.f1_weighted),
        (metrics.precision_micro, intervals.precision_micro),
        (metrics.recall_micro, intervals.recall_micro),
    ];
    let cells = cells.map(|(value, interval)| format!("<td>{}</td>", stacked(value, interval)));
    format!(
        "<tr><th scope=\"row\">{}</th><td><b>{}</b></td><td class=\"plot\">{plot}</td>{}</tr>",
        name(compared),
        number(metrics.auroc_mean),
        cells.concat()
    )
}

/// Row minus column, for every two encoders.
pub(super) fn differences(comparison: &Comparison) -> String {
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

/// The K of retrieval that are shown; all are in the JSON.
const SHOWN: [usize; 3] = [1, 5, 10];

fn shown(recalls: &[Recall]) -> impl Iterator<Item = &Recall> {
    recalls.iter().filter(|recall| SHOWN.contains(&recall.k))
}

fn shown_agreements(found: &Retrieval) -> impl Iterator<Item = &Agreement> {
    let agreements = found.volume_to_volume.iter();
    agreements.filter(|agreement| SHOWN.contains(&agreement.k))
}

pub(super) fn retrieval(comparison: &Comparison) -> String {
    let found: Vec<(&Compared, &Retrieval)> = comparison
        .ranked()
        .into_iter()
        .filter_map(|compared| Some((compared, compared.retrieval.as_ref()?)))
        .collect();
    let Some((_, first)) = found.first() else {
        return String::new();
    };
    let columns: Vec<String> = ["Encoder".to_owned()]
        .into_iter()
        .chain(shown(&first.text_to_volume).map(|recall| format!("Text → volume R@{}", recall.k)))
        .chain(shown(&first.volume_to_text).map(|recall| format!("Volume → text R@{}", recall.k)))
        .chain(shown_agreements(first).map(|found| format!("Volume → volume @{}", found.k)))
        .collect();
    let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
    let rows: String = found
        .iter()
        .map(|(compared, found)| retrieval_row(&name(compared), found))
        .collect();
    let guesses = shown(&first.text_to_volume).chain(shown(&first.volume_to_text));
    let guesses: String = guesses
        .map(|recall| format!("<td>{:.3}</td>", first.chance(recall.k)))
        .collect();
    let rows = format!(
        "{rows}<tr class=\"guess\"><th scope=\"row\">a guess</th>{guesses}{}</tr>",
        "<td>–</td>".repeat(shown_agreements(first).count())
    );
    let body = table("stacked", "Retrieval", &heads(&columns), &rows)
        + &format!(
            "<p class=\"note\">R@K: share of {} whose own counterpart is among the K most similar of all. Intervals resample the \
             patients of the queries. Volume → volume: mean share of the abnormalities of either that both have, among the K most \
             similar volumes of other patients.</p>",
            count(first.pairs, "pair")
        );
    page::section("Retrieval", &body)
}

fn retrieval_row(name: &str, found: &Retrieval) -> String {
    let recalls = shown(&found.text_to_volume).chain(shown(&found.volume_to_text));
    let cells = recalls
        .map(|recall| format!("<td>{}</td>", stacked(recall.value, recall.interval)))
        .chain(shown_agreements(found).map(|found| {
            let stacked = stacked(Some(found.value), found.interval);
            format!("<td>{stacked}</td>")
        }));
    let cells: String = cells.collect();
    format!("<tr><th scope=\"row\">{name}</th>{cells}</tr>")
}

pub(super) fn costs(comparison: &Comparison) -> String {
    let rows: String = comparison.ranked().into_iter().map(cost_row).collect();
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
    let body = table("wrapped", "Cost and speed", &head, &rows)
        + &format!(
            "<p class=\"note\">Counted for volumes of {} voxels, as the paper counts. Measured on this machine ({}): milliseconds are \
             the median of {} runs of the encoder with one volume; training is the whole step with text encoder and optimiser. \
             Memory is the most that a process of its own held: one that loads the model and encodes one volume after the other, \
             and one that trains, with all training volumes.</p>",
            comparison.volume,
            escape(&machines(comparison).join("; ")),
            comparison
                .encoders
                .first()
                .map_or(0, |compared| compared.inference.runs)
        );
    page::section("Cost and speed", &body)
}

fn cost_row(compared: &Compared) -> String {
    let Compared {
        cost,
        training,
        inference,
        ..
    } = compared;
    let millions = |count: u64| format!("{:.2}", count as f64 / 1e6);
    let memory = |mb: Option<f64>| mb.map_or("–".into(), |mb| thousands(mb.round() as usize));
    let cells = [
        millions(cost.params),
        millions(cost.params_with_projection),
        short(cost.gmacs),
        cost.gmacs_of_paper_volume.map_or("–".into(), short),
        cost.grid.to_string().replace('x', " × "),
        short(inference.seconds * 1e3),
        memory(inference.peak_rss_mb),
        short(training.pairs_per_s),
        memory(training.peak_rss_mb),
        thousands(training.pairs as usize),
        duration(training.seconds),
    ];
    let cells = cells.map(|cell| format!("<td>{cell}</td>")).concat();
    format!("<tr><th scope=\"row\">{}</th>{cells}</tr>", name(compared))
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
pub(super) fn abnormalities(comparison: &Comparison) -> String {
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
