//! `dcformer bench`: how fast is it on this machine?

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, ensure};
use clap::{Args, Subcommand};
use dcformer::Device;
use dcformer::bench::{Encoder, TrainStep, encode_prompts, simd_level};
use dcformer::checkpoint::Model;
use dcformer::complexity::Shape3;
use dcformer::models::{ImageEncoderConfig, preset};
use serde::Serialize;

use crate::args::{Format, List, Runtime};
use crate::output;

/// Time an encoder on this machine
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  dcformer bench encoder --variant nano --shape 256,512,512 --runs 5 --json"
)]
pub(crate) struct Bench {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// One volume through an image encoder
    #[command(
        after_help = "Example:\n  dcformer bench encoder --variant nano --shape 256,512,512 --runs 5 --json"
    )]
    Encoder {
        #[command(flatten)]
        settings: Settings,
        /// Folder of a model whose encoder is timed, instead of fresh weights
        #[arg(long, value_name = "DIR", conflicts_with_all = ["model_name", "variant"])]
        model: Option<PathBuf>,
    },
    /// Forward pass, backward pass and AdamW of an image encoder
    #[command(
        after_help = "Example:\n  dcformer bench train-step --variant nano --shape 128,256,256 --batch 2 --json"
    )]
    TrainStep {
        #[command(flatten)]
        settings: Settings,
        /// Volumes of a step
        #[arg(long, value_name = "N", default_value_t = 1)]
        batch: usize,
    },
    /// The prompts of a model through its text encoder
    #[command(after_help = "Example:\n  dcformer bench prompts --model MODEL --runs 5 --json")]
    Prompts {
        /// Folder of the model
        #[arg(long, value_name = "DIR")]
        model: PathBuf,
        #[command(flatten)]
        measure: Measure,
    },
}

/// How often, where, and how the figures are printed.
#[derive(Debug, Args)]
struct Measure {
    /// Timed runs, after one that warms up
    #[arg(long, value_name = "N", default_value_t = 5)]
    runs: usize,
    #[command(flatten)]
    format: Format,
    #[command(flatten)]
    runtime: Runtime,
}

#[derive(Debug, Args)]
struct Settings {
    /// The network
    #[arg(long, value_name = "NAME", default_value = "dcformer")]
    model_name: String,
    /// Its size; the first of `dcformer complexity` if not given
    #[arg(long, value_name = "V")]
    variant: Option<String>,
    /// Voxels of the volume
    #[arg(long, value_name = "D,H,W", default_value_t = List([256, 512, 512]))]
    shape: List<usize, 3>,
    /// Seed of weights and volume
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    measure: Measure,
}

#[derive(Debug, Serialize)]
struct Figures {
    median_s: f64,
    min_s: f64,
    peak_rss_mb: Option<f64>,
    simd: String,
    threads: usize,
}

impl Bench {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        match self.what {
            What::Encoder { settings, model } => {
                let device = settings.measure.runtime.start()?;
                let (shape, seed) = (settings.volume(), settings.seed);
                let encoder = match model {
                    Some(folder) => {
                        Encoder::of_model(&load(&folder, &device)?, shape, seed, &device)?
                    }
                    None => Encoder::new(&settings.encoder()?, shape, seed, &device)?,
                };
                settings.measure.report(|| {
                    encoder.run();
                    Ok(())
                })
            }
            What::Prompts { model, measure } => {
                let device = measure.runtime.start()?;
                let model = load(&model, &device)?;
                measure.report(|| Ok(encode_prompts(&model, &device)?))
            }
            What::TrainStep { settings, batch } => {
                ensure!(batch > 0, "--batch is 0, expected at least 1");
                let device = settings.measure.runtime.start()?;
                let mut step = TrainStep::new(
                    &settings.encoder()?,
                    batch,
                    settings.volume(),
                    settings.seed,
                    &device,
                )?;
                settings.measure.report(|| {
                    step.run();
                    Ok(())
                })
            }
        }
    }
}

impl Settings {
    fn encoder(&self) -> anyhow::Result<ImageEncoderConfig> {
        Ok(preset(&self.model_name, self.variant.as_deref())?.config)
    }

    fn volume(&self) -> Shape3 {
        let List([depth, height, width]) = self.shape;
        Shape3 {
            depth,
            height,
            width,
        }
    }
}

fn load(folder: &Path, device: &Device) -> anyhow::Result<Model> {
    Model::load(folder, device)
        .with_context(|| format!("cannot load the model in {}", folder.display()))
}

impl Measure {
    fn report(&self, mut work: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<()> {
        ensure!(self.runs > 0, "--runs is 0, expected at least 1");
        work()?;
        let mut seconds = Vec::with_capacity(self.runs);
        for _ in 0..self.runs {
            let started = Instant::now();
            work()?;
            seconds.push(started.elapsed().as_secs_f64());
        }
        seconds.sort_by(f64::total_cmp);
        let middle = seconds.len() / 2;
        let median_s = if seconds.len() % 2 == 1 {
            seconds[middle]
        } else {
            (seconds[middle - 1] + seconds[middle]) / 2.0
        };
        let figures = Figures {
            median_s,
            min_s: seconds[0],
            peak_rss_mb: peak_rss_mb(),
            simd: simd_level(),
            threads: rayon::current_num_threads(),
        };
        if self.format.json {
            return output::json(&figures);
        }
        let memory = figures
            .peak_rss_mb
            .map_or(String::new(), |mb| format!(", {mb:.0} MB at most"));
        output::text(&format!(
            "median {:.3} s, best {:.3} s of {} runs{memory} ({}, {} threads)\n",
            figures.median_s, figures.min_s, self.runs, figures.simd, figures.threads
        ))
    }
}

/// Most memory that this process has held, where the system says so (Linux).
fn peak_rss_mb() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes / 1024.0)
}
