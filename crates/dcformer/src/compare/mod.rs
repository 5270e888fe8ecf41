//! Encoders compared: trained on the same pairs with the same budget, measured on the same volumes.
//!
//! ```text
//! Request        what a run is to be                      kept in the run's folder, so that it is done once
//!   │  train::train
//! Trained        what training took
//!   │  Subject::{time, answer}
//! Measured       what the model said of every volume
//!   │  Comparison::new, of all encoders
//! Comparison     numbers, intervals, costs, differences   to JSON, tables, and `report::ComparisonReport`
//! ```

mod comparison;
mod measure;
mod table;

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub use comparison::{Compared, Comparison, Cost, Detection, Entry, Failure, Pair};
pub use measure::{Inference, Measured, Subject};

use crate::checkpoint::{json_text, write_file};
use crate::complexity::Shape3;
use crate::error::{Error, Result};
use crate::models::{ImageEncoderConfig, Preset, preset};
use crate::train::{Pairs, RunConfig, StepReport, TrainConfig};

/// Which encoder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EncoderName {
    /// The network, as `dcformer complexity` lists it.
    pub model: String,
    /// Its size.
    pub variant: String,
}

impl EncoderName {
    /// Its sizes.
    ///
    /// # Errors
    /// [`Error::UnknownName`] if there is none of this name.
    pub fn preset(&self) -> Result<Preset> {
        preset(&self.model, Some(&self.variant))
    }

    /// The name as part of a path: `dcformer-nano`.
    pub fn folder(&self) -> String {
        format!("{}-{}", self.model, self.variant)
    }
}

impl fmt::Display for EncoderName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.model, self.variant)
    }
}

/// `dcformer:nano`; without a size, the network's first.
impl FromStr for EncoderName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (model, variant) = match text.split_once(':') {
            Some((model, variant)) => (model, Some(variant)),
            None => (text, None),
        };
        let found = preset(model, variant)?;
        Ok(Self {
            model: found.network.to_owned(),
            variant: found.variant.to_owned(),
        })
    }
}

/// How long each encoder is trained.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Budget {
    /// So many passes over the training pairs: all encoders see the same.
    Epochs(usize),
    /// So many steps: all encoders see the same.
    Steps(u64),
    /// So many minutes: a faster encoder sees more. The schedule of the learning rate fits the steps that each can take.
    Minutes(f64),
}

impl Budget {
    /// Writes epochs or steps into a run's configuration; minutes are not known there.
    pub fn set(self, train: &mut TrainConfig) {
        match self {
            Self::Epochs(epochs) => (train.epochs, train.steps) = (epochs, None),
            Self::Steps(steps) => train.steps = Some(steps),
            Self::Minutes(_) => {}
        }
    }
}

/// What a run is to be. Kept in its folder: a run that was made of another request is not taken for this one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The encoder.
    pub encoder: EncoderName,
    /// The run; its epochs or steps are replaced by those of a budget of minutes.
    pub config: RunConfig,
    /// How long it is trained.
    pub budget: Budget,
    /// The pairs that are learnt from, hashed.
    pub training_data: u64,
    /// The volumes that are measured, hashed.
    pub validation_data: u64,
}

impl Request {
    /// The request of an encoder, its configuration that of all encoders but for the network.
    ///
    /// # Errors
    /// If the run cannot be carried out, or its data cannot be listed.
    pub fn new(encoder: EncoderName, config: &RunConfig, budget: Budget) -> Result<Self> {
        let mut config = config.clone();
        config.model = config.model.with_encoder(&encoder.preset()?)?;
        budget.set(&mut config.train);
        let config = config.resolved()?;
        Ok(Self {
            training_data: Pairs::of(config.data.training()?).fingerprint(),
            validation_data: Pairs::fingerprint_of(&config.data.validation()?.samples),
            encoder,
            config,
            budget,
        })
    }
}

/// What training took.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trained {
    /// Steps of the optimiser.
    pub steps: u64,
    /// Pairs of volume and report that were seen, each as often as it was seen.
    pub pairs: u64,
    /// Mean loss of the last tenth of the steps.
    pub loss: f64,
    /// Seconds of all steps together, without reading the volumes and writing checkpoints.
    pub seconds: f64,
    /// Pairs a second, the median of the steps.
    pub pairs_per_s: f64,
    /// Most memory that the process held, volumes included, where the system says so.
    pub peak_rss_mb: Option<f64>,
    /// Threads that it used.
    pub threads: usize,
    /// Instruction set of its kernels.
    pub simd: String,
}

impl Trained {
    /// What the steps of a run took; `None` without one.
    pub fn of_steps(
        steps: &[StepReport],
        pairs_of_step: usize,
        peak_rss_mb: Option<f64>,
    ) -> Option<Self> {
        let last = &steps[steps.len() - steps.len().div_ceil(10)..];
        let mut paces: Vec<f64> = steps.iter().map(|step| step.pairs_per_s).collect();
        paces.sort_by(f64::total_cmp);
        let pairs_of_step = pairs_of_step as f64;
        Some(Self {
            steps: steps.last()?.step,
            pairs: steps.len() as u64 * pairs_of_step as u64,
            loss: last.iter().map(|step| step.loss).sum::<f64>() / last.len() as f64,
            seconds: paces.iter().map(|pace| pairs_of_step / pace).sum(),
            pairs_per_s: paces[paces.len() / 2],
            peak_rss_mb,
            threads: rayon::current_num_threads(),
            simd: crate::bench::simd_level(),
        })
    }
}

/// The smallest volume of at least this size along each axis, rounded up to a multiple that is the same for all axes, that
/// all encoders take; `None` if none of less than a thousand voxels an axis does.
pub fn common_volume(encoders: &[ImageEncoderConfig], volume: Shape3) -> Option<Shape3> {
    /// Twice the largest patch of a preset, more than the least common multiple of most.
    const LARGEST_MULTIPLE: usize = 512;
    (1..=LARGEST_MULTIPLE)
        .map(|multiple| Shape3 {
            depth: volume.depth.next_multiple_of(multiple),
            height: volume.height.next_multiple_of(multiple),
            width: volume.width.next_multiple_of(multiple),
        })
        .find(|volume| encoders.iter().all(|encoder| encoder.grid(*volume).is_ok()))
}

/// Reads what [`write_json`] wrote; `None` if there is no such file.
///
/// # Errors
/// If the file cannot be read or says something else.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let bytes = match std::fs::read(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        read => read.map_err(|source| Error::Read {
            path: path.to_owned(),
            source,
        })?,
    };
    let value = serde_json::from_slice(&bytes).map_err(|source| Error::Json {
        path: path.to_owned(),
        source,
    })?;
    Ok(Some(value))
}

/// Writes a value as JSON; the file is there whole or not at all.
///
/// # Errors
/// If the file cannot be written.
///
/// # Panics
/// If the value has no JSON form.
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    write_file(path, json_text(value).as_bytes())
}

#[cfg(test)]
pub(crate) mod tests;
