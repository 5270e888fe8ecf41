//! From the authors' checkpoints, the follow-up's folder, or an encoder's weights, to a [`Model`].
//!
//! A checkpoint states no sizes: they are read from the shapes of its tensors. What shapes do not tell is documented at
//! [`ImportOptions`].

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use dcformer_volume::geometry::Shape3;
use dcformer_volume::preprocess::Preprocess;

use super::apply;
use super::checks::{check_bert, check_encoder, check_sizes};
use super::ct_clip;
use super::folder::{self, Model, ModelConfig};
use super::huggingface::{
    head_size, read_bert_config, read_folder_vocabulary, read_vocabulary, tokenizer,
};
use super::med3dvlm;
use super::official::{
    self, CODEBOOK, CONFIG, ENCODER, IMAGE_PROJECTION, LOGIT_BIAS, LOGIT_SCALE, TEXT,
    TEXT_PROJECTION,
};
use super::weights::Weights;
use crate::error::{Error, Result};
use crate::models::clip::ProjectionConfig;
use crate::models::dcformer::Mixer;
use crate::models::{
    BertConfig, ClipConfig, CtvitEncoderConfig, DcformerEncoderConfig, EncoderConfig,
    ImageEncoderConfig, ImageTowerConfig, Reduction, Temperature, TextTowerConfig,
    VectorQuantizerConfig, preset,
};

/// The tensor by which DCFormer is found, whatever stands before it.
const FIRST_TENSOR: &str = "s0.0.0.c1.0.weight";
/// Width of an attention head, of every published BERT.
const HEAD: usize = 64;

/// What an import is told besides the checkpoint.
#[derive(Clone, Debug, Default)]
pub struct ImportOptions {
    /// `vocab.txt` or `tokenizer.json` of the text encoder. Without it, what the folder has, if a folder is read; else the
    /// model encodes images only.
    pub vocabulary: Option<PathBuf>,
    /// `config.json` of the text encoder (Hugging Face). Without it sizes come from the shapes, heads are 64 wide, and
    /// norms and dropout are BERT's.
    pub text_config: Option<PathBuf>,
    /// The image encoder. Without it, what the file says of itself, or what its names tell.
    pub network: Option<String>,
    /// Preset of the image encoder. Without it, what the file says of itself, or what its shapes tell.
    pub variant: Option<String>,
    /// From the grid to one vector. Without it, what the file says of itself, or the paper's way with this encoder.
    pub reduction: Option<Reduction>,
}

/// Reads the authors' `.pth`, CT-CLIP's `.pt`, the follow-up's folder or its weights, or an encoder's `.safetensors`, with or
/// without a prefix such as `visual_transformer.encoder.`.
///
/// # Errors
/// If the file is damaged or of another network: then with every tensor that is missing, unknown or of another shape.
pub fn import(checkpoint: &Path, options: &ImportOptions, device: &Device) -> Result<Model> {
    let folder = checkpoint.is_dir().then_some(checkpoint);
    let volume = match folder {
        Some(folder) => read_folder(folder)?,
        None => None,
    };
    let mut weights = Weights::open(checkpoint)?;
    official::clean(&mut weights)?;
    let is_follow_up = med3dvlm::unify_names(&mut weights);
    let recorded = recorded_config(&weights)?;
    let recorded = recorded.as_ref();
    let encoder = choose_encoder(&mut weights, options, recorded, device)?;
    let reduction = options
        .reduction
        .or(recorded.map(|clip| clip.image.reduction))
        .unwrap_or(encoder.reduction());
    let temperature = if is_follow_up {
        med3dvlm::take_temperature(&mut weights)?
    } else {
        infer_temperature(&mut weights, recorded)?
    };

    let variant = encoder.variant_name().unwrap_or("of these sizes");
    let model = format!("{} {variant}", encoder.network());
    let text = infer_text(&weights, options, recorded)?;
    let mut config = ModelConfig::new(ClipConfig {
        image: ImageTowerConfig {
            quantizer: infer_quantizer(&weights),
            projection: infer_projection(&weights, &encoder, reduction),
            encoder,
            reduction,
        },
        text,
        temperature,
        classifier: recorded.and_then(|clip| clip.classifier.clone()),
    });
    if config.clip.image.encoder == ImageEncoderConfig::Ctvit(CtvitEncoderConfig::ct_clip()) {
        config.preprocess = Preprocess::ct_clip();
    }
    if is_follow_up {
        config.preprocess = Preprocess::med3dvlm();
        config.preprocess.shape = volume.unwrap_or(config.preprocess.shape);
        config.preprocess.check()?;
    }
    let clip = apply::fill(config.clip.init(device), &weights, official::name, &model)?;
    let vocabulary = match &options.vocabulary {
        Some(path) => Some(read_vocabulary(path)?),
        None => folder.map(read_folder_vocabulary).transpose()?.flatten(),
    };
    let tokenizer = match (vocabulary, &config.clip.text) {
        (Some(vocabulary), Some(text)) => {
            config.lower_case = vocabulary.lower_case();
            let path = options.vocabulary.as_deref().unwrap_or(checkpoint);
            Some(tokenizer(vocabulary, &text.encoder, path)?)
        }
        _ => None,
    };
    Ok(Model {
        config,
        clip,
        tokenizer,
    })
}

/// The size of volumes that a folder's configuration states, if it is the follow-up's.
fn read_folder(folder: &Path) -> Result<Option<Shape3>> {
    let config = folder.join(folder::CONFIG);
    if let Some(version) = folder::read_version(&config) {
        return Err(Error::Config {
            path: config,
            field: "format_version",
            found: version.to_string(),
            expected: "the configuration of a downloaded model; this folder is a model already, use it with --model".to_owned(),
        });
    }
    med3dvlm::read_input_size(&config)
}

/// The model that a file of our own export says it holds.
fn recorded_config(weights: &Weights) -> Result<Option<ClipConfig>> {
    let Some(json) = weights.metadata.get(CONFIG) else {
        return Ok(None);
    };
    let clip = serde_json::from_str(json).map_err(|source| Error::Json {
        path: weights.path.clone(),
        source,
    })?;
    check_sizes(&weights.path, &clip)?;
    Ok(Some(clip))
}

/// The encoder of the weights, whose tensors get the prefix of a full checkpoint.
fn choose_encoder(
    weights: &mut Weights,
    options: &ImportOptions,
    recorded: Option<&ClipConfig>,
    device: &Device,
) -> Result<ImageEncoderConfig> {
    unify_names(weights, FIRST_TENSOR, ENCODER);
    let is_ctvit = unify_names(weights, ct_clip::LANDMARK, ct_clip::PREFIX);
    if is_ctvit {
        ct_clip::drop_unused(weights);
    }
    let recorded = recorded.map(|clip| &clip.image.encoder);
    let found = match recorded {
        Some(encoder) => encoder.network(),
        None if is_ctvit => CtvitEncoderConfig::NETWORK,
        None => DcformerEncoderConfig::NETWORK,
    };
    let network = options.network.as_deref().unwrap_or(found);
    let recorded = recorded.filter(|encoder| encoder.network() == network);
    let encoder = match (&options.variant, recorded) {
        (Some(variant), _) => preset(network, Some(variant))?.config,
        (None, Some(encoder)) => encoder.clone(),
        (None, None) if network == CtvitEncoderConfig::NETWORK && is_ctvit => {
            ImageEncoderConfig::Ctvit(ct_clip::infer(weights)?)
        }
        (None, None) if network == DcformerEncoderConfig::NETWORK => {
            // Nothing to read sizes from: the comparison with any encoder says what is missing and what is there.
            let config = infer_dcformer(weights).unwrap_or_else(DcformerEncoderConfig::nano);
            ImageEncoderConfig::Dcformer(config)
        }
        (None, None) => preset(network, None)?.config,
    };
    check_encoder(&weights.path, &encoder)?;
    let names = apply::names(&encoder.init(device), |path| {
        official::name(&[&["image", "encoder"], path].concat())
    });
    let longest = names.into_iter().max_by_key(String::len);
    if let Some(landmark) = longest
        .as_deref()
        .and_then(|name| name.strip_prefix(ENCODER))
    {
        unify_names(weights, landmark, ENCODER);
    }
    Ok(encoder)
}

/// Gives the encoder's tensors the prefix of a full checkpoint. The encoder is where a tensor's name ends in `landmark`;
/// without one, nothing happens.
fn unify_names(weights: &mut Weights, landmark: &str, wanted: &str) -> bool {
    let prefix = weights.tensors.keys().find_map(|name| {
        let prefix = name.strip_suffix(landmark)?;
        (prefix.is_empty() || prefix.ends_with('.')).then(|| prefix.to_owned())
    });
    let Some(prefix) = prefix else {
        return false;
    };
    if prefix != wanted {
        weights.rename(|name| {
            Some(match name.strip_prefix(&prefix) {
                Some(rest) => format!("{wanted}{rest}"),
                None => name.to_owned(),
            })
        });
    }
    true
}

/// Sizes of a DCFormer, from the shapes of its tensors; `None` if it is none.
fn infer_dcformer(weights: &Weights) -> Option<DcformerEncoderConfig> {
    let shape = |name: &str| weights.shape(&format!("{ENCODER}{name}"));
    let first = |name: &str| shape(name)?.first().copied();
    let mut config = DcformerEncoderConfig::new([first(FIRST_TENSOR)?; 5], [0; 4]);
    for stage in 0..4 {
        let number = stage + 1;
        config.channels[number] = first(&format!("s{number}.0.proj.weight"))?;
        let attention = |block: usize| format!("s{number}.{block}.attn.qkv.weight");
        let gamma = |block: usize| format!("s{number}.{block}.gamma");
        let blocks = |name: &dyn Fn(usize) -> String| {
            (0..)
                .take_while(|&block| shape(&name(block)).is_some())
                .count()
        };
        if shape(&attention(0)).is_some() {
            config.mixers[stage] = Mixer::Attention;
            config.blocks[stage] = blocks(&attention);
        } else {
            config.kernels[stage] = *shape(&format!("s{number}.0.dwconv.c1.0.weight"))?.get(2)?;
            config.blocks[stage] = blocks(&gamma);
        }
        if config.blocks[stage] == 0 {
            return None;
        }
    }
    Some(config)
}

fn infer_quantizer(weights: &Weights) -> Option<VectorQuantizerConfig> {
    match *weights.shape(&format!("{CODEBOOK}embed"))? {
        [1, codes, channels] => Some(VectorQuantizerConfig { codes, channels }),
        _ => None,
    }
}

/// The projection; for the mean over the grid its inputs are the channels, so that another number is reported.
fn infer_projection(
    weights: &Weights,
    encoder: &ImageEncoderConfig,
    reduction: Reduction,
) -> Option<ProjectionConfig> {
    match *weights.shape(&format!("{IMAGE_PROJECTION}weight"))? {
        [outputs, inputs] => Some(ProjectionConfig {
            inputs: match reduction {
                Reduction::Channel => encoder.features(),
                Reduction::Depth | Reduction::None => inputs,
            },
            outputs,
            bias: has_bias(weights, IMAGE_PROJECTION),
        }),
        _ => None,
    }
}

fn has_bias(weights: &Weights, projection: &str) -> bool {
    weights.shape(&format!("{projection}bias")).is_some()
}

/// How similarities become logits: the authors' way unless the file says or holds something else.
fn infer_temperature(weights: &mut Weights, recorded: Option<&ClipConfig>) -> Result<Temperature> {
    if let Some(temperature) = ct_clip::take_temperature(weights)? {
        return Ok(temperature);
    }
    let learnt = |name| weights.shape(name).is_some();
    Ok(match recorded {
        Some(clip) => clip.temperature,
        None if learnt(LOGIT_BIAS) => Temperature::SIGLIP,
        None if learnt(LOGIT_SCALE) => Temperature::CLIP,
        None => Temperature::AUTHORS,
    })
}

fn infer_text(
    weights: &Weights,
    options: &ImportOptions,
    recorded: Option<&ClipConfig>,
) -> Result<Option<TextTowerConfig>> {
    let Some(&[latent, _]) = weights.shape(&format!("{TEXT_PROJECTION}weight")) else {
        return Ok(None);
    };
    let encoder = match &options.text_config {
        Some(path) => Some(read_bert_config(path)?),
        None => match recorded.and_then(|clip| clip.text.as_ref()) {
            Some(text) => Some(text.encoder.clone()),
            None => infer_bert(weights),
        },
    };
    let Some(mut encoder) = encoder else {
        return Ok(None);
    };
    encoder.pooler = weights
        .shape(&format!("{TEXT}pooler.dense.weight"))
        .is_some();
    encoder.projection_size = head_size(weights, TEXT);
    check_bert(&weights.path, &encoder)?;
    Ok(Some(TextTowerConfig {
        encoder,
        latent,
        bias: has_bias(weights, TEXT_PROJECTION),
    }))
}

/// Sizes of the text encoder, from the shapes of its tensors; `None` if it is no BERT.
fn infer_bert(weights: &Weights) -> Option<BertConfig> {
    let rows_and_columns = |name: &str| match *weights.shape(&format!("{TEXT}{name}.weight"))? {
        [rows, columns] => Some((rows, columns)),
        _ => None,
    };
    let (vocab_size, hidden_size) = rows_and_columns("embeddings.word_embeddings")?;
    let (max_position_embeddings, _) = rows_and_columns("embeddings.position_embeddings")?;
    // A DistilBERT has none.
    let kinds = rows_and_columns("embeddings.token_type_embeddings");
    let type_vocab_size = kinds.map_or(0, |(rows, _)| rows);
    let (intermediate_size, _) = rows_and_columns("encoder.layer.0.intermediate.dense")?;
    let layer = |index: usize| format!("encoder.layer.{index}.intermediate.dense");
    let num_hidden_layers = (0..)
        .take_while(|&index| rows_and_columns(&layer(index)).is_some())
        .count();
    Some(BertConfig {
        vocab_size,
        hidden_size,
        num_hidden_layers,
        num_attention_heads: hidden_size / HEAD,
        intermediate_size,
        max_position_embeddings,
        type_vocab_size,
        ..BertConfig::base()
    })
}
