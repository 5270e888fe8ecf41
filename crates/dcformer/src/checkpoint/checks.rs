//! What configurations of strangers may say: sizes that a network can have, before anything is built from them.

use std::collections::HashSet;
use std::path::Path;

use super::folder::ModelConfig;
use crate::error::{Error, Result};
use crate::models::encoder::{MOST, MOST_LAYERS};
use crate::models::{BertConfig, ClassifierConfig, ClipConfig, ImageEncoderConfig};

/// Refuses thresholds that no probability is held against.
pub(super) fn check_thresholds(path: &Path, config: &ModelConfig) -> Result<()> {
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
    let mut names = classifier.labels.iter();
    let repeated = names.find(|name| name.is_empty() || !seen.insert(name.as_str()));
    if let Some(name) = repeated {
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
    if config.type_vocab_size > 0 {
        check_range(path, "type_vocab_size", config.type_vocab_size, MOST)?;
    }
    if let Some(size) = config.projection_size {
        check_range(path, "projection_size", size, MOST)?;
    }
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

/// Refuses a size of 0, or of more than `most`.
pub(super) fn check_range(
    path: &Path,
    field: &'static str,
    found: usize,
    most: usize,
) -> Result<()> {
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
