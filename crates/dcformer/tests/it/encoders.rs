//! The networks of the paper's comparison give what independent descriptions of them in PyTorch give
//! (`tests/reference/encoders.py`), and CT-ViT what CT-CLIP's code gives.

use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor, TensorData};
use dcformer::checkpoint::{ImportOptions, Model, import};
use dcformer::models::{ClipConfig, ImageTowerConfig, Reduction, Statistics, Temperature, preset};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use tempfile::TempDir;

use crate::gradients::exported_gradients;
use crate::{Tensors, distance, golden_file, largest, pytorch, values};

/// Features are of order 1; float32 sums in another order through all layers.
const FEATURE_TOLERANCE: f32 = 1e-4;
/// Gradients, relative to the largest of their tensor.
const GRADIENT_TOLERANCE: f32 = 1e-3;
/// Running statistics, relative to the largest of their tensor: one step of rounding in another order.
const BUFFER_TOLERANCE: f32 = 1e-4;
/// What stands before the names of an encoder's weights.
const PREFIXES: [&str; 2] = ["visual_transformer.encoder.", "visual_transformer."];

/// A tiny network, its weights, and what it gives.
struct Case {
    golden: Tensors,
    shape: [usize; 5],
    seed: u32,
    weights: PathBuf,
    _folder: TempDir,
}

impl Case {
    fn read(name: &str) -> Self {
        let path = golden_file(&format!("encoders/{name}.safetensors"));
        let bytes = std::fs::read(&path).unwrap();
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
        let metadata = header.metadata().clone().expect("metadata");
        let options = serde_json::from_str(&metadata["options"]).unwrap();
        let config = preset(&metadata["network"], None).unwrap().config;
        let encoder = config.with_options(options).unwrap();
        let config = ClipConfig {
            image: ImageTowerConfig {
                encoder,
                quantizer: None,
                reduction: Reduction::Channel,
                projection: None,
            },
            text: None,
            temperature: Temperature::AUTHORS,
            classifier: None,
        };
        let folder = tempfile::tempdir().unwrap();
        let weights = folder.path().join("weights.safetensors");
        write_weights(&bytes, &config, &weights);
        Self {
            golden: Tensors::read(&path),
            shape: serde_json::from_str(&metadata["shape"]).unwrap(),
            seed: metadata["seed"].parse().unwrap(),
            weights,
            _folder: folder,
        }
    }

    fn model(&self, device: &Device) -> Model {
        import(&self.weights, &ImportOptions::default(), device).unwrap()
    }

    fn volume(&self, device: &Device) -> Tensor<5> {
        let uniform = pytorch::uniform(self.seed, self.shape.iter().product());
        let start = self.golden.values("input_start");
        assert_eq!(uniform[..start.len()], *start, "another random generator");
        Tensor::from_data(TensorData::new(uniform, self.shape), device)
    }
}

/// The `weight.*` of a golden file as an export would hold them.
fn write_weights(golden: &[u8], config: &ClipConfig, path: &Path) {
    let file = SafeTensors::deserialize(golden).unwrap();
    let views = file.iter().filter_map(|(name, view)| {
        let name = name.strip_prefix("weight.")?;
        let view = TensorView::new(Dtype::F32, view.shape().to_vec(), view.data()).unwrap();
        Some((name.to_owned(), view))
    });
    let json = serde_json::to_string(config).unwrap();
    let metadata = [("dcformer.clip".to_owned(), json)].into();
    std::fs::write(path, safetensors::serialize(views, Some(metadata)).unwrap()).unwrap();
}

fn check_inference(case: &Case) {
    let device = Device::flex();
    let encoder = case.model(&device).clip.image;
    let features = encoder.features(case.volume(&device), Statistics::ByDevice);
    assert_eq!(features.dims()[..], *case.golden.shape("inference"));
    let far = distance(&values(features), case.golden.values("inference"));
    assert!(far < FEATURE_TOLERANCE, "features are {far} away");
}

fn check_training(case: &Case) {
    let device = Device::flex().autodiff();
    let golden = &case.golden;
    let model = case.model(&device);
    let volume = case.volume(&device).require_grad();
    let output = model
        .clip
        .image
        .features(volume.clone(), Statistics::ByDevice);
    let far = distance(&values(output.clone()), golden.values("training"));
    assert!(
        far < FEATURE_TOLERANCE,
        "features in training are {far} away"
    );

    let shape = output.dims();
    let cotangent = pytorch::uniform(case.seed + 1, shape.iter().product());
    let cotangent = Tensor::<5>::from_data(TensorData::new(cotangent, shape), &device);
    let gradients = (output * cotangent).mean().backward();
    let of_volume = values(volume.grad(&gradients).unwrap());
    let found = exported_gradients(model, &gradients);
    let mut wrong = Vec::new();
    let mut compared = 0;
    for name in golden.names() {
        let Some((kind, parameter)) = name.split_once('.') else {
            continue;
        };
        if kind == "weight" {
            continue;
        }
        let whole = match parameter {
            "input" => of_volume.clone(),
            _ => PREFIXES
                .iter()
                .map(|prefix| format!("{prefix}{parameter}"))
                .find(|name| found.names().any(|found| found == name))
                .map(|name| found.values(&name).to_vec())
                .unwrap_or_else(|| panic!("no parameter `{parameter}`")),
        };
        let found = match kind {
            "grad_sample" => whole.into_iter().step_by(17).collect(),
            "grad_norm" => vec![whole.iter().map(|value| value * value).sum::<f32>().sqrt()],
            _ => whole,
        };
        let expected = golden.values(name);
        let tolerance = match kind {
            "buffer_after" => BUFFER_TOLERANCE,
            _ => GRADIENT_TOLERANCE,
        };
        let allowed = tolerance * largest(expected);
        let far = distance(&found, expected);
        if far.is_nan() || far > allowed {
            wrong.push(format!("{name} is {far:e} away, {allowed:e} allowed"));
        }
        compared += 1;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(compared > 10, "only {compared} tensors were compared");
}

/// A test of inference and one of training for each case.
macro_rules! cases {
    ($($name:ident),+ $(,)?) => {
        $(mod $name {
            use super::{Case, check_inference, check_training};

            #[test]
            fn features_equal_the_description() {
                check_inference(&Case::read(stringify!($name)));
            }

            #[test]
            fn a_training_step_equals_the_description() {
                check_training(&Case::read(stringify!($name)));
            }
        })+
    };
}

cases!(
    convnext,
    ctvit,
    dcformer_attention,
    inceptionnext,
    poolformer,
    transunet,
    vit,
);

/// CT-ViT's own code: 2 + 2 layers, 64 features, patches of 10 x 20 x 20, 64 codes.
#[test]
fn ctvit_equals_ct_clips_code_before_and_after_the_quantizer() {
    let device = Device::flex();
    let golden = Tensors::golden("ctvit_small_forward");
    let weights = golden_file("ctvit_small_weights.safetensors");
    let model = import(&weights, &ImportOptions::default(), &device).unwrap();
    let image = &model.config.clip.image;
    assert_eq!(image.encoder.network(), "ctvit");
    assert_eq!(image.reduction, Reduction::Depth);
    let tower = model.clip.image;
    let features = tower.features(golden.tensor("input", &device), Statistics::ByDevice);
    assert_eq!(features.dims()[..], *golden.shape("encoded"));
    let far = distance(&values(features.clone()), golden.values("encoded"));
    assert!(far < FEATURE_TOLERANCE, "tokens are {far} away");
    // A code is copied from the book, so that equal codes are equal numbers.
    assert_eq!(values(tower.quantized(features)), golden.values("tokens"));
}
