//! How a run learns from labels: part of its configuration.

use serde::{Deserialize, Serialize};

use super::config::RunConfig;
use crate::error::{Error, Result};
use crate::finetune::HELD_OUT;

/// What a run learns from labels, and when it ends (SPEC section 9).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FinetuneConfig {
    /// Which part of the model learns.
    pub method: Method,
    /// Share of the training patients that nothing is learnt from: end and thresholds are chosen on them.
    #[serde(default = "held_out")]
    pub held_out: f64,
    /// Measurements of their loss in a row without a lower one after which the run ends; the model of the lowest is kept.
    #[serde(default = "patience")]
    pub patience: usize,
    /// Share of the latent's numbers that a step leaves out, before the head.
    #[serde(default)]
    pub dropout: f64,
}

const fn held_out() -> f64 {
    HELD_OUT
}

const fn patience() -> usize {
    5
}

/// Which part of a model learns from labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// A head on the latents, which stay as they are.
    Frozen,
    /// A head and the image tower below it.
    Full,
    /// Both towers, and no head: the image is drawn to the prompt of each label that is true, present or absent, away from the
    /// other one (CT-CLIP's `VocabFine`). The model can still be asked in other words.
    Vocabulary,
}

impl FinetuneConfig {
    /// A method with the defaults of a configuration.
    pub const fn new(method: Method) -> Self {
        Self {
            method,
            held_out: held_out(),
            patience: patience(),
            dropout: 0.0,
        }
    }

    /// Refuses what cannot be carried out in this run, naming the field.
    pub(super) fn check(&self, run: &RunConfig) -> Result<()> {
        let wrong = |field, found: String, expected| {
            Err(Error::RunField {
                field,
                found,
                expected,
            })
        };
        if run.model.start.is_none() {
            let expected = "absent, or a model to start from as `model.start`";
            return wrong("finetune", format!("{:?}", self.method), expected);
        }
        if !(self.held_out > 0.0 && self.held_out < 1.0) {
            let found = self.held_out.to_string();
            return wrong("finetune.held_out", found, "above 0 and below 1");
        }
        if self.patience == 0 {
            return wrong("finetune.patience", "0".to_owned(), "at least 1");
        }
        if !(0.0..1.0).contains(&self.dropout) {
            let found = self.dropout.to_string();
            return wrong("finetune.dropout", found, "0 to below 1");
        }
        Ok(())
    }
}
