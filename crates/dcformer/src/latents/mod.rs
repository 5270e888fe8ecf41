//! What a model makes of a data set, in one Parquet file: a row for each volume.
//!
//! | column | type | |
//! |---|---|---|
//! | `volume` | string | its name in the data set |
//! | `patient`, `study` | string | whose scan it is, and the examination that it is a reconstruction of |
//! | `split` | string or null | part of the data set, if that has parts |
//! | `report` | string or null | text of the report |
//! | `latent` | list of float32, all of one length | of unit length |
//! | any other | boolean or null | a label; null is unknown |
//!
//! The file's metadata says under `dcformer` what made it ([`Provenance`], as JSON), and under `ARROW:schema` that the lists
//! have one length, so that pyarrow and polars read arrays. Row groups bound the memory of writing. Pages are not compressed:
//! latents hardly shrink, and nothing that is read is larger than the file.

mod arrow;
mod chunks;
mod embed;
mod read;
mod write;

use std::path::Path;

use dcformer_volume::cache::sha256_of_file;
use dcformer_volume::preprocess::Preprocess;
use serde::{Deserialize, Serialize};

pub use embed::{Job, Summary, embed_data_set};
pub use read::LatentFile;
pub use write::LatentWriter;

use crate::checkpoint::WEIGHTS;
use crate::error::{Error, Result};

/// Version of the format.
const FORMAT: u32 = 1;

/// Where the file's metadata says what made it.
const PROVENANCE: &str = "dcformer";

/// The columns that are no labels.
const COLUMNS: [&str; 6] = ["volume", "patient", "study", "split", "report", "latent"];

/// Which model made the latents of a file, and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Provenance {
    /// Version of the format.
    pub format: u32,
    /// Version of the program.
    pub version: String,
    /// SHA-256 of the model's weights, as `sha256sum MODEL/model.safetensors` prints it.
    pub model_sha256: String,
    /// Numbers of a latent.
    pub width: usize,
    /// Name of the preprocessing, or `custom`.
    pub preset: String,
    /// What was done to each scan.
    pub preprocess: Preprocess,
}

impl Provenance {
    /// Latents of `width` numbers that the model in a folder makes of scans preprocessed so.
    ///
    /// # Errors
    /// If the weights cannot be read.
    pub fn new(model: &Path, width: usize, preprocess: &Preprocess) -> Result<Self> {
        Ok(Self {
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            model_sha256: sha256_of_file(&model.join(WEIGHTS))?,
            width,
            preset: preprocess.preset_name().unwrap_or("custom").to_owned(),
            preprocess: preprocess.clone(),
        })
    }
}

/// What is known of a volume beside its latent.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Entry {
    /// Its name in the data set.
    pub volume: String,
    /// Whose scan it is.
    pub patient: String,
    /// The examination that it is a reconstruction of.
    pub study: String,
    /// Part of the data set.
    pub split: Option<String>,
    /// Text of the report.
    pub report: Option<String>,
    /// One for each label of the file: present, absent, or unknown.
    pub labels: Vec<Option<bool>>,
}

/// Refuses labels that have the name of another column.
fn check_labels(path: &Path, labels: &[String]) -> Result<()> {
    let taken = |index: usize| {
        let label = labels[index].as_str();
        COLUMNS.contains(&label) || labels[..index].iter().any(|other| other == label)
    };
    match (0..labels.len()).find(|index| taken(*index)) {
        Some(index) => Err(Error::Volume(dcformer_volume::Error::RepeatedColumn {
            path: path.to_owned(),
            column: labels[index].clone(),
        })),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
