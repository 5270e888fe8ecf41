//! Outputs that scripts rely on, on real input.

use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

use super::{import_official, repository, run, small_model, succeed, text};

fn json(output: &str) -> Value {
    serde_json::from_str(output).unwrap_or_else(|error| panic!("{error}: {output}"))
}

fn floats(file: &SafeTensors<'_>, name: &str) -> (Vec<usize>, Vec<f32>) {
    let view = file.tensor(name).expect(name);
    assert_eq!(view.dtype(), Dtype::F32);
    let (values, _) = view.data().as_chunks::<4>();
    (
        view.shape().to_vec(),
        values
            .iter()
            .map(|bytes| f32::from_le_bytes(*bytes))
            .collect(),
    )
}

#[test]
fn a_scan_is_detected_with_the_authors_checkpoint() {
    let folder = tempfile::tempdir().expect("a folder");
    let model = import_official(folder.path());
    let scan = repository("golden/ct/thorax_1.5mm.nii.gz");
    let answers = json(&succeed([
        "detect",
        "--model",
        text(&model),
        text(&scan),
        "--json",
    ]));
    let answers = answers.as_array().expect("a list");
    assert_eq!(answers.len(), 1);
    assert_eq!(answers[0]["file"], text(&scan));
    let findings = answers[0]["findings"].as_array().expect("a list");
    assert_eq!(findings.len(), 18);
    assert_eq!(findings[0]["name"], "Medical material");
    for finding in findings {
        let probability = finding["probability"].as_f64().expect("a number");
        assert!((0.0..=1.0).contains(&probability));
    }
}

#[test]
fn preprocessing_gives_the_authors_input() {
    let folder = tempfile::tempdir().expect("a folder");
    let cases =
        json(&std::fs::read_to_string(repository("golden/preprocess/cases.json")).expect("cases"));
    for (name, case) in cases.as_object().expect("named cases") {
        let out = folder.path().join(format!("{name}.safetensors"));
        let size = |axis: &str| case["shape"][axis].as_u64().expect("a size");
        let number = |key: &str| case[key].as_f64().expect("a number");
        succeed([
            "preprocess",
            text(&repository(&format!(
                "golden/ct/{}",
                case["file"].as_str().expect("a file")
            ))),
            "--out",
            text(&out),
            "--slope",
            &number("RescaleSlope").to_string(),
            "--intercept",
            &number("RescaleIntercept").to_string(),
            "--spacing",
            &format!("{0},{0},{1}", number("XYSpacing"), number("ZSpacing")),
            "--shape",
            &format!("{},{},{}", size("depth"), size("height"), size("width")),
            "--window=-1000,200",
            "--orientation",
            "keep",
            "--rescale",
            "metadata",
        ]);
        let bytes = std::fs::read(&out).expect("it was written");
        let (shape, values) = floats(
            &SafeTensors::deserialize(&bytes).expect("safetensors"),
            "volume",
        );
        let sizes = ["depth", "height", "width"].map(|axis| size(axis) as usize);
        assert_eq!(shape, [1, sizes[0], sizes[1], sizes[2]]);

        let list = |key: &str| -> [usize; 3] {
            serde_json::from_value(case[key].clone()).expect("three numbers")
        };
        let (first, sampled) = (list("first"), list("sampled"));
        let golden = repository(&format!(
            "golden/preprocess/{}",
            case["values"].as_str().expect("a file")
        ));
        let golden = std::fs::read(golden).expect("expected values");
        let (expected, _) = golden.as_chunks::<4>();
        let mut expected = expected.iter().map(|bytes| f32::from_le_bytes(*bytes));
        for z in 0..sampled[0] {
            for y in 0..sampled[1] {
                for x in 0..sampled[2] {
                    let [z, y, x] = [z, y, x].map(|index| 3 * index);
                    let index =
                        ((first[0] + z) * sizes[1] + first[1] + y) * sizes[2] + first[2] + x;
                    let expected = expected.next().expect("one for each");
                    assert!(
                        (values[index] - expected).abs() <= 2e-5,
                        "{name} at {z} {y} {x}"
                    );
                }
            }
        }
    }
}

#[test]
fn metrics_have_the_golden_names_and_values() {
    let found = json(&succeed([
        "metrics",
        text(&repository("golden/metrics.safetensors")),
        "--json",
    ]));
    let expected =
        json(&std::fs::read_to_string(repository("golden/metrics.json")).expect("expected values"));
    for (name, expected) in expected.as_object().expect("named values") {
        let numbers = |value: &Value| -> Vec<f64> {
            match value {
                Value::Array(values) => values
                    .iter()
                    .map(|value| value.as_f64().expect("a number"))
                    .collect(),
                value => vec![value.as_f64().expect("a number")],
            }
        };
        let (found, expected) = (numbers(&found[name]), numbers(expected));
        assert_eq!(found.len(), expected.len(), "{name}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(
                (found - expected).abs() < 1e-9,
                "{name}: {found} is not {expected}"
            );
        }
    }
}

#[test]
fn complexity_equals_the_published_rows() {
    let found = json(&succeed(["complexity", "--json"]));
    let golden = json(
        &std::fs::read_to_string(repository("golden/complexity.json")).expect("expected values"),
    );
    let rows = |table: &Value| table.as_array().expect("rows").clone();
    for expected in &rows(&golden) {
        let row = rows(&found)
            .into_iter()
            .find(|row| row["variant"] == expected["variant"] && row["model"] == expected["model"]);
        let row = row.unwrap_or_else(|| panic!("no row for {}", expected["variant"]));
        for key in ["params", "params_with_projection"] {
            assert_eq!(row[key], expected[key], "{key} of {}", expected["variant"]);
        }
        let gmacs = |row: &Value| (row["gmacs"].as_f64().expect("a number") * 1e4).round();
        assert_eq!(
            gmacs(&row),
            gmacs(expected),
            "gmacs of {}",
            expected["variant"]
        );
    }
}

#[test]
fn volumes_are_embedded_as_they_are_and_weights_go_back_to_the_authors_names() {
    let folder = tempfile::tempdir().expect("a folder");
    let model = import_official(folder.path());
    let scan = repository("golden/ct/thorax_1.5mm.nii.gz");
    let [volume, latents, again] = ["volume", "latents", "again"]
        .map(|name| folder.path().join(format!("{name}.safetensors")));
    succeed([
        "preprocess",
        text(&scan),
        "--out",
        text(&volume),
        "--shape",
        "32,64,128",
    ]);
    succeed([
        "embed",
        "--model",
        text(&model),
        text(&volume),
        "--out",
        text(&latents),
        "--features",
    ]);
    let bytes = std::fs::read(&latents).expect("it was written");
    let file = SafeTensors::deserialize(&bytes).expect("safetensors");
    let (shape, values) = floats(&file, "image_latents");
    assert_eq!(shape, [1, 512]);
    let length: f32 = values.iter().map(|value| value * value).sum();
    assert!((length - 1.0).abs() < 1e-5);
    assert_eq!(floats(&file, "features").0, [1, 1, 1, 2, 256]);

    let exported = folder.path().join("official.safetensors");
    succeed([
        "export",
        text(&model),
        "--out",
        text(&exported),
        "--duplicates",
    ]);
    let second = folder.path().join("second");
    succeed(["import", text(&exported), "--out", text(&second)]);
    succeed([
        "embed",
        "--model",
        text(&second),
        text(&volume),
        "--out",
        text(&again),
    ]);
    let bytes = std::fs::read(&again).expect("it was written");
    assert_eq!(
        floats(
            &SafeTensors::deserialize(&bytes).expect("safetensors"),
            "image_latents"
        )
        .1,
        values
    );
}

#[test]
fn bench_prints_its_figures() {
    let arguments = ["--shape", "16,32,32", "--runs", "2", "--json"];
    for what in [
        vec!["bench", "encoder"],
        vec!["bench", "train-step", "--batch", "2"],
        vec!["bench", "train-step", "--batch=3", "--micro-batch=2"],
    ] {
        let figures = json(&succeed(what.into_iter().chain(arguments)));
        for key in ["median_s", "min_s"] {
            assert!(figures[key].as_f64().expect(key) > 0.0);
        }
        assert!(figures["simd"].is_string());
    }
}

#[test]
fn a_batch_in_parts_has_the_memory_of_a_part() {
    let peak_rss_mb = |micro_batch: &str| {
        let figures = json(&succeed([
            "bench",
            "train-step",
            "--shape=64,96,96",
            "--batch=48",
            "--micro-batch",
            micro_batch,
            "--runs=1",
            "--json",
        ]));
        figures["peak_rss_mb"].as_f64()
    };
    // Where the system tells.
    if let (Some(whole), Some(parts)) = (peak_rss_mb("48"), peak_rss_mb("2")) {
        assert!(parts < 0.5 * whole, "{parts} MB, whole {whole} MB");
    }
    let none = ["bench", "train-step", "--batch=2", "--micro-batch=0"];
    run(none).failed(&["--micro-batch"]);
}

#[test]
fn a_detection_is_timed_by_its_phases() {
    let folder = tempfile::tempdir().expect("a folder");
    let model = small_model(folder.path());
    let scan = repository("golden/ct/thorax_1.5mm.nii.gz");
    let kept = model.join("prompts.safetensors");
    for option in ["--encode-prompts", "--threads=1"] {
        assert!(
            !kept.exists(),
            "prompts that are to be encoded are not kept"
        );
        let bench = ["bench", "detect", "--model", text(&model), text(&scan)];
        let more = [option, "--runs", "1", "--json"];
        let figures = json(&succeed(bench.into_iter().chain(more)));
        let total = figures["median_s"].as_f64().expect("a number");
        let phases = ["load_s", "read_and_preprocess_s", "encode_s", "compare_s"]
            .map(|phase| figures["phases"][phase].as_f64().expect(phase));
        assert!(phases.iter().all(|seconds| *seconds > 0.0), "{figures}");
        // One run: what is left is to free the model.
        let sum: f64 = phases.iter().sum();
        assert!(sum <= total && sum > 0.5 * total, "{figures}");
    }
    assert!(kept.exists());
    let bench = ["bench", "detect", "--model", text(&model), text(&scan)];
    let lines = succeed(bench.into_iter().chain(["--runs", "1"]));
    assert!(lines.contains("read and preprocess"), "{lines}");
}

#[test]
fn preprocessing_is_timed() {
    let scan = repository("golden/ct/thorax_1.5mm.nii.gz");
    let figures = json(&succeed([
        "bench",
        "preprocess",
        text(&scan),
        "--runs",
        "2",
        "--json",
    ]));
    let [median, best] = ["median_s", "min_s"].map(|key| figures[key].as_f64().expect(key));
    assert!(0.0 < best && best <= median);
    assert_eq!(figures.get("phases"), None);
    // The input of the network is 256 MB.
    if cfg!(target_os = "linux") {
        let peak = figures["peak_rss_mb"].as_f64().expect("a number");
        assert!(peak > 256.0, "{figures}");
    }
    let absent = run(["bench", "preprocess", "no/such/scan.nii.gz"]);
    absent.failed(&["no/such/scan.nii.gz"]);
}

#[test]
fn long_verbs_say_what_they_cost() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("volume.safetensors");
    let scan = repository("golden/ct/thorax_1.5mm.nii.gz");
    let shape = ["--shape", "8,16,16", "--out", text(&out)];
    let ran = run(["preprocess", text(&scan)].into_iter().chain(shape)).succeeded();
    let last = ran.stderr.lines().last().expect("messages");
    assert!(last.starts_with("took ") && last.contains(" s"), "{last}");
    assert_eq!(
        last.contains("MB of memory at most"),
        cfg!(target_os = "linux")
    );
    let short = run(["complexity"]).succeeded();
    assert!(!short.stderr.contains("took"), "{}", short.stderr);
}
