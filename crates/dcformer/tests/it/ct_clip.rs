//! CT-CLIP's checkpoints.

use std::path::Path;

use burn::tensor::{Device, Tensor};
use dcformer::checkpoint::{Duplicates, ImportOptions, import};
use dcformer::models::{Reduction, Temperature};
use safetensors::Dtype;

use crate::checkpoint::{Raw, exported, read_raw, write_raw};
use crate::{Tensors, distance, golden_file, values};

/// What CT-CLIP's checkpoints hold besides the encoder, at the size of the golden one.
fn ct_clip_checkpoint(path: &Path) {
    let mut raw: Raw = read_raw(&golden_file("ctvit_small_weights.safetensors"))
        .into_iter()
        .map(|(name, tensor)| (format!("visual_transformer.{name}"), tensor))
        .collect();
    let floats = |shape: &[usize], value: fn(usize) -> f32| {
        let count = shape.iter().product();
        let bytes = (0..count).flat_map(|at| value(at).to_le_bytes()).collect();
        (Dtype::F32, shape.to_vec(), bytes)
    };
    let wave = |at: usize| (at as f32 * 0.7).sin() / 32.0;
    for (name, shape) in [
        ("to_visual_latent.weight", [8, 4 * 4 * 64]),
        ("to_visual_latent_extra.weight", [8, 4 * 4 * 64]),
        ("to_text_latent_extra.weight", [8, 64]),
        ("visual_transformer.to_pixels.0.weight", [4000, 64]),
        (
            "visual_transformer.to_patch_emb_first_frame.2.weight",
            [64, 400],
        ),
        (
            "visual_transformer.dec_spatial_transformer.norm_out.gamma",
            [1, 64],
        ),
        ("visual_transformer.vgg.features.0.weight", [3, 3]),
        ("visual_transformer.discr.to_logits.0.weight", [3, 3]),
    ] {
        raw.insert(name.to_owned(), floats(&shape, wave));
    }
    raw.insert("temperature".to_owned(), floats(&[], |_| 1.25));
    write_raw(&raw, path);
}

#[test]
fn a_ct_clip_checkpoint_is_a_model() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ct_clip.safetensors");
    ct_clip_checkpoint(&path);
    let device = Device::flex();
    let model = import(&path, &ImportOptions::default(), &device).unwrap();
    let scale = f64::from(1.25f32).exp();
    assert_eq!(model.config.clip.temperature, Temperature::Fixed { scale });
    assert_eq!(model.config.clip.image.reduction, Reduction::Depth);

    // The mean over depth of the tokens, flattened in the order height, width, features, projected, of unit length.
    let golden = Tensors::golden("ctvit_small_forward");
    let found = model.clip.encode_image(golden.tensor("input", &device));
    let tokens: Tensor<5> = golden.tensor("tokens", &device);
    let weight: Tensor<2> = Tensors::read(&path).tensor("to_visual_latent.weight", &device);
    let latent = tokens
        .mean_dim(1)
        .reshape([1, 4 * 4 * 64])
        .matmul(weight.transpose());
    let length = latent.clone().square().sum_dim(1).sqrt();
    let far = distance(&values(found.unwrap()), &values(latent / length));
    assert!(far < 1e-5, "{far}");

    // What goes out is what came in, without what is not used.
    let (_folder, exported) = exported(&model, Duplicates::Write);
    let (original, exported) = (read_raw(&path), read_raw(&exported));
    for (name, tensor) in &exported {
        assert_eq!(original.get(name), Some(tensor), "{name}");
    }
    let unused: Vec<_> = original
        .keys()
        .filter(|name| !exported.contains_key(*name))
        .collect();
    assert_eq!(unused.len(), 8, "{unused:?}");

    // Volumes of another size have no latent here.
    let wide = Tensor::zeros([1, 1, 30, 80, 100], &device);
    let message = model.clip.encode_image(wide).unwrap_err().to_string();
    assert!(
        message.contains("30x80x100") && message.contains("1024 values"),
        "{message}"
    );
}
