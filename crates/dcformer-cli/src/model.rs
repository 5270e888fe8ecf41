//! The model of a folder.

use std::path::Path;

use anyhow::Context;
use dcformer::Device;
use dcformer::checkpoint::Model;

/// Loads it, all of it.
pub(crate) fn load(folder: &Path, device: &Device) -> anyhow::Result<Model> {
    Model::load(folder, device)
        .with_context(|| format!("cannot load the model in {}", folder.display()))
}
