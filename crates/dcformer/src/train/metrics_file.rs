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
}

#[derive(Serialize, Deserialize)]
struct Numbered {
    step: u64,
}

impl MetricsFile {
    /// Opens the file for a run that goes on after `steps` steps: lines of later steps, which a kill left behind, are
    /// dropped, since those steps come again.
    pub(super) fn open(path: &Path, steps: u64) -> Result<Self> {
        let kept = match File::open(path) {
            Err(_) => String::new(),
            Ok(file) => BufReader::new(file)
                .lines()
                .map_while(std::io::Result::ok)
                .take_while(|line| {
                    serde_json::from_str::<Numbered>(line).is_ok_and(|line| line.step <= steps)
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
        })
    }

    /// Appends a line.
    pub(super) fn append(&mut self, report: &StepReport) -> Result<()> {
        let mut line = serde_json::to_string(report).expect("a report of numbers has a JSON form");
        line.push('\n');
        self.file
            .write_all(line.as_bytes())
            .map_err(|source| Error::Write {
                path: self.path.clone(),
                source,
            })
    }
}
