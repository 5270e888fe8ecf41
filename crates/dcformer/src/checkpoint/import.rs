//! From the authors' checkpoints, or an encoder's weights, to a [`Model`].
//!
//! A checkpoint states no sizes: they are read from the shapes of its tensors. What shapes do not tell is documented at
//! [`ImportOptions`].

use std::path::{Path, PathBuf};

use burn::tensor::Device;

use super::apply;
use super::folder::{Model, ModelConfig, check_bert};
use super::huggingface::{read_bert_config, tokenizer};
use super::official::{self, CODEBOOK, ENCODER, IMAGE_PROJECTION, TEXT, TEXT_PROJECTION};
use super::weights::Weights;
use crate::error::Result;
use crate::models::clip::ProjectionConfig;
use crate::models::{
    BertConfig, ClipConfig, DcformerEncoderConfig, EncoderConfig, ImageEncoderConfig,
    ImageTowerConfig, Reduction, Temperature, TextTowerConfig, VectorQuantizerConfig,
};
use crate::text::Vocabulary;

/// The tensor by which an encoder is found, whatever stands before it.
const FIRST_TENSOR: &str = "s0.0.0.c1.0.weight";
/// Width of an attention head, of every published BERT.
const HEAD: usize = 64;

/// What an import is told besides the checkpoint.
#[derive(Clone, Debug, Default)]
pub struct ImportOptions {
    /// `vocab.txt` or `tokenizer.json` of the text encoder. Without it the model encodes images only.
    pub vocabulary: Option<PathBuf>,
    /// `config.json` of the text encoder (Hugging Face). Without it sizes come from the shapes, heads are 64 wide, and
    /// norms and dropout are BERT's.
    pub text_config: Option<PathBuf>,
    /// Preset of the image encoder. Without it sizes come from the shapes.
    pub variant: Option<String>,
    /// From the grid to one vector. Without it the paper's mean over the grid.
    pub reduction: Reduction,
}

/// Reads the authors' `.pth`, or an encoder's `.safetensors` in official names, with or without a prefix such as
/// `visual_transformer.encoder.`.
///
/// # Errors
/// If the file is damaged or of another network: then with every tensor that is missing, unknown or of another shape.
pub fn import(checkpoint: &Path, options: &ImportOptions, device: &Device) -> Result<Model> {
    let mut weights = Weights::open(checkpoint)?;
    official::clean(&mut weights)?;
    unify_encoder_names(&mut weights);
    let encoder = match &options.variant {
        Some(variant) => DcformerEncoderConfig::variant(variant)?,
        // Nothing to read sizes from: the comparison with any encoder says what is missing and what is there.
        None => infer_encoder(&weights).unwrap_or_else(DcformerEncoderConfig::nano),
    };
    let name = encoder.variant_name().unwrap_or("of these sizes");
    let model = format!("dcformer {name}");

    let text = infer_text(&weights, options)?;
    let mut config = ModelConfig::new(ClipConfig {
        image: ImageTowerConfig {
            quantizer: infer_quantizer(&weights),
            projection: infer_projection(&weights, &encoder, options.reduction),
            encoder: ImageEncoderConfig::Dcformer(encoder),
            reduction: options.reduction,
        },
        text,
        temperature: Temperature::AUTHORS,
    });
    let clip = apply::fill(config.clip.init(device), &weights, official::name, &model)?;
    let tokenizer = match (&options.vocabulary, &config.clip.text) {
        (Some(path), Some(text)) => {
            let vocabulary = Vocabulary::read(path, true)?;
            config.lower_case = vocabulary.lower_case();
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

/// Gives the encoder's tensors the prefix of a full checkpoint.
fn unify_encoder_names(weights: &mut Weights) {
    let first = weights
        .tensors
        .keys()
        .find_map(|name| name.strip_suffix(FIRST_TENSOR));
    let Some(prefix) = first.map(str::to_owned) else {
        return;
    };
    if prefix != ENCODER {
        weights.rename(|name| {
            Some(match name.strip_prefix(&prefix) {
                Some(rest) => format!("{ENCODER}{rest}"),
                None => name.to_owned(),
            })
        });
    }
}

/// Sizes of the encoder, from the shapes of its tensors; `None` if it is no DCFormer.
fn infer_encoder(weights: &Weights) -> Option<DcformerEncoderConfig> {
    let shape = |name: &str| weights.shape(&format!("{ENCODER}{name}"));
    let first = |name: &str| shape(name)?.first().copied();
    let mut config = DcformerEncoderConfig::new([first(FIRST_TENSOR)?; 5], [0; 4]);
    for stage in 0..4 {
        let number = stage + 1;
        config.channels[number] = first(&format!("s{number}.0.proj.weight"))?;
        config.kernels[stage] = *shape(&format!("s{number}.0.dwconv.c1.0.weight"))?.get(2)?;
        config.blocks[stage] = (0..)
            .take_while(|block| shape(&format!("s{number}.{block}.gamma")).is_some())
            .count();
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
    encoder: &DcformerEncoderConfig,
    reduction: Reduction,
) -> Option<ProjectionConfig> {
    match *weights.shape(IMAGE_PROJECTION)? {
        [outputs, inputs] => Some(ProjectionConfig {
            inputs: match reduction {
                Reduction::Channel => encoder.features(),
                Reduction::Depth | Reduction::None => inputs,
            },
            outputs,
        }),
        _ => None,
    }
}

fn infer_text(weights: &Weights, options: &ImportOptions) -> Result<Option<TextTowerConfig>> {
    let Some(&[latent, _]) = weights.shape(TEXT_PROJECTION) else {
        return Ok(None);
    };
    let encoder = match &options.text_config {
        Some(path) => Some(read_bert_config(path)?),
        None => infer_bert(weights),
    };
    let Some(mut encoder) = encoder else {
        return Ok(None);
    };
    encoder.pooler = weights
        .shape(&format!("{TEXT}pooler.dense.weight"))
        .is_some();
    check_bert(&weights.path, &encoder)?;
    Ok(Some(TextTowerConfig { encoder, latent }))
}

/// Sizes of the text encoder, from the shapes of its tensors; `None` if it is no BERT.
fn infer_bert(weights: &Weights) -> Option<BertConfig> {
    let rows_and_columns = |name: &str| match *weights.shape(&format!("{TEXT}{name}.weight"))? {
        [rows, columns] => Some((rows, columns)),
        _ => None,
    };
    let (vocab_size, hidden_size) = rows_and_columns("embeddings.word_embeddings")?;
    let (max_position_embeddings, _) = rows_and_columns("embeddings.position_embeddings")?;
    let (type_vocab_size, _) = rows_and_columns("embeddings.token_type_embeddings")?;
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
