//! Our model folder: `config.json`, `model.safetensors` in the official names, `vocab.txt`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::Device;
use dcformer_volume::output::write_replacing;
use dcformer_volume::preprocess::Preprocess;
use serde::{Deserialize, Serialize};

use super::apply;
use super::checks::{check_sizes, check_thresholds};
use super::huggingface::tokenizer;
use super::official;
use super::weights::{StoredTensor, Weights};
use crate::error::{Error, Result};
use crate::models::{Clip, ClipConfig};
use crate::text::{Prompts, ReportText, Tokenizer, Vocabulary};

/// The version of `config.json` that this program writes, and the only one it reads.
pub const FORMAT_VERSION: u32 = 1;

pub(super) const CONFIG: &str = "config.json";
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
pub(super) fn read_version(path: &Path) -> Option<serde_json::Value> {
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
