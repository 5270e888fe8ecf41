//! Work to be timed: one volume through an encoder, one step of training, the prompts of a model.

use burn::module::Module;
use burn::tensor::{Device, Distribution, Tensor};

use crate::checkpoint::Model;
use crate::complexity::Shape3;
use crate::detect::Detector;
use crate::error::Result;
use crate::models::{Encoder as _, ImageEncoder, ImageEncoderConfig, Statistics};
use crate::train::{AdamW, OptimizerConfig, ParameterGradients};

/// The instruction set that the kernels use here.
pub fn simd_level() -> String {
    dcformer_kernels::simd::Level::current().to_string()
}

/// An encoder and a volume.
#[derive(Debug)]
pub struct Encoder {
    encoder: ImageEncoder,
    volume: Tensor<5>,
}

impl Encoder {
    /// Fresh weights and noise.
    ///
    /// # Errors
    /// [`Error::VolumeSize`](crate::Error::VolumeSize) if the encoder cannot take volumes of this shape.
    pub fn new(
        config: &ImageEncoderConfig,
        shape: Shape3,
        seed: u64,
        device: &Device,
    ) -> Result<Self> {
        config.grid(shape)?;
        device.seed(seed);
        Ok(Self {
            encoder: config.init(device).materialize(),
            volume: noise(1, shape, device),
        })
    }

    /// The encoder of a model and noise.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn of_model(model: &Model, shape: Shape3, seed: u64, device: &Device) -> Result<Self> {
        model.config.clip.image.encoder.grid(shape)?;
        device.seed(seed);
        Ok(Self {
            encoder: model.clip.image.encoder().clone().valid(),
            volume: noise(1, shape, device),
        })
    }

    /// One forward pass, the result waited for.
    pub fn run(&self) {
        drop(
            self.encoder
                .forward(self.volume.clone(), Statistics::ByDevice)
                .into_data(),
        );
    }
}

/// The prompts of a model, encoded as detection does once at its start.
///
/// # Errors
/// As [`Detector::new`].
pub fn encode_prompts(model: &Model, device: &Device) -> Result<()> {
    Detector::new(model, device).map(drop)
}

/// An encoder in training.
#[derive(Debug)]
pub struct TrainStep {
    encoder: Option<ImageEncoder>,
    optimizer: AdamW,
    volumes: Tensor<5>,
}

impl TrainStep {
    /// Fresh weights and noise.
    ///
    /// # Errors
    /// As [`Encoder::new`].
    pub fn new(
        config: &ImageEncoderConfig,
        batch: usize,
        shape: Shape3,
        seed: u64,
        device: &Device,
    ) -> Result<Self> {
        config.grid(shape)?;
        device.seed(seed);
        let device = device.clone().autodiff();
        Ok(Self {
            encoder: Some(config.init(&device).train().materialize()),
            optimizer: AdamW::new(OptimizerConfig::default()),
            volumes: noise(batch, shape, &device),
        })
    }

    /// Forward pass, gradients of the mean square of the features, AdamW.
    pub fn run(&mut self) {
        let encoder = self.encoder.take().expect("every run puts it back");
        let loss = encoder
            .forward(self.volumes.clone(), Statistics::ByDevice)
            .powi_scalar(2)
            .mean();
        let mut gradients = ParameterGradients::default();
        gradients.add(&encoder, &loss.backward(), 1.0);
        self.encoder = Some(self.optimizer.step(encoder, &gradients, 1e-5));
    }
}

fn noise(batch: usize, shape: Shape3, device: &Device) -> Tensor<5> {
    Tensor::random(
        [batch, 1, shape.depth, shape.height, shape.width],
        Distribution::Uniform(-1.0, 1.0),
        device,
    )
}
