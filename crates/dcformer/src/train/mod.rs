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
//! Nothing random has a state: order, sentences and dropout of a step are drawn from the seed and the step's number, so
//! that a run which was killed and resumed ends with the same weights, bit for bit.

mod augmentation;
mod checkpoint;
mod config;
mod contrast;
mod data;
mod learning_rate;
mod metrics_file;
mod optimizer;
mod pace;
mod plan;
mod run;

/// Part of [`TrainConfig`].
pub use crate::text::ReportText;
pub use augmentation::{Augmentation, Noise};
pub use config::{
    BatchNormStatistics, DataConfig, ModelChoice, OptimizerConfig, RunConfig, Schedule, TextChoice,
    TrainConfig,
};
pub use contrast::{Contrast, PairBatch};
pub use data::{Pairs, VolumeSource};
pub(crate) use optimizer::backward;
pub use optimizer::{AdamW, Moments, ParameterGradients};
pub use pace::seconds_of_step;
pub use run::{Observer, Outcome, RunOptions, StepReport, train};
