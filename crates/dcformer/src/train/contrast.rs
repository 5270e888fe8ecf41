//! The contrastive loss of a batch and its gradients, with the memory of the whole batch or of a part of it.
//!
//! Every pair is contrasted with all others of its batch, so the loss needs all latents at once, but not what the encoders
//! computed on the way to them. Gradient caching (Gao et al. 2021, arXiv 2101.06983) makes use of that:
//!
//! ```text
//! 1  latents of every part, without a graph                 z_p = encode(x_p)
//! 2  the loss of all latents, and its gradients by them     g_p = dL / dz_p
//! 3  every part again, with a graph                         dL / dw = sum_p d(z_p . g_p) / dw
//! ```
//! The chain rule in two steps, so the gradients are those of the loss of the whole batch; the price is a second forward
//! pass. A volume must have the same latent in both passes: batch norms use the statistics of the part or running ones, and
//! dropout draws the same numbers again.
//!
//! Where workers share a batch, each encodes its own pairs and all get the latents of all. Every worker computes the loss of
//! the whole batch and takes its gradients by its own latents, with a graph or with gradient caching; the sum over the
//! workers is the gradient of the batch.

use std::fmt;
use std::ops::Range;

use burn::module::Module;
use burn::tensor::{Device, Tensor};

use super::config::{BatchNormStatistics, TrainConfig};
use super::exchange::gather_rows;
use super::optimizer::{ParameterGradients, backward};
use super::stream;
use crate::error::Result;
use crate::models::bert::indices;
use crate::models::{Clip, Statistics, TextBatch};
use crate::random::Random;
use crate::workers::Communicator;

/// How a batch is contrasted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contrast {
    /// Volumes that are encoded together, at most, and as many texts as belong to them; absent for the whole batch.
    pub micro_batch: Option<usize>,
    /// Whose mean and variance the image encoder's batch norms use in training.
    pub batch_norm: BatchNormStatistics,
}

/// Pairs that are contrasted with each other.
pub struct PairBatch<'a> {
    /// How many this worker has.
    pub pairs: usize,
    /// The first texts of all volumes, then their second ones, and so on.
    pub texts: &'a TextBatch,
    /// Gives some of the volumes, `[part, 1, depth, height, width]`, on the network's device: those that
    /// [`Contrast::requests`] lists, in that order.
    pub volumes: &'a mut dyn FnMut(Range<usize>) -> Result<Tensor<5>>,
    /// What dropout draws from; inference draws nothing.
    pub dropout_seed: u64,
    /// Who has the other pairs of the batch; the pairs of all are contrasted with each other.
    pub workers: &'a dyn Communicator,
}

impl fmt::Debug for PairBatch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PairBatch")
            .field("pairs", &self.pairs)
            .field("texts", &self.texts.len())
            .field("dropout_seed", &self.dropout_seed)
            .field("workers", &self.workers)
            .finish_non_exhaustive()
    }
}

impl Contrast {
    /// As a run does it.
    pub fn of(train: &TrainConfig) -> Self {
        Self {
            micro_batch: train.micro_batch,
            batch_norm: train.batch_norm,
        }
    }

    /// The parts that a batch of `pairs` is encoded in.
    pub fn parts(&self, pairs: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        let size = self.part_size(pairs);
        (0..pairs)
            .step_by(size)
            .map(move |start| start..pairs.min(start + size))
    }

    /// The parts whose volumes [`add_gradients`](Self::add_gradients) asks for, in its order: all of them, and where there
    /// are several, all of them again.
    pub fn requests(&self, pairs: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        let passes = if self.is_whole(pairs) { 1 } else { 2 };
        let parts: Vec<_> = self.parts(pairs).collect();
        std::iter::repeat_n(parts, passes).flatten()
    }

    fn part_size(&self, pairs: usize) -> usize {
        self.micro_batch.unwrap_or(pairs).clamp(1, pairs.max(1))
    }

    fn is_whole(&self, pairs: usize) -> bool {
        self.part_size(pairs) >= pairs
    }

    /// The loss of a batch.
    ///
    /// # Errors
    /// If volumes cannot be had, the model cannot encode them, or another worker is lost.
    pub fn loss(&self, clip: &Clip, batch: &mut PairBatch<'_>) -> Result<f64> {
        let texts = DistinctTexts::new(self, batch);
        let latents = self.latents(clip, batch, &texts, Statistics::ByDevice)?;
        let loss = latents.loss(clip, &texts, batch.workers)?;
        Ok(f64::from(loss.into_scalar::<f32>()))
    }

    /// Adds the gradients of the loss of a batch, times `factor`, and gives the loss. Running statistics move once with
    /// every part. Of a loss that is not finite there are no gradients. Of several workers each adds what its own pairs
    /// contribute, and the first what the logit scale does; the gradients are their sum.
    ///
    /// # Errors
    /// As [`loss`](Self::loss).
    pub fn add_gradients(
        &self,
        clip: &Clip,
        batch: &mut PairBatch<'_>,
        factor: f32,
        gradients: &mut ParameterGradients,
    ) -> Result<f64> {
        if self.is_whole(batch.pairs) {
            self.add_direct(clip, batch, factor, gradients)
        } else {
            self.add_cached(clip, batch, factor, gradients)
        }
    }

    fn add_direct(
        &self,
        clip: &Clip,
        batch: &mut PairBatch<'_>,
        factor: f32,
        gradients: &mut ParameterGradients,
    ) -> Result<f64> {
        let volumes = (batch.volumes)(0..batch.pairs)?;
        stream::start(&volumes.device(), batch.dropout_seed);
        let images = clip.encode_image_with(volumes, self.moving())?;
        let texts = clip.encode_text(batch.texts)?;
        let loss = loss_over(clip, images, texts, batch.workers)?;
        let value = f64::from(loss.clone().into_scalar::<f32>());
        if value.is_finite() {
            gradients.add(clip, &backward(loss), factor);
        }
        Ok(value)
    }

    fn add_cached(
        &self,
        clip: &Clip,
        batch: &mut PairBatch<'_>,
        factor: f32,
        gradients: &mut ParameterGradients,
    ) -> Result<f64> {
        let texts = DistinctTexts::new(self, batch);
        // The same network on the same device, so that norms and dropout do what they do in training.
        let untracked = clip.clone().no_grad();
        let latents = self
            .latents(&untracked, batch, &texts, self.resting())?
            .tracked();
        drop(untracked);
        let loss = latents.loss(clip, &texts, batch.workers)?;
        let value = f64::from(loss.clone().into_scalar::<f32>());
        if !value.is_finite() {
            return Ok(value);
        }
        let of_latents = backward(loss);
        // Those of the logit scale; no other parameter took part.
        gradients.add(clip, &of_latents, factor);
        let of = |latents: &Tensor<2>| {
            let gradient = latents.grad(&of_latents);
            Tensor::from_inner(gradient.expect("the loss depends on every latent"))
        };
        let (of_images, of_texts) = (of(&latents.images), of(&latents.texts));
        let mut replay = |part: Tensor<2>, gradient: Tensor<2>| {
            gradients.add(clip, &backward((part * gradient).sum()), factor);
        };
        for (index, part) in self.parts(batch.pairs).enumerate() {
            let rows = of_images.clone().slice(part.clone());
            replay(
                encode_images(clip, batch, (index, part), self.moving())?,
                rows,
            );
        }
        let mut rows = of_texts.split_with_sizes(texts.sizes(), 0).into_iter();
        for part in texts.parts.iter().enumerate() {
            let latents = encode_texts(clip, batch, part, &of_images.device())?;
            replay(latents, rows.next().expect("a row for every text"));
        }
        Ok(value)
    }

    /// Latents of all volumes and of the distinct texts, part by part.
    fn latents(
        &self,
        clip: &Clip,
        batch: &mut PairBatch<'_>,
        texts: &DistinctTexts,
        statistics: Statistics,
    ) -> Result<Latents> {
        let images = self
            .parts(batch.pairs)
            .enumerate()
            .map(|part| encode_images(clip, batch, part, statistics))
            .collect::<Result<_>>()?;
        let images = Tensor::cat(images, 0);
        let device = images.device();
        let texts = texts
            .parts
            .iter()
            .enumerate()
            .map(|part| encode_texts(clip, batch, part, &device))
            .collect::<Result<_>>()?;
        Ok(Latents {
            images,
            texts: Tensor::cat(texts, 0),
        })
    }

    /// Statistics of the pass that counts.
    pub(super) fn moving(&self) -> Statistics {
        match self.batch_norm {
            BatchNormStatistics::Batch | BatchNormStatistics::Synchronized => Statistics::ByDevice,
            BatchNormStatistics::Frozen => Statistics::Running,
        }
    }

    /// The same values, without moving the running ones.
    fn resting(&self) -> Statistics {
        match self.batch_norm {
            BatchNormStatistics::Batch | BatchNormStatistics::Synchronized => Statistics::Batch,
            BatchNormStatistics::Frozen => Statistics::Running,
        }
    }
}

fn encode_images(
    clip: &Clip,
    batch: &mut PairBatch<'_>,
    (index, part): (usize, Range<usize>),
    statistics: Statistics,
) -> Result<Tensor<2>> {
    let volumes = (batch.volumes)(part)?;
    start_dropout(&volumes.device(), batch, "volumes of a part", index);
    clip.encode_image_with(volumes, statistics)
}

fn encode_texts(
    clip: &Clip,
    batch: &PairBatch<'_>,
    (index, part): (usize, &TextBatch),
    device: &Device,
) -> Result<Tensor<2>> {
    start_dropout(device, batch, "texts of a part", index);
    clip.encode_text(part)
}

/// Makes dropout draw the same numbers whenever it comes to this part.
fn start_dropout(device: &Device, batch: &PairBatch<'_>, what: &str, part: usize) {
    let seed = Random::new(batch.dropout_seed, what, part as u64).bits();
    stream::start(device, seed);
}

/// The texts of a batch without repetitions, in parts.
struct DistinctTexts {
    parts: Vec<TextBatch>,
    /// Which of them each text of the batch is.
    which: Vec<usize>,
}

impl DistinctTexts {
    fn new(contrast: &Contrast, batch: &PairBatch<'_>) -> Self {
        let (distinct, which) = batch.texts.distinct();
        let texts_per_volume = batch.texts.len() / batch.pairs.max(1);
        let size = contrast.part_size(batch.pairs) * texts_per_volume;
        Self {
            parts: distinct.parts(size),
            which,
        }
    }

    fn sizes(&self) -> Vec<usize> {
        self.parts.iter().map(TextBatch::len).collect()
    }
}

/// Rows of unit length.
struct Latents {
    /// `[pairs, latent]`
    images: Tensor<2>,
    /// `[distinct texts, latent]`
    texts: Tensor<2>,
}

impl Latents {
    /// The same as leaves of a graph.
    fn tracked(self) -> Self {
        Self {
            images: self.images.detach().require_grad(),
            texts: self.texts.detach().require_grad(),
        }
    }

    fn loss(
        &self,
        clip: &Clip,
        texts: &DistinctTexts,
        workers: &dyn Communicator,
    ) -> Result<Tensor<1>> {
        let which = indices(texts.which.iter().copied(), &self.texts.device());
        let of_batch = self.texts.clone().select(0, which);
        loss_over(clip, self.images.clone(), of_batch, workers)
    }
}

/// The loss of the pairs of all workers.
///
/// # Shapes
/// - `images`: `[pairs, latent]`, `texts`: `[texts * pairs, latent]`, of this worker's pairs
/// - output: `[1]`, the same on every worker
fn loss_over(
    clip: &Clip,
    images: Tensor<2>,
    texts: Tensor<2>,
    workers: &dyn Communicator,
) -> Result<Tensor<1>> {
    if workers.size() == 1 {
        return Ok(clip.logit_scale.loss(images, texts));
    }
    let [pairs, latent] = images.dims();
    let texts_per_volume = texts.dims()[0] / pairs;
    let images = gather_rows(images.unsqueeze_dim(0), workers)?;
    let texts = gather_rows(texts.reshape([texts_per_volume, pairs, latent]), workers)?;
    let all = images.dims()[1];
    let images = images.reshape([all, latent]);
    let texts = texts.reshape([texts_per_volume * all, latent]);
    // The loss depends on it once, not once a worker.
    let scale = clip.logit_scale.clone();
    let scale = if workers.is_first() {
        scale
    } else {
        scale.no_grad()
    };
    Ok(scale.loss(images, texts))
}

#[cfg(test)]
mod tests;
