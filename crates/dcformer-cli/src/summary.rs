//! From a run and its evaluation to what a report shows of them.

use std::io::{BufRead, BufReader};
use std::path::Path;

use anyhow::Context;
use dcformer::evaluate::Evaluation;
use dcformer::report::{Case, CaseFinding, LossPoint, Scan, TrainingCurve, Verdict, choose_cases};
use dcformer::train::StepReport;
use dcformer_volume::geometry::Direction;
use dcformer_volume::preprocess::{Fit, ModelInput, PlaneOrder, Preprocess};
use dcformer_volume::scan::ScanOptions;

use crate::command::evaluate::Scored;

/// Right and wrong cases that a report shows, each.
const CASES: usize = 4;

/// What every step of a run did, from its `metrics.jsonl`.
pub(crate) fn steps(path: &Path) -> anyhow::Result<Vec<StepReport>> {
    let file =
        std::fs::File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    BufReader::new(file)
        .lines()
        .map(|line| {
            serde_json::from_str(&line?)
                .with_context(|| format!("{}: a line is no report of a step", path.display()))
        })
        .collect()
}

/// The loss of every step and of every validation, from a run's `metrics.jsonl`.
pub(crate) fn training_curve(path: &Path) -> anyhow::Result<TrainingCurve> {
    let mut curve = TrainingCurve::default();
    for report in steps(path)? {
        curve.train.push(LossPoint {
            step: report.step,
            loss: report.loss,
        });
        if let Some(loss) = report.validation_loss {
            curve.validation.push(LossPoint {
                step: report.step,
                loss,
            });
        }
    }
    Ok(curve)
}

/// The clearest right and the worst wrong answers, with the volumes as the model saw them.
pub(crate) fn cases(
    scored: &Scored,
    evaluation: &Evaluation,
    preprocess: &Preprocess,
) -> anyhow::Result<Vec<Case>> {
    let predictions = scored.predictions()?;
    choose_cases(&predictions, evaluation, CASES)
        .into_iter()
        .map(|choice| {
            let sample = &scored.samples[choice.volume];
            let input =
                preprocess.run_file(&sample.path, &sample.metadata, &ScanOptions::default())?;
            let name = &scored.names[choice.label];
            let present = scored.labels[choice.volume][choice.label] == Some(true);
            let headline = match (choice.verdict, present) {
                (Verdict::Right, _) => format!("{name}: found"),
                (Verdict::Wrong, true) => format!("{name}: missed, or nearly"),
                (Verdict::Wrong, false) => format!("{name}: false alarm, or nearly"),
            };
            let findings = scored
                .names
                .iter()
                .enumerate()
                .map(|(label, name)| CaseFinding {
                    name: name.clone(),
                    probability: f64::from(scored.scores[choice.volume][label]),
                    said_present: evaluation
                        .threshold
                        .is_present(label, scored.scores[choice.volume][label]),
                    present: scored.labels[choice.volume][label],
                });
            Ok(Case {
                name: sample.name.clone(),
                headline,
                verdict: choice.verdict,
                pictures: scan(&input, preprocess).views(None).to_vec(),
                findings: findings.collect(),
                report: sample.report.clone(),
            })
        })
        .collect()
}

/// A network's input as a scan to look at.
fn scan<'a>(input: &'a ModelInput, preprocess: &Preprocess) -> Scan<'a> {
    let spacing_mm = match preprocess.fit {
        Fit::SpacingMm {
            depth,
            height,
            width,
        } => [depth, height, width],
        // Proportions are lost; a cube is as good as anything.
        Fit::Stretch { .. } => [1.0; 3],
    };
    // Canonical storage is i to the left, j to the back, k up; a scan that was kept as stored is taken to be so.
    let directions = match preprocess.plane {
        PlaneOrder::ColumnsFirst => [Direction::Superior, Direction::Left, Direction::Posterior],
        PlaneOrder::RowsFirst => [Direction::Superior, Direction::Posterior, Direction::Left],
    };
    Scan {
        values: &input.values,
        shape: input.shape,
        spacing_mm,
        directions,
        window: [-1.0, 1.0],
    }
}
