//! `dcformer finetune`: labels to a model that answers by what it learnt from them.

use std::path::{Path, PathBuf};

use anyhow::ensure;
use clap::{ArgGroup, Args};
use dcformer::finetune::{Examples, FittedLabel, HELD_OUT, LinearProbe, ProbeOptions};
use dcformer::latents::LatentFile;
use serde::Serialize;

use crate::args::{Format, Runtime};
use crate::model;
use crate::output::{self, Align};
use crate::progress::note;

/// Teach a model labels
///
/// A part of the training patients is held out: nothing is learnt from them, and the threshold of each label is chosen on
/// them. The validation split of a data set has no part in it, and stays for `evaluate`.
#[derive(Debug, Args)]
#[command(
    group(ArgGroup::new("source").required(true).args(["latents"])),
    after_help = "Example, a linear probe, in seconds:\n  \
        dcformer embed --model MODEL --data CT-RATE --split train --out latents.parquet\n  \
        dcformer finetune --model MODEL --latents latents.parquet --out PROBED\n  \
        dcformer evaluate --model PROBED --data CT-RATE"
)]
pub(crate) struct Finetune {
    /// Folder of the model to start from
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// Latents of a labelled data set that the model has made, from `dcformer embed --data`: a linear head is fitted to them
    #[arg(long, value_name = "F.parquet")]
    latents: Option<PathBuf>,
    /// Folder to write: the model
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Share of the training patients to hold out
    #[arg(long, value_name = "SHARE", default_value_t = HELD_OUT)]
    held_out: f64,
    /// Seed of who is held out
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    format: Format,
    #[command(flatten)]
    runtime: Runtime,
}

/// What is printed of a linear probe as JSON.
#[derive(Serialize)]
struct Probed<'a> {
    labels: &'a [FittedLabel],
    left_out: &'a [String],
    learnt: usize,
    held_out: usize,
}

impl Finetune {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        match &self.latents {
            Some(latents) => self.probe(latents),
            None => unreachable!("a source is required"),
        }
    }

    fn probe(&self, latents: &Path) -> anyhow::Result<()> {
        let device = self.runtime.start()?;
        let file = LatentFile::open(latents)?;
        file.check_model(&self.model)?;
        let mut model = model::load(&self.model, &device)?;
        let width = model
            .config
            .clip
            .image
            .projection
            .map_or(0, |own| own.outputs);
        file.check_width(width)?;
        // The head answers for scans that are treated as those it has learnt from.
        model.config.preprocess = file.preprocess(&model.config.preprocess)?;
        let options = ProbeOptions {
            held_out: self.held_out,
            seed: self.seed,
        };
        let probe = LinearProbe::fit(&Examples::read(&file)?, &options)?;
        ensure!(
            !is_same(&self.model, &self.out),
            "{}: is the model to start from; name another folder for the new one",
            self.out.display()
        );
        probe.apply(model, &device).save(&self.out)?;
        if !probe.left_out.is_empty() {
            note(&format!(
                "left out, because volumes with or without are missing among those to learn from or those held out: {}",
                probe.left_out.join(", ")
            ));
        }
        if self.format.json {
            return output::json(&Probed {
                labels: &probe.labels,
                left_out: &probe.left_out,
                learnt: probe.learnt,
                held_out: probe.held_out,
            });
        }
        print(&probe)?;
        note(&format!(
            "learnt from {} volumes, {} held out; the model is in {}",
            probe.learnt,
            probe.held_out,
            self.out.display()
        ));
        Ok(())
    }
}

/// Whether two paths lead to one folder.
fn is_same(a: &Path, b: &Path) -> bool {
    match (a.canonicalize(), b.canonicalize()) {
        (Ok(a), Ok(b)) => a == b,
        _ => false,
    }
}

fn print(probe: &LinearProbe) -> anyhow::Result<()> {
    let row = |label: &FittedLabel| {
        vec![
            label.name.clone(),
            label.positives.to_string(),
            label.negatives.to_string(),
            format!("{:.1e}", label.penalty),
            label
                .held_out_auroc
                .map_or("-".to_owned(), |auroc| format!("{auroc:.3}")),
            format!("{:.3}", label.threshold),
        ]
    };
    let rows: Vec<Vec<String>> = probe.labels.iter().map(row).collect();
    let headings = [
        ("label", Align::Left),
        ("with", Align::Right),
        ("without", Align::Right),
        ("penalty", Align::Right),
        ("AUROC held out", Align::Right),
        ("present from", Align::Right),
    ];
    output::table(&headings, &rows)
}
