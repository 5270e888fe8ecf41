//! A file of named tensors, whatever its format, decoded one tensor at a time.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use half::{bf16, f16};

use super::{pickle, tensor_file};
use crate::error::{Error, Result};

/// Named tensors of one file.
#[derive(Debug)]
pub(crate) struct Weights {
    pub(crate) path: PathBuf,
    pub(crate) tensors: BTreeMap<String, StoredTensor>,
    /// What the file says about itself, in words.
    pub(crate) metadata: HashMap<String, String>,
}

/// A tensor that was found and not yet read.
#[derive(Clone, Debug)]
pub(crate) struct StoredTensor {
    pub(crate) shape: Vec<usize>,
    pub(crate) element: Element,
    pub(crate) data: Data,
}

/// How a number is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Element {
    F64,
    F32,
    F16,
    Bf16,
    /// No type of a weight.
    Other(String),
}

/// Where the bytes are.
#[derive(Clone, Debug)]
pub(crate) enum Data {
    /// In a `.safetensors` file, little-endian.
    Part(tensor_file::Part),
    /// In a PyTorch checkpoint.
    Pickle(pytorch_reader::Tensor),
}

impl Weights {
    /// Opens a `.safetensors` file or a PyTorch checkpoint.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let extension = path.extension().and_then(|extension| extension.to_str());
        let (tensors, metadata) = match extension.map(str::to_ascii_lowercase).as_deref() {
            Some("safetensors") => tensor_file::read(path)?,
            Some("pth" | "pt" | "bin" | "ckpt") => (pickle::read(path)?, HashMap::new()),
            _ => {
                return Err(Error::UnknownWeightsFile {
                    path: path.to_owned(),
                });
            }
        };
        Ok(Self {
            path: path.to_owned(),
            tensors,
            metadata,
        })
    }

    /// The shape of the tensor called `name`.
    pub(crate) fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|tensor| tensor.shape.as_slice())
    }

    /// Renames every tensor; `None` drops it.
    pub(crate) fn rename(&mut self, name: impl Fn(&str) -> Option<String>) {
        let renamed = std::mem::take(&mut self.tensors).into_iter();
        self.tensors = renamed
            .filter_map(|(old, tensor)| Some((name(&old)?, tensor)))
            .collect();
    }

    /// The values of a tensor, row-major, as `f32`.
    pub(crate) fn read_f32(&self, name: &str, tensor: &StoredTensor) -> Result<Vec<f32>> {
        let bytes = self.read_bytes(tensor)?;
        match &tensor.element {
            Element::F32 => Ok(decode(&bytes, f32::from_le_bytes)),
            Element::F64 => Ok(decode(&bytes, |bytes| f64::from_le_bytes(bytes) as f32)),
            Element::F16 => Ok(decode(&bytes, |bytes| f16::from_le_bytes(bytes).to_f32())),
            Element::Bf16 => Ok(decode(&bytes, |bytes| bf16::from_le_bytes(bytes).to_f32())),
            Element::Other(found) => Err(Error::ElementType {
                path: self.path.clone(),
                tensor: name.to_owned(),
                found: found.clone(),
            }),
        }
    }

    /// The bytes of a tensor, little-endian.
    pub(crate) fn read_bytes(&self, tensor: &StoredTensor) -> Result<Vec<u8>> {
        match &tensor.data {
            Data::Part(part) => part.read().map_err(|source| Error::Read {
                path: self.path.clone(),
                source,
            }),
            Data::Pickle(tensor) => pickle::read_bytes(&self.path, tensor),
        }
    }
}

fn decode<const N: usize>(bytes: &[u8], value: impl Fn([u8; N]) -> f32) -> Vec<f32> {
    let (values, _) = bytes.as_chunks::<N>();
    values.iter().map(|&bytes| value(bytes)).collect()
}
