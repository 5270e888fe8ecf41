//! Training: pairs of scan and report to a model, with a run folder that survives a kill at any moment.
//!
//! ```text
//! run/
//! ├── config.toml          the resolved configuration
//! ├── checkpoints/         step-00000400/: model folder, optimizer.safetensors, state.json
//! ├── metrics.jsonl        one line per step
//! └── model/               the trained model, once the run is complete
//! ```
//!
//! A run of fine-tuning ([`FinetuneConfig`]) learns from labels in place of reports, holds patients out, keeps the model with
//! their least loss in `best/` and ends when it no longer falls; thresholds that are chosen on them are part of `model/`.
//!
//! Nothing random has a state: order, sentences and dropout of a step are drawn from the seed and the step's number, so
//! that a run which was killed and resumed ends with the same weights, bit for bit.
//!
//! Several [`workers`](crate::workers) share a run: each computes its part of every batch, the same pairs that one worker
//! would see, and all have the same weights after every step. The first of them reads and writes the run's folder.

mod augmentation;
mod checkpoint;
mod config;
mod contrast;
mod data;
mod exchange;
mod finetune;
mod labels;
mod learning_rate;
mod metrics_file;
mod objective;
mod observer;
mod optimizer;
mod pace;
mod plan;
mod run;
mod start;
mod stream;

/// Part of [`TrainConfig`].
pub use crate::text::ReportText;
pub use augmentation::{Augmentation, Noise};
pub use config::{
    BatchNormStatistics, ContrastOver, DataConfig, ModelChoice, OptimizerConfig, RunConfig,
    Schedule, TextChoice, TrainConfig,
};
pub use contrast::{Contrast, PairBatch};
pub use data::{Pairs, VolumeSource};
pub use finetune::{FinetuneConfig, Method};
pub use observer::{Observer, StepReport};
pub(crate) use optimizer::backward;
pub use optimizer::{AdamW, Moments, ParameterGradients};
pub use pace::seconds_of_step;
pub use run::{Outcome, RunOptions, train};
