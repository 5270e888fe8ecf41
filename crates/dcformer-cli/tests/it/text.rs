//! Text encoders and models as hubs have them: imported, trained with, and asked.

use std::path::{Path, PathBuf};

use dcformer::tensors::{Values, write};

use crate::distance::distance;
use crate::{arguments, pytorch, repository, run, succeed, tensor, text};

/// Single precision against double, of numbers up to 1; the library's tests say more.
const TOLERANCE: f32 = 1e-4;

fn golden(name: &str) -> PathBuf {
    repository(&format!("golden/text/{name}"))
}

/// Imports the follow-up's model, whose folder says all.
fn import_siglip(folder: &Path) -> PathBuf {
    let model = folder.join("model");
    let ran = run(arguments![
        "import",
        golden("dcformer_siglip"),
        "--out",
        &model
    ])
    .succeeded();
    assert!(!ran.stderr.contains("--vocab"), "{}", ran.stderr);
    model
}

/// The volumes that the expected latents are of, in a file.
fn volumes(folder: &Path) -> PathBuf {
    let shape = vec![2, 1, 64, 128, 192];
    let values = pytorch::uniform(52, shape.iter().product());
    let path = folder.join("volumes.safetensors");
    write(&path, &[("volume", &Values { shape, values })]).expect("it can be written");
    path
}

/// Probabilities of a volume's findings, in their order.
fn probabilities(answer: &serde_json::Value) -> Vec<f32> {
    let findings = answer["findings"].as_array().expect("findings").iter();
    findings
        .map(|finding| finding["probability"].as_f64().expect("a probability") as f32)
        .collect()
}

#[test]
fn the_follow_ups_folder_is_imported_and_embeds_and_detects_as_its_code_does() {
    let work = tempfile::tempdir().expect("a folder");
    let model = import_siglip(work.path());
    let volumes = volumes(work.path());
    let expected = golden("expected.safetensors");

    let out = work.path().join("latents.safetensors");
    run(arguments![
        "embed", "--model", &model, &volumes, "--out", &out
    ])
    .succeeded();
    let latents = tensor(&out, "image_latents");
    let far = distance(
        &latents.values,
        &tensor(&expected, "siglip.image_latents").values,
    );
    assert!(far < TOLERANCE, "latents are {far} away");

    // Twice: the second time with the kept latents of the prompts.
    for _ in 0..2 {
        let answers = run(arguments!["detect", "--model", &model, &volumes, "--json"])
            .succeeded()
            .json();
        let answers = answers.as_array().expect("answers").iter();
        let found: Vec<f32> = answers.flat_map(probabilities).collect();
        let far = distance(&found, &tensor(&expected, "siglip.probabilities").values);
        assert!(far < TOLERANCE, "probabilities are {far} away");
    }
    assert!(model.join("prompts.safetensors").exists());
}

#[test]
fn evaluating_the_follow_ups_model_is_what_detecting_says() {
    let work = tempfile::tempdir().expect("a folder");
    let model = import_siglip(work.path());
    let phantoms = work.path().join("phantoms");
    succeed(["phantom", text(&phantoms), "--train", "0", "--valid", "4"]);
    let scans = [1, 2, 3, 4].map(|patient| {
        phantoms.join(format!(
            "dataset/valid/valid_{patient}/valid_{patient}_a/valid_{patient}_a_1.nii.gz"
        ))
    });
    let mut detect = arguments!["detect", "--model", &model, "--json"].to_vec();
    detect.extend(scans.into_iter().map(Into::into));
    let answers = run(detect).succeeded().json();
    let found: Vec<Vec<f32>> = answers
        .as_array()
        .expect("answers")
        .iter()
        .map(probabilities)
        .collect();
    assert_ne!(found[0], found[1], "two scans look alike");

    let table = phantoms.join("multi_abnormality_labels/valid_predicted_labels.csv");
    let table = std::fs::read_to_string(table).expect("labels");
    let rows: Vec<Vec<&str>> = table
        .lines()
        .skip(1)
        .map(|line| line.split(',').collect())
        .collect();
    let mut right = 0;
    for (row, scores) in rows.iter().zip(&found) {
        let labels = row[1..].iter().map(|label| label.starts_with('1'));
        let agree = |(label, score): (bool, &f32)| label == (*score > 0.5);
        right += labels.zip(scores).filter(|pair| agree(*pair)).count();
    }
    let evaluation = run(arguments![
        "evaluate", "--model", &model, "--data", &phantoms, "--json"
    ])
    .succeeded()
    .json();
    let accuracy = evaluation["metrics"]["accuracy"]
        .as_f64()
        .expect("a number");
    let expected = right as f64 / (4.0 * 18.0);
    assert!((accuracy - expected).abs() < 1e-9, "{accuracy} {expected}");
}

/// A run with a text encoder from a folder, whose weights next to stand still.
fn write_config(path: &Path, phantoms: &Path, folder: &Path, own_head: bool) {
    let config = format!(
        r#"
[data]
layout = "ct-rate"
root = "{}"
[model]
text = {{ kind = "folder", folder = "{}", own_head = {own_head} }}
[preprocess]
shape = {{ depth = 16, height = 32, width = 32 }}
fit = {{ spacing_mm = {{ depth = 16.0, height = 11.0, width = 11.0 }} }}
[train]
epochs = 1
batch = 4
[train.optimizer]
learning_rate = 1e-12
"#,
        phantoms.display(),
        folder.display()
    );
    std::fs::write(path, config).expect("it can be written");
}

#[test]
fn a_run_starts_from_the_text_encoder_of_a_folder() {
    let work = tempfile::tempdir().expect("a folder");
    let place = |name: &str| work.path().join(name);
    let phantoms = place("phantoms");
    succeed(["phantom", text(&phantoms), "--train", "4", "--valid", "1"]);
    let config = place("run.toml");
    let train = |folder: &str, own_head| {
        let out = place(&format!("{folder}-{own_head}"));
        write_config(&config, &phantoms, &golden(folder), own_head);
        let ran = run(arguments!["train", &config, "--out", &out]);
        (ran, out.join("model"))
    };
    let scan = phantoms.join("dataset/valid/valid_1/valid_1_a/valid_1_a_1.nii.gz");

    let (ran, model) = train("distilbert", false);
    ran.succeeded();
    let weights = model.join("model.safetensors");
    for (found, expected) in [
        ("embeddings.word_embeddings", "embeddings.word_embeddings"),
        (
            "encoder.layer.1.intermediate.dense",
            "transformer.layer.1.ffn.lin1",
        ),
        (
            "encoder.layer.0.attention.output.LayerNorm",
            "transformer.layer.0.sa_layer_norm",
        ),
    ] {
        let found = tensor(&weights, &format!("text_transformer.{found}.weight"));
        let expected = tensor(
            &golden("distilbert/model.safetensors"),
            &format!("distilbert.{expected}.weight"),
        );
        assert_eq!(found.shape, expected.shape);
        assert!(distance(&found.values, &expected.values) < 1e-6);
    }
    let answer = run(arguments!["detect", "--model", &model, &scan, "--json"]);
    assert_eq!(probabilities(&answer.succeeded().json()[0]).len(), 18);

    // The projection takes what the head gives, 14 numbers, or what the encoder gives, 24.
    for (own_head, inputs) in [(true, 14), (false, 24)] {
        let (ran, model) = train("cxr_bert", own_head);
        ran.succeeded();
        let projection = tensor(&model.join("model.safetensors"), "to_text_latent.weight");
        assert_eq!(projection.shape, [512, inputs]);
        let answer = run(arguments!["detect", "--model", &model, &scan, "--json"]);
        assert_eq!(probabilities(&answer.succeeded().json()[0]).len(), 18);
    }
    let (ran, model) = train("distilbert", true);
    ran.failed(&[
        "model.safetensors",
        "cls_projection_head",
        "own_head = false",
    ]);
    assert!(!model.exists());
}

#[test]
fn what_a_folder_lacks_is_said() {
    let work = tempfile::tempdir().expect("a folder");
    let [folder, out] = ["download", "model"].map(|name| work.path().join(name));
    std::fs::create_dir(&folder).expect("a folder");
    let import = || run(arguments!["import", &folder, "--out", &out]);
    import().failed(&["download", "no file of weights", "model.safetensors"]);
    let index = folder.join("model.safetensors.index.json");
    let part = "model-00001-of-00002.safetensors";
    let write = |part: &str| {
        let map = format!(r#"{{"weight_map":{{"t_prime":"{part}"}}}}"#);
        std::fs::write(&index, map).expect("it can be written");
    };
    write(part);
    import().failed(&[
        "index.json",
        part,
        "is missing",
        "download the folder again",
    ]);
    write("../../etc/passwd");
    import().failed(&["index.json", "no name of a file in the same folder"]);
    assert!(!out.exists());

    // Without its vocabulary a model is imported, and says what it cannot do.
    for name in ["config.json", "model.safetensors"] {
        let from = golden("dcformer_siglip").join(name);
        std::fs::copy(from, folder.join(name)).expect("it can be copied");
    }
    let ran = import().succeeded();
    assert!(ran.stderr.contains("--vocab"), "{}", ran.stderr);
    run(arguments!["detect", "--model", &out, &volumes(work.path())]).failed(&["no vocabulary"]);
    // A model of ours is no download.
    let again = arguments!["import", &out, "--out", &work.path().join("again")];
    run(again).failed(&["format_version", "--model"]);
}
