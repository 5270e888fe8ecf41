//! What a set of phantoms is like.

use serde::{Deserialize, Serialize};

use super::labels::Frequencies;
use crate::{Error, Result};

/// How phantoms look.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PhantomConfig {
    /// Voxels along each side of a slice.
    pub columns: usize,
    /// Field of view, smallest and largest, millimetres; it is fitted to the patient between them.
    pub field_of_view_mm: [f32; 2],
    /// Distances between slices, millimetres; each scan takes one.
    pub slice_spacing_mm: Vec<f64>,
    /// How often abnormalities occur.
    pub frequencies: Frequencies,
    /// What the files hold.
    pub storage: Storage,
}

/// What the stored values of a phantom are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Storage {
    /// Hounsfield units, as in the second release of CT-RATE; the metadata's slope and intercept are the scanner's and
    /// must not be applied again.
    Hounsfield,
    /// The scanner's values, as in the first release: the metadata's slope and intercept make Hounsfield units.
    Raw,
}

impl Default for PhantomConfig {
    /// Small enough to draw a thousand in a minute on two cores.
    fn default() -> Self {
        Self {
            columns: 128,
            field_of_view_mm: [300.0, 410.0],
            slice_spacing_mm: vec![4.0, 4.5, 5.0],
            frequencies: Frequencies::default(),
            storage: Storage::Hounsfield,
        }
    }
}

impl PhantomConfig {
    /// The size of CT-RATE's scans: 512 x 512 voxels a slice, one to one and a half millimetres between slices.
    pub fn full_size() -> Self {
        Self {
            columns: 512,
            slice_spacing_mm: vec![1.0, 1.5],
            ..Self::default()
        }
    }

    /// Refuses what no scanner makes.
    pub(super) fn check(&self) -> Result<()> {
        let refuse = |field, found: String, expected| {
            Err(Error::PhantomConfig {
                field,
                found,
                expected,
            })
        };
        if !(16..=2_048).contains(&self.columns) {
            return refuse("columns", self.columns.to_string(), "16 to 2048");
        }
        let [narrow, wide] = self.field_of_view_mm;
        if !(narrow >= 50.0 && wide >= narrow && wide <= 1_000.0) {
            let found = format!("{narrow} to {wide}");
            return refuse(
                "field_of_view_mm",
                found,
                "two rising numbers from 50 to 1000",
            );
        }
        let sound = |spacing: &f64| (0.2..=20.0).contains(spacing);
        if self.slice_spacing_mm.is_empty() || !self.slice_spacing_mm.iter().all(sound) {
            let found = format!("{:?}", self.slice_spacing_mm);
            return refuse("slice_spacing_mm", found, "numbers from 0.2 to 20");
        }
        Ok(())
    }
}

/// A data set of phantoms on disk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DataSetConfig {
    /// How phantoms look.
    pub phantom: PhantomConfig,
    /// Patients of the training split.
    pub train_patients: usize,
    /// Patients of the validation split.
    pub valid_patients: usize,
    /// Share of patients with a second scan.
    pub second_scan: f32,
    /// Share of scans with a second reconstruction.
    pub second_reconstruction: f32,
    /// The set depends on this number and the other settings only.
    pub seed: u64,
    /// Level of the files' compression, 0 to 9.
    pub compression: u32,
}

impl Default for DataSetConfig {
    fn default() -> Self {
        Self {
            phantom: PhantomConfig::default(),
            train_patients: 800,
            valid_patients: 160,
            second_scan: 0.0,
            second_reconstruction: 0.0,
            seed: 1,
            compression: 1,
        }
    }
}
