//! What a module computes from its weights once, and again when the weights change.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use burn::module::{
    Content, Devices, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper, ModuleVisitor,
};
use burn::tensor::Device;

/// Weights in the form that inference wants, computed at first use.
///
/// It sits in the module tree and forgets its content whenever the tree is mapped, moved or changes between training and
/// inference: every way that weights can change. Callers use it only where weights are not tracked.
pub(crate) struct Cache<T>(Mutex<Option<T>>);

impl<T: Clone> Cache<T> {
    /// The content, computed by `compute` if there is none.
    pub(crate) fn get_or(&self, compute: impl FnOnce() -> T) -> T {
        let mut content = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        content.get_or_insert_with(compute).clone()
    }

    /// Forgets the content.
    pub(crate) fn clear(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl<T> Default for Cache<T> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

/// A clone starts with the same content and goes its own way from there.
impl<T: Clone> Clone for Cache<T> {
    fn clone(&self) -> Self {
        Self(Mutex::new(
            self.0
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone(),
        ))
    }
}

impl<T> fmt::Debug for Cache<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cache")
    }
}

impl<T: Clone + Send> Module for Cache<T> {
    fn collect_devices(&self, devices: Devices) -> Devices {
        devices
    }

    fn fork(self, _device: &Device) -> Self {
        Self::default()
    }

    fn to_device(self, _device: &Device) -> Self {
        Self::default()
    }

    fn train(self) -> Self {
        Self::default()
    }

    fn valid(&self) -> Self {
        Self::default()
    }

    fn materialize(self) -> Self {
        Self::default()
    }

    fn visit<V: ModuleVisitor>(&self, _visitor: &mut V) {}

    fn map<M: ModuleMapper>(self, _mapper: &mut M) -> Self {
        Self::default()
    }
}

impl<T> ModuleDisplayDefault for Cache<T> {
    fn content(&self, content: Content) -> Option<Content> {
        content.optional()
    }
}

impl<T> ModuleDisplay for Cache<T> {}
