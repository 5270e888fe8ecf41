//! `dcformer evaluate`: how well does a model detect abnormalities in labelled scans?

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use dcformer::detect::{Detector, LabelledScans};
use dcformer::evaluate::{Bootstrap, Evaluation, Predictions, Threshold};
use dcformer::report::Report;
use dcformer_volume::cache;
use dcformer_volume::ct_rate::{self, Split};
use dcformer_volume::dataset::{DataSet, Sample};
use dcformer_volume::manifest;

use crate::args::{Format, Runtime};
use crate::command::detect::open_detector;
use crate::command::train::say_problems;
use crate::output::{self, Align};
use crate::progress::{Progress, note};
use crate::summary::cases;

/// Measure a model on labelled scans
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    dcformer evaluate --model demo/run/model --data demo/phantoms --json\n  \
    dcformer evaluate --model MODEL --data labelled.csv --report report.html")]
pub(crate) struct Evaluate {
    /// Folder of the model
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// CT-RATE's folder, a cache, or a CSV with columns volume, patient and labels
    #[arg(long, value_name = "DIR|CSV")]
    data: PathBuf,
    /// Which scores count as present; `roc-corner` is chosen on the measured scans themselves, so it is optimistic
    #[arg(long, value_enum, default_value_t = ThresholdChoice::Half)]
    threshold: ThresholdChoice,
    /// Resamples of the patients behind the 95 % intervals
    #[arg(long, value_name = "N", default_value_t = Bootstrap::default().resamples)]
    resamples: usize,
    /// Seed of the resamples
    #[arg(long, value_name = "SEED", default_value_t = Bootstrap::default().seed)]
    seed: u64,
    /// Also write a report as one HTML file
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    #[command(flatten)]
    format: Format,
    #[command(flatten)]
    runtime: Runtime,
}

/// Which scores count as present.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum ThresholdChoice {
    Half,
    RocCorner,
}

impl ThresholdChoice {
    pub(crate) fn threshold(self) -> Threshold {
        match self {
            Self::Half => Threshold::Half,
            Self::RocCorner => Threshold::RocCorner,
        }
    }
}

impl Evaluate {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let device = self.runtime.start()?;
        let data = read_data(&self.data)?;
        say_problems(&data.problems);
        let detector = open_detector(&self.model, &device)?;
        let scored = Scored::new(&detector, &data)?;
        let bootstrap = Bootstrap {
            resamples: self.resamples,
            seed: self.seed,
        };
        let evaluation = scored.evaluate(self.threshold.threshold(), bootstrap)?;
        if let Some(path) = &self.report {
            let report = Report {
                title: format!("{} on {}", self.model.display(), self.data.display()),
                summary: format!(
                    "{} volumes of {} patients.",
                    evaluation.volumes, evaluation.patients
                ),
                command: "dcformer evaluate".to_owned(),
                cases: cases(&scored, &evaluation, detector.preprocess())?,
                evaluation: Some(evaluation.clone()),
                ..Report::default()
            };
            report.write(path)?;
        }
        if self.format.json {
            output::json(&evaluation)
        } else {
            print_table(&evaluation)
        }
    }
}

/// The labelled scans at a path.
pub(crate) fn read_data(path: &Path) -> anyhow::Result<DataSet> {
    Ok(if cache::is_cache(path) {
        cache::read(path, &[Some(Split::Validation), None])?
    } else if path.is_dir() {
        ct_rate::read(path, Split::Validation, &ct_rate::Options::default())?
    } else {
        manifest::read(path)?
    })
}

/// Labelled scans with a model's scores.
#[derive(Debug)]
pub(crate) struct Scored {
    /// The scans.
    pub(crate) samples: Vec<Sample>,
    /// Names of labels that the model was asked for and the data know.
    pub(crate) names: Vec<String>,
    /// `[samples][names]`
    pub(crate) scores: Vec<Vec<f32>>,
    /// `[samples][names]`
    pub(crate) labels: Vec<Vec<Option<bool>>>,
}

impl Scored {
    /// Asks the model about every labelled scan of a data set.
    pub(crate) fn new(detector: &Detector, data: &DataSet) -> anyhow::Result<Self> {
        let scans = LabelledScans::new(detector.names(), data)?;
        let progress = Progress::new("detecting", 0, scans.samples.len() as u64);
        let scores = detector.score(&scans.samples, &|done| progress.set(done as u64, ""))?;
        progress.finish();
        let scores = scores.iter().map(|scores| scans.select(scores)).collect();
        let LabelledScans {
            samples,
            names,
            labels,
            ..
        } = scans;
        Ok(Self {
            samples,
            names,
            scores,
            labels,
        })
    }

    /// Scores and labels side by side.
    pub(crate) fn predictions(&self) -> anyhow::Result<Predictions> {
        Ok(Predictions::new(
            self.names.clone(),
            self.scores.concat(),
            self.labels.concat(),
        )?)
    }

    /// Measures the scores.
    pub(crate) fn evaluate(
        &self,
        threshold: Threshold,
        bootstrap: Bootstrap,
    ) -> anyhow::Result<Evaluation> {
        let patients: Vec<&str> = self
            .samples
            .iter()
            .map(|sample| sample.patient.as_str())
            .collect();
        let predictions = self.predictions()?;
        Ok(Evaluation::new(
            &predictions,
            &patients,
            threshold,
            bootstrap,
        )?)
    }
}

/// Prints the numbers of SPEC section 7.
pub(crate) fn print_table(evaluation: &Evaluation) -> anyhow::Result<()> {
    let number = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.3}"));
    let interval = |value: Option<dcformer::evaluate::Interval>| {
        value.map_or(String::new(), |value| {
            format!("{:.3}-{:.3}", value.low, value.high)
        })
    };
    let (metrics, intervals) = (&evaluation.metrics, &evaluation.intervals);
    let rows: Vec<Vec<String>> = evaluation
        .support
        .iter()
        .enumerate()
        .map(|(label, support)| {
            vec![
                support.name.clone(),
                support.positive.to_string(),
                number(metrics.auroc[label]),
                interval(intervals.auroc[label]),
                number(metrics.average_precision[label]),
                number(metrics.f1[label]),
                number(metrics.accuracy_each[label]),
            ]
        })
        .collect();
    let headings = [
        ("abnormality", Align::Left),
        ("positive", Align::Right),
        ("AUROC", Align::Right),
        ("95 %", Align::Left),
        ("AP", Align::Right),
        ("F1", Align::Right),
        ("accuracy", Align::Right),
    ];
    output::table(&headings, &rows)?;
    note(&format!(
        "{} volumes of {} patients",
        evaluation.volumes, evaluation.patients
    ));
    output::text(&format!(
        "\nmean AUROC {} ({})\naccuracy {}  weighted F1 {}  precision {}  recall {}\n",
        number(metrics.auroc_mean),
        interval(intervals.auroc_mean),
        number(metrics.accuracy),
        number(metrics.f1_weighted),
        number(metrics.precision_micro),
        number(metrics.recall_micro),
    ))
}
