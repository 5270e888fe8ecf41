//! Reading and writing weights, and what is said when they do not fit.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor, TensorData};
use dcformer::checkpoint::{
    Duplicates, ImportOptions, Model, ModelConfig, OwnHead, export, import, load_bert,
};
use dcformer::models::{
    BertConfig, ClipConfig, DcformerEncoderConfig, ImageEncoderConfig, Reduction, Statistics,
    Temperature, VectorQuantizerConfig,
};
use dcformer::text::{Tokenizer, Vocabulary};
use dcformer::{Error, WeightReport};
use dcformer_volume::preprocess::Preprocess;
use half::{bf16, f16};
use pytorch_reader::PytorchReader;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde_json::json;
use tempfile::TempDir;

use crate::{Tensors, distance, golden_file, values};

/// A network of a few channels, so that tests take no time. No two sizes are equal where shapes could hide a mistake.
pub(crate) fn small_config() -> ClipConfig {
    let encoder = DcformerEncoderConfig {
        kernels: [5, 3, 7, 3],
        ..DcformerEncoderConfig::new([4, 6, 8, 10, 12], [1, 2, 1, 3])
    };
    let text = BertConfig {
        hidden_size: 64,
        num_hidden_layers: 1,
        num_attention_heads: 1,
        intermediate_size: 20,
        max_position_embeddings: 16,
        pooler: true,
        ..BertConfig::tiny(60)
    };
    let mut config = ClipConfig::new(ImageEncoderConfig::Dcformer(encoder), text);
    config.image.quantizer = Some(VectorQuantizerConfig {
        codes: 9,
        channels: 12,
    });
    config
}

pub(crate) fn small_model(config: ClipConfig) -> Model {
    let vocabulary = Vocabulary::learn(&["lung nodule", "lung opacity"], 40);
    let tokenizer = Tokenizer::new(vocabulary, 16);
    Model::init(ModelConfig::new(config), Some(tokenizer), &Device::flex())
}

/// What a model makes of a volume and a text.
fn latents(model: &Model) -> [Vec<f32>; 2] {
    let ramp: Vec<f32> = (0..8 * 16 * 24)
        .map(|at| (at as f32 * 0.37).sin())
        .collect();
    let volume = Tensor::<5>::from_data(TensorData::new(ramp, [1, 1, 8, 16, 24]), &Device::flex());
    let tokens = model
        .tokenizer
        .as_ref()
        .unwrap()
        .encode_batch(&["Lung nodule", "no"])
        .unwrap();
    let text = model.clip.encode_text(&tokens).unwrap();
    [
        values(model.clip.encode_image(volume).unwrap()),
        values(text),
    ]
}

fn options_of(model: &Model, folder: &Path) -> ImportOptions {
    let vocabulary = folder.join("vocab.txt");
    let lines = model.tokenizer.as_ref().unwrap().vocabulary().to_lines();
    std::fs::write(&vocabulary, lines).unwrap();
    ImportOptions {
        vocabulary: Some(vocabulary),
        ..ImportOptions::default()
    }
}

/// Tensors of a file as they are stored.
pub(crate) type Raw = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

pub(crate) fn read_raw(path: &Path) -> Raw {
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    file.iter()
        .map(|(name, view)| {
            (
                name.to_owned(),
                (view.dtype(), view.shape().to_vec(), view.data().to_vec()),
            )
        })
        .collect()
}

pub(crate) fn write_raw(raw: &Raw, path: &Path) {
    let views = raw.iter().map(|(name, (dtype, shape, bytes))| {
        (
            name.as_str(),
            TensorView::new(*dtype, shape.clone(), bytes).unwrap(),
        )
    });
    std::fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

/// The small model's weights in official names, changed, and what an import says to them.
fn import_changed(change: impl FnOnce(&mut Raw)) -> Result<Model, Error> {
    let (folder, path) = exported(&small_model(small_config()), Duplicates::Write);
    let mut raw = read_raw(&path);
    change(&mut raw);
    write_raw(&raw, &path);
    let result = import(&path, &ImportOptions::default(), &Device::flex());
    drop(folder);
    result
}

pub(crate) fn exported(model: &Model, duplicates: Duplicates) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.safetensors");
    export(model, &path, duplicates).unwrap();
    (folder, path)
}

fn report_of(error: Error) -> WeightReport {
    match error {
        Error::Weights { report, .. } => *report,
        other => panic!("expected a report of weights, found {other}"),
    }
}

fn entry_names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let names: BTreeSet<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.into_iter().collect()
}

#[test]
fn a_saved_model_is_the_same_model() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model");
    let mut config = small_config();
    config.temperature = Temperature::SIGLIP;
    let mut model = small_model(config);
    model.config.preprocess = Preprocess::ct_clip();
    model.save(&path).unwrap();
    assert_eq!(
        entry_names(&path),
        ["config.json", "model.safetensors", "vocab.txt"]
    );
    let loaded = Model::load(&path, &Device::flex()).unwrap();
    assert_eq!(loaded.config, model.config);
    assert_eq!(latents(&loaded), latents(&model));

    // Saving again takes the place of what was there, and leaves nothing else behind.
    let other = small_model(small_config());
    other.save(&path).unwrap();
    assert_eq!(
        latents(&Model::load(&path, &Device::flex()).unwrap()),
        latents(&other)
    );
    assert_eq!(entry_names(folder.path()), ["model"]);
}

#[test]
fn a_folder_that_is_no_model_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let thesis = folder.path().join("thesis.tex");
    std::fs::write(&thesis, "years of work").unwrap();
    let error = small_model(small_config()).save(folder.path()).unwrap_err();
    assert!(matches!(error, Error::InTheWay { .. }), "{error}");
    assert_eq!(std::fs::read(&thesis).unwrap(), b"years of work");

    let empty = folder.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    small_model(small_config()).save(&empty).unwrap();
    Model::load(&empty, &Device::flex()).unwrap();
}

#[test]
fn an_export_imports_as_the_same_model() {
    for duplicates in [Duplicates::Omit, Duplicates::Write] {
        let model = small_model(small_config());
        let (folder, path) = exported(&model, duplicates);
        let imported = import(&path, &options_of(&model, folder.path()), &Device::flex()).unwrap();
        assert_eq!(
            imported.config, model.config,
            "sizes come from shapes alone"
        );
        assert_eq!(latents(&imported), latents(&model));
    }
}

#[test]
fn an_export_of_the_official_checkpoint_has_its_tensors_bit_for_bit() {
    let checkpoint = golden_file("official_checkpoint.pth");
    let model = import(&checkpoint, &ImportOptions::default(), &Device::flex()).unwrap();
    let (_folder, path) = exported(&model, Duplicates::Write);
    let exported = read_raw(&path);
    let original = PytorchReader::with_top_level_key(&checkpoint, "model").unwrap();
    let names: BTreeSet<_> = original.keys().into_iter().collect();
    assert_eq!(exported.keys().cloned().collect::<BTreeSet<_>>(), names);
    for (name, (_, shape, bytes)) in &exported {
        let expected = original.get(name).unwrap();
        assert_eq!(shape, expected.shape(), "{name}");
        // Counters are not kept.
        if !name.ends_with("num_batches_tracked") {
            assert_eq!(*bytes, expected.read().unwrap(), "{name}");
        }
    }
}

#[test]
fn sizes_of_the_official_checkpoint_are_read_from_its_shapes() {
    let checkpoint = golden_file("official_checkpoint.pth");
    let inferred = import(&checkpoint, &ImportOptions::default(), &Device::flex()).unwrap();
    let stated = ImportOptions {
        text_config: Some(golden_file("text_config.json")),
        variant: Some("nano".to_owned()),
        ..ImportOptions::default()
    };
    let stated = import(&checkpoint, &stated, &Device::flex()).unwrap();
    assert_eq!(inferred.config, stated.config);
    let image = &inferred.config.clip.image;
    assert_eq!(
        image.encoder,
        ImageEncoderConfig::Dcformer(DcformerEncoderConfig::nano())
    );
    assert_eq!(
        image.quantizer,
        Some(VectorQuantizerConfig {
            codes: 512,
            channels: 256
        })
    );
    assert_eq!(image.reduction, Reduction::Channel);
}

#[test]
fn a_wrong_variant_is_answered_with_every_shape() {
    let options = ImportOptions {
        variant: Some("tiny".to_owned()),
        ..ImportOptions::default()
    };
    let path = golden_file("dcformer_nano_weights.safetensors");
    let report = report_of(import(&path, &options, &Device::flex()).unwrap_err());
    assert!(report.unknown.is_empty());
    assert!(
        report.missing.iter().any(|name| name.contains("s3.2.")),
        "{report}"
    );
    let projection = report
        .misshapen
        .iter()
        .find(|tensor| tensor.name.ends_with("s1.0.proj.weight"));
    assert_eq!(projection.unwrap().expected, [96, 64, 1, 1, 1]);
}

#[test]
fn a_bare_encoder_imports_under_any_prefix() {
    let model = small_model(small_config());
    let (_folder, path) = exported(&model, Duplicates::Omit);
    let official = "visual_transformer.encoder.";
    let full = read_raw(&path);
    let volume = Tensor::<5>::ones([1, 1, 9, 17, 33], &Device::flex());
    let features = |model: &Model| {
        values(
            model
                .clip
                .image
                .features(volume.clone(), Statistics::ByDevice),
        )
    };
    for prefix in [
        "",
        "encoder.",
        "vision_encoder.encoder.",
        "module.visual_transformer.encoder.",
    ] {
        let bare: Raw = full
            .iter()
            .filter_map(|(name, tensor)| {
                Some((
                    format!("{prefix}{}", name.strip_prefix(official)?),
                    tensor.clone(),
                ))
            })
            .collect();
        write_raw(&bare, &path);
        let imported = import(&path, &ImportOptions::default(), &Device::flex()).unwrap();
        assert_eq!(features(&imported), features(&model), "{prefix}");
        assert_eq!(imported.config.clip.text, None);
        let error = imported
            .clip
            .encode_image(volume.clone())
            .unwrap_err()
            .to_string();
        assert!(error.contains("projection"), "{error}");
    }
}

#[test]
fn an_unrelated_architecture_is_answered_with_both_lists() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("resnet.safetensors");
    let weight = (Dtype::F32, vec![1], vec![0; 4]);
    let raw: Raw = ["layer1.0.conv1.weight", "fc.weight"]
        .map(|name| (name.to_owned(), weight.clone()))
        .into();
    write_raw(&raw, &path);
    let error = import(&path, &ImportOptions::default(), &Device::flex()).unwrap_err();
    let message = error.to_string();
    assert!(
        message.contains("resnet.safetensors") && message.contains("dcformer"),
        "{message}"
    );
    let report = report_of(error);
    assert_eq!(report.unknown, ["fc.weight", "layer1.0.conv1.weight"]);
    assert!(
        report
            .missing
            .contains(&"visual_transformer.encoder.s4.0.gamma".to_owned())
    );
    assert!(report.missing.is_sorted());
}

#[test]
fn all_that_is_wrong_is_said_at_once() {
    let error = import_changed(|raw| {
        raw.remove("visual_transformer.encoder.s2.1.mlp.mlp.3.bias")
            .unwrap();
        raw.remove("to_visual_latent.weight").unwrap();
        raw.insert("zebra".to_owned(), (Dtype::F32, vec![], vec![0; 4]));
        raw.insert("aardvark".to_owned(), (Dtype::F32, vec![], vec![0; 4]));
        let gamma = raw
            .get_mut("visual_transformer.encoder.s2.1.gamma")
            .unwrap();
        *gamma = (Dtype::F32, vec![2, 4], vec![0; 32]);
    })
    .unwrap_err();
    let message = error.to_string();
    let report = report_of(error);
    // A file without projection is a model without projection; its codebook stays.
    assert_eq!(
        report.missing,
        ["visual_transformer.encoder.s2.1.mlp.mlp.3.bias"]
    );
    assert_eq!(report.unknown, ["aardvark", "zebra"]);
    assert_eq!(report.misshapen.len(), 1);
    assert_eq!(
        (&report.misshapen[0].found, &report.misshapen[0].expected),
        (&vec![2, 4], &vec![8])
    );
    for part in ["mlp.3.bias", "zebra", "[2, 4], expected [8]"] {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn two_names_of_a_norm_must_agree() {
    let error = import_changed(|raw| {
        let (.., bytes) = raw
            .get_mut("visual_transformer.encoder.s1.0.dwconv.norm.1.bias")
            .unwrap();
        bytes[3] ^= 1;
    })
    .unwrap_err();
    let message = error.to_string();
    assert!(
        message.contains("dwconv.norm.1.bias") && message.contains("dwconv.c2.1.bias"),
        "{message}"
    );

    let only_second = import_changed(|raw| raw.retain(|name, _| !name.contains(".c2.1.")));
    only_second.expect("either name will do");
}

#[test]
fn weights_in_other_float_types_become_float32() {
    let model = small_model(small_config());
    let (_folder, path) = exported(&model, Duplicates::Omit);
    let original = read_raw(&path);
    /// To bytes of another type, and the value that is left.
    type Encode = fn(f32) -> (Vec<u8>, f32);
    let types: [(Dtype, Encode); 3] = [
        (Dtype::F16, |x| {
            (
                f16::from_f32(x).to_le_bytes().to_vec(),
                f16::from_f32(x).to_f32(),
            )
        }),
        (Dtype::BF16, |x| {
            (
                bf16::from_f32(x).to_le_bytes().to_vec(),
                bf16::from_f32(x).to_f32(),
            )
        }),
        (Dtype::F64, |x| (f64::from(x).to_le_bytes().to_vec(), x)),
    ];
    for (dtype, encode) in types {
        let floats = |bytes: &[u8]| -> Vec<f32> {
            bytes
                .as_chunks::<4>()
                .0
                .iter()
                .map(|&value| f32::from_le_bytes(value))
                .collect()
        };
        let converted: Raw = original
            .iter()
            .map(|(name, (_, shape, bytes))| {
                let bytes = floats(bytes)
                    .into_iter()
                    .flat_map(|value| encode(value).0)
                    .collect();
                (name.clone(), (dtype, shape.clone(), bytes))
            })
            .collect();
        write_raw(&converted, &path);
        let imported = import(&path, &ImportOptions::default(), &Device::flex()).unwrap();
        let (_folder, again) = exported(&imported, Duplicates::Omit);
        for (name, (dtype, _, bytes)) in read_raw(&again) {
            assert_eq!(dtype, Dtype::F32);
            let expected: Vec<f32> = floats(&original[&name].2)
                .into_iter()
                .map(|value| encode(value).1)
                .collect();
            assert_eq!(floats(&bytes), expected, "{name}");
        }
    }
}

#[test]
fn integers_are_no_weights() {
    let error = import_changed(|raw| {
        let (dtype, ..) = raw.get_mut("to_text_latent.weight").unwrap();
        *dtype = Dtype::I32;
    })
    .unwrap_err();
    let message = error.to_string();
    assert!(
        message.contains("to_text_latent.weight") && message.contains("I32"),
        "{message}"
    );
}

/// The text encoder of the official checkpoint as Hugging Face would have it.
fn hugging_face_folder(folder: &Path) {
    let model = import(
        &golden_file("official_checkpoint.pth"),
        &ImportOptions::default(),
        &Device::flex(),
    )
    .unwrap();
    let path = folder.join("model.safetensors");
    export(&model, &path, Duplicates::Omit).unwrap();
    let mut raw: Raw = read_raw(&path)
        .into_iter()
        .filter_map(|(name, tensor)| {
            Some((
                format!("bert.{}", name.strip_prefix("text_transformer.")?),
                tensor,
            ))
        })
        .collect();
    raw.insert(
        "cls.predictions.bias".to_owned(),
        (Dtype::F32, vec![3], vec![0; 12]),
    );
    raw.insert(
        "bert.embeddings.position_ids".to_owned(),
        (Dtype::I64, vec![1, 1], vec![0; 8]),
    );
    write_raw(&raw, &path);
    std::fs::copy(golden_file("text_config.json"), folder.join("config.json")).unwrap();
    std::fs::copy(golden_file("vocab.txt"), folder.join("vocab.txt")).unwrap();
}

#[test]
fn a_hugging_face_folder_gives_the_authors_features() {
    let folder = tempfile::tempdir().unwrap();
    hugging_face_folder(folder.path());
    let (config, bert, tokenizer) =
        load_bert(folder.path(), OwnHead::Omit, &Device::flex()).unwrap();
    assert!(config.pooler, "the file has one");
    let json = std::fs::read(golden_file("official_clip.json")).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    let texts: Vec<&str> = json["texts"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|text| text.as_str())
        .collect();
    let found = values(bert.forward_cls(&tokenizer.encode_batch(&texts).unwrap()));
    let far = distance(
        &found,
        Tensors::golden("official_clip").values("text_hidden_cls"),
    );
    // Features of order 1; float32 sums in another order through 2 layers.
    assert!(far < 1e-5, "{far}");

    // A text alone gives what it gives beside another.
    let alone = values(bert.forward_cls(&tokenizer.encode_batch(&texts[1..]).unwrap()));
    assert!(distance(&alone, &found[found.len() / 2..]) < 1e-6);
}

#[test]
fn a_text_encoder_that_is_no_bert_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    hugging_face_folder(folder.path());
    let file = folder.path().join("config.json");
    let original: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    for (field, value) in [
        ("hidden_act", json!("relu")),
        ("model_type", json!("roberta")),
        ("position_embedding_type", json!("relative_key")),
        ("is_decoder", json!(true)),
        ("num_attention_heads", json!(7)),
    ] {
        let mut config = original.clone();
        config[field] = value;
        std::fs::write(&file, config.to_string()).unwrap();
        let message = load_bert(folder.path(), OwnHead::Omit, &Device::flex())
            .unwrap_err()
            .to_string();
        assert!(
            message.contains(field) && message.contains("config.json"),
            "{message}"
        );
    }
}

#[test]
fn an_export_says_what_shapes_do_not_tell() {
    let mut config = small_config();
    config.temperature = Temperature::Learnable {
        initial_log_scale: 1.5,
    };
    let text = config.text.as_mut().unwrap();
    // Narrower than a head of any published BERT.
    (text.encoder.hidden_size, text.encoder.num_attention_heads) = (20, 5);
    let model = small_model(config);
    let (folder, path) = exported(&model, Duplicates::Omit);
    let again = folder.path().join("again.safetensors");
    export(&model, &again, Duplicates::Omit).unwrap();
    assert_eq!(
        std::fs::read(&path).unwrap(),
        std::fs::read(&again).unwrap(),
        "the same bytes each time"
    );
    let imported = import(&path, &options_of(&model, folder.path()), &Device::flex()).unwrap();
    assert_eq!(imported.config, model.config);
    assert_eq!(latents(&imported), latents(&model));
}
