//! The `config.json` of text encoders: BERT, CXR-BERT, DistilBERT.

use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::super::checks::check_bert;
use super::super::folder::read_file;
use crate::error::{Error, Result};
use crate::models::BertConfig;

/// Kinds of networks that are read. CXR-BERT is a BERT with a projection head.
const MODEL_TYPES: [&str; 3] = ["bert", "cxr-bert", DISTILBERT];
const DISTILBERT: &str = "distilbert";
/// The activation of all of them: GELU with the error function.
const ACTIVATION: &str = "gelu";

/// Reads the `config.json` of a Hugging Face BERT or DistilBERT.
///
/// # Errors
/// If it cannot be read, is of another network, or states sizes that cannot work.
pub fn read_bert_config(path: &Path) -> Result<BertConfig> {
    let json = |source| Error::Json {
        path: path.to_owned(),
        source,
    };
    let value: serde_json::Value = serde_json::from_slice(&read_file(path)?).map_err(json)?;
    // Old files of BERT do not say what they are.
    let model_type = value
        .get("model_type")
        .map_or("bert", |kind| kind.as_str().unwrap_or("no name of a model"));
    check_word(path, "model_type", model_type, &MODEL_TYPES)?;
    let config = if model_type == DISTILBERT {
        parse::<Distilbert>(value).map_err(json)?.check(path)?
    } else {
        parse::<HuggingFaceBert>(value).map_err(json)?.check(path)?
    };
    check_bert(path, &config)?;
    Ok(config)
}

fn parse<T: DeserializeOwned>(value: serde_json::Value) -> Result<T, serde_json::Error> {
    serde_json::from_value(value)
}

fn check_word(path: &Path, field: &'static str, found: &str, known: &[&str]) -> Result<()> {
    if known.contains(&found) {
        return Ok(());
    }
    Err(Error::Config {
        path: path.to_owned(),
        field,
        found: format!("{found:?}"),
        expected: known.join(" or "),
    })
}

/// Sizes as a BERT states them. Fields that change no result here are not read.
#[derive(Debug, Deserialize)]
struct HuggingFaceBert {
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
    /// Files of the first releases lack it.
    #[serde(default = "epsilon")]
    layer_norm_eps: f64,
    hidden_dropout_prob: f64,
}

fn gelu() -> String {
    ACTIVATION.to_owned()
}

fn absolute() -> String {
    "absolute".to_owned()
}

fn epsilon() -> f64 {
    BertConfig::base().layer_norm_eps
}

impl HuggingFaceBert {
    fn check(self, path: &Path) -> Result<BertConfig> {
        check_word(path, "hidden_act", &self.hidden_act, &[ACTIVATION])?;
        check_word(
            path,
            "position_embedding_type",
            &self.position_embedding_type,
            &["absolute"],
        )?;
        if self.is_decoder {
            return Err(Error::Config {
                path: path.to_owned(),
                field: "is_decoder",
                found: "true".to_owned(),
                expected: "false: an encoder".to_owned(),
            });
        }
        // Without kinds of tokens it would be a DistilBERT, and none of the published BERTs is.
        if self.type_vocab_size == 0 {
            return Err(Error::Config {
                path: path.to_owned(),
                field: "type_vocab_size",
                found: "0".to_owned(),
                expected: "1 or more".to_owned(),
            });
        }
        Ok(BertConfig {
            vocab_size: self.vocab_size,
            hidden_size: self.hidden_size,
            num_hidden_layers: self.num_hidden_layers,
            num_attention_heads: self.num_attention_heads,
            intermediate_size: self.intermediate_size,
            max_position_embeddings: self.max_position_embeddings,
            type_vocab_size: self.type_vocab_size,
            layer_norm_eps: self.layer_norm_eps,
            hidden_dropout_prob: self.hidden_dropout_prob,
            pooler: false,
            projection_size: None,
        })
    }
}

/// Sizes as a DistilBERT states them, in words of its own.
#[derive(Debug, Deserialize)]
struct Distilbert {
    #[serde(default = "gelu")]
    activation: String,
    vocab_size: usize,
    dim: usize,
    n_layers: usize,
    n_heads: usize,
    hidden_dim: usize,
    max_position_embeddings: usize,
    dropout: f64,
}

impl Distilbert {
    fn check(self, path: &Path) -> Result<BertConfig> {
        check_word(path, "activation", &self.activation, &[ACTIVATION])?;
        Ok(BertConfig {
            vocab_size: self.vocab_size,
            hidden_size: self.dim,
            num_hidden_layers: self.n_layers,
            num_attention_heads: self.n_heads,
            intermediate_size: self.hidden_dim,
            max_position_embeddings: self.max_position_embeddings,
            type_vocab_size: 0,
            // Fixed in that network.
            layer_norm_eps: epsilon(),
            hidden_dropout_prob: self.dropout,
            pooler: false,
            projection_size: None,
        })
    }
}
