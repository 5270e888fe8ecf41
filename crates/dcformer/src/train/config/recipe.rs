//! How the network learns: batches, what a step sees of them, the optimiser.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::text::ReportText;

/// How the network learns. The defaults are the authors' recipe (SPEC section 6).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainConfig {
    /// Passes over the training pairs.
    pub epochs: usize,
    /// Steps of the whole run, in place of `epochs`; absent for as many as the epochs have.
    pub steps: Option<u64>,
    /// Pairs that are contrasted with each other.
    pub batch: usize,
    /// Volumes that are encoded together, at most; absent for the whole batch. The batch is contrasted as a whole all the
    /// same, with the memory of this many volumes: each is encoded twice, and read twice where `volume_memory_gb` has no
    /// room for it. Batch norms see this many volumes at once, which is what changes results; see `batch_norm`.
    pub micro_batch: Option<usize>,
    /// Batches whose gradients are averaged before the weights move; each is contrasted within itself only. Cheaper than a
    /// large `batch` in parts, whose volumes are encoded twice; but a pair is told from `batch - 1` others, not from all.
    pub accumulate: usize,
    /// Whose mean and variance the image encoder's batch norms use.
    pub batch_norm: BatchNormStatistics,
    /// AdamW.
    pub optimizer: OptimizerConfig,
    /// Largest norm of all gradients together; absent for no limit.
    pub clip_gradient_norm: Option<f64>,
    /// What of a report a step sees.
    pub report: ReportText,
    /// Texts drawn of each report, each contrasted with the volumes on its own; the losses are averaged. More than one
    /// makes sense with random sentences only: a volume is dear to encode, a text is cheap.
    pub texts_per_volume: usize,
    /// Largest shift of a volume along depth, height and width, in voxels, drawn anew each time; 0 for none. What comes in
    /// from outside is air.
    pub shift_voxels: [usize; 3],
    /// How often a volume is mirrored from left to right, from 0 to 1; the words "left" and "right" of its report change
    /// places then. The heart lies on the wrong side all the same, and the liver: 0 unless neither matters.
    pub mirror_left_right: f64,
    /// Largest relative change of contrast: values, of which 0 is the middle of the window, are multiplied by a number
    /// between 1 minus and 1 plus this.
    pub intensity_scale: f64,
    /// Largest change of brightness, added to all values; 1 is half the window, 600 HU under the authors'.
    pub intensity_offset: f64,
    /// Standard deviation of noise that is added to every voxel, in the same unit.
    pub noise: f64,
    /// Epochs between measurements of the loss on the validation split; absent for none.
    pub validate_every_epochs: Option<u64>,
    /// Steps between checkpoints; absent for one an epoch.
    pub checkpoint_every_steps: Option<u64>,
    /// Newest checkpoints that are kept.
    pub keep_checkpoints: usize,
    /// Preprocessed volumes of a split that are kept in memory, in GB; what does not fit is read again every epoch.
    pub volume_memory_gb: f64,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            epochs: 15,
            steps: None,
            batch: 8,
            micro_batch: None,
            accumulate: 1,
            batch_norm: BatchNormStatistics::Batch,
            optimizer: OptimizerConfig::default(),
            clip_gradient_norm: None,
            report: ReportText::Whole,
            texts_per_volume: 1,
            shift_voxels: [0; 3],
            mirror_left_right: 0.0,
            intensity_scale: 0.0,
            intensity_offset: 0.0,
            noise: 0.0,
            validate_every_epochs: None,
            checkpoint_every_steps: None,
            keep_checkpoints: 2,
            volume_memory_gb: 4.0,
        }
    }
}

impl TrainConfig {
    /// Pairs behind one change of the weights.
    pub fn effective_batch(&self) -> usize {
        self.batch * self.accumulate
    }

    /// Learning rate before the schedule: the configured one, or the authors' rule.
    pub fn peak_learning_rate(&self) -> f64 {
        /// The authors scale `1e-5` by the effective batch over 256.
        const AUTHORS: f64 = 1e-5 / 256.0;
        self.optimizer
            .learning_rate
            .unwrap_or(AUTHORS * self.effective_batch() as f64)
    }

    pub(super) fn check(&self) -> Result<()> {
        let counts = [
            ("train.batch", self.batch == 0, "at least 1"),
            (
                "train.micro_batch",
                self.micro_batch == Some(0),
                "at least 1, or absent for the whole batch",
            ),
            ("train.accumulate", self.accumulate == 0, "at least 1"),
            ("train.epochs", self.epochs == 0, "at least 1"),
            (
                "train.steps",
                self.steps == Some(0),
                "at least 1, or absent for whole epochs",
            ),
            (
                "train.texts_per_volume",
                self.texts_per_volume == 0,
                "at least 1",
            ),
            (
                "train.validate_every_epochs",
                self.validate_every_epochs == Some(0),
                "at least 1, or absent for no validation",
            ),
            (
                "train.checkpoint_every_steps",
                self.checkpoint_every_steps == Some(0),
                "at least 1, or absent for every epoch",
            ),
        ];
        for (field, is_zero, expected) in counts {
            if is_zero {
                return wrong(field, 0, expected);
            }
        }
        if let Some(norm) = self.clip_gradient_norm
            && !(norm.is_finite() && norm > 0.0)
        {
            return wrong("train.clip_gradient_norm", norm, "a number above 0");
        }
        self.check_augmentation()?;
        self.optimizer.check()
    }

    fn check_augmentation(&self) -> Result<()> {
        if !(0.0..=1.0).contains(&self.mirror_left_right) {
            let share = self.mirror_left_right;
            return wrong("train.mirror_left_right", share, "a share from 0 to 1");
        }
        if !(0.0..1.0).contains(&self.intensity_scale) {
            let scale = self.intensity_scale;
            return wrong("train.intensity_scale", scale, "a number from 0 to below 1");
        }
        for (field, value) in [
            ("train.intensity_offset", self.intensity_offset),
            ("train.noise", self.noise),
        ] {
            if !(value.is_finite() && value >= 0.0) {
                return wrong(field, value, "a number from 0 on");
            }
        }
        Ok(())
    }
}

fn wrong(field: &'static str, found: impl std::fmt::Display, expected: &'static str) -> Result<()> {
    Err(Error::RunField {
        field,
        found: found.to_string(),
        expected,
    })
}

/// Whose mean and variance the image encoder's batch norms use in training.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BatchNormStatistics {
    /// Those of the volumes that are encoded together: the whole batch, or a micro-batch of it. The running ones, which
    /// inference uses, move with each.
    #[default]
    Batch,
    /// The running ones of the model that the run starts from, which stay as they are. A volume's latent then depends on
    /// no other volume, so that a batch in parts is exactly the batch.
    Frozen,
}

/// AdamW (arXiv 1711.05101) and its schedule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OptimizerConfig {
    /// Peak learning rate; absent for the authors' rule, 1e-5 times effective batch over 256.
    pub learning_rate: Option<f64>,
    /// How the learning rate goes over the run.
    pub schedule: Schedule,
    /// Steps over which it rises linearly to its peak.
    pub warmup_steps: u64,
    /// Decay of the running means of gradient and squared gradient.
    pub betas: [f64; 2],
    /// Added to the root of the squared gradient's mean.
    pub epsilon: f64,
    /// Decoupled decay of tensors of two or more dimensions; biases, norms and scales have none.
    pub weight_decay: f64,
}

impl Default for OptimizerConfig {
    fn default() -> Self {
        Self {
            learning_rate: None,
            schedule: Schedule::Constant,
            warmup_steps: 0,
            betas: [0.9, 0.95],
            epsilon: 1e-8,
            weight_decay: 0.05,
        }
    }
}

impl OptimizerConfig {
    fn check(&self) -> Result<()> {
        if let Some(rate) = self.learning_rate
            && !(rate.is_finite() && rate > 0.0)
        {
            return wrong("train.optimizer.learning_rate", rate, "a number above 0");
        }
        if !self.betas.iter().all(|beta| (0.0..1.0).contains(beta)) {
            return wrong(
                "train.optimizer.betas",
                format!("{:?}", self.betas),
                "two numbers from 0 to below 1",
            );
        }
        if !(self.epsilon.is_finite() && self.epsilon > 0.0) {
            return wrong("train.optimizer.epsilon", self.epsilon, "a number above 0");
        }
        if !(self.weight_decay.is_finite() && self.weight_decay >= 0.0) {
            return wrong(
                "train.optimizer.weight_decay",
                self.weight_decay,
                "a number from 0 on",
            );
        }
        Ok(())
    }
}

/// How the learning rate goes over the run, after the warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// It stays (the authors).
    #[default]
    Constant,
    /// Half a cosine from the peak to 0 at the last step.
    Cosine,
}
