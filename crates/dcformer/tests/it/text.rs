//! Text encoders of Hugging Face, and the follow-up project's model, as folders of a hub; `tests/reference/text.py` made the
//! expected values with transformers.

use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor, TensorData};
use dcformer::Error;
use dcformer::checkpoint::{
    Duplicates, ImportOptions, Model, OwnHead, import, load_bert, read_bert_config,
};
use dcformer::models::{DcformerEncoderConfig, ImageEncoderConfig, Temperature, TextTowerConfig};
use dcformer_volume::geometry::Shape3;
use dcformer_volume::preprocess::Preprocess;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::checkpoint::{Raw, exported, read_raw, write_raw};
use crate::{Tensors, distance, golden_file, pytorch, values};

/// Features of order 1, expected ones in double precision; float32 sums through two layers.
const FEATURES: f32 = 1e-5;
/// Latents of unit length after an encoder of order 100, as in `golden.rs`; logits are ten times as large.
const LATENTS: f32 = 1e-5;
const LOGITS: f32 = 1e-4;

fn folder(name: &str) -> PathBuf {
    golden_file(&format!("text/{name}"))
}

fn expected(name: &str) -> Vec<f32> {
    Tensors::golden("text/expected").values(name).to_vec()
}

fn expected_json() -> Value {
    serde_json::from_slice(&std::fs::read(folder("expected.json")).unwrap()).unwrap()
}

fn texts() -> Vec<String> {
    serde_json::from_value(expected_json()["texts"].clone()).unwrap()
}

/// A copy of a golden folder that may be changed.
fn copied(name: &str) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(folder(name)).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
    }
    copy
}

/// Features of the texts by the encoder in a folder.
fn features(folder: &Path, head: OwnHead) -> Vec<f32> {
    let (_, bert, tokenizer) = load_bert(folder, head, &Device::flex()).unwrap();
    values(bert.forward_cls(&tokenizer.encode_batch(&texts()).unwrap()))
}

#[test]
fn a_distilbert_gives_the_features_of_transformers() {
    let device = Device::flex();
    let (config, bert, tokenizer) =
        load_bert(&folder("distilbert"), OwnHead::Omit, &device).unwrap();
    assert_eq!((config.type_vocab_size, config.num_attention_heads), (0, 3));
    assert!(!tokenizer.vocabulary().lower_case());
    let texts = texts();
    let ids: Vec<Vec<u32>> = texts
        .iter()
        .map(|text| tokenizer.encode(text).unwrap())
        .collect();
    assert_eq!(json!(ids), expected_json()["ids"]["cased"]);

    let found = values(bert.forward_cls(&tokenizer.encode_batch(&texts).unwrap()));
    for padding in ["padded", "alone"] {
        let far = distance(&found, &expected(&format!("distilbert.{padding}")));
        assert!(far < FEATURES, "{padding}: {far}");
    }
}

#[test]
fn the_head_of_cxr_bert_is_used_if_asked() {
    let cxr_bert = folder("cxr_bert");
    let device = Device::flex();
    let (config, _, tokenizer) = load_bert(&cxr_bert, OwnHead::Use, &device).unwrap();
    assert_eq!((config.projection_size, config.features()), (Some(14), 14));
    let ids: Vec<Vec<u32>> = texts()
        .iter()
        .map(|text| tokenizer.encode(text).unwrap())
        .collect();
    assert_eq!(json!(ids), expected_json()["ids"]["lower"]);

    for (head, name) in [(OwnHead::Omit, "cls"), (OwnHead::Use, "projected")] {
        let far = distance(
            &features(&cxr_bert, head),
            &expected(&format!("cxr_bert.{name}")),
        );
        assert!(far < FEATURES, "{name}: {far}");
    }
    let error = load_bert(&folder("distilbert"), OwnHead::Use, &device)
        .unwrap_err()
        .to_string();
    for part in ["model.safetensors", "cls_projection_head", "own_head"] {
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn a_distilbert_of_another_kind_is_refused() {
    let copy = copied("distilbert");
    let file = copy.path().join("config.json");
    let original: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    for (field, value, named) in [
        ("activation", json!("relu"), "activation"),
        ("n_heads", json!(7), "divisor"),
        ("dim", json!(0), "hidden_size"),
        ("n_layers", json!(1u64 << 40), "num_hidden_layers"),
        ("model_type", json!(["distilbert"]), "model_type"),
        ("model_type", json!("roberta"), "distilbert"),
    ] {
        let mut config = original.clone();
        config[field] = value;
        std::fs::write(&file, config.to_string()).unwrap();
        let error = read_bert_config(&file).unwrap_err().to_string();
        assert!(
            error.contains(named) && error.contains("config.json"),
            "{error}"
        );
    }
}

#[test]
fn a_folder_says_which_file_it_lacks() {
    let copy = copied("cxr_bert");
    let message = || {
        let result = load_bert(copy.path(), OwnHead::Omit, &Device::flex());
        result.unwrap_err().to_string()
    };
    std::fs::remove_file(copy.path().join("pytorch_model.bin")).unwrap();
    let error = message();
    assert!(
        error.contains("no file of weights") && error.contains("model.safetensors.index.json"),
        "{error}"
    );
    std::fs::remove_file(copy.path().join("vocab.txt")).unwrap();
    let error = message();
    assert!(
        error.contains("no vocabulary") && error.contains("tokenizer.json"),
        "{error}"
    );
    std::fs::write(copy.path().join("config.json"), "{").unwrap();
    assert!(message().contains("config.json"));
}

/// Replaces the weights of a folder by two files and their index, the tensors in turn.
fn split(folder: &Path) {
    let whole = folder.join("model.safetensors");
    let raw = read_raw(&whole);
    std::fs::remove_file(whole).unwrap();
    let parts = [1, 2].map(|part| format!("model-0000{part}-of-00002.safetensors"));
    let mut map = serde_json::Map::new();
    for (index, part) in parts.iter().enumerate() {
        let mine: Raw = raw.clone().into_iter().skip(index).step_by(2).collect();
        map.extend(mine.keys().map(|name| (name.clone(), json!(part))));
        write_raw(&mine, &folder.join(part));
    }
    write_index(folder, &map);
}

fn write_index(folder: &Path, map: &serde_json::Map<String, Value>) {
    let index = json!({ "metadata": { "total_size": 1 }, "weight_map": map });
    let path = folder.join("model.safetensors.index.json");
    std::fs::write(path, index.to_string()).unwrap();
}

#[test]
fn weights_in_parts_are_the_same_weights() {
    let copy = copied("distilbert");
    split(copy.path());
    let whole = features(&folder("distilbert"), OwnHead::Omit);
    assert_eq!(features(copy.path(), OwnHead::Omit), whole);

    // The same of PyTorch's files: one that is called a part.
    let copy = copied("cxr_bert");
    let part = copy.path().join("pytorch_model-00001-of-00001.bin");
    std::fs::rename(copy.path().join("pytorch_model.bin"), &part).unwrap();
    let tensors = pytorch_reader::PytorchReader::new(&part).unwrap();
    let map: serde_json::Map<String, Value> = tensors
        .keys()
        .into_iter()
        .map(|name| (name, json!("pytorch_model-00001-of-00001.bin")))
        .collect();
    let index = json!({ "weight_map": map }).to_string();
    std::fs::write(copy.path().join("pytorch_model.bin.index.json"), index).unwrap();
    let whole = features(&folder("cxr_bert"), OwnHead::Use);
    assert_eq!(features(copy.path(), OwnHead::Use), whole);
}

#[test]
fn an_index_that_does_not_fit_is_refused() {
    let first = "model-00001-of-00002.safetensors";
    let refused = |change: &dyn Fn(&Path, &mut serde_json::Map<String, Value>), parts: &[&str]| {
        let copy = copied("distilbert");
        split(copy.path());
        let path = copy.path().join("model.safetensors.index.json");
        let index: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let mut map = index["weight_map"].as_object().unwrap().clone();
        change(copy.path(), &mut map);
        write_index(copy.path(), &map);
        let error = load_bert(copy.path(), OwnHead::Omit, &Device::flex()).unwrap_err();
        let message = error.to_string();
        for part in parts {
            assert!(message.contains(part), "no {part:?} in {message}");
        }
    };
    let index = "model.safetensors.index.json";
    for outside in [
        "../model.safetensors",
        "/etc/passwd",
        "a/model.safetensors",
        "..",
        ".",
        "",
        "./model-00001-of-00002.safetensors",
        "model-00001-of-00002.safetensors/",
    ] {
        refused(
            &|_, map| {
                map.insert("x".to_owned(), json!(outside));
            },
            &[index, "no name of a file in the same folder"],
        );
    }
    let absent = "model-00003-of-00002.safetensors";
    refused(
        &|_, map| {
            map.insert("x".to_owned(), json!(absent));
        },
        &[index, absent, "missing"],
    );
    refused(
        &|_, map| {
            map.insert("x".to_owned(), json!(first));
        },
        &[index, "`x` is not in", first],
    );
    // In the other file, not where the index says.
    refused(
        &|_, map| {
            let name = "distilbert.embeddings.LayerNorm.weight";
            let other = if map[name] == first {
                "model-00002-of-00002.safetensors"
            } else {
                first
            };
            map.insert(name.to_owned(), json!(other));
        },
        &[index, "distilbert.embeddings.LayerNorm.weight", "is not in"],
    );
    // An index as a part of itself, or a folder: no end, or another file than was named.
    refused(
        &|_, map| {
            map.insert("x".to_owned(), json!(index));
        },
        &[index, "unknown kind of weights file"],
    );
    refused(
        &|folder, map| {
            std::fs::create_dir(folder.join("part.safetensors")).unwrap();
            map.insert("x".to_owned(), json!("part.safetensors"));
        },
        &["part.safetensors"],
    );
    // A tensor that two files have.
    refused(
        &|folder, _| {
            let both = [
                "model-00001-of-00002.safetensors",
                "model-00002-of-00002.safetensors",
            ];
            let [mut raw, other] = both.map(|name| read_raw(&folder.join(name)));
            let (name, tensor) = other.into_iter().next().unwrap();
            raw.insert(name, tensor);
            write_raw(&raw, &folder.join(first));
        },
        &[index, "is in", "and in `model-00002-of-00002.safetensors`"],
    );
    // A part that is cut off.
    refused(
        &|folder, _| {
            let path = folder.join(first);
            let whole = std::fs::read(&path).unwrap();
            std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        },
        &[first, "not a valid safetensors file"],
    );
}

#[test]
fn an_index_that_is_none_is_refused() {
    let copy = copied("distilbert");
    std::fs::remove_file(copy.path().join("model.safetensors")).unwrap();
    let path = copy.path().join("model.safetensors.index.json");
    for (content, part) in [
        ("", "EOF"),
        ("[]", "expected struct Index"),
        ("{}", "weight_map"),
        (r#"{"weight_map":[]}"#, "names of files"),
        (r#"{"weight_map":{"x":7}}"#, "string"),
        (
            r#"{"weight_map":{"x":"a.safetensors","x":"b.safetensors"}}"#,
            "twice",
        ),
    ] {
        std::fs::write(&path, content).unwrap();
        let error = load_bert(copy.path(), OwnHead::Omit, &Device::flex()).unwrap_err();
        assert!(error.to_string().contains("index.json"), "{error}");
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.contains(part), "{content}: {source}");
    }
    std::fs::write(&path, r#"{"weight_map":{}}"#).unwrap();
    let error = load_bert(copy.path(), OwnHead::Omit, &Device::flex()).unwrap_err();
    assert!(matches!(error, Error::Weights { .. }), "{error}");
}

/// The volumes of the expected latents.
fn volumes() -> Tensor<5> {
    let shape = [2, 1, 64, 128, 192];
    let uniform = pytorch::uniform(52, shape.iter().product());
    Tensor::from_data(TensorData::new(uniform, shape), &Device::flex())
}

fn siglip(path: &Path) -> Result<Model, Error> {
    import(path, &ImportOptions::default(), &Device::flex())
}

/// Image and text latents of a model.
fn latents(model: &Model) -> [Tensor<2>; 2] {
    let tokens = model.tokenizer.as_ref().unwrap().encode_batch(&texts());
    [
        model.clip.encode_image(volumes()).unwrap(),
        model.clip.encode_text(&tokens.unwrap()).unwrap(),
    ]
}

#[test]
fn the_follow_ups_model_gives_its_latents_and_logits() {
    let model = siglip(&folder("dcformer_siglip")).unwrap();
    let [image, text] = latents(&model);
    for (found, name) in [(&image, "image_latents"), (&text, "text_latents")] {
        let far = distance(&values(found.clone()), &expected(&format!("siglip.{name}")));
        assert!(far < LATENTS, "{name}: {far}");
    }
    let logits = values(model.clip.logit_scale.logits(image, text));
    let far = distance(&logits, &expected("siglip.logits"));
    assert!(far < LOGITS, "logits: {far}");
}

#[test]
fn the_follow_ups_folder_says_all_that_is_needed() {
    let model = siglip(&folder("dcformer_siglip")).unwrap();
    let clip = &model.config.clip;
    let encoder = DcformerEncoderConfig::new([4, 6, 8, 10, 12], [1, 2, 1, 2]);
    assert_eq!(clip.image.encoder, ImageEncoderConfig::Dcformer(encoder));
    assert_eq!(clip.image.quantizer, None);
    assert!(clip.image.projection.unwrap().bias);
    let TextTowerConfig {
        encoder,
        latent,
        bias,
    } = clip.text.as_ref().unwrap();
    assert_eq!(
        (encoder.type_vocab_size, encoder.hidden_size, *latent, *bias),
        (0, 64, 20, true)
    );
    assert_eq!(clip.temperature, Temperature::SIGLIP);
    assert!(!model.config.lower_case, "ClinicalBERT is cased");
    let expected = Preprocess {
        shape: Shape3 {
            depth: 64,
            height: 128,
            width: 192,
        },
        ..Preprocess::med3dvlm()
    };
    assert_eq!(model.config.preprocess, expected);
}

#[test]
fn the_follow_ups_model_is_the_same_by_every_way() {
    let original = folder("dcformer_siglip");
    let model = siglip(&original).unwrap();
    let expected = latents(&model).map(values);
    let work = tempfile::tempdir().unwrap();

    // Saved and loaded; exported and imported.
    let saved = work.path().join("saved");
    model.save(&saved).unwrap();
    let loaded = Model::load(&saved, &Device::flex()).unwrap();
    assert_eq!(loaded.config, model.config);
    assert_eq!(latents(&loaded).map(values), expected);
    let (_folder, export) = exported(&model, Duplicates::Omit);
    let options = ImportOptions {
        vocabulary: Some(original.join("vocab.txt")),
        ..ImportOptions::default()
    };
    let imported = import(&export, &options, &Device::flex()).unwrap();
    assert_eq!(imported.config.clip, model.config.clip);
    assert_eq!(latents(&imported).map(values), expected);

    // The file alone, which says no size of volumes; and the folder in parts.
    let alone = import(
        &original.join("model.safetensors"),
        &options,
        &Device::flex(),
    )
    .unwrap();
    assert_eq!(alone.config.preprocess, Preprocess::med3dvlm());
    assert_eq!(latents(&alone).map(values), expected);
    let copy = copied("dcformer_siglip");
    split(copy.path());
    assert_eq!(latents(&siglip(copy.path()).unwrap()).map(values), expected);

    // Its image encoder alone.
    let bare = work.path().join("encoder.safetensors");
    let raw = read_raw(&original.join("model.safetensors"));
    let encoder = raw.into_iter().filter_map(|(name, tensor)| {
        let name = name.strip_prefix("vision_encoder.")?.to_owned();
        Some((name, tensor))
    });
    write_raw(&encoder.collect(), &bare);
    let bare = siglip(&bare).unwrap();
    assert_eq!(
        bare.config.clip.image.encoder,
        model.config.clip.image.encoder
    );

    // A model of ours is not imported once more.
    let message = siglip(&saved).unwrap_err().to_string();
    assert!(message.contains("--model"), "{message}");
}

#[test]
fn a_follow_ups_model_of_another_kind_is_refused_or_read_as_it_is() {
    let copy = copied("dcformer_siglip");
    let [config, weights] = ["config.json", "model.safetensors"].map(|name| copy.path().join(name));
    let (stated, whole) = (std::fs::read(&config).unwrap(), read_raw(&weights));
    let message_of = |field: &str, value: Value| {
        let mut changed: Value = serde_json::from_slice(&stated).unwrap();
        changed[field] = value;
        std::fs::write(&config, changed.to_string()).unwrap();
        let error = siglip(copy.path()).unwrap_err();
        std::fs::write(&config, &stated).unwrap();
        error.to_string()
    };
    let message = message_of("vision_encoder", json!("vit3d"));
    assert!(
        message.contains("vit3d") && message.contains("dcformer"),
        "{message}"
    );
    for size in [json!([256, 256, 0]), json!([65536, 65536, 65536])] {
        let message = message_of("input_size", size);
        assert!(message.contains("size"), "{message}");
    }
    let message = message_of("input_size", json!([256]));
    assert!(message.contains("config.json"), "{message}");

    let with = |change: &dyn Fn(&mut Raw)| {
        let mut raw = whole.clone();
        change(&mut raw);
        write_raw(&raw, &weights);
        siglip(copy.path())
    };
    let message = with(&|raw| {
        raw.remove("t_prime");
        raw.insert("extra".to_owned(), raw["bias"].clone());
    });
    let message = message.unwrap_err().to_string();
    for part in ["missing: logit_scale", "unknown: extra"] {
        assert!(message.contains(part), "{message}");
    }
    // Trained with softmax, the scale is a factor and not a logarithm.
    let model = with(&|raw| {
        let (dtype, shape, _) = raw.remove("t_prime").unwrap();
        raw.remove("bias");
        let scale = 14.5f32.to_le_bytes().to_vec();
        raw.insert("logit_scale".to_owned(), (dtype, shape, scale));
    });
    let temperature = model.unwrap().config.clip.temperature;
    assert_eq!(temperature, Temperature::Fixed { scale: 14.5 });
    // Without its vocabulary it encodes images.
    std::fs::remove_file(copy.path().join("vocab.txt")).unwrap();
    let model = with(&|_| ()).unwrap();
    assert!(model.tokenizer.is_none() && model.config.clip.text.is_some());
}
