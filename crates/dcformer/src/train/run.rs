//! The loop.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Instant;

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use dcformer_volume::dataset::DataSet;

use super::checkpoint::{Checkpoints, Resumed, deserialise, serialise};
use super::config::{BatchNormStatistics, ContrastOver, RunConfig};
use super::contrast::Contrast;
use super::data::{Pairs, VolumeSource};
use super::exchange::{average_running, broadcast, check_alike, sum_gradients};
use super::labels::{self, LabelObjective};
use super::learning_rate::learning_rate;
use super::metrics_file::MetricsFile;
use super::objective::{Given, Objective};
use super::observer::{Observer, StepReport, of_first};
use super::optimizer::{AdamW, ParameterGradients};
use super::plan::{Plan, Validation};
use super::start::{check_quantizer, check_workers, start};
use crate::checkpoint::{Model, ModelConfig, write_file};
use crate::error::{Error, Result};
use crate::models::{Clip, Statistics};
use crate::random::Random;
use crate::text::Tokenizer;
use crate::workers::{Alone, Communicator, with_shared_norms};

/// How a run is carried out; nothing here changes its weights.
#[derive(Debug)]
pub struct RunOptions<'a> {
    /// Where it computes.
    pub device: Device,
    /// Whether it goes on from the newest checkpoint of the folder, if there is one.
    pub resume: bool,
    /// Set to true, on any worker, it ends the run after the step at hand, with a checkpoint.
    pub stop: &'a AtomicBool,
    /// Who shares the run; [`Alone`] for one worker. Weights are the same, but for rounding, however many there are, if
    /// batch norms do not depend on it. Its first worker reads and writes the folder, and tells the observer.
    pub workers: Arc<dyn Communicator>,
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
/// If data cannot be read, nothing can be learnt from them, a file cannot be written, the loss is not finite, or another
/// worker is lost. The checkpoints written before stay.
pub fn train(
    config: &RunConfig,
    folder: &Path,
    options: &RunOptions<'_>,
    observer: &dyn Observer,
) -> Result<Outcome> {
    let config = &config.resolved()?;
    check_workers(config, options.workers.size())?;
    let observer = of_first(observer, &*options.workers);
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
    let workers = &*options.workers;
    let observer = of_first(observer, workers);
    let plan = Plan::new(config, pairs.samples.len())?;
    let all_volumes = pairs.samples.len() + held_out.as_ref().map_or(0, |held| held.samples.len());
    let fingerprint = pairs.fingerprint();
    check_alike("configuration", config.to_toml().as_bytes(), workers)?;
    check_alike(
        "list of training pairs",
        &fingerprint.to_le_bytes(),
        workers,
    )?;
    let checkpoints = Checkpoints::new(folder, config.train.keep_checkpoints);
    let (is_new, resumed) = start(config, &pairs, &checkpoints, options)?;
    let Resumed {
        step,
        mut model,
        optimizer,
    } = resumed;
    check_quantizer(config, &model.config, workers.size())?;
    let metrics = if workers.is_first() {
        create_folder(folder)?;
        write_file(&folder.join("config.toml"), config.to_toml().as_bytes())?;
        Some(MetricsFile::open(&folder.join("metrics.jsonl"), step)?)
    } else {
        None
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
        metrics,
        best: folder.join("best"),
        validation,
        workers: Arc::clone(&options.workers),
    };
    let is_fresh = is_new && config.model.start.is_none();
    if is_fresh && config.model.spread_latents && workers.is_first() {
        trainer.spread_latents(&volumes)?;
    }
    trainer.start_alike()?;
    let step = trainer.step;
    observer.starting(step, plan.steps, pairs.samples.len());
    let save = |trainer: &Trainer<'_>| {
        if !workers.is_first() {
            return Ok(());
        }
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
            for batch in batches.map(|batch| batch.of_worker(workers)) {
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
    if workers.is_first() {
        model.save(&folder.join("model"))?;
    }
    Ok(Outcome::Complete(Box::new(model)))
}

fn create_folder(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(|source| Error::Write {
        path: folder.to_owned(),
        source,
    })
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
    /// Of the first worker.
    metrics: Option<MetricsFile>,
    validation: Option<Validation>,
    /// In fine-tuning, the model with the least loss of the volumes held out.
    best: PathBuf,
    workers: Arc<dyn Communicator>,
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

    /// Makes every worker go on from where the first one is.
    fn start_alike(&mut self) -> Result<()> {
        if self.workers.size() == 1 {
            return Ok(());
        }
        let step = self.workers.broadcast(self.step.to_le_bytes().to_vec())?;
        let step = step.try_into().expect("the bytes of a number of steps");
        self.step = u64::from_le_bytes(step);
        let moments = self
            .workers
            .broadcast(serialise(self.optimizer.moments())?)?;
        let optimizer = self.config.train.optimizer.clone();
        self.optimizer = AdamW::resume(
            optimizer,
            self.step,
            deserialise(&moments, Path::new("the first worker"))?,
        );
        self.change_clip(|clip, workers| broadcast(clip, workers))
    }

    fn change_clip(
        &mut self,
        change: impl FnOnce(Clip, &dyn Communicator) -> Result<Clip>,
    ) -> Result<()> {
        let clip = self
            .clip
            .take()
            .expect("the network is out only during a step");
        self.clip = Some(change(clip, &*self.workers)?);
        Ok(())
    }

    fn run(
        &mut self,
        prepared: &Receiver<Result<Vec<f32>>>,
        stop: &AtomicBool,
        observer: &dyn Observer,
        save: &dyn Fn(&Self) -> Result<()>,
    ) -> Result<()> {
        while !self.is_over() {
            let stopping = self.workers.any(stop.load(Ordering::Relaxed))?;
            if !stopping {
                let mut report = self.take_step(prepared)?;
                report.validation_loss = self.validation_loss()?;
                if let Some(metrics) = &mut self.metrics {
                    metrics.append(&report)?;
                }
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
            || patience.is_some_and(|patience| self.validations_since_best() >= patience)
    }

    /// See [`MetricsFile::validations_since_best`]; fine-tuning has one worker, the first.
    fn validations_since_best(&self) -> usize {
        let metrics = self.metrics.as_ref();
        metrics.map_or(0, MetricsFile::validations_since_best)
    }

    /// Keeps a model of fine-tuning whose loss of the volumes held out was just measured, if it is the least so far.
    fn keep_if_best(&self) -> Result<()> {
        match &self.objective {
            Objective::Labels(_) if self.validations_since_best() == 0 => {
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

    /// Mean loss of the batches of the step at hand, and their mean gradients, of all workers; `prepared` gives the parts
    /// of this one.
    fn loss_and_gradients(
        &self,
        prepared: &Receiver<Result<Vec<f32>>>,
    ) -> Result<(f64, ParameterGradients)> {
        let step = self.step;
        let mut gradients = ParameterGradients::default();
        let mut loss_sum = 0.0;
        let batches = self.plan.batches(self.config, step, self.pairs);
        let count = batches.len();
        let over = self.config.train.contrast_over;
        for (batch, number) in batches.into_iter().zip(step * count as u64..) {
            let of_all = batch.len();
            let batch = batch.of_worker(&*self.workers);
            let (workers, weight): (&dyn Communicator, _) = match over {
                ContrastOver::AllWorkers => (&*self.workers, 1.0),
                ContrastOver::OwnWorker => (&Alone, batch.len() as f64 / of_all as f64),
            };
            let weight = weight / count as f64;
            // Started anew for each batch, it is the same after a resume; workers draw each their own.
            let number = number * self.workers.size() as u64 + self.workers.rank() as u64;
            let given = Given {
                truth: &batch.truth,
                count: batch.len(),
                volumes: &mut |_| {
                    let values = prepared
                        .recv()
                        .expect("every part that a step asks for is sent");
                    Ok(self.volumes(values?, &self.device))
                },
                dropout_seed: Random::new(self.config.seed, "dropout of step", number).bits(),
                workers,
            };
            let add = || {
                let (clip, weight) = (self.clip(), weight as f32);
                self.objective
                    .add_gradients(clip, given, weight, &mut gradients)
            };
            let loss = match self.config.train.batch_norm {
                BatchNormStatistics::Synchronized => with_shared_norms(&self.workers, add),
                BatchNormStatistics::Batch | BatchNormStatistics::Frozen => add(),
            }?;
            loss_sum += weight * loss;
            if !loss.is_finite() {
                break;
            }
        }
        if over == ContrastOver::OwnWorker {
            [loss_sum] = self.workers.sum([loss_sum])?;
        }
        if !loss_sum.is_finite() {
            return Err(Error::LossNotFinite {
                step: step + 1,
                loss: loss_sum,
            });
        }
        sum_gradients(self.clip(), &mut gradients, &*self.workers)?;
        Ok((loss_sum, gradients))
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
        if train.batch_norm == BatchNormStatistics::Batch {
            self.change_clip(average_running)?;
        }
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
        let (mut sum, mut count) = (0.0, 0.0);
        let batches = validation.batches(self.config);
        for batch in batches
            .skip(self.workers.rank())
            .step_by(self.workers.size())
        {
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
                    workers: &Alone,
                },
            )?;
            let weight = batch.len() as f64;
            sum += loss * weight;
            count += weight;
        }
        let [sum, count] = self.workers.sum([sum, count])?;
        Ok(Some(sum / count))
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
