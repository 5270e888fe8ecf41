//! `dcformer embed`: scans to latents.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use clap::Args;
use dcformer::checkpoint::Model;
use dcformer::embed::Embedder;
use dcformer::tensors::{self, Values, read_volumes};
use dcformer_volume::cache;
use dcformer_volume::ct_rate::Split;

use crate::args::Runtime;
use crate::progress::note;
use crate::scan_args::{ScanArgs, is_tensor_file};

/// Latents of scans, and the features behind them
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  dcformer embed --model MODEL scan.nii.gz --out latents.safetensors --features"
)]
pub(crate) struct Embed {
    /// Folder of the model
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// NIfTI files, DICOM folders, caches, volumes of a cache, or .safetensors with a preprocessed `volume` or `input`,
    /// which is used as it is
    #[arg(required = true, value_name = "INPUT")]
    inputs: Vec<PathBuf>,
    /// File to write: `image_latents` (N, 512), one row a volume in the order of the inputs
    #[arg(long, value_name = "F.safetensors")]
    out: PathBuf,
    /// Also write `features` (N, D, H, W, C), the grid before the projection
    #[arg(long)]
    features: bool,
    #[command(flatten)]
    scan: ScanArgs,
    #[command(flatten)]
    runtime: Runtime,
}

impl Embed {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let device = self.runtime.start()?;
        let mut model = Model::load(&self.model, &device)
            .with_context(|| format!("cannot load the model in {}", self.model.display()))?;
        self.scan.adjust(&mut model.config.preprocess);
        let embedder = Embedder::new(&model, &device);
        let (mut latents, mut features): (Vec<Values>, Vec<Values>) = (Vec::new(), Vec::new());
        for input in self.expanded_inputs()? {
            let volumes = self.volumes(&model, &input)?;
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
