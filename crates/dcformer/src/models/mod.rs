//! The networks, one file each.
//!
//! Features inside image encoders are channels-last, `[batch, depth, height, width, channels]`. Networks know nothing of
//! files: names and layouts of foreign weights live in [`checkpoint`](crate::checkpoint).

pub mod bert;
mod buffer;
mod cache;
pub mod clip;
pub mod dcformer;
mod decomposed;
pub mod quantizer;
pub mod similarity;

pub use bert::{Bert, BertConfig, TextBatch};
pub use buffer::Buffer;
pub use clip::{
    Clip, ClipConfig, ImageEncoder, ImageEncoderConfig, ImageTowerConfig, Reduction,
    TextTowerConfig,
};
pub use dcformer::{DcformerEncoder, DcformerEncoderConfig};
pub use decomposed::{
    BATCH_NORM_EPSILON, BATCH_NORM_MOMENTUM, Branch, BranchNorm, DecomposedConv, Statistics,
};
pub use quantizer::{VectorQuantizer, VectorQuantizerConfig};
pub(crate) use similarity::unit_rows;
pub use similarity::{LogitScale, Temperature, clip_loss, sigmoid_loss, zero_shot_probabilities};
