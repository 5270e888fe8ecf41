//! Latents and features equal those of the authors' code; scores are measured whatever their labels are.

use std::path::{Path, PathBuf};

use dcformer::tensors::{Values, write};

use crate::distance::distance;
use crate::{Ran, arguments, pytorch, repository, run, small_model, tensor};

/// The tolerance of the library's own tests, which say its reasons.
const TOLERANCE: f32 = 1e-4;

fn of_shape(shape: &[usize], values: Vec<f32>) -> Values {
    Values {
        shape: shape.to_vec(),
        values,
    }
}

/// Random volumes of PyTorch in a file, as the contract has them.
fn volumes(folder: &Path, name: &str, seed: u32, shape: [usize; 5]) -> PathBuf {
    let path = folder.join("volumes.safetensors");
    let values = pytorch::uniform(seed, shape.iter().product());
    write(&path, &[(name, &of_shape(&shape, values))]).unwrap();
    path
}

#[test]
fn latents_equal_the_authors_code() {
    let work = tempfile::tempdir().unwrap();
    let model = small_model(work.path());
    let input = volumes(work.path(), "volume", 32, [2, 1, 64, 128, 128]);
    let out = work.path().join("out.safetensors");
    let ran = run(arguments![
        "embed", "--model", &model, &input, "--out", &out,
    ])
    .succeeded();
    assert_eq!(ran.stdout, "");
    let golden = repository("golden/official_clip.safetensors");
    let [found, expected] = [&out, &golden].map(|path| tensor(path, "image_latents"));
    assert_eq!(found.shape, [2, 512]);
    let far = distance(&found.values, &expected.values);
    assert!(far < TOLERANCE, "latents are {far} away");

    // Two inputs of one volume give the rows of one input of two.
    let volumes = tensor(&input, "volume");
    let half = volumes.values.len() / 2;
    let files = [0, 1].map(|row| {
        let path = work.path().join(format!("{row}.safetensors"));
        let values = volumes.values[row * half..][..half].to_vec();
        write(&path, &[("input", &of_shape(&[1, 64, 128, 128], values))]).unwrap();
        path
    });
    let apart = work.path().join("apart.safetensors");
    let [first, second] = &files;
    run(arguments![
        "embed",
        "--model",
        &model,
        first,
        second,
        "--out",
        &apart,
        "--features",
    ])
    .succeeded();
    assert_eq!(tensor(&apart, "image_latents"), found);
    assert_eq!(tensor(&apart, "features").shape, [2, 1, 2, 2, 256]);
}

#[test]
fn features_of_a_bare_encoder_equal_the_authors_code() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("encoder");
    let weights = repository("golden/dcformer_nano_weights.safetensors");
    run(arguments![
        "import",
        &weights,
        "--out",
        &model,
        "--variant",
        "nano"
    ])
    .succeeded();
    let input = volumes(folder.path(), "input", 12, [1, 1, 64, 128, 128]);
    let out = folder.path().join("out.safetensors");
    let embed = arguments!["embed", "--model", &model, &input, "--out", &out];
    run(embed).failed(&["no projection", "--features"]);
    assert!(!out.exists());
    let embed = arguments![
        "embed",
        "--model",
        &model,
        &input,
        "--out",
        &out,
        "--features"
    ];
    run(embed).succeeded();

    let found = tensor(&out, "features");
    assert_eq!(found.shape, [1, 1, 2, 2, 256]);
    // The authors' order is channels, height, width, depth.
    let official: Vec<f32> = (0..256)
        .flat_map(|channel| (0..4).map(move |place| (channel, place)))
        .map(|(channel, place)| found.values[place * 256 + channel])
        .collect();
    let golden = repository("golden/dcformer_nano_forward.safetensors");
    let expected = tensor(&golden, "stage4");
    let far = distance(&official, &expected.values);
    assert!(far < TOLERANCE, "features are {far} away");

    // Exported and imported again it is the same.
    let exported = folder.path().join("exported.safetensors");
    let again = folder.path().join("again");
    run(arguments![
        "export",
        &model,
        "--out",
        &exported,
        "--duplicates"
    ])
    .succeeded();
    run(arguments!["import", &exported, "--out", &again]).succeeded();
    let weights = |model: &Path| std::fs::read(model.join("model.safetensors")).unwrap();
    assert_eq!(weights(&model), weights(&again));
}

#[test]
fn metrics_take_labels_of_any_kind_and_refuse_others() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("scores.safetensors");
    let measure = |scores: &Values, labels: &Values| -> Ran {
        write(&path, &[("scores", scores), ("labels", labels)]).unwrap();
        run(arguments!["metrics", &path, "--json"])
    };
    let scores = of_shape(&[4, 1], vec![0.1, 0.4, 0.35, 0.8]);
    let labels = of_shape(&[4, 1], vec![0.0, 0.0, 1.0, 1.0]);
    let json = measure(&scores, &labels).succeeded().json();
    assert_eq!(json["auroc"][0], 0.75);
    let unknown = of_shape(&[4, 1], vec![0.0, f32::NAN, 1.0, 1.0]);
    assert_eq!(
        measure(&scores, &unknown).succeeded().json()["auroc"][0],
        1.0
    );

    let name = "scores.safetensors";
    let two = of_shape(&[4, 1], vec![0.0, 0.0, 2.0, 1.0]);
    measure(&scores, &two).failed(&[name, "`labels`", "is 2", "expected 0, 1"]);
    let short = of_shape(&[2, 1], vec![0.0, 1.0]);
    measure(&scores, &short).failed(&[name, "`labels`", "[2, 1]", "as `scores`"]);
    let flat = of_shape(&[4], scores.values.clone());
    measure(&flat, &labels).failed(&[name, "`scores`", "[volumes, labels]"]);
    let high = of_shape(&[4, 1], vec![0.1, 0.4, 3.5, 0.8]);
    measure(&high, &labels).failed(&["3.5", "probability from 0 to 1"]);
    write(&path, &[("logits", &scores)]).unwrap();
    run(arguments!["metrics", &path]).failed(&[name, "`scores`", "found `logits`"]);
}
