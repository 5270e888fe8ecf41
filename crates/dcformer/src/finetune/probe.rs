//! The linear probe: a head for each label on latents that lie in a file (SPEC section 9).
//!
//! Each label is a convex problem, so its optimum is found rather than approached, and neither order, seed nor threads
//! change it. What dropout and an early end do for a head that is trained step by step, a penalty on the weights does here:
//! from the strongest one on it is lowered for as long as the loss of the patients held out falls.

use burn::tensor::Device;
use dcformer_volume::ct_rate::Split;
use rayon::prelude::*;
use serde::Serialize;

use super::logistic::{Line, Rows, sigmoid};
use super::{HELD_OUT, held_out_rows, positive_weights};
use crate::checkpoint::Model;
use crate::error::{Error, Result};
use crate::evaluate::{Metrics, Predictions, Threshold};
use crate::latents::LatentFile;
use crate::models::{Classifier, ClassifierConfig};

/// The strongest penalty, of weights of features with a variance of 1: hardly more than the difference of the classes' means.
const STRONGEST: f64 = 10.0;
/// Each penalty divided by the one before.
const RATIO: f64 = 0.316_227_766_016_837_94;
/// Penalties that are tried at most, the last one 1e-5.
const PENALTIES: usize = 13;
/// Penalties in a row without a lower loss after which weaker ones are not tried.
const PATIENCE: usize = 2;

/// Latents with labels.
#[derive(Clone, Debug, PartialEq)]
pub struct Examples {
    /// `[rows][width]`
    pub latents: Vec<f32>,
    /// Numbers of a latent.
    pub width: usize,
    /// Names of the labels.
    pub label_names: Vec<String>,
    /// `[rows][label_names]`
    pub labels: Vec<Vec<Option<bool>>>,
    /// Of each row whose scan it is.
    pub patients: Vec<String>,
}

impl Examples {
    /// The rows of a file that have a label and belong to the training split, or to none: what a model is measured on later
    /// has no part in its making.
    ///
    /// # Errors
    /// [`Error::NoLabelledLatent`], or if the file is damaged.
    pub fn read(file: &LatentFile) -> Result<Self> {
        let width = file.provenance().width;
        let all = file.read_latents()?;
        let rows: Vec<usize> = (0..file.rows()).collect();
        let mut examples = Self {
            latents: Vec::new(),
            width,
            label_names: file.labels().map(str::to_owned).collect(),
            labels: Vec::new(),
            patients: Vec::new(),
        };
        for (row, entry) in file.read_entries(&rows)?.into_iter().enumerate() {
            let is_training = entry
                .split
                .as_deref()
                .is_none_or(|split| split == Split::Train.name());
            if is_training && entry.labels.iter().any(Option::is_some) {
                let latent = &all[row * width..][..width];
                examples.latents.extend_from_slice(latent);
                examples.labels.push(entry.labels);
                examples.patients.push(entry.patient);
            }
        }
        if examples.labels.is_empty() {
            return Err(Error::NoLabelledLatent {
                path: file.path().to_owned(),
            });
        }
        Ok(examples)
    }

    /// Some of the rows.
    fn filter(&self, keep: impl Fn(usize) -> bool) -> Self {
        let rows: Vec<usize> = (0..self.labels.len()).filter(|row| keep(*row)).collect();
        let latent = |row: &usize| &self.latents[row * self.width..][..self.width];
        Self {
            latents: rows.iter().flat_map(latent).copied().collect(),
            width: self.width,
            label_names: self.label_names.clone(),
            labels: rows.iter().map(|row| self.labels[*row].clone()).collect(),
            patients: rows.iter().map(|row| self.patients[*row].clone()).collect(),
        }
    }

    fn column(&self, label: usize) -> Vec<Option<bool>> {
        self.labels.iter().map(|labels| labels[label]).collect()
    }
}

/// How a [`LinearProbe`] is fitted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ProbeOptions {
    /// Share of the patients that penalty and threshold are chosen on.
    pub held_out: f64,
    /// Draws them.
    pub seed: u64,
}

impl Default for ProbeOptions {
    fn default() -> Self {
        Self {
            held_out: HELD_OUT,
            seed: 0,
        }
    }
}

/// What was found for a label.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FittedLabel {
    /// Its name.
    pub name: String,
    /// Volumes with it that it was learnt from.
    pub positives: usize,
    /// Volumes without it that it was learnt from.
    pub negatives: usize,
    /// The penalty that was chosen.
    pub penalty: f64,
    /// From which probability on it counts as present: the point of the held-out patients' ROC curve nearest to the corner.
    pub threshold: f32,
    /// Area under that curve.
    pub held_out_auroc: Option<f64>,
}

/// A head that was fitted to latents.
#[derive(Clone, Debug, PartialEq)]
pub struct LinearProbe {
    /// The labels that could be learnt.
    pub labels: Vec<FittedLabel>,
    /// Names of labels of which one class is missing, among the volumes to learn from or those held out.
    pub left_out: Vec<String>,
    /// Volumes to learn from.
    pub learnt: usize,
    /// Volumes held out.
    pub held_out: usize,
    /// `[labels][width]`
    weights: Vec<Vec<f32>>,
    /// One a label.
    biases: Vec<f32>,
    width: usize,
}

impl LinearProbe {
    /// Fits a head. The result is the same on any number of threads.
    ///
    /// # Errors
    /// [`Error::HeldOut`], or [`Error::NoLearnableLabel`] if no label is both present and absent in both parts.
    ///
    /// # Panics
    /// If rows, labels and latents are not as many as the examples say.
    pub fn fit(examples: &Examples, options: &ProbeOptions) -> Result<Self> {
        let rows = examples.labels.len();
        assert_eq!(examples.latents.len(), rows * examples.width);
        let is_held_out = held_out_rows(&examples.patients, options.held_out, options.seed)?;
        let learnt = examples.filter(|row| !is_held_out[row]);
        let held_out = examples.filter(|row| is_held_out[row]);
        let names = &examples.label_names;
        let weights = positive_weights(&learnt.labels, names.len());
        let to_measure = positive_weights(&held_out.labels, names.len());
        let (known, unknown): (Vec<usize>, Vec<usize>) = (0..names.len())
            .partition(|label| weights[*label].is_some() && to_measure[*label].is_some());
        if known.is_empty() {
            return Err(Error::NoLearnableLabel {
                learnt: learnt.labels.len(),
                held_out: held_out.labels.len(),
            });
        }
        let scale = Scale::of(&learnt);
        let features = [&learnt, &held_out].map(|part| scale.features(part));
        let fitted: Vec<Fitted> = known
            .par_iter()
            .map(|&label| {
                let truths = [&learnt, &held_out].map(|part| part.column(label));
                let weight = weights[label].expect("labels that are known have both classes");
                let rows = |part: usize| Rows {
                    features: &features[part],
                    width: examples.width,
                    truths: &truths[part],
                    positive_weight: weight,
                };
                Fitted::new(&names[label], rows(0), rows(1))
            })
            .collect::<Result<_>>()?;
        let line = |fitted: &Fitted| scale.undo(&fitted.line);
        let (weights, biases) = fitted.iter().map(line).unzip();
        Ok(Self {
            labels: fitted.into_iter().map(|fitted| fitted.label).collect(),
            left_out: unknown.iter().map(|label| names[*label].clone()).collect(),
            learnt: learnt.labels.len(),
            held_out: held_out.labels.len(),
            weights,
            biases,
            width: examples.width,
        })
    }

    /// A head for the same labels with the probe's weights.
    ///
    /// # Panics
    /// If it is for other numbers of labels or latents.
    pub(crate) fn head(&self, head: Classifier) -> Classifier {
        head.with_weights(&self.weights, &self.biases)
    }

    /// The model with this head and its thresholds; the rest stays as it is.
    ///
    /// # Panics
    /// If the model's latents are of another length.
    #[must_use]
    pub fn apply(&self, mut model: Model, device: &Device) -> Model {
        let outputs = model.config.clip.image.projection.map(|own| own.outputs);
        assert_eq!(
            outputs,
            Some(self.width),
            "the model has no latents of this length"
        );
        let config = ClassifierConfig {
            labels: self.labels.iter().map(|label| label.name.clone()).collect(),
            latent: self.width,
            dropout: 0.0,
        };
        model.clip.classifier = Some(self.head(config.init(device)));
        model.config.clip.classifier = Some(config);
        let thresholds = self.labels.iter().map(|l| (l.name.clone(), l.threshold));
        model.config.thresholds = thresholds.collect();
        model
    }
}

/// Positive parts of latents are multiplied by this, so that a penalty means the same for latents of any length.
struct Scale(f32);

impl Scale {
    /// The mean variance of the numbers becomes 1.
    fn of(examples: &Examples) -> Self {
        let (width, rows) = (examples.width, examples.labels.len() as f64);
        let mut sums = vec![[0.0f64; 2]; width];
        for latent in examples.latents.chunks_exact(width) {
            for (sums, value) in sums.iter_mut().zip(latent) {
                let value = f64::from(value.max(0.0));
                sums[0] += value;
                sums[1] += value * value;
            }
        }
        let variance = |[sum, squares]: &[f64; 2]| (squares - sum * sum / rows).max(0.0) / rows;
        let mean = sums.iter().map(variance).sum::<f64>() / width as f64;
        // All latents alike: any scale is as good.
        Self(if mean > 0.0 {
            mean.sqrt().recip() as f32
        } else {
            1.0
        })
    }

    /// `[rows][width]`
    fn features(&self, examples: &Examples) -> Vec<f32> {
        let values = examples.latents.iter();
        values.map(|value| value.max(0.0) * self.0).collect()
    }

    /// Weights of unscaled numbers, and the bias.
    fn undo(&self, line: &Line) -> (Vec<f32>, f32) {
        let (bias, weights) = line.coefficients.split_last().expect("a bias");
        let unscaled = |weight: &f64| (weight * f64::from(self.0)) as f32;
        (weights.iter().map(unscaled).collect(), *bias as f32)
    }
}

struct Fitted {
    label: FittedLabel,
    line: Line,
}

impl Fitted {
    fn new(name: &str, learnt: Rows<'_>, held_out: Rows<'_>) -> Result<Self> {
        let (line, penalty) = best_line(&learnt, &held_out);
        let rows = held_out.features.chunks_exact(held_out.width);
        let scores = rows.map(|row| sigmoid(line.logit(row)) as f32).collect();
        let predictions =
            Predictions::new(vec![name.to_owned()], scores, held_out.truths.to_vec())?;
        let threshold = Threshold::choose(&predictions);
        let metrics = Metrics::new(&predictions, &threshold)?;
        let count = |present| {
            let same = learnt
                .truths
                .iter()
                .filter(|truth| **truth == Some(present));
            same.count()
        };
        let label = FittedLabel {
            name: name.to_owned(),
            positives: count(true),
            negatives: count(false),
            penalty,
            threshold: match threshold {
                Threshold::Each(each) => each[0],
                Threshold::Half | Threshold::RocCorner => unreachable!("each label has its own"),
            },
            held_out_auroc: metrics.auroc_mean,
        };
        Ok(Self { label, line })
    }
}

/// The line of the penalty with the least loss on the rows held out, and that penalty.
fn best_line(learnt: &Rows<'_>, held_out: &Rows<'_>) -> (Line, f64) {
    let mut penalty = STRONGEST;
    let mut line = learnt.fit(penalty, &Line::flat(learnt.width));
    let mut best = (line.clone(), penalty, held_out.loss(&line));
    let mut without = 0;
    for _ in 1..PENALTIES {
        penalty *= RATIO;
        // The line of the stronger penalty is near.
        line = learnt.fit(penalty, &line);
        let loss = held_out.loss(&line);
        if loss < best.2 {
            best = (line.clone(), penalty, loss);
            without = 0;
        } else {
            without += 1;
            if without == PATIENCE {
                break;
            }
        }
    }
    (best.0, best.1)
}
