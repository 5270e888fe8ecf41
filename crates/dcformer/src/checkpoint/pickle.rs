//! PyTorch checkpoints: the tensors of a pickle, and nothing that it would run.
//!
//! The reader interprets the few constructors that tensors need; every other object (`argparse.Namespace`, an optimiser, a
//! call to `os.system`) is stepped over, never built. A pickle is untrusted input: sizes are held against the file's.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use pytorch_reader::{DType, PytorchReader};

use super::weights::{Data, Element, StoredTensor};
use crate::error::{Error, Result};

/// Where checkpoints keep the weights, besides the top: the authors' `model`, and what others write.
const SECTIONS: [&str; 3] = ["model.", "state_dict.", "model_state_dict."];

/// The tensors of the model in a checkpoint, under the names they have in its state dict.
pub(crate) fn read(path: &Path) -> Result<BTreeMap<String, StoredTensor>> {
    let size = std::fs::metadata(path).map_err(|source| Error::Read {
        path: path.to_owned(),
        source,
    })?;
    let reader = PytorchReader::new(path).map_err(|source| Error::Pickle {
        path: path.to_owned(),
        source,
    })?;
    let tensors = reader.into_tensors();
    let section = SECTIONS
        .into_iter()
        .find(|section| tensors.keys().any(|name| name.starts_with(section)))
        .unwrap_or_default();
    let file: Arc<Path> = path.into();
    tensors
        .into_iter()
        .filter_map(|(name, tensor)| Some((name.strip_prefix(section)?.to_owned(), tensor)))
        .map(|(name, tensor)| {
            // A view can be larger than its storage (stride 0), so the pickle alone bounds nothing.
            if tensor.byte_len() as u64 > size.len() {
                return Err(Error::Config {
                    path: path.to_owned(),
                    field: "tensor size",
                    found: format!("{} bytes for `{name}`", tensor.byte_len()),
                    expected: format!("at most the {} bytes of the file", size.len()),
                });
            }
            let stored = StoredTensor {
                file: Arc::clone(&file),
                shape: tensor.shape().to_vec(),
                element: match tensor.dtype() {
                    DType::F64 => Element::F64,
                    DType::F32 => Element::F32,
                    DType::F16 => Element::F16,
                    DType::BF16 => Element::Bf16,
                    other => Element::Other(format!("{other:?}")),
                },
                data: Data::Pickle(tensor),
            };
            Ok((name, stored))
        })
        .collect()
}

/// The bytes of a tensor, little-endian.
pub(crate) fn read_bytes(path: &Path, tensor: &pytorch_reader::Tensor) -> Result<Vec<u8>> {
    let mut bytes = tensor.read().map_err(|source| Error::Read {
        path: path.to_owned(),
        source,
    })?;
    if cfg!(target_endian = "big") {
        for value in bytes.chunks_exact_mut(tensor.dtype().size()) {
            value.reverse();
        }
    }
    Ok(bytes)
}
