//! A data set to a file of latents.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use dcformer_volume::cache::{Listing, Quarantined};
use dcformer_volume::ct_rate::Split;
use dcformer_volume::dataset::{Sample, ScanMetadata};
use dcformer_volume::scan::ScanOptions;

use super::{Entry, LatentWriter, Provenance};
use crate::detect::read_in_turn;
use crate::embed::Embedder;
use crate::error::{Error, Result};
use crate::tensors::is_unit;

/// How [`embed_data_set`] is carried out.
#[derive(Debug)]
pub struct Job<'a> {
    /// The model.
    pub embedder: &'a Embedder,
    /// What the file says of it; the scans are preprocessed as it says.
    pub provenance: Provenance,
    /// How scans are read.
    pub scan: ScanOptions,
    /// What is known of all scans, where the data set's tables say nothing.
    pub metadata: ScanMetadata,
    /// Set to true, it ends the work, and nothing is written.
    pub stop: &'a AtomicBool,
}

/// What [`embed_data_set`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Rows of the file.
    pub embedded: usize,
    /// Volumes that have no row, and why.
    pub failed: Vec<Quarantined>,
}

/// Writes the latents of all volumes of a data set, in the order of its listings. A scan that cannot be read or is no CT does
/// not stop the others. `progress` is told, after each volume, how many are done, and why the last one failed if it did.
///
/// # Errors
/// If the model cannot embed, not one volume could be read, the work was stopped, or the file cannot be written.
pub fn embed_data_set(
    listings: &[Listing],
    out: &Path,
    job: &Job<'_>,
    progress: &dyn Fn(usize, Option<&Quarantined>),
) -> Result<Summary> {
    let labels = label_names(listings);
    let items: Vec<Item<'_>> = listings
        .iter()
        .flat_map(|listing| items(listing, &labels))
        .collect();
    let read = |item: &Item<'_>| {
        let sample = item.sample;
        let metadata = sample.metadata.or(job.metadata);
        let preprocess = &job.provenance.preprocess;
        Quarantined::unless(&sample.name, || {
            preprocess.run_file(&sample.path, &metadata, &job.scan)
        })
    };
    LatentWriter::create(out, &job.provenance, &labels, |writer| {
        let (mut done, mut failed) = (0, Vec::new());
        read_in_turn(&items, read, |item, input| {
            if job.stop.load(Ordering::Relaxed) {
                return Err(Error::Stopped);
            }
            done += 1;
            let latent = match input {
                Ok(input) => checked(&item.sample.name, job.embedder.latent(input)?),
                Err(quarantined) => Err(quarantined),
            };
            match latent {
                Ok(latent) => {
                    let pushed = writer.push(item.entry(), &latent);
                    pushed.map_err(|source| Error::Write {
                        path: out.to_owned(),
                        source,
                    })?;
                    progress(done, None);
                }
                Err(quarantined) => {
                    progress(done, Some(&quarantined));
                    failed.push(quarantined);
                }
            }
            Ok(())
        })?;
        if writer.rows() == 0 {
            return Err(Error::NothingEmbedded {
                volumes: items.len(),
            });
        }
        Ok(Summary {
            embedded: writer.rows(),
            failed,
        })
    })
}

/// A volume with where its labels are among those of the file.
struct Item<'a> {
    split: Option<Split>,
    sample: &'a Sample,
    /// For each label of the file, which of the sample's it is.
    labels: Arc<[Option<usize>]>,
}

impl Item<'_> {
    fn entry(&self) -> Entry {
        let sample = self.sample;
        let label = |place: &Option<usize>| sample.labels.get((*place)?).copied().flatten();
        Entry {
            volume: sample.name.clone(),
            patient: sample.patient.clone(),
            study: sample.study().to_owned(),
            split: self.split.map(|split| split.name().to_owned()),
            report: sample.report.clone(),
            labels: self.labels.iter().map(label).collect(),
        }
    }
}

/// Names of all labels, in the order in which they come first.
fn label_names(listings: &[Listing]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for name in listings
        .iter()
        .flat_map(|listing| &listing.data.label_names)
    {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    names
}

fn items<'a>(listing: &'a Listing, labels: &[String]) -> impl Iterator<Item = Item<'a>> {
    let own = &listing.data.label_names;
    let places = labels
        .iter()
        .map(|label| own.iter().position(|name| name == label));
    let places: Arc<[_]> = places.collect();
    listing.data.samples.iter().map(move |sample| Item {
        split: listing.split,
        sample,
        labels: places.clone(),
    })
}

/// A latent that others can be compared with.
fn checked(name: &str, latent: Vec<f32>) -> Result<Vec<f32>, Quarantined> {
    if is_unit(&latent) {
        return Ok(latent);
    }
    Err(Quarantined {
        name: name.to_owned(),
        reason: "no latent".to_owned(),
        message: "the model's latent of this volume is not of length 1".to_owned(),
    })
}
