//! Named tensors of a file or of several, whatever the format, decoded one tensor at a time.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use half::{bf16, f16};

use super::{pickle, shards, tensor_file};
use crate::error::{Error, Result};

/// The weights of a folder of Hugging Face, best first.
const OF_A_FOLDER: [&str; 4] = [
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
];

/// Named tensors.
#[derive(Debug)]
pub(crate) struct Weights {
    /// The file, or the index of several.
    pub(crate) path: PathBuf,
    pub(crate) tensors: BTreeMap<String, StoredTensor>,
    /// What the file says about itself, in words.
    pub(crate) metadata: HashMap<String, String>,
}

/// A tensor that was found and not yet read.
#[derive(Clone, Debug)]
pub(crate) struct StoredTensor {
    /// The file it is in.
    pub(crate) file: Arc<Path>,
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
    /// Opens a `.safetensors` file, a PyTorch checkpoint, the index of either in parts, or a folder with one of these.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        if path.is_dir() {
            let found = OF_A_FOLDER.map(|name| path.join(name));
            let found = found.iter().find(|path| path.exists());
            return match found {
                Some(file) => Self::open(file),
                None => Err(Error::NoFile {
                    folder: path.to_owned(),
                    what: "file of weights",
                    expected: OF_A_FOLDER.join(", "),
                }),
            };
        }
        if shards::is_index(path) {
            return Ok(Self {
                path: path.to_owned(),
                tensors: shards::read(path)?,
                metadata: HashMap::new(),
            });
        }
        Self::open_file(path)
    }

    /// Opens a `.safetensors` file or a PyTorch checkpoint.
    pub(super) fn open_file(path: &Path) -> Result<Self> {
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

    /// Takes a single number out of the weights; `None` if there is none of this name.
    ///
    /// # Errors
    /// [`Error::TensorShape`] if it is not single.
    pub(crate) fn take_number(&mut self, name: &str) -> Result<Option<f32>> {
        let Some(tensor) = self.tensors.remove(name) else {
            return Ok(None);
        };
        match self.read_f32(name, &tensor)?.as_slice() {
            [number] => Ok(Some(*number)),
            _ => Err(Error::TensorShape {
                path: tensor.file.to_path_buf(),
                tensor: name.to_owned(),
                found: tensor.shape,
                expected: "a single number",
            }),
        }
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
                path: tensor.file.to_path_buf(),
                tensor: name.to_owned(),
                found: found.clone(),
            }),
        }
    }

    /// The bytes of a tensor, little-endian.
    pub(crate) fn read_bytes(&self, tensor: &StoredTensor) -> Result<Vec<u8>> {
        match &tensor.data {
            Data::Part(part) => part.read().map_err(|source| Error::Read {
                path: tensor.file.to_path_buf(),
                source,
            }),
            Data::Pickle(pickled) => pickle::read_bytes(&tensor.file, pickled),
        }
    }
}

fn decode<const N: usize>(bytes: &[u8], value: impl Fn([u8; N]) -> f32) -> Vec<f32> {
    let (values, _) = bytes.as_chunks::<N>();
    values.iter().map(|&bytes| value(bytes)).collect()
}
