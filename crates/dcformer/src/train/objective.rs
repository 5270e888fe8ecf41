//! What a run makes small: the contrast of pairs, or the loss of labels.

use std::ops::Range;

use burn::tensor::Tensor;

use super::contrast::{Contrast, PairBatch};
use super::labels::{LabelObjective, LabelledBatch};
use super::optimizer::ParameterGradients;
use super::plan::Truth;
use crate::error::Result;
use crate::models::{Clip, TextBatch};
use crate::text::Tokenizer;

/// The loss of a run.
pub(super) enum Objective {
    /// Scans and reports find each other.
    Pairs {
        contrast: Contrast,
        tokenizer: Box<Tokenizer>,
    },
    /// Fine-tuning.
    Labels(Box<LabelObjective>),
}

/// A batch as a loss takes it.
pub(super) struct Given<'a> {
    pub(super) truth: &'a Truth,
    /// How many volumes there are.
    pub(super) count: usize,
    /// Gives those that [`Objective::requests`] lists, in that order.
    pub(super) volumes: &'a mut dyn FnMut(Range<usize>) -> Result<Tensor<5>>,
    /// What dropout draws from; inference draws nothing.
    pub(super) dropout_seed: u64,
}

impl Objective {
    /// Of a batch of so many volumes the parts that its gradients ask for, in order: what is to be prepared.
    pub(super) fn requests(&self) -> impl Fn(usize) -> Vec<Range<usize>> + Send + use<> {
        let (contrast, by_pairs) = match self {
            Self::Pairs { contrast, .. } => (*contrast, true),
            Self::Labels(labels) => (labels.parts, false),
        };
        move |volumes| {
            if by_pairs {
                contrast.requests(volumes).collect()
            } else {
                contrast.parts(volumes).collect()
            }
        }
    }

    /// The loss of a batch.
    ///
    /// # Errors
    /// If volumes cannot be had, or the model cannot encode them.
    pub(super) fn loss(&self, clip: &Clip, mut given: Given<'_>) -> Result<f64> {
        match self {
            Self::Pairs {
                contrast,
                tokenizer,
            } => {
                let texts = tokenizer.encode_batch(given.texts())?;
                contrast.loss(clip, &mut given.pairs(&texts))
            }
            Self::Labels(objective) => objective.loss(clip, &mut given.labelled()),
        }
    }

    /// Adds the gradients of the loss of a batch, times `factor`, and gives the loss; once that is not finite, no more are
    /// added.
    ///
    /// # Errors
    /// As [`loss`](Self::loss).
    pub(super) fn add_gradients(
        &self,
        clip: &Clip,
        mut given: Given<'_>,
        factor: f32,
        gradients: &mut ParameterGradients,
    ) -> Result<f64> {
        match self {
            Self::Pairs {
                contrast,
                tokenizer,
            } => {
                let texts = tokenizer.encode_batch(given.texts())?;
                contrast.add_gradients(clip, &mut given.pairs(&texts), factor, gradients)
            }
            Self::Labels(objective) => {
                objective.add_gradients(clip, &mut given.labelled(), factor, gradients)
            }
        }
    }
}

/// Why a batch always suits its objective.
const MIXED: &str = "samples have labels in fine-tuning, and there only";

impl<'a> Given<'a> {
    fn texts(&self) -> &'a [String] {
        match self.truth {
            Truth::Texts(texts) => texts,
            Truth::Labels(_) => unreachable!("{MIXED}"),
        }
    }

    fn pairs<'b>(&'b mut self, texts: &'b TextBatch) -> PairBatch<'b> {
        PairBatch {
            pairs: self.count,
            texts,
            volumes: &mut *self.volumes,
            dropout_seed: self.dropout_seed,
        }
    }

    fn labelled(self) -> LabelledBatch<'a> {
        let Truth::Labels(labels) = self.truth else {
            unreachable!("{MIXED}");
        };
        LabelledBatch {
            labels,
            volumes: self.volumes,
            dropout_seed: self.dropout_seed,
        }
    }
}
