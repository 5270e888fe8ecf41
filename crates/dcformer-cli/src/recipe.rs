//! What is drawn and trained where no data are given: the recipe of the demonstration, which the comparison starts from.

use std::path::Path;

use dcformer::models::Temperature;
use dcformer::models::dcformer::StemActivation;
use dcformer::train::{
    DataConfig, ModelChoice, OptimizerConfig, ReportText, RunConfig, Schedule, TextChoice,
    TrainConfig,
};
use dcformer_volume::geometry::Shape3;
use dcformer_volume::intensity::Window;
use dcformer_volume::phantom::{DataSetConfig, PhantomConfig};
use dcformer_volume::preprocess::{Fit, Intensity, Preprocess};

/// Synthetic patients to learn from and to be asked about.
pub(crate) fn phantom_set(seed: u64) -> DataSetConfig {
    DataSetConfig {
        seed,
        train_patients: 1600,
        // Voxels of 4 mm: the network looks at 6.4 mm.
        phantom: PhantomConfig {
            columns: 96,
            ..PhantomConfig::default()
        },
        // Noise hardly shrinks, and reading it compressed takes three times as long.
        compression: 0,
        ..DataSetConfig::default()
    }
}

/// A run on them: the authors' network and optimiser, with what makes it learn in minutes instead of days.
pub(crate) fn phantom_run(phantoms: &Path, seed: u64) -> RunConfig {
    RunConfig {
        seed,
        data: DataConfig::CtRate {
            root: phantoms.to_owned(),
            exclude: Vec::new(),
        },
        model: ModelChoice {
            layer_scale: Some(0.5),
            stem_activation: StemActivation::Gelu,
            spread_latents: true,
            temperature: Temperature::Learnable {
                initial_log_scale: 2.5,
            },
            text: TextChoice::Scratch {
                width: 128,
                layers: 1,
                heads: 4,
                vocabulary: 2000,
                tokens: 256,
            },
            ..ModelChoice::default()
        },
        preprocess: Preprocess {
            // Calcium and metal stand out of soft tissue, which the authors' window of 200 HU cuts off.
            intensity: Intensity::Window(Window::FULL),
            // Just the chest: with the air around it, findings would have fewer of the voxels.
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
            epochs: 40,
            // Sentences differ in more than what they say of the scan; only many of them a step average that out.
            batch: 128,
            report: ReportText::Sentences { most: 1 },
            texts_per_volume: 24,
            // So few patients are soon known by heart otherwise.
            shift_voxels: [2; 3],
            validate_every_epochs: Some(5),
            clip_gradient_norm: Some(1.0),
            optimizer: OptimizerConfig {
                learning_rate: Some(2e-3),
                schedule: Schedule::Cosine,
                warmup_steps: 50,
                ..OptimizerConfig::default()
            },
            ..TrainConfig::default()
        },
        prompts: dcformer::text::Prompts::default(),
        finetune: None,
    }
}
