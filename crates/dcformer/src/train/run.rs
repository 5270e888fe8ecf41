//! The loop.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Instant;

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use dcformer_volume::dataset::{DataSet, Problem};
use serde::{Deserialize, Serialize};

use super::checkpoint::{Checkpoints, Resumed};
use super::config::RunConfig;
use super::contrast::Contrast;
use super::data::{Pairs, VolumeSource};
use super::labels::{self, LabelObjective};
use super::learning_rate::learning_rate;
use super::metrics_file::MetricsFile;
use super::objective::{Given, Objective};
use super::optimizer::{AdamW, ParameterGradients};
use super::plan::{Plan, Validation};
use super::start::{check_parts, fresh_model};
use crate::checkpoint::{Model, ModelConfig, write_file};
use crate::error::{Error, Result};
use crate::models::{Clip, Statistics};
use crate::random::Random;
use crate::text::Tokenizer;

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
    /// Volumes are being encoded, for what a head starts from.
    fn encoding(&self, done: usize, volumes: usize);
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
    let data = config.data.training()?;
    let (pairs, held_out) = match &config.finetune {
        Some(finetune) => {
            if !data.problems.is_empty() {
                observer.problems(&data.problems, 0);
            }
            let split = labels::split(&data, finetune, config)?;
            (split.learnt, Some(split.held_out))
        }
        None => (pairs_of(data, observer), held_out_pairs(config, observer)?),
    };
    train_on(pairs, held_out, config, folder, options, observer)
}

/// [`train`] on these pairs, measuring on those held out, with a resolved configuration.
pub(super) fn train_on(
    pairs: Pairs,
    held_out: Option<Pairs>,
    config: &RunConfig,
    folder: &Path,
    options: &RunOptions<'_>,
    observer: &dyn Observer,
) -> Result<Outcome> {
    let plan = Plan::new(config, pairs.samples.len())?;
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
    let is_new = resumed.is_none();
    let Resumed {
        step,
        mut model,
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
    if is_new && let Some(held_out) = &validation {
        let parts = [(&pairs, &volumes), (&held_out.pairs, &held_out.volumes)];
        let progress = |done, volumes| observer.encoding(done, volumes);
        let (device, stop) = (&options.device, options.stop);
        if !labels::start_from_probe(&mut model, config, parts, device, stop, &progress)? {
            return Ok(Outcome::Stopped { step });
        }
    }
    let mut trainer = Trainer {
        config,
        plan,
        objective: objective(config, &model, &pairs, &options.device)?,
        pairs: &pairs,
        tokenizer: model.tokenizer.clone(),
        model_config: model.config.clone(),
        clip: Some(model.clip),
        optimizer,
        step,
        device: options.device.clone().autodiff(),
        metrics: MetricsFile::open(&folder.join("metrics.jsonl"), step)?,
        best: folder.join("best"),
        validation,
    };
    if is_new && config.model.spread_latents && config.model.start.is_none() {
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
        let (pairs, volumes, requests) = (&pairs, &volumes, trainer.objective.requests());
        scope.spawn(move || {
            let batches = (step..plan.steps).flat_map(|step| plan.batches(config, step, pairs));
            for batch in batches {
                for part in requests(batch.len()) {
                    // The receiver hangs up when the run ends early.
                    if sender.send(batch.volumes(volumes, part)).is_err() {
                        return;
                    }
                }
            }
        });
        trainer.run(&prepared, options.stop, observer, &save)
    })?;
    if !trainer.is_over() {
        return Ok(Outcome::Stopped { step: trainer.step });
    }
    let model = match &trainer.objective {
        Objective::Pairs { .. } => trainer.model(),
        Objective::Labels(_) => trainer.best_model(&options.device)?,
    };
    model.save(&folder.join("model"))?;
    Ok(Outcome::Complete(Box::new(model)))
}

/// What the run makes small.
fn objective(
    config: &RunConfig,
    model: &Model,
    pairs: &Pairs,
    device: &Device,
) -> Result<Objective> {
    if let (Some(finetune), Some(labels)) = (&config.finetune, &pairs.labels) {
        let objective = LabelObjective::new(finetune, &config.train, model, labels, device);
        return Ok(Objective::Labels(Box::new(objective)));
    }
    let tokenizer = model.tokenizer.clone().ok_or(Error::MissingPart {
        part: "tokenizer",
        remedy: "start from a model with a vocabulary",
    })?;
    Ok(Objective::Pairs {
        contrast: Contrast::of(&config.train),
        tokenizer: Box::new(tokenizer),
    })
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

struct Trainer<'a> {
    config: &'a RunConfig,
    plan: Plan,
    objective: Objective,
    pairs: &'a Pairs,
    tokenizer: Option<Tokenizer>,
    model_config: ModelConfig,
    /// Taken out while a step moves it.
    clip: Option<Clip>,
    optimizer: AdamW,
    step: u64,
    device: Device,
    metrics: MetricsFile,
    validation: Option<Validation>,
    /// In fine-tuning, the model with the least loss of the volumes held out.
    best: PathBuf,
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
            tokenizer: self.tokenizer.clone(),
        }
    }

    fn run(
        &mut self,
        prepared: &Receiver<Result<Vec<f32>>>,
        stop: &AtomicBool,
        observer: &dyn Observer,
        save: &dyn Fn(&Self) -> Result<()>,
    ) -> Result<()> {
        while !self.is_over() {
            let stopping = stop.load(Ordering::Relaxed);
            if !stopping {
                let mut report = self.take_step(prepared)?;
                report.validation_loss = self.validation_loss()?;
                self.metrics.append(&report)?;
                if report.validation_loss.is_some() {
                    self.keep_if_best()?;
                }
                observer.step(&report);
            }
            if stopping || self.step.is_multiple_of(self.plan.checkpoint_every) || self.is_over() {
                save(self)?;
            }
            if stopping {
                break;
            }
        }
        Ok(())
    }

    /// All steps are taken, or fine-tuning finds nothing better any more. Known from the lines of `metrics.jsonl`, so that a
    /// resumed run ends where the other would have.
    fn is_over(&self) -> bool {
        let patience = self.config.finetune.as_ref().map(|tune| tune.patience);
        self.step >= self.plan.steps
            || patience.is_some_and(|patience| self.metrics.validations_since_best() >= patience)
    }

    /// Keeps a model of fine-tuning whose loss of the volumes held out was just measured, if it is the least so far.
    fn keep_if_best(&self) -> Result<()> {
        match &self.objective {
            Objective::Labels(_) if self.metrics.validations_since_best() == 0 => {
                self.model().save(&self.best)
            }
            _ => Ok(()),
        }
    }

    /// The best model, with thresholds that are chosen on the volumes held out.
    fn best_model(&self, device: &Device) -> Result<Model> {
        let mut model = Model::load(&self.best, device)?;
        if let Some(validation) = &self.validation {
            model.config.thresholds = labels::thresholds(&model, validation, self.config, device)?;
        }
        Ok(model)
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
            let loss = self.objective.add_gradients(
                self.clip(),
                Given {
                    truth: &batch.truth,
                    count: batch.len(),
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
            let loss = self.objective.loss(
                &clip,
                Given {
                    truth: &batch.truth,
                    count: batch.len(),
                    volumes: &mut |part| {
                        let values = batch.volumes(&validation.volumes, part)?;
                        Ok(self.volumes(values, &device))
                    },
                    dropout_seed: 0,
                },
            )?;
            sum += loss * batch.len() as f64;
            count += batch.len();
        }
        Ok(Some(sum / count as f64))
    }

    /// See [`ImageTower::spread_latents`](crate::models::ImageTower::spread_latents), from the first step's first batch.
    fn spread_latents(&mut self, volumes: &VolumeSource) -> Result<()> {
        let batches = self.plan.batches(self.config, 0, self.pairs);
        let Some(batch) = batches.first() else {
            return Ok(());
        };
        let untracked = self.clip().clone().no_grad();
        let features = Contrast::of(&self.config.train)
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
