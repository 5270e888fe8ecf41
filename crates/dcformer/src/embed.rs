//! Volumes to latents and features.

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};

use crate::checkpoint::Model;
use crate::error::Result;
use crate::models::{Clip, Statistics};
use crate::tensors::Values;

/// A model's image tower, ready for inference.
#[derive(Debug)]
pub struct Embedder {
    clip: Clip,
    device: Device,
}

/// What an image tower makes of volumes.
#[derive(Clone, Debug, PartialEq)]
pub struct Embedded {
    /// `[volumes, latent]`, rows of unit length; `None` if the model has no projection.
    pub latents: Option<Values>,
    /// `[volumes, depth, height, width, channels]` of the encoder's last grid.
    pub features: Values,
}

impl Embedder {
    /// Takes the image tower of a model.
    pub fn new(model: &Model, device: &Device) -> Self {
        Self {
            clip: model.clip.clone().valid(),
            device: device.clone(),
        }
    }

    /// Embeds volumes, `[batch, 1, depth, height, width]`.
    ///
    /// # Errors
    /// [`Error::VolumeSize`](crate::Error::VolumeSize) if the network cannot take volumes of this size.
    ///
    /// # Panics
    /// If the volumes have another number of sizes.
    pub fn embed(&self, volumes: &Values) -> Result<Embedded> {
        let shape: [usize; 5] = volumes
            .shape
            .clone()
            .try_into()
            .expect("volumes have five sizes");
        self.clip.image.check_volume(shape)?;
        let data = TensorData::new(volumes.values.clone(), shape);
        let volumes = Tensor::<5>::from_data(data, &self.device);
        let features = self.clip.image.features(volumes, Statistics::ByDevice);
        let latents = self.clip.image.latent(features.clone());
        Ok(Embedded {
            latents: latents.map(values),
            features: values(features),
        })
    }
}

fn values<const D: usize>(tensor: Tensor<D>) -> Values {
    let shape = tensor.dims().to_vec();
    Values {
        shape,
        values: tensor
            .into_data()
            .try_to_vec()
            .expect("features are single precision"),
    }
}
