//! From a checkpoint and a scan to an answer.

use serde_json::Value;

use crate::{arguments, repository, run, small_model, tensor};

/// Probabilities of an answer in their order, with the names checked.
fn probabilities(answer: &Value) -> Vec<f64> {
    let findings = answer["findings"].as_array().unwrap();
    assert_eq!(findings.len(), 18);
    assert_eq!(findings[0]["name"], "Medical material");
    let probabilities = findings
        .iter()
        .map(|finding| finding["probability"].as_f64().unwrap());
    probabilities
        .inspect(|p| assert!((0.0..=1.0).contains(p), "{p}"))
        .collect()
}

#[test]
fn scans_of_every_kind_are_answered() {
    let work = tempfile::tempdir().unwrap();
    let folder = small_model(work.path());
    let phantoms = work.path().join("phantoms");
    let phantom = arguments!["phantom", &phantoms, "--train", "0", "--valid", "1"];
    assert_eq!(run(&phantom).succeeded().stdout, "");
    let phantom = phantoms.join("dataset/valid/valid_1/valid_1_a/valid_1_a_1.nii.gz");
    let thorax = repository("golden/ct/thorax_1.5mm.nii.gz");
    let torso = repository("golden/ct/torso_3mm.nii.gz");
    let head = repository("crates/dcformer-volume/tests/data/dicom/ge_head_tilt_varspacing");
    let detect = arguments![
        "detect", "--model", &folder, &thorax, &torso, &phantom, &head, "--json",
    ];
    let ran = run(&detect).succeeded();
    let json = ran.json();
    let answers = json.as_array().unwrap();
    assert_eq!(answers.len(), 4);
    assert_eq!(answers[0]["file"], thorax.to_str().unwrap());
    let all: Vec<_> = answers.iter().map(probabilities).collect();
    assert_ne!(all[0], all[1], "two scans look alike");
    assert!(ran.stderr.contains("tilt"), "{}", ran.stderr);

    // An answer depends neither on the company nor on the threads.
    let alone = arguments![
        "detect",
        "--model",
        &folder,
        &torso,
        "--json",
        "--threads",
        "1",
    ];
    assert_eq!(run(&alone).succeeded().json()[0], json[1]);

    // What `preprocess` writes is what `detect` sees.
    let volume = work.path().join("volume.safetensors");
    let steps = arguments![
        "preprocess",
        &thorax,
        "--shape",
        "64,128,128",
        "--out",
        &volume,
    ];
    run(&steps).succeeded();
    let ready = run(arguments!["detect", "--model", &folder, &volume, "--json"]);
    assert_eq!(probabilities(&ready.succeeded().json()[0]), all[0]);

    let table = run(arguments!["detect", "--model", &folder, &thorax])
        .succeeded()
        .stdout;
    // The file, the headings, 18 abnormalities.
    assert_eq!(table.lines().count(), 20, "{table}");

    let refused = arguments!["detect", "--model", &folder, &head, "--tilt", "refuse"];
    run(&refused).failed(&["ge_head_tilt_varspacing", "tilted"]);
}

#[test]
fn prompts_are_encoded_once() {
    let work = tempfile::tempdir().unwrap();
    let folder = small_model(work.path());
    let thorax = repository("golden/ct/thorax_1.5mm.nii.gz");
    let detect = arguments!["detect", "--model", &folder, &thorax, "--json"];
    let kept = folder.join("prompts.safetensors");
    let first = run(&detect).succeeded().stdout;
    let written = std::fs::metadata(&kept).unwrap().modified().unwrap();
    assert_eq!(tensor(&kept, "present").shape, [18, 512]);
    assert_eq!(run(&detect).succeeded().stdout, first);
    let table = work.path().join("labelled.csv");
    std::fs::write(
        &table,
        format!("volume,Emphysema\n{},1\n", thorax.display()),
    )
    .unwrap();
    run(arguments![
        "evaluate", "--model", &folder, "--data", &table, "--json"
    ])
    .succeeded();
    assert_eq!(
        std::fs::metadata(&kept).unwrap().modified().unwrap(),
        written,
        "the file was written again"
    );

    // The words are another's: so are the latents.
    let config = folder.join("config.json");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("Emphysema", "Cardiomegaly")).unwrap();
    let present = tensor(&kept, "present");
    run(&detect).succeeded();
    let changed = tensor(&kept, "present");
    let rows = present.values.chunks(512).zip(changed.values.chunks(512));
    assert_eq!(rows.filter(|(old, new)| old != new).count(), 1);
}

#[test]
fn a_picture_of_a_head_is_refused_unless_forced() {
    let work = tempfile::tempdir().unwrap();
    let folder = small_model(work.path());
    let head = repository("golden/ct/head_uint8_scaled.nii.gz");
    let thorax = repository("golden/ct/thorax_1.5mm.nii.gz");
    let detect = arguments!["detect", "--model", &folder, &head, &thorax, "--json"];
    let ran = run(&detect).failed(&[
        "head_uint8_scaled.nii.gz",
        "do not look like CT",
        "--rescale header",
        "1 of 2 inputs",
    ]);
    // The other scan has its answer.
    let answers = ran.json();
    assert_eq!(answers.as_array().unwrap().len(), 1);
    assert_eq!(answers[0]["file"], thorax.to_str().unwrap());
    let forced = arguments![
        "detect",
        "--model",
        &folder,
        &head,
        "--json",
        "--rescale",
        "header"
    ];
    assert_eq!(run(&forced).succeeded().json().as_array().unwrap().len(), 1);

    // Latents of some of the inputs would be rows of others.
    let out = work.path().join("latents.safetensors");
    let embed = arguments!["embed", "--model", &folder, &thorax, &head, "--out", &out];
    run(&embed).failed(&["head_uint8_scaled.nii.gz"]);
    assert!(!out.exists());
}

#[test]
fn a_scan_at_the_size_of_the_paper() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("encoder");
    let weights = repository("golden/dcformer_nano_weights.safetensors");
    run(arguments!["import", &weights, "--out", &model]).succeeded();
    let out = folder.path().join("features.safetensors");
    let thorax = repository("golden/ct/thorax_1.5mm.nii.gz");
    let embed = arguments![
        "embed",
        "--model",
        &model,
        &thorax,
        "--out",
        &out,
        "--features"
    ];
    run(&embed).succeeded();
    let features = tensor(&out, "features");
    assert_eq!(features.shape, [1, 4, 8, 8, 256]);
    assert!(features.values.iter().all(|value| value.is_finite()));
}
