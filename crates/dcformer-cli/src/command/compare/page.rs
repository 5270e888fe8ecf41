//! The page of a comparison: what was done, in words.

use std::path::PathBuf;

use dcformer::compare::{Budget, Comparison};
use dcformer::report::{ComparisonReport, Facts, TrainingCurve};
use dcformer::train::{ReportText, RunConfig};

/// What the encoders were trained on.
pub(super) enum Data {
    Phantoms,
    /// By the configuration in this file.
    Configured(PathBuf),
}

/// The page of a comparison whose encoders share this configuration.
pub(super) fn report(
    comparison: Comparison,
    training: Vec<TrainingCurve>,
    config: &RunConfig,
    data: Data,
) -> anyhow::Result<ComparisonReport> {
    let pairs = config.data.training()?.samples.len();
    let (on, limits) = match &data {
        Data::Phantoms => (
            "synthetic chest scans".to_owned(),
            vec![
                "The scans are synthetic: drawings of a chest with known findings. The numbers say how these encoders learn from \
                 them in this time, not how they would do on patients."
                    .to_owned(),
            ],
        ),
        Data::Configured(path) => (path.display().to_string(), Vec::new()),
    };
    let mut shared = config.clone();
    comparison.budget.set(&mut shared.train);
    let limits = limits
        .into_iter()
        .chain(limits_of_every(comparison.budget))
        .collect();
    Ok(ComparisonReport {
        title: format!("Encoders compared on {on}"),
        summary: format!(
            "{} image encoders, each trained from scratch {} on the same {pairs} scans and reports, in the same order, with the same \
             text encoder, and asked about the same {} patients that none of them saw.",
            comparison.encoders.len(),
            budget(comparison.budget),
            comparison.patients
        ),
        command: command_line(),
        facts: facts(config, pairs, comparison.budget),
        configuration: shared.to_toml(),
        comparison,
        training,
        limits,
    })
}

/// The command that this program was started with.
fn command_line() -> String {
    const MEANS_SOMETHING: [char; 9] = [' ', '"', '\'', '\\', '$', '*', '?', '&', ';'];
    let word = |argument: std::ffi::OsString| {
        let word = argument.to_string_lossy().into_owned();
        let is_plain = !word.is_empty() && !word.contains(MEANS_SOMETHING);
        if is_plain { word } else { format!("{word:?}") }
    };
    let arguments = std::env::args_os().skip(1).map(word);
    let words = std::iter::once("dcformer".to_owned()).chain(arguments);
    words.collect::<Vec<_>>().join(" ")
}

fn budget(budget: Budget) -> String {
    match budget {
        Budget::Epochs(epochs) => format!("for {epochs} epochs"),
        Budget::Steps(steps) => format!("for {steps} steps"),
        Budget::Minutes(minutes) => {
            format!("for as many steps as it can take in {minutes} minutes here")
        }
    }
}

fn limits_of_every(budget: Budget) -> Vec<String> {
    let mut limits = vec![
        "Each encoder was trained once. Another seed would give other numbers; how far they scatter is not measured here, and \
         the intervals do not contain it."
            .to_owned(),
        "One recipe serves all encoders. It is DCFormer's; another learning rate or a longer training may suit an encoder \
         better, above all those with attention."
            .to_owned(),
    ];
    if let Budget::Minutes(_) = budget {
        limits.push(
            "The budget is time, so accuracies depend on the machine and on what else ran on it: they cannot be made again \
             exactly."
                .to_owned(),
        );
    }
    limits
}

fn facts(config: &RunConfig, pairs: usize, given: Budget) -> Vec<Facts> {
    let row = |name: &str, value: String| (name.to_owned(), value);
    let train = &config.train;
    let text = match train.report {
        ReportText::Whole => "whole reports".to_owned(),
        ReportText::Shuffled => "whole reports, their sentences in any order".to_owned(),
        ReportText::Sentences { most: 1 } => "single sentences".to_owned(),
        ReportText::Sentences { most } => format!("up to {most} sentences"),
    };
    vec![
        Facts {
            heading: "Data".to_owned(),
            rows: vec![
                row("Pairs to learn from", pairs.to_string()),
                row("Volume", format!("{} voxels", config.preprocess.shape)),
                row("Texts", text),
            ],
        },
        Facts {
            heading: "Training".to_owned(),
            rows: vec![
                row("Budget", budget(given)),
                row(
                    "Batch",
                    format!(
                        "{} pairs, {} texts each",
                        train.effective_batch(),
                        train.texts_per_volume
                    ),
                ),
                row("Learning rate", train.peak_learning_rate().to_string()),
                row("Seed", config.seed.to_string()),
            ],
        },
    ]
}
