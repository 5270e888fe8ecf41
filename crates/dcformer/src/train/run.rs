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
use super::config::{RunConfig, TextChoice};
use super::contrast::{Contrast, PairBatch};
use super::data::{Pairs, VolumeSource};
use super::learning_rate::learning_rate;
use super::metrics_file::MetricsFile;
use super::optimizer::{AdamW, ParameterGradients};
use super::plan::{Batch, Plan};
use crate::checkpoint::{Model, ModelConfig, OwnHead, load_bert, write_file};
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
    check_parts(config, &model.config)?;
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
        contrast: Contrast::of(&config.train),
        pairs: &pairs,
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
        trainer.spread_latents(&volumes)?;
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
        let (sender, prepared) = sync_channel(2);
        let (pairs, volumes, contrast) = (&pairs, &volumes, trainer.contrast);
        scope.spawn(move || {
            let batches = (step..plan.steps).flat_map(|step| plan.batches(config, step, pairs));
            for batch in batches {
                for part in contrast.requests(batch.len()) {
                    // The receiver hangs up when the run ends early.
                    if sender.send(batch.volumes(volumes, part)).is_err() {
                        return;
                    }
                }
            }
        });
        trainer.run(&prepared, options.stop, observer, &save)
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
        TextChoice::Folder { folder, own_head } => {
            let head = if *own_head {
                OwnHead::Use
            } else {
                OwnHead::Omit
            };
            let (text, bert, tokenizer) = load_bert(folder, head, &device)?;
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

/// Refuses to encode a batch in parts where a quantizer's codes, which move while volumes are encoded, would give a volume
/// another latent the second time.
fn check_parts(config: &RunConfig, model: &ModelConfig) -> Result<()> {
    match config.train.micro_batch {
        Some(size) if size < config.train.batch && model.clip.image.quantizer.is_some() => {
            Err(Error::RunField {
                field: "train.micro_batch",
                found: format!("{size} for a model with a vector quantizer"),
                expected: "none: its codes move with every volume; leave the key out, or the quantizer",
            })
        }
        _ => Ok(()),
    }
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
    fn batches(&self, config: &RunConfig) -> impl Iterator<Item = Batch> {
        let size = config.train.batch.min(self.pairs.samples.len());
        let mut random = Random::new(config.seed, "texts of validation", 0);
        (0..self.pairs.samples.len() / size).map(move |batch| {
            let indices = batch * size..(batch + 1) * size;
            Batch::unchanged(&self.pairs, &config.train, indices, &mut random)
        })
    }
}

struct Trainer<'a> {
    config: &'a RunConfig,
    plan: Plan,
    contrast: Contrast,
    pairs: &'a Pairs,
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
        prepared: &Receiver<Result<Vec<f32>>>,
        stop: &AtomicBool,
        observer: &dyn Observer,
        save: &dyn Fn(&Self) -> Result<()>,
    ) -> Result<()> {
        while self.step < self.plan.steps {
            let stopping = stop.load(Ordering::Relaxed);
            if !stopping {
                let mut report = self.take_step(prepared)?;
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

    /// Mean loss of the batches of the step at hand, and their mean gradients; `prepared` gives their parts.
    fn loss_and_gradients(
        &self,
        prepared: &Receiver<Result<Vec<f32>>>,
    ) -> Result<(f64, ParameterGradients)> {
        let step = self.step;
        let mut gradients = ParameterGradients::default();
        let mut loss_sum = 0.0;
        let batches = self.plan.batches(self.config, step, self.pairs);
        let count = batches.len();
        for (batch, number) in batches.iter().zip(step * count as u64..) {
            let loss = self.contrast.add_gradients(
                self.clip(),
                &mut PairBatch {
                    pairs: batch.len(),
                    texts: &self.tokenizer.encode_batch(&batch.texts)?,
                    volumes: &mut |_| {
                        let values = prepared
                            .recv()
                            .expect("every part that a step asks for is sent");
                        Ok(self.volumes(values?, &self.device))
                    },
                    // Started anew for each batch, it is the same after a resume.
                    dropout_seed: Random::new(self.config.seed, "dropout of step", number).bits(),
                },
                1.0 / count as f32,
                &mut gradients,
            )?;
            if !loss.is_finite() {
                return Err(Error::LossNotFinite {
                    step: step + 1,
                    loss,
                });
            }
            loss_sum += loss;
        }
        Ok((loss_sum / count as f64, gradients))
    }

    fn take_step(&mut self, prepared: &Receiver<Result<Vec<f32>>>) -> Result<StepReport> {
        let (step, started) = (self.step, Instant::now());
        let (loss, mut gradients) = self.loss_and_gradients(prepared)?;
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
            loss,
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
            sum += self.contrast.loss(
                &clip,
                &mut PairBatch {
                    pairs: batch.len(),
                    texts: &self.tokenizer.encode_batch(&batch.texts)?,
                    volumes: &mut |part| {
                        let values = batch.volumes(&validation.volumes, part)?;
                        Ok(self.volumes(values, &device))
                    },
                    dropout_seed: 0,
                },
            )?;
            count += 1;
        }
        Ok(Some(sum / f64::from(count)))
    }

    /// See [`ImageTower::spread_latents`](crate::models::ImageTower::spread_latents), from the first step's first batch.
    fn spread_latents(&mut self, volumes: &VolumeSource) -> Result<()> {
        let batches = self.plan.batches(self.config, 0, self.pairs);
        let Some(batch) = batches.first() else {
            return Ok(());
        };
        let untracked = self.clip().clone().no_grad();
        let features = self
            .contrast
            .parts(batch.len())
            .map(|part| {
                let volumes = self.volumes(batch.volumes(volumes, part)?, &self.device);
                Ok(untracked.image.features(volumes, Statistics::Batch))
            })
            .collect::<Result<_>>()?;
        let clip = self
            .clip
            .as_mut()
            .expect("the network is out only during a step");
        clip.image.spread_latents(Tensor::cat(features, 0));
        Ok(())
    }

    /// `[volumes, 1, depth, height, width]`
    fn volumes(&self, values: Vec<f32>, device: &Device) -> Tensor<5> {
        let shape = self.config.preprocess.shape;
        let count = values.len() / shape.voxels();
        let shape = [count, 1, shape.depth, shape.height, shape.width];
        Tensor::from_data(TensorData::new(values, shape), device)
    }
}
