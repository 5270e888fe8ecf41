//! A run's configuration, `config.toml`.

use std::path::{Path, PathBuf};

use dcformer_volume::preprocess::Preprocess;
use serde::{Deserialize, Serialize};

use super::finetune::FinetuneConfig;
use crate::complexity::Shape3;
use crate::error::{Error, Result};
use crate::models::dcformer::StemActivation;
use crate::models::{
    BertConfig, ClipConfig, ImageEncoderConfig, Preset, Reduction, Temperature,
    VectorQuantizerConfig, preset,
};
use crate::text::{Prompts, ReportText};

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
        let resolve = |path: &mut PathBuf| *path = folder.join(&*path);
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
            TextChoice::Folder { folder } => resolve(folder),
            TextChoice::Scratch { .. } => {}
        }
        self.model.start.iter_mut().for_each(resolve);
    }

    /// Refuses what cannot be carried out, naming the field.
    ///
    /// # Errors
    /// [`Error::RunField`].
    pub fn check(&self) -> Result<()> {
        let TrainConfig {
            batch,
            accumulate,
            epochs,
            checkpoint_every_steps,
            clip_gradient_norm,
            ..
        } = self.train;
        let wrong = |field, found: String, expected| {
            Err(Error::RunField {
                field,
                found,
                expected,
            })
        };
        if let Some(finetune) = &self.finetune {
            finetune.check(self.model.start.is_some())?;
        }
        if batch < 2 && self.finetune.is_none() {
            return wrong(
                "train.batch",
                batch.to_string(),
                "at least 2, since a pair is contrasted with other pairs",
            );
        }
        if batch == 0 {
            return wrong("train.batch", "0".to_owned(), "at least 1");
        }
        if accumulate == 0 {
            return wrong("train.accumulate", "0".to_owned(), "at least 1");
        }
        if epochs == 0 {
            return wrong("train.epochs", "0".to_owned(), "at least 1");
        }
        if self.train.steps == Some(0) {
            return wrong(
                "train.steps",
                "0".to_owned(),
                "at least 1, or absent for whole epochs",
            );
        }
        if self.train.texts_per_volume == 0 {
            return wrong("train.texts_per_volume", "0".to_owned(), "at least 1");
        }
        if self.train.validate_every_epochs == Some(0) {
            return wrong(
                "train.validate_every_epochs",
                "0".to_owned(),
                "at least 1, or absent for no validation",
            );
        }
        if checkpoint_every_steps == Some(0) {
            return wrong(
                "train.checkpoint_every_steps",
                "0".to_owned(),
                "at least 1, or absent for every epoch",
            );
        }
        if clip_gradient_norm.is_some_and(|norm| !(norm.is_finite() && norm > 0.0)) {
            return wrong(
                "train.clip_gradient_norm",
                format!("{clip_gradient_norm:?}"),
                "a number above 0",
            );
        }
        self.train.optimizer.check()?;
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
    /// A folder in Hugging Face's format: `config.json`, `vocab.txt` or `tokenizer.json`, and weights.
    Folder {
        /// The folder.
        folder: PathBuf,
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

/// How the network learns. The defaults are the authors' recipe (SPEC section 6).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainConfig {
    /// Passes over the training pairs.
    pub epochs: usize,
    /// Steps of the whole run, in place of `epochs`; absent for as many as the epochs have.
    pub steps: Option<u64>,
    /// Pairs that are contrasted with each other.
    pub batch: usize,
    /// Batches whose gradients are averaged before the weights move; each is contrasted within itself only.
    pub accumulate: usize,
    /// AdamW.
    pub optimizer: OptimizerConfig,
    /// Largest norm of all gradients together; absent for no limit.
    pub clip_gradient_norm: Option<f64>,
    /// What of a report a step sees.
    pub report: ReportText,
    /// Texts drawn of each report, each contrasted with the volumes on its own; the losses are averaged. More than one
    /// makes sense with random sentences only: a volume is dear to encode, a text is cheap.
    pub texts_per_volume: usize,
    /// Largest shift of a volume along depth, height and width, in voxels, drawn anew each time; 0 for none.
    pub shift_voxels: [usize; 3],
    /// Epochs between measurements of the loss on the validation split; absent for none.
    pub validate_every_epochs: Option<u64>,
    /// Steps between checkpoints; absent for one an epoch.
    pub checkpoint_every_steps: Option<u64>,
    /// Newest checkpoints that are kept.
    pub keep_checkpoints: usize,
    /// Preprocessed volumes of a split that are kept in memory, in GB; what does not fit is read again every epoch.
    pub volume_memory_gb: f64,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            epochs: 15,
            steps: None,
            batch: 8,
            accumulate: 1,
            optimizer: OptimizerConfig::default(),
            clip_gradient_norm: None,
            report: ReportText::Whole,
            texts_per_volume: 1,
            shift_voxels: [0; 3],
            validate_every_epochs: None,
            checkpoint_every_steps: None,
            keep_checkpoints: 2,
            volume_memory_gb: 4.0,
        }
    }
}

impl TrainConfig {
    /// Pairs behind one change of the weights.
    pub fn effective_batch(&self) -> usize {
        self.batch * self.accumulate
    }

    /// Learning rate before the schedule: the configured one, or the authors' rule.
    pub fn peak_learning_rate(&self) -> f64 {
        /// The authors scale `1e-5` by the effective batch over 256.
        const AUTHORS: f64 = 1e-5 / 256.0;
        self.optimizer
            .learning_rate
            .unwrap_or(AUTHORS * self.effective_batch() as f64)
    }
}

/// AdamW (arXiv 1711.05101) and its schedule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OptimizerConfig {
    /// Peak learning rate; absent for the authors' rule, 1e-5 times effective batch over 256.
    pub learning_rate: Option<f64>,
    /// How the learning rate goes over the run.
    pub schedule: Schedule,
    /// Steps over which it rises linearly to its peak.
    pub warmup_steps: u64,
    /// Decay of the running means of gradient and squared gradient.
    pub betas: [f64; 2],
    /// Added to the root of the squared gradient's mean.
    pub epsilon: f64,
    /// Decoupled decay of tensors of two or more dimensions; biases, norms and scales have none.
    pub weight_decay: f64,
}

impl Default for OptimizerConfig {
    fn default() -> Self {
        Self {
            learning_rate: None,
            schedule: Schedule::Constant,
            warmup_steps: 0,
            betas: [0.9, 0.95],
            epsilon: 1e-8,
            weight_decay: 0.05,
        }
    }
}

impl OptimizerConfig {
    fn check(&self) -> Result<()> {
        let wrong = |field, found: String, expected| {
            Err(Error::RunField {
                field,
                found,
                expected,
            })
        };
        if self
            .learning_rate
            .is_some_and(|rate| !(rate.is_finite() && rate > 0.0))
        {
            return wrong(
                "train.optimizer.learning_rate",
                format!("{:?}", self.learning_rate),
                "a number above 0",
            );
        }
        if !self.betas.iter().all(|beta| (0.0..1.0).contains(beta)) {
            return wrong(
                "train.optimizer.betas",
                format!("{:?}", self.betas),
                "two numbers from 0 to below 1",
            );
        }
        if !(self.epsilon.is_finite() && self.epsilon > 0.0) {
            return wrong(
                "train.optimizer.epsilon",
                self.epsilon.to_string(),
                "a number above 0",
            );
        }
        if !(self.weight_decay.is_finite() && self.weight_decay >= 0.0) {
            return wrong(
                "train.optimizer.weight_decay",
                self.weight_decay.to_string(),
                "a number from 0 on",
            );
        }
        Ok(())
    }
}

/// How the learning rate goes over the run, after the warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// It stays (the authors).
    #[default]
    Constant,
    /// Half a cosine from the peak to 0 at the last step.
    Cosine,
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINIMAL: &str = "[data]\nlayout = \"ct-rate\"\nroot = \"data\"\n";

    #[test]
    fn a_minimal_configuration_is_the_authors_recipe() {
        let config: RunConfig = toml::from_str(MINIMAL).expect("a valid configuration");
        assert_eq!(config.train.epochs, 15);
        assert_eq!(config.train.peak_learning_rate(), 1e-5 * 8.0 / 256.0);
        assert_eq!(config.train.optimizer.betas, [0.9, 0.95]);
        assert_eq!(config.preprocess, Preprocess::dcformer());
        config.check().expect("the defaults are valid");
    }

    #[test]
    fn what_is_written_is_read_back() {
        let config: RunConfig = toml::from_str(MINIMAL).expect("a valid configuration");
        assert_eq!(
            toml::from_str::<RunConfig>(&config.to_toml()).expect("it reads its own files"),
            config
        );
    }

    #[test]
    fn what_is_left_to_the_network_is_written_out() {
        let resolved = |model: &str| {
            let text = format!("{MINIMAL}[model]\n{model}\n");
            let config: RunConfig = toml::from_str(&text).expect("a valid configuration");
            config.resolved().expect("it can be carried out").model
        };
        assert_eq!(resolved("").reduction, Some(Reduction::Channel));
        let ctvit = "encoder = \"ctvit\"\nvariant = \"paper\"";
        assert_eq!(resolved(ctvit).reduction, Some(Reduction::Depth));
        let stated = format!("{ctvit}\nreduction = \"channel\"");
        assert_eq!(resolved(&stated).reduction, Some(Reduction::Channel));
        // The mean over depth of 16 x 16 patches.
        let volume = Preprocess::dcformer().shape;
        let clip = resolved(ctvit).clip(BertConfig::tiny(10), volume);
        let projection = clip.expect("it can be built").image.projection;
        assert_eq!(projection.map(|sizes| sizes.inputs), Some(16 * 16 * 512));
    }

    #[test]
    fn options_change_the_networks_own_configuration() {
        let encoder = |model: &str| {
            let text = format!("{MINIMAL}[model]\n{model}\n");
            let config: RunConfig = toml::from_str(&text).expect("it parses");
            config.model.encoder()
        };
        let vit = "encoder = \"vit\"\nvariant = \"tiny\"";
        let sane = encoder(&format!("{vit}\noptions = {{ hidden = 2048 }}")).expect("a network");
        let params = sane.cost(Preprocess::dcformer().shape).total().params;
        assert_eq!(params, 26_339_872 + 8 * (2048 - 4) * (2 * 512 + 1));
        let wrong = format!("{vit}\noptions = {{ blocks = 3 }}");
        let error = encoder(&wrong).expect_err("it has no blocks");
        assert!(error.to_string().contains("vit"), "{error}");
        // Settings of other networks are no matter of this one.
        let shared = format!("{vit}\nlayer_scale = 0.5\nstem_activation = \"gelu\"");
        let plain = encoder(vit).expect("a network");
        assert_eq!(encoder(&shared).expect("a network"), plain);
    }

    #[test]
    fn a_mistyped_key_is_an_error_that_lists_the_valid_ones() {
        let error = toml::from_str::<RunConfig>(&format!("{MINIMAL}[train]\nepoch = 3\n"))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("`epoch`") && error.contains("`epochs`"),
            "{error}"
        );
    }

    #[test]
    fn values_that_cannot_be_carried_out_are_named() {
        for (line, field) in [
            ("[train]\nbatch = 1", "train.batch"),
            ("[train]\nepochs = 0", "train.epochs"),
            ("[train]\naccumulate = 0", "train.accumulate"),
            (
                "[train.optimizer]\nlearning_rate = -1.0",
                "train.optimizer.learning_rate",
            ),
            (
                "[train.optimizer]\nbetas = [0.9, 1.0]",
                "train.optimizer.betas",
            ),
            ("[model]\nencoder = \"resnet\"", "model.encoder"),
            ("[model]\nvariant = \"huge\"", "huge"),
        ] {
            let config: RunConfig =
                toml::from_str(&format!("{MINIMAL}{line}\n")).expect("it parses");
            let error = config.check().expect_err(line).to_string();
            assert!(error.contains(field), "{line}: {error}");
        }
    }
}
