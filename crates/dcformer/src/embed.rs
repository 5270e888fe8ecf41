//! Volumes to latents and features, reports to latents.

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use dcformer_volume::preprocess::ModelInput;

use crate::checkpoint::Model;
use crate::detect::batch_of_one;
use crate::error::{Error, Result};
use crate::models::{Clip, Statistics};
use crate::tensors::{Values, rows};
use crate::text::{ReportText, Tokenizer, sentences};

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

    /// The latent of a volume, of unit length.
    ///
    /// # Errors
    /// If the model has no projection, or the network cannot take volumes of this size.
    pub fn latent(&self, input: ModelInput) -> Result<Vec<f32>> {
        let data = TensorData::new(input.values, batch_of_one(input.shape));
        let latents = self
            .clip
            .encode_image(Tensor::from_data(data, &self.device))?;
        Ok(rows(latents).remove(0))
    }

    /// Embeds volumes, `[batch, 1, depth, height, width]`.
    ///
    /// # Errors
    /// [`Error::VolumeSize`] if the network cannot take volumes of this size.
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

/// A model's text tower, ready for inference.
#[derive(Debug)]
pub struct ReportEmbedder {
    /// Whole, since weights are shared with whoever else holds them.
    clip: Clip,
    tokenizer: Tokenizer,
    seen: ReportText,
}

impl ReportEmbedder {
    /// Takes the text tower of a model, which reads of a report what its training did.
    ///
    /// # Errors
    /// If the model has no text encoder or no vocabulary.
    pub fn new(model: &Model) -> Result<Self> {
        Self::with_text(model, model.config.report)
    }

    /// The same for a model whose training is known to have read `seen` of a report.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_text(model: &Model, seen: ReportText) -> Result<Self> {
        model.clip.text_tower()?;
        let tokenizer = model.tokenizer.clone().ok_or(Error::MissingPart {
            part: "vocabulary",
            remedy: "put its vocab.txt into the folder, or import it again with --vocab",
        })?;
        Ok(Self {
            clip: model.clip.clone().valid(),
            tokenizer,
            seen,
        })
    }

    /// Latents of reports, `[reports][latent]`, of unit length: of the whole text where training read whole texts; where it
    /// read single sentences, the mean over all sentences, since a whole report is then nothing that the text encoder knows.
    ///
    /// # Errors
    /// [`Error::Tokenize`]
    pub fn embed(&self, reports: &[&str]) -> Result<Vec<Vec<f32>>> {
        /// Reports encoded at once.
        const BATCH: usize = 32;
        let mut latents = Vec::with_capacity(reports.len());
        for reports in reports.chunks(BATCH) {
            let texts: Vec<Vec<&str>> = reports.iter().map(|report| self.texts(report)).collect();
            let batch = self.tokenizer.encode_batch(&texts.concat())?;
            let mut encoded = rows(self.clip.encode_text(&batch)?).into_iter();
            latents.extend(texts.iter().map(|texts| {
                let of_report: Vec<Vec<f32>> = encoded.by_ref().take(texts.len()).collect();
                unit_mean(&of_report)
            }));
        }
        Ok(latents)
    }

    /// What is read of a report; at least one text.
    fn texts<'a>(&self, report: &'a str) -> Vec<&'a str> {
        let parts: Vec<&str> = match self.seen {
            ReportText::Whole | ReportText::Shuffled => Vec::new(),
            ReportText::Sentences { .. } => sentences(report).collect(),
        };
        if parts.is_empty() {
            vec![report]
        } else {
            parts
        }
    }
}

/// The mean of rows of one length, scaled to unit length; zero stays zero.
fn unit_mean(rows: &[Vec<f32>]) -> Vec<f32> {
    let mut sum = vec![0.0f64; rows.first().map_or(0, Vec::len)];
    for row in rows {
        sum.iter_mut()
            .zip(row)
            .for_each(|(sum, value)| *sum += f64::from(*value));
    }
    let length = sum.iter().map(|value| value * value).sum::<f64>().sqrt();
    let scale = if length > 0.0 { 1.0 / length } else { 0.0 };
    sum.into_iter()
        .map(|value| (value * scale) as f32)
        .collect()
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

#[cfg(test)]
mod tests {
    use super::unit_mean;

    #[test]
    fn a_report_is_the_direction_between_its_sentences() {
        assert_eq!(unit_mean(&[vec![1.0, 0.0]]), [1.0, 0.0]);
        let between = unit_mean(&[vec![1.0, 0.0], vec![0.0, 1.0]]);
        let diagonal = std::f32::consts::FRAC_1_SQRT_2;
        assert_eq!(between, [diagonal, diagonal]);
        assert_eq!(unit_mean(&[vec![1.0, 0.0], vec![-1.0, 0.0]]), [0.0, 0.0]);
    }
}
