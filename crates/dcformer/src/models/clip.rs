//! CLIP: image and text to latents of unit length in one space (paper section 3, SPEC section 3).
//!
//! ```text
//! image: encoder -> quantizer? -> reduction -> projection -> unit length
//! text:  BERT -> [CLS] -> head? -> projection -> unit length
//! ```

use std::fmt;

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Tensor};
use dcformer_kernels::on_workers;
use serde::{Deserialize, Serialize};

use super::batch_norm::Statistics;
use super::bert::{Bert, BertConfig, TextBatch, indices};
use super::classifier::{Classifier, ClassifierConfig};
use super::encoder::{Encoder, ImageEncoder, ImageEncoderConfig};
use super::quantizer::{VectorQuantizer, VectorQuantizerConfig};
use super::similarity::{LogitScale, Temperature, unit_rows};
use crate::complexity::Shape3;
use crate::error::{Error, Result};

/// Length of a latent (paper section 3).
pub const LATENT: usize = 512;

/// What a [`Clip`] consists of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClipConfig {
    /// From volume to latent.
    pub image: ImageTowerConfig,
    /// From text to latent; a model without one only encodes images.
    pub text: Option<TextTowerConfig>,
    /// How similarities become logits.
    #[serde(default)]
    pub temperature: Temperature,
    /// From the latent of a volume to labels; a model that was fine-tuned with a head has one, and answers by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classifier: Option<ClassifierConfig>,
}

impl ClipConfig {
    /// The paper's model: an encoder, the mean over the grid, 512 numbers; and a text encoder.
    pub fn new(encoder: ImageEncoderConfig, text: BertConfig) -> Self {
        let projection = ProjectionConfig {
            inputs: encoder.features(),
            outputs: LATENT,
            bias: false,
        };
        Self {
            image: ImageTowerConfig {
                encoder,
                quantizer: None,
                reduction: Reduction::Channel,
                projection: Some(projection),
            },
            text: Some(TextTowerConfig {
                encoder: text,
                latent: LATENT,
                bias: false,
            }),
            temperature: Temperature::AUTHORS,
            classifier: None,
        }
    }

    /// Builds the model with fresh weights on `device`.
    pub fn init(&self, device: &Device) -> Clip {
        Clip {
            image: self.image.init(device),
            text: self.text.as_ref().map(|text| text.init(device)),
            logit_scale: self.temperature.init(device),
            classifier: self
                .classifier
                .as_ref()
                .map(|classifier| classifier.init(device)),
        }
    }
}

/// What the image tower consists of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageTowerConfig {
    /// From volume to a grid of features.
    pub encoder: ImageEncoderConfig,
    /// Replaces features by codes; the authors' checkpoints have it.
    #[serde(default)]
    pub quantizer: Option<VectorQuantizerConfig>,
    /// From a grid of features to one vector.
    #[serde(default)]
    pub reduction: Reduction,
    /// From that vector to the latent; a bare encoder has none.
    #[serde(default)]
    pub projection: Option<ProjectionConfig>,
}

impl ImageTowerConfig {
    fn init(&self, device: &Device) -> ImageTower {
        ImageTower {
            encoder: self.encoder.init(device),
            quantizer: self
                .quantizer
                .as_ref()
                .map(|quantizer| quantizer.init(device)),
            projection: self
                .projection
                .as_ref()
                .map(|projection| projection.init(device)),
            config: self.clone(),
        }
    }

    /// Chooses how grids become vectors, and fits the projection to those of volumes of this size.
    ///
    /// # Errors
    /// [`Error::VolumeSize`] if the encoder cannot take such volumes.
    pub fn reduce(&mut self, reduction: Reduction, volume: Shape3) -> Result<()> {
        let grid = self.encoder.grid(volume)?;
        self.reduction = reduction;
        if let Some(projection) = &mut self.projection {
            projection.inputs = reduction.values(grid, self.encoder.features());
        }
        Ok(())
    }

    /// Refuses volumes of a size that the encoder or the projection cannot take.
    ///
    /// # Errors
    /// [`Error::VolumeSize`]
    pub fn check_volume(&self, volume: Shape3) -> Result<()> {
        let grid = self.encoder.grid(volume)?;
        let found = self.reduction.values(grid, self.encoder.features());
        match self.projection {
            Some(ProjectionConfig { inputs, .. }) if inputs != found => Err(Error::VolumeSize {
                network: "the projection to latents",
                found: volume,
                expected: format!(
                    "a size whose {} has {inputs} values, as those of training had; this one has {found}",
                    self.reduction
                ),
            }),
            _ => Ok(()),
        }
    }
}

/// Sizes of a projection to latents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProjectionConfig {
    /// Length of the reduced features: channels, times grid positions where the reduction flattens.
    pub inputs: usize,
    /// Length of the latent.
    pub outputs: usize,
    /// Whether a bias is added: the follow-up project does, the authors do not.
    #[serde(default)]
    pub bias: bool,
}

impl ProjectionConfig {
    fn init(&self, device: &Device) -> Linear {
        LinearConfig::new(self.inputs, self.outputs)
            .with_bias(self.bias)
            .init(device)
    }
}

/// What the text tower consists of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextTowerConfig {
    /// From tokens to features.
    pub encoder: BertConfig,
    /// Length of the latent.
    pub latent: usize,
    /// Whether the projection to the latent adds a bias, as [`ProjectionConfig::bias`].
    #[serde(default)]
    pub bias: bool,
}

impl TextTowerConfig {
    fn init(&self, device: &Device) -> TextTower {
        let projection = ProjectionConfig {
            inputs: self.encoder.features(),
            outputs: self.latent,
            bias: self.bias,
        };
        TextTower {
            encoder: self.encoder.init(device),
            projection: projection.init(device),
        }
    }
}

/// From a grid of features to one vector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reduction {
    /// The mean over the grid: the paper, and the authors' training script.
    #[default]
    Channel,
    /// The mean over depth; height, width and channels are flattened in this order.
    Depth,
    /// No mean; depth, height, width and channels are flattened in this order.
    None,
}

impl fmt::Display for Reduction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Channel => "mean over the grid",
            Self::Depth => "mean over depth",
            Self::None => "grid of features",
        })
    }
}

impl Reduction {
    /// Values that a grid of features becomes.
    pub const fn values(self, grid: Shape3, channels: usize) -> usize {
        let positions = match self {
            Self::Channel => 1,
            Self::Depth => grid.height * grid.width,
            Self::None => grid.voxels(),
        };
        positions * channels
    }

    /// # Shapes
    /// - `x`: `[batch, depth, height, width, channels]`; output: `[batch, values]`
    pub fn forward(self, x: Tensor<5>) -> Tensor<2> {
        let [batch, depth, height, width, channels] = x.dims();
        match self {
            Self::Channel => x
                .reshape([batch, depth * height * width, channels])
                .mean_dim(1)
                .squeeze_dim(1),
            Self::Depth => x.mean_dim(1).reshape([batch, height * width * channels]),
            Self::None => x.reshape([batch, depth * height * width * channels]),
        }
    }
}

/// Volume to latent.
#[derive(Module, Debug)]
pub struct ImageTower {
    encoder: ImageEncoder,
    quantizer: Option<VectorQuantizer>,
    projection: Option<Linear>,
    #[module(skip)]
    config: ImageTowerConfig,
}

impl ImageTower {
    /// The network before quantizer, reduction and projection.
    pub fn encoder(&self) -> &ImageEncoder {
        &self.encoder
    }

    /// Features before quantizer, reduction and projection.
    ///
    /// # Shapes
    /// As [`Encoder::forward`].
    ///
    /// # Panics
    /// If the volume is of a size that [`check_volume`](Self::check_volume) refuses.
    pub fn features(&self, volume: Tensor<5>, statistics: Statistics) -> Tensor<5> {
        self.encoder.forward(volume, statistics)
    }

    /// From features to latent; `None` if the model has no projection.
    ///
    /// # Shapes
    /// - `features`: as [`Encoder::forward`]'s output; output: `[batch, latent]`, rows of unit length
    ///
    /// # Panics
    /// If the reduced features are not as long as the projection's inputs: a volume of another size than the projection
    /// was made for, where the reduction flattens.
    pub fn latent(&self, features: Tensor<5>) -> Option<Tensor<2>> {
        let projection = self.projection.as_ref()?;
        let reduced = self.config.reduction.forward(self.quantized(features));
        Some(unit_rows(projection.forward(reduced)))
    }

    /// Every feature replaced by its code, if the model has a quantizer.
    ///
    /// # Shapes
    /// As [`Encoder::forward`]'s output.
    pub fn quantized(&self, features: Tensor<5>) -> Tensor<5> {
        match &self.quantizer {
            Some(quantizer) => quantizer.forward(features),
            None => features,
        }
    }

    /// Refuses volumes, `[batch, 1, depth, height, width]`, of a size that the tower cannot take.
    ///
    /// # Errors
    /// [`Error::VolumeSize`]
    pub fn check_volume(&self, volumes: [usize; 5]) -> Result<()> {
        let [_, _, depth, height, width] = volumes;
        self.config.check_volume(Shape3 {
            depth,
            height,
            width,
        })
    }

    /// Starts the projection from features of some volumes, so that their latents differ from the first step on: channels
    /// count by how much they vary, and what all volumes share projects to nothing. Without it, features of volumes of
    /// one anatomy are nearly parallel, and so are the latents of fresh weights; a contrastive loss is flat there.
    ///
    /// ```text
    /// projection <- diag(1 / s) (1 - u u^T) projection        u = (m / s) / |m / s|,  m, s: mean, deviation per feature
    /// ```
    ///
    /// # Shapes
    /// - `features`: as [`Encoder::forward`]'s output, of at least two volumes
    pub(crate) fn spread_latents(&mut self, features: Tensor<5>) {
        /// Added to the variance of a feature, relative to the mean variance: a constant feature stays finite.
        const FLOOR: f64 = 1e-3;
        let Some(projection) = &mut self.projection else {
            return;
        };
        let reduced = self.config.reduction.forward(features);
        let (variance, mean) = reduced.var_mean_bias(0);
        let floor = variance.clone().mean().unsqueeze_dim(0) * FLOOR;
        let weight = (variance + floor).sqrt().recip();
        let shared = unit_rows(mean * weight.clone());
        let device = shared.device();
        projection.weight = projection.weight.clone().map(|fresh| {
            let rows = Tensor::from_data(fresh.into_data(), &device);
            let along = shared.clone().matmul(rows.clone());
            let spread = (rows - shared.transpose().matmul(along)) * weight.transpose();
            spread.require_grad()
        });
    }

    /// The tower without its quantizer, whatever its weights were trained with.
    #[must_use]
    pub fn without_quantizer(mut self) -> Self {
        self.quantizer = None;
        self.config.quantizer = None;
        self
    }
}

/// Text to latent.
#[derive(Module, Debug)]
pub struct TextTower {
    encoder: Bert,
    projection: Linear,
}

impl TextTower {
    /// Replaces the encoder: a run that starts from published text weights.
    pub(crate) fn set_encoder(&mut self, encoder: Bert) {
        self.encoder = encoder;
    }

    /// Latents of texts. A text that comes several times, as sentences of reports do, is computed once; in training its
    /// copies then share what dropout leaves of it.
    ///
    /// # Shapes
    /// - output: `[texts, latent]`, rows of unit length
    ///
    /// # Panics
    /// As [`Bert::forward`].
    pub fn latent(&self, batch: &TextBatch) -> Tensor<2> {
        let (distinct, which) = batch.distinct();
        let latents = unit_rows(self.projection.forward(self.encoder.forward_cls(&distinct)));
        if distinct.len() == batch.len() {
            return latents;
        }
        let which = indices(which.into_iter(), &latents.device());
        latents.select(0, which)
    }
}

/// An image tower and a text tower that meet in one space.
#[derive(Module, Debug)]
pub struct Clip {
    /// Volume to latent.
    pub image: ImageTower,
    /// Text to latent.
    pub text: Option<TextTower>,
    /// Similarities to logits.
    pub logit_scale: LogitScale,
    /// Latent of a volume to labels, after fine-tuning with a head.
    pub classifier: Option<Classifier>,
}

impl Clip {
    /// Volumes to latents.
    ///
    /// # Shapes
    /// - `volume`: `[batch, 1, depth, height, width]`; output: `[batch, latent]`, rows of unit length
    ///
    /// # Errors
    /// [`Error::MissingPart`] if the model is a bare encoder, [`Error::VolumeSize`] if it cannot take such volumes.
    pub fn encode_image(&self, volume: Tensor<5>) -> Result<Tensor<2>> {
        self.encode_image_with(volume, Statistics::ByDevice)
    }

    /// [`encode_image`](Self::encode_image), with a choice of the norms' statistics.
    ///
    /// # Errors
    /// As [`encode_image`](Self::encode_image).
    pub fn encode_image_with(
        &self,
        volume: Tensor<5>,
        statistics: Statistics,
    ) -> Result<Tensor<2>> {
        self.image.check_volume(volume.dims())?;
        let features = self.image.features(volume, statistics);
        self.image.latent(features).ok_or(Error::MissingPart {
            part: "projection to latents",
            remedy: "use its features, or a model that was trained with text",
        })
    }

    /// Texts to latents.
    ///
    /// # Shapes
    /// - output: `[texts, latent]`, rows of unit length
    ///
    /// # Errors
    /// [`Error::MissingPart`] if the model has no text tower.
    ///
    /// # Panics
    /// As [`Bert::forward`].
    pub fn encode_text(&self, batch: &TextBatch) -> Result<Tensor<2>> {
        let tower = self.text_tower()?;
        Ok(on_workers(|| tower.latent(batch)))
    }

    /// The text tower of a model that must have one.
    pub(crate) fn text_tower(&self) -> Result<&TextTower> {
        self.text.as_ref().ok_or(Error::MissingPart {
            part: "text encoder",
            remedy: "use a model that was trained with text",
        })
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::TensorData;

    use super::*;
    use crate::models::DcformerEncoderConfig;

    #[test]
    fn reductions_keep_the_order_depth_height_width_channels() {
        let values: Vec<f32> = (0..24).map(|value| value as f32).collect();
        let data = TensorData::new(values.clone(), [1, 2, 3, 2, 2]);
        let features = Tensor::<5>::from_data(data, &Device::flex());
        let reduced = |reduction: Reduction| -> Vec<f32> {
            reduction
                .forward(features.clone())
                .into_data()
                .try_to_vec()
                .unwrap()
        };
        assert_eq!(reduced(Reduction::None), values);
        assert_eq!(reduced(Reduction::Channel), [11.0, 12.0]);
        let over_depth: Vec<f32> = (0..12).map(|value| value as f32 + 6.0).collect();
        assert_eq!(reduced(Reduction::Depth), over_depth);
    }

    #[test]
    fn a_model_without_a_part_says_so() {
        let encoder = DcformerEncoderConfig::new([2; 5], [1; 4]);
        let mut config =
            ClipConfig::new(ImageEncoderConfig::Dcformer(encoder), BertConfig::tiny(10));
        config.image.projection = None;
        config.text = None;
        let clip = config.init(&Device::flex());
        let volume = Tensor::zeros([1, 1, 4, 4, 4], &Device::flex());
        let message = clip.encode_image(volume).unwrap_err().to_string();
        assert!(message.contains("projection"), "{message}");
        let message = clip
            .encode_text(&TextBatch::new(&[[1]]))
            .unwrap_err()
            .to_string();
        assert!(message.contains("text encoder"), "{message}");
    }
}
