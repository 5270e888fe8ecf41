//! A small run learns from reports, and learns nothing from reports of other patients.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use burn::tensor::Device;
use dcformer::detect::Detector;
use dcformer::evaluate::{Bootstrap, Evaluation, Predictions, Threshold};
use dcformer::models::Temperature;
use dcformer::models::dcformer::StemActivation;
use dcformer::train::{
    DataConfig, ModelChoice, Observer, OptimizerConfig, Outcome, ReportText, RunConfig, RunOptions,
    Schedule, StepReport, TextChoice, TrainConfig, train,
};
use dcformer::workers::Alone;
use dcformer_volume::ct_rate::{self, Split};
use dcformer_volume::dataset::{DataSet, Problem};
use dcformer_volume::geometry::Shape3;
use dcformer_volume::intensity::Window;
use dcformer_volume::phantom::{DataSetConfig, PhantomConfig, write_ct_rate};
use dcformer_volume::preprocess::{Fit, Intensity, Preprocess};

pub(crate) struct Silent;

impl Observer for Silent {
    fn problems(&self, problems: &[Problem], without_report: usize) {
        panic!("{problems:?}, {without_report} without report");
    }
    fn reading(&self, _done: usize, _volumes: usize) {}
    fn encoding(&self, _done: usize, _volumes: usize) {}
    fn starting(&self, _step: u64, _steps: u64, _pairs: usize) {}
    fn step(&self, _report: &StepReport) {}
    fn checkpoint(&self, _step: u64) {}
}

/// A manifest of a data set, each volume with the report of the one `shift` places further on.
pub(crate) fn write_manifest(path: &Path, data: &DataSet, shift: usize) {
    let mut table = String::from("volume,patient,report\n");
    let count = data.samples.len();
    for (index, sample) in data.samples.iter().enumerate() {
        let report = data.samples[(index + shift) % count]
            .report
            .as_deref()
            .unwrap();
        table += &format!(
            "{},{},\"{report}\"\n",
            sample.path.display(),
            sample.patient
        );
    }
    std::fs::write(path, table).unwrap();
}

pub(crate) fn config(train: PathBuf) -> RunConfig {
    RunConfig {
        seed: 5,
        data: DataConfig::Manifest {
            train,
            validation: None,
        },
        model: ModelChoice {
            layer_scale: Some(0.5),
            stem_activation: StemActivation::Gelu,
            spread_latents: true,
            temperature: Temperature::Learnable {
                initial_log_scale: 2.5,
            },
            text: TextChoice::Scratch {
                width: 64,
                layers: 1,
                heads: 2,
                vocabulary: 1500,
                tokens: 64,
            },
            ..ModelChoice::default()
        },
        preprocess: Preprocess {
            intensity: Intensity::Window(Window::FULL),
            fit: Fit::SpacingMm {
                depth: 8.6,
                height: 6.4,
                width: 6.4,
            },
            shape: Shape3 {
                depth: 32,
                height: 40,
                width: 48,
            },
            ..Preprocess::dcformer()
        },
        train: TrainConfig {
            epochs: 16,
            batch: 16,
            report: ReportText::Sentences { most: 1 },
            texts_per_volume: 16,
            shift_voxels: [2; 3],
            clip_gradient_norm: Some(1.0),
            optimizer: OptimizerConfig {
                learning_rate: Some(2e-3),
                schedule: Schedule::Cosine,
                warmup_steps: 10,
                ..OptimizerConfig::default()
            },
            ..TrainConfig::default()
        },
        prompts: dcformer::text::Prompts::default(),
        finetune: None,
    }
}

fn evaluate(config: &RunConfig, run: &Path, held_out: &DataSet) -> Evaluation {
    let device = Device::flex();
    let stop = AtomicBool::new(false);
    let options = RunOptions {
        device: device.clone(),
        resume: false,
        stop: &stop,
        workers: Arc::new(Alone),
    };
    let Outcome::Complete(model) = train(config, run, &options, &Silent).unwrap() else {
        panic!("nobody stopped the run")
    };
    let detector = Detector::new(&model, &device).unwrap();
    let scores = detector.score(&held_out.samples, &|_| ()).unwrap().concat();
    let labels = held_out
        .samples
        .iter()
        .flat_map(|sample| sample.labels.clone())
        .collect();
    let predictions = Predictions::new(detector.names().to_vec(), scores, labels).unwrap();
    let patients: Vec<&str> = held_out
        .samples
        .iter()
        .map(|sample| sample.patient.as_str())
        .collect();
    Evaluation::new(
        &predictions,
        &patients,
        Threshold::Half,
        Bootstrap::default(),
    )
    .unwrap()
}

#[test]
fn reports_teach_and_shuffled_reports_do_not() {
    let folder = tempfile::tempdir().unwrap();
    let phantoms = folder.path().join("phantoms");
    let set = DataSetConfig {
        phantom: PhantomConfig {
            columns: 64,
            slice_spacing_mm: vec![8.0],
            ..PhantomConfig::default()
        },
        train_patients: 160,
        valid_patients: 80,
        ..DataSetConfig::default()
    };
    write_ct_rate(&phantoms, &set, |_| ()).unwrap();
    let read = |split| ct_rate::read(&phantoms, split, &ct_rate::Options::default()).unwrap();
    let (training, held_out) = (read(Split::Train), read(Split::Validation));
    let mean_auroc = |name: &str, shift: usize| {
        let manifest = folder.path().join(format!("{name}.csv"));
        write_manifest(&manifest, &training, shift);
        let evaluation = evaluate(&config(manifest), &folder.path().join(name), &held_out);
        (
            evaluation.metrics.auroc_mean.unwrap(),
            evaluation.intervals.auroc_mean.unwrap(),
        )
    };
    /// Student's t for 95 % of three runs.
    const STUDENT: f64 = 4.303;
    let (own, own_interval) = mean_auroc("own", 0);
    assert!(
        own_interval.low > 0.5,
        "own reports: {own} ({} to {})",
        own_interval.low,
        own_interval.high
    );
    // Of one run, chance alone moves all abnormalities together: they occur together, so that any direction that the
    // network learns is nearer to the ill or to the healthy. The interval of a run, by patients, does not hold that; the
    // spread of several runs does.
    let shuffled = [41, 67, 97].map(|shift| mean_auroc(&format!("shuffled-by-{shift}"), shift).0);
    let count = shuffled.len() as f64;
    let other = shuffled.iter().sum::<f64>() / count;
    let squares = shuffled.iter().map(|run| (run - other).powi(2));
    let deviation = (squares.sum::<f64>() / (count - 1.0)).sqrt();
    let reach = STUDENT * deviation / count.sqrt();
    assert!(
        (other - 0.5).abs() < reach,
        "shuffled reports: {other}, 95 % within {reach}, of {shuffled:?}"
    );
    assert!(
        shuffled.iter().all(|run| own > *run),
        "own reports {own}, shuffled {shuffled:?}"
    );
    assert!(own > other + 0.05, "own reports {own}, shuffled {other}");
}
