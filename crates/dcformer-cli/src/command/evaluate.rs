//! `dcformer evaluate`: how well does a model detect abnormalities in labelled scans?

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::{Context, ensure};
use clap::{Args, ValueEnum};
use dcformer::Device;
use dcformer::answers::Answers;
use dcformer::detect::{Detector, LabelledScans};
use dcformer::embed::ReportEmbedder;
use dcformer::evaluate::retrieval::{Candidates, Recall, Retrieval, RetrievalAnswers};
use dcformer::evaluate::{
    Bootstrap, Difference, Evaluation, Interval, Metrics, Predictions, Resampled, Threshold,
};
use dcformer::report::Report;
use dcformer_volume::cache;
use dcformer_volume::ct_rate::{self, Split};
use dcformer_volume::dataset::{DataSet, Sample};
use dcformer_volume::manifest;
use serde::Serialize;

use crate::args::{Format, Runtime};
use crate::command::detect::open_detector;
use crate::command::train::say_problems;
use crate::model;
use crate::output::{self, Align};
use crate::progress::{Progress, note};
use crate::summary::cases;

/// Measure a model on labelled scans
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    dcformer evaluate --model demo/run/model --data demo/phantoms --json\n  \
    dcformer evaluate --model demo/run/model --data demo/phantoms --retrieval\n  \
    dcformer evaluate --model MODEL --data labelled.csv --report report.html")]
pub(crate) struct Evaluate {
    /// Folder of the model
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// CT-RATE's folder, a cache, or a CSV with columns volume, patient and labels
    #[arg(long, value_name = "DIR|CSV")]
    data: PathBuf,
    /// Which scores count as present: the model's own thresholds if fine-tuning chose some, else 0.5, unless said otherwise;
    /// `roc-corner` is chosen on the measured scans themselves, so it is optimistic
    #[arg(long, value_enum)]
    threshold: Option<ThresholdChoice>,
    /// Resamples of the patients behind the 95 % intervals
    #[arg(long, value_name = "N", default_value_t = Bootstrap::default().resamples)]
    resamples: usize,
    /// Seed of the resamples
    #[arg(long, value_name = "SEED", default_value_t = Bootstrap::default().seed)]
    seed: u64,
    /// Also look for volumes by their reports, for reports by volumes, and for volumes by volumes (SPEC section 8)
    #[arg(long)]
    retrieval: bool,
    /// Which volumes a volume may find; `all` lets it find itself, as CT-CLIP does, so it is optimistic
    #[arg(long, value_enum, default_value_t = CandidateChoice::OtherPatients, requires = "retrieval")]
    candidates: CandidateChoice,
    /// Also ask another model about the same scans, and say how far the mean AUROC of this one is above it, with the interval of
    /// the difference; over the labels that both answer
    #[arg(long, value_name = "DIR")]
    against: Option<PathBuf>,
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
enum ThresholdChoice {
    /// The model's, one for each label
    Model,
    /// 0.5
    Half,
    /// Of each label the point of its ROC curve nearest to the corner
    RocCorner,
}

/// Which volumes a volume may find.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum CandidateChoice {
    OtherPatients,
    All,
}

/// What is printed as JSON.
#[derive(Serialize)]
struct Evaluated<'a> {
    #[serde(flatten)]
    evaluation: &'a Evaluation,
    #[serde(skip_serializing_if = "Option::is_none")]
    retrieval: Option<&'a Retrieval>,
    #[serde(skip_serializing_if = "Option::is_none")]
    against: Option<&'a Against>,
}

/// Beside another model.
#[derive(Debug, Serialize)]
struct Against {
    model: PathBuf,
    /// Labels that both answer.
    labels: usize,
    /// Mean AUROC of both over them, and how far this model's is above the other's.
    auroc_mean: [Option<f64>; 2],
    difference: Difference,
}

impl Evaluate {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let device = self.runtime.start()?;
        let data = read_data(&self.data)?;
        say_problems(&data.problems);
        let (detector, scored) = self.score(&data, &device)?;
        let bootstrap = Bootstrap {
            resamples: self.resamples,
            seed: self.seed,
        };
        let evaluation = scored.evaluate(self.threshold(&scored)?, bootstrap)?;
        let against = self.against.as_deref();
        let against = against
            .map(|other| Against::new(other, &scored, &data, &device, bootstrap))
            .transpose()?;
        let retrieval = scored.retrieval(bootstrap)?;
        ensure!(
            retrieval.is_some() || !self.retrieval,
            "--retrieval needs at least two volumes with a report, found fewer in {}",
            self.data.display()
        );
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
                retrieval: retrieval.clone(),
                ..Report::default()
            };
            report.write(path)?;
        }
        if self.format.json {
            return output::json(&Evaluated {
                evaluation: &evaluation,
                retrieval: retrieval.as_ref(),
                against: against.as_ref(),
            });
        }
        print_table(&evaluation)?;
        if let Some(against) = &against {
            against.print()?;
        }
        match &retrieval {
            Some(retrieval) => print_retrieval(retrieval),
            None => Ok(()),
        }
    }

    /// Which scores count as present.
    fn threshold(&self, scored: &Scored) -> anyhow::Result<Threshold> {
        let own = || scored.thresholds.clone().map(Threshold::Each);
        match self.threshold {
            None => Ok(own().unwrap_or_default()),
            Some(ThresholdChoice::Model) => own().with_context(|| {
                format!(
                    "{}: the model has no thresholds; `dcformer finetune` chooses them",
                    self.model.display()
                )
            }),
            Some(ThresholdChoice::Half) => Ok(Threshold::Half),
            Some(ThresholdChoice::RocCorner) => Ok(Threshold::RocCorner),
        }
    }

    /// Retrieval needs the text encoder, detection alone does not where the prompts' latents are kept.
    fn score(&self, data: &DataSet, device: &Device) -> anyhow::Result<(Detector, Scored)> {
        if !self.retrieval {
            let detector = open_detector(&self.model, device)?;
            let scored = Scored::new(&detector, data, None)?;
            return Ok((detector, scored));
        }
        let model = model::load(&self.model, device)?;
        let detector = Detector::new(&model, device)?;
        let reports = ReportEmbedder::new(&model)?;
        let candidates = match self.candidates {
            CandidateChoice::OtherPatients => Candidates::OtherPatients,
            CandidateChoice::All => Candidates::All,
        };
        let scored = Scored::new(&detector, data, Some((&reports, candidates)))?;
        Ok((detector, scored))
    }
}

impl Against {
    fn new(
        model: &Path,
        scored: &Scored,
        data: &DataSet,
        device: &Device,
        bootstrap: Bootstrap,
    ) -> anyhow::Result<Self> {
        let other = Scored::new(&open_detector(model, device)?, data, None)?;
        let names = scored.names.iter();
        let common: Vec<&String> = names.filter(|name| other.names.contains(name)).collect();
        ensure!(
            !common.is_empty(),
            "{}: answers no label that the other model answers",
            model.display()
        );
        let auroc = |scored: &Scored| {
            let predictions = scored.only(&common)?;
            let mean = |metrics: &Metrics| metrics.auroc_mean;
            anyhow::Ok(Resampled::of_metric(
                mean,
                &predictions,
                &scored.patients(),
                bootstrap,
            )?)
        };
        let (own, others) = (auroc(scored)?, auroc(&other)?);
        Ok(Self {
            model: model.to_owned(),
            labels: common.len(),
            auroc_mean: [own.value(), others.value()],
            difference: own.above(&others),
        })
    }

    fn print(&self) -> anyhow::Result<()> {
        let Difference {
            value,
            interval: range,
        } = self.difference;
        output::text(&format!(
            "mean AUROC of {} labels {}, of {} {}: {} above it ({})\n",
            self.labels,
            number(self.auroc_mean[0]),
            self.model.display(),
            number(self.auroc_mean[1]),
            number(value),
            interval(range),
        ))
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
    /// One for each name, if the model has any.
    thresholds: Option<Vec<f32>>,
    /// What it found, if it was asked to look for something.
    found: Option<RetrievalAnswers>,
}

impl Scored {
    /// Asks the model about every labelled scan of a data set, and with `retrieval` looks for what belongs together.
    pub(crate) fn new(
        detector: &Detector,
        data: &DataSet,
        retrieval: Option<(&ReportEmbedder, Candidates)>,
    ) -> anyhow::Result<Self> {
        let scans = LabelledScans::new(detector.names(), data)?;
        let progress = OnceLock::new();
        let answers = Answers::new(detector, data, retrieval, &|done, volumes| {
            progress
                .get_or_init(|| Progress::new("detecting", 0, volumes as u64))
                .set(done as u64, "");
        })?;
        if let Some(progress) = progress.get() {
            progress.finish();
        }
        let Answers {
            names,
            scores,
            labels,
            retrieval,
            ..
        } = answers;
        Ok(Self {
            thresholds: detector.thresholds().map(|all| scans.select(all)),
            samples: scans.samples,
            names,
            scores,
            labels,
            found: retrieval,
        })
    }

    /// Measures what was found.
    pub(crate) fn retrieval(&self, bootstrap: Bootstrap) -> anyhow::Result<Option<Retrieval>> {
        let found = self.found.as_ref();
        Ok(found
            .map(|found| Retrieval::new(found, bootstrap))
            .transpose()?)
    }

    /// Scores and labels side by side.
    pub(crate) fn predictions(&self) -> anyhow::Result<Predictions> {
        Ok(Predictions::new(
            self.names.clone(),
            self.scores.concat(),
            self.labels.concat(),
        )?)
    }

    /// The same for some of the labels.
    fn only(&self, names: &[&String]) -> anyhow::Result<Predictions> {
        let place = |name: &&String| self.names.iter().position(|own| own == *name);
        let places: Vec<usize> = names.iter().filter_map(place).collect();
        let scores = self.scores.iter();
        let labels = self.labels.iter();
        Ok(Predictions::new(
            places
                .iter()
                .map(|place| self.names[*place].clone())
                .collect(),
            scores
                .flat_map(|row| places.iter().map(move |place| row[*place]))
                .collect(),
            labels
                .flat_map(|row| places.iter().map(move |place| row[*place]))
                .collect(),
        )?)
    }

    fn patients(&self) -> Vec<&str> {
        let samples = self.samples.iter();
        samples.map(|sample| sample.patient.as_str()).collect()
    }

    /// Measures the scores.
    pub(crate) fn evaluate(
        &self,
        threshold: Threshold,
        bootstrap: Bootstrap,
    ) -> anyhow::Result<Evaluation> {
        let predictions = self.predictions()?;
        Ok(Evaluation::new(
            &predictions,
            &self.patients(),
            threshold,
            bootstrap,
        )?)
    }
}

fn number(value: Option<f64>) -> String {
    value.map_or("-".to_owned(), |value| format!("{value:.3}"))
}

fn interval(value: Option<Interval>) -> String {
    value.map_or(String::new(), |value| {
        format!("{:.3}-{:.3}", value.low, value.high)
    })
}

/// Prints the numbers of SPEC section 8.
pub(crate) fn print_retrieval(retrieval: &Retrieval) -> anyhow::Result<()> {
    let recalls = |name: &str, recalls: &[Recall]| {
        let row = |recall: &Recall| {
            vec![
                name.to_owned(),
                format!("recall@{}", recall.k),
                number(recall.value),
                interval(recall.interval),
                format!("{:.3}", retrieval.chance(recall.k)),
            ]
        };
        recalls.iter().map(row).collect::<Vec<_>>()
    };
    let agreements = retrieval.volume_to_volume.iter().map(|agreement| {
        vec![
            "volume to volume".to_owned(),
            format!("labels@{}", agreement.k),
            number(Some(agreement.value)),
            interval(agreement.interval),
            String::new(),
        ]
    });
    let mut rows = recalls("text to volume", &retrieval.text_to_volume);
    rows.extend(recalls("volume to text", &retrieval.volume_to_text));
    rows.extend(agreements);
    let headings = [
        ("retrieval", Align::Left),
        ("", Align::Left),
        ("value", Align::Right),
        ("95 %", Align::Left),
        ("a guess", Align::Right),
    ];
    output::text("\n")?;
    output::table(&headings, &rows)
}

/// Prints the numbers of SPEC section 7.
pub(crate) fn print_table(evaluation: &Evaluation) -> anyhow::Result<()> {
    let (metrics, intervals) = (&evaluation.metrics, &evaluation.intervals);
    let rows: Vec<Vec<String>> = evaluation
        .support
        .iter()
        .enumerate()
        .map(|(label, support)| {
            let mut row = vec![
                support.name.clone(),
                support.positive.to_string(),
                number(metrics.auroc[label]),
                interval(intervals.auroc[label]),
                number(metrics.average_precision[label]),
                number(metrics.f1[label]),
                number(metrics.accuracy_each[label]),
            ];
            if let Threshold::Each(thresholds) = &evaluation.threshold {
                row.push(format!("{:.3}", thresholds[label]));
            }
            row
        })
        .collect();
    let mut headings = vec![
        ("abnormality", Align::Left),
        ("positive", Align::Right),
        ("AUROC", Align::Right),
        ("95 %", Align::Left),
        ("AP", Align::Right),
        ("F1", Align::Right),
        ("accuracy", Align::Right),
    ];
    if matches!(evaluation.threshold, Threshold::Each(_)) {
        headings.push(("present from", Align::Right));
    }
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
