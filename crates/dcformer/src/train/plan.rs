//! Which volumes a step sees, and what it learns of them.

use std::ops::Range;

use super::augmentation::{Augmentation, swap_sides};
use super::config::{RunConfig, TrainConfig};
use super::data::{Pairs, VolumeSource, epoch_order, texts_of_step};
use super::labels::LabelBatch;
use crate::error::{Error, Result};
use crate::random::Random;

/// How many steps there are, and which pairs each sees.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pairs: usize,
    pub(super) steps_per_epoch: u64,
    pub(super) steps: u64,
    pub(super) checkpoint_every: u64,
}

impl Plan {
    pub(super) fn new(config: &RunConfig, pairs: usize) -> Result<Self> {
        let effective = config.train.effective_batch();
        // The last, incomplete batch of an epoch is dropped, as the authors do.
        let steps_per_epoch = (pairs / effective) as u64;
        if steps_per_epoch == 0 {
            return Err(Error::TooFewPairs {
                found: pairs,
                expected: effective,
            });
        }
        let whole_epochs = steps_per_epoch * config.train.epochs as u64;
        let steps = config.train.steps.unwrap_or(whole_epochs);
        let checkpoint_every = config
            .train
            .checkpoint_every_steps
            .unwrap_or(steps_per_epoch);
        Ok(Self {
            pairs,
            steps_per_epoch,
            steps,
            checkpoint_every,
        })
    }

    pub(super) fn epoch(&self, step: u64) -> u64 {
        step / self.steps_per_epoch
    }

    /// The batches of a step, whose gradients are averaged. They depend on the seed and the step alone, so whoever needs
    /// to know them can ask.
    pub(super) fn batches(&self, config: &RunConfig, step: u64, pairs: &Pairs) -> Vec<Batch> {
        let (train, seed) = (&config.train, config.seed);
        let order = epoch_order(self.pairs, seed, self.epoch(step));
        let effective = train.effective_batch();
        let first = (step % self.steps_per_epoch) as usize * effective;
        let mut random = Random::new(seed, "augmentation of step", step);
        let mut volumes = step * effective as u64..;
        order[first..first + effective]
            .chunks(train.batch)
            .map(|indices| {
                let augmentations = indices
                    .iter()
                    .zip(&mut volumes)
                    .map(|(_, volume)| {
                        let shift = train
                            .shift_voxels
                            .map(|most| random.below(2 * most + 1) as isize - most as isize);
                        Augmentation::draw(train, shift, seed, volume)
                    })
                    .collect();
                Batch::new(pairs, train, indices.to_vec(), augmentations, &mut random)
            })
            .collect()
    }
}

/// Volumes that a loss is taken of together, and what is learnt of them.
pub(super) struct Batch {
    indices: Vec<usize>,
    augmentations: Vec<Augmentation>,
    pub(super) truth: Truth,
}

/// What is known of the volumes of a batch.
pub(super) enum Truth {
    /// The first texts of all volumes, then their second ones, and so on: pairs that are contrasted with each other.
    Texts(Vec<String>),
    /// In a run of fine-tuning.
    Labels(LabelBatch),
}

impl Batch {
    fn new(
        pairs: &Pairs,
        train: &TrainConfig,
        indices: Vec<usize>,
        augmentations: Vec<Augmentation>,
        random: &mut Random,
    ) -> Self {
        let truth = match &pairs.labels {
            Some(labels) => Truth::Labels(labels.batch(&indices)),
            None => Truth::Texts(texts_of(pairs, train, &indices, &augmentations, random)),
        };
        Self {
            indices,
            augmentations,
            truth,
        }
    }

    /// Volumes in their order, as they are.
    pub(super) fn unchanged(
        pairs: &Pairs,
        train: &TrainConfig,
        indices: Range<usize>,
        random: &mut Random,
    ) -> Self {
        let augmentations = vec![Augmentation::NONE; indices.len()];
        Self::new(pairs, train, indices.collect(), augmentations, random)
    }

    /// How many volumes there are.
    pub(super) fn len(&self) -> usize {
        self.indices.len()
    }

    /// Some of the volumes, one after the other.
    pub(super) fn volumes(&self, source: &VolumeSource, part: Range<usize>) -> Result<Vec<f32>> {
        source.batch(&self.indices[part.clone()], &self.augmentations[part])
    }
}

/// The first texts of all volumes, then their second ones, and so on; of a mirrored volume the report is mirrored.
fn texts_of(
    pairs: &Pairs,
    train: &TrainConfig,
    indices: &[usize],
    augmentations: &[Augmentation],
    random: &mut Random,
) -> Vec<String> {
    let mut texts = vec![Vec::with_capacity(indices.len()); train.texts_per_volume];
    for (&index, augmentation) in indices.iter().zip(augmentations) {
        let report = pairs.samples[index].report.as_deref().unwrap_or_default();
        let mirrored = augmentation.mirrored.then(|| swap_sides(report));
        let report = mirrored.as_deref().unwrap_or(report);
        let of_volume = texts_of_step(report, train.report, train.texts_per_volume, random);
        for (texts, text) in texts.iter_mut().zip(of_volume) {
            texts.push(text);
        }
    }
    texts.concat()
}

/// Volumes that nothing is learnt from.
pub(super) struct Validation {
    pub(super) pairs: Pairs,
    pub(super) volumes: VolumeSource,
}

impl Validation {
    /// The split in batches, each time the same: as large as in training, since a pair is the harder to tell the more
    /// there are beside it. What is left over is left out of pairs; of labels, it is a smaller batch.
    pub(super) fn batches(&self, config: &RunConfig) -> impl Iterator<Item = Batch> {
        let all = self.pairs.samples.len();
        let size = config.train.batch.min(all);
        let count = match &self.pairs.labels {
            Some(_) => all.div_ceil(size),
            None => all / size,
        };
        let mut random = Random::new(config.seed, "texts of validation", 0);
        (0..count).map(move |batch| {
            let indices = batch * size..((batch + 1) * size).min(all);
            Batch::unchanged(&self.pairs, &config.train, indices, &mut random)
        })
    }
}

#[cfg(test)]
mod tests;
