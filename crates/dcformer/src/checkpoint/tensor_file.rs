//! `.safetensors` files: the header at once, a tensor when it is asked for, so that no file lies in memory as a whole.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use safetensors::tensor::{Metadata, TensorInfo};
use safetensors::{Dtype, SafeTensorError};

use super::weights::{Data, Element, StoredTensor};
use crate::error::{Error, Result};

/// Bytes of the number that a file begins with: the length of its header.
const LENGTH: u64 = 8;
/// Longest header, by the format.
const LONGEST_HEADER: u64 = 100_000_000;

/// The bytes of one tensor in an open file.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    file: Arc<Mutex<File>>,
    start: u64,
    length: u64,
}

impl Part {
    /// Reads the bytes.
    pub(crate) fn read(&self) -> io::Result<Vec<u8>> {
        // A poisoned lock leaves nothing half done: every read seeks first.
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(self.start))?;
        read_exactly(&mut file, self.length)
    }

    /// No bytes, for tests that look at shapes.
    #[cfg(test)]
    pub(crate) fn empty() -> Self {
        let file = tempfile::tempfile().expect("a temporary file");
        Self {
            file: Arc::new(Mutex::new(file)),
            start: 0,
            length: 0,
        }
    }
}

/// Tensors by name, and what else a file's header says.
type Contents = (BTreeMap<String, StoredTensor>, HashMap<String, String>);

/// The tensors of a file and its metadata. Its header is held against its size, so no tensor is larger than the file.
pub(crate) fn read(path: &Path) -> Result<Contents> {
    let read_error = |source| Error::Read {
        path: path.to_owned(),
        source,
    };
    let mut file = File::open(path).map_err(read_error)?;
    let size = file.metadata().map_err(read_error)?.len();
    let (start, metadata) =
        read_header(&mut file, size)
            .map_err(read_error)?
            .map_err(|source| Error::Safetensors {
                path: path.to_owned(),
                source,
            })?;
    let file = Arc::new(Mutex::new(file));
    let shared_path: Arc<Path> = path.into();
    let stored = |info: &TensorInfo| {
        let (from, to) = info.data_offsets;
        StoredTensor {
            file: Arc::clone(&shared_path),
            shape: info.shape.clone(),
            element: match info.dtype {
                Dtype::F64 => Element::F64,
                Dtype::F32 => Element::F32,
                Dtype::F16 => Element::F16,
                Dtype::BF16 => Element::Bf16,
                other => Element::Other(format!("{other:?}")),
            },
            data: Data::Part(Part {
                file: Arc::clone(&file),
                start: start + from as u64,
                length: (to - from) as u64,
            }),
        }
    };
    let tensors = metadata.tensors().into_iter();
    Ok((
        tensors.map(|(name, info)| (name, stored(info))).collect(),
        metadata.metadata().clone().unwrap_or_default(),
    ))
}

/// Where the tensors begin, and what the header says of them.
fn read_header(file: &mut File, size: u64) -> io::Result<Result<(u64, Metadata), SafeTensorError>> {
    if size < LENGTH {
        return Ok(Err(SafeTensorError::HeaderTooSmall));
    }
    let mut length = [0; LENGTH as usize];
    file.read_exact(&mut length)?;
    let length = u64::from_le_bytes(length);
    if length > LONGEST_HEADER {
        return Ok(Err(SafeTensorError::HeaderTooLarge));
    }
    let start = LENGTH + length;
    if start > size {
        return Ok(Err(SafeTensorError::InvalidHeaderLength));
    }
    let header = read_exactly(file, length)?;
    Ok(match serde_json::from_slice::<Metadata>(&header) {
        Err(source) => Err(SafeTensorError::InvalidHeaderDeserialization(source)),
        Ok(metadata) if metadata.data_len() as u64 != size - start => {
            Err(SafeTensorError::MetadataIncompleteBuffer)
        }
        Ok(metadata) => Ok((start, metadata)),
    })
}

/// The next `length` bytes, which the file was seen to have.
fn read_exactly(file: &mut File, length: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(length as usize);
    file.take(length).read_to_end(&mut bytes)?;
    if bytes.len() as u64 == length {
        Ok(bytes)
    } else {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}
