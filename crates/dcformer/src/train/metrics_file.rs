//! `metrics.jsonl`: one line per step, in step with the checkpoints.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::run::StepReport;
use crate::error::{Error, Result};

/// The file, open for appending.
pub(super) struct MetricsFile {
    path: PathBuf,
    file: File,
    /// Losses of the volumes held out, in the order in which they were measured.
    validations: Vec<f64>,
}

#[derive(Serialize, Deserialize)]
struct Numbered {
    step: u64,
    #[serde(default)]
    validation_loss: Option<f64>,
}

impl MetricsFile {
    /// Opens the file for a run that goes on after `steps` steps: lines of later steps, which a kill left behind, are
    /// dropped, since those steps come again.
    pub(super) fn open(path: &Path, steps: u64) -> Result<Self> {
        let mut validations = Vec::new();
        let kept = match File::open(path) {
            Err(_) => String::new(),
            Ok(file) => BufReader::new(file)
                .lines()
                .map_while(std::io::Result::ok)
                .take_while(|line| {
                    let line = serde_json::from_str::<Numbered>(line).ok();
                    let kept = line.filter(|line| line.step <= steps);
                    validations.extend(kept.as_ref().and_then(|line| line.validation_loss));
                    kept.is_some()
                })
                .flat_map(|line| [line, "\n".to_owned()])
                .collect(),
        };
        crate::checkpoint::write_file(path, kept.as_bytes())?;
        let file = OpenOptions::new()
            .append(true)
            .open(path)
            .map_err(|source| Error::Write {
                path: path.to_owned(),
                source,
            })?;
        Ok(Self {
            path: path.to_owned(),
            file,
            validations,
        })
    }

    /// How often the loss of the volumes held out was measured since it was least; of equal ones the first counts.
    pub(super) fn validations_since_best(&self) -> usize {
        let count = self.validations.len();
        let least = (0..count).min_by(|a, b| self.validations[*a].total_cmp(&self.validations[*b]));
        least.map_or(0, |least| count - 1 - least)
    }

    /// Appends a line.
    pub(super) fn append(&mut self, report: &StepReport) -> Result<()> {
        let mut line = serde_json::to_string(report).expect("a report of numbers has a JSON form");
        line.push('\n');
        self.validations.extend(report.validation_loss);
        self.file
            .write_all(line.as_bytes())
            .map_err(|source| Error::Write {
                path: self.path.clone(),
                source,
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(step: u64, validation_loss: Option<f64>) -> StepReport {
        StepReport {
            step,
            steps: 9,
            epoch: 0,
            loss: 1.0,
            learning_rate: 0.1,
            gradient_norm: 1.0,
            pairs_per_s: 1.0,
            validation_loss,
        }
    }

    #[test]
    fn the_best_validation_is_the_same_for_a_run_that_goes_on() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("metrics.jsonl");
        let mut file = MetricsFile::open(&path, 0).expect("a file");
        assert_eq!(file.validations_since_best(), 0);
        let losses = [Some(3.0), None, Some(1.0), Some(1.0), Some(2.0), Some(0.5)];
        let mut found = Vec::new();
        for (step, loss) in (1..).zip(losses) {
            file.append(&report(step, loss)).expect("it can be written");
            found.push(file.validations_since_best());
        }
        assert_eq!(found, [0, 0, 0, 1, 2, 0]);
        // Of a run that goes on after fewer steps, later lines count no more.
        for steps in (1..=6).rev() {
            let file = MetricsFile::open(&path, steps).expect("a file");
            assert_eq!(file.validations_since_best(), found[steps as usize - 1]);
        }
    }
}
