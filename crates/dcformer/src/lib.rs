//! 3D vision-language models of medical scans: DCFormer, CLIP, training, zero-shot detection, evaluation.

#![forbid(unsafe_code)]

mod error;
pub mod evaluate;
pub mod random;
pub mod report;

pub use error::{Error, Result};
