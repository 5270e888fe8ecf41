//! What can go wrong between a file and a model.

use std::fmt;
use std::path::PathBuf;

use dcformer_volume::geometry::Shape3;

/// Result of the fallible functions of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong between a file and a model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },

    /// A file or folder could not be written.
    #[error("cannot write {} (name a place that may be written and has room)", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },

    /// A JSON file does not say what its reader expects.
    #[error("{}: not the JSON that belongs here", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// The cause, with line and column.
        source: serde_json::Error,
    },

    /// A field of a configuration has a value that cannot work.
    #[error("{}: `{field}` is {found}, expected {expected}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// The field.
        field: &'static str,
        /// Its value.
        found: String,
        /// What it could be.
        expected: String,
    },

    /// A `.safetensors` file is damaged.
    #[error("{}: not a valid safetensors file; copy or download it again", path.display())]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: safetensors::SafeTensorError,
    },

    /// A PyTorch checkpoint is damaged, or holds what is no checkpoint.
    #[error("{}: not a PyTorch checkpoint of plain tensors; copy or download it again", path.display())]
    Pickle {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: pytorch_reader::PytorchError,
    },

    /// A file of weights is in a format that is not read.
    #[error("{}: unknown kind of weights file, expected .pth, .pt, .bin or .safetensors", path.display())]
    UnknownWeightsFile {
        /// The file.
        path: PathBuf,
    },

    /// A folder lacks a file.
    #[error("{}: there is no {what}, expected one of {expected}; download the folder again", folder.display())]
    NoFile {
        /// The folder.
        folder: PathBuf,
        /// What was looked for.
        what: &'static str,
        /// Names that it could have.
        expected: String,
    },

    /// The files of weights in several parts do not belong together.
    #[error("{}: {found}; download the folder again", path.display())]
    Shards {
        /// Their index.
        path: PathBuf,
        /// What does not fit.
        found: String,
    },

    /// A tensor has an element type that no weight has.
    #[error("{}: tensor `{tensor}` holds {found}, expected float32, float64, float16 or bfloat16", path.display())]
    ElementType {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its element type.
        found: String,
    },

    /// Two names of one tensor hold different values.
    #[error(
        "{}: `{first}` and `{second}` are two names of one tensor but hold different values; the file was edited or is of another model",
        path.display()
    )]
    Contradiction {
        /// The file.
        path: PathBuf,
        /// One name.
        first: String,
        /// The other.
        second: String,
    },

    /// The weights of a file are not those of the model.
    #[error("{}: the weights are not those of {model}: {report}", path.display())]
    Weights {
        /// The file.
        path: PathBuf,
        /// The model that was to be filled.
        model: String,
        /// Every tensor that is missing, unknown or of another shape.
        report: Box<WeightReport>,
    },

    /// A name that no preset has.
    #[error("no {what} is called `{found}`, expected one of {expected}")]
    UnknownName {
        /// What was named.
        what: String,
        /// The name.
        found: String,
        /// The names there are.
        expected: String,
    },

    /// A size or setting with which a network cannot be built.
    #[error("`{field}` of {network} is {found}, expected {expected}")]
    NetworkField {
        /// The network.
        network: &'static str,
        /// The field of its configuration.
        field: &'static str,
        /// Its value.
        found: String,
        /// What it could be.
        expected: String,
    },

    /// Options that a network does not have.
    #[error("`model.options` do not fit {network}")]
    NetworkOptions {
        /// The network.
        network: &'static str,
        /// Which option, and the valid ones.
        source: serde_json::Error,
    },

    /// A volume of a size that a network cannot take.
    #[error(
        "{network} takes no volume of {found} voxels (depth, height, width), expected {expected}; choose another \
         `preprocess.shape` or --shape"
    )]
    VolumeSize {
        /// The network, or its part.
        network: &'static str,
        /// Size of the volume.
        found: Shape3,
        /// Sizes that it takes.
        expected: String,
    },

    /// A vocabulary cannot be used.
    #[error("{}: {found}, expected {expected}", path.display())]
    Vocabulary {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        found: String,
        /// What a vocabulary looks like.
        expected: &'static str,
    },

    /// A text could not be split into tokens.
    #[error("cannot tokenize {text:?}")]
    Tokenize {
        /// The text, shortened.
        text: String,
        /// The cause.
        source: tokenizers::Error,
    },

    /// The model lacks a part that the request needs.
    #[error("the model has no {part}; {remedy}")]
    MissingPart {
        /// The part.
        part: &'static str,
        /// What to do.
        remedy: &'static str,
    },

    /// A folder is in the way of a model that is to be written.
    #[error("{} exists and is no model folder (no config.json with a `format_version`); choose another place or remove it", path.display())]
    InTheWay {
        /// The folder.
        path: PathBuf,
    },

    /// Scores, labels, patients and thresholds do not belong together.
    #[error("{field}: found {found} values, expected {expected}, one for each {each}")]
    EvaluationShape {
        /// The list that is too long or too short.
        field: &'static str,
        /// Its length.
        found: usize,
        /// The length that fits.
        expected: usize,
        /// What there must be one for.
        each: &'static str,
    },

    /// A score is no probability.
    #[error(
        "the score of volume {volume} for `{label}` is {found}, expected a probability from 0 to 1"
    )]
    Score {
        /// Row of the volume, from 0.
        volume: usize,
        /// Name of the label.
        label: String,
        /// The score.
        found: f32,
    },

    /// Nothing can be measured without one known label.
    #[error(
        "no label is known for any of {volumes} volumes, expected at least one to compare the scores with"
    )]
    NoKnownLabel {
        /// Number of volumes.
        volumes: usize,
    },

    /// What a model is asked for and what is known of the scans have no name in common.
    #[error(
        "the model is asked for {asked}; the data have labels {known}; name the same abnormalities in the model's config.json"
    )]
    NoCommonLabel {
        /// Names of the prompts.
        asked: String,
        /// Names of the labels.
        known: String,
    },

    /// There is nothing to hold answers against.
    #[error("no scan of the data has a label")]
    NoLabelledScan,

    /// Models were measured on different volumes.
    #[error(
        "{second} was measured on other volumes than {first}; remove the folders of their runs, or compare into another folder"
    )]
    NotComparable {
        /// One model.
        first: String,
        /// The other.
        second: String,
    },

    /// A run's configuration is not one.
    #[error("{}: the configuration of a run cannot be read", path.display())]
    RunConfig {
        /// File.
        path: PathBuf,
        /// Where and why; it lists the valid keys.
        source: Box<toml::de::Error>,
    },

    /// A value of a run's configuration cannot be carried out.
    #[error("`{field}` is {found}, expected {expected}")]
    RunField {
        /// The key, with its table.
        field: &'static str,
        /// Its value.
        found: String,
        /// What would be right.
        expected: &'static str,
    },

    /// A checkpoint belongs to another run.
    #[error(
        "{}: the run in this folder has another {what}; choose another folder, or train without --resume to start anew",
        path.display()
    )]
    OtherRun {
        /// State of the checkpoint.
        path: PathBuf,
        /// What differs.
        what: &'static str,
    },

    /// A file lacks a tensor.
    #[error("{}: there is no {expected}, found {}", path.display(), quoted(found))]
    NoTensor {
        /// File.
        path: PathBuf,
        /// Names that would do.
        expected: &'static str,
        /// Names that are there, the first few.
        found: Vec<String>,
    },

    /// A tensor has another shape than its use.
    #[error("{}: `{tensor}` is {found:?}, expected {expected}", path.display())]
    TensorShape {
        /// File.
        path: PathBuf,
        /// Name of the tensor.
        tensor: String,
        /// Its sizes.
        found: Vec<usize>,
        /// What would be right.
        expected: &'static str,
    },

    /// A label is neither 0 nor 1.
    #[error("{}: `labels` is {found} at position {index}, expected 0, 1, or -1 for unknown", path.display())]
    LabelValue {
        /// File.
        path: PathBuf,
        /// Position in the flattened tensor.
        index: usize,
        /// The value.
        found: f64,
    },

    /// A run would replace another.
    #[error(
        "{}: the folder holds a run with checkpoints; pass --resume to go on with it, or choose another folder",
        folder.display()
    )]
    RunExists {
        /// Folder of the run.
        folder: PathBuf,
    },

    /// There is not one full batch.
    #[error(
        "found {found} pairs of scan and report, expected at least {expected}, one batch; add data or lower train.batch"
    )]
    TooFewPairs {
        /// Pairs there are.
        found: usize,
        /// Pairs of a step.
        expected: usize,
    },

    /// Training went astray.
    #[error(
        "the loss of step {step} is {loss}; lower train.optimizer.learning_rate, add warmup_steps or clip_gradient_norm, \
         and resume from the last checkpoint"
    )]
    LossNotFinite {
        /// The step, from 1.
        step: u64,
        /// The loss, or the norm of its gradients.
        loss: f64,
    },

    /// A file is no Parquet file, or a damaged one.
    #[error("{}: not a readable Parquet file; copy it again, or make it again with `dcformer embed --data`", path.display())]
    Parquet {
        /// The file.
        path: PathBuf,
        /// What the library says.
        source: parquet::errors::ParquetError,
    },

    /// A Parquet file is no file of latents.
    #[error("{}: not a file of latents: {found}; make one with `dcformer embed --data`", path.display())]
    NotLatents {
        /// The file.
        path: PathBuf,
        /// What is not as it should be.
        found: String,
    },

    /// A file of latents says what cannot be.
    #[error("{}: {found}; the file is damaged, copy it again, or make it again with `dcformer embed --data`", path.display())]
    LatentsDamaged {
        /// The file.
        path: PathBuf,
        /// What and where.
        found: String,
    },

    /// Latents of one model are no latents of another.
    #[error(
        "{}: made by the model whose weights have the SHA-256 {found}, but that of {} is {expected}; name the model that made \
         it, or embed the data set again with this one",
        path.display(), model.display()
    )]
    OtherModel {
        /// The file of latents.
        path: PathBuf,
        /// The model's folder.
        model: PathBuf,
        /// The hash in the file.
        found: String,
        /// The hash of the model.
        expected: String,
    },

    /// Scans of latents were made to other volumes than the model's.
    #[error(
        "{}: its scans were preprocessed otherwise than the model's config.json says now; embed the data set again",
        path.display()
    )]
    OtherPreprocess {
        /// The file of latents.
        path: PathBuf,
    },

    /// A latent has another length than those that it is compared with.
    #[error("{}: its latents have {found} numbers, the model's {expected}", path.display())]
    LatentWidth {
        /// The file of latents.
        path: PathBuf,
        /// Numbers in the file.
        found: usize,
        /// Numbers of the model.
        expected: usize,
    },

    /// No volume could be embedded.
    #[error("not one of {volumes} volumes could be embedded, so nothing is written")]
    NothingEmbedded {
        /// Volumes that were tried.
        volumes: usize,
    },

    /// Patients cannot be held out.
    #[error(
        "cannot hold out {share} of {patients} patients; expected a share above 0 and below 1, and at least 2 patients"
    )]
    HeldOut {
        /// The share.
        share: f64,
        /// Different patients there are.
        patients: usize,
    },

    /// A file of latents has nothing to learn from.
    #[error(
        "{}: no row of the training split has a label; embed a labelled data set, all of it or `--split train`",
        path.display()
    )]
    NoLabelledLatent {
        /// The file.
        path: PathBuf,
    },

    /// No label can be learnt.
    #[error(
        "no label is both present and absent among the {learnt} volumes to learn from and the {held_out} held out; add labelled \
         volumes, or hold out another share of the patients"
    )]
    NoLearnableLabel {
        /// Volumes to learn from.
        learnt: usize,
        /// Volumes held out.
        held_out: usize,
    },

    /// The work was stopped.
    #[error("stopped before the last volume, so nothing is written")]
    Stopped,

    /// A scan or a data set could not be read.
    #[error(transparent)]
    Volume(#[from] dcformer_volume::Error),
}

/// A tensor whose shape is not that of the model's parameter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MisshapenTensor {
    /// Name of the tensor in the file.
    pub name: String,
    /// Shape in the file.
    pub found: Vec<usize>,
    /// Shape in the model.
    pub expected: Vec<usize>,
}

/// Everything that keeps the tensors of a file from filling a model, each list sorted by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WeightReport {
    /// Tensors of the model that the file lacks.
    pub missing: Vec<String>,
    /// Tensors of the file that the model has no place for.
    pub unknown: Vec<String>,
    /// Tensors of another shape.
    pub misshapen: Vec<MisshapenTensor>,
}

impl WeightReport {
    /// Whether file and model agree.
    pub fn is_empty(&self) -> bool {
        self.missing.is_empty() && self.unknown.is_empty() && self.misshapen.is_empty()
    }
}

impl fmt::Display for WeightReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} missing, {} unknown, {} of another shape",
            self.missing.len(),
            self.unknown.len(),
            self.misshapen.len()
        )?;
        for name in &self.missing {
            write!(f, "\n  missing: {name}")?;
        }
        for name in &self.unknown {
            write!(f, "\n  unknown: {name}")?;
        }
        for tensor in &self.misshapen {
            write!(
                f,
                "\n  shape: {} is {:?}, expected {:?}",
                tensor.name, tensor.found, tensor.expected
            )?;
        }
        Ok(())
    }
}

fn quoted(names: &[String]) -> String {
    if names.is_empty() {
        return "nothing".to_owned();
    }
    let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    names.join(", ")
}
