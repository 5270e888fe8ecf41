//! What the authors' code makes of two scans.

use std::fs;
use std::path::PathBuf;

use dcformer_volume::dataset::ScanMetadata;
use dcformer_volume::geometry::Shape3;
use dcformer_volume::intensity::{RescalePolicy, Window};
use dcformer_volume::preprocess::{Intensity, ModelInput, OrientationPolicy, Preprocess};
use dcformer_volume::volume::Rescale;
use serde::Deserialize;

use super::{golden, run_file};

/// An entry of `golden/preprocess/cases.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Case {
    rescale_slope: f64,
    rescale_intercept: f64,
    #[serde(rename = "XYSpacing")]
    xy_spacing: f64,
    #[serde(rename = "ZSpacing")]
    z_spacing: f64,
    #[serde(rename = "file")]
    file: String,
    #[serde(rename = "window_hu")]
    window_hu: [f64; 2],
    #[serde(rename = "shape")]
    shape: Shape3,
    #[serde(rename = "first")]
    first: [usize; 3],
    #[serde(rename = "values")]
    values: String,
}

impl Case {
    fn read(name: &str) -> Self {
        let text = fs::read_to_string(golden("preprocess/cases.json"))
            .expect("golden/preprocess is there");
        let mut cases: std::collections::BTreeMap<String, Self> =
            serde_json::from_str(&text).expect("cases.json holds cases");
        cases
            .remove(name)
            .unwrap_or_else(|| panic!("no case `{name}`"))
    }

    fn preprocess(&self, rescale: RescalePolicy) -> Preprocess {
        let [low_hu, high_hu] = self.window_hu;
        Preprocess {
            orientation: OrientationPolicy::Keep,
            rescale,
            intensity: Intensity::Window(Window { low_hu, high_hu }),
            shape: self.shape,
            ..Preprocess::dcformer()
        }
    }

    fn metadata(&self) -> ScanMetadata {
        ScanMetadata {
            rescale: Some(Rescale {
                slope: self.rescale_slope,
                intercept: self.rescale_intercept,
            }),
            spacing_mm: Some([self.xy_spacing, self.xy_spacing, self.z_spacing]),
        }
    }

    fn scan(&self) -> PathBuf {
        golden("ct").join(&self.file)
    }
}

/// Every third value along each axis, from `first` on.
fn sampled(input: &ModelInput, first: [usize; 3]) -> Vec<f32> {
    let Shape3 {
        depth,
        height,
        width,
    } = input.shape;
    let mut values = Vec::new();
    for d in (first[0]..depth).step_by(3) {
        for h in (first[1]..height).step_by(3) {
            values.extend(
                (first[2]..width)
                    .step_by(3)
                    .map(|w| input.values[(d * height + h) * width + w]),
            );
        }
    }
    values
}

fn check_golden(name: &str) {
    let case = Case::read(name);
    let expected: Vec<f32> = fs::read(golden("preprocess").join(&case.values))
        .expect("golden values are there")
        .as_chunks()
        .0
        .iter()
        .map(|bytes| f32::from_le_bytes(*bytes))
        .collect();
    for policy in [RescalePolicy::Metadata, RescalePolicy::Auto] {
        let input = run_file(&case.preprocess(policy), &case.scan(), &case.metadata());
        let values = sampled(&input, case.first);
        assert_eq!(values.len(), expected.len());
        let largest = values
            .iter()
            .zip(&expected)
            .map(|(got, want)| (got - want).abs())
            .fold(0.0, f32::max);
        // The authors interpolate in float64; ours is float32, whose step at 1000 HU is 6e-5 HU or 1e-7 here.
        assert!(
            largest < 2e-6,
            "{name}, {policy:?}: largest difference {largest}"
        );
    }
}

#[test]
fn a_chest_becomes_what_the_authors_code_makes_of_it() {
    check_golden("thorax");
}

#[test]
fn an_anisotropic_torso_becomes_what_the_authors_code_makes_of_it() {
    check_golden("torso_anisotropic");
}
