//! A model that learns labels, and what it says afterwards.

use std::path::Path;

use serde_json::Value;

use super::trained::Trained;
use super::training::{kill_at, metrics};
use super::{Ran, arguments, run, tensor, text};

impl Trained {
    fn evaluate(&self, model: &Path, more: &[&str]) -> Value {
        let evaluate = arguments![
            "evaluate",
            "--model",
            model,
            "--data",
            &self.phantoms,
            "--json"
        ];
        let evaluate = evaluate.into_iter().chain(more.iter().map(Into::into));
        run(evaluate).succeeded().json()
    }
}

fn probe(model: &Path, latents: &Path, out: &Path, more: &[&str]) -> Ran {
    let probe = arguments![
        "finetune",
        "--model",
        model,
        "--latents",
        latents,
        "--out",
        out,
        "--json"
    ];
    run(probe.into_iter().chain(more.iter().map(Into::into)))
}

#[test]
fn a_linear_probe_becomes_a_model_that_answers() {
    let trained = Trained::new(40);
    let [latents, probed, again] =
        ["latents.parquet", "probed", "again"].map(|name| trained.path(name));
    let embed = arguments![
        "embed",
        "--model",
        &trained.model,
        "--data",
        &trained.phantoms,
        "--out",
        &latents
    ];
    run(embed).succeeded();

    let said = probe(&trained.model, &latents, &probed, &["--threads", "1"])
        .succeeded()
        .json();
    assert_eq!(said["learnt"], 32);
    assert_eq!(said["held_out"], 8);
    let labels = said["labels"].as_array().expect("labels");
    assert!(labels.len() > 2, "{said}");
    probe(&trained.model, &latents, &again, &["--threads", "2"]).succeeded();
    for file in ["config.json", "model.safetensors"] {
        let read = |folder: &Path| std::fs::read(folder.join(file)).expect(file);
        assert_eq!(read(&probed), read(&again), "{file}");
    }

    // A head that learns step by step starts there: with steps that go nowhere it stays. Runs keep half floats of volumes.
    let frozen = trained.path("frozen");
    let run_of_a_head = arguments![
        "finetune",
        "--model",
        &trained.model,
        "--data",
        &trained.phantoms,
        "--out",
        &frozen,
        "--method",
        "frozen",
        "--epochs",
        "1",
        "--learning-rate",
        "1e-12"
    ];
    run(run_of_a_head).succeeded();
    let [own, started] =
        [&probed, &frozen.join("model")].map(|model| weights(model, "classifier.weight"));
    let largest = own
        .iter()
        .fold(0.0f32, |most, weight| most.max(weight.abs()));
    assert!(largest > 0.0 && own.len() == started.len());
    for (own, started) in own.iter().zip(&started) {
        assert!(
            (own - started).abs() < 0.02 * largest,
            "{started} is not {own}"
        );
    }

    // Its answers are those of the labels, at the thresholds that were chosen.
    let scan = trained
        .phantoms
        .join("dataset/valid/valid_1/valid_1_a/valid_1_a_1.nii.gz");
    let detect = arguments!["detect", "--model", &probed, &scan, "--json"];
    let answers = run(detect).succeeded().json();
    let findings = answers[0]["findings"].as_array().expect("findings");
    assert_eq!(findings.len(), labels.len());
    for (finding, label) in findings.iter().zip(labels) {
        assert_eq!(
            (&finding["name"], &finding["threshold"]),
            (&label["name"], &label["threshold"])
        );
        let [probability, threshold] =
            ["probability", "threshold"].map(|field| finding[field].as_f64().expect(field));
        assert_eq!(finding["present"], probability >= threshold);
    }
    let thresholds: Vec<&Value> = labels.iter().map(|label| &label["threshold"]).collect();
    let evaluation = trained.evaluate(&probed, &[]);
    let used = evaluation["threshold"]["each"]
        .as_array()
        .expect("thresholds");
    assert_eq!(used.iter().collect::<Vec<_>>(), thresholds);
    assert_eq!(
        trained.evaluate(&probed, &["--threshold", "half"])["threshold"],
        "half"
    );
    // Beside the model that it comes from: the difference of what either comes to.
    let against = trained.evaluate(
        &probed,
        &["--against", text(&trained.model), "--resamples", "50"],
    );
    let against = &against["against"];
    let [own, other] = [0, 1].map(|model| against["auroc_mean"][model].as_f64().expect("AUROC"));
    assert_eq!(own, evaluation["metrics"]["auroc_mean"]);
    assert_eq!(against["labels"], labels.len());
    assert_eq!(against["difference"]["value"], own - other);
    let itself = trained.evaluate(&probed, &["--against", text(&probed)]);
    let interval = &itself["against"]["difference"]["interval"];
    assert_eq!(
        (interval["low"].as_f64(), interval["high"].as_f64()),
        (Some(0.0), Some(0.0))
    );
    // A model without any keeps 0.5, and says nothing of thresholds.
    assert_eq!(trained.evaluate(&trained.model, &[])["threshold"], "half");
    let zero_shot = run(arguments![
        "detect",
        "--model",
        &trained.model,
        &scan,
        "--json"
    ]);
    assert!(
        zero_shot.succeeded().json()[0]["findings"][0]
            .get("threshold")
            .is_none()
    );
    let table = run(arguments!["detect", "--model", &probed, &scan]).succeeded();
    assert!(table.stdout.contains("present from"), "{}", table.stdout);
}

#[test]
fn what_cannot_be_learnt_from_is_said() {
    let trained = Trained::new(40);
    let [latents, out, other] = ["latents.parquet", "out", "other"].map(|name| trained.path(name));
    let embed = |split: &str, model: &Path| {
        let embed = arguments![
            "embed",
            "--model",
            model,
            "--data",
            &trained.phantoms,
            "--split",
            split,
            "--out",
            &latents
        ];
        run(embed).succeeded();
    };
    embed("train", &trained.model);
    probe(&trained.model, &latents, &out, &["--held-out", "1"])
        .failed(&["cannot hold out 1 of 40"]);
    probe(&trained.model, &latents, &trained.model, &[]).failed(&["name another folder"]);
    run(arguments![
        "evaluate",
        "--model",
        &trained.model,
        "--data",
        &trained.phantoms,
        "--threshold",
        "model"
    ])
    .failed(&["has no thresholds"]);

    // Latents of the probed model are those of the same tower, but of another file of weights.
    probe(&trained.model, &latents, &other, &[]).succeeded();
    probe(&other, &latents, &out, &[]).failed(&["SHA-256"]);
    embed("validation", &trained.model);
    probe(&trained.model, &latents, &out, &[]).failed(&["no row of the training split"]);
    assert!(!out.exists());

    // A configuration that a stranger wrote.
    let path = other.join("config.json");
    let config: Value =
        serde_json::from_slice(&std::fs::read(&path).expect("a file")).expect("JSON");
    let known = config["clip"]["classifier"]["labels"][0].as_str();
    let known = known.expect("a label");
    let refuses = |change: &dyn Fn(&mut Value), parts: &[&str]| {
        let mut config = config.clone();
        change(&mut config);
        std::fs::write(&path, config.to_string()).expect("it can be written");
        let scan = trained
            .phantoms
            .join("dataset/valid/valid_1/valid_1_a/valid_1_a_1.nii.gz");
        run(arguments!["detect", "--model", &other, &scan]).failed(parts);
    };
    refuses(
        &|c| c["thresholds"][known] = serde_json::json!(1.5),
        &["thresholds", "1.5", "0 to 1"],
    );
    refuses(
        &|c| c["thresholds"]["Nobody"] = serde_json::json!(0.5),
        &["thresholds", "Nobody"],
    );
    refuses(
        &|c| c["clip"]["classifier"]["latent"] = serde_json::json!(7),
        &["classifier.latent", "512"],
    );
    refuses(
        &|c| c["clip"]["classifier"]["dropout"] = serde_json::json!(1),
        &["classifier.dropout"],
    );
    refuses(
        &|c| c["clip"]["classifier"]["labels"][1] = c["clip"]["classifier"]["labels"][0].clone(),
        &["each once"],
    );
    refuses(
        &|c| c["clip"]["classifier"]["labels"] = serde_json::json!(["Emphysema"]),
        &["thresholds"],
    );
}

/// Arguments of a short run over the phantoms.
fn run_arguments(
    trained: &Trained,
    method: &str,
    out: &Path,
    more: &[&str],
) -> Vec<std::ffi::OsString> {
    let finetune = arguments![
        "finetune",
        "--model",
        &trained.model,
        "--data",
        &trained.phantoms,
        "--out",
        out,
        "--method",
        method,
        "--epochs",
        "2",
        "--batch",
        "8",
        "--learning-rate",
        "1e-2",
        "--dropout",
        "0.1",
        "--shift",
        "1,1,1",
    ];
    finetune
        .into_iter()
        .chain(more.iter().map(Into::into))
        .collect()
}

fn weights(model: &Path, name: &str) -> Vec<f32> {
    tensor(&model.join("model.safetensors"), name).values
}

#[test]
fn every_method_moves_its_part_of_the_model_and_stores_thresholds() {
    const IMAGE: &str = "to_visual_latent.weight";
    const TEXT: &str = "to_text_latent.weight";
    const HEAD: &str = "classifier.weight";
    let trained = Trained::new(40);
    let before = [IMAGE, TEXT].map(|name| weights(&trained.model, name));
    for (method, moves_image, moves_text) in [
        ("frozen", false, false),
        ("full", true, false),
        ("vocabulary", true, true),
    ] {
        let out = trained.path(method);
        run(run_arguments(&trained, method, &out, &[])).succeeded();
        let model = out.join("model");
        let after = [IMAGE, TEXT].map(|name| weights(&model, name));
        assert_eq!(after[0] != before[0], moves_image, "{method}");
        assert_eq!(after[1] != before[1], moves_text, "{method}");
        // 32 volumes to learn from in batches of 8, two epochs; the loss of those held out after each.
        let lines = metrics(&out);
        assert_eq!(lines.len(), 8, "{method}");
        let measured = lines
            .iter()
            .filter(|line| line["validation_loss"].is_number());
        assert_eq!(measured.count(), 2, "{method}");
        let config = std::fs::read(model.join("config.json")).expect("a configuration");
        let config: Value = serde_json::from_slice(&config).expect("JSON");
        let thresholds = config["thresholds"].as_object().expect("thresholds");
        assert!(thresholds.len() > 2, "{method}");
        let labels = match method {
            // All abnormalities can be asked for, in words.
            "vocabulary" => {
                assert!(config["clip"].get("classifier").is_none());
                18
            }
            _ => {
                let head = weights(&model, HEAD);
                assert!(
                    head.len() == thresholds.len() * 512
                        && head.iter().any(|weight| *weight != 0.0)
                );
                thresholds.len()
            }
        };
        let evaluation = trained.evaluate(&model, &[]);
        let used = evaluation["threshold"]["each"]
            .as_array()
            .expect("thresholds");
        assert_eq!(used.len(), labels, "{method}");
        assert!(evaluation["metrics"]["auroc_mean"].is_number(), "{method}");
    }
    let wrong = run_arguments(&trained, "full", &trained.path("x"), &["--held-out", "0"]);
    run(wrong).failed(&["finetune.held_out"]);
    let again = run_arguments(&trained, "full", &trained.path("full"), &[]);
    run(again).failed(&["--resume"]);
}

#[test]
fn a_killed_run_of_fine_tuning_ends_with_the_same_bits() {
    let trained = Trained::new(40);
    let [whole, killed] = ["whole", "killed"].map(|name| trained.path(name));
    run(run_arguments(&trained, "full", &whole, &["--threads", "1"])).succeeded();
    kill_at(
        run_arguments(&trained, "full", &killed, &["--threads", "2"]),
        &killed.join("checkpoints/step-00000004"),
    );
    run(run_arguments(&trained, "full", &killed, &["--resume"])).succeeded();
    for name in ["model/model.safetensors", "model/config.json"] {
        let [whole, killed] =
            [&whole, &killed].map(|run| std::fs::read(run.join(name)).expect("a model"));
        assert!(whole == killed, "{name} differs");
    }
}
