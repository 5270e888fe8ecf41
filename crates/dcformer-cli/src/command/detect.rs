//! `dcformer detect`: which abnormalities are in these scans?

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use dcformer::Device;
use dcformer::detect::{Detector, Finding};
use dcformer::tensors::read_volumes;
use serde::Serialize;

use crate::args::{Format, Runtime};
use crate::output::{self, Align};
use crate::progress::{error, note};
use crate::scan_args::{ScanArgs, is_tensor_file};

/// Probability of each abnormality in each scan
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    dcformer detect --model MODEL scan.nii.gz\n  \
    dcformer detect --model MODEL ct_series/ other.nii.gz --json")]
pub(crate) struct Detect {
    /// Folder of the model (config.json, model.safetensors, vocab.txt)
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// NIfTI files, DICOM folders, or .safetensors with a preprocessed `volume`
    #[arg(required = true, value_name = "INPUT")]
    inputs: Vec<PathBuf>,
    #[command(flatten)]
    scan: ScanArgs,
    #[command(flatten)]
    format: Format,
    #[command(flatten)]
    runtime: Runtime,
}

/// Findings of one volume.
#[derive(Debug, Serialize)]
struct Answer {
    file: String,
    findings: Vec<Finding>,
}

impl Detect {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let device = self.runtime.start()?;
        let mut detector = open_detector(&self.model, &device)?;
        self.scan.adjust(detector.preprocess_mut());
        let mut answers = Vec::new();
        let mut failed = 0;
        for input in &self.inputs {
            match self.answer(&detector, input) {
                Ok(found) => answers.extend(found),
                Err(reason) => {
                    failed += 1;
                    error(&reason);
                }
            }
        }
        if self.format.json {
            output::json(&answers)?;
        } else {
            print(&answers)?;
        }
        if failed > 0 {
            bail!("{failed} of {} inputs could not be used", self.inputs.len());
        }
        Ok(())
    }

    /// One answer for each volume of an input.
    fn answer(&self, detector: &Detector, input: &Path) -> anyhow::Result<Vec<Answer>> {
        let file = input.display().to_string();
        if !is_tensor_file(input) {
            let (findings, notes) =
                detector.detect(input, &self.scan.metadata(), &self.scan.options())?;
            for sentence in notes {
                note(&format!("{file}: {sentence}"));
            }
            return Ok(vec![Answer { file, findings }]);
        }
        let volumes = read_volumes(input)?;
        let shape: [usize; 5] = volumes.shape.try_into().expect("volumes have five sizes");
        let probabilities = detector.probabilities(volumes.values, shape)?;
        Ok(probabilities
            .into_iter()
            .map(|probabilities| Answer {
                file: file.clone(),
                findings: detector.findings(&probabilities),
            })
            .collect())
    }
}

/// The model of a folder, which keeps what its prompts were encoded to.
pub(crate) fn open_detector(folder: &Path, device: &Device) -> anyhow::Result<Detector> {
    Detector::open(folder, device)
        .with_context(|| format!("cannot detect with the model in {}", folder.display()))
}

fn print(answers: &[Answer]) -> anyhow::Result<()> {
    for (index, answer) in answers.iter().enumerate() {
        let mut findings: Vec<&Finding> = answer.findings.iter().collect();
        findings.sort_by(|a, b| b.probability.total_cmp(&a.probability));
        let has_thresholds = findings.iter().any(|finding| finding.threshold.is_some());
        let rows: Vec<Vec<String>> = findings.into_iter().map(row).collect();
        output::text(&format!(
            "{}{}\n",
            if index > 0 { "\n" } else { "" },
            answer.file
        ))?;
        let mut headings = vec![("abnormality", Align::Left), ("probability", Align::Right)];
        if has_thresholds {
            headings.extend([("present from", Align::Right), ("", Align::Left)]);
        }
        output::table(&headings, &rows)?;
    }
    Ok(())
}

/// Name and probability, and what the model's threshold makes of it.
fn row(finding: &Finding) -> Vec<String> {
    let mut row = vec![finding.name.clone(), format!("{:.3}", finding.probability)];
    if let (Some(threshold), Some(present)) = (finding.threshold, finding.present) {
        let verdict = if present { "present" } else { "" };
        row.extend([format!("{threshold:.3}"), verdict.to_owned()]);
    }
    row
}
