//! Labels in place of reports: what a run of fine-tuning learns (SPEC section 9).
//!
//! ```text
//! loss = -sum_ij c_ij log sigmoid(s_ij z_ij) / number of known labels
//! ```
//! over volumes `i` and labels `j`: `s` is 1 where a label is present, else -1; `c` is the label's negatives for each positive
//! there, else 1, and 0 where nobody knows. The logit `z` is the head's, or the difference of the scaled similarities with the
//! two prompts, whose sigmoid is the zero-shot probability.

mod head;

use std::collections::BTreeMap;
use std::ops::Range;

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData, activation};
use dcformer_volume::dataset::DataSet;

pub(super) use self::head::start_from_probe;
use super::augmentation::swap_sides;
use super::config::{RunConfig, TrainConfig};
use super::contrast::Contrast;
use super::data::Pairs;
use super::finetune::{FinetuneConfig, Method};
use super::optimizer::{ParameterGradients, backward};
use super::plan::Validation;
use super::stream;
use crate::checkpoint::Model;
use crate::detect::{Detector, LabelledScans, PromptLatents};
use crate::error::{Error, Result};
use crate::evaluate::{Predictions, Threshold};
use crate::finetune::{held_out_rows, positive_weights};
use crate::models::{ClassifierConfig, Clip, Statistics};
use crate::random::Random;
use crate::text::{Prompts, Tokenizer};

/// The labels of samples.
#[derive(Clone, Debug)]
pub(super) struct LabelTable {
    names: Vec<String>,
    /// What a positive of each counts.
    positive_weights: Vec<f32>,
    /// `[samples][names]`
    rows: Vec<Vec<Option<bool>>>,
}

impl LabelTable {
    /// What the loss of these samples needs.
    pub(super) fn batch(&self, indices: &[usize]) -> LabelBatch {
        let cells = indices
            .iter()
            .flat_map(|index| self.rows[*index].iter().zip(&self.positive_weights));
        let cell = |(label, positive_weight): (&Option<bool>, &f32)| match label {
            Some(true) => (1.0, *positive_weight),
            Some(false) => (-1.0, 1.0),
            None => (1.0, 0.0),
        };
        let (signs, weights): (Vec<f32>, Vec<f32>) = cells.map(cell).unzip();
        LabelBatch {
            shape: [indices.len(), self.names.len()],
            known: weights.iter().filter(|weight| **weight > 0.0).count(),
            signs,
            weights,
        }
    }

    /// Changes when a label does.
    pub(super) fn bytes(&self) -> impl Iterator<Item = u8> {
        let names = self.names.iter().flat_map(|name| name.bytes().chain([0]));
        let labels = self.rows.iter().flatten();
        names.chain(labels.map(|label| label.map_or(2, u8::from)))
    }
}

/// The labels of a batch.
#[derive(Debug)]
pub(super) struct LabelBatch {
    /// Volumes, labels.
    shape: [usize; 2],
    /// 1 for present, -1 for absent.
    signs: Vec<f32>,
    /// 0 for unknown.
    weights: Vec<f32>,
    known: usize,
}

/// Volumes and their labels.
pub(super) struct LabelledBatch<'a> {
    pub(super) labels: &'a LabelBatch,
    /// Gives some of the volumes, `[part, 1, depth, height, width]`, on the network's device: each part once, in order.
    pub(super) volumes: &'a mut dyn FnMut(Range<usize>) -> Result<Tensor<5>>,
    /// What dropout draws from; inference draws nothing.
    pub(super) dropout_seed: u64,
}

/// Volumes to learn from, and volumes of other patients.
pub(super) struct Split {
    pub(super) learnt: Pairs,
    pub(super) held_out: Pairs,
}

/// Divides the labelled volumes of a data set by patient, with the labels that are both present and absent in both parts.
///
/// # Errors
/// If nothing is labelled, or no label is left.
pub(super) fn split(
    data: &DataSet,
    finetune: &FinetuneConfig,
    config: &RunConfig,
) -> Result<Split> {
    let asked = match finetune.method {
        Method::Frozen | Method::Full => &data.label_names,
        Method::Vocabulary => &config.prompts.abnormalities,
    };
    let scans = LabelledScans::new(asked, data)?;
    let patients: Vec<&str> = scans.samples.iter().map(|s| s.patient.as_str()).collect();
    let is_held_out = held_out_rows(&patients, finetune.held_out, config.seed)?;
    let rows = |held: bool| {
        let rows = (0..is_held_out.len()).filter(|row| is_held_out[*row] == held);
        rows.collect::<Vec<usize>>()
    };
    let parts = [rows(false), rows(true)];
    let weights = parts.each_ref().map(|rows| {
        let labels = rows.iter().map(|row| &scans.labels[*row]);
        positive_weights(labels, scans.names.len())
    });
    let known: Vec<usize> = (0..scans.names.len())
        .filter(|label| weights.iter().all(|part| part[*label].is_some()))
        .collect();
    if known.is_empty() {
        return Err(Error::NoLearnableLabel {
            learnt: parts[0].len(),
            held_out: parts[1].len(),
        });
    }
    check_sides(
        known.iter().map(|label| scans.names[*label].as_str()),
        config,
    )?;
    let [learnt, held_out] = parts.map(|rows| {
        let labels = |row: &usize| {
            let labels = &scans.labels[*row];
            known.iter().map(|label| labels[*label]).collect()
        };
        let weight = |label: &usize| weights[0][*label].map(|weight| weight as f32);
        Pairs {
            samples: rows.iter().map(|row| scans.samples[*row].clone()).collect(),
            without_report: 0,
            labels: Some(LabelTable {
                names: known.iter().map(|l| scans.names[*l].clone()).collect(),
                positive_weights: known.iter().filter_map(weight).collect(),
                rows: rows.iter().map(labels).collect(),
            }),
        }
    });
    Ok(Split { learnt, held_out })
}

/// Refuses to mirror volumes whose labels name a side.
fn check_sides<'a>(mut names: impl Iterator<Item = &'a str>, config: &RunConfig) -> Result<()> {
    match names.find(|name| swap_sides(name) != *name) {
        Some(name) if config.train.mirror_left_right > 0.0 => Err(Error::RunField {
            field: "train.mirror_left_right",
            found: format!(
                "{} with the label \"{name}\"",
                config.train.mirror_left_right
            ),
            expected: "0, since a mirrored volume has it on the other side",
        }),
        _ => Ok(()),
    }
}

/// Gives a model without a head what its method needs.
///
/// # Errors
/// [`Error::MissingPart`]
pub(super) fn prepare(
    model: &mut Model,
    finetune: &FinetuneConfig,
    labels: &LabelTable,
    device: &Device,
) -> Result<()> {
    let missing = |part, remedy| Error::MissingPart { part, remedy };
    if finetune.method == Method::Vocabulary {
        model.clip.text_tower()?;
        if model.tokenizer.is_none() {
            return Err(missing("vocabulary", "put its vocab.txt into the folder"));
        }
        return Ok(());
    }
    let projection = model.config.clip.image.projection;
    let projection = projection.ok_or(missing(
        "projection to latents",
        "start from a model that was trained with text",
    ))?;
    let config = ClassifierConfig {
        labels: labels.names.clone(),
        latent: projection.outputs,
        dropout: finetune.dropout,
    };
    // Until the probe is known.
    let count = config.labels.len();
    let weights = vec![vec![0.0; config.latent]; count];
    let head = config.init(device);
    model.clip.classifier = Some(head.with_weights(&weights, &vec![0.0; count]));
    model.config.clip.classifier = Some(config);
    Ok(())
}

/// What a run of fine-tuning makes small.
pub(super) struct LabelObjective {
    method: Method,
    /// Parts in which a batch is encoded, each once, since the loss is a sum over volumes.
    pub(super) parts: Contrast,
    /// The image tower of a head that learns alone.
    frozen: Option<Clip>,
    /// Of the labels that are learnt.
    prompts: Prompts,
    /// For the prompts.
    tokenizer: Option<Tokenizer>,
    /// Where `frozen` computes.
    device: Device,
}

impl LabelObjective {
    pub(super) fn new(
        finetune: &FinetuneConfig,
        train: &TrainConfig,
        model: &Model,
        labels: &LabelTable,
        device: &Device,
    ) -> Self {
        Self {
            method: finetune.method,
            parts: Contrast::of(train),
            frozen: (finetune.method == Method::Frozen).then(|| model.clip.clone().valid()),
            prompts: Prompts {
                abnormalities: labels.names.clone(),
                ..model.config.prompts.clone()
            },
            tokenizer: model.tokenizer.clone(),
            device: device.clone(),
        }
    }

    /// The loss of a batch.
    ///
    /// # Errors
    /// If volumes cannot be had, or the model cannot encode them.
    pub(super) fn loss(&self, clip: &Clip, batch: &mut LabelledBatch<'_>) -> Result<f64> {
        self.parts(clip, batch, Statistics::ByDevice, &mut |_| {})
    }

    /// Adds the gradients of the loss of a batch, times `factor`, and gives the loss.
    ///
    /// # Errors
    /// As [`loss`](Self::loss).
    pub(super) fn add_gradients(
        &self,
        clip: &Clip,
        batch: &mut LabelledBatch<'_>,
        factor: f32,
        gradients: &mut ParameterGradients,
    ) -> Result<f64> {
        self.parts(clip, batch, self.parts.moving(), &mut |loss| {
            gradients.add(clip, &backward(loss), factor);
        })
    }

    /// The loss, summed over the parts; `each` is given what a finite one contributes.
    fn parts(
        &self,
        clip: &Clip,
        batch: &mut LabelledBatch<'_>,
        statistics: Statistics,
        each: &mut dyn FnMut(Tensor<1>),
    ) -> Result<f64> {
        let mut sum = 0.0;
        for (index, part) in self.parts.parts(batch.labels.shape[0]).enumerate() {
            let volumes = (batch.volumes)(part.clone())?;
            let seed = Random::new(batch.dropout_seed, "labels of a part", index as u64).bits();
            stream::start(&volumes.device(), seed);
            let logits = self.logits(clip, volumes, statistics)?;
            let loss = batch.labels.loss(logits, part);
            sum += f64::from(loss.clone().into_scalar::<f32>());
            if !sum.is_finite() {
                break;
            }
            each(loss);
        }
        Ok(sum)
    }

    /// # Shapes
    /// - `volumes`: `[volumes, 1, depth, height, width]`; output: `[volumes, labels]`
    fn logits(&self, clip: &Clip, volumes: Tensor<5>, statistics: Statistics) -> Result<Tensor<2>> {
        let missing = |part, remedy| Error::MissingPart { part, remedy };
        let device = volumes.device();
        let latents = match &self.frozen {
            None => clip.encode_image_with(volumes, statistics)?,
            Some(frozen) => {
                // Without a graph: nothing below the head learns.
                let volumes = Tensor::from_data(volumes.into_data(), &self.device);
                Tensor::from_data(frozen.encode_image(volumes)?.into_data(), &device)
            }
        };
        if self.method != Method::Vocabulary {
            let remedy = "start the run anew";
            let head = clip.classifier.as_ref().ok_or(missing("head", remedy))?;
            return Ok(head.logits(latents));
        }
        let tokenizer = self.tokenizer.as_ref();
        let tokenizer = tokenizer.ok_or(missing("vocabulary", "put its vocab.txt back"))?;
        let prompts = PromptLatents::encode(clip, tokenizer, &self.prompts)?;
        let difference = latents.matmul((prompts.present - prompts.absent).transpose());
        Ok(difference * clip.logit_scale.scale(&device).unsqueeze_dim(0))
    }
}

impl LabelBatch {
    /// What some of the volumes contribute to the loss of the module's description.
    ///
    /// # Shapes
    /// - `logits`: `[part, labels]`; output: `[1]`
    fn loss(&self, logits: Tensor<2>, part: Range<usize>) -> Tensor<1> {
        let device = logits.device();
        let [_, labels] = self.shape;
        let tensor = |values: &[f32]| {
            let values = values[part.start * labels..part.end * labels].to_vec();
            Tensor::<2>::from_data(TensorData::new(values, [part.len(), labels]), &device)
        };
        let signed = logits * tensor(&self.signs);
        let losses = activation::log_sigmoid(signed) * tensor(&self.weights);
        losses.sum() * (-1.0 / self.known.max(1) as f64)
    }
}

/// Of each label the threshold that suits the volumes held out.
///
/// # Errors
/// If a volume cannot be read, or the model cannot answer.
pub(super) fn thresholds(
    model: &Model,
    held_out: &Validation,
    config: &RunConfig,
    device: &Device,
) -> Result<BTreeMap<String, f32>> {
    let Some(labels) = &held_out.pairs.labels else {
        return Ok(BTreeMap::new());
    };
    let detector = Detector::new(model, device)?;
    let asked = |name: &String| detector.names().iter().position(|other| other == name);
    let columns: Vec<usize> = labels.names.iter().filter_map(asked).collect();
    let shape = config.preprocess.shape;
    let mut scores = Vec::new();
    for batch in held_out.batches(config) {
        let volumes = batch.volumes(&held_out.volumes, 0..batch.len())?;
        let shape = [batch.len(), 1, shape.depth, shape.height, shape.width];
        for answers in detector.probabilities(volumes, shape)? {
            scores.extend(columns.iter().map(|column| answers[*column]));
        }
    }
    let predictions = Predictions::new(labels.names.clone(), scores, labels.rows.concat())?;
    let Threshold::Each(thresholds) = Threshold::choose(&predictions) else {
        unreachable!("each label has its own");
    };
    Ok(labels.names.iter().cloned().zip(thresholds).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loss_is_that_of_pytorch_with_positive_weights_and_unknown_labels_count_nowhere() {
        let table = LabelTable {
            names: vec!["a".to_owned(), "b".to_owned()],
            positive_weights: vec![3.0, 0.5],
            rows: vec![
                vec![Some(true), Some(false)],
                vec![None, Some(true)],
                vec![Some(false), None],
            ],
        };
        let batch = table.batch(&[0, 1]);
        assert_eq!(batch.known, 3);
        let logits = || Tensor::from_data([[0.7, -1.2], [5.0, 0.3]], &Device::flex());
        let loss = |part: Range<usize>| {
            let loss = batch.loss(logits().slice(part.clone()), part);
            f64::from(loss.into_scalar::<f32>())
        };
        // BCEWithLogitsLoss(pos_weight) of the three known cells, by its formula.
        let softplus = |x: f64| x.exp().ln_1p();
        let expected = (3.0 * softplus(-0.7) + softplus(-1.2) + 0.5 * softplus(-0.3)) / 3.0;
        for found in [loss(0..2), loss(0..1) + loss(1..2)] {
            assert!((found - expected).abs() < 1e-6, "{found} is not {expected}");
        }
    }

    #[test]
    fn another_label_is_another_run() {
        let table = |label| LabelTable {
            names: vec!["a".to_owned()],
            positive_weights: vec![1.0],
            rows: vec![vec![label]],
        };
        let bytes =
            [Some(true), Some(false), None].map(|label| table(label).bytes().collect::<Vec<_>>());
        assert!(bytes[0] != bytes[1] && bytes[1] != bytes[2] && bytes[0] != bytes[2]);
    }
}
