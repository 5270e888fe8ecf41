//! The loop.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Instant;

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use dcformer_volume::dataset::{DataSet, Problem};
use serde::{Deserialize, Serialize};

use super::checkpoint::{Checkpoints, Resumed};
use super::config::{RunConfig, TextChoice, TrainConfig};
use super::data::{Pairs, VolumeSource, epoch_order, texts_of_step};
use super::learning_rate::learning_rate;
use super::metrics_file::MetricsFile;
use super::optimizer::{AdamW, ParameterGradients};
use crate::checkpoint::{Model, ModelConfig, load_bert, write_file};
use crate::error::{Error, Result};
use crate::models::{BertConfig, Clip, Statistics};
use crate::random::Random;
use crate::text::{Tokenizer, Vocabulary};

/// How a run is carried out; nothing here changes its weights.
#[derive(Debug)]
pub struct RunOptions<'a> {
    /// Where it computes.
    pub device: Device,
    /// Whether it goes on from the newest checkpoint of the folder, if there is one.
    pub resume: bool,
    /// Set to true, it ends the run after the step at hand, with a checkpoint.
    pub stop: &'a AtomicBool,
}

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepReport {
    /// Steps taken, this one included.
    pub step: u64,
    /// Steps of the whole run.
    pub steps: u64,
    /// Epoch, from 0.
    pub epoch: u64,
    /// Mean loss of the step's batches.
    pub loss: f64,
    /// Learning rate of the step.
    pub learning_rate: f64,
    /// Norm of all gradients together, before it was clipped.
    pub gradient_norm: f64,
    /// Pairs a second, over this step.
    pub pairs_per_s: f64,
    /// Mean loss over the validation split after this step, where it was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation_loss: Option<f64>,
}

/// Who is told how a run goes.
pub trait Observer: Sync {
    /// Something in the data does not fit together.
    fn problems(&self, problems: &[Problem], without_report: usize);
    /// Volumes are being read.
    fn reading(&self, done: usize, volumes: usize);
    /// The run starts, or goes on, after this many steps.
    fn starting(&self, step: u64, steps: u64, pairs: usize);
    /// A step is done.
    fn step(&self, report: &StepReport);
    /// A checkpoint is on disk.
    fn checkpoint(&self, step: u64);
}

/// How a run ended.
#[derive(Debug)]
pub enum Outcome {
    /// All steps are taken; the model is also in the folder `model` of the run.
    Complete(Box<Model>),
    /// It was asked to stop, and can go on from its last checkpoint.
    Stopped {
        /// Steps taken.
        step: u64,
    },
}

/// Trains a model and leaves everything in `folder`.
///
/// # Errors
/// If data cannot be read, nothing can be learnt from them, a file cannot be written, or the loss is not finite. The
/// checkpoints written before stay.
pub fn train(
    config: &RunConfig,
    folder: &Path,
    options: &RunOptions<'_>,
    observer: &dyn Observer,
) -> Result<Outcome> {
    let config = &config.resolved()?;
    let pairs = pairs_of(config.data.training()?, observer);
    train_on(pairs, config, folder, options, observer)
}

/// [`train`] on these pairs, with a resolved configuration.
pub(super) fn train_on(
    pairs: Pairs,
    config: &RunConfig,
    folder: &Path,
    options: &RunOptions<'_>,
    observer: &dyn Observer,
) -> Result<Outcome> {
    let plan = Plan::new(config, pairs.samples.len())?;
    let held_out = held_out_pairs(config, observer)?;
    let all_volumes = pairs.samples.len() + held_out.as_ref().map_or(0, |held| held.samples.len());
    std::fs::create_dir_all(folder).map_err(|source| Error::Write {
        path: folder.to_owned(),
        source,
    })?;
    let checkpoints = Checkpoints::new(folder, config.train.keep_checkpoints);
    let fingerprint = pairs.fingerprint();
    let resumed = if options.resume {
        checkpoints.resume(config, fingerprint, &options.device)?
    } else if checkpoints.exist()? {
        return Err(Error::RunExists {
            folder: folder.to_owned(),
        });
    } else {
        None
    };
    write_file(&folder.join("config.toml"), config.to_toml().as_bytes())?;
    let Resumed {
        step,
        model,
        optimizer,
    } = match resumed {
        Some(resumed) => resumed,
        None => Resumed {
            step: 0,
            model: fresh_model(config, &pairs, &options.device)?,
            optimizer: AdamW::new(config.train.optimizer.clone()),
        },
    };
    let load = |pairs: &Pairs, before: usize| {
        VolumeSource::load(
            &pairs.samples,
            &config.preprocess,
            config.train.volume_memory_gb,
            &|done, _| observer.reading(before + done, all_volumes),
            options.stop,
        )
    };
    let volumes = load(&pairs, 0)?;
    let validation = match held_out {
        None => None,
        Some(held_out) => Some(Validation {
            volumes: load(&held_out, pairs.samples.len())?,
            pairs: held_out,
        }),
    };
    let mut trainer = Trainer {
        config,
        plan,
        tokenizer: model.tokenizer.clone().ok_or(Error::MissingPart {
            part: "tokenizer",
            remedy: "start from a model with a vocabulary",
        })?,
        model_config: model.config.clone(),
        clip: Some(model.clip),
        optimizer,
        step,
        device: options.device.clone().autodiff(),
        metrics: MetricsFile::open(&folder.join("metrics.jsonl"), step)?,
        validation,
    };
    if step == 0 && config.model.spread_latents && config.model.start.is_none() {
        trainer.spread_latents(plan.batches(config, 0, &pairs, &volumes)?);
    }
    observer.starting(step, plan.steps, pairs.samples.len());
    let save = |trainer: &Trainer<'_>| {
        checkpoints.save(
            trainer.step,
            &trainer.model(),
            &trainer.optimizer,
            config,
            fingerprint,
        )?;
        observer.checkpoint(trainer.step);
        Ok::<(), Error>(())
    };
    std::thread::scope(|scope| {
        let (sender, batches) = sync_channel(2);
        let (pairs, volumes) = (&pairs, &volumes);
        scope.spawn(move || {
            for step in step..plan.steps {
                // The receiver hangs up when the run ends early.
                if sender
                    .send(plan.batches(config, step, pairs, volumes))
                    .is_err()
                {
                    return;
                }
            }
        });
        trainer.run(&batches, options.stop, observer, &save)
    })?;
    if trainer.step < plan.steps {
        return Ok(Outcome::Stopped { step: trainer.step });
    }
    let model = trainer.model();
    model.save(&folder.join("model"))?;
    Ok(Outcome::Complete(Box::new(model)))
}

/// A model with fresh weights that depend on the seed alone, or the one the run starts from.
fn fresh_model(config: &RunConfig, pairs: &Pairs, device: &Device) -> Result<Model> {
    device.seed(Random::new(config.seed, "fresh weights", 0).bits());
    let device = device.clone().autodiff();
    if let Some(start) = &config.model.start {
        let mut model = Model::load(start, &device)?;
        let image = &model.config.clip.image;
        image.check_volume(config.preprocess.shape)?;
        model.config.preprocess = config.preprocess.clone();
        model.config.prompts = config.prompts.clone();
        model.config.report = config.train.report;
        model.clip = model.clip.train();
        return Ok(model);
    }
    let (text, loaded, tokenizer) = match &config.model.text {
        TextChoice::Folder { folder } => {
            let (text, bert, tokenizer) = load_bert(folder, &device)?;
            (text, Some(bert), tokenizer)
        }
        TextChoice::Scratch {
            width,
            layers,
            heads,
            vocabulary,
            tokens,
        } => {
            let vocabulary = Vocabulary::learn(&pairs.reports(), *vocabulary);
            let text = BertConfig {
                hidden_size: *width,
                num_hidden_layers: *layers,
                num_attention_heads: *heads,
                intermediate_size: 4 * width,
                max_position_embeddings: *tokens,
                // Small data and few steps: what a step learns of rare words should not be dropped.
                hidden_dropout_prob: 0.0,
                ..BertConfig::tiny(vocabulary.tokens().len())
            };
            let tokenizer = Tokenizer::new(vocabulary, *tokens);
            (text, None, tokenizer)
        }
    };
    let clip = config.model.clip(text, config.preprocess.shape)?;
    let mut model = Model::init(ModelConfig::new(clip), Some(tokenizer), &device);
    if let (Some(bert), Some(tower)) = (loaded, &mut model.clip.text) {
        tower.set_encoder(bert);
    }
    model.config.preprocess = config.preprocess.clone();
    model.config.prompts = config.prompts.clone();
    model.config.report = config.train.report;
    // Weights are drawn at first use unless asked for: here, where their stream was just started.
    model.clip = model.clip.train().materialize();
    Ok(model)
}

/// How many steps there are, and which pairs each sees.
#[derive(Clone, Copy, Debug)]
struct Plan {
    pairs: usize,
    steps_per_epoch: u64,
    steps: u64,
    checkpoint_every: u64,
}

/// One batch: volumes and texts.
struct Batch {
    volumes: Vec<f32>,
    /// The first texts of all volumes, then their second ones, and so on.
    texts: Vec<String>,
}

impl Plan {
    fn new(config: &RunConfig, pairs: usize) -> Result<Self> {
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

    fn epoch(&self, step: u64) -> u64 {
        step / self.steps_per_epoch
    }

    /// The batches of a step, whose gradients are averaged.
    fn batches(
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
                let train = &config.train;
                Ok(Batch {
                    texts: texts_of_batch(pairs, indices, train, &mut random),
                    volumes: volumes.batch(indices, &shifts)?,
                })
            })
            .collect()
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

/// The pairs of a split; what is wrong with it is said.
fn pairs_of(mut data: DataSet, observer: &dyn Observer) -> Pairs {
    let problems = std::mem::take(&mut data.problems);
    let pairs = Pairs::of(data);
    if !problems.is_empty() || pairs.without_report > 0 {
        observer.problems(&problems, pairs.without_report);
    }
    pairs
}

/// The validation split, if the run measures its loss there.
fn held_out_pairs(config: &RunConfig, observer: &dyn Observer) -> Result<Option<Pairs>> {
    let Some(epochs) = config.train.validate_every_epochs else {
        return Ok(None);
    };
    let pairs = pairs_of(config.data.validation()?, observer);
    let count = pairs.samples.len();
    if count < 2 {
        return Err(Error::RunField {
            field: "train.validate_every_epochs",
            found: format!("{epochs} with {count} validation volumes that have a report"),
            expected: "at least 2 of them: name them in `data`, or leave this key out",
        });
    }
    Ok(Some(pairs))
}

/// Pairs that nothing is learnt from.
struct Validation {
    pairs: Pairs,
    volumes: VolumeSource,
}

impl Validation {
    /// The split in batches, each time the same: as large as in training, since a pair is the harder to tell the more
    /// there are beside it. What is left over is left out.
    fn batches(&self, config: &RunConfig) -> impl Iterator<Item = Result<Batch>> {
        let size = config.train.batch.min(self.pairs.samples.len());
        let mut random = Random::new(config.seed, "texts of validation", 0);
        (0..self.pairs.samples.len() / size).map(move |batch| {
            let indices: Vec<usize> = (batch * size..(batch + 1) * size).collect();
            Ok(Batch {
                texts: texts_of_batch(&self.pairs, &indices, &config.train, &mut random),
                volumes: self.volumes.batch(&indices, &vec![[0; 3]; size])?,
            })
        })
    }
}

struct Trainer<'a> {
    config: &'a RunConfig,
    plan: Plan,
    tokenizer: Tokenizer,
    model_config: ModelConfig,
    /// Taken out while a step moves it.
    clip: Option<Clip>,
    optimizer: AdamW,
    step: u64,
    device: Device,
    metrics: MetricsFile,
    validation: Option<Validation>,
}

impl Trainer<'_> {
    fn clip(&self) -> &Clip {
        self.clip
            .as_ref()
            .expect("the network is out only during a step")
    }

    /// The model as it is now, for inference and saving.
    fn model(&self) -> Model {
        Model {
            config: self.model_config.clone(),
            clip: self.clip().valid(),
            tokenizer: Some(self.tokenizer.clone()),
        }
    }

    fn run(
        &mut self,
        batches: &Receiver<Result<Vec<Batch>>>,
        stop: &AtomicBool,
        observer: &dyn Observer,
        save: &dyn Fn(&Self) -> Result<()>,
    ) -> Result<()> {
        while self.step < self.plan.steps {
            let stopping = stop.load(Ordering::Relaxed);
            if !stopping {
                let started = Instant::now();
                // The sender stops only after it has sent every step.
                let Ok(batches) = batches.recv() else { break };
                let mut report = self.take_step(batches?, started)?;
                report.validation_loss = self.validation_loss()?;
                self.metrics.append(&report)?;
                observer.step(&report);
            }
            if stopping
                || self.step.is_multiple_of(self.plan.checkpoint_every)
                || self.step == self.plan.steps
            {
                save(self)?;
            }
            if stopping {
                break;
            }
        }
        Ok(())
    }

    fn take_step(&mut self, batches: Vec<Batch>, started: Instant) -> Result<StepReport> {
        let step = self.step;
        // Dropout draws from the device's stream: started anew each step, it is the same after a resume.
        self.device
            .seed(Random::new(self.config.seed, "dropout of step", step).bits());
        let mut gradients = ParameterGradients::default();
        let mut loss_sum = 0.0;
        let count = batches.len();
        for batch in batches {
            let loss = self.loss(self.clip(), batch, &self.device)?;
            let value = f64::from(loss.clone().into_scalar::<f32>());
            if !value.is_finite() {
                return Err(Error::LossNotFinite {
                    step: step + 1,
                    loss: value,
                });
            }
            loss_sum += value;
            gradients.add(self.clip(), &loss.backward(), 1.0 / count as f32);
        }
        let gradient_norm = gradients.norm();
        if !gradient_norm.is_finite() {
            return Err(Error::LossNotFinite {
                step: step + 1,
                loss: gradient_norm,
            });
        }
        if let Some(most) = self.config.train.clip_gradient_norm
            && gradient_norm > most
        {
            gradients.scale((most / gradient_norm) as f32);
        }
        let train = &self.config.train;
        let rate = learning_rate(
            &train.optimizer,
            train.peak_learning_rate(),
            step,
            self.plan.steps,
        );
        let clip = self
            .clip
            .take()
            .expect("the network is out only during a step");
        self.clip = Some(self.optimizer.step(clip, &gradients, rate));
        self.step += 1;
        let pairs = train.effective_batch() as f64;
        Ok(StepReport {
            step: self.step,
            steps: self.plan.steps,
            epoch: self.plan.epoch(step),
            loss: loss_sum / count as f64,
            learning_rate: rate,
            gradient_norm,
            pairs_per_s: pairs / started.elapsed().as_secs_f64().max(1e-9),
            validation_loss: None,
        })
    }

    /// The mean loss over the validation split, if this is a step to measure it after.
    fn validation_loss(&self) -> Result<Option<f64>> {
        let (Some(validation), Some(epochs)) =
            (&self.validation, self.config.train.validate_every_epochs)
        else {
            return Ok(None);
        };
        let every_steps = epochs.saturating_mul(self.plan.steps_per_epoch);
        if !self.step.is_multiple_of(every_steps) && self.step < self.plan.steps {
            return Ok(None);
        }
        let (clip, device) = (self.clip().valid(), self.device.clone().inner());
        let (mut sum, mut count) = (0.0, 0);
        for batch in validation.batches(self.config) {
            let loss = self.loss(&clip, batch?, &device)?;
            sum += f64::from(loss.into_scalar::<f32>());
            count += 1;
        }
        Ok(Some(sum / f64::from(count)))
    }

    /// See [`ImageTower::spread_latents`](crate::models::ImageTower::spread_latents), from the first step's first batch.
    fn spread_latents(&mut self, batches: Vec<Batch>) {
        let Some(batch) = batches.into_iter().next() else {
            return;
        };
        let volumes = self.volumes(batch.volumes, &self.device);
        let clip = self
            .clip
            .as_mut()
            .expect("the network is out only during a step");
        let features = clip.image.features(volumes, Statistics::Batch);
        clip.image.spread_latents(features.detach());
    }

    /// `[volumes, 1, depth, height, width]`
    fn volumes(&self, values: Vec<f32>, device: &Device) -> Tensor<5> {
        let shape = self.config.preprocess.shape;
        let count = values.len() / shape.voxels();
        let shape = [count, 1, shape.depth, shape.height, shape.width];
        Tensor::from_data(TensorData::new(values, shape), device)
    }

    fn loss(&self, clip: &Clip, batch: Batch, device: &Device) -> Result<Tensor<1>> {
        let volumes = self.volumes(batch.volumes, device);
        let texts = self.tokenizer.encode_batch(&batch.texts)?;
        let images = clip.encode_image(volumes)?;
        let texts = clip.encode_text(&texts)?;
        Ok(clip.logit_scale.loss(images, texts))
    }
}
