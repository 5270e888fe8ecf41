//! 3D vision-language models of medical scans: DCFormer, CLIP, training, zero-shot detection, evaluation.
//!
//! Start with [`models::dcformer`], the image encoder of the paper; [`models::clip`] pairs it with a text encoder;
//! [`train`] trains both on scans and reports; [`detect`] asks a trained model for abnormalities; [`evaluate`] measures
//! its answers and [`report`] draws them; [`finetune`] teaches it labels; [`latents`] keeps what a model makes of a data set, and [`search`] finds the most
//! similar in it; [`checkpoint`] reads the authors' weights and our model folders;
//! [`complexity`] counts what a model costs; [`compare`] puts encoders side by side.
//!
//! Tensors are burn's, features channels-last: `[batch, depth, height, width, channels]`.

#![forbid(unsafe_code)]

pub mod answers;
mod base64;
pub mod bench;
pub mod checkpoint;
pub mod compare;
pub mod complexity;
pub mod detect;
pub mod embed;
mod error;
pub mod evaluate;
pub mod finetune;
pub mod latents;
pub mod models;
pub mod random;
pub mod report;
pub mod search;
pub mod tensors;
pub mod text;
pub mod train;

pub use burn::tensor::Device;
pub use error::{Error, MisshapenTensor, Result, WeightReport};
