//! Gradients of a model's parameters under the names of an export.

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Gradients, Tensor};
use dcformer::checkpoint::{Duplicates, Model, export};

use crate::Tensors;

/// What an export of the model would hold if each parameter were its gradient, and 0 where it has none; buffers stay.
pub(crate) fn exported_gradients(model: Model, gradients: &Gradients) -> Tensors {
    exported_tensors(&Model {
        clip: model.clip.map(&mut ToGradients(gradients)),
        ..model
    })
}

/// What an export of the model holds.
pub(crate) fn exported_tensors(model: &Model) -> Tensors {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("exported.safetensors");
    export(model, &path, Duplicates::Omit).unwrap();
    Tensors::read(&path)
}

struct ToGradients<'a>(&'a Gradients);

impl ModuleMapper for ToGradients<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if !param.is_require_grad() {
            return param;
        }
        param.map(|value| {
            let none = || value.zeros_like().without_autodiff();
            value.grad(self.0).unwrap_or_else(none)
        })
    }
}
