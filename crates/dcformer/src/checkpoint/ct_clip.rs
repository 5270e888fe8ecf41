//! CT-CLIP's checkpoints: the names of its image encoder, what of it is not used, sizes from shapes.
//!
//! | here | there, behind `visual_transformer.` |
//! |---|---|
//! | `patch_embedding` | `to_patch_emb.1` to `.3` |
//! | `position_bias` | `spatial_rel_pos_bias.net` |
//! | `spatial`, `temporal` | `enc_spatial_transformer`, `enc_temporal_transformer` |
//! | `layers.I.position`, `.attention`, `.feed_forward` | `layers.I.0.dsconv`, `.1`, `.3` |
//!
//! Projections, quantizer and text encoder have the names of the authors of DCFormer, whose code comes from CT-CLIP's.

use dcformer_volume::geometry::Shape3;

use super::apply::Placement;
use super::huggingface::norm;
use super::official::{linear, no_name, prefixed, same};
use super::weights::Weights;
use crate::error::{Error, Result};
use crate::models::{CtvitEncoderConfig, Temperature};

/// What stands before the names of the encoder.
pub(super) const PREFIX: &str = "visual_transformer.";
/// The tensor by which the encoder is found, whatever stands before it.
pub(super) const LANDMARK: &str = "enc_spatial_transformer.layers.0.1.to_q.weight";

/// Parts of the image encoder that are for decoding, or for training the autoencoder.
const UNUSED_OF_ENCODER: [&str; 6] = [
    "to_patch_emb_first_frame.",
    "to_pixels",
    "dec_spatial_transformer.",
    "dec_temporal_transformer.",
    "discr.",
    "vgg.",
];
/// Copies of the projections for a loss that CT-CLIP does not use.
const UNUSED_OF_CLIP: [&str; 2] = ["to_text_latent_extra.", "to_visual_latent_extra."];
/// The logarithm of the logit scale.
const TEMPERATURE: &str = "temperature";

/// Drops what encoding does not need.
pub(super) fn drop_unused(weights: &mut Weights) {
    weights.rename(|name| {
        let starts =
            |prefixes: &[&str], name: &str| prefixes.iter().any(|prefix| name.starts_with(prefix));
        let unused = starts(&UNUSED_OF_CLIP, name)
            || name
                .strip_prefix(PREFIX)
                .is_some_and(|name| starts(&UNUSED_OF_ENCODER, name));
        (!unused).then(|| name.to_owned())
    });
}

/// Takes the learnt temperature out of the weights; `None` if there is none.
pub(super) fn take_temperature(weights: &mut Weights) -> Result<Option<Temperature>> {
    let logarithm = weights.take_number(TEMPERATURE)?;
    Ok(logarithm.map(|logarithm| Temperature::Fixed {
        scale: f64::from(logarithm).exp(),
    }))
}

/// Sizes of the encoder, from the shapes of its tensors. Their names begin with [`PREFIX`].
///
/// # Errors
/// [`Error::TensorShape`] if the patch cannot be told from its number of voxels.
pub(super) fn infer(weights: &Weights) -> Result<CtvitEncoderConfig> {
    let shape = |name: &str| weights.shape(&format!("{PREFIX}{name}"));
    let first = |name: &str| shape(name).and_then(|shape| shape.first().copied());
    let layers = |transformer: &str| {
        (0..)
            .take_while(|index| {
                let query = format!("enc_{transformer}_transformer.layers.{index}.1.to_q.weight");
                shape(&query).is_some()
            })
            .count()
            .max(1)
    };
    let paper = CtvitEncoderConfig::paper();
    let voxels = first("to_patch_emb.1.weight").unwrap_or(paper.patch.voxels());
    let patch = patch_of(voxels).ok_or_else(|| Error::TensorShape {
        path: weights.path.clone(),
        tensor: format!("{PREFIX}to_patch_emb.1.weight"),
        found: vec![voxels],
        expected: "the voxels of a patch that is twice as high and wide as deep; name another one with --model-name ctvit \
                   and a variant",
    })?;
    Ok(CtvitEncoderConfig {
        width: first("to_patch_emb.2.weight").unwrap_or(paper.width),
        patch,
        spatial_layers: layers("spatial"),
        temporal_layers: layers("temporal"),
        heads: first("spatial_rel_pos_bias.net.2.weight").unwrap_or(paper.heads),
        head_dim: first("enc_spatial_transformer.layers.0.1.q_scale").unwrap_or(paper.head_dim),
    })
}

/// The patch of this many voxels, if it is of the form of all known ones: twice as high and wide as deep.
fn patch_of(voxels: usize) -> Option<Shape3> {
    let depth = (1..).find(|depth| 4 * depth * depth * depth >= voxels)?;
    let patch = Shape3 {
        depth,
        height: 2 * depth,
        width: 2 * depth,
    };
    (patch.voxels() == voxels).then_some(patch)
}

/// The name of a parameter of a [`CtvitEncoder`](crate::models::CtvitEncoder), behind [`PREFIX`].
pub(super) fn name(path: &[&str]) -> Placement {
    match path {
        ["patch_embedding", "values_norm", field] => norm("to_patch_emb.1", field),
        ["patch_embedding", "linear", field] => linear(format!("to_patch_emb.2.{field}"), field),
        ["patch_embedding", "norm", field] => norm("to_patch_emb.3", field),
        ["position_bias", layer, field] => {
            let layer = match *layer {
                "first" => "0.0",
                "second" => "1.0",
                "output" => "2",
                _ => no_name(path),
            };
            linear(format!("spatial_rel_pos_bias.net.{layer}.{field}"), field)
        }
        ["spatial", rest @ ..] => prefixed("enc_spatial_transformer.", transformer(rest)),
        ["temporal", rest @ ..] => prefixed("enc_temporal_transformer.", transformer(rest)),
        _ => no_name(path),
    }
}

fn transformer(path: &[&str]) -> Placement {
    match path {
        ["layers", index, rest @ ..] => prefixed(&format!("layers.{index}."), layer(rest)),
        ["norm", field] => same(format!("norm_out.{field}")),
        _ => no_name(path),
    }
}

fn layer(path: &[&str]) -> Placement {
    match path {
        ["position", field] => same(format!("0.dsconv.{field}")),
        ["attention", "norm", field] => same(format!("1.norm.{field}")),
        ["attention", "context_norm", field] => same(format!("1.context_norm.{field}")),
        ["attention", "query", field] => linear(format!("1.to_q.{field}"), field),
        ["attention", "key_value", field] => linear(format!("1.to_kv.{field}"), field),
        ["attention", "output", field] => linear(format!("1.to_out.{field}"), field),
        ["attention", "query_scale"] => same("1.q_scale".to_owned()),
        ["attention", "key_scale"] => same("1.k_scale".to_owned()),
        ["feed_forward", "norm", field] => norm("3.0", field),
        ["feed_forward", "expand", field] => linear(format!("3.1.{field}"), field),
        ["feed_forward", "contract", field] => linear(format!("3.4.{field}"), field),
        _ => no_name(path),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::path::Path;

    use super::super::tensor_file::Part;
    use super::super::weights::{Data, Element, StoredTensor};
    use super::*;

    #[test]
    fn published_patches_are_told_from_their_voxels() {
        for patch in [
            CtvitEncoderConfig::paper().patch,
            CtvitEncoderConfig::ct_clip().patch,
        ] {
            assert_eq!(patch_of(patch.voxels()), Some(patch));
        }
        assert_eq!(patch_of(4001), None);
        assert_eq!(patch_of(0), None);
    }

    /// Tensors of these shapes without values.
    fn shapes(tensors: &[(String, Vec<usize>)]) -> Weights {
        let tensor = |(name, shape): &(String, Vec<usize>)| {
            let tensor = StoredTensor {
                file: Path::new("shapes.pt").into(),
                shape: shape.clone(),
                element: Element::F32,
                data: Data::Part(Part::empty()),
            };
            (format!("{PREFIX}{name}"), tensor)
        };
        Weights {
            path: "shapes.pt".into(),
            tensors: tensors.iter().map(tensor).collect(),
            metadata: HashMap::new(),
        }
    }

    #[test]
    fn ct_clips_sizes_are_read_from_its_shapes() {
        let mut tensors = vec![
            ("to_patch_emb.1.weight".to_owned(), vec![4000]),
            ("to_patch_emb.2.weight".to_owned(), vec![512, 4000]),
            ("spatial_rel_pos_bias.net.2.weight".to_owned(), vec![8, 512]),
            (
                "enc_spatial_transformer.layers.0.1.q_scale".to_owned(),
                vec![32],
            ),
        ];
        for transformer in ["spatial", "temporal"] {
            for layer in 0..4 {
                let name = format!("enc_{transformer}_transformer.layers.{layer}.1.to_q.weight");
                tensors.push((name, vec![256, 512]));
            }
        }
        assert_eq!(
            infer(&shapes(&tensors)).unwrap(),
            CtvitEncoderConfig::ct_clip()
        );
        tensors[0].1 = vec![4001];
        let message = infer(&shapes(&tensors)).unwrap_err().to_string();
        assert!(
            message.contains("[4001]") && message.contains("--model-name"),
            "{message}"
        );
    }
}
