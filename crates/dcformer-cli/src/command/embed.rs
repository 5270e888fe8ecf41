//! `dcformer embed`: scans to latents.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use clap::{Args, ValueEnum};
use dcformer::checkpoint::Model;
use dcformer::embed::Embedder;
use dcformer::latents::{Job, Provenance, Summary, embed_data_set};
use dcformer::tensors::{self, Values, read_volumes};
use dcformer_volume::cache::{self, Listing};
use dcformer_volume::ct_rate::{self, Split};
use serde::Serialize;

use crate::args::Runtime;
use crate::command::prepare::Quarantine;
use crate::command::train::say_problems;
use crate::interrupt::stop_flag;
use crate::model;
use crate::output;
use crate::progress::{Progress, note};
use crate::scan_args::{ScanArgs, is_tensor_file};

/// Latents of scans, and the features behind them; of a data set, for `search`
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    dcformer embed --model MODEL scan.nii.gz --out latents.safetensors --features\n  \
    dcformer embed --model MODEL --data CT-RATE --out latents.parquet")]
pub(crate) struct Embed {
    /// Folder of the model
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// NIfTI files, DICOM folders, caches, volumes of a cache, or .safetensors with a preprocessed `volume` or `input`,
    /// which is used as it is
    #[arg(required_unless_present = "data", value_name = "INPUT")]
    inputs: Vec<PathBuf>,
    /// In place of inputs, a data set: CT-RATE's folder, a cache, or a CSV with a column volume. A volume that cannot be read is
    /// said and counted, and does not stop the others
    #[arg(long, value_name = "DIR|CSV", conflicts_with_all = ["inputs", "features"])]
    data: Option<PathBuf>,
    /// Which part of the data set, if it has parts
    #[arg(long, value_enum, default_value_t = SplitChoice::All, requires = "data")]
    split: SplitChoice,
    /// File to write: `image_latents` (N, 512), one row a volume in the order of the inputs; of a data set a Parquet file, one row
    /// a volume with latent, patient, study, report and labels
    #[arg(long, value_name = "F.safetensors|F.parquet")]
    out: PathBuf,
    /// Also write `features` (N, D, H, W, C), the grid before the projection
    #[arg(long)]
    features: bool,
    /// Print as JSON what became of the data set's volumes
    #[arg(long, requires = "data")]
    json: bool,
    #[command(flatten)]
    scan: ScanArgs,
    #[command(flatten)]
    runtime: Runtime,
}

/// Parts of a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum SplitChoice {
    All,
    Train,
    Validation,
}

impl SplitChoice {
    /// Whether volumes of a part are meant; a data set without parts always is.
    fn includes(self, split: Option<Split>) -> bool {
        match (self, split) {
            (Self::All, _) | (_, None) => true,
            (Self::Train, Some(split)) => split == Split::Train,
            (Self::Validation, Some(split)) => split == Split::Validation,
        }
    }
}

/// What is printed of a data set.
#[derive(Debug, Serialize)]
struct Embedded {
    /// Rows of the file.
    embedded: usize,
    /// Volumes without a row, by the reason.
    failed: Quarantine,
}

impl Embed {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let device = self.runtime.start()?;
        let mut model = model::load(&self.model, &device)?;
        self.scan.adjust(&mut model.config.preprocess);
        let embedder = Embedder::new(&model, &device);
        match &self.data {
            Some(data) => self.embed_data(data, &model, &embedder),
            None => self.embed_inputs(&model, &embedder),
        }
    }

    /// Of a data set a row for each volume.
    fn embed_data(&self, data: &Path, model: &Model, embedder: &Embedder) -> anyhow::Result<()> {
        let listings = if cache::is_cache(data) {
            Listing::of_cache(data)?
        } else {
            Listing::all(data, &ct_rate::Options::default())?
        };
        let listings: Vec<Listing> = listings
            .into_iter()
            .filter(|listing| self.split.includes(listing.split))
            .collect();
        for listing in &listings {
            say_problems(&listing.data.problems);
        }
        let volumes: usize = listings.iter().map(|l| l.data.samples.len()).sum();
        ensure!(
            volumes > 0,
            "{}: there are no volumes to embed",
            data.display()
        );
        let projection = model.config.clip.image.projection.as_ref();
        let projection = projection.context(
            "the model has no projection to latents; use one that was trained with text",
        )?;
        let job = Job {
            embedder,
            provenance: Provenance::new(&self.model, projection.outputs, &model.config.preprocess)?,
            scan: self.scan.options(),
            metadata: self.scan.metadata(),
            stop: stop_flag()?,
        };
        let bar = Progress::new("embedding", 0, volumes as u64);
        let summary = embed_data_set(&listings, &self.out, &job, &|done, failed| {
            if let Some(bad) = failed {
                bar.say(&format!("left out: {}: {}", bad.name, bad.message));
            }
            bar.set(done as u64, "");
        });
        bar.finish();
        let Summary { embedded, failed } = summary?;
        let failed = Quarantine::of(&failed);
        if self.json {
            return output::json(&Embedded { embedded, failed });
        }
        output::text(&format!(
            "embedded {embedded}, left out {failed}\n{}\n",
            self.out.display()
        ))
    }

    fn embed_inputs(&self, model: &Model, embedder: &Embedder) -> anyhow::Result<()> {
        let (mut latents, mut features): (Vec<Values>, Vec<Values>) = (Vec::new(), Vec::new());
        for input in self.expanded_inputs()? {
            let volumes = self.volumes(model, &input)?;
            let embedded = embedder
                .embed(&volumes)
                .with_context(|| input.display().to_string())?;
            latents.extend(embedded.latents);
            if self.features {
                features.push(embedded.features);
            }
        }
        let mut out = Vec::new();
        let (latents, features) = (stack(&latents), stack(&features));
        if let Some(latents) = &latents? {
            out.push(("image_latents", latents.clone()));
        } else {
            ensure!(
                self.features,
                "the model has no projection to latents; pass --features for what it has"
            );
            note("the model has no projection: only features are written");
        }
        if self.features
            && let Some(features) = features.context("--features")?
        {
            out.push(("features", features));
        }
        let out: Vec<(&str, &Values)> = out.iter().map(|(name, values)| (*name, values)).collect();
        tensors::write(&self.out, &out)?;
        Ok(())
    }

    /// The inputs, with the volumes of a cache in the order of its manifest in the place of it.
    fn expanded_inputs(&self) -> anyhow::Result<Vec<PathBuf>> {
        let mut inputs = Vec::new();
        for input in &self.inputs {
            if cache::is_cache(input) {
                let all = [Some(Split::Train), Some(Split::Validation), None];
                let data = cache::read(input, &all)?;
                inputs.extend(data.samples.into_iter().map(|sample| sample.path));
            } else {
                inputs.push(input.clone());
            }
        }
        Ok(inputs)
    }

    fn volumes(&self, model: &Model, input: &Path) -> anyhow::Result<Values> {
        if is_tensor_file(input) {
            return Ok(read_volumes(input)?);
        }
        let preprocess = &model.config.preprocess;
        let input = preprocess.run_file(input, &self.scan.metadata(), &self.scan.options())?;
        for sentence in &input.notes {
            note(&sentence.to_string());
        }
        let shape = input.shape;
        Ok(Values {
            shape: vec![1, 1, shape.depth, shape.height, shape.width],
            values: input.values,
        })
    }
}

/// Several batches as one.
fn stack(batches: &[Values]) -> anyhow::Result<Option<Values>> {
    let Some(first) = batches.first() else {
        return Ok(None);
    };
    for batch in batches {
        ensure!(
            batch.shape[1..] == first.shape[1..],
            "volumes of different sizes give features of different sizes, {:?} and {:?}; embed them one by one",
            &first.shape[1..],
            &batch.shape[1..]
        );
    }
    let mut shape = first.shape.clone();
    shape[0] = batches.iter().map(|batch| batch.shape[0]).sum();
    let values = batches
        .iter()
        .flat_map(|batch| batch.values.iter().copied())
        .collect();
    Ok(Some(Values { shape, values }))
}
