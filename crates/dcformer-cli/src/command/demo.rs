//! `dcformer demo`: from nothing to a model that finds abnormalities in patients it never saw, and a report.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context;
use clap::Args;
use dcformer::checkpoint::Model;
use dcformer::detect::Detector;
use dcformer::embed::ReportEmbedder;
use dcformer::evaluate::retrieval::{Candidates, Retrieval};
use dcformer::evaluate::{Bootstrap, Threshold};
use dcformer::report::{Facts, Report, Timing};
use dcformer::train::{Outcome, RunConfig, RunOptions};

use crate::args::Runtime;
use crate::command::evaluate::{Scored, print_retrieval, print_table, read_data};
use crate::command::phantom::draw;
use crate::command::train::train_with_progress;
use crate::interrupt::stop_flag;
use crate::output;
use crate::progress::{duration, note};
use crate::recipe::{phantom_run, phantom_set};
use crate::summary::{cases, training_curve};

/// Train and test a small model on synthetic chest scans, and write a report
///
/// Draws synthetic chest scans with reports, trains DCFormer nano and a text encoder on them from scratch, asks the model
/// about patients that it never saw, and writes report.html. Nothing is downloaded.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  dcformer demo --out demo/")]
pub(crate) struct Demo {
    /// Folder to write
    #[arg(long, value_name = "DIR", default_value = "demo")]
    out: PathBuf,
    /// Seed of scans and training
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    runtime: Runtime,
}

impl Demo {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let device = self.runtime.start()?;
        let stop = stop_flag()?;
        let mut timings = Timings::default();
        let [phantoms, run] = ["phantoms", "run"].map(|name| self.out.join(name));

        let data = phantom_set(self.seed);
        note(&format!(
            "1 of 4: drawing {} synthetic patients",
            data.train_patients + data.valid_patients
        ));
        timings.measure("Draw synthetic scans and reports", || {
            draw(&phantoms, &data)
        })?;

        let config = phantom_run(&phantoms, self.seed);
        note("2 of 4: training DCFormer nano and a text encoder from scratch");
        // The folder is the demonstration's own: an earlier one makes room.
        if run.exists() {
            std::fs::remove_dir_all(&run)
                .with_context(|| format!("cannot replace {}", run.display()))?;
        }
        let options = RunOptions {
            device: device.clone(),
            resume: false,
            stop,
        };
        let outcome = timings.measure("Train", || train_with_progress(&config, &run, &options))?;
        let Outcome::Complete(model) = outcome else {
            note("stopped");
            return Ok(());
        };

        note("3 of 4: asking about patients that the model never saw");
        let detector = Detector::new(&model, &device)?;
        let reports = ReportEmbedder::new(&model)?;
        let data = read_data(&phantoms)?;
        let scored = timings.measure("Detect and retrieve in held-out patients", || {
            Scored::new(
                &detector,
                &data,
                Some((&reports, Candidates::OtherPatients)),
            )
        })?;
        let evaluation = scored.evaluate(Threshold::Half, Bootstrap::default())?;
        let retrieval = scored.retrieval(Bootstrap::default())?;
        print_table(&evaluation)?;
        if let Some(retrieval) = &retrieval {
            print_retrieval(retrieval)?;
            output::text(&found_by_report(retrieval))?;
        }

        note("4 of 4: writing the report");
        let path = self.out.join("report.html");
        let report = Report {
            title: "DCFormer on synthetic chest scans".to_owned(),
            summary: format!(
                "A vision-language model, trained from scratch in {} on {} synthetic chest scans and their reports, was \
                 asked about {} patients that it never saw, in words: \"... is present.\", \"... is not present.\"",
                duration(timings.seconds("Train")),
                config.data.training()?.samples.len(),
                evaluation.patients
            ),
            command: "dcformer demo".to_owned(),
            facts: facts(&model, &config),
            cases: cases(&scored, &evaluation, &model.config.preprocess)?,
            training: training_curve(&run.join("metrics.jsonl"))?,
            evaluation: Some(evaluation),
            retrieval,
            timings: timings.rows.clone(),
            configuration: config.to_toml(),
            limits: vec![
                "The scans are synthetic: drawings of a chest with known findings. The numbers say that the program \
                 learns, not how a model would do on patients."
                    .to_owned(),
            ],
        };
        report.write(&path)?;
        for Timing { step, elapsed_s } in &timings.rows {
            note(&format!("{step}: {}", duration(*elapsed_s)));
        }
        output::text(&next_steps(&path, &run.join("model"), &phantoms))
    }
}

/// How often a report finds its volume among the first ten, beside a guess.
fn found_by_report(retrieval: &Retrieval) -> String {
    const K: usize = 10;
    let recalls = retrieval.text_to_volume.iter();
    let recall = recalls
        .filter(|recall| recall.k == K)
        .find_map(|recall| recall.value);
    recall.map_or(String::new(), |recall| {
        format!(
            "\na report finds its volume among the {K} most similar of {} in {:.0} % of cases, {:.1} times as often as a guess\n",
            retrieval.pairs,
            100.0 * recall,
            recall / retrieval.chance(K)
        )
    })
}

fn facts(model: &Model, config: &RunConfig) -> Vec<Facts> {
    let row = |name: &str, value: String| (name.to_owned(), value);
    let shape = config.preprocess.shape;
    vec![
        Facts {
            heading: "Model".to_owned(),
            rows: vec![
                row(
                    "Image encoder",
                    format!("DCFormer {}", config.model.variant),
                ),
                row("Volume", format!("{shape} voxels")),
                row(
                    "Text encoder",
                    "BERT, one layer, vocabulary learnt from the reports".to_owned(),
                ),
                row(
                    "Parameters",
                    format!("{:.2} M", model.parameters() as f64 / 1e6),
                ),
            ],
        },
        Facts {
            heading: "Training".to_owned(),
            rows: vec![
                row("Epochs", config.train.epochs.to_string()),
                row(
                    "Batch",
                    format!(
                        "{} pairs, {} texts each",
                        config.train.batch, config.train.texts_per_volume
                    ),
                ),
                row(
                    "Learning rate",
                    format!("{}", config.train.peak_learning_rate()),
                ),
                row("Seed", config.seed.to_string()),
            ],
        },
    ]
}

/// How long each step took.
#[derive(Default)]
struct Timings {
    rows: Vec<Timing>,
}

impl Timings {
    fn measure<T>(
        &mut self,
        step: &str,
        work: impl FnOnce() -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let started = Instant::now();
        let out = work()?;
        self.rows.push(Timing {
            step: step.to_owned(),
            elapsed_s: started.elapsed().as_secs_f64(),
        });
        Ok(out)
    }

    fn seconds(&self, step: &str) -> f64 {
        self.rows
            .iter()
            .filter(|row| row.step == step)
            .map(|row| row.elapsed_s)
            .sum()
    }
}

fn next_steps(report: &Path, model: &Path, phantoms: &Path) -> String {
    let scan = phantoms.join("dataset/valid/valid_1/valid_1_a/valid_1_a_1.nii.gz");
    format!(
        "\nThe report is {}. Next:\n  \
         dcformer detect --model {} {}\n  \
         dcformer detect --model {} YOUR_SCAN.nii.gz\n  \
         dcformer import official.pth --vocab vocab.txt --out MODEL\n",
        report.display(),
        model.display(),
        scan.display(),
        model.display()
    )
}
