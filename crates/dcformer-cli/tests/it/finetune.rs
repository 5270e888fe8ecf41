//! A model that learns labels, and what it says afterwards.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::training::write_config;
use super::{arguments, run, succeed, text};

/// Phantoms and a model that was trained on their reports, for a moment.
struct Trained {
    folder: tempfile::TempDir,
    phantoms: PathBuf,
    model: PathBuf,
}

impl Trained {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let [phantoms, config, out] =
            ["phantoms", "run.toml", "run"].map(|name| folder.path().join(name));
        succeed(["phantom", text(&phantoms), "--train", "40", "--valid", "12"]);
        write_config(&config, &phantoms);
        succeed(["train", text(&config), "--out", text(&out)]);
        Self {
            folder,
            phantoms,
            model: out.join("model"),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

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

fn probe(model: &Path, latents: &Path, out: &Path, more: &[&str]) -> super::Ran {
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
    let trained = Trained::new();
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
    assert_eq!(
        (&said["learnt"], &said["held_out"]),
        (&32.into(), &8.into())
    );
    let labels = said["labels"].as_array().expect("labels");
    assert!(labels.len() > 2, "{said}");
    probe(&trained.model, &latents, &again, &["--threads", "2"]).succeeded();
    for file in ["config.json", "model.safetensors"] {
        let read = |folder: &Path| std::fs::read(folder.join(file)).expect(file);
        assert_eq!(read(&probed), read(&again), "{file}");
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
    let trained = Trained::new();
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
        &|c| c["thresholds"]["Lung nodule"] = 1.5.into(),
        &["thresholds", "1.5", "0 to 1"],
    );
    refuses(
        &|c| c["thresholds"]["Nobody"] = 0.5.into(),
        &["thresholds", "Nobody"],
    );
    refuses(
        &|c| c["clip"]["classifier"]["latent"] = 7.into(),
        &["classifier.latent", "512"],
    );
    refuses(
        &|c| c["clip"]["classifier"]["dropout"] = 1.into(),
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
