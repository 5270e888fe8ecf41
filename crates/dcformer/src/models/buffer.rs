//! A tensor that the forward pass moves and no optimiser trains: running statistics, codebooks.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use burn::module::{
    Content, Devices, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper, ModuleVisitor,
    Param, ParamId,
};
use burn::tensor::{Device, Tensor};

/// A tensor that belongs to a module's state, changes during the forward pass and takes no gradient.
///
/// Visitors and mappers meet it as a float parameter, so it is part of every record. A clone is a copy: what happens to
/// one does not show in the other (burn's `RunningState` shares its value between clones, and a record of it is one
/// update old).
pub struct Buffer<const D: usize> {
    id: ParamId,
    value: Mutex<Tensor<D>>,
}

impl<const D: usize> Buffer<D> {
    /// A buffer that starts as `value`.
    pub fn new(value: Tensor<D>) -> Self {
        Self::with_id(ParamId::new(), value)
    }

    fn with_id(id: ParamId, value: Tensor<D>) -> Self {
        Self {
            id,
            value: Mutex::new(value),
        }
    }

    /// The present value.
    pub fn value(&self) -> Tensor<D> {
        // A tensor is replaced whole, so a panic elsewhere cannot leave half of one behind.
        self.value
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Replaces the value; no gradient passes through it.
    pub fn set(&self, value: Tensor<D>) {
        *self.value.lock().unwrap_or_else(PoisonError::into_inner) = value.detach();
    }

    fn with(self, change: impl FnOnce(Tensor<D>) -> Tensor<D>) -> Self {
        let value = change(self.value());
        Self::with_id(self.id, value)
    }
}

impl<const D: usize> Clone for Buffer<D> {
    fn clone(&self) -> Self {
        Self::with_id(self.id, self.value())
    }
}

impl<const D: usize> fmt::Debug for Buffer<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffer")
            .field("id", &self.id)
            .field("shape", &self.value().dims())
            .finish()
    }
}

impl<const D: usize> Module for Buffer<D> {
    fn collect_devices(&self, mut devices: Devices) -> Devices {
        let device = self.value().device();
        if !devices.contains(&device) {
            devices.push(device);
        }
        devices
    }

    fn fork(self, device: &Device) -> Self {
        self.to_device(device)
    }

    fn to_device(self, device: &Device) -> Self {
        self.with(|value| value.to_device(device))
    }

    fn train(self) -> Self {
        self.with(|value| {
            if value.is_autodiff() {
                value
            } else {
                Tensor::from_inner(value)
            }
        })
    }

    fn valid(&self) -> Self {
        Self::with_id(self.id, self.value().without_autodiff())
    }

    fn materialize(self) -> Self {
        self
    }

    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        visitor.visit_float(&Param::initialized(self.id, self.value()));
    }

    fn map<M: ModuleMapper>(self, mapper: &mut M) -> Self {
        let (id, value, _) = mapper
            .map_float(Param::initialized(self.id, self.value()))
            .consume();
        // `unfreeze` asks every float parameter for gradients; a buffer has none.
        Self::with_id(id, value.set_require_grad(false))
    }
}

impl<const D: usize> ModuleDisplayDefault for Buffer<D> {
    fn content(&self, content: Content) -> Option<Content> {
        content
            .add_formatted(&format!("Buffer {{shape: {:?}}}", self.value().dims()))
            .optional()
    }
}

impl<const D: usize> ModuleDisplay for Buffer<D> {}
