//! `dcformer bench`: how fast is it on this machine?

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::ensure;
use clap::{Args, Subcommand};
use dcformer::bench::{
    ContrastiveStep, DetectionTimes, Encoder, PromptSource, Search, TrainStep, detect,
    encode_prompts, simd_level,
};
use dcformer::models::{ImageEncoderConfig, preset};
use dcformer_volume::dataset::ScanMetadata;
use dcformer_volume::preprocess::Preprocess;
use dcformer_volume::scan::ScanOptions;
use serde::Serialize;

use crate::args::{ActivationMemory, Format, List, Runtime};
use crate::cost::peak_rss_mb;
use crate::model;
use crate::output;

/// Runs that are not timed: buffers are allocated, files come into the cache.
const WARM_UP: usize = 1;

/// Time an encoder, a training step, a detection or a search on this machine
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
        dcformer bench encoder --variant nano --shape 256,512,512 --runs 5 --json\n  \
        dcformer bench detect --model MODEL scan.nii.gz")]
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
    #[command(after_help = "Examples:\n  \
            dcformer bench train-step --variant nano --shape 128,256,256 --batch 2 --json\n  \
            dcformer bench train-step --variant nano --shape 64,128,128 --batch 64 --micro-batch 4")]
    TrainStep {
        #[command(flatten)]
        settings: Settings,
        /// Volumes of a step
        #[arg(long, value_name = "N", default_value_t = 1)]
        batch: usize,
        /// Contrast the batch with as many texts, as `train` does, and encode this many volumes together
        #[arg(long, value_name = "N")]
        micro_batch: Option<usize>,
        #[command(flatten)]
        activation_memory: ActivationMemory,
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
    /// A scan through a model, from the files to the probabilities, by phases
    ///
    /// Each run loads the model anew. A NIfTI file is decompressed and preprocessed at the same time, so the two are one
    /// phase.
    #[command(
        after_help = "Example:\n  dcformer bench detect --model MODEL scan.nii.gz --runs 5 --json"
    )]
    Detect {
        /// Folder of the model
        #[arg(long, value_name = "DIR")]
        model: PathBuf,
        /// NIfTI file or DICOM folder
        #[arg(value_name = "SCAN")]
        scan: PathBuf,
        /// Encode the prompts in every run, in place of taking the latents that the model's folder keeps
        #[arg(long)]
        encode_prompts: bool,
        #[command(flatten)]
        measure: Measure,
    },
    /// The most similar of random latents, by looking at all of them
    #[command(after_help = "Example:\n  dcformer bench search --rows 50000 --runs 50 --json")]
    Search {
        /// Latents to look at
        #[arg(long, value_name = "N", default_value_t = 50_000)]
        rows: usize,
        /// Numbers of a latent
        #[arg(long, value_name = "N", default_value_t = 512)]
        width: usize,
        /// How many to find
        #[arg(long, value_name = "K", default_value_t = 10)]
        top: usize,
        /// Seed of the latents
        #[arg(long, value_name = "SEED", default_value_t = 0)]
        seed: u64,
        #[command(flatten)]
        measure: Measure,
    },
    /// A scan to the input of the authors' network
    #[command(after_help = "Example:\n  dcformer bench preprocess scan.nii.gz --runs 5 --json")]
    Preprocess {
        /// NIfTI file or DICOM folder
        #[arg(value_name = "SCAN")]
        scan: PathBuf,
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
    /// Medians.
    #[serde(skip_serializing_if = "Option::is_none")]
    phases: Option<DetectionTimes>,
}

impl Bench {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        match self.what {
            What::Encoder { settings, model } => {
                let device = settings.measure.runtime.start()?;
                let (shape, seed) = (settings.shape.into(), settings.seed);
                let encoder = match model {
                    Some(folder) => {
                        Encoder::of_model(&model::load(&folder, &device)?, shape, seed, &device)?
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
                let model = model::load(&model, &device)?;
                measure.report(|| Ok(encode_prompts(&model, &device)?))
            }
            What::Detect {
                model,
                scan,
                encode_prompts,
                measure,
            } => {
                let prompts = if encode_prompts {
                    PromptSource::Encoded
                } else {
                    PromptSource::Kept
                };
                measure.report_detection(&model, &scan, prompts)
            }
            What::Search {
                rows,
                width,
                top,
                seed,
                measure,
            } => {
                ensure!(rows > 0, "--rows is 0, expected at least 1");
                ensure!(width > 0, "--width is 0, expected at least 1");
                measure.runtime.start()?;
                let mut search = Search::new(rows, width, seed);
                measure.report(|| {
                    search.run(top);
                    Ok(())
                })
            }
            What::Preprocess { scan, measure } => {
                measure.runtime.start()?;
                let (metadata, options) = (ScanMetadata::default(), ScanOptions::default());
                measure.report(|| {
                    Preprocess::dcformer().run_file(&scan, &metadata, &options)?;
                    Ok(())
                })
            }
            What::TrainStep {
                settings,
                batch,
                micro_batch,
                activation_memory,
            } => {
                activation_memory.apply()?;
                ensure!(batch > 0, "--batch is 0, expected at least 1");
                ensure!(
                    micro_batch != Some(0),
                    "--micro-batch is 0, expected at least 1"
                );
                let device = settings.measure.runtime.start()?;
                let (encoder, shape) = (settings.encoder()?, settings.shape.into());
                let (seed, measure) = (settings.seed, settings.measure);
                if let Some(size) = micro_batch {
                    let mut step =
                        ContrastiveStep::new(&encoder, batch, size, shape, seed, &device)?;
                    return measure.report(|| Ok(step.run()?));
                }
                let mut step = TrainStep::new(&encoder, batch, shape, seed, &device)?;
                measure.report(|| {
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
}

impl Measure {
    fn report(&self, work: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<()> {
        self.print(&self.time(work)?)
    }

    fn report_detection(
        &self,
        model: &Path,
        scan: &Path,
        prompts: PromptSource,
    ) -> anyhow::Result<()> {
        let device = self.runtime.start()?;
        let mut phases = Vec::new();
        let mut figures = self.time(|| {
            phases.push(detect(model, scan, prompts, &device)?);
            Ok(())
        })?;
        figures.phases = Some(median_phases(&phases[WARM_UP..]));
        self.print(&figures)
    }

    fn time(&self, mut work: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<Figures> {
        ensure!(self.runs > 0, "--runs is 0, expected at least 1");
        for _ in 0..WARM_UP {
            work()?;
        }
        let mut seconds = Vec::with_capacity(self.runs);
        for _ in 0..self.runs {
            let started = Instant::now();
            work()?;
            seconds.push(started.elapsed().as_secs_f64());
        }
        Ok(Figures {
            median_s: median(seconds.iter().copied()),
            min_s: seconds.into_iter().fold(f64::INFINITY, f64::min),
            peak_rss_mb: peak_rss_mb(),
            simd: simd_level(),
            threads: rayon::current_num_threads(),
            phases: None,
        })
    }

    fn print(&self, figures: &Figures) -> anyhow::Result<()> {
        if self.format.json {
            return output::json(figures);
        }
        let memory = figures
            .peak_rss_mb
            .map_or(String::new(), |mb| format!(", {mb:.0} MB at most"));
        output::text(&format!(
            "median {:.3} s, best {:.3} s of {} runs{memory} ({}, {} threads)\n",
            figures.median_s, figures.min_s, self.runs, figures.simd, figures.threads
        ))?;
        let Some(phases) = &figures.phases else {
            return Ok(());
        };
        output::text(&format!(
            "load {:.3} s, read and preprocess {:.3} s, encode {:.3} s, compare {:.3} s\n",
            phases.load_s, phases.read_and_preprocess_s, phases.encode_s, phases.compare_s
        ))
    }
}

fn median_phases(runs: &[DetectionTimes]) -> DetectionTimes {
    let of = |phase: fn(&DetectionTimes) -> f64| median(runs.iter().map(phase));
    DetectionTimes {
        load_s: of(|run| run.load_s),
        read_and_preprocess_s: of(|run| run.read_and_preprocess_s),
        encode_s: of(|run| run.encode_s),
        compare_s: of(|run| run.compare_s),
    }
}

/// The middle of at least one number, or the mean of the two in the middle.
fn median(numbers: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = numbers.collect();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 {
        sorted[middle]
    } else {
        (sorted[middle - 1] + sorted[middle]) / 2.0
    }
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn the_median_is_the_middle_in_any_order() {
        assert_eq!(median([3.0].into_iter()), 3.0);
        assert_eq!(median([9.0, 1.0, 2.0].into_iter()), 2.0);
        assert_eq!(median([4.0, 1.0, 9.0, 2.0].into_iter()), 3.0);
    }
}
