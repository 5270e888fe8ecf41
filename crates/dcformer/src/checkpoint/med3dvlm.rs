//! The follow-up project's models (Med3DVLM's DCFormer-SigLIP; SPEC section 10): names of the weights, and what the folder's
//! `config.json` says.
//!
//! | here | there |
//! |---|---|
//! | the encoder's `gamma` | `scale` |
//! | `to_visual_latent`, `to_text_latent` | `mm_vision_proj`, `mm_language_proj`, which have a bias |
//! | `text_transformer` | `language_encoder`, a DistilBERT |
//! | `logit_scale`, `logit_bias` | `t_prime`, `bias`, single numbers |

use std::path::Path;

use dcformer_volume::geometry::Shape3;
use serde::Deserialize;

use super::checks::check_range;
use super::folder::read_file;
use super::huggingface::as_bert;
use super::official::{LOGIT_BIAS, LOGIT_SCALE, TEXT};
use super::weights::Weights;
use crate::error::{Error, Result};
use crate::models::Temperature;
use crate::models::encoder::MOST;

/// What the folder's `config.json` calls the model.
const MODEL_TYPE: &str = "dec_clip";
/// The only image encoder that is read.
const ENCODER: &str = "dcformer";
/// The tensor by which the model is told.
const LANDMARK: &str = "mm_vision_proj.weight";
/// What stands before the names of the text encoder.
const LANGUAGE: &str = "language_encoder.";
/// Names of projections, and the authors' names.
const PROJECTIONS: [(&str, &str); 2] = [
    ("mm_vision_proj.", "to_visual_latent."),
    ("mm_language_proj.", "to_text_latent."),
];
/// Numbers, and the names that a SigLIP's have here.
const NUMBERS: [(&str, &str); 2] = [("t_prime", LOGIT_SCALE), ("bias", LOGIT_BIAS)];

/// Gives weights the authors' names; whether they were the follow-up's. A bare encoder of theirs is renamed too.
pub(super) fn unify_names(weights: &mut Weights) -> bool {
    let is_theirs = weights.shape(LANDMARK).is_some();
    weights.rename(|name| {
        if let Some(block) = name.strip_suffix(".scale").filter(|block| is_block(block)) {
            return Some(format!("{block}.gamma"));
        }
        if !is_theirs {
            return Some(name.to_owned());
        }
        if let Some(text) = name.strip_prefix(LANGUAGE) {
            return as_bert(text).map(|name| format!("{TEXT}{name}"));
        }
        let number = NUMBERS.iter().find(|(theirs, _)| *theirs == name);
        let projection = PROJECTIONS
            .iter()
            .find_map(|(theirs, ours)| Some(format!("{ours}{}", name.strip_prefix(theirs)?)));
        Some(match (number, projection) {
            (Some((_, ours)), _) => (*ours).to_owned(),
            (None, Some(name)) => name,
            (None, None) => name.to_owned(),
        })
    });
    if is_theirs {
        for (_, name) in NUMBERS {
            // A number has no axis there.
            if let Some(number) = weights.tensors.get_mut(name)
                && number.shape.is_empty()
            {
                number.shape = vec![1];
            }
        }
    }
    is_theirs
}

/// Whether a name ends like that of a block of the encoder, `s2.0`.
fn is_block(name: &str) -> bool {
    let mut parts = name.rsplit('.');
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let block = parts.next().is_some_and(is_number);
    let stage = parts.next().and_then(|stage| stage.strip_prefix('s'));
    block && stage.is_some_and(is_number)
}

/// How similarities become logits, of weights with the authors' names: SigLIP's learnt numbers, or the scale of models that
/// were trained with softmax, which that code multiplies by as it is, without an exponential.
///
/// # Errors
/// [`Error::TensorShape`] if the scale is no single number.
pub(super) fn take_temperature(weights: &mut Weights) -> Result<Temperature> {
    if weights.shape(LOGIT_BIAS).is_some() {
        return Ok(Temperature::SIGLIP);
    }
    let scale = weights.take_number(LOGIT_SCALE)?;
    Ok(
        scale.map_or(Temperature::AUTHORS, |scale| Temperature::Fixed {
            scale: f64::from(scale),
        }),
    )
}

/// What a folder's `config.json` says of what weights do not tell.
#[derive(Deserialize)]
struct FolderConfig {
    #[serde(default = "dcformer")]
    vision_encoder: String,
    /// Height, width, depth.
    #[serde(default)]
    input_size: Option<[usize; 3]>,
}

fn dcformer() -> String {
    ENCODER.to_owned()
}

/// The size of the volumes that a model in a folder takes, by its `config.json`; `None` if that does not say it, or is of
/// another kind of model.
///
/// # Errors
/// If the file cannot be read, or is of a model with another image encoder.
pub(super) fn read_input_size(config: &Path) -> Result<Option<Shape3>> {
    if !config.exists() {
        return Ok(None);
    }
    let json = |source| Error::Json {
        path: config.to_owned(),
        source,
    };
    let value: serde_json::Value = serde_json::from_slice(&read_file(config)?).map_err(json)?;
    if value["model_type"] != MODEL_TYPE {
        return Ok(None);
    }
    let stated: FolderConfig = serde_json::from_value(value).map_err(json)?;
    if stated.vision_encoder != ENCODER {
        return Err(Error::Config {
            path: config.to_owned(),
            field: "vision_encoder",
            found: format!("{:?}", stated.vision_encoder),
            expected: format!("{ENCODER:?}"),
        });
    }
    let Some(size) = stated.input_size else {
        return Ok(None);
    };
    for length in size {
        check_range(config, "input_size", length, MOST)?;
    }
    let [height, width, depth] = size;
    Ok(Some(Shape3 {
        depth,
        height,
        width,
    }))
}
