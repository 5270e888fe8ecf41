use std::time::{Duration, Instant};

use burn::tensor::{Device, Tensor, TensorData};

use super::*;
use crate::checkpoint::{Model, ModelConfig};
use crate::detect::Detector;
use crate::models::{BertConfig, ClipConfig, DcformerEncoderConfig, ImageEncoderConfig};
use crate::tensors::rows;

/// Latents of unit length; of each label a hidden direction says whether it is there, the more rarely the later it comes. Two
/// rows a patient.
fn examples(count: usize, width: usize, labels: usize) -> Examples {
    let mut random = Random::new(11, "test", 0);
    let mut direction = || -> Vec<f64> {
        let values: Vec<f64> = (0..width).map(|_| random.normal()).collect();
        let length = values.iter().map(|value| value * value).sum::<f64>().sqrt();
        values.iter().map(|value| value / length).collect()
    };
    let hidden: Vec<Vec<f64>> = (0..labels).map(|_| direction()).collect();
    let latents: Vec<Vec<f64>> = (0..count).map(|_| direction()).collect();
    let is_present = |latent: &[f64], label: usize| {
        let along: f64 = latent.iter().zip(&hidden[label]).map(|(a, b)| a * b).sum();
        Some(along * (width as f64).sqrt() > 0.1 * label as f64)
    };
    Examples {
        labels: latents
            .iter()
            .map(|latent| (0..labels).map(|label| is_present(latent, label)).collect())
            .collect(),
        latents: latents
            .iter()
            .flatten()
            .map(|value| *value as f32)
            .collect(),
        width,
        label_names: (0..labels).map(|label| format!("label {label}")).collect(),
        patients: (0..count)
            .map(|row| format!("patient {}", row / 2))
            .collect(),
    }
}

/// A network that answers with latents of this length.
fn model(width: usize) -> Model {
    let encoder = DcformerEncoderConfig::new([2; 5], [1; 4]);
    let mut clip = ClipConfig::new(ImageEncoderConfig::Dcformer(encoder), BertConfig::tiny(10));
    clip.image
        .projection
        .as_mut()
        .expect("a projection")
        .outputs = width;
    clip.text = None;
    Model::init(ModelConfig::new(clip), None, &Device::flex())
}

#[test]
fn patients_are_held_out_whole_and_whatever_the_order() {
    let patients: Vec<String> = (0..100).map(|row| format!("p{}", row / 4)).collect();
    let held_out = held_out_rows(&patients, 0.2, 3).expect("a share");
    assert_eq!(held_out.iter().filter(|held| **held).count(), 20);
    for rows in held_out.chunks(4) {
        assert!(rows.iter().all(|held| *held == rows[0]));
    }
    let reversed: Vec<&String> = patients.iter().rev().collect();
    let mut again = held_out_rows(&reversed, 0.2, 3).expect("a share");
    again.reverse();
    assert_eq!(held_out, again);
    assert_ne!(held_out, held_out_rows(&patients, 0.2, 4).expect("a share"));
    // At least one on either side.
    for share in [1e-9, 1.0 - 1e-9] {
        let held_out = held_out_rows(&["a", "b"], share, 0).expect("a share");
        assert_ne!(held_out[0], held_out[1]);
    }
    for (patients, share) in [(2, 0.0), (2, 1.0), (2, f64::NAN), (1, 0.5), (0, 0.5)] {
        let patients: Vec<String> = (0..patients).map(|row| row.to_string()).collect();
        assert!(held_out_rows(&patients, share, 0).is_err(), "{share}");
    }
}

#[test]
fn a_positive_counts_as_many_as_there_are_negatives_for_it() {
    let rows = [
        vec![Some(true), Some(true), None],
        vec![Some(false), Some(true), None],
        vec![Some(false), None, None],
        vec![Some(false), Some(true), Some(true)],
    ];
    assert_eq!(positive_weights(&rows, 3), [Some(3.0), None, None]);
}

#[test]
fn a_probe_finds_what_is_in_the_latents_and_says_what_it_cannot_learn() {
    let mut examples = examples(600, 16, 3);
    for labels in &mut examples.labels {
        labels[1] = labels[1].map(|_| true);
    }
    let probe = LinearProbe::fit(&examples, &ProbeOptions::default()).expect("labels");
    assert_eq!(probe.left_out, ["label 1"]);
    assert_eq!((probe.learnt, probe.held_out), (480, 120));
    for label in &probe.labels {
        assert_eq!(label.positives + label.negatives, 480);
        // Only the positive parts are seen, so not everything can be.
        let auroc = label.held_out_auroc.expect("both classes");
        assert!(auroc > 0.85, "{} {auroc}", label.name);
        assert!((0.2..0.8).contains(&label.threshold), "{}", label.threshold);
    }
    for labels in &mut examples.labels {
        labels.fill(Some(false));
    }
    let error =
        LinearProbe::fit(&examples, &ProbeOptions::default()).expect_err("nothing to learn");
    assert!(matches!(
        error,
        Error::NoLearnableLabel {
            learnt: 480,
            held_out: 120
        }
    ));
}

/// At the optimum the derivative by the bias vanishes: checked from the model's own answers.
#[test]
fn the_model_answers_with_the_optimum() {
    let examples = examples(300, 8, 2);
    let options = ProbeOptions::default();
    let probe = LinearProbe::fit(&examples, &options).expect("labels");
    let device = Device::flex();
    let model = probe.apply(model(8), &device);
    assert_eq!(
        model.config.thresholds["label 1"],
        probe.labels[1].threshold
    );
    let head = model.clip.classifier.as_ref().expect("a head");
    let latents = TensorData::new(examples.latents.clone(), [300, 8]);
    let answers = rows(head.probabilities(Tensor::from_data(latents, &device)));
    let held_out =
        held_out_rows(&examples.patients, options.held_out, options.seed).expect("a share");
    let detector = Detector::new(&model, &device).expect("a head answers");
    assert_eq!(detector.names(), ["label 0", "label 1"]);
    for (index, label) in probe.labels.iter().enumerate() {
        let weight = label.negatives as f64 / label.positives as f64;
        let mut bias = 0.0;
        for row in (0..300).filter(|row| !held_out[*row]) {
            let error = |truth: f64| f64::from(answers[row][index]) - truth;
            bias += match examples.labels[row][index] {
                Some(true) => weight * error(1.0),
                _ => error(0.0),
            };
        }
        assert!((bias / 300.0).abs() < 1e-6, "{bias}");
    }
    let findings = detector.findings(&[0.0, 1.0]);
    assert_eq!(
        (findings[0].present, findings[1].present),
        (Some(false), Some(true))
    );
}

#[test]
fn threads_change_no_bit_and_a_thousand_latents_take_seconds() {
    let examples = examples(1000, 512, 18);
    let started = Instant::now();
    let probes = [1, 2].map(|threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        let pool = pool.build().expect("threads");
        pool.install(|| LinearProbe::fit(&examples, &ProbeOptions::default()).expect("labels"))
    });
    let elapsed = started.elapsed();
    assert_eq!(probes[0], probes[1]);
    assert_eq!(probes[0].labels.len(), 18);
    // Two of them, one on a single thread; 10 s are promised for one.
    assert!(elapsed < Duration::from_secs(20), "{elapsed:?}");
}
