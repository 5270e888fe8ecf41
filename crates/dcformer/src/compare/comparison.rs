//! From what was measured of each encoder to numbers side by side.

use serde::Serialize;

use super::{Budget, EncoderName, Inference, Measured, Request, Trained};
use crate::answers::Answers;
use crate::complexity::{PAPER_VOLUME, Shape3};
use crate::error::{Error, Result};
use crate::evaluate::retrieval::{Retrieval, RetrievalAnswers};
use crate::evaluate::{
    Bootstrap, Difference, Evaluation, Interval, Metrics, Predictions, Resampled, Support,
    Threshold,
};
use crate::models::clip::LATENT;
use crate::train::ModelChoice;

/// The K of the recall whose differences are stated: the smallest that a model of a demonstration's size can reach.
pub(crate) const RECALL_COMPARED_AT: usize = 10;

/// An encoder with everything that was measured of it.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Which, and how it was trained.
    pub request: Request,
    /// What training took.
    pub trained: Trained,
    /// What it said and how fast.
    pub measured: Measured,
}

/// All encoders side by side; the form of `comparison.json`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// Version of the program.
    pub version: &'static str,
    /// Seed of scans, weights, order and texts.
    pub seed: u64,
    /// Voxels of a volume.
    pub volume: Shape3,
    /// How long each encoder was trained.
    pub budget: Budget,
    /// Labelled volumes that were measured.
    pub volumes: usize,
    /// Patients they are of.
    pub patients: usize,
    /// What is known of each abnormality.
    pub support: Vec<Support>,
    /// How intervals were found.
    pub bootstrap: Bootstrap,
    /// The encoders, in the order asked for.
    pub encoders: Vec<Compared>,
    /// Encoders that came to no result.
    pub failures: Vec<Failure>,
    /// Every pair of encoders.
    pub differences: Vec<Pair>,
}

/// One encoder's numbers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Compared {
    /// Which.
    #[serde(flatten)]
    pub encoder: EncoderName,
    /// What it costs by count.
    pub cost: Cost,
    /// How good its answers are.
    pub detection: Detection,
    /// How well it finds what belongs together.
    pub retrieval: Option<Retrieval>,
    /// What training took here.
    pub training: Trained,
    /// How fast it is here.
    pub inference: Inference,
}

/// What an encoder costs by count.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cost {
    /// Learnt parameters of the encoder.
    pub params: u64,
    /// The same with the projection to the latent, as this run has it.
    pub params_with_projection: u64,
    /// Multiply-adds of one volume of the comparison, in units of 10^9.
    pub gmacs: f64,
    /// Those of one volume of the paper's size, 512 x 512 x 256, if it can be taken.
    pub gmacs_of_paper_volume: Option<f64>,
    /// Grid of the last features.
    pub grid: Shape3,
}

impl Cost {
    /// Counts an encoder for volumes of this size.
    ///
    /// # Errors
    /// [`Error::VolumeSize`] if it cannot take them.
    pub fn of(model: &ModelChoice, volume: Shape3) -> Result<Self> {
        let config = model.encoder()?;
        let grid = config.grid(volume)?;
        let cost = config.cost(volume);
        let reduction = model.reduction.unwrap_or(config.reduction());
        let projection = reduction.values(grid, config.features()) * LATENT;
        let paper = config.grid(PAPER_VOLUME).ok();
        Ok(Self {
            params: cost.total().params,
            params_with_projection: cost.total().params + projection as u64,
            gmacs: cost.gmacs(),
            gmacs_of_paper_volume: paper.map(|_| config.cost(PAPER_VOLUME).gmacs()),
            grid,
        })
    }
}

/// How good an encoder's answers are (SPEC section 7).
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Detection {
    /// The numbers.
    pub metrics: Metrics,
    /// Their 95 % intervals.
    pub intervals: Metrics<Option<Interval>>,
}

/// An encoder that came to no result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// Which.
    #[serde(flatten)]
    pub encoder: EncoderName,
    /// Why.
    pub reason: String,
}

/// How far the first of two encoders is above the second.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Pair {
    /// One encoder.
    pub first: EncoderName,
    /// The other.
    pub second: EncoderName,
    /// Of the mean AUROC.
    pub auroc_mean: Difference,
    /// Of the mean average precision.
    pub average_precision_mean: Difference,
    /// Of the recall of volumes by their reports, at 10.
    pub text_to_volume_recall_at_10: Option<Difference>,
    /// Of the recall of reports by their volumes, at 10.
    pub volume_to_text_recall_at_10: Option<Difference>,
}

/// What differences are taken of.
struct Resamples {
    auroc_mean: Resampled,
    average_precision_mean: Resampled,
    text_to_volume: Option<Resampled>,
    volume_to_text: Option<Resampled>,
}

impl Comparison {
    /// Puts encoders side by side that were measured on the same volumes. At least one must have come to a result.
    ///
    /// # Errors
    /// If they were measured on different volumes, or an encoder cannot take volumes of this size.
    ///
    /// # Panics
    /// Without an entry.
    pub fn new(
        entries: Vec<Entry>,
        failures: Vec<Failure>,
        (seed, volume, budget): (u64, Shape3, Budget),
        bootstrap: Bootstrap,
    ) -> Result<Self> {
        let first = entries.first().expect("there is an encoder to compare");
        for other in &entries[1..] {
            let same = |a: &Answers, b: &Answers| {
                a.volumes == b.volumes && a.names == b.names && a.labels == b.labels
            };
            if !same(&first.measured.answers, &other.measured.answers) {
                return Err(Error::NotComparable {
                    first: first.request.encoder.to_string(),
                    second: other.request.encoder.to_string(),
                });
            }
        }
        let (mut encoders, mut resamples, mut whole) = (Vec::new(), Vec::new(), None);
        for entry in entries {
            let answers = &entry.measured.answers;
            let predictions = predictions(answers)?;
            let patients = &answers.patients;
            let evaluation = Evaluation::new(&predictions, patients, Threshold::Half, bootstrap)?;
            resamples.push(Resamples::new(answers, &predictions, bootstrap)?);
            encoders.push(Compared {
                cost: Cost::of(&entry.request.config.model, volume)?,
                detection: Detection {
                    metrics: evaluation.metrics.clone(),
                    intervals: evaluation.intervals.clone(),
                },
                retrieval: match &answers.retrieval {
                    Some(found) => Some(Retrieval::new(found, bootstrap)?),
                    None => None,
                },
                encoder: entry.request.encoder,
                training: entry.trained,
                inference: entry.measured.inference,
            });
            whole.get_or_insert(evaluation);
        }
        let whole = whole.expect("there is an encoder to compare");
        Ok(Self {
            version: env!("CARGO_PKG_VERSION"),
            seed,
            volume,
            budget,
            volumes: whole.volumes,
            patients: whole.patients,
            support: whole.support,
            bootstrap,
            differences: differences(&encoders, &resamples),
            encoders,
            failures,
        })
    }

    /// The encoders from the best mean AUROC to the worst.
    pub fn ranked(&self) -> Vec<&Compared> {
        let mut ranked: Vec<&Compared> = self.encoders.iter().collect();
        let auroc = |compared: &Compared| compared.detection.metrics.auroc_mean.unwrap_or(0.0);
        ranked.sort_by(|a, b| auroc(b).total_cmp(&auroc(a)));
        ranked
    }

    /// How far the mean AUROC of one encoder is above another's; `None` for an encoder and itself.
    pub fn auroc_difference(
        &self,
        first: &EncoderName,
        second: &EncoderName,
    ) -> Option<Difference> {
        self.differences.iter().find_map(|pair| {
            if (&pair.first, &pair.second) == (first, second) {
                Some(pair.auroc_mean)
            } else if (&pair.first, &pair.second) == (second, first) {
                Some(pair.auroc_mean.reversed())
            } else {
                None
            }
        })
    }
}

fn predictions(answers: &Answers) -> Result<Predictions> {
    Predictions::new(
        answers.names.clone(),
        answers.scores.concat(),
        answers.labels.concat(),
    )
}

impl Resamples {
    fn new(answers: &Answers, predictions: &Predictions, bootstrap: Bootstrap) -> Result<Self> {
        let metric = |metric: fn(&Metrics) -> Option<f64>| {
            Resampled::of_metric(metric, predictions, &answers.patients, bootstrap)
        };
        let recall = |ranks: fn(&RetrievalAnswers) -> &[usize]| {
            let found = answers.retrieval.as_ref();
            let found = found.filter(|found| found.patients.len() > RECALL_COMPARED_AT);
            let of = |found: &RetrievalAnswers| {
                let ranks = ranks(found);
                Resampled::of_recall(RECALL_COMPARED_AT, ranks, &found.patients, bootstrap)
            };
            found.map(of).transpose()
        };
        Ok(Self {
            auroc_mean: metric(|metrics| metrics.auroc_mean)?,
            average_precision_mean: metric(|metrics| metrics.average_precision_mean)?,
            text_to_volume: recall(|found| &found.text_to_volume)?,
            volume_to_text: recall(|found| &found.volume_to_text)?,
        })
    }
}

fn differences(encoders: &[Compared], resamples: &[Resamples]) -> Vec<Pair> {
    let between =
        |a: &Option<Resampled>, b: &Option<Resampled>| Some(a.as_ref()?.above(b.as_ref()?));
    let mut pairs = Vec::new();
    for (first, a) in resamples.iter().enumerate() {
        for (second, b) in resamples.iter().enumerate().skip(first + 1) {
            pairs.push(Pair {
                first: encoders[first].encoder.clone(),
                second: encoders[second].encoder.clone(),
                auroc_mean: a.auroc_mean.above(&b.auroc_mean),
                average_precision_mean: a.average_precision_mean.above(&b.average_precision_mean),
                text_to_volume_recall_at_10: between(&a.text_to_volume, &b.text_to_volume),
                volume_to_text_recall_at_10: between(&a.volume_to_text, &b.volume_to_text),
            });
        }
    }
    pairs
}
