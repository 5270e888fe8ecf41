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
use super::config::{RunConfig, TextChoice};
use super::data::{Pairs, VolumeSource};
use super::labels::{self, LabelObjective};
use super::learning_rate::learning_rate;
use super::metrics_file::MetricsFile;
use super::optimizer::{AdamW, ParameterGradients};
use super::plan::{Batch, Plan, Truth, Validation};
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
    let data = config.data.training()?;
    let (pairs, held_out) = match &config.finetune {
        Some(finetune) => {
            if !data.problems.is_empty() {
                observer.problems(&data.problems, 0);
            }
            let split = labels::split(&data, finetune, &config.prompts, config.seed)?;
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
        tokenizer: model.tokenizer.clone(),
        objective: config
            .finetune
            .as_ref()
            .map(|finetune| LabelObjective::new(finetune, &model, &pairs, &options.device)),
        model_config: model.config.clone(),
        clip: Some(model.clip),
        optimizer,
        step,
        device: options.device.clone().autodiff(),
        metrics: MetricsFile::open(&folder.join("metrics.jsonl"), step)?,
        best: folder.join("best"),
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
    if !trainer.is_over() {
        return Ok(Outcome::Stopped { step: trainer.step });
    }
    let model = match &trainer.objective {
        None => trainer.model(),
        Some(_) => trainer.best_model(&options.device)?,
    };
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
        // A head and thresholds of an earlier fine-tuning say nothing of what this run makes of the towers.
        model.config.thresholds.clear();
        model.config.clip.classifier = None;
        model.clip.classifier = None;
        if let (Some(finetune), Some(labels)) = (&config.finetune, &pairs.labels) {
            labels::prepare(&mut model, finetune, labels, &device)?;
        }
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
    tokenizer: Option<Tokenizer>,
    /// What is learnt from labels; `None` for pairs of scan and report.
    objective: Option<LabelObjective>,
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
        batches: &Receiver<Result<Vec<Batch>>>,
        stop: &AtomicBool,
        observer: &dyn Observer,
        save: &dyn Fn(&Self) -> Result<()>,
    ) -> Result<()> {
        while !self.is_over() {
            let stopping = stop.load(Ordering::Relaxed);
            if !stopping {
                let started = Instant::now();
                // The sender stops only after it has sent every step.
                let Ok(batches) = batches.recv() else { break };
                let mut report = self.take_step(batches?, started)?;
                report.validation_loss = self.validation_loss()?;
                self.metrics.append(&report)?;
                let is_measured = self.objective.is_some() && report.validation_loss.is_some();
                if is_measured && self.metrics.validations_since_best() == 0 {
                    self.model().save(&self.best)?;
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

    /// The best model, with thresholds that are chosen on the volumes held out.
    fn best_model(&self, device: &Device) -> Result<Model> {
        let mut model = Model::load(&self.best, device)?;
        if let Some(validation) = &self.validation {
            model.config.thresholds = labels::thresholds(&model, validation, self.config, device)?;
        }
        Ok(model)
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
            let batch = batch?;
            let volumes = batch.count;
            let loss = self.loss(&clip, batch, &device)?;
            sum += f64::from(loss.into_scalar::<f32>()) * volumes as f64;
            count += volumes;
        }
        Ok(Some(sum / count as f64))
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
        let texts = match (batch.truth, &self.objective) {
            (Truth::Texts(texts), _) => texts,
            (Truth::Labels(labels), Some(objective)) => {
                return objective.loss(clip, volumes, &labels, self.tokenizer.as_ref());
            }
            (Truth::Labels(_), None) => unreachable!("labels are drawn in fine-tuning only"),
        };
        let tokenizer = self.tokenizer.as_ref().ok_or(Error::MissingPart {
            part: "tokenizer",
            remedy: "start from a model with a vocabulary",
        })?;
        let texts = tokenizer.encode_batch(&texts)?;
        let images = clip.encode_image(volumes)?;
        let texts = clip.encode_text(&texts)?;
        Ok(clip.logit_scale.loss(images, texts))
    }
}
