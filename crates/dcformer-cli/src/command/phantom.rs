//! `dcformer phantom`: synthetic chest scans with reports.

use std::path::{Path, PathBuf};

use clap::Args;
use dcformer_volume::phantom::{
    DataSetConfig, PhantomConfig, Progress as Written, WrittenSet, write_ct_rate,
};

use crate::args::Runtime;
use crate::progress::{Progress, note};

/// Draw synthetic chest scans with reports and labels, in CT-RATE's layout
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  dcformer phantom chests/ --train 100 --valid 20")]
pub(crate) struct Phantom {
    /// Folder to write; new, empty, or an older set of phantoms
    #[arg(value_name = "OUT")]
    out: PathBuf,
    /// Patients of the training split
    #[arg(long, value_name = "N", default_value_t = DataSetConfig::default().train_patients)]
    train: usize,
    /// Patients of the validation split
    #[arg(long, value_name = "N", default_value_t = DataSetConfig::default().valid_patients)]
    valid: usize,
    /// Scans of CT-RATE's size (512 x 512 x about 300) instead of the demonstration's
    #[arg(long)]
    full_size: bool,
    /// The same seed gives the same bytes
    #[arg(long, value_name = "SEED", default_value_t = DataSetConfig::default().seed)]
    seed: u64,
    #[command(flatten)]
    runtime: Runtime,
}

impl Phantom {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        self.runtime.start()?;
        let config = DataSetConfig {
            phantom: if self.full_size {
                PhantomConfig::full_size()
            } else {
                PhantomConfig::default()
            },
            train_patients: self.train,
            valid_patients: self.valid,
            seed: self.seed,
            ..DataSetConfig::default()
        };
        let written = draw(&self.out, &config)?;
        note(&format!(
            "{}: {} training and {} validation volumes",
            self.out.display(),
            written.train_volumes,
            written.valid_volumes
        ));
        Ok(())
    }
}

/// Draws a set with a progress bar.
pub(crate) fn draw(out: &Path, config: &DataSetConfig) -> anyhow::Result<WrittenSet> {
    let total = (config.train_patients + config.valid_patients) as u64;
    let progress = Progress::new("drawing", 0, total);
    let written = write_ct_rate(out, config, |Written { done, .. }| {
        progress.set((done as u64).min(total), "");
    })?;
    progress.finish();
    Ok(written)
}
