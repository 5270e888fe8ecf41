//! Latents of a model's prompts: encoded by its text tower, or kept beside its weights since the last time.
//!
//! `prompts.safetensors` in a model folder holds
//!
//! - `present`, `absent`: the latents, `[abnormalities, latent]`, float32
//! - `key`: a hash of everything that they are computed from
//! - `checksum`: a hash of the latents
//!
//! The hash tells other weights, prompts and programs apart, and damage; it is no guard against an attacker, who can write
//! the weights as well as this file.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use burn::tensor::{Device, Tensor, TensorData};
use dcformer_kernels::simd::Level;
use rayon::prelude::*;
use safetensors::Dtype;
use twox_hash::XxHash3_128;

use crate::checkpoint::{Element, ModelFolder, OwnedTensor, Weights, write_safetensors};
use crate::error::{Error, Result};
use crate::models::{Clip, unit_rows};
use crate::tensors::is_unit;
use crate::text::{Prompts, Template, Tokenizer};

/// The file of a model folder.
pub(super) const FILE: &str = "prompts.safetensors";

/// Raised when the text tower computes other numbers from the same weights within one version of the program.
const REVISION: u32 = 1;

/// Latents of the sentences that detection compares a scan with.
#[derive(Clone, Debug)]
pub(crate) struct PromptLatents {
    /// `[abnormalities, latent]`, rows of unit length.
    pub(crate) present: Tensor<2>,
    /// As `present`.
    pub(crate) absent: Tensor<2>,
}

impl PromptLatents {
    /// Encodes the prompts, of which there is at least one. The latents of several templates are averaged.
    pub(crate) fn encode(clip: &Clip, tokenizer: &Tokenizer, prompts: &Prompts) -> Result<Self> {
        let encode = |sentence: fn(Template) -> String| {
            let mut sum: Option<Tensor<2>> = None;
            for template in &prompts.templates {
                let sentences: Vec<String> = prompts
                    .sentences(template)
                    .into_iter()
                    .map(sentence)
                    .collect();
                let latents = clip.encode_text(&tokenizer.encode_batch(&sentences)?)?;
                sum = Some(match sum {
                    None => latents,
                    Some(sum) => sum + latents,
                });
            }
            Ok::<_, Error>(unit_rows(sum.expect("there is a template")))
        };
        Ok(Self {
            present: encode(|template| template.present)?,
            absent: encode(|template| template.absent)?,
        })
    }

    /// The latents in a file, if it has those of this key; any other file is as good as none, and so is a link or a pipe.
    pub(super) fn read(path: &Path, key: &Key, device: &Device) -> Option<Self> {
        if !fs::symlink_metadata(path).ok()?.is_file() {
            return None;
        }
        let file = Weights::open(path).ok()?;
        let bytes = |name| file.read_bytes(file.tensors.get(name)?).ok();
        if bytes("key")? != key.hash {
            return None;
        }
        let values = |name| {
            let tensor = file.tensors.get(name)?;
            let fits = tensor.shape == key.shape && tensor.element == Element::F32;
            let values = fits.then(|| file.read_f32(name, tensor).ok())??;
            are_unit_rows(&values, key.shape).then_some(values)
        };
        let (present, absent) = (values("present")?, values("absent")?);
        if bytes("checksum")? != checksum(&present, &absent) {
            return None;
        }
        let tensor = |values| Tensor::from_data(TensorData::new(values, key.shape), device);
        Some(Self {
            present: tensor(present),
            absent: tensor(absent),
        })
    }

    /// Keeps the latents in a file for [`read`](Self::read), if the place can be written to. A link, a pipe or a folder of
    /// this name stays as it is.
    pub(super) fn keep(&self, path: &Path, key: &Key) {
        if !fs::symlink_metadata(path).is_ok_and(|there| !there.is_file()) {
            // Who may only read the folder encodes the prompts every time.
            let _ = self.write(path, key);
        }
    }

    fn write(&self, path: &Path, key: &Key) -> Result<()> {
        let values = |tensor: &Tensor<2>| -> Vec<f32> {
            let data = tensor.clone().into_data();
            data.try_to_vec().expect("latents are single precision")
        };
        let (present, absent) = (values(&self.present), values(&self.absent));
        let floats = |values: &[f32]| OwnedTensor {
            dtype: Dtype::F32,
            shape: key.shape.to_vec(),
            bytes: little_endian(values),
        };
        let hash = |hash: Hash| OwnedTensor {
            dtype: Dtype::U8,
            shape: vec![hash.len()],
            bytes: hash.to_vec(),
        };
        let tensors = BTreeMap::from([
            ("present".to_owned(), floats(&present)),
            ("absent".to_owned(), floats(&absent)),
            ("key".to_owned(), hash(key.hash)),
            ("checksum".to_owned(), hash(checksum(&present, &absent))),
        ]);
        write_safetensors(&tensors, &[], path)
    }
}

/// Of which latents a file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Key {
    hash: Hash,
    /// Abnormalities, latent.
    shape: [usize; 2],
}

impl Key {
    /// Hashes everything that the latents are computed from: the text tower's weights as they are stored, its sizes, the
    /// vocabulary, the prompts, and what computes (program, device, instruction set: sums of another width round
    /// otherwise). `None` for a model that cannot encode prompts.
    ///
    /// # Errors
    /// If the weights cannot be read.
    pub(super) fn of(folder: &ModelFolder, device: &Device) -> Result<Option<Self>> {
        let prompts = &folder.config.prompts;
        let (Some(text), Some(tokenizer)) = (&folder.config.clip.text, &folder.tokenizer) else {
            return Ok(None);
        };
        if prompts.are_empty() {
            return Ok(None);
        }
        let weights: Vec<_> = folder.text_weights().collect();
        let weights = weights
            .into_par_iter()
            .map(|(name, tensor)| {
                let bytes = folder.read_bytes(tensor)?;
                let layout = format!("{name} {:?} {:?}", tensor.element, tensor.shape);
                Ok((layout, hash(&bytes)))
            })
            .collect::<Result<Vec<(String, Hash)>>>()?;
        let vocabulary = tokenizer.vocabulary();
        let program = format!(
            "dcformer {} {REVISION} {device:?} {}",
            env!("CARGO_PKG_VERSION"),
            Level::current()
        );
        let settings = serde_json::to_vec(&(text, prompts, vocabulary.lower_case()))
            .expect("settings are plain data");
        let mut all = Parts::default();
        all.add(program.as_bytes());
        all.add(&settings);
        all.add(vocabulary.to_lines().as_bytes());
        for (layout, bytes) in weights {
            all.add(layout.as_bytes());
            all.add(&bytes);
        }
        Ok(Some(Self {
            hash: all.hash(),
            shape: [prompts.abnormalities.len(), text.latent],
        }))
    }
}

/// 128 bits: two of a billion files have the same with a probability of 1e-21.
type Hash = [u8; 16];

fn hash(bytes: &[u8]) -> Hash {
    XxHash3_128::oneshot(bytes).to_le_bytes()
}

/// A hash of a sequence; each part is preceded by its length, so that no two sequences are the same bytes.
#[derive(Default)]
struct Parts(XxHash3_128);

impl Parts {
    fn add(&mut self, bytes: &[u8]) {
        self.0.write(&(bytes.len() as u64).to_le_bytes());
        self.0.write(bytes);
    }

    fn hash(&self) -> Hash {
        self.0.finish_128().to_le_bytes()
    }
}

fn checksum(present: &[f32], absent: &[f32]) -> Hash {
    let mut both = Parts::default();
    both.add(&little_endian(present));
    both.add(&little_endian(absent));
    both.hash()
}

fn little_endian(values: &[f32]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect()
}

/// Whether a matrix has rows of finite numbers and unit length.
fn are_unit_rows(values: &[f32], [rows, columns]: [usize; 2]) -> bool {
    columns > 0 && values.len() == rows * columns && values.chunks_exact(columns).all(is_unit)
}

#[cfg(test)]
mod tests;
