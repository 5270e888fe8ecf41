//! The names of the authors' checkpoints (SPEC section 10), which our folders use too.
//!
//! | here | there |
//! |---|---|
//! | `image.encoder.Dcformer.stem.convs.I.AXIS` | `visual_transformer.encoder.s0.0.I.cN` |
//! | `image.encoder.Dcformer.stages.S.projection` | `visual_transformer.encoder.s(S+1).0.proj.weight` |
//! | `image.encoder.Dcformer.stages.S.blocks.B.mixer.AXIS` | `visual_transformer.encoder.s(S+1).B.dwconv.cN` |
//! | `image.quantizer` | `visual_transformer.vq._codebook` |
//! | `image.projection`, `text.projection` | `to_visual_latent`, `to_text_latent` |
//! | `text.encoder` | `text_transformer`, then Hugging Face's `BertModel` |
//!
//! The authors turn volumes from (depth, height, width) to (height, width, depth) before the first layer: `c1` is the branch
//! along height, `c2` along width, `c3` along depth (P2). Every norm has two names, `cN.1` and `norm.(N-1)`.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::Dtype;

use super::apply::{self, Layout, OwnedTensor, Placement};
use super::ct_clip;
use super::folder::Model;
use super::huggingface::{self, norm};
use super::weights::Weights;
use crate::error::{Error, Result};

pub(crate) const ENCODER: &str = "visual_transformer.encoder.";
pub(crate) const CODEBOOK: &str = "visual_transformer.vq._codebook.";
pub(crate) const TEXT: &str = "text_transformer.";
pub(crate) const IMAGE_PROJECTION: &str = "to_visual_latent.";
pub(crate) const TEXT_PROJECTION: &str = "to_text_latent.";
/// The logarithm of the learnt scale of similarities, and what SigLIP adds: names of CLIP's and of ours.
pub(crate) const LOGIT_SCALE: &str = "logit_scale";
pub(crate) const LOGIT_BIAS: &str = "logit_bias";

/// Where an export keeps the configuration of the model, which shapes do not tell of every network: a key of the file's
/// metadata.
pub(crate) const CONFIG: &str = "dcformer.clip";

/// What data-parallel training puts before every name.
const PARALLEL: &str = "module.";
/// State that PyTorch keeps and nothing here needs: counters, flags and index tables.
pub(super) const IGNORED: [&str; 3] =
    [".num_batches_tracked", "_codebook.initted", ".position_ids"];
/// The counters, which PyTorch's strict loading asks for.
const COUNTER: &str = "num_batches_tracked";

/// Whether an export holds what PyTorch's strict loading asks for and we do not need.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Duplicates {
    /// Every tensor once.
    #[default]
    Omit,
    /// Norms under both names, their counters (as 0: nothing counts them here) and the codebook's flag.
    Write,
}

/// Writes the weights of a model to `.safetensors` in the official names; the file's metadata hold the configuration of
/// the model.
///
/// # Errors
/// [`Error::Write`], [`Error::Safetensors`]
pub fn export(model: &Model, path: &Path, duplicates: Duplicates) -> Result<()> {
    let mut tensors = apply::collect(&model.clip, name);
    if duplicates == Duplicates::Write {
        complete(&mut tensors);
    }
    let config = serde_json::to_string(&model.config.clip).map_err(|source| Error::Json {
        path: path.to_owned(),
        source,
    })?;
    apply::write_safetensors(&tensors, &[(CONFIG, &config)], path)
}

/// Adds what [`Duplicates::Write`] says.
fn complete(tensors: &mut BTreeMap<String, OwnedTensor>) {
    let scalar = |dtype, bytes: &[u8]| OwnedTensor {
        dtype,
        shape: Vec::new(),
        bytes: bytes.to_vec(),
    };
    let norms: Vec<String> = tensors
        .keys()
        .filter_map(|name| name.strip_suffix(".running_mean").map(str::to_owned))
        .collect();
    for norm in norms {
        tensors.insert(
            format!("{norm}.{COUNTER}"),
            scalar(Dtype::I64, &0i64.to_le_bytes()),
        );
    }
    let doubled: Vec<_> = tensors
        .iter()
        .filter_map(|(name, tensor)| Some((second_name(name)?, tensor.clone())))
        .collect();
    tensors.extend(doubled);
    if tensors.contains_key(&format!("{CODEBOOK}embed")) {
        tensors.insert(format!("{CODEBOOK}initted"), scalar(Dtype::BOOL, &[1]));
    }
}

/// The other name of a norm's tensor: `x.c2.1.bias` is `x.norm.1.bias`.
fn second_name(name: &str) -> Option<String> {
    ["c1", "c2", "c3"]
        .iter()
        .enumerate()
        .find_map(|(index, branch)| {
            let (before, field) = name.split_once(&format!(".{branch}.1."))?;
            Some(format!("{before}.norm.{index}.{field}"))
        })
}

/// The first name of a norm's tensor: `x.norm.1.bias` is `x.c2.1.bias`.
fn first_name(name: &str) -> Option<String> {
    (0..3).find_map(|index| {
        let (before, field) = name.split_once(&format!(".norm.{index}."))?;
        Some(format!("{before}.c{}.1.{field}", index + 1))
    })
}

/// Brings the names of a checkpoint to one form: no `module.`, every tensor once, no counters.
///
/// # Errors
/// [`Error::Contradiction`] if two names of a norm hold different values.
pub(crate) fn clean(weights: &mut Weights) -> Result<()> {
    weights.rename(|name| {
        let name = name.strip_prefix(PARALLEL).unwrap_or(name);
        let ignored = IGNORED.iter().any(|ignored| name.ends_with(ignored));
        (!ignored).then(|| name.to_owned())
    });
    let doubled: Vec<(String, String)> = weights
        .tensors
        .keys()
        .filter_map(|second| Some((second.clone(), first_name(second)?)))
        .collect();
    for (second, first) in doubled {
        let Some(duplicate) = weights.tensors.remove(&second) else {
            continue;
        };
        match weights.tensors.get(&first) {
            None => {
                weights.tensors.insert(first, duplicate);
            }
            Some(original) => {
                let same = original.shape == duplicate.shape
                    && weights.read_bytes(original)? == weights.read_bytes(&duplicate)?;
                if !same {
                    return Err(Error::Contradiction {
                        path: weights.path.clone(),
                        first,
                        second,
                    });
                }
            }
        }
    }
    Ok(())
}

/// Whether a tensor of this official name belongs to the text tower.
pub(super) fn is_text(name: &str) -> bool {
    name.starts_with(TEXT) || name.starts_with(TEXT_PROJECTION)
}

/// The official name of a parameter of a [`Clip`](crate::models::Clip).
pub(crate) fn name(path: &[&str]) -> Placement {
    match path {
        ["image", "encoder", "Dcformer", rest @ ..] => prefixed(ENCODER, dcformer(rest)),
        ["image", "encoder", "Ctvit", rest @ ..] => prefixed(ct_clip::PREFIX, ct_clip::name(rest)),
        ["image", "encoder", _network, rest @ ..] => prefixed(ENCODER, as_in_pytorch(rest)),
        ["image", "quantizer", field] => same(format!("{CODEBOOK}{}", codebook(field))),
        ["image", "projection", field] => linear(format!("{IMAGE_PROJECTION}{field}"), field),
        ["text", "projection", field] => linear(format!("{TEXT_PROJECTION}{field}"), field),
        ["text", "encoder", rest @ ..] => prefixed(TEXT, huggingface::name(rest)),
        ["classifier", "linear", field] => linear(format!("classifier.{field}"), field),
        ["logit_scale", "log_scale"] => same(LOGIT_SCALE.to_owned()),
        ["logit_scale", "bias"] => same(LOGIT_BIAS.to_owned()),
        _ => no_name(path),
    }
}

/// The name of a parameter of a network of which no weights were published: its path, in PyTorch's words.
fn as_in_pytorch(path: &[&str]) -> Placement {
    let [before @ .., field] = path else {
        no_name(path)
    };
    let field = match *field {
        "gamma" => "weight",
        "beta" => "bias",
        other => other,
    };
    linear([before, &[field]].concat().join("."), field)
}

/// The name of a parameter of a [`DcformerEncoder`](crate::models::DcformerEncoder) within the encoder.
fn dcformer(path: &[&str]) -> Placement {
    match path {
        ["stem", "convs", index, rest @ ..] => {
            prefixed(&format!("s0.0.{index}."), decomposed(rest))
        }
        ["stages", index, "projection"] => same(format!("s{}.0.proj.weight", stage(index))),
        ["stages", index, "blocks", number, rest @ ..] => {
            prefixed(&format!("s{}.{number}.", stage(index)), block(rest))
        }
        ["stages", index, "attention_blocks", number, rest @ ..] => prefixed(
            &format!("s{}.{number}.", stage(index)),
            attention_block(rest),
        ),
        _ => no_name(path),
    }
}

fn block(path: &[&str]) -> Placement {
    match path {
        ["mixer", rest @ ..] => prefixed("dwconv.", decomposed(rest)),
        ["expand", field] => linear(format!("mlp.mlp.0.{field}"), field),
        ["contract", field] => linear(format!("mlp.mlp.3.{field}"), field),
        ["gamma"] => same("gamma".to_owned()),
        _ => no_name(path),
    }
}

/// The published code has this block and no weights of it; the names follow those of its other blocks.
fn attention_block(path: &[&str]) -> Placement {
    match path {
        ["position_1", axis, field] => same(format!("cpe1.{}.{field}", branch(axis))),
        ["position_2", axis, field] => same(format!("cpe2.{}.{field}", branch(axis))),
        ["norm_1", field] => norm("norm1", field),
        ["norm_2", field] => norm("norm2", field),
        ["attention", "qkv", field] => linear(format!("attn.qkv.{field}"), field),
        ["attention", "output", field] => linear(format!("attn.proj.{field}"), field),
        ["mlp", "expand", field] => linear(format!("mlp.mlp.0.{field}"), field),
        ["mlp", "contract", field] => linear(format!("mlp.mlp.3.{field}"), field),
        _ => no_name(path),
    }
}

/// The branch of a decomposed convolution along an axis (P2).
fn branch(axis: &str) -> &'static str {
    match axis {
        "height" => "c1",
        "width" => "c2",
        "depth" => "c3",
        _ => no_name(&[axis]),
    }
}

fn decomposed(path: &[&str]) -> Placement {
    let [axis, rest @ ..] = path else {
        no_name(path)
    };
    let branch = branch(axis);
    let field = match rest {
        ["weight"] => "0.weight",
        ["bias"] => "0.bias",
        ["norm", "gamma"] => "1.weight",
        ["norm", "beta"] => "1.bias",
        ["norm", "running_mean"] => "1.running_mean",
        ["norm", "running_var"] => "1.running_var",
        _ => no_name(path),
    };
    same(format!("{branch}.{field}"))
}

fn codebook(field: &str) -> &str {
    match field {
        "embed_average" => "embed_avg",
        other => other,
    }
}

/// Stages are numbered from 1 there; 0 is the stem.
fn stage(index: &str) -> usize {
    1 + index.parse::<usize>().expect("the index of a Vec")
}

pub(super) fn prefixed(prefix: &str, placement: Placement) -> Placement {
    Placement {
        name: format!("{prefix}{}", placement.name),
        layout: placement.layout,
    }
}

pub(super) fn same(name: String) -> Placement {
    Placement {
        name,
        layout: Layout::Same,
    }
}

fn transposed(name: String) -> Placement {
    Placement {
        name,
        layout: Layout::Transposed,
    }
}

/// A field of a linear layer, whose weight PyTorch has the other way round.
pub(super) fn linear(name: String, field: &str) -> Placement {
    match field {
        "weight" => transposed(name),
        _ => same(name),
    }
}

pub(super) fn no_name(path: &[&str]) -> ! {
    unreachable!("the parameter {} has no official name", path.join("."))
}
