//! What a run starts from: a checkpoint, another model, or fresh weights.

use burn::module::Module;
use burn::tensor::Device;

use super::checkpoint::{Checkpoints, Resumed};
use super::config::{RunConfig, TextChoice};
use super::data::Pairs;
use super::labels;
use super::optimizer::AdamW;
use super::run::RunOptions;
use super::stream;
use crate::checkpoint::{Model, ModelConfig, OwnHead, load_bert};
use crate::error::{Error, Result};
use crate::models::BertConfig;
use crate::random::Random;
use crate::text::{Tokenizer, Vocabulary};

/// Refuses more workers than can share the run.
pub(super) fn check_workers(config: &RunConfig, workers: usize) -> Result<()> {
    if config.finetune.is_some() && workers > 1 {
        return Err(Error::WorkerCount {
            field: "finetune",
            found: "given".to_owned(),
            workers,
            expected: "one worker, since fine-tuning is not shared",
        });
    }
    config.train.check_workers(workers)
}

/// Whether the run is new; and its newest checkpoint, or step 0. Workers other than the first have step 0 in any case, as a
/// place for what the first one has.
pub(super) fn start(
    config: &RunConfig,
    pairs: &Pairs,
    checkpoints: &Checkpoints,
    options: &RunOptions<'_>,
) -> Result<(bool, Resumed)> {
    let fresh = || {
        let resumed = Resumed {
            step: 0,
            model: fresh_model(config, pairs, &options.device)?,
            optimizer: AdamW::new(config.train.optimizer.clone()),
        };
        Ok((true, resumed))
    };
    if !options.workers.is_first() {
        return fresh();
    }
    if options.resume {
        let resumed = checkpoints.resume(config, pairs.fingerprint(), &options.device)?;
        return resumed.map_or_else(fresh, |resumed| Ok((false, resumed)));
    }
    if checkpoints.exist()? {
        return Err(Error::RunExists {
            folder: checkpoints.run().to_owned(),
        });
    }
    fresh()
}

/// A model with fresh weights that depend on the seed alone, or the one the run starts from.
fn fresh_model(config: &RunConfig, pairs: &Pairs, device: &Device) -> Result<Model> {
    let seed = Random::new(config.seed, "fresh weights", 0).bits();
    let _held = stream::hold(device, seed);
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

/// Refuses parts and workers where a quantizer's codes, which move while volumes are encoded, would give a volume another
/// latent the second time, or on another worker. Labels ask for every volume once.
pub(super) fn check_quantizer(
    config: &RunConfig,
    model: &ModelConfig,
    workers: usize,
) -> Result<()> {
    if model.clip.image.quantizer.is_none() {
        return Ok(());
    }
    if workers > 1 {
        return Err(Error::WorkerCount {
            field: "model.quantizer",
            found: "a vector quantizer".to_owned(),
            workers,
            expected: "none: its codes move with the volumes that a worker sees; leave it out, or train with one worker",
        });
    }
    match config.train.micro_batch {
        Some(size) if size < config.train.batch && config.finetune.is_none() => {
            Err(Error::RunField {
                field: "train.micro_batch",
                found: format!("{size} for a model with a vector quantizer"),
                expected: "none: its codes move with every volume; leave the key out, or the quantizer",
            })
        }
        _ => Ok(()),
    }
}
