//! What a head starts from: the linear probe.
//!
//! A head of zeros tells the tower below it nothing, and what it is told first is noise: the tower leaves what it knows
//! before the head has learnt to use it (Kumar et al. 2022, arXiv 2202.10054). And with latents of unit length a head has far
//! to go, in steps that suit a tower. The probe is where a head alone would end.

use std::sync::atomic::{AtomicBool, Ordering};

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};

use super::super::augmentation::Augmentation;
use super::super::config::RunConfig;
use super::super::data::{Pairs, VolumeSource};
use crate::checkpoint::Model;
use crate::error::Result;
use crate::finetune::{Examples, LinearProbe, ProbeOptions};
use crate::tensors::rows;

/// Gives the head of a model the weights of the linear probe of its latents: fitted to the volumes learnt from, with the
/// penalty that suits those held out. `progress` is told how many volumes are encoded, and of how many. Does nothing for a
/// model without a head.
///
/// Returns false if it was asked to stop before it was done.
///
/// # Errors
/// If a volume cannot be read, or the model cannot encode it.
pub(in crate::train) fn start_from_probe(
    model: &mut Model,
    config: &RunConfig,
    parts: [(&Pairs, &VolumeSource); 2],
    device: &Device,
    stop: &AtomicBool,
    progress: &dyn Fn(usize, usize),
) -> Result<bool> {
    let (Some(finetune), Some(head), Some(head_config)) = (
        &config.finetune,
        model.clip.classifier.take(),
        &model.config.clip.classifier,
    ) else {
        return Ok(true);
    };
    let mut examples = Examples {
        latents: Vec::new(),
        width: head_config.latent,
        label_names: head_config.labels.clone(),
        labels: Vec::new(),
        patients: Vec::new(),
    };
    let clip = model.clip.clone().valid();
    let count = parts.iter().map(|(pairs, _)| pairs.samples.len()).sum();
    let shape = config.preprocess.shape;
    for (pairs, volumes) in parts {
        let all: Vec<usize> = (0..pairs.samples.len()).collect();
        for indices in all.chunks(config.train.batch) {
            if stop.load(Ordering::Relaxed) {
                return Ok(false);
            }
            let values = volumes.batch(indices, &vec![Augmentation::NONE; indices.len()])?;
            let shape = [indices.len(), 1, shape.depth, shape.height, shape.width];
            let volumes = Tensor::from_data(TensorData::new(values, shape), device);
            let latents = rows(clip.encode_image(volumes)?);
            examples.latents.extend(latents.into_iter().flatten());
            progress(examples.latents.len() / examples.width, count);
        }
        let labels = pairs.labels.as_ref().into_iter();
        examples
            .labels
            .extend(labels.flat_map(|own| own.rows.clone()));
        let patients = pairs.samples.iter().map(|sample| sample.patient.clone());
        examples.patients.extend(patients);
    }
    let options = ProbeOptions {
        held_out: finetune.held_out,
        seed: config.seed,
    };
    let probe = LinearProbe::fit(&examples, &options)?;
    model.clip.classifier = Some(probe.head(head));
    Ok(true)
}
