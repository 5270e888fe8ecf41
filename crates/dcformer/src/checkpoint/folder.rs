//! Our model folder: `config.json`, `model.safetensors` in the official names, `vocab.txt`.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::Device;
use dcformer_volume::output::write_replacing;
use dcformer_volume::preprocess::Preprocess;
use serde::{Deserialize, Serialize};

use super::apply;
use super::huggingface::tokenizer;
use super::official;
use super::weights::{StoredTensor, Weights};
use crate::error::{Error, Result};
use crate::models::encoder::{MOST, MOST_LAYERS};
use crate::models::{BertConfig, ClassifierConfig, Clip, ClipConfig, ImageEncoderConfig};
use crate::text::{Prompts, ReportText, Tokenizer, Vocabulary};

/// The version of `config.json` that this program writes, and the only one it reads.
pub const FORMAT_VERSION: u32 = 1;

const CONFIG: &str = "config.json";
/// The weights, in a model folder.
pub(crate) const WEIGHTS: &str = "model.safetensors";
const VOCABULARY: &str = "vocab.txt";
/// What an error calls the network that weights do not fit.
const NETWORK: &str = "the network of config.json";

/// What `config.json` says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// [`FORMAT_VERSION`] of the program that wrote it.
    pub format_version: u32,
    /// The network.
    pub clip: ClipConfig,
    /// Whether texts are lower-cased.
    #[serde(default = "yes")]
    pub lower_case: bool,
    /// What to look for, in which words.
    #[serde(default)]
    pub prompts: Prompts,
    /// How scans become volumes; the authors' way if absent.
    #[serde(default)]
    pub preprocess: Preprocess,
    /// What training read of a report, and so what of a report, or of another text, volumes are looked for by.
    #[serde(default, skip_serializing_if = "ReportText::is_whole")]
    pub report: ReportText,
    /// From which probability on a label counts as present, by its name: chosen by fine-tuning on patients that nothing was
    /// learnt from. A label that is not here has 0.5.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub thresholds: BTreeMap<String, f32>,
}

const fn yes() -> bool {
    true
}

impl ModelConfig {
    /// Reads the configuration of a model's folder.
    ///
    /// # Errors
    /// If it is missing, damaged, or of another version.
    pub fn read(folder: &Path) -> Result<Self> {
        read_config(&folder.join(CONFIG))
    }

    /// A network with the authors' prompts.
    pub fn new(clip: ClipConfig) -> Self {
        Self {
            format_version: FORMAT_VERSION,
            clip,
            lower_case: true,
            prompts: Prompts::default(),
            preprocess: Preprocess::dcformer(),
            report: ReportText::Whole,
            thresholds: BTreeMap::new(),
        }
    }

    /// Names of what the model answers, in the order of its probabilities: the labels of its head if it has one, else the
    /// abnormalities of its prompts.
    pub fn label_names(&self) -> &[String] {
        match &self.clip.classifier {
            Some(classifier) => &classifier.labels,
            None => &self.prompts.abnormalities,
        }
    }
}

/// A model and everything that is needed to use it.
#[derive(Clone, Debug)]
pub struct Model {
    /// Sizes and settings.
    pub config: ModelConfig,
    /// The network.
    pub clip: Clip,
    /// Texts to tokens; a model without text encoder has none, and an import may lack its vocabulary.
    pub tokenizer: Option<Tokenizer>,
}

impl Model {
    /// A model with fresh weights.
    pub fn init(config: ModelConfig, tokenizer: Option<Tokenizer>, device: &Device) -> Self {
        Self {
            clip: config.clip.init(device),
            config,
            tokenizer,
        }
    }

    /// Learnt and running numbers of the network.
    pub fn parameters(&self) -> usize {
        self.clip.num_params()
    }

    /// Loads a model folder.
    ///
    /// # Errors
    /// If a file is missing or damaged, or the weights are not those of the configuration: then with every tensor that is
    /// missing, unknown or of another shape.
    pub fn load(folder: &Path, device: &Device) -> Result<Self> {
        ModelFolder::open(folder, device)?.into_model(device)
    }

    /// Writes a model folder. It is complete under a temporary name before it takes the place of what was there.
    ///
    /// # Errors
    /// [`Error::Write`], or [`Error::InTheWay`] if a folder that is no model has the name.
    pub fn save(&self, folder: &Path) -> Result<()> {
        let in_the_way = folder.exists() && read_version(&folder.join(CONFIG)).is_none();
        if in_the_way && !is_empty_folder(folder) {
            return Err(Error::InTheWay {
                path: folder.to_owned(),
            });
        }
        let writing = beside(folder, "writing");
        let replaced = beside(folder, "replaced");
        for leftover in [&writing, &replaced] {
            if leftover.exists() {
                std::fs::remove_dir_all(leftover).map_err(write_error(leftover))?;
            }
        }
        std::fs::create_dir_all(&writing).map_err(write_error(&writing))?;
        if let Err(error) = self.write_into(&writing) {
            // As for a file: the reason is the first error.
            let _ = std::fs::remove_dir_all(&writing);
            return Err(error);
        }
        if folder.exists() {
            std::fs::rename(folder, &replaced).map_err(write_error(folder))?;
        }
        std::fs::rename(&writing, folder).map_err(write_error(folder))?;
        if replaced.exists() {
            std::fs::remove_dir_all(&replaced).map_err(write_error(&replaced))?;
        }
        Ok(())
    }

    fn write_into(&self, folder: &Path) -> Result<()> {
        let mut config = self.config.clone();
        if let Some(tokenizer) = &self.tokenizer {
            config.lower_case = tokenizer.vocabulary().lower_case();
            let lines = tokenizer.vocabulary().to_lines();
            write_file(&folder.join(VOCABULARY), lines.as_bytes())?;
        }
        write_file(&folder.join(CONFIG), json_text(&config).as_bytes())?;
        let tensors = apply::collect(&self.clip, official::name);
        apply::write_safetensors(&tensors, &[], &folder.join(WEIGHTS))
    }
}

/// A model folder of which everything but the weights was read.
#[derive(Debug)]
pub(crate) struct ModelFolder {
    pub(crate) config: ModelConfig,
    pub(crate) tokenizer: Option<Tokenizer>,
    weights: Weights,
}

impl ModelFolder {
    /// Opens a model folder.
    ///
    /// # Errors
    /// As [`Model::load`].
    pub(crate) fn open(folder: &Path, device: &Device) -> Result<Self> {
        let config = read_config(&folder.join(CONFIG))?;
        let weights = Weights::open(&folder.join(WEIGHTS))?;
        check_codebook(&folder.join(CONFIG), &config, &weights)?;
        // Before the vocabulary: its size may be wrong for the same reason, and this says more.
        apply::check(&config.clip.init(device), &weights, official::name, NETWORK)?;
        let vocabulary = folder.join(VOCABULARY);
        let tokenizer = match &config.clip.text {
            Some(text) if vocabulary.exists() => {
                let tokens = Vocabulary::read(&vocabulary, config.lower_case)?;
                Some(tokenizer(tokens, &text.encoder, &vocabulary)?)
            }
            _ => None,
        };
        Ok(Self {
            config,
            tokenizer,
            weights,
        })
    }

    /// Reads all weights.
    ///
    /// # Errors
    /// As [`Model::load`].
    pub(crate) fn into_model(self, device: &Device) -> Result<Model> {
        let clip = fill(self.config.clip.init(device), &self.weights)?;
        Ok(Model {
            config: self.config,
            clip,
            tokenizer: self.tokenizer,
        })
    }

    /// Reads the weights of the network but for its text tower, which the result lacks.
    ///
    /// # Errors
    /// As [`Model::load`].
    pub(crate) fn into_image_model(self, device: &Device) -> Result<(ModelConfig, Clip)> {
        let mut weights = self.weights;
        weights.rename(|name| (!official::is_text(name)).then(|| name.to_owned()));
        let config = ClipConfig {
            text: None,
            ..self.config.clip.clone()
        };
        let clip = fill(config.init(device), &weights)?;
        Ok((self.config, clip))
    }

    /// The stored tensors of the text tower, by name.
    pub(crate) fn text_weights(&self) -> impl Iterator<Item = (&str, &StoredTensor)> {
        let tensors = self.weights.tensors.iter();
        tensors
            .filter(|(name, _)| official::is_text(name))
            .map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// The bytes of a stored tensor, little-endian.
    ///
    /// # Errors
    /// [`Error::Read`]
    pub(crate) fn read_bytes(&self, tensor: &StoredTensor) -> Result<Vec<u8>> {
        self.weights.read_bytes(tensor)
    }
}

fn fill(clip: Clip, weights: &Weights) -> Result<Clip> {
    apply::fill(clip, weights, official::name, NETWORK)
}

/// Reads a whole file.
pub(super) fn read_file(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|source| Error::Read {
        path: path.to_owned(),
        source,
    })
}

/// A value as a JSON file has it: for readers, with a newline at its end.
///
/// # Panics
/// If the value has no JSON form.
pub(crate) fn json_text(value: &impl Serialize) -> String {
    let text = serde_json::to_string_pretty(value).expect("names and numbers have a JSON form");
    text + "\n"
}

/// Writes a whole file, as [`write_replacing`] does, and waits until it is on the disk.
pub(crate) fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    let write = |mut file: File| {
        file.write_all(bytes)?;
        // A device or a pipe cannot be waited for.
        if file.metadata()?.is_file() {
            file.sync_all()?;
        }
        Ok(())
    };
    write_replacing(path, write).map_err(write_error(path))
}

fn write_error(path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Write { path, source }
}

/// A hidden name next to `path`, on the same file system.
fn beside(path: &Path, purpose: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{purpose}-{}.tmp", std::process::id()))
}

fn is_empty_folder(path: &Path) -> bool {
    std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none())
}

/// The format version in a `config.json`, if it is one of ours.
fn read_version(path: &Path) -> Option<serde_json::Value> {
    let json: serde_json::Value = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
    json.get("format_version").cloned()
}

fn read_config(path: &Path) -> Result<ModelConfig> {
    let bytes = read_file(path)?;
    let json = |source| Error::Json {
        path: path.to_owned(),
        source,
    };
    let any: serde_json::Value = serde_json::from_slice(&bytes).map_err(json)?;
    // The version first: another one may have other fields.
    let version = &any["format_version"];
    if *version != FORMAT_VERSION {
        return Err(Error::Config {
            path: path.to_owned(),
            field: "format_version",
            found: version.to_string(),
            expected: format!("{FORMAT_VERSION}; was it written by another release?"),
        });
    }
    let config: ModelConfig = serde_json::from_slice(&bytes).map_err(json)?;
    check_sizes(path, &config.clip)?;
    check_thresholds(path, &config)?;
    Ok(config)
}

/// Refuses thresholds that no probability is held against.
fn check_thresholds(path: &Path, config: &ModelConfig) -> Result<()> {
    let names = config.label_names();
    for (name, threshold) in &config.thresholds {
        let wrong = |found, expected: &str| Error::Config {
            path: path.to_owned(),
            field: "thresholds",
            found,
            expected: expected.to_owned(),
        };
        if !names.contains(name) {
            let found = format!("one of \"{name}\"");
            return Err(wrong(
                found,
                "names of what the model is asked for, its labels or abnormalities",
            ));
        }
        if !(0.0..=1.0).contains(threshold) {
            let found = format!("{threshold} for \"{name}\"");
            return Err(wrong(found, "probabilities, from 0 to 1"));
        }
    }
    Ok(())
}

/// Refuses sizes that no network has, before anything is built from them.
pub(super) fn check_sizes(path: &Path, clip: &ClipConfig) -> Result<()> {
    check_encoder(path, &clip.image.encoder)?;
    if let Some(quantizer) = &clip.image.quantizer {
        check_range(path, "quantizer.codes", quantizer.codes, MOST)?;
        check_range(path, "quantizer.channels", quantizer.channels, MOST)?;
    }
    if let Some(projection) = &clip.image.projection {
        check_range(
            path,
            "projection.inputs",
            projection.inputs,
            usize::MAX / MOST,
        )?;
        check_range(path, "projection.outputs", projection.outputs, MOST)?;
    }
    if let Some(text) = &clip.text {
        check_bert(path, &text.encoder)?;
        check_range(path, "text.latent", text.latent, MOST)?;
    }
    match &clip.classifier {
        Some(classifier) => check_classifier(path, classifier, clip),
        None => Ok(()),
    }
}

/// Refuses a head that takes no latent of this network, or names nothing that can be told apart.
fn check_classifier(path: &Path, classifier: &ClassifierConfig, clip: &ClipConfig) -> Result<()> {
    let wrong = |field, found: String, expected: String| Error::Config {
        path: path.to_owned(),
        field,
        found,
        expected,
    };
    let latent = clip.image.projection.map_or(0, |own| own.outputs);
    if latent == 0 || classifier.latent != latent {
        let found = classifier.latent.to_string();
        let expected = format!("{latent}, the outputs of the image's projection");
        return Err(wrong("classifier.latent", found, expected));
    }
    check_range(path, "classifier.labels", classifier.labels.len(), MOST)?;
    let mut seen = HashSet::new();
    let mut repeated = |name: &&String| name.is_empty() || !seen.insert(name.as_str());
    if let Some(name) = classifier.labels.iter().find(&mut repeated) {
        let found = format!("a list with \"{name}\"");
        let expected = "names, each once and none empty".to_owned();
        return Err(wrong("classifier.labels", found, expected));
    }
    if !(0.0..1.0).contains(&classifier.dropout) {
        let found = classifier.dropout.to_string();
        return Err(wrong(
            "classifier.dropout",
            found,
            "0 to below 1".to_owned(),
        ));
    }
    Ok(())
}

/// Refuses sizes with which no image encoder can be built, naming the file.
pub(super) fn check_encoder(path: &Path, config: &ImageEncoderConfig) -> Result<()> {
    config.check().map_err(|error| match error {
        Error::NetworkField {
            field,
            found,
            expected,
            ..
        } => Error::Config {
            path: path.to_owned(),
            field,
            found,
            expected,
        },
        other => other,
    })
}

/// Refuses sizes that no BERT has.
pub(super) fn check_bert(path: &Path, config: &BertConfig) -> Result<()> {
    check_range(path, "vocab_size", config.vocab_size, usize::MAX / MOST)?;
    check_range(path, "hidden_size", config.hidden_size, MOST)?;
    check_range(
        path,
        "num_hidden_layers",
        config.num_hidden_layers,
        MOST_LAYERS,
    )?;
    check_range(
        path,
        "num_attention_heads",
        config.num_attention_heads,
        config.hidden_size,
    )?;
    check_range(path, "intermediate_size", config.intermediate_size, MOST)?;
    check_range(path, "type_vocab_size", config.type_vocab_size, MOST)?;
    check_range(
        path,
        "max_position_embeddings",
        config.max_position_embeddings,
        usize::MAX / MOST,
    )?;
    let wrong = |field, found: String, expected: &str| Error::Config {
        path: path.to_owned(),
        field,
        found,
        expected: expected.to_owned(),
    };
    if config.max_position_embeddings < 3 {
        let found = config.max_position_embeddings.to_string();
        return Err(wrong(
            "max_position_embeddings",
            found,
            "3 or more: [CLS], a token, [SEP]",
        ));
    }
    if !config
        .hidden_size
        .is_multiple_of(config.num_attention_heads)
    {
        let found = config.num_attention_heads.to_string();
        return Err(wrong(
            "num_attention_heads",
            found,
            "a divisor of hidden_size",
        ));
    }
    if !(0.0..1.0).contains(&config.hidden_dropout_prob) {
        let found = config.hidden_dropout_prob.to_string();
        return Err(wrong("hidden_dropout_prob", found, "0 to below 1"));
    }
    if !(config.layer_norm_eps > 0.0 && config.layer_norm_eps < 1.0) {
        let found = config.layer_norm_eps.to_string();
        return Err(wrong("layer_norm_eps", found, "a small positive number"));
    }
    Ok(())
}

fn check_range(path: &Path, field: &'static str, found: usize, most: usize) -> Result<()> {
    if (1..=most).contains(&found) {
        return Ok(());
    }
    Err(Error::Config {
        path: path.to_owned(),
        field,
        found: found.to_string(),
        expected: format!("1 to {most}"),
    })
}

/// A codebook is built before it is filled, so its size is held against the file's first.
fn check_codebook(path: &Path, config: &ModelConfig, weights: &Weights) -> Result<()> {
    let Some(quantizer) = &config.clip.image.quantizer else {
        return Ok(());
    };
    let expected = [1, quantizer.codes, quantizer.channels];
    let name = format!("{}embed", official::CODEBOOK);
    match weights.shape(&name) {
        Some(found) if found != expected => Err(Error::Config {
            path: path.to_owned(),
            field: "quantizer",
            found: format!("{} codes of {}", quantizer.codes, quantizer.channels),
            expected: format!("what {WEIGHTS} holds, {found:?}"),
        }),
        // Without a codebook in the file, the report of missing tensors says it all; it needs no large one.
        None => Err(Error::Config {
            path: path.to_owned(),
            field: "quantizer",
            found: format!("{} codes", quantizer.codes),
            expected: format!("null: {WEIGHTS} has no `{name}`"),
        }),
        Some(_) => Ok(()),
    }
}
