//! Detection: how probable is each abnormality in a volume, by the model's own words (zero-shot, SPEC section 7) or by the
//! head that fine-tuning gave it (section 9).

mod labelled;
mod latents;

use std::path::Path;

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use dcformer_volume::dataset::{Sample, ScanMetadata};
use dcformer_volume::geometry::Shape3;
use dcformer_volume::preprocess::{ModelInput, Note, Preprocess};
use dcformer_volume::scan::ScanOptions;
use rayon::prelude::*;
use serde::Serialize;

pub use self::labelled::LabelledScans;
use self::latents::Key;
pub(crate) use self::latents::PromptLatents;
use crate::checkpoint::{Model, ModelConfig, ModelFolder};
use crate::error::{Error, Result};
use crate::models::Clip;
use crate::tensors::rows;

/// An abnormality with its probability in one scan.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    /// Name of the abnormality.
    pub name: String,
    /// Probability that it is present, from 0 to 1.
    pub probability: f32,
    /// From which probability on it counts as present, if the model says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threshold: Option<f32>,
    /// Whether it counts as present, if the model has a threshold for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub present: Option<bool>,
}

/// A model that answers: with its prompts encoded, or by its head.
#[derive(Debug)]
pub struct Detector {
    /// Without its text tower: the prompts are encoded.
    clip: Clip,
    names: Vec<String>,
    /// One for each name, if the model has any.
    thresholds: Option<Vec<f32>>,
    /// `None` for a model that answers by its head.
    prompts: Option<PromptLatents>,
    preprocess: Preprocess,
    device: Device,
}

impl Detector {
    /// Encodes the prompts of a model, unless it has a head.
    ///
    /// # Errors
    /// If the model has no head, and no text encoder, vocabulary, projection or prompts.
    pub fn new(model: &Model, device: &Device) -> Result<Self> {
        if model.clip.classifier.is_some() {
            let clip = model.clip.clone().valid();
            return Ok(Self::answering(&model.config, clip, None, device));
        }
        let prompts = &model.config.prompts;
        let missing = |part, remedy| Error::MissingPart { part, remedy };
        // Before the vocabulary, which a model without text has not either.
        model.clip.text_tower()?;
        let tokenizer = model.tokenizer.as_ref().ok_or(missing(
            "vocabulary",
            "put its vocab.txt into the folder, or import it again with --vocab",
        ))?;
        if prompts.are_empty() {
            return Err(missing(
                "prompt",
                "name abnormalities and templates in its config.json",
            ));
        }
        let clip = model.clip.clone().valid();
        let prompts = PromptLatents::encode(&clip, tokenizer, prompts)?;
        Ok(Self::answering(&model.config, clip, Some(prompts), device))
    }

    /// Loads a model folder to detect with. The first time the prompts are encoded as by [`new`](Self::new), and their
    /// latents are kept in the folder, as `prompts.safetensors`; from then on, the text tower's weights are only read to
    /// see that they are the same. A folder that cannot be written to does as well, without the gain.
    ///
    /// # Errors
    /// As [`Model::load`] and [`new`](Self::new).
    pub fn open(folder: &Path, device: &Device) -> Result<Self> {
        let path = folder.join(latents::FILE);
        let folder = ModelFolder::open(folder, device)?;
        if folder.config.clip.classifier.is_some() {
            let (config, clip) = folder.into_image_model(device)?;
            return Ok(Self::answering(&config, clip.valid(), None, device));
        }
        let key = Key::of(&folder, device)?;
        let kept = key
            .as_ref()
            .and_then(|key| PromptLatents::read(&path, key, device));
        if kept.is_some() {
            let (config, clip) = folder.into_image_model(device)?;
            return Ok(Self::answering(&config, clip.valid(), kept, device));
        }
        let detector = Self::new(&folder.into_model(device)?, device)?;
        if let (Some(key), Some(prompts)) = (key, &detector.prompts) {
            prompts.keep(&path, &key);
        }
        Ok(detector)
    }

    /// By these prompts, or by the network's head.
    fn answering(
        config: &ModelConfig,
        clip: Clip,
        prompts: Option<PromptLatents>,
        device: &Device,
    ) -> Self {
        /// Of a label that fine-tuning has chosen none for.
        const HALF: f32 = 0.5;
        let names = config.label_names().to_vec();
        let threshold = |name| config.thresholds.get(name).copied().unwrap_or(HALF);
        Self {
            thresholds: (!config.thresholds.is_empty())
                .then(|| names.iter().map(threshold).collect()),
            names,
            clip: Clip { text: None, ..clip },
            prompts,
            preprocess: config.preprocess.clone(),
            device: device.clone(),
        }
    }

    /// Names of the abnormalities, in the order of the probabilities.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// From which probability on each abnormality counts as present, in the order of the names; `None` for a model that was
    /// not fine-tuned.
    pub fn thresholds(&self) -> Option<&[f32]> {
        self.thresholds.as_deref()
    }

    /// How scans become this model's volumes.
    pub fn preprocess(&self) -> &Preprocess {
        &self.preprocess
    }

    /// The same, to be changed for scans that are known to be otherwise.
    pub fn preprocess_mut(&mut self) -> &mut Preprocess {
        &mut self.preprocess
    }

    /// Probabilities for each volume of a batch.
    ///
    /// # Shapes
    /// - `volumes`: `[batch, 1, depth, height, width]`, values laid out so; `shape` holds the five sizes
    ///
    /// # Errors
    /// If the model has no projection.
    pub fn probabilities(&self, volumes: Vec<f32>, shape: [usize; 5]) -> Result<Vec<Vec<f32>>> {
        Ok(self.compare(self.encode(volumes, shape)?))
    }

    /// Latents of the volumes of a batch, as [`probabilities`](Self::probabilities) takes them.
    pub(crate) fn encode(&self, volumes: Vec<f32>, shape: [usize; 5]) -> Result<Tensor<2>> {
        let volumes = Tensor::<5>::from_data(TensorData::new(volumes, shape), &self.device);
        self.clip.encode_image(volumes)
    }

    /// Probabilities for each latent.
    pub(crate) fn compare(&self, latents: Tensor<2>) -> Vec<Vec<f32>> {
        let probabilities = match (&self.prompts, &self.clip.classifier) {
            (Some(PromptLatents { present, absent }), _) => {
                let scale = &self.clip.logit_scale;
                scale.probabilities(latents, present.clone(), absent.clone())
            }
            (None, Some(classifier)) => classifier.probabilities(latents),
            (None, None) => unreachable!("a detector has prompts or a head"),
        };
        rows(probabilities)
    }

    /// Probabilities for each scan of a data set, `[samples][abnormalities]`. `progress` is told how many are done.
    ///
    /// # Errors
    /// If a scan cannot be read or is no CT.
    pub fn score(&self, samples: &[Sample], progress: &dyn Fn(usize)) -> Result<Vec<Vec<f32>>> {
        let mut scores = Vec::with_capacity(samples.len());
        self.for_each_latent(samples, |latent| {
            scores.extend(self.compare(latent));
            progress(scores.len());
        })?;
        Ok(scores)
    }

    /// Reads scans, a few at a time, and hands the latent of each, `[1, latent]`, to `take`, in order.
    pub(crate) fn for_each_latent(
        &self,
        samples: &[Sample],
        mut take: impl FnMut(Tensor<2>),
    ) -> Result<()> {
        let read = |sample: &Sample| {
            self.preprocess
                .run_file(&sample.path, &sample.metadata, &ScanOptions::default())
        };
        read_in_turn(samples, read, |_, input| {
            let ModelInput { shape, values, .. } = input?;
            take(self.encode(values, batch_of_one(shape))?);
            Ok(())
        })
    }

    /// Findings in a scan on disk, and what was decided on the way.
    ///
    /// # Errors
    /// If the scan cannot be read or is no CT.
    pub fn detect(
        &self,
        path: &Path,
        metadata: &ScanMetadata,
        options: &ScanOptions,
    ) -> Result<(Vec<Finding>, Vec<Note>)> {
        let input = self.preprocess.run_file(path, metadata, options)?;
        let ModelInput {
            shape,
            values,
            notes,
            ..
        } = input;
        let probabilities = self.probabilities(values, batch_of_one(shape))?.remove(0);
        Ok((self.findings(&probabilities), notes))
    }

    /// Probabilities with their names.
    pub fn findings(&self, probabilities: &[f32]) -> Vec<Finding> {
        let finding = |(index, (name, &probability)): (usize, (&String, &f32))| {
            let threshold = self.thresholds.as_ref().map(|all| all[index]);
            Finding {
                name: name.clone(),
                probability,
                threshold,
                present: threshold.map(|threshold| probability >= threshold),
            }
        };
        let named = self.names.iter().zip(probabilities);
        named.enumerate().map(finding).collect()
    }
}

/// Reads items on all threads, a few at a time, and hands them to `take` in order.
///
/// # Errors
/// That of `take`.
pub(crate) fn read_in_turn<I: Sync, T: Send>(
    items: &[I],
    read: impl Fn(&I) -> T + Sync,
    mut take: impl FnMut(&I, T) -> Result<()>,
) -> Result<()> {
    /// Volumes in memory at once: two gigabytes at full size.
    const BATCH: usize = 8;
    for items in items.chunks(BATCH) {
        let inputs: Vec<T> = items.par_iter().map(&read).collect();
        for (item, input) in items.iter().zip(inputs) {
            take(item, input)?;
        }
    }
    Ok(())
}

/// The shape of a batch of one volume of one channel.
pub(crate) const fn batch_of_one(volume: Shape3) -> [usize; 5] {
    [1, 1, volume.depth, volume.height, volume.width]
}
