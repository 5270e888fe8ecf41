//! Medical scans from files to arrays in known units: NIfTI, DICOM, geometry, preprocessing, CT-RATE, phantoms.
#![forbid(unsafe_code)]

mod content;
mod error;
pub mod geometry;
pub mod volume;

pub mod cache;
pub mod crop;
pub mod ct_rate;
pub mod dataset;
pub mod dicom;
pub mod intensity;
pub mod manifest;
pub mod nifti;
pub mod output;
pub mod phantom;
pub mod preprocess;
pub mod resample;
pub mod scan;
pub mod storage;
mod table;

pub use error::{Error, Result};
