//! The section of a report on retrieval: a row for each direction, a column for each K.

use std::fmt::Write;

use super::html::{count, number};
use super::page::{heads, section, stacked, wide_table};
use crate::evaluate::retrieval::{Candidates, Recall, Retrieval};

pub(super) fn render(found: &Retrieval) -> String {
    let mut body = String::new();
    if !found.text_to_volume.is_empty() {
        body.push_str(&recalls(found));
    }
    if !found.volume_to_volume.is_empty() {
        body.push_str(&agreements(found));
    }
    section("Retrieval", &body)
}

/// Reports and volumes by each other.
fn recalls(found: &Retrieval) -> String {
    let ks = found.text_to_volume.iter().map(|recall| recall.k);
    let row = |name: &str, recalls: &[Recall]| {
        let mut row = format!("<tr><th scope=\"row\">{name}</th>");
        for recall in recalls {
            let _ = write!(row, "<td>{}</td>", stacked(recall.value, recall.interval));
        }
        row + "</tr>"
    };
    let mut rows = row("A volume by its report", &found.text_to_volume)
        + &row("A report by its volume", &found.volume_to_text);
    rows.push_str("<tr class=\"guess\"><th scope=\"row\">a guess</th>");
    for k in ks.clone() {
        let _ = write!(rows, "<td>{}</td>", number(Some(found.chance(k))));
    }
    rows.push_str("</tr>");
    let label = "Reports and volumes by each other";
    wide_table("stacked", label, &headings("Recall at", ks), &rows)
        + &format!(
            "<p class=\"note\">Share of {} of {} whose own counterpart is among the K most similar of all. Ranges are 95 % \
             intervals that resample the patients of the queries.</p>",
            count(found.pairs, "pair"),
            count(found.patients, "patient")
        )
}

/// Volumes by volumes.
fn agreements(found: &Retrieval) -> String {
    let mut row = String::from("<tr><th scope=\"row\">Volumes by a volume</th>");
    for agreement in &found.volume_to_volume {
        let value = stacked(Some(agreement.value), agreement.interval);
        let _ = write!(row, "<td>{value}</td>");
    }
    row.push_str("</tr>");
    let ks = found.volume_to_volume.iter().map(|agreement| agreement.k);
    let label = "Volumes by volumes";
    let whose = match found.candidates {
        Candidates::OtherPatients => "of other patients",
        Candidates::All => {
            "of all, the volume itself among them (<strong>optimistic:</strong> it is always found first)"
        }
    };
    wide_table("stacked", label, &headings("Agreement at", ks), &row)
        + &format!(
            "<p class=\"note\">Mean share of the abnormalities of either that both have, among the K most similar volumes {whose}.</p>"
        )
}

fn headings(what: &str, ks: impl Iterator<Item = usize>) -> String {
    let headings = ks.map(|k| format!("{what} {k}"));
    let headings: Vec<String> = [String::new()].into_iter().chain(headings).collect();
    heads(&headings.iter().map(String::as_str).collect::<Vec<_>>())
}
