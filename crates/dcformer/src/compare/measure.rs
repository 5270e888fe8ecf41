//! A trained model is asked about every volume of the validation split, by its own words and by their reports.

use std::path::Path;
use std::time::Instant;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use dcformer_volume::dataset::{DataSet, Sample};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::bench::{self, simd_level};
use crate::checkpoint::Model;
use crate::detect::{Detector, LabelledScans};
use crate::error::{Error, Result};
use crate::evaluate::retrieval::{Candidates, VOLUMES_AT, label_agreement_at, ranks};
use crate::models::Clip;
use crate::text::Tokenizer;
use crate::train::{ReportText, sentences};

/// What is known of a model after it was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measured {
    /// What it said.
    pub answers: Answers,
    /// How fast it is.
    pub inference: Inference,
}

/// What a model said of labelled volumes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answers {
    /// Names of the volumes.
    pub volumes: Vec<String>,
    /// Whose scan each volume is.
    pub patients: Vec<String>,
    /// What the model was asked for and the data know.
    pub names: Vec<String>,
    /// `[volumes][names]`
    pub labels: Vec<Vec<Option<bool>>>,
    /// `[volumes][names]`
    pub scores: Vec<Vec<f32>>,
    /// What it found; `None` with fewer than two volumes that have a report.
    pub retrieval: Option<RetrievalAnswers>,
}

/// Where a model found what belongs together (SPEC section 8).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetrievalAnswers {
    /// Whose scan each volume with a report is.
    pub patients: Vec<String>,
    /// For each report, how many volumes are more similar than its own.
    pub text_to_volume: Vec<usize>,
    /// For each volume, how many reports are more similar than its own.
    pub volume_to_text: Vec<usize>,
    /// How well labels of the K most similar volumes of other patients agree with a volume's, for each K of
    /// [`VOLUMES_AT`]; `None` where nobody has a label.
    pub volume_to_volume: Option<Vec<f64>>,
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
        let scans = LabelledScans::new(detector.names(), data)?;
        let is_measured = |sample: &&Sample| sample.is_labelled() || has_report(sample);
        let samples: Vec<Sample> = data.samples.iter().filter(is_measured).cloned().collect();

        let (mut scores, mut latents, mut done) = (Vec::new(), Vec::new(), 0);
        detector.for_each_latent(&samples, |latent| {
            let sample = &samples[done];
            if sample.is_labelled() {
                let probabilities = detector.compare(latent.clone());
                scores.extend(probabilities.iter().map(|row| scans.select(row)));
            }
            if has_report(sample) {
                latents.extend(rows(latent));
            }
            done += 1;
            progress(done, samples.len());
        })?;
        let pairs: Vec<&Sample> = samples.iter().filter(|sample| has_report(sample)).collect();
        let patients = |samples: &[Sample]| samples.iter().map(|s| s.patient.clone()).collect();
        Ok(Answers {
            volumes: scans.samples.iter().map(|s| s.name.clone()).collect(),
            patients: patients(&scans.samples),
            retrieval: match pairs.len() {
                0 | 1 => None,
                _ => Some(self.retrieve(&pairs, &latents, report)?),
            },
            names: scans.names,
            labels: scans.labels,
            scores,
        })
    }

    fn retrieve(
        &self,
        pairs: &[&Sample],
        volumes: &[Vec<f32>],
        report: ReportText,
    ) -> Result<RetrievalAnswers> {
        let tokenizer = self.model.tokenizer.as_ref().ok_or(Error::MissingPart {
            part: "vocabulary",
            remedy: "put its vocab.txt into the folder",
        })?;
        let reports = pairs
            .iter()
            .map(|pair| pair.report.as_deref().unwrap_or_default());
        let reports: Vec<&str> = reports.collect();
        let clip = self.model.clip.clone().valid();
        let texts = report_latents(&clip, tokenizer, &reports, report)?;
        let patients: Vec<String> = pairs.iter().map(|pair| pair.patient.clone()).collect();
        let labels: Vec<Vec<bool>> = pairs
            .iter()
            .map(|pair| {
                pair.labels
                    .iter()
                    .map(|label| *label == Some(true))
                    .collect()
            })
            .collect();
        Ok(RetrievalAnswers {
            text_to_volume: ranks(&similarity(&texts, volumes)),
            volume_to_text: ranks(&similarity(volumes, &texts)),
            volume_to_volume: label_agreement_at(
                &VOLUMES_AT,
                &similarity(volumes, volumes),
                &labels,
                &patients,
                Candidates::OtherPatients,
            ),
            patients,
        })
    }
}

fn has_report(sample: &Sample) -> bool {
    let report = sample.report.as_deref().unwrap_or_default();
    !report.trim().is_empty()
}

/// Latents of reports, of unit length: of the whole text where training saw whole texts; where it saw single sentences, the
/// mean over all sentences, since a whole report is then nothing that the text encoder knows.
fn report_latents(
    clip: &Clip,
    tokenizer: &Tokenizer,
    reports: &[&str],
    seen: ReportText,
) -> Result<Vec<Vec<f32>>> {
    /// Reports encoded at once.
    const BATCH: usize = 32;
    let texts_of = |report: &str| -> Vec<String> {
        let parts: Vec<String> = match seen {
            ReportText::Whole | ReportText::Shuffled => Vec::new(),
            ReportText::Sentences { .. } => sentences(report).map(str::to_owned).collect(),
        };
        if parts.is_empty() {
            vec![report.to_owned()]
        } else {
            parts
        }
    };
    let mut latents = Vec::with_capacity(reports.len());
    for reports in reports.chunks(BATCH) {
        let texts: Vec<Vec<String>> = reports.iter().map(|report| texts_of(report)).collect();
        let encoded = rows(clip.encode_text(&tokenizer.encode_batch(&texts.concat())?)?);
        let mut encoded = encoded.into_iter();
        latents.extend(texts.iter().map(|texts| {
            let of_report: Vec<Vec<f32>> = encoded.by_ref().take(texts.len()).collect();
            unit_mean(&of_report)
        }));
    }
    Ok(latents)
}

/// The mean of rows of one length, scaled to unit length; zero stays zero.
fn unit_mean(rows: &[Vec<f32>]) -> Vec<f32> {
    let mut sum = vec![0.0f64; rows.first().map_or(0, Vec::len)];
    for row in rows {
        sum.iter_mut()
            .zip(row)
            .for_each(|(sum, value)| *sum += f64::from(*value));
    }
    let length = sum.iter().map(|value| value * value).sum::<f64>().sqrt();
    let scale = if length > 0.0 { 1.0 / length } else { 0.0 };
    sum.into_iter()
        .map(|value| (value * scale) as f32)
        .collect()
}

/// Rows of a matrix of latents, `[texts or volumes][latent]`.
fn rows(latents: Tensor<2>) -> Vec<Vec<f32>> {
    let [_, width] = latents.dims();
    let values: Vec<f32> = latents
        .into_data()
        .try_to_vec()
        .expect("latents are single precision");
    values
        .chunks_exact(width.max(1))
        .map(<[f32]>::to_vec)
        .collect()
}

/// Cosine similarity of every query, a row, with every candidate. All are of unit length.
fn similarity(queries: &[Vec<f32>], candidates: &[Vec<f32>]) -> Vec<Vec<f32>> {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    let row = |query: &Vec<f32>| {
        candidates
            .iter()
            .map(|candidate| dot(query, candidate))
            .collect()
    };
    queries.par_iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_the_direction_between_its_sentences() {
        assert_eq!(unit_mean(&[vec![1.0, 0.0]]), [1.0, 0.0]);
        let between = unit_mean(&[vec![1.0, 0.0], vec![0.0, 1.0]]);
        let diagonal = std::f32::consts::FRAC_1_SQRT_2;
        assert_eq!(between, [diagonal, diagonal]);
        assert_eq!(unit_mean(&[vec![1.0, 0.0], vec![-1.0, 0.0]]), [0.0, 0.0]);
    }

    #[test]
    fn similarity_has_a_row_for_each_query() {
        let queries = [vec![1.0, 0.0], vec![0.0, 1.0], vec![0.6, 0.8]];
        let candidates = [vec![0.0, 1.0], vec![1.0, 0.0]];
        let found = similarity(&queries, &candidates);
        assert_eq!(found, [[0.0, 1.0], [1.0, 0.0], [0.8, 0.6]]);
    }
}
