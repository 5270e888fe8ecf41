//! `dcformer search`: the studies of a data set that are most similar to a text or a scan.

use std::collections::BTreeMap;
use std::num::NonZero;
use std::path::{Path, PathBuf};

use clap::{ArgGroup, Args};
use dcformer::Device;
use dcformer::checkpoint::Model;
use dcformer::embed::{Embedder, ReportEmbedder};
use dcformer::latents::{Entry, LatentFile};
use dcformer::search::{Hit, LatentIndex};
use serde::Serialize;

use crate::args::{Format, Runtime};
use crate::model;
use crate::output::{self, Align};
use crate::progress::note;
use crate::scan_args::ScanArgs;

/// Find the studies that are most similar to a text or a scan
#[derive(Debug, Args)]
#[command(
    group(ArgGroup::new("query").required(true).args(["text", "like"])),
    after_help = "Examples:\n  \
        dcformer embed --model MODEL --data CT-RATE --out latents.parquet\n  \
        dcformer search --model MODEL latents.parquet --text \"Large pleural effusion on the left.\"\n  \
        dcformer search --model MODEL latents.parquet --like scan.nii.gz --top 5 --json"
)]
pub(crate) struct Search {
    /// Folder of the model that made the latents
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// Latents of a data set, from `dcformer embed --data`
    #[arg(value_name = "LATENTS.parquet")]
    latents: PathBuf,
    /// What to look for, in words, as reports are written
    #[arg(long, value_name = "TEXT")]
    text: Option<String>,
    /// A scan to look for similar ones of: a NIfTI file, a DICOM folder, or a volume of a cache
    #[arg(long, value_name = "SCAN")]
    like: Option<PathBuf>,
    /// How many studies to find; each is there once, by the most similar of its volumes
    #[arg(long, value_name = "K", default_value = "10")]
    top: NonZero<usize>,
    #[command(flatten)]
    format: Format,
    #[command(flatten)]
    scan: ScanArgs,
    #[command(flatten)]
    runtime: Runtime,
}

/// A study that was found, as it is printed.
#[derive(Debug, Serialize)]
struct Found {
    /// Cosine, from -1 to 1.
    similarity: f32,
    study: String,
    volume: String,
    patient: String,
    split: Option<String>,
    labels: BTreeMap<String, Option<bool>>,
    report: Option<String>,
}

impl Search {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let device = self.runtime.start()?;
        let file = LatentFile::open(&self.latents)?;
        file.check_model(&self.model)?;
        let model = model::load(&self.model, &device)?;
        let query = match (&self.text, &self.like) {
            (Some(text), _) => ReportEmbedder::new(&model)?.embed(&[text])?.remove(0),
            (None, Some(scan)) => self.embed(scan, &model, &file, &device)?,
            (None, None) => unreachable!("one of the two is required"),
        };
        file.check_width(query.len())?;
        let index = LatentIndex::new(file.read_latents()?, query.len(), file.read_studies()?);
        let hits = index.search(&query, self.top.get());
        let rows: Vec<usize> = hits.iter().map(|hit| hit.row).collect();
        let entries = file.read_entries(&rows)?;
        let labels: Vec<&str> = file.labels().collect();
        let found: Vec<Found> = hits
            .iter()
            .zip(entries)
            .map(|(hit, entry)| Found::new(hit, entry, &labels))
            .collect();
        if self.format.json {
            output::json(&found)
        } else {
            print(&found)
        }
    }

    /// The latent of a scan, which is preprocessed as those in the file were.
    fn embed(
        &self,
        scan: &Path,
        model: &Model,
        file: &LatentFile,
        device: &Device,
    ) -> anyhow::Result<Vec<f32>> {
        let mut preprocess = file.preprocess(&model.config.preprocess)?;
        self.scan.adjust(&mut preprocess);
        let input = preprocess.run_file(scan, &self.scan.metadata(), &self.scan.options())?;
        for sentence in &input.notes {
            note(&sentence.to_string());
        }
        Ok(Embedder::new(model, device).latent(input)?)
    }
}

impl Found {
    fn new(hit: &Hit, entry: Entry, labels: &[&str]) -> Self {
        let names = labels.iter().map(|label| (*label).to_owned());
        Self {
            similarity: hit.similarity,
            study: entry.study,
            volume: entry.volume,
            patient: entry.patient,
            split: entry.split,
            labels: names.zip(entry.labels).collect(),
            report: entry.report,
        }
    }
}

fn print(found: &[Found]) -> anyhow::Result<()> {
    /// Characters of a cell; all of it is in the JSON.
    const SHOWN: usize = 60;
    let rows: Vec<Vec<String>> = found
        .iter()
        .map(|found| {
            let present = found
                .labels
                .iter()
                .filter(|(_, label)| **label == Some(true));
            let present: Vec<&str> = present.map(|(name, _)| name.as_str()).collect();
            vec![
                format!("{:.3}", found.similarity),
                on_a_line(&found.study, SHOWN),
                on_a_line(&found.volume, SHOWN),
                on_a_line(&present.join(", "), SHOWN),
                on_a_line(found.report.as_deref().unwrap_or_default(), SHOWN),
            ]
        })
        .collect();
    let headings = [
        ("similarity", Align::Right),
        ("study", Align::Left),
        ("volume", Align::Left),
        ("present", Align::Left),
        ("report", Align::Left),
    ];
    output::table(&headings, &rows)
}

/// Text without line breaks and without what a terminal would obey, cut where it is longer than `most` characters.
fn on_a_line(text: &str, most: usize) -> String {
    let plain = |character: char| {
        if character.is_control() {
            ' '
        } else {
            character
        }
    };
    let mut line: String = text.chars().take(most).map(plain).collect();
    if text.chars().nth(most).is_some() {
        line.push_str("...");
    }
    line
}

#[cfg(test)]
mod tests {
    use super::on_a_line;

    #[test]
    fn a_stranger_cannot_steer_the_terminal() {
        assert_eq!(on_a_line("a\n\u{1b}[2Jb", 10), "a  [2Jb");
        assert_eq!(on_a_line("four\u{e9}", 4), "four...");
        assert_eq!(on_a_line("four", 4), "four");
    }
}
