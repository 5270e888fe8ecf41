//! Which volumes each step sees, and what it learns of them.

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

/// One batch: volumes, and what is learnt of them.
pub(super) struct Batch {
    /// `[volumes, depth, height, width]`
    pub(super) volumes: Vec<f32>,
    /// How many they are.
    pub(super) count: usize,
    pub(super) truth: Truth,
}

/// What is known of the volumes of a batch.
pub(super) enum Truth {
    /// The first texts of all volumes, then their second ones, and so on.
    Texts(Vec<String>),
    /// Labels, in a run of fine-tuning.
    Labels(LabelBatch),
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

    /// The batches of a step, whose gradients are averaged.
    pub(super) fn batches(
        &self,
        config: &RunConfig,
        step: u64,
        pairs: &Pairs,
        volumes: &VolumeSource,
    ) -> Result<Vec<Batch>> {
        let order = epoch_order(self.pairs, config.seed, self.epoch(step));
        let effective = config.train.effective_batch();
        let first = (step % self.steps_per_epoch) as usize * effective;
        let mut random = Random::new(config.seed, "augmentation of step", step);
        order[first..first + effective]
            .chunks(config.train.batch)
            .map(|indices| {
                let shift = |random: &mut Random| {
                    config
                        .train
                        .shift_voxels
                        .map(|most| random.below(2 * most + 1) as isize - most as isize)
                };
                let shifts: Vec<[isize; 3]> = indices.iter().map(|_| shift(&mut random)).collect();
                Ok(Batch {
                    truth: truth_of_batch(pairs, indices, &config.train, &mut random),
                    volumes: volumes.batch(indices, &shifts)?,
                    count: indices.len(),
                })
            })
            .collect()
    }
}

/// What a batch learns: the labels of a run that has some, else texts of the reports.
fn truth_of_batch(
    pairs: &Pairs,
    indices: &[usize],
    train: &TrainConfig,
    random: &mut Random,
) -> Truth {
    match &pairs.labels {
        Some(labels) => Truth::Labels(labels.batch(indices)),
        None => Truth::Texts(texts_of_batch(pairs, indices, train, random)),
    }
}

/// The first texts of all pairs, then their second ones, and so on.
fn texts_of_batch(
    pairs: &Pairs,
    indices: &[usize],
    train: &TrainConfig,
    random: &mut Random,
) -> Vec<String> {
    let mut texts = vec![Vec::with_capacity(indices.len()); train.texts_per_volume];
    for &index in indices {
        let report = pairs.samples[index].report.as_deref().unwrap_or_default();
        let of_volume = texts_of_step(report, train.report, train.texts_per_volume, random);
        for (texts, text) in texts.iter_mut().zip(of_volume) {
            texts.push(text);
        }
    }
    texts.concat()
}

/// Pairs that nothing is learnt from.
pub(super) struct Validation {
    pub(super) pairs: Pairs,
    pub(super) volumes: VolumeSource,
}

impl Validation {
    /// The split in batches, each time the same: as large as in training, since a pair is the harder to tell the more
    /// there are beside it. What is left over is left out of pairs; for labels, it is a smaller batch.
    pub(super) fn batches(&self, config: &RunConfig) -> impl Iterator<Item = Result<Batch>> {
        let all = self.pairs.samples.len();
        let size = config.train.batch.min(all);
        let count = match &self.pairs.labels {
            Some(_) => all.div_ceil(size),
            None => all / size,
        };
        let mut random = Random::new(config.seed, "texts of validation", 0);
        (0..count).map(move |batch| {
            let indices: Vec<usize> = (batch * size..((batch + 1) * size).min(all)).collect();
            Ok(Batch {
                truth: truth_of_batch(&self.pairs, &indices, &config.train, &mut random),
                volumes: self.volumes.batch(&indices, &vec![[0; 3]; indices.len()])?,
                count: indices.len(),
            })
        })
    }
}
