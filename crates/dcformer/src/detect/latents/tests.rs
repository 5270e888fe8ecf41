use std::path::PathBuf;

use burn::tensor::Distribution;
use safetensors::SafeTensors;
use tempfile::TempDir;

use super::*;
use crate::checkpoint::{Model, ModelConfig};
use crate::detect::Detector;
use crate::models::{BertConfig, ClipConfig, DcformerEncoderConfig, ImageEncoderConfig};
use crate::text::Vocabulary;

const LATENT: usize = 8;

/// A folder with a model of a few channels, two abnormalities and two templates.
fn model_folder() -> TempDir {
    let encoder = DcformerEncoderConfig::new([2; 5], [1; 4]);
    let text = BertConfig {
        hidden_size: 8,
        num_attention_heads: 2,
        intermediate_size: 12,
        max_position_embeddings: 16,
        ..BertConfig::tiny(60)
    };
    let mut clip = ClipConfig::new(ImageEncoderConfig::Dcformer(encoder), text);
    clip.text.as_mut().unwrap().latent = LATENT;
    clip.image.projection.as_mut().unwrap().outputs = LATENT;
    let mut config = ModelConfig::new(clip);
    config.prompts = Prompts::new(["Nodule", "Opacity"]);
    config.prompts.templates = Prompts::paper_templates()[..2].to_vec();
    let vocabulary = Vocabulary::learn(&["Nodule is not present. Opacity"], 50);
    let tokenizer = Tokenizer::new(vocabulary, 16);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model");
    let model = Model::init(config, Some(tokenizer), &Device::flex());
    model.save(&path).unwrap();
    folder
}

fn model_path(folder: &TempDir) -> PathBuf {
    folder.path().join("model")
}

fn key(model: &Path) -> Key {
    let device = Device::flex();
    let folder = ModelFolder::open(model, &device).unwrap();
    Key::of(&folder, &device).unwrap().unwrap()
}

fn opened(model: &Path) -> PromptLatents {
    Detector::open(model, &Device::flex())
        .unwrap()
        .prompts
        .unwrap()
}

/// The latents without any file.
fn encoded(model: &Path) -> PromptLatents {
    let device = Device::flex();
    let model = Model::load(model, &device).unwrap();
    Detector::new(&model, &device).unwrap().prompts.unwrap()
}

fn bits(latents: &PromptLatents) -> Vec<u32> {
    let PromptLatents { present, absent } = latents.clone();
    [present, absent]
        .into_iter()
        .flat_map(|tensor| tensor.into_data().try_to_vec::<f32>().unwrap())
        .map(f32::to_bits)
        .collect()
}

/// The only file in the folder that was not there before: nothing is left under another name.
fn files(model: &Path) -> Vec<String> {
    let entries = fs::read_dir(model).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn kept_latents_are_the_encoded_ones_bit_for_bit() {
    let folder = model_folder();
    let model = model_path(&folder);
    let expected = bits(&encoded(&model));
    assert!(
        !model.join(FILE).exists(),
        "nothing is written without being asked"
    );
    assert_eq!(bits(&opened(&model)), expected);
    let [present, absent] = [0, 1].map(|half| &expected[half * 2 * LATENT..][..2 * LATENT]);
    assert_ne!(present, absent);
    let kept = PromptLatents::read(&model.join(FILE), &key(&model), &Device::flex()).unwrap();
    assert_eq!(bits(&kept), expected);
    assert_eq!(bits(&opened(&model)), expected);
    assert_eq!(
        files(&model),
        ["config.json", "model.safetensors", FILE, "vocab.txt"]
    );
}

#[test]
fn kept_latents_stand_in_for_the_text_tower() {
    let folder = model_folder();
    let model = model_path(&folder);
    let device = Device::flex();
    let shape = [1, 1, 8, 16, 16];
    let volume = Tensor::<5>::random(shape, Distribution::Uniform(-1.0, 1.0), &device);
    let volume: Vec<f32> = volume.into_data().try_to_vec().unwrap();
    let probabilities = || -> Vec<f32> {
        let detector = Detector::open(&model, &device).unwrap();
        assert!(detector.clip.text.is_none());
        let mut all = detector.probabilities(volume.clone(), shape).unwrap();
        all.remove(0)
    };
    let straight = probabilities();
    assert_eq!(straight, probabilities());
    let PromptLatents { present, absent } = encoded(&model);
    let exchanged = PromptLatents {
        present: absent,
        absent: present,
    };
    exchanged.keep(&model.join(FILE), &key(&model));
    for (straight, exchanged) in straight.iter().zip(probabilities()) {
        // A sigmoid of a number and of its negative, each rounded.
        assert!((straight + exchanged - 1.0).abs() < 1e-6);
        assert_ne!(*straight, exchanged);
    }
}

/// Flips the lowest bit of the first value of a tensor of the model.
fn flip(model: &Path, tensor: &str) {
    let path = model.join("model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    let start = bytes.as_ptr() as usize;
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let at = file.tensor(tensor).unwrap().data().as_ptr() as usize - start;
    bytes[at] ^= 1;
    fs::write(&path, bytes).unwrap();
}

fn edit(file: PathBuf, from: &str, to: &str) {
    let text = fs::read_to_string(&file).unwrap();
    let edited = text.replacen(from, to, 1);
    assert_ne!(text, edited, "{} has no {from}", file.display());
    fs::write(file, edited).unwrap();
}

#[test]
fn whatever_the_latents_depend_on_is_in_the_key() {
    let folder = model_folder();
    let model = model_path(&folder);
    let config = || model.join("config.json");
    opened(&model);
    let mut keys = vec![key(&model)];
    let mut changed = |change: &dyn Fn()| {
        change();
        let new = key(&model);
        assert!(!keys.contains(&new), "change {} was missed", keys.len());
        keys.push(new);
        assert_eq!(bits(&opened(&model)), bits(&encoded(&model)));
    };
    changed(&|| flip(&model, "to_text_latent.weight"));
    changed(&|| {
        let name = "text_transformer.encoder.layer.0.output.dense.weight";
        flip(&model, name);
    });
    changed(&|| edit(config(), "Nodule", "nodules"));
    changed(&|| edit(config(), "are detected", "are seen"));
    changed(&|| edit(config(), r#""lower_case": true"#, r#""lower_case": false"#));
    changed(&|| {
        edit(
            config(),
            r#""num_attention_heads": 2"#,
            r#""num_attention_heads": 4"#,
        );
    });
    changed(&|| edit(model.join("vocab.txt"), "##o\n", "o\n"));

    // What they do not depend on: the prompts are not encoded again for it.
    flip(&model, "to_visual_latent.weight");
    edit(config(), r#""pad_value": -1.0"#, r#""pad_value": 0.0"#);
    assert_eq!(keys.last(), Some(&key(&model)));
}

#[test]
fn a_damaged_file_is_not_believed_and_is_replaced() {
    let folder = model_folder();
    let model = model_path(&folder);
    let (path, key, device) = (model.join(FILE), key(&model), Device::flex());
    let expected = bits(&opened(&model));
    let whole = fs::read(&path).unwrap();
    for length in 0..whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        assert!(
            PromptLatents::read(&path, &key, &device).is_none(),
            "{length} bytes"
        );
    }
    for at in 0..whole.len() {
        for bit in [0, 3, 7] {
            let mut damaged = whole.clone();
            damaged[at] ^= 1 << bit;
            fs::write(&path, damaged).unwrap();
            // Bits of the header can change without changing what it says.
            if let Some(read) = PromptLatents::read(&path, &key, &device) {
                assert_eq!(bits(&read), expected, "bit {bit} of byte {at}");
            }
        }
    }
    for damaged in [&whole[..whole.len() / 2], b"", &[0xff; 64]] {
        fs::write(&path, damaged).unwrap();
        assert_eq!(bits(&opened(&model)), expected);
        assert_eq!(fs::read(&path).unwrap(), whole);
    }
}

#[test]
fn a_file_that_only_claims_to_be_right_is_not_believed() {
    let folder = model_folder();
    let model = model_path(&folder);
    let (path, key, device) = (model.join(FILE), key(&model), Device::flex());
    let rows = |values: Vec<f32>, shape: [usize; 2]| PromptLatents {
        present: Tensor::from_data(TensorData::new(values.clone(), shape), &device),
        absent: Tensor::from_data(TensorData::new(values, shape), &device),
    };
    let unit = |value: f32, shape: [usize; 2]| {
        let mut values = vec![0.0; shape[0] * shape[1]];
        for row in values.chunks_exact_mut(shape[1]) {
            row[0] = value;
        }
        rows(values, shape)
    };
    let is_read = |latents: PromptLatents, shape: [usize; 2]| {
        // Key and checksum are right.
        let key = Key {
            shape,
            ..key.clone()
        };
        latents.keep(&path, &key);
    };
    let believed = || PromptLatents::read(&path, &key, &device).is_some();
    is_read(unit(1.0, key.shape), key.shape);
    assert!(believed(), "the control");
    for value in [f32::NAN, f32::INFINITY, 0.0, 1.01, 1e30] {
        is_read(unit(value, key.shape), key.shape);
        assert!(!believed(), "rows of length {value}");
    }
    for shape in [[LATENT, 2], [1, LATENT], [4, LATENT], [2, 4], [0, LATENT]] {
        is_read(unit(1.0, shape), shape);
        assert!(!believed(), "shape {shape:?}");
    }
}

#[test]
fn a_folder_that_cannot_be_written_to_does_as_well() {
    let folder = model_folder();
    let model = model_path(&folder);
    let expected = bits(&encoded(&model));
    // A folder of that name cannot be replaced, whoever tries; permissions do not stop an administrator.
    let in_the_way = model.join(FILE);
    fs::create_dir(&in_the_way).unwrap();
    let before = files(&model);
    assert_eq!(bits(&opened(&model)), expected);
    assert_eq!(files(&model), before);
    fs::remove_dir(&in_the_way).unwrap();

    let mut permissions = fs::metadata(&model).unwrap().permissions();
    let writable = permissions.clone();
    permissions.set_readonly(true);
    fs::set_permissions(&model, permissions).unwrap();
    assert_eq!(bits(&opened(&model)), expected);
    assert_eq!(bits(&opened(&model)), expected);
    fs::set_permissions(&model, writable).unwrap();
}

#[cfg(unix)]
#[test]
fn a_link_is_neither_read_nor_replaced() {
    let folder = model_folder();
    let model = model_path(&folder);
    let expected = bits(&opened(&model));
    let (path, elsewhere) = (model.join(FILE), folder.path().join("elsewhere"));
    fs::rename(&path, &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
    fs::write(&elsewhere, "mine").unwrap();
    assert_eq!(bits(&opened(&model)), expected);
    assert_eq!(fs::read(&elsewhere).unwrap(), b"mine");
    assert!(fs::symlink_metadata(&path).unwrap().is_symlink());
}

#[test]
fn many_at_once_agree() {
    let folder = model_folder();
    let model = model_path(&folder);
    let expected = bits(&encoded(&model));
    std::thread::scope(|scope| {
        let open = || bits(&opened(&model));
        let all: Vec<_> = (0..8).map(|_| scope.spawn(open)).collect();
        for one in all {
            assert_eq!(one.join().unwrap(), expected);
        }
    });
    assert_eq!(bits(&opened(&model)), expected);
    assert_eq!(files(&model).len(), 4);
}
