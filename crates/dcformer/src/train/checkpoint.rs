//! A checkpoint: everything that the rest of a run depends on.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::Device;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde::{Deserialize, Serialize};

use super::config::RunConfig;
use super::optimizer::{AdamW, Moments};
use crate::checkpoint::{Model, write_file};
use crate::error::{Error, Result};

const STATE: &str = "state.json";
const OPTIMIZER: &str = "optimizer.safetensors";

/// How far a run has come, and what it was.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    step: u64,
    config: RunConfig,
    /// Names of the training pairs, hashed: a run that resumes on other data would be neither run.
    data: u64,
}

/// What a resumed run starts from.
pub(super) struct Resumed {
    pub(super) step: u64,
    pub(super) model: Model,
    pub(super) optimizer: AdamW,
}

/// A run's folder of checkpoints.
pub(super) struct Checkpoints {
    folder: PathBuf,
    keep: usize,
}

impl Checkpoints {
    pub(super) fn new(run: &Path, keep: usize) -> Self {
        Self {
            folder: run.join("checkpoints"),
            keep: keep.max(1),
        }
    }

    /// Writes a checkpoint: complete under a temporary name, then renamed; then drops the oldest.
    pub(super) fn save(
        &self,
        step: u64,
        model: &Model,
        optimizer: &AdamW,
        config: &RunConfig,
        data: u64,
    ) -> Result<()> {
        let writing = self.folder.join(format!(".step-{step:08}.writing.tmp"));
        remove_folder(&writing)?;
        std::fs::create_dir_all(&self.folder).map_err(|source| Error::Write {
            path: self.folder.clone(),
            source,
        })?;
        model.save(&writing)?;
        write_file(&writing.join(OPTIMIZER), &serialise(optimizer.moments())?)?;
        let state = State {
            step,
            config: config.clone(),
            data,
        };
        let json = serde_json::to_vec_pretty(&state).expect("a state has a JSON form");
        write_file(&writing.join(STATE), &json)?;
        let place = self.folder.join(format!("step-{step:08}"));
        remove_folder(&place)?;
        std::fs::rename(&writing, &place).map_err(|source| Error::Write {
            path: place,
            source,
        })?;
        let steps = self.list()?;
        for (_, old) in steps.iter().rev().skip(self.keep) {
            remove_folder(old)?;
        }
        Ok(())
    }

    /// Complete checkpoints, oldest first.
    fn list(&self) -> Result<Vec<(u64, PathBuf)>> {
        let entries = match std::fs::read_dir(&self.folder) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(|source| Error::Read {
                path: self.folder.clone(),
                source,
            })?,
        };
        let mut found: Vec<(u64, PathBuf)> = entries
            .filter_map(|entry| {
                let path = entry.ok()?.path();
                let step = path
                    .file_name()?
                    .to_str()?
                    .strip_prefix("step-")?
                    .parse()
                    .ok()?;
                Some((step, path))
            })
            .collect();
        found.sort();
        Ok(found)
    }

    /// Whether there is a checkpoint.
    pub(super) fn exist(&self) -> Result<bool> {
        Ok(!self.list()?.is_empty())
    }

    /// The run's folder.
    pub(super) fn run(&self) -> &Path {
        self.folder.parent().unwrap_or(&self.folder)
    }

    /// The newest checkpoint, if there is one of this configuration and data.
    pub(super) fn resume(
        &self,
        config: &RunConfig,
        data: u64,
        device: &Device,
    ) -> Result<Option<Resumed>> {
        let Some((_, folder)) = self.list()?.pop() else {
            return Ok(None);
        };
        let path = folder.join(STATE);
        let text = std::fs::read_to_string(&path).map_err(|source| Error::Read {
            path: path.clone(),
            source,
        })?;
        let state: State = serde_json::from_str(&text).map_err(|source| Error::Json {
            path: path.clone(),
            source,
        })?;
        if state.config != *config {
            return Err(Error::OtherRun {
                path,
                what: "configuration",
            });
        }
        if state.data != data {
            return Err(Error::OtherRun {
                path,
                what: "list of training pairs",
            });
        }
        let mut model = Model::load(&folder, device)?;
        model.clip = model.clip.train();
        let path = folder.join(OPTIMIZER);
        let bytes = std::fs::read(&path).map_err(|source| Error::Read {
            path: path.clone(),
            source,
        })?;
        let moments = deserialise(&bytes, &path)?;
        let optimizer = AdamW::resume(config.train.optimizer.clone(), state.step, moments);
        Ok(Some(Resumed {
            step: state.step,
            model,
            optimizer,
        }))
    }
}

pub(super) fn remove_folder(path: &Path) -> Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::Write {
            path: path.to_owned(),
            source: error,
        }),
        _ => Ok(()),
    }
}

const MEAN: &str = "mean.";
const SQUARE: &str = "square.";

/// The optimiser's state as a file.
pub(super) fn serialise(moments: &BTreeMap<String, Moments>) -> Result<Vec<u8>> {
    let bytes = |values: &[f32]| {
        values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect::<Vec<u8>>()
    };
    let tensors: Vec<(String, Vec<u8>)> = moments
        .iter()
        .flat_map(|(name, moments)| {
            [
                (format!("{MEAN}{name}"), bytes(&moments.mean)),
                (format!("{SQUARE}{name}"), bytes(&moments.square)),
            ]
        })
        .collect();
    let failed = |source| Error::Safetensors {
        path: OPTIMIZER.into(),
        source,
    };
    let views: Vec<(&str, TensorView<'_>)> = tensors
        .iter()
        .map(|(name, bytes)| {
            Ok((
                name.as_str(),
                TensorView::new(Dtype::F32, vec![bytes.len() / 4], bytes)?,
            ))
        })
        .collect::<Result<_, _>>()
        .map_err(failed)?;
    safetensors::serialize(views, None).map_err(failed)
}

/// The state of [`serialise`]; `path` is where it comes from.
pub(super) fn deserialise(bytes: &[u8], path: &Path) -> Result<BTreeMap<String, Moments>> {
    let failed = |source| Error::Safetensors {
        path: path.to_owned(),
        source,
    };
    let mut moments: BTreeMap<String, Moments> = BTreeMap::new();
    for (name, view) in SafeTensors::deserialize(bytes).map_err(failed)?.iter() {
        let values: Vec<f32> = view
            .data()
            .chunks_exact(4)
            .map(|bytes| f32::from_le_bytes(bytes.try_into().expect("chunks of four")))
            .collect();
        if let Some(name) = name.strip_prefix(MEAN) {
            moments.entry(name.to_owned()).or_default().mean = values;
        } else if let Some(name) = name.strip_prefix(SQUARE) {
            moments.entry(name.to_owned()).or_default().square = values;
        }
    }
    Ok(moments)
}
