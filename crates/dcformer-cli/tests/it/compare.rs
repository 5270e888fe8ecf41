//! Several encoders through the program: trained, measured, put side by side; killed and resumed, refused, failing.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::{arguments, run, succeed, text};

/// A comparison of seconds.
fn arguments_of(out: &Path, models: &str) -> Vec<std::ffi::OsString> {
    let small = "--epochs 2 --train 8 --valid 12 --seed 5".split(' ');
    let arguments = arguments!["compare", "--models", models, "--out", out];
    arguments.into_iter().chain(small.map(Into::into)).collect()
}

fn json(path: &Path) -> Value {
    let bytes = std::fs::read(path).unwrap_or_else(|_| panic!("no {}", path.display()));
    serde_json::from_slice(&bytes).expect("JSON")
}

/// What does not depend on the machine.
fn numbers(comparison: &Value) -> Value {
    let encoders = comparison["encoders"].as_array().expect("encoders");
    let of = |encoder: &Value| {
        let training = &encoder["training"];
        serde_json::json!([
            encoder["model"],
            encoder["variant"],
            encoder["cost"],
            encoder["detection"],
            encoder["retrieval"],
            training["steps"],
            training["pairs"],
            training["loss"],
        ])
    };
    let encoders: Vec<Value> = encoders.iter().map(of).collect();
    serde_json::json!([encoders, comparison["support"], comparison["differences"]])
}

#[test]
fn a_killed_comparison_goes_on_and_ends_with_the_same_numbers() {
    let folder = tempfile::tempdir().expect("a folder");
    let [whole, killed] = ["whole", "killed"].map(|name| folder.path().join(name));
    let models = "dcformer:nano,vit:naive";
    let printed = succeed(
        arguments_of(&whole, models)
            .into_iter()
            .chain(arguments!["--threads", "1"]),
    );
    assert!(printed.contains("| dcformer nano | 0.79 |"), "{printed}");

    let mut child = Command::new(env!("CARGO_BIN_EXE_dcformer"))
        .args(arguments_of(&killed, models))
        .args(["--threads", "2"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program can be started");
    let trained = killed.join("runs/dcformer-nano/trained.json");
    let started = Instant::now();
    while !trained.exists() {
        assert!(
            started.elapsed() < Duration::from_secs(120),
            "nothing was trained"
        );
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().expect("it can be killed");
    child.wait().expect("it ends");
    assert!(!killed.join("comparison.json").exists());
    let before = std::fs::read(&trained).expect("a file");
    succeed(arguments_of(&killed, models));
    assert_eq!(
        std::fs::read(&trained).expect("a file"),
        before,
        "trained once"
    );

    let [a, b] = [&whole, &killed].map(|out| json(&out.join("comparison.json")));
    assert_eq!(numbers(&a), numbers(&b));
    let encoder = &a["encoders"][1];
    assert_eq!(encoder["model"], "vit");
    assert_eq!(encoder["training"]["steps"], 2);
    assert_eq!(encoder["training"]["pairs"], 16);
    assert!(encoder["training"]["pairs_per_s"].as_f64() > Some(0.0));
    assert!(encoder["inference"]["seconds"].as_f64() > Some(0.0));
    assert_eq!(a["patients"], 12);
    assert_eq!(a["differences"].as_array().map(Vec::len), Some(1));
    check_memory(&a);
    check_files(&whole);
}

/// Each encoder has its own figures: 11 M parameters with their gradients and moments need more than 0.8 M.
fn check_memory(comparison: &Value) {
    if !cfg!(target_os = "linux") {
        return;
    }
    let peak = |encoder: usize, part: &str| {
        let mb = comparison["encoders"][encoder][part]["peak_rss_mb"].as_f64();
        mb.expect("Linux says it")
    };
    assert!(
        peak(1, "training") > peak(0, "training") + 100.0,
        "{comparison}"
    );
    assert!(peak(0, "inference") < peak(0, "training"));
}

fn check_files(out: &Path) {
    let csv = std::fs::read_to_string(out.join("comparison.csv")).expect("a table");
    assert_eq!(csv.lines().count(), 3);
    assert!(csv.starts_with("model,variant,parameters (M),"));
    let markdown = std::fs::read_to_string(out.join("comparison.md")).expect("a table");
    assert!(markdown.contains("| vit naive | 11.09 |"), "{markdown}");
    let html = std::fs::read_to_string(out.join("comparison.html")).expect("a page");
    for words in [
        "Encoders compared on synthetic chest scans",
        "Accuracy against multiply-adds",
        "Is one better than the other?",
        "Text → volume R@10",
        "for 2 epochs",
        "dcformer compare --models dcformer:nano,vit:naive --out",
        "dcformer nano",
    ] {
        assert!(html.contains(words), "no {words:?}");
    }
}

#[test]
fn what_one_encoder_cannot_do_is_said_before_anything_is_drawn() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("out");
    let refused = |models: &str| run(arguments_of(&out, models));
    refused("dcformer:nano,ctvit:ct-clip").failed(&[
        "ctvit takes no volume of 32x64x64",
        "all of them take 40x80x80",
    ]);
    refused("vit:naive,vit").failed(&["names vit naive twice"]);
    assert!(!out.exists());
    assert_eq!(refused("resnet:nano").status, Some(2));
    assert_eq!(refused("vit:nano").status, Some(2));
    let both = arguments_of(&out, "vit")
        .into_iter()
        .chain(arguments!["--minutes", "1"]);
    assert_eq!(run(both).status, Some(2));
}

#[test]
fn a_failing_encoder_leaves_the_others_their_results() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("out");
    // Something is where the second model is to be.
    let in_the_way = out.join("runs/poolformer-nano/model");
    std::fs::create_dir_all(&in_the_way).expect("a folder");
    std::fs::write(in_the_way.join("notes.txt"), "mine").expect("a file");
    let models = "dcformer:nano,poolformer:nano";
    run(arguments_of(&out, models)).failed(&[
        "poolformer nano came to no result",
        "no model folder",
        "1 of 2 encoders",
    ]);
    let comparison = json(&out.join("comparison.json"));
    assert_eq!(comparison["encoders"].as_array().map(Vec::len), Some(1));
    assert_eq!(comparison["failures"][0]["model"], "poolformer");
    let html = std::fs::read_to_string(out.join("comparison.html")).expect("a page");
    assert!(html.contains("Encoders without a result") && html.contains("no model folder"));

    std::fs::remove_dir_all(&in_the_way).expect("it can be removed");
    succeed(arguments_of(&out, models));
    let comparison = json(&out.join("comparison.json"));
    assert_eq!(comparison["encoders"].as_array().map(Vec::len), Some(2));
    assert_eq!(comparison["failures"], serde_json::json!([]));

    // Another budget is another run, and other phantoms are other data.
    let mut other = arguments_of(&out, models);
    other[6] = "3".into();
    run(other).failed(&[
        "dcformer-nano holds a run of another configuration",
        "--out",
    ]);
    let mut other = arguments_of(&out, models);
    other[8] = "9".into();
    run(other).failed(&["phantoms of another seed or number"]);
}

#[test]
fn a_configuration_brings_its_data_and_minutes_become_steps() {
    let folder = tempfile::tempdir().expect("a folder");
    let [phantoms, config, out] =
        ["phantoms", "run.toml", "out"].map(|name| folder.path().join(name));
    succeed(["phantom", text(&phantoms), "--train", "8", "--valid", "4"]);
    let settings = r#"
[data]
layout = "ct-rate"
root = "phantoms"
[model]
options = { channels = [8, 8, 16, 16, 24] }
text = { kind = "scratch", width = 32, layers = 1, heads = 2, vocabulary = 300, tokens = 128 }
[preprocess]
shape = { depth = 16, height = 32, width = 32 }
fit = { spacing_mm = { depth = 16.0, height = 11.0, width = 11.0 } }
[train]
batch = 4
"#;
    std::fs::write(&config, settings).expect("it can be written");
    let compared = run(arguments![
        "compare",
        "--config",
        &config,
        "--models",
        "dcformer:nano,poolformer:nano",
        "--minutes",
        "0.01",
        "--out",
        &out,
        "--json"
    ]);
    let compared = compared.succeeded().json();
    assert_eq!(compared["volume"]["depth"], 16);
    assert_eq!(compared["budget"]["minutes"], 0.01);
    // Single sizes are the configuration's network's own: the other one stays as it is.
    assert!(compared["encoders"][0]["cost"]["params"].as_u64() < Some(100_000));
    assert_eq!(compared["encoders"][1]["cost"]["params"], 2_785_720);
    for (index, name) in ["dcformer-nano", "poolformer-nano"].iter().enumerate() {
        let steps = json(&out.join("runs").join(name).join("steps.json"));
        assert!(steps.as_u64() >= Some(1));
        assert_eq!(compared["encoders"][index]["training"]["steps"], steps);
        assert!(!out.join("runs").join(name).join("pace").exists());
    }
}
