//! `dcformer metrics`: how good are these scores?

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use dcformer::evaluate::{Metrics as Numbers, Predictions, Threshold};
use dcformer::tensors::read_scores_and_labels;

use crate::args::{Format, Runtime};
use crate::output::{self, Align};

/// Measure scores against labels
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  dcformer metrics predictions.safetensors --json")]
pub(crate) struct Metrics {
    /// File with `scores` and `labels`, both (volumes, labels)
    #[arg(value_name = "F.safetensors")]
    file: PathBuf,
    /// Which scores count as present; `roc-corner` is chosen on the measured scans themselves, so it is optimistic
    #[arg(long, value_enum, default_value_t = ThresholdChoice::Half)]
    threshold: ThresholdChoice,
    #[command(flatten)]
    format: Format,
    #[command(flatten)]
    runtime: Runtime,
}

/// Which scores count as present.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum ThresholdChoice {
    Half,
    RocCorner,
}

impl ThresholdChoice {
    fn threshold(self) -> Threshold {
        match self {
            Self::Half => Threshold::Half,
            Self::RocCorner => Threshold::RocCorner,
        }
    }
}

impl Metrics {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        self.runtime.start()?;
        let (scores, labels) = read_scores_and_labels(&self.file)?;
        let names: Vec<String> = (1..=scores.shape[1])
            .map(|label| format!("label {label}"))
            .collect();
        let predictions = Predictions::new(names.clone(), scores.values, labels)?;
        let numbers = Numbers::new(&predictions, &self.threshold.threshold())?;
        if self.format.json {
            return output::json(&numbers);
        }
        let number =
            |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.4}"));
        let rows: Vec<Vec<String>> = [
            ("accuracy", numbers.accuracy),
            ("F1, weighted", numbers.f1_weighted),
            ("precision, micro", numbers.precision_micro),
            ("recall, micro", numbers.recall_micro),
            ("AUROC, mean", numbers.auroc_mean),
            ("average precision, mean", numbers.average_precision_mean),
        ]
        .into_iter()
        .map(|(name, value)| vec![name.to_owned(), number(value)])
        .collect();
        output::table(&[("metric", Align::Left), ("value", Align::Right)], &rows)
    }
}
