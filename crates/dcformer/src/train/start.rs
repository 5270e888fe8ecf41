//! What a run starts from: another model, or fresh weights.

use burn::module::Module;
use burn::tensor::Device;

use super::config::{RunConfig, TextChoice};
use super::data::Pairs;
use super::labels;
use crate::checkpoint::{Model, ModelConfig, OwnHead, load_bert};
use crate::error::{Error, Result};
use crate::models::BertConfig;
use crate::random::Random;
use crate::text::{Tokenizer, Vocabulary};

/// A model with fresh weights that depend on the seed alone, or the one the run starts from.
pub(super) fn fresh_model(config: &RunConfig, pairs: &Pairs, device: &Device) -> Result<Model> {
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
/// another latent the second time. Labels ask for every volume once.
pub(super) fn check_parts(config: &RunConfig, model: &ModelConfig) -> Result<()> {
    match config.train.micro_batch {
        Some(size)
            if size < config.train.batch
                && config.finetune.is_none()
                && model.clip.image.quantizer.is_some() =>
        {
            Err(Error::RunField {
                field: "train.micro_batch",
                found: format!("{size} for a model with a vector quantizer"),
                expected: "none: its codes move with every volume; leave the key out, or the quantizer",
            })
        }
        _ => Ok(()),
    }
}
