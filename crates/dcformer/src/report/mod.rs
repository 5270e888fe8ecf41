//! The HTML report of a run: one file that opens anywhere, without scripts or anything to load.
//!
//! [`Report`] is what to show; [`Report::to_html`] draws it and [`Report::write`] puts it on disk. Charts are SVG drawn
//! here, slices are PNG inside the page, and colours follow the reader's light or dark setting. Encoders side by side have
//! a page of their own, [`ComparisonReport`]; [`study`] writes the paper's figures and tables of costs.

mod case;
mod chart;
mod choice;
mod comparison;
mod cost_chart;
mod html;
mod page;
mod picture;
mod retrieval;
mod scatter;
pub mod study;
mod svg;

use std::path::Path;

use crate::Result;
use crate::evaluate::Evaluation;
use crate::evaluate::retrieval::Retrieval;

pub use case::{Case, CaseFinding, Verdict};
pub use choice::{Choice, choose_cases};
pub use comparison::ComparisonReport;
pub use picture::{Picture, Scan};

/// What a report shows; every part that is empty is left out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// Heading of the page.
    pub title: String,
    /// One or two sentences below it: what was done.
    pub summary: String,
    /// The command that was run.
    pub command: String,
    /// Facts about the run, the model, the data: a small table each.
    pub facts: Vec<Facts>,
    /// How good the answers are.
    pub evaluation: Option<Evaluation>,
    /// How well what belongs together is found.
    pub retrieval: Option<Retrieval>,
    /// How the loss fell.
    pub training: TrainingCurve,
    /// Single volumes with their answers.
    pub cases: Vec<Case>,
    /// How long each step took, in order.
    pub timings: Vec<Timing>,
    /// The resolved configuration as text.
    pub configuration: String,
    /// What the reader must know before believing the numbers, beside what every report says.
    pub limits: Vec<String>,
}

/// A small table of names and values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Heading: "Model".
    pub heading: String,
    /// Names and values: ("Parameters", "0.79 M").
    pub rows: Vec<(String, String)>,
}

/// The loss over the steps of training.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TrainingCurve {
    /// Loss of single steps.
    pub train: Vec<LossPoint>,
    /// Loss on patients that are not trained on.
    pub validation: Vec<LossPoint>,
}

/// A loss and when it was measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LossPoint {
    /// Number of optimiser steps done.
    pub step: u64,
    /// Mean loss of the samples; one that is not finite is not drawn.
    pub loss: f64,
}

/// Time of one step of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Timing {
    /// What was done.
    pub step: String,
    /// How long it took.
    pub elapsed_s: f64,
}

impl Report {
    /// The whole page. All text is escaped: none of it can become markup.
    pub fn to_html(&self) -> String {
        page::render(self)
    }

    /// Writes the page; a file of that name is replaced only once the new one is complete.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        crate::checkpoint::write_file(path, self.to_html().as_bytes())
    }
}

#[cfg(test)]
mod tests;
