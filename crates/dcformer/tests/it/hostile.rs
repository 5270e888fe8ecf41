//! Files that are damaged, or made to do harm, are errors that name them: no panic, no command run, no memory taken.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use dcformer::Error;
use dcformer::checkpoint::{FORMAT_VERSION, ImportOptions, Model, import};
use serde_json::json;

use crate::checkpoint::{small_config, small_model};
use crate::golden_file;

fn data_file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(name)
}

#[test]
fn a_pickle_runs_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("text.pth");
    std::fs::write(&text, "cos\nsystem\n(S'touch dcformer_ran_a_pickle'\ntR.").unwrap();
    for path in [
        data_file("runs_a_command.pth"),
        data_file("command_for_a_tensor.pth"),
        text,
    ] {
        let error = import(&path, &ImportOptions::default(), &Device::flex()).unwrap_err();
        let refused = matches!(error, Error::Pickle { .. } | Error::Weights { .. });
        assert!(refused, "{}: {error}", path.display());
        let ran = Path::new("dcformer_ran_a_pickle").exists();
        assert!(!ran, "{} ran its command", path.display());
    }
}

#[test]
fn a_tensor_is_no_larger_than_its_file() {
    let path = data_file("larger_than_its_storage.pth");
    let error = import(&path, &ImportOptions::default(), &Device::flex()).unwrap_err();
    let message = error.to_string();
    assert!(
        message.contains("s0.0.0.c1.0.weight") && message.contains("29360128"),
        "{message}"
    );
}

#[test]
fn a_truncated_checkpoint_is_an_error_at_every_length() {
    let folder = tempfile::tempdir().unwrap();
    for (source, name) in [
        ("official_checkpoint.pth", "cut.pth"),
        ("dcformer_nano_weights.safetensors", "cut.safetensors"),
    ] {
        let whole = std::fs::read(golden_file(source)).unwrap();
        let path = folder.path().join(name);
        let length = whole.len();
        for cut in [
            0,
            1,
            7,
            8,
            9,
            100,
            10_000,
            length / 2,
            length - 1000,
            length - 1,
        ] {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let error = import(&path, &ImportOptions::default(), &Device::flex()).unwrap_err();
            assert!(error.to_string().contains(name), "{cut} bytes: {error}");
        }
    }
}

#[test]
fn a_hostile_safetensors_header_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hostile.safetensors");
    let tensor = |shape: &str, offsets: &str| {
        format!(
            r#"{{"s0.0.0.c1.0.weight":{{"dtype":"F32","shape":{shape},"data_offsets":{offsets}}}}}"#
        )
    };
    let headers = [
        tensor("[4]", "[0,8]"),
        tensor("[4]", "[0,16000]"),
        tensor("[4]", "[16,0]"),
        tensor("[18446744073709551615,2]", "[0,16]"),
        tensor("[4611686018427387904,4]", "[0,0]"),
        tensor("[-1]", "[0,16]"),
        "{".to_owned(),
        "[]".to_owned(),
        String::new(),
    ];
    let refuse = |bytes: &[u8], what: &str| {
        std::fs::write(&path, bytes).unwrap();
        let error = import(&path, &ImportOptions::default(), &Device::flex()).unwrap_err();
        assert!(
            matches!(error, Error::Safetensors { .. }),
            "{what}: {error}"
        );
    };
    for header in headers {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend([0; 16]);
        refuse(&bytes, &header);
    }
    refuse(&u64::MAX.to_le_bytes(), "a header of 2^64 bytes");
    refuse(&[0xff; 24], "only ones");
}

#[test]
fn an_unknown_kind_of_file_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.onnx");
    std::fs::write(&path, "x").unwrap();
    let error = import(&path, &ImportOptions::default(), &Device::flex()).unwrap_err();
    assert!(error.to_string().contains(".safetensors"), "{error}");
    let absent = folder.path().join("absent.pth");
    let error = import(&absent, &ImportOptions::default(), &Device::flex()).unwrap_err();
    assert!(matches!(error, Error::Read { .. }), "{error}");
}

#[test]
fn a_configuration_that_cannot_work_is_refused_before_anything_is_built() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model");
    small_model(small_config()).save(&path).unwrap();
    let file = path.join("config.json");
    let original: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    assert_eq!(original["format_version"], FORMAT_VERSION);
    let cases = [
        ("/format_version", json!(99), "format_version"),
        (
            "/clip/image/encoder/blocks/0",
            json!(4_000_000_000u32),
            "blocks",
        ),
        ("/clip/image/encoder/channels/2", json!(0), "channels"),
        ("/clip/image/encoder/kernels/1", json!(4), "odd"),
        ("/clip/image/encoder/network", json!("resnet"), "resnet"),
        ("/clip/image/quantizer/codes", json!(60_000), "quantizer"),
        (
            "/clip/text/encoder/num_hidden_layers",
            json!(1_000_000),
            "num_hidden_layers",
        ),
        (
            "/clip/text/encoder/num_attention_heads",
            json!(3),
            "divisor",
        ),
        (
            "/clip/text/encoder/hidden_dropout_prob",
            json!(1.0),
            "hidden_dropout_prob",
        ),
        ("/clip/text/encoder/vocab_size", json!(7), "vocabulary"),
        ("/prompts", json!({"typo": 1}), "typo"),
    ];
    for (field, value, part) in cases {
        let mut config = original.clone();
        *config.pointer_mut(field).unwrap() = value;
        std::fs::write(&file, config.to_string()).unwrap();
        let error = Model::load(&path, &Device::flex()).unwrap_err();
        let source = std::error::Error::source(&error)
            .map(ToString::to_string)
            .unwrap_or_default();
        let message = format!("{error}: {source}");
        // A vocabulary of another size is a matter of shapes first.
        let expected = if part == "vocabulary" {
            "word_embeddings"
        } else {
            part
        };
        assert!(message.contains(expected), "{field}: {message}");
    }
}

#[test]
fn an_export_that_lies_about_itself_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lying.safetensors");
    let honest = serde_json::to_value(small_config()).unwrap();
    let with = |field: &str, value: serde_json::Value| {
        let mut config = honest.clone();
        *config.pointer_mut(field).unwrap() = value;
        config.to_string()
    };
    let vit = json!({
        "network": "vit", "width": 1, "layers": 1, "heads": 1, "head_dim": 1, "hidden": 1,
        "patch": {"depth": 1u64 << 40, "height": 1u64 << 40, "width": 1u64 << 40},
        "positions": {"depth": 1, "height": 1, "width": 1}
    });
    for (config, part) in [
        ("{".to_owned(), "JSON"),
        ("[]".to_owned(), "JSON"),
        (with("/image/encoder", json!({"network": "resnet"})), "JSON"),
        (
            with("/image/encoder/channels/0", json!(u64::MAX)),
            "channels",
        ),
        (with("/image/encoder", vit), "patch"),
        (
            with("/text/encoder/num_hidden_layers", json!(1u64 << 40)),
            "num_hidden_layers",
        ),
    ] {
        let metadata = [("dcformer.clip".to_owned(), config.clone())].into();
        let none: [(&str, safetensors::tensor::TensorView<'_>); 0] = [];
        let bytes = safetensors::serialize(none, Some(metadata)).unwrap();
        std::fs::write(&path, bytes).unwrap();
        let error = import(&path, &ImportOptions::default(), &Device::flex()).unwrap_err();
        let message = error.to_string();
        assert!(
            message.contains(part) && message.contains("lying.safetensors"),
            "{config}: {message}"
        );
    }
}
