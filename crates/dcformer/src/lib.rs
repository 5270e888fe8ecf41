//! 3D vision-language models of medical scans: DCFormer, CLIP, checkpoints, complexity.
//!
//! Start with [`models::dcformer`], the image encoder of the paper; [`models::clip`] pairs it with a text encoder;
//! [`checkpoint`] reads the authors' weights and our model folders; [`complexity`] counts what a model costs.
//!
//! Tensors are burn's, features channels-last: `[batch, depth, height, width, channels]`.

#![forbid(unsafe_code)]

pub mod checkpoint;
pub mod complexity;
mod error;
pub mod models;
pub mod text;

pub use error::{Error, MisshapenTensor, Result, WeightReport};
//! 3D vision-language models of medical scans: DCFormer, CLIP, training, zero-shot detection, evaluation.

#![forbid(unsafe_code)]

mod error;
pub mod evaluate;
pub mod random;
pub mod report;

pub use error::{Error, Result};
