//! The page: its sections in order.

use std::fmt::Write;

use super::chart::{self, Whiskers};
use super::html::{count, duration, escape, number};
use super::{Case, Facts, Report, Timing, Verdict, case, retrieval};
use crate::evaluate::{Evaluation, Interval, Threshold};

const STYLE: &str = concat!(include_str!("chart.css"), include_str!("style.css"));

/// What every reader must know, whatever was run.
const DISCLAIMER: &str = "Research software, not a medical device. Nothing here may be used to diagnose or treat anyone.";

pub(super) fn render(report: &Report) -> String {
    let mut body = header(&report.title, &report.summary, &report.command);
    if let Some(evaluation) = &report.evaluation {
        body.push_str(&headline(evaluation));
        body.push_str(&table(evaluation));
        body.push_str(&curves(evaluation));
    }
    if let Some(found) = &report.retrieval {
        body.push_str(&retrieval::render(found));
    }
    body.push_str(&charts(report));
    body.push_str(&cases(&report.cases));
    body.push_str(&facts(&report.facts));
    body.push_str(&timings(&report.timings));
    body.push_str(&configuration(&report.configuration));
    body.push_str(&limits(&report.limits, report.evaluation.is_some()));
    document(&report.title, &body)
}

/// A whole page around the sections.
pub(super) fn document(title: &str, body: &str) -> String {
    let version = env!("CARGO_PKG_VERSION");
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta name=\"color-scheme\" content=\"light dark\"><meta name=\"generator\" content=\"dcformer {version}\">\
         <title>{}</title><style>{STYLE}</style></head><body><main>{body}</main>\
         <footer>dcformer {version} · {DISCLAIMER}</footer></body></html>",
        escape(title)
    )
}

pub(super) fn section(title: &str, body: &str) -> String {
    format!("<section><h2>{title}</h2>{body}</section>")
}

pub(super) fn header(title: &str, summary: &str, command: &str) -> String {
    let mut html = format!("<header><h1>{}</h1>", escape(title));
    if !summary.is_empty() {
        let _ = write!(html, "<p class=\"summary\">{}</p>", escape(summary));
    }
    if !command.is_empty() {
        let _ = write!(
            html,
            "<pre class=\"command\"><code>{}</code></pre>",
            escape(command)
        );
    }
    let _ = write!(html, "<p class=\"disclaimer\">{DISCLAIMER}</p></header>");
    html
}

/// The numbers of the whole set as tiles.
fn headline(evaluation: &Evaluation) -> String {
    let (metrics, intervals) = (&evaluation.metrics, &evaluation.intervals);
    let measured = metrics.auroc.iter().flatten().count();
    let above_chance = intervals
        .auroc
        .iter()
        .flatten()
        .filter(|interval| interval.low > 0.5)
        .count();
    let tiles = [
        ("Accuracy", metrics.accuracy, intervals.accuracy),
        ("F1, weighted", metrics.f1_weighted, intervals.f1_weighted),
        (
            "Precision",
            metrics.precision_micro,
            intervals.precision_micro,
        ),
        ("Recall", metrics.recall_micro, intervals.recall_micro),
        (
            "Mean average precision",
            metrics.average_precision_mean,
            intervals.average_precision_mean,
        ),
    ];
    let mut body = String::from("<div class=\"tiles\">");
    body.push_str(&tile(
        "hero",
        "Mean AUROC",
        &number(metrics.auroc_mean),
        &range(intervals.auroc_mean),
    ));
    body.push_str(&tile(
        "",
        "Better than guessing",
        &format!("{above_chance} of {measured}"),
        "abnormalities whose interval lies above 0.5",
    ));
    for (name, value, interval) in tiles {
        body.push_str(&tile("", name, &number(value), &range(interval)));
    }
    body.push_str("</div>");
    let _ = write!(
        body,
        "<p class=\"note\">Measured on {} of {}. Ranges are 95 % intervals: {} resamples of patients, seed {}. {}</p>",
        count(evaluation.volumes, "volume"),
        count(evaluation.patients, "patient"),
        super::html::thousands(evaluation.bootstrap.resamples),
        evaluation.bootstrap.seed,
        threshold_note(&evaluation.threshold)
    );
    section("Result", &body)
}

/// A table that scrolls where it is too wide; `head` are the cells of its first row.
pub(super) fn wide_table(class: &str, label: &str, head: &str, rows: &str) -> String {
    format!(
        "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"{label}\"><table class=\"labels {class}\">\
         <thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )
}

pub(super) fn heads(names: &[&str]) -> String {
    names
        .iter()
        .map(|name| format!("<th scope=\"col\">{name}</th>"))
        .collect()
}

/// A number over its interval.
pub(super) fn stacked(value: Option<f64>, interval: Option<Interval>) -> String {
    let below = interval.map_or(String::new(), |_| range(interval));
    format!("{}<small>{below}</small>", number(value))
}

pub(super) fn tile(class: &str, name: &str, value: &str, below: &str) -> String {
    format!(
        "<div class=\"tile {class}\"><span>{name}</span><b>{value}</b><small>{below}</small></div>"
    )
}

pub(super) fn range(interval: Option<Interval>) -> String {
    interval.map_or_else(
        || "no interval".into(),
        |Interval { low, high }| format!("{low:.3} – {high:.3}"),
    )
}

const fn threshold_note(threshold: &Threshold) -> &'static str {
    match threshold {
        Threshold::Half => {
            "Scores above 0.5 count as present; AUROC and average precision need no threshold."
        }
        Threshold::Each(_) => {
            "Each abnormality has its own threshold, chosen beforehand; AUROC and average precision need none."
        }
        Threshold::RocCorner => {
            "<strong>Optimistic:</strong> the threshold of each abnormality was chosen on these very volumes (nearest ROC \
             point to the corner), so accuracy, F1, precision and recall are better than they would be on new patients."
        }
    }
}

/// One row for each abnormality.
fn table(evaluation: &Evaluation) -> String {
    let (metrics, intervals) = (&evaluation.metrics, &evaluation.intervals);
    let whiskers = Whiskers::new(&intervals.auroc, &metrics.auroc);
    let mut body = format!(
        "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Numbers for each abnormality\"><table class=\"labels\"><thead><tr>\
         <th scope=\"col\">Abnormality</th><th scope=\"col\">Present in</th><th scope=\"col\">AUROC</th>\
         <th scope=\"col\" class=\"plot\">95 % interval{}</th><th scope=\"col\"><abbr title=\"Average precision\">AP</abbr></th>\
         <th scope=\"col\">F1</th><th scope=\"col\">Accuracy</th><th scope=\"col\">Sensitivity</th>\
         <th scope=\"col\">Specificity</th></tr></thead><tbody>",
        whiskers.head("axis")
    );
    for (label, support) in evaluation.support.iter().enumerate() {
        let share = 100.0 * support.positive as f64 / support.known.max(1) as f64;
        let _ = write!(
            body,
            "<tr><th scope=\"row\">{}</th><td>{} <small>{share:.0} %</small></td><td><b>{}</b></td><td class=\"plot\">{}</td>",
            escape(&support.name),
            support.positive,
            number(metrics.auroc[label]),
            whiskers.row(
                &format!("whisker-{label}"),
                &support.name,
                metrics.auroc[label],
                intervals.auroc[label]
            )
        );
        let columns = [
            &metrics.average_precision,
            &metrics.f1,
            &metrics.accuracy_each,
            &metrics.sensitivity,
            &metrics.specificity,
        ];
        for values in columns {
            let _ = write!(body, "<td>{}</td>", number(values[label]));
        }
        body.push_str("</tr>");
    }
    body.push_str("</tbody></table></div>");
    body.push_str(
        "<p class=\"note\">The dashed line marks 0.5, a guess. The average precision of a guess is the share of volumes in which the \
         abnormality is present. A dash stands for a number that needs both classes.</p>",
    );
    section("Each abnormality", &body)
}

/// The ROC curves as small multiples.
fn curves(evaluation: &Evaluation) -> String {
    let mut body = String::from("<div class=\"multiples\">");
    for (label, support) in evaluation.support.iter().enumerate() {
        let _ = write!(
            body,
            "<figure>{}<figcaption>{}</figcaption></figure>",
            chart::roc(&format!("roc-{label}"), evaluation, label),
            escape(&support.name)
        );
    }
    body.push_str("</div>");
    body.push_str(
        "<p class=\"note\">Upwards: sensitivity. To the right: 1 − specificity. The dot is the threshold in use; the number is the area \
         under the curve.</p>",
    );
    section("ROC curves", &body)
}

/// Loss, scores by class, and reliability, side by side.
fn charts(report: &Report) -> String {
    let mut body = String::new();
    let mut figure = |title: &str, chart: String, note: &str| {
        let _ = write!(
            body,
            "<figure><h3>{title}</h3>{chart}<figcaption>{note}</figcaption></figure>"
        );
    };
    if let Some(chart) = chart::loss("loss", &report.training) {
        figure(
            "Loss",
            chart,
            "Strong line: mean of neighbouring steps; faint line: single steps.",
        );
    }
    if let Some(evaluation) = &report.evaluation {
        let bins = &evaluation.reliability;
        let note = "Share of each class by score, all abnormalities together. Good scores keep the two apart.";
        figure("Scores", chart::score_histogram("scores", bins), note);
        let note = format!(
            "How often an abnormality is present where the model gives it a certain score. Expected calibration error {:.3}. \
             Zero-shot scores are similarities, not frequencies: do not read them as risks.",
            crate::evaluate::calibration_error(bins)
        );
        figure(
            "Reliability",
            chart::reliability("reliability", bins),
            &note,
        );
    }
    if body.is_empty() {
        body
    } else {
        section(
            "Training and scores",
            &format!("<div class=\"charts\">{body}</div>"),
        )
    }
}

fn cases(cases: &[Case]) -> String {
    if cases.is_empty() {
        return String::new();
    }
    let mut body = String::new();
    for (verdict, heading) in [
        (Verdict::Right, "Right answers"),
        (Verdict::Wrong, "Wrong answers"),
    ] {
        let cards: String = cases
            .iter()
            .filter(|case| case.verdict == verdict)
            .map(case::render)
            .collect();
        if !cards.is_empty() {
            let _ = write!(
                body,
                "<h3 class=\"group\">{heading}</h3><div class=\"cases\">{cards}</div>"
            );
        }
    }
    body.push_str(
        "<p class=\"note\">Slices as radiologists look at them: the patient&#39;s left is on the right of axial and coronal slices. Bars are \
         scores; the words beside them are the labels, with ✓ where the model agrees and ✗ where it does not.</p>",
    );
    section("Examples", &body)
}

pub(super) fn facts(facts: &[Facts]) -> String {
    let mut body = String::new();
    for Facts { heading, rows } in facts {
        let _ = write!(body, "<div><h3>{}</h3><dl>", escape(heading));
        for (name, value) in rows {
            let _ = write!(
                body,
                "<div><dt>{}</dt><dd>{}</dd></div>",
                escape(name),
                escape(value)
            );
        }
        body.push_str("</dl></div>");
    }
    if body.is_empty() {
        body
    } else {
        section(
            "What was run",
            &format!("<div class=\"facts\">{body}</div>"),
        )
    }
}

fn timings(timings: &[Timing]) -> String {
    if timings.is_empty() {
        return String::new();
    }
    let total: f64 = timings.iter().map(|timing| timing.elapsed_s).sum();
    let mut body = String::from("<table class=\"timings\"><tbody>");
    for timing in timings {
        let _ = write!(
            body,
            "<tr><th scope=\"row\">{}</th><td>{}</td><td class=\"track\"><i style=\"width:{:.1}%\"></i></td></tr>",
            escape(&timing.step),
            duration(timing.elapsed_s),
            100.0 * timing.elapsed_s / total.max(f64::MIN_POSITIVE)
        );
    }
    let _ = write!(
        body,
        "<tr class=\"total\"><th scope=\"row\">Together</th><td>{}</td><td></td></tr></tbody></table>",
        duration(total)
    );
    section("Time", &body)
}

pub(super) fn configuration(configuration: &str) -> String {
    if configuration.is_empty() {
        return String::new();
    }
    let body = format!(
        "<details><summary>The whole configuration, defaults included</summary><pre><code>{}</code></pre></details>",
        escape(configuration)
    );
    section("Configuration", &body)
}

/// What every reader must know, what this one must, and if there are intervals, what they do not say.
pub(super) fn limits(limits: &[String], intervals: bool) -> String {
    let mut body = format!("<ul class=\"limits\"><li>{DISCLAIMER}</li>");
    for limit in limits {
        let _ = write!(body, "<li>{}</li>", escape(limit));
    }
    if intervals {
        body.push_str(
            "<li>The intervals say how much the numbers would change with other patients like these. They say nothing about \
             patients, scanners or hospitals that are not like these.</li>\
             <li>No correction is made for looking at several abnormalities at once: of twenty 95 % intervals one is expected to \
             miss.</li>",
        );
    }
    body.push_str("</ul>");
    section("Limits", &body)
}
