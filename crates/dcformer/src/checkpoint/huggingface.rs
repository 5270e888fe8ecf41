//! Text encoders of Hugging Face: their `config.json`, names of weights, folders.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use serde::Deserialize;

use super::apply::{self, Placement};
use super::checks::check_bert;
use super::folder::read_file;
use super::official::{IGNORED, linear, no_name, prefixed, same};
use super::weights::Weights;
use crate::error::{Error, Result};
use crate::models::{Bert, BertConfig};
use crate::text::{Tokenizer, Vocabulary};

/// Where the weights of a folder may be, best first.
const WEIGHTS: [&str; 2] = ["model.safetensors", "pytorch_model.bin"];
/// Where its vocabulary may be, best first: `tokenizer.json` knows whether texts are lower-cased.
const VOCABULARIES: [&str; 2] = ["tokenizer.json", "vocab.txt"];
/// What models with a head put before the names of the encoder.
const PREFIX: &str = "bert.";
/// The parts of an encoder; whatever else a folder holds is a head for some other purpose.
const PARTS: [&str; 3] = ["embeddings.", "encoder.", "pooler."];

/// Loads a text encoder and its tokenizer from a Hugging Face folder: `config.json`, `vocab.txt` or `tokenizer.json`,
/// `model.safetensors` or `pytorch_model.bin`. Heads (`cls.*`, a projection) are left out.
///
/// # Errors
/// If a file is missing or damaged, the network is not a BERT with GELU, or the weights are not those of the sizes.
pub fn load_bert(folder: &Path, device: &Device) -> Result<(BertConfig, Bert, Tokenizer)> {
    let mut config = read_bert_config(&folder.join("config.json"))?;
    let vocabulary = Vocabulary::read(&first_there(folder, &VOCABULARIES), true)?;
    let path = first_there(folder, &WEIGHTS);
    let mut weights = Weights::open(&path)?;
    weights.rename(|name| {
        let name = name.strip_prefix(PREFIX).unwrap_or(name);
        let kept = PARTS.iter().any(|part| name.starts_with(part))
            && !IGNORED.iter().any(|ignored| name.ends_with(ignored));
        // Old files name the norms as TensorFlow did.
        let name = name.replace("LayerNorm.gamma", "LayerNorm.weight");
        kept.then(|| name.replace("LayerNorm.beta", "LayerNorm.bias"))
    });
    config.pooler = weights.shape("pooler.dense.weight").is_some();
    let bert = apply::fill(
        config.init(device),
        &weights,
        name,
        "the BERT of config.json",
    )?;
    let tokenizer = tokenizer(vocabulary, &config, folder)?;
    Ok((config, bert, tokenizer))
}

fn first_there(folder: &Path, names: &[&str]) -> PathBuf {
    let mut paths = names.iter().map(|name| folder.join(name));
    let fallback = folder.join(names.first().copied().unwrap_or_default());
    paths.find(|path| path.exists()).unwrap_or(fallback)
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

/// Sizes as a `config.json` of Hugging Face states them. Fields that change no result here are not read.
#[derive(Debug, Deserialize)]
struct HuggingFaceConfig {
    #[serde(default = "bert")]
    model_type: String,
    #[serde(default = "gelu")]
    hidden_act: String,
    #[serde(default = "absolute")]
    position_embedding_type: String,
    #[serde(default)]
    is_decoder: bool,
    vocab_size: usize,
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    max_position_embeddings: usize,
    type_vocab_size: usize,
    layer_norm_eps: f64,
    hidden_dropout_prob: f64,
}

fn bert() -> String {
    "bert".to_owned()
}

fn gelu() -> String {
    "gelu".to_owned()
}

fn absolute() -> String {
    "absolute".to_owned()
}

/// Reads the `config.json` of a Hugging Face BERT.
///
/// # Errors
/// If it cannot be read, is of another network, or states sizes that cannot work.
pub fn read_bert_config(path: &Path) -> Result<BertConfig> {
    let bytes = read_file(path)?;
    let config: HuggingFaceConfig =
        serde_json::from_slice(&bytes).map_err(|source| Error::Json {
            path: path.to_owned(),
            source,
        })?;
    let fixed = [
        (
            "model_type",
            &config.model_type,
            ["bert", "cxr-bert"].as_slice(),
        ),
        ("hidden_act", &config.hidden_act, &["gelu"]),
        (
            "position_embedding_type",
            &config.position_embedding_type,
            &["absolute"],
        ),
    ];
    for (field, found, known) in fixed {
        if !known.contains(&found.as_str()) {
            return Err(Error::Config {
                path: path.to_owned(),
                field,
                found: format!("{found:?}"),
                expected: known.join(" or "),
            });
        }
    }
    if config.is_decoder {
        return Err(Error::Config {
            path: path.to_owned(),
            field: "is_decoder",
            found: "true".to_owned(),
            expected: "false: an encoder".to_owned(),
        });
    }
    let config = BertConfig {
        vocab_size: config.vocab_size,
        hidden_size: config.hidden_size,
        num_hidden_layers: config.num_hidden_layers,
        num_attention_heads: config.num_attention_heads,
        intermediate_size: config.intermediate_size,
        max_position_embeddings: config.max_position_embeddings,
        type_vocab_size: config.type_vocab_size,
        layer_norm_eps: config.layer_norm_eps,
        hidden_dropout_prob: config.hidden_dropout_prob,
        pooler: false,
    };
    check_bert(path, &config)?;
    Ok(config)
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
