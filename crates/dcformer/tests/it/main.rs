//! Behaviour of the crate through its public face.

// How far lists of numbers are apart.
mod distance;
// Reading and writing weights, and what is said when they do not fit.
mod checkpoint;
// Checkpoints of CT-CLIP.
mod ct_clip;
// The recipes that come with the project.
mod configs;
// The networks of the comparison against descriptions of them in PyTorch.
mod encoders;
// Values of the authors' code.
mod golden;
// Gradients under the names of an export.
mod gradients;
// Files that are damaged, or made to do harm.
mod hostile;
// The random numbers that golden inputs are made from.
mod pytorch;
// Text encoders and models as hubs have them.
mod text;
// Small runs on phantoms.
mod training;
// Runs that several workers share.
mod workers;

use std::collections::BTreeMap;
use std::path::PathBuf;

pub(crate) use self::distance::distance;
use burn::tensor::{Device, Tensor, TensorData};
use safetensors::{Dtype, SafeTensors};

/// The file of expected values called `name`; `golden/README.md` says how it was made.
pub(crate) fn golden_file(name: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../golden")
        .join(name);
    assert!(
        path.exists(),
        "{} is missing; it belongs to the repository",
        path.display()
    );
    path
}

/// Named float tensors of a `.safetensors` file.
#[derive(Debug)]
pub(crate) struct Tensors(BTreeMap<String, (Vec<usize>, Vec<f32>)>);

impl Tensors {
    pub(crate) fn golden(name: &str) -> Self {
        Self::read(&golden_file(&format!("{name}.safetensors")))
    }

    /// Reads the float32 tensors of a file.
    pub(crate) fn read(path: &std::path::Path) -> Self {
        let bytes = std::fs::read(path).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let floats = file.iter().filter(|(_, view)| view.dtype() == Dtype::F32);
        let tensors = floats.map(|(name, view)| {
            let (values, _) = view.data().as_chunks::<4>();
            let values = values
                .iter()
                .map(|&value| f32::from_le_bytes(value))
                .collect();
            (name.to_owned(), (view.shape().to_vec(), values))
        });
        Self(tensors.collect())
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    pub(crate) fn shape(&self, name: &str) -> &[usize] {
        &self.entry(name).0
    }

    pub(crate) fn values(&self, name: &str) -> &[f32] {
        &self.entry(name).1
    }

    pub(crate) fn tensor<const D: usize>(&self, name: &str, device: &Device) -> Tensor<D> {
        let (shape, values) = self.entry(name);
        Tensor::from_data(TensorData::new(values.clone(), shape.clone()), device)
    }

    fn entry(&self, name: &str) -> &(Vec<usize>, Vec<f32>) {
        self.0
            .get(name)
            .unwrap_or_else(|| panic!("no tensor `{name}`"))
    }
}

pub(crate) fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_to_vec().unwrap()
}

pub(crate) fn largest(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |most, value| value.abs().max(most))
}
