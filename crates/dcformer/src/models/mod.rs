//! The networks, one file each.
//!
//! Features inside image encoders are channels-last, `[batch, depth, height, width, channels]`. Networks know nothing of
//! files: names and layouts of foreign weights live in [`checkpoint`](crate::checkpoint).

mod attention;
mod batch_norm;
pub mod bert;
mod buffer;
mod cache;
pub mod classifier;
pub mod clip;
mod conv;
pub mod convnext;
pub mod ctvit;
pub mod dcformer;
mod decomposed;
pub mod encoder;
pub mod inceptionnext;
mod layer_norm;
mod mlp;
mod patch_embedding;
mod patches;
pub mod poolformer;
mod projection_head;
mod pyramid;
pub mod quantizer;
pub mod similarity;
mod token_positions;
pub mod transunet;
pub mod vit;

pub use attention::AttentionScale;
pub use batch_norm::{BATCH_NORM_EPSILON, BATCH_NORM_MOMENTUM, BatchNorm, Statistics};
pub use bert::{Bert, BertConfig, TextBatch};
pub use buffer::Buffer;
pub use classifier::{Classifier, ClassifierConfig};
pub use clip::{Clip, ClipConfig, ImageTowerConfig, Reduction, TextTowerConfig};
pub use convnext::{ConvnextEncoder, ConvnextEncoderConfig};
pub use ctvit::{CtvitEncoder, CtvitEncoderConfig};
pub use dcformer::{DcformerEncoder, DcformerEncoderConfig};
pub use decomposed::{Branch, DecomposedConv};
pub use encoder::{
    Encoder, EncoderConfig, ImageEncoder, ImageEncoderConfig, Preset, preset, presets,
};
pub use inceptionnext::{InceptionnextEncoder, InceptionnextEncoderConfig};
pub use poolformer::{PoolformerEncoder, PoolformerEncoderConfig};
pub use quantizer::{VectorQuantizer, VectorQuantizerConfig};
pub(crate) use similarity::unit_rows;
pub use similarity::{LogitScale, Temperature, clip_loss, sigmoid_loss, zero_shot_probabilities};
pub use transunet::{TransunetEncoder, TransunetEncoderConfig};
pub use vit::{VitEncoder, VitEncoderConfig};
