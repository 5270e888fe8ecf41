//! Work to be timed: one volume through an encoder, one step of training, of the encoder alone or of pairs, the prompts of a
//! model, a detection, a search.

use std::path::Path;
use std::time::Instant;

use burn::module::Module;
use burn::tensor::{Device, Distribution, Tensor};
use dcformer_volume::dataset::ScanMetadata;
use dcformer_volume::scan::ScanOptions;
use rayon::prelude::*;
use serde::Serialize;

use crate::checkpoint::Model;
use crate::complexity::Shape3;
use crate::detect::{Detector, batch_of_one};
use crate::error::Result;
use crate::models::{
    BertConfig, Clip, ClipConfig, Encoder as _, ImageEncoder, ImageEncoderConfig, Statistics,
    TextBatch,
};
use crate::random::Random;
use crate::search::{Hit, LatentIndex};
use crate::train::{
    AdamW, BatchNormStatistics, Contrast, OptimizerConfig, PairBatch, ParameterGradients, backward,
};

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

/// Random latents to search, and queries.
#[derive(Debug)]
pub struct Search {
    index: LatentIndex,
    random: Random,
}

impl Search {
    /// As many directions, all equally likely, each of a study of its own.
    ///
    /// # Panics
    /// If there are more than 2^32 rows, or `width` is 0.
    pub fn new(rows: usize, width: usize, seed: u64) -> Self {
        let studies = u32::try_from(rows).expect("rows can be numbered");
        let mut latents = vec![0.0; rows * width];
        latents
            .par_chunks_mut(width)
            .enumerate()
            .for_each(|(row, latent)| {
                let mut random = Random::new(seed, "latent to search", row as u64);
                latent.copy_from_slice(&direction(width, &mut random));
            });
        Self {
            index: LatentIndex::new(latents, width, (0..studies).collect()),
            random: Random::new(seed, "query", 0),
        }
    }

    /// Finds the most similar rows of another query each time.
    pub fn run(&mut self, count: usize) -> Vec<Hit> {
        let query = direction(self.index.width(), &mut self.random);
        self.index.search(&query, count)
    }
}

/// A row of unit length.
fn direction(width: usize, random: &mut Random) -> Vec<f32> {
    let row: Vec<f64> = (0..width).map(|_| random.normal()).collect();
    let length = row.iter().map(|value| value * value).sum::<f64>().sqrt();
    row.iter().map(|value| (value / length) as f32).collect()
}

/// The prompts of a model, encoded as detection does once at its start.
///
/// # Errors
/// As [`Detector::new`].
pub fn encode_prompts(model: &Model, device: &Device) -> Result<()> {
    Detector::new(model, device).map(drop)
}

/// Where a detection has the latents of its prompts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PromptSource {
    /// The model's folder, which keeps them from the first time on: [`Detector::open`].
    Kept,
    /// The text encoder, every time: [`Detector::new`].
    Encoded,
}

/// Seconds of the phases of a detection.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct DetectionTimes {
    /// From the model's folder to a [`Detector`].
    pub load_s: f64,
    /// From the scan's files to a network's input: a NIfTI file is decompressed and preprocessed at once.
    pub read_and_preprocess_s: f64,
    /// From the input to the latent.
    pub encode_s: f64,
    /// From the latent to probabilities.
    pub compare_s: f64,
}

/// Detects in a scan, from the files of model and scan to the probabilities.
///
/// # Errors
/// As [`Detector::open`] and [`Detector::detect`].
pub fn detect(
    model: &Path,
    scan: &Path,
    prompts: PromptSource,
    device: &Device,
) -> Result<DetectionTimes> {
    let mut last = Instant::now();
    let mut lap = || {
        let before = std::mem::replace(&mut last, Instant::now());
        last.duration_since(before).as_secs_f64()
    };
    let detector = match prompts {
        PromptSource::Kept => Detector::open(model, device)?,
        PromptSource::Encoded => Detector::new(&Model::load(model, device)?, device)?,
    };
    let load_s = lap();
    let (metadata, options) = (ScanMetadata::default(), ScanOptions::default());
    let input = detector.preprocess().run_file(scan, &metadata, &options)?;
    let read_and_preprocess_s = lap();
    let latents = detector.encode(input.values, batch_of_one(input.shape))?;
    let encode_s = lap();
    drop(detector.compare(latents));
    Ok(DetectionTimes {
        load_s,
        read_and_preprocess_s,
        encode_s,
        compare_s: lap(),
    })
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
        gradients.add(&encoder, &backward(loss), 1.0);
        self.encoder = Some(self.optimizer.step(encoder, &gradients, 1e-5));
    }
}

/// Volumes and texts in training, contrasted as in a run.
#[derive(Debug)]
pub struct ContrastiveStep {
    clip: Option<Clip>,
    optimizer: AdamW,
    contrast: Contrast,
    volumes: Tensor<5>,
    texts: TextBatch,
}

impl ContrastiveStep {
    /// Fresh weights, noise, and for each volume a text of its own. `micro_batch` volumes are encoded together.
    ///
    /// # Errors
    /// As [`Encoder::new`].
    pub fn new(
        config: &ImageEncoderConfig,
        batch: usize,
        micro_batch: usize,
        shape: Shape3,
        seed: u64,
        device: &Device,
    ) -> Result<Self> {
        /// Of the text encoder: a vocabulary as learnt from reports, texts of a few sentences.
        const VOCABULARY: usize = 2000;
        const TOKENS: usize = 64;
        let mut clip = ClipConfig::new(config.clone(), BertConfig::tiny(VOCABULARY));
        clip.image.reduce(config.reduction(), shape)?;
        device.seed(seed);
        let device = device.clone().autodiff();
        let mut random = Random::new(seed, "texts", 0);
        let mut text = || -> Vec<u32> {
            let token = |_| random.below(VOCABULARY) as u32;
            (0..TOKENS).map(token).collect()
        };
        let texts: Vec<_> = (0..batch).map(|_| text()).collect();
        Ok(Self {
            clip: Some(clip.init(&device).train().materialize()),
            optimizer: AdamW::new(OptimizerConfig::default()),
            contrast: Contrast {
                micro_batch: Some(micro_batch),
                batch_norm: BatchNormStatistics::Batch,
            },
            volumes: noise(batch, shape, &device),
            texts: TextBatch::new(&texts),
        })
    }

    /// Loss of the whole batch, its gradients, AdamW.
    ///
    /// # Errors
    /// None of its own; those of [`Contrast::add_gradients`].
    pub fn run(&mut self) -> Result<()> {
        let clip = self.clip.take().expect("every run puts it back");
        let mut gradients = ParameterGradients::default();
        let mut batch = PairBatch {
            pairs: self.texts.len(),
            texts: &self.texts,
            volumes: &mut |part| Ok(self.volumes.clone().slice(part)),
            dropout_seed: 0,
        };
        self.contrast
            .add_gradients(&clip, &mut batch, 1.0, &mut gradients)?;
        self.clip = Some(self.optimizer.step(clip, &gradients, 1e-5));
        Ok(())
    }
}

fn noise(batch: usize, shape: Shape3, device: &Device) -> Tensor<5> {
    Tensor::random(
        [batch, 1, shape.depth, shape.height, shape.width],
        Distribution::Uniform(-1.0, 1.0),
        device,
    )
}
