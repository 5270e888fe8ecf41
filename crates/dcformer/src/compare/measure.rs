//! A trained model is asked about every volume of the validation split, by its own words and by their reports, and timed.

use std::path::Path;
use std::time::Instant;

use burn::tensor::Device;
use dcformer_volume::dataset::DataSet;
use serde::{Deserialize, Serialize};

use crate::answers::Answers;
use crate::bench::{self, simd_level};
use crate::checkpoint::Model;
use crate::detect::Detector;
use crate::embed::ReportEmbedder;
use crate::error::Result;
use crate::evaluate::retrieval::Candidates;
use crate::text::ReportText;

/// What is known of a model after it was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measured {
    /// What it said.
    pub answers: Answers,
    /// How fast it is.
    pub inference: Inference,
}

/// How fast an encoder is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inference {
    /// Seconds of one volume through the encoder, the median of the runs.
    pub seconds: f64,
    /// Timed runs.
    pub runs: usize,
    /// Most memory that a process held which loaded the model and encoded one volume after the other.
    pub peak_rss_mb: Option<f64>,
    /// Threads that it used.
    pub threads: usize,
    /// Instruction set of its kernels.
    pub simd: String,
}

/// A trained model, to be measured.
#[derive(Debug)]
pub struct Subject {
    model: Model,
    device: Device,
}

impl Subject {
    /// Loads a model folder.
    ///
    /// # Errors
    /// As [`Model::load`].
    pub fn load(folder: &Path, device: &Device) -> Result<Self> {
        Ok(Self {
            model: Model::load(folder, device)?,
            device: device.clone(),
        })
    }

    /// Times one volume through the encoder; `peak_rss_mb` is asked once it is done.
    ///
    /// # Errors
    /// If the encoder cannot take its own volumes.
    pub fn time(&self, peak_rss_mb: impl Fn() -> Option<f64>) -> Result<Inference> {
        /// Enough for a median; a volume of the paper's size takes a second or so.
        const RUNS: usize = 15;
        let shape = self.model.config.preprocess.shape;
        let encoder = bench::Encoder::of_model(&self.model, shape, 0, &self.device)?;
        encoder.run();
        let mut seconds: Vec<f64> = (0..RUNS)
            .map(|_| {
                let started = Instant::now();
                encoder.run();
                started.elapsed().as_secs_f64()
            })
            .collect();
        seconds.sort_by(f64::total_cmp);
        Ok(Inference {
            seconds: seconds[RUNS / 2],
            runs: RUNS,
            peak_rss_mb: peak_rss_mb(),
            threads: rayon::current_num_threads(),
            simd: simd_level(),
        })
    }

    /// Asks about every labelled volume, and looks for volumes by their reports and the other way round. `report` says what
    /// of a report training saw. `progress` is told how many of how many volumes are done.
    ///
    /// # Errors
    /// If the model lacks text, a volume cannot be read, or nothing is labelled.
    pub fn answer(
        &self,
        data: &DataSet,
        report: ReportText,
        progress: &dyn Fn(usize, usize),
    ) -> Result<Answers> {
        let detector = Detector::new(&self.model, &self.device)?;
        let reports = ReportEmbedder::with_text(&self.model, report)?;
        let retrieval = Some((&reports, Candidates::OtherPatients));
        Answers::new(&detector, data, retrieval, progress)
    }
}
