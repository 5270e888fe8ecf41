//! Named tensors on disk that are no weights: volumes in, latents and features out, scores and labels.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::Tensor;
use safetensors::{Dtype, SafeTensors};

use crate::checkpoint::{OwnedTensor, Weights, write_safetensors};
use crate::error::{Error, Result};

/// Names under which a file may hold volumes.
const VOLUME_NAMES: [&str; 2] = ["volume", "input"];

/// Values with their shape, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct Values {
    /// Sizes, outermost first.
    pub shape: Vec<usize>,
    /// As many as the shape says.
    pub values: Vec<f32>,
}

/// Whether a latent has length 1, and so no number that is none.
pub(crate) fn is_unit(latent: &[f32]) -> bool {
    /// How far from 1 the length may be: 512 squares of single precision, added, err by less than 1e-4.
    const LENGTH_TOLERANCE: f32 = 1e-3;
    let squares = latent.iter().map(|value| value * value).sum::<f32>();
    // A length that is NaN or infinite is not near 1.
    (squares.sqrt() - 1.0).abs() < LENGTH_TOLERANCE
}

/// Rows of a matrix of latents, `[texts or volumes][latent]`.
pub(crate) fn rows(latents: Tensor<2>) -> Vec<Vec<f32>> {
    let [_, width] = latents.dims();
    let values: Vec<f32> = latents
        .into_data()
        .try_to_vec()
        .expect("latents are single precision");
    values
        .chunks_exact(width.max(1))
        .map(<[f32]>::to_vec)
        .collect()
}

/// Volumes that are ready for a network: `volume` or `input` of a `.safetensors` file, `[batch, 1, depth, height, width]`
/// or without the batch, used as they are.
///
/// # Errors
/// If the file cannot be read, has neither name, or the shape is another.
pub fn read_volumes(path: &Path) -> Result<Values> {
    let weights = Weights::open(path)?;
    let found = VOLUME_NAMES
        .iter()
        .find_map(|name| Some((*name, weights.tensors.get(*name)?)));
    let Some((name, tensor)) = found else {
        return Err(Error::NoTensor {
            path: path.to_owned(),
            expected: "`volume` or `input`",
            found: weights.tensors.keys().take(10).cloned().collect(),
        });
    };
    let values = weights.read_f32(name, tensor)?;
    let shape = match tensor.shape.as_slice() {
        &[batch, 1, depth, height, width] => vec![batch, 1, depth, height, width],
        &[1, depth, height, width] => vec![1, 1, depth, height, width],
        other => {
            return Err(Error::TensorShape {
                path: path.to_owned(),
                tensor: name.to_owned(),
                found: other.to_vec(),
                expected: "[batch, 1, depth, height, width]",
            });
        }
    };
    if values.is_empty() || values.len() != shape.iter().product::<usize>() {
        return Err(Error::TensorShape {
            path: path.to_owned(),
            tensor: name.to_owned(),
            found: tensor.shape.clone(),
            expected: "at least one voxel",
        });
    }
    Ok(Values { shape, values })
}

/// Writes tensors to a `.safetensors` file; one of that name is replaced only once the new one is complete.
///
/// # Errors
/// [`Error::Write`], [`Error::Safetensors`]
pub fn write(path: &Path, tensors: &[(&str, &Values)]) -> Result<()> {
    let owned: BTreeMap<String, OwnedTensor> = tensors
        .iter()
        .map(|(name, Values { shape, values })| {
            let bytes = values
                .iter()
                .flat_map(|value| value.to_le_bytes())
                .collect();
            (
                (*name).to_owned(),
                OwnedTensor {
                    dtype: Dtype::F32,
                    shape: shape.clone(),
                    bytes,
                },
            )
        })
        .collect();
    write_safetensors(&owned, &[], path)
}

/// Scores and labels of volumes: `scores` (float) and `labels` (bool, integer or float; 0 absent, 1 present, NaN or -1
/// unknown) of a `.safetensors` file, both `[volumes, labels]`.
///
/// # Errors
/// If the file cannot be read, lacks one, or they do not fit each other.
pub fn read_scores_and_labels(path: &Path) -> Result<(Values, Vec<Option<bool>>)> {
    let weights = Weights::open(path)?;
    let missing = |expected| Error::NoTensor {
        path: path.to_owned(),
        expected,
        found: weights.tensors.keys().take(10).cloned().collect(),
    };
    let scores = weights
        .tensors
        .get("scores")
        .ok_or_else(|| missing("`scores`"))?;
    let labels = weights
        .tensors
        .get("labels")
        .ok_or_else(|| missing("`labels`"))?;
    if scores.shape.len() != 2 || scores.shape != labels.shape {
        return Err(Error::TensorShape {
            path: path.to_owned(),
            tensor: "labels".to_owned(),
            found: labels.shape.clone(),
            expected: "[volumes, labels], as `scores`",
        });
    }
    let values = weights.read_f32("scores", scores)?;
    let bytes = std::fs::read(path).map_err(|source| Error::Read {
        path: path.to_owned(),
        source,
    })?;
    let failed = |source| Error::Safetensors {
        path: path.to_owned(),
        source,
    };
    let file = SafeTensors::deserialize(&bytes).map_err(failed)?;
    let view = file.tensor("labels").map_err(failed)?;
    let numbers: Vec<f64> = match view.dtype() {
        Dtype::BOOL | Dtype::U8 => view.data().iter().map(|byte| f64::from(*byte)).collect(),
        Dtype::I8 => view
            .data()
            .iter()
            .map(|byte| f64::from(byte.cast_signed()))
            .collect(),
        Dtype::I32 => decode(view.data(), |bytes| f64::from(i32::from_le_bytes(bytes))),
        Dtype::I64 => decode(view.data(), |bytes| i64::from_le_bytes(bytes) as f64),
        _ => weights
            .read_f32("labels", labels)?
            .into_iter()
            .map(f64::from)
            .collect(),
    };
    let known = |(index, number): (usize, f64)| match number {
        0.0 => Ok(Some(false)),
        1.0 => Ok(Some(true)),
        -1.0 => Ok(None),
        number if number.is_nan() => Ok(None),
        number => Err(Error::LabelValue {
            path: path.to_owned(),
            index,
            found: number,
        }),
    };
    let labels = numbers
        .into_iter()
        .enumerate()
        .map(known)
        .collect::<Result<_>>()?;
    Ok((
        Values {
            shape: scores.shape.clone(),
            values,
        },
        labels,
    ))
}

fn decode<const N: usize>(bytes: &[u8], number: impl Fn([u8; N]) -> f64) -> Vec<f64> {
    let (values, _) = bytes.as_chunks::<N>();
    values.iter().map(|&bytes| number(bytes)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("volume.safetensors");
        let volume = Values {
            shape: vec![1, 2, 1, 3],
            values: vec![0.5, -1.0, 2.0, 0.0, 1.0, -0.25],
        };
        write(&path, &[("volume", &volume)]).expect("it can be written");
        let read = read_volumes(&path).expect("it can be read");
        assert_eq!(read.shape, [1, 1, 2, 1, 3]);
        assert_eq!(read.values, volume.values);
    }

    #[test]
    fn files_without_volumes_are_refused_by_name_and_shape() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("other.safetensors");
        let flat = Values {
            shape: vec![2],
            values: vec![0.0; 2],
        };
        write(&path, &[("image", &flat)]).expect("it can be written");
        assert!(
            read_volumes(&path)
                .expect_err("no volume")
                .to_string()
                .contains("`image`")
        );
        write(&path, &[("volume", &flat)]).expect("it can be written");
        assert!(
            read_volumes(&path)
                .expect_err("no volume")
                .to_string()
                .contains("[2]")
        );
    }
}
