//! Text encoders of Hugging Face: names of weights, vocabularies, folders.

mod config;

use std::path::Path;

use burn::tensor::Device;

pub use self::config::read_bert_config;
use super::apply::{self, Placement};
use super::folder::read_file;
use super::official::{IGNORED, linear, no_name, prefixed, same};
use super::weights::Weights;
use crate::error::{Error, Result};
use crate::models::{Bert, BertConfig};
use crate::text::{Tokenizer, Vocabulary};

/// What models with a head put before the names of the encoder.
const PREFIXES: [&str; 2] = ["bert.", "distilbert."];
/// The parts of an encoder; whatever else a folder holds is a head for some other purpose.
const PARTS: [&str; 5] = ["embeddings.", "encoder.", "transformer.", "pooler.", HEAD];
/// The projection head of CXR-BERT.
const HEAD: &str = "cls_projection_head.";
/// What stands before the layers in a DistilBERT, and in a BERT.
const LAYERS: [&str; 2] = ["transformer.layer.", "encoder.layer."];
/// Parts of a layer of a DistilBERT, and of a BERT.
const PARTS_OF_A_LAYER: [(&str, &str); 8] = [
    ("attention.q_lin", "attention.self.query"),
    ("attention.k_lin", "attention.self.key"),
    ("attention.v_lin", "attention.self.value"),
    ("attention.out_lin", "attention.output.dense"),
    ("sa_layer_norm", "attention.output.LayerNorm"),
    ("ffn.lin1", "intermediate.dense"),
    ("ffn.lin2", "output.dense"),
    ("output_layer_norm", "output.LayerNorm"),
];
/// The head's first layer, by whose shape its length is known.
const HEAD_WEIGHT: &str = "cls_projection_head.dense_to_hidden.weight";

/// What becomes of the projection head that an encoder's weights have, as CXR-BERT-specialized's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OwnHead {
    /// It is left out, as the authors do: the features of a text are those of `[CLS]`.
    #[default]
    Omit,
    /// The features of a text are what it makes of `[CLS]`.
    Use,
}

/// Loads a text encoder and its tokenizer from a folder as Hugging Face's hub has it: a BERT or a DistilBERT, `config.json`,
/// `tokenizer.json` or `vocab.txt`, `model.safetensors` or `pytorch_model.bin`, either in one file or in several with their
/// index. Heads for other purposes (`cls.*`) are left out.
///
/// # Errors
/// If a file is missing or damaged, the network is none of these, the weights are not those of the sizes, or the head is asked
/// for and there is none.
pub fn load_bert(
    folder: &Path,
    head: OwnHead,
    device: &Device,
) -> Result<(BertConfig, Bert, Tokenizer)> {
    let mut config = read_bert_config(&folder.join("config.json"))?;
    let vocabulary = read_folder_vocabulary(folder)?.ok_or_else(|| Error::NoFile {
        folder: folder.to_owned(),
        what: "vocabulary",
        expected: "tokenizer.json, vocab.txt".to_owned(),
    })?;
    let mut weights = Weights::open(folder)?;
    weights.rename(as_bert);
    config.pooler = weights.shape("pooler.dense.weight").is_some();
    match head {
        OwnHead::Omit => {
            weights.rename(|name| (!name.starts_with(HEAD)).then(|| name.to_owned()));
        }
        OwnHead::Use => {
            config.projection_size = head_size(&weights, "");
            if config.projection_size.is_none() {
                return Err(Error::NoTensor {
                    path: weights.path,
                    expected: "`cls_projection_head.dense_to_hidden.weight` (an encoder without a projection head of its own \
                               needs `own_head = false`)",
                    found: weights.tensors.into_keys().take(3).collect(),
                });
            }
        }
    }
    let bert = apply::fill(
        config.init(device),
        &weights,
        name,
        "the text encoder of config.json",
    )?;
    let tokenizer = tokenizer(vocabulary, &config, folder)?;
    Ok((config, bert, tokenizer))
}

/// Length of what an encoder's projection head gives, if it has one. `prefix` stands before the names of the encoder.
pub(super) fn head_size(weights: &Weights, prefix: &str) -> Option<usize> {
    weights
        .shape(&format!("{prefix}{HEAD_WEIGHT}"))?
        .first()
        .copied()
}

/// The vocabulary of a folder, if it has one.
pub(super) fn read_folder_vocabulary(folder: &Path) -> Result<Option<Vocabulary>> {
    let files = ["tokenizer.json", "vocab.txt"].map(|name| folder.join(name));
    let found = files.iter().find(|file| file.exists());
    found.map(|file| read_vocabulary(file)).transpose()
}

/// A vocabulary of a hub. `tokenizer.json` says itself whether texts are lower-cased; for `vocab.txt`, a
/// `tokenizer_config.json` beside it does, and without that they are.
pub(super) fn read_vocabulary(file: &Path) -> Result<Vocabulary> {
    let settings = file.with_file_name("tokenizer_config.json");
    let mut lower_case = true;
    if settings.exists() {
        let bytes = read_file(&settings)?;
        let json: serde_json::Value =
            serde_json::from_slice(&bytes).map_err(|source| Error::Json {
                path: settings,
                source,
            })?;
        lower_case = json["do_lower_case"].as_bool().unwrap_or(lower_case);
    }
    Vocabulary::read(file, lower_case)
}

/// A tokenizer whose ids the encoder knows.
pub(crate) fn tokenizer(
    vocabulary: Vocabulary,
    config: &BertConfig,
    path: &Path,
) -> Result<Tokenizer> {
    let tokens = vocabulary.tokens().len();
    if tokens > config.vocab_size {
        return Err(Error::Vocabulary {
            path: path.to_owned(),
            found: format!(
                "{tokens} tokens, but the text encoder knows {}",
                config.vocab_size
            ),
            expected: "the vocabulary that the weights were trained with",
        });
    }
    Ok(Tokenizer::new(vocabulary, config.max_position_embeddings))
}

/// The name that a tensor of a text encoder has in a BERT of today; `None` for what is no part of the encoder.
pub(super) fn as_bert(name: &str) -> Option<String> {
    let inner = PREFIXES.iter().find_map(|prefix| name.strip_prefix(prefix));
    let name = inner.unwrap_or(name);
    let kept = PARTS.iter().any(|part| name.starts_with(part))
        && !IGNORED.iter().any(|ignored| name.ends_with(ignored));
    if !kept {
        return None;
    }
    if let Some(layer) = name.strip_prefix(LAYERS[0]) {
        return Some(format!("{}{}", LAYERS[1], part_of_a_layer(layer)));
    }
    // Old files name the norms as TensorFlow did.
    let name = name.replace("LayerNorm.gamma", "LayerNorm.weight");
    Some(name.replace("LayerNorm.beta", "LayerNorm.bias"))
}

/// `0.ffn.lin1.bias` of a DistilBERT is `0.intermediate.dense.bias` of a BERT.
fn part_of_a_layer(name: &str) -> String {
    let renamed = PARTS_OF_A_LAYER.iter().find_map(|(theirs, ours)| {
        let (layer, part) = name.split_once('.')?;
        let field = part.strip_prefix(theirs)?.strip_prefix('.')?;
        Some(format!("{layer}.{ours}.{field}"))
    });
    renamed.unwrap_or_else(|| name.to_owned())
}

/// Hugging Face's name of a parameter of a [`Bert`].
pub(crate) fn name(path: &[&str]) -> Placement {
    match path {
        ["embeddings", "word"] => same("embeddings.word_embeddings.weight".to_owned()),
        ["embeddings", "position"] => same("embeddings.position_embeddings.weight".to_owned()),
        ["embeddings", "token_type"] => same("embeddings.token_type_embeddings.weight".to_owned()),
        ["embeddings", "norm", field] => norm("embeddings.LayerNorm", field),
        ["layers", index, rest @ ..] => prefixed(&format!("encoder.layer.{index}."), layer(rest)),
        ["pooler", field] => linear(format!("pooler.dense.{field}"), field),
        ["head", "hidden", field] => linear(format!("{HEAD}dense_to_hidden.{field}"), field),
        ["head", "norm", field] => norm(&format!("{HEAD}LayerNorm"), field),
        ["head", "output", field] => linear(format!("{HEAD}dense_to_output.{field}"), field),
        _ => no_name(path),
    }
}

fn layer(path: &[&str]) -> Placement {
    let [part, field] = path else { no_name(path) };
    let dense = match *part {
        "attention_norm" => return norm("attention.output.LayerNorm", field),
        "output_norm" => return norm("output.LayerNorm", field),
        "query" => "attention.self.query",
        "key" => "attention.self.key",
        "value" => "attention.self.value",
        "attention_output" => "attention.output.dense",
        "expand" => "intermediate.dense",
        "contract" => "output.dense",
        _ => no_name(path),
    };
    linear(format!("{dense}.{field}"), field)
}

/// A field of a norm, whose scale and shift PyTorch calls weight and bias.
pub(super) fn norm(name: &str, field: &str) -> Placement {
    let field = match field {
        "gamma" => "weight",
        _ => "bias",
    };
    same(format!("{name}.{field}"))
}
