//! What a model says of the volumes of a data set: how probable each abnormality is, and which report and volume belong
//! together.

use dcformer_volume::dataset::{DataSet, Sample};
use serde::{Deserialize, Serialize};

use crate::detect::{Detector, LabelledScans};
use crate::embed::ReportEmbedder;
use crate::error::Result;
use crate::evaluate::retrieval::{Candidates, RetrievalAnswers};
use crate::tensors::rows;

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
    /// What it found; `None` if it was not asked to, or fewer than two volumes have a report.
    pub retrieval: Option<RetrievalAnswers>,
}

impl Answers {
    /// Asks about every labelled volume. With `retrieval`, also looks for the volumes that have a report by their reports, for
    /// the reports by their volumes, and for volumes by volumes. `progress` is told how many of how many volumes are done.
    ///
    /// # Errors
    /// If a volume cannot be read, nothing is labelled, or the data's labels are none that the model is asked for.
    pub fn new(
        detector: &Detector,
        data: &DataSet,
        retrieval: Option<(&ReportEmbedder, Candidates)>,
        progress: &dyn Fn(usize, usize),
    ) -> Result<Self> {
        let scans = LabelledScans::new(detector.names(), data)?;
        let is_pair = |sample: &Sample| retrieval.is_some() && sample.has_report();
        let is_measured = |sample: &&Sample| sample.is_labelled() || is_pair(sample);
        let samples: Vec<Sample> = data.samples.iter().filter(is_measured).cloned().collect();

        let (mut scores, mut latents, mut done) = (Vec::new(), Vec::new(), 0);
        detector.for_each_latent(&samples, |latent| {
            let sample = &samples[done];
            if sample.is_labelled() {
                let probabilities = detector.compare(latent.clone());
                scores.extend(probabilities.iter().map(|row| scans.select(row)));
            }
            if is_pair(sample) {
                latents.extend(rows(latent));
            }
            done += 1;
            progress(done, samples.len());
        })?;
        let pairs: Vec<&Sample> = samples.iter().filter(|sample| is_pair(sample)).collect();
        let retrieval = match retrieval {
            Some((reports, candidates)) if pairs.len() > 1 => {
                Some(retrieve(&pairs, &latents, reports, candidates)?)
            }
            _ => None,
        };
        let of_samples = |fact: fn(&Sample) -> &String| scans.samples.iter().map(fact).cloned();
        Ok(Self {
            volumes: of_samples(|sample| &sample.name).collect(),
            patients: of_samples(|sample| &sample.patient).collect(),
            names: scans.names,
            labels: scans.labels,
            scores,
            retrieval,
        })
    }
}

fn retrieve(
    pairs: &[&Sample],
    volumes: &[Vec<f32>],
    reports: &ReportEmbedder,
    candidates: Candidates,
) -> Result<RetrievalAnswers> {
    let texts = pairs
        .iter()
        .map(|pair| pair.report.as_deref().unwrap_or_default());
    let texts = reports.embed(&texts.collect::<Vec<_>>())?;
    let labels = |pair: &&Sample| {
        pair.labels
            .iter()
            .map(|label| *label == Some(true))
            .collect()
    };
    let labels: Vec<Vec<bool>> = pairs.iter().map(labels).collect();
    let patients = pairs.iter().map(|pair| pair.patient.clone()).collect();
    Ok(RetrievalAnswers::new(
        &texts, volumes, &labels, patients, candidates,
    ))
}
