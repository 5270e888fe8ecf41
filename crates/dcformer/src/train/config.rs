//! A run's configuration, `config.toml`.

use std::path::{Path, PathBuf};

use dcformer_volume::preprocess::{OrientationPolicy, Preprocess};
use dcformer_volume::storage;
use serde::{Deserialize, Serialize};

use super::finetune::FinetuneConfig;
use crate::complexity::Shape3;
use crate::error::{Error, Result};
use crate::models::dcformer::StemActivation;
use crate::models::{
    BertConfig, ClipConfig, ImageEncoderConfig, Preset, Reduction, Temperature,
    VectorQuantizerConfig, preset,
};
use crate::text::Prompts;

mod recipe;

pub use recipe::{BatchNormStatistics, ContrastOver, OptimizerConfig, Schedule, TrainConfig};

/// Everything that decides a run; the same file, data and program give the same weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    /// Start of all random streams.
    #[serde(default)]
    pub seed: u64,
    /// Scans and reports.
    pub data: DataConfig,
    /// The network.
    #[serde(default)]
    pub model: ModelChoice,
    /// How scans become volumes.
    #[serde(default)]
    pub preprocess: Preprocess,
    /// How the network learns.
    #[serde(default)]
    pub train: TrainConfig,
    /// What to look for when the trained model is asked, in which words.
    #[serde(default)]
    pub prompts: Prompts,
    /// Learns from labels in place of reports, and starts from the model at `model.start`; absent for training with reports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finetune: Option<FinetuneConfig>,
}

impl RunConfig {
    /// Reads and checks a configuration. Relative paths in it are relative to the file.
    ///
    /// # Errors
    /// If the file cannot be read, has an unknown or mistyped key (the message lists the valid ones), or a value that
    /// cannot be carried out.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|source| Error::Read {
            path: path.to_owned(),
            source,
        })?;
        let mut config: Self = toml::from_str(&text).map_err(|source| Error::RunConfig {
            path: path.to_owned(),
            source: Box::new(source),
        })?;
        config.resolve_paths(path.parent().unwrap_or(Path::new("")));
        config.check()?;
        Ok(config)
    }

    /// The configuration as a file that [`read`](Self::read) reads.
    ///
    /// # Panics
    /// Never: every field has a TOML form.
    pub fn to_toml(&self) -> String {
        toml::to_string_pretty(self).expect("every field of a run's configuration has a TOML form")
    }

    /// The same with what was left to the network written out: what a run's folder records, and what a resumed run is
    /// compared by.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub fn resolved(&self) -> Result<Self> {
        self.check()?;
        let mut config = self.clone();
        let own = config.model.encoder()?.reduction();
        config.model.reduction.get_or_insert(own);
        if config.finetune.is_some() {
            // What an early end is decided by.
            config.train.validate_every_epochs.get_or_insert(1);
        }
        Ok(config)
    }

    fn resolve_paths(&mut self, folder: &Path) {
        let resolve = |path: &mut PathBuf| *path = storage::resolve(folder, path);
        match &mut self.data {
            DataConfig::CtRate { root, exclude } => {
                resolve(root);
                exclude.iter_mut().for_each(resolve);
            }
            DataConfig::Manifest { train, validation }
            | DataConfig::Cache { train, validation } => {
                resolve(train);
                validation.iter_mut().for_each(resolve);
            }
        }
        match &mut self.model.text {
            TextChoice::Folder { folder, .. } => resolve(folder),
            TextChoice::Scratch { .. } => {}
        }
        self.model.start.iter_mut().for_each(resolve);
    }

    /// Refuses what cannot be carried out, naming the field.
    ///
    /// # Errors
    /// [`Error::RunField`].
    pub fn check(&self) -> Result<()> {
        self.train.check()?;
        let needs = |field, found: String, expected| {
            Err(Error::RunField {
                field,
                found,
                expected,
            })
        };
        match &self.finetune {
            Some(finetune) => finetune.check(self)?,
            None if self.train.batch < 2 => {
                return needs(
                    "train.batch",
                    self.train.batch.to_string(),
                    "at least 2, since a pair is contrasted with other pairs",
                );
            }
            None => {}
        }
        if self.train.batch_norm == BatchNormStatistics::Frozen && self.model.start.is_none() {
            return needs(
                "train.batch_norm",
                "frozen, with fresh weights".to_owned(),
                "a model to start from, `model.start`, whose statistics are kept",
            );
        }
        if self.train.mirror_left_right > 0.0
            && self.preprocess.orientation == OrientationPolicy::Keep
        {
            return needs(
                "train.mirror_left_right",
                format!(
                    "{} with scans as they are stored",
                    self.train.mirror_left_right
                ),
                "`preprocess.orientation = \"canonical\"`, so that it is known where left is",
            );
        }
        self.preprocess.check()?;
        self.model
            .encoder()?
            .grid(self.preprocess.shape)
            .map(|_| ())
    }
}

/// Where scans and reports are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "layout", rename_all = "kebab-case", deny_unknown_fields)]
pub enum DataConfig {
    /// CT-RATE's folders and tables.
    CtRate {
        /// The folder that holds `dataset/`.
        root: PathBuf,
        /// Tables of volumes to leave out.
        #[serde(default)]
        exclude: Vec<PathBuf>,
    },
    /// One CSV a split: columns `volume`, `report`, `patient`, labels.
    Manifest {
        /// Pairs to learn from.
        train: PathBuf,
        /// Pairs to measure on.
        #[serde(default)]
        validation: Option<PathBuf>,
    },
    /// Volumes that `dcformer prepare` has made, with this run's preprocessing.
    Cache {
        /// The cache with the pairs to learn from.
        train: PathBuf,
        /// The cache with the pairs to measure on; absent for the validation split of `train`, if it has splits.
        #[serde(default)]
        validation: Option<PathBuf>,
    },
}

/// The network of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelChoice {
    /// Image encoder, as `dcformer complexity` lists them.
    pub encoder: String,
    /// Its size, as there.
    pub variant: String,
    /// Fields of the encoder's configuration that differ from the variant's.
    #[serde(skip_serializing_if = "toml::Table::is_empty")]
    pub options: toml::Table,
    /// What the scale of each block's residual branch starts from, in networks that have one; absent for their own.
    pub layer_scale: Option<f64>,
    /// What follows each convolution of the stem, in networks with DCFormer's: nothing, as in the authors' code, or a GELU,
    /// as in the paper's figure.
    pub stem_activation: StemActivation,
    /// From a grid of features to one vector; absent for what the paper does with this encoder.
    pub reduction: Option<Reduction>,
    /// Codes of the vector quantizer that the authors' code has; absent for none, the paper's text.
    pub quantizer: Option<VectorQuantizerConfig>,
    /// Similarities to logits.
    pub temperature: Temperature,
    /// Whether the projection of fresh weights starts from the first volumes' features, so that latents differ at once.
    /// The authors' starts at random, and a small run may then stay for long where nothing is told apart.
    pub spread_latents: bool,
    /// The text encoder.
    pub text: TextChoice,
    /// A model folder whose weights the run starts from; its network and vocabulary replace the ones chosen here.
    pub start: Option<PathBuf>,
}

impl Default for ModelChoice {
    fn default() -> Self {
        Self {
            encoder: "dcformer".to_owned(),
            variant: "nano".to_owned(),
            options: toml::Table::new(),
            layer_scale: None,
            stem_activation: StemActivation::None,
            reduction: None,
            quantizer: None,
            temperature: Temperature::AUTHORS,
            spread_latents: false,
            text: TextChoice::default(),
            start: None,
        }
    }
}

impl ModelChoice {
    /// The image encoder's configuration.
    ///
    /// # Errors
    /// If there is no such encoder, variant or option, or the encoder cannot be built so.
    pub fn encoder(&self) -> Result<ImageEncoderConfig> {
        let preset = preset(&self.encoder, Some(&self.variant))?;
        let mut options = serde_json::Map::new();
        // One configuration serves several networks; what one of them has no place for does not concern it.
        let mut where_it_is = |field: &str, value| {
            if preset.config.has_field(field) {
                options.insert(field.to_owned(), value);
            }
        };
        if let Some(scale) = self.layer_scale {
            where_it_is("layer_scale", json(scale));
        }
        if self.stem_activation != StemActivation::None {
            where_it_is("stem_activation", json(self.stem_activation));
        }
        let fields = self.options.iter();
        options.extend(fields.map(|(key, value)| (key.clone(), json(value))));
        preset.config.with_options(options)
    }

    /// The same for another encoder: options of single sizes are the network's own and stay behind with it, and a quantizer's
    /// codes are as long as the encoder's features.
    ///
    /// # Errors
    /// As [`encoder`](Self::encoder).
    pub fn with_encoder(&self, encoder: &Preset) -> Result<Self> {
        let mut choice = self.clone();
        if choice.encoder != encoder.network {
            choice.options.clear();
        }
        choice.encoder = encoder.network.to_owned();
        choice.variant = encoder.variant.to_owned();
        let features = choice.encoder()?.features();
        if let Some(quantizer) = &mut choice.quantizer {
            quantizer.channels = features;
        }
        Ok(choice)
    }

    /// The whole network's configuration around a text encoder, for volumes of this size.
    ///
    /// # Errors
    /// As [`encoder`](Self::encoder), or if the encoder cannot take such volumes.
    pub fn clip(&self, text: BertConfig, volume: Shape3) -> Result<ClipConfig> {
        let mut config = ClipConfig::new(self.encoder()?, text);
        let reduction = self.reduction.unwrap_or(config.image.encoder.reduction());
        config.image.reduce(reduction, volume)?;
        config.image.quantizer.clone_from(&self.quantizer);
        config.temperature = self.temperature;
        Ok(config)
    }
}

fn json(value: impl Serialize) -> serde_json::Value {
    serde_json::to_value(value).expect("numbers, names and TOML values have a JSON form")
}

/// The text encoder of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum TextChoice {
    /// A BERT with fresh weights and a vocabulary learnt from the training reports.
    Scratch {
        /// Width of the features.
        width: usize,
        /// Layers.
        layers: usize,
        /// Attention heads; they divide the width.
        heads: usize,
        /// Most tokens of the vocabulary.
        vocabulary: usize,
        /// Most tokens of a report; the rest is cut off.
        tokens: usize,
    },
    /// A folder in Hugging Face's format, of a BERT or a DistilBERT: see
    /// [`load_bert`](crate::checkpoint::load_bert).
    Folder {
        /// The folder.
        folder: PathBuf,
        /// Whether texts go through the projection head that the folder's weights have, as CXR-BERT-specialized's, before
        /// the run's own projection. The authors leave it out.
        #[serde(default)]
        own_head: bool,
    },
}

impl Default for TextChoice {
    fn default() -> Self {
        Self::Scratch {
            width: 128,
            layers: 2,
            heads: 2,
            vocabulary: 2000,
            tokens: 512,
        }
    }
}

#[cfg(test)]
mod tests;
