//! From a scan to a network's input: the steps in order, and presets with their source.
//!
//! ```text
//! stored values -> Hounsfield units -> clip [-1000, 1000] -> trilinear to the wanted spacing -> window to [-1, 1]
//!               -> centre crop or pad -> (1, depth, height, width)
//! ```
//! (SPEC section 4.) Slices are resampled as they arrive, and only the part that survives the crop: a NIfTI file never
//! lies in memory as a whole. A volume in memory and a file give the same bits.

mod assembly;
mod in_memory;
mod layout;
mod plan;
mod stream;

use std::fmt;
use std::path::Path;

use half::f16;
use half::slice::HalfFloatSliceExt;
use half::vec::HalfBitsVecExt;
use serde::{Deserialize, Serialize};

use crate::cache::PreparedVolume;
use crate::dataset::ScanMetadata;
use crate::error::{Error, Result};
use crate::geometry::Shape3;
use crate::intensity::{RescaleDecision, RescalePolicy, Window};
use crate::nifti::NiftiReader;
use crate::scan::{self, Scan, ScanKind, ScanOptions};
use crate::volume::Volume;

/// How a scan becomes a network's input. The default is [`Preprocess::dcformer`].
///
/// # Example
/// ```
/// # use dcformer_volume::preprocess::Preprocess;
/// let json = r#"{ "shape": { "depth": 128, "height": 256, "width": 256 }, "rescale": "header" }"#;
/// let preprocess: Preprocess = serde_json::from_str(json)?;
/// assert_eq!(preprocess.fit, Preprocess::dcformer().fit);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Preprocess {
    /// Which way the patient lies in the array.
    pub orientation: OrientationPolicy,
    /// Which storage axis becomes the rows.
    pub plane: PlaneOrder,
    /// Where slope and intercept come from.
    pub rescale: RescalePolicy,
    /// What becomes of the values.
    pub intensity: Intensity,
    /// How the scan comes to the size `shape`.
    pub fit: Fit,
    /// Sizes of the result.
    pub shape: Shape3,
    /// Value where there is no scan, after scaling: -1 is air under a [`Window`].
    pub pad_value: f32,
}

/// Which way the patient lies in the array.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OrientationPolicy {
    /// As CT-RATE stores its scans, whatever this one's order: `i` towards left, `j` towards posterior, `k` towards
    /// superior. Axes are permuted and flipped, never rotated: an oblique scan stays oblique.
    #[default]
    Canonical,
    /// As stored. The authors' code does this; it is the same for CT-RATE's files.
    Keep,
}

/// Which in-plane storage axis (after orientation) is the height of the result, and which its width.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlaneOrder {
    /// Height runs along `i` and width along `j`, so that slices lie on their side: the authors' code, and CT-CLIP's,
    /// move the last axis of the array to the front and leave the others (`permute(2, 0, 1)`).
    #[default]
    ColumnsFirst,
    /// Height runs along `j` and width along `i`, as a slice is shown on a screen: code that reads with ITK.
    RowsFirst,
}

/// What becomes of the values.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Intensity {
    /// A range of Hounsfield units to [-1, 1].
    Window(Window),
    /// The scan's own smallest and largest value to 0 and 1.
    MinMax,
}

impl Intensity {
    /// What the smallest and the largest value become.
    pub const fn range(self) -> [f32; 2] {
        match self {
            Self::Window(_) => [-1.0, 1.0],
            Self::MinMax => [0.0, 1.0],
        }
    }
}

/// How a scan comes to the wanted size.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Fit {
    /// Resample to this spacing, then crop or pad about the centre: a millimetre keeps its length.
    SpacingMm {
        /// Between slices.
        depth: f64,
        /// Between rows.
        height: f64,
        /// Between columns.
        width: f64,
    },
    /// Resample to the wanted shape, whatever that does to proportions.
    Stretch {
        /// Before that, drop the border where there is nothing but the smallest value.
        crop_foreground: bool,
    },
}

impl Default for Preprocess {
    fn default() -> Self {
        Self::dcformer()
    }
}

impl Preprocess {
    /// DCFormer as its authors train it: 0.75 mm in-plane, 1.5 mm between slices, 512 x 512 x 256, `(HU + 400) / 600`
    /// clipped to [-1, 1] (their data loader; SPEC section 4).
    pub const fn dcformer() -> Self {
        Self {
            orientation: OrientationPolicy::Canonical,
            plane: PlaneOrder::ColumnsFirst,
            rescale: RescalePolicy::Auto,
            intensity: Intensity::Window(Window::DCFORMER),
            fit: Fit::SpacingMm {
                depth: 1.5,
                height: 0.75,
                width: 0.75,
            },
            shape: Shape3 {
                depth: 256,
                height: 512,
                width: 512,
            },
            pad_value: -1.0,
        }
    }

    /// DCFormer as the paper's text has it: the same with [-1000, 1000] / 1000.
    pub const fn dcformer_paper() -> Self {
        Self {
            intensity: Intensity::Window(Window::FULL),
            ..Self::dcformer()
        }
    }

    /// CT-CLIP (its inference data loader): 480 x 480 x 240, [-1000, 1000] / 1000.
    pub const fn ct_clip() -> Self {
        Self {
            shape: Shape3 {
                depth: 240,
                height: 480,
                width: 480,
            },
            ..Self::dcformer_paper()
        }
    }

    /// Med3DVLM, the follow-up (data preparation of M3D-Cap, which it inherits): smallest and largest value to 0 and 1,
    /// cropped to the foreground, stretched to 128 x 256 x 256. Rows first, as its arrays come from ITK and from
    /// images of slices.
    pub const fn med3dvlm() -> Self {
        Self {
            plane: PlaneOrder::RowsFirst,
            // Scaling by smallest and largest value undoes any slope and intercept: there is nothing to decide.
            rescale: RescalePolicy::Header,
            intensity: Intensity::MinMax,
            fit: Fit::Stretch {
                crop_foreground: true,
            },
            shape: Shape3 {
                depth: 128,
                height: 256,
                width: 256,
            },
            pad_value: 0.0,
            ..Self::dcformer()
        }
    }

    /// Preprocesses a scan in memory.
    ///
    /// # Errors
    /// When the configuration or the scan's geometry is unusable, most of its voxels are not finite, or its values
    /// look like CT under no reading ([`RescalePolicy::Auto`]).
    pub fn run(&self, volume: &Volume, metadata: &ScanMetadata) -> Result<ModelInput> {
        self.run_named(Path::new("scan in memory"), volume, metadata)
    }

    /// Preprocesses a scan on disk: what [`read_scan`](scan::read_scan) reads. A volume of a cache is only loaded, if it was
    /// prepared in this way.
    ///
    /// A NIfTI file is resampled while it is decompressed, if the slices of the result lie one after the other in it
    /// and the configuration is not about the scan as a whole ([`Intensity::MinMax`], foreground). Either way gives the
    /// same bits as [`Preprocess::run`].
    ///
    /// # Errors
    /// As [`Preprocess::run`], and when the scan cannot be read.
    pub fn run_file(
        &self,
        path: &Path,
        metadata: &ScanMetadata,
        options: &ScanOptions,
    ) -> Result<ModelInput> {
        self.check()?;
        let (volume, notes) = match scan::scan_kind(path)? {
            ScanKind::Prepared => {
                return PreparedVolume::open_for(path, self, metadata, options)?.input();
            }
            ScanKind::Nifti => match self.run_stream(path, metadata)? {
                Some(input) => return Ok(input),
                None => NiftiReader::open(path)?.into_volume()?,
            },
            ScanKind::Dicom => {
                let Scan { volume, notes, .. } = scan::read_scan(path, options)?;
                (volume, notes)
            }
        };
        let mut input = self.run_named(path, &volume, metadata)?;
        input.notes.extend(notes.into_iter().map(Note::File));
        Ok(input)
    }

    /// The same in half precision, as training keeps volumes and a cache stores them: [`ModelInput::to_half`].
    ///
    /// # Errors
    /// As [`Preprocess::run_file`].
    pub fn run_file_half(
        &self,
        path: &Path,
        metadata: &ScanMetadata,
        options: &ScanOptions,
    ) -> Result<Vec<f16>> {
        if scan::scan_kind(path)? == ScanKind::Prepared {
            return PreparedVolume::open_for(path, self, metadata, options)?.values();
        }
        Ok(self.run_file(path, metadata, options)?.to_half())
    }

    /// Name of the preset that this is, if it is one.
    pub fn preset_name(&self) -> Option<&'static str> {
        [
            ("dcformer", Self::dcformer()),
            ("dcformer-paper", Self::dcformer_paper()),
            ("ct-clip", Self::ct_clip()),
            ("med3dvlm", Self::med3dvlm()),
        ]
        .into_iter()
        .find_map(|(name, preset)| (*self == preset).then_some(name))
    }

    /// Refuses what cannot be carried out, naming the field.
    ///
    /// # Errors
    /// [`Error::PreprocessField`].
    pub fn check(&self) -> Result<()> {
        let field = |field, found: String, expected| {
            Err(Error::PreprocessField {
                field,
                found,
                expected,
            })
        };
        let Shape3 {
            depth,
            height,
            width,
        } = self.shape;
        let voxels = depth
            .checked_mul(height)
            .and_then(|plane| plane.checked_mul(width));
        if !voxels.is_some_and(|voxels| (1..=MAX_VOXELS).contains(&voxels)) {
            return field(
                "shape",
                self.shape.to_string(),
                "sizes of at least 1 and at most 2^31 voxels together",
            );
        }
        if let Intensity::Window(Window { low_hu, high_hu }) = self.intensity
            && !(low_hu.is_finite() && high_hu.is_finite() && low_hu < high_hu)
        {
            return field(
                "intensity.window",
                format!("{low_hu} to {high_hu}"),
                "a finite range, the lower end first",
            );
        }
        if let Fit::SpacingMm {
            depth,
            height,
            width,
        } = self.fit
            && ![depth, height, width]
                .iter()
                .all(|spacing| spacing.is_finite() && *spacing > 0.0)
        {
            return field(
                "fit.spacing_mm",
                format!("{depth}, {height}, {width}"),
                "finite lengths above 0",
            );
        }
        if !self.pad_value.is_finite() {
            return field("pad_value", self.pad_value.to_string(), "a finite number");
        }
        Ok(())
    }
}

/// 8 GiB of float32: more than any network here takes, and a mistyped size is an error and not an exhausted machine.
pub(crate) const MAX_VOXELS: usize = 1 << 31;

/// A preprocessed scan.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelInput {
    /// Sizes; the array is `(1, depth, height, width)`.
    pub shape: Shape3,
    /// Values, width fastest.
    pub values: Vec<f32>,
    /// How stored values were read.
    pub rescale: RescaleDecision,
    /// What the user should know about the scan.
    pub notes: Vec<Note>,
}

impl ModelInput {
    /// The values in half precision. Under a window from -1 to 1 they move by a 8192th of its width at most: 0.15 HU of the
    /// authors' 1200.
    pub fn to_half(&self) -> Vec<f16> {
        let mut half = vec![0_u16; self.values.len()].reinterpret_into::<f16>();
        half.convert_from_f32_slice(&self.values);
        half
    }
}

/// Something about a scan that preprocessing worked around.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Note {
    /// Voxels that are NaN or infinite were taken as air (or background).
    NotFinite {
        /// How many.
        voxels: usize,
    },
    /// The metadata's spacing was used, and the header has another.
    SpacingDiffers {
        /// Used, along the storage axes.
        metadata_mm: [f64; 3],
        /// Not used.
        header_mm: [f64; 3],
    },
    /// What the reader decided about a doubtful file.
    File(String),
    /// The scan is thinner than one voxel of the result along an axis and became one voxel.
    ThinnerThanAVoxel,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFinite { voxels } => write!(
                f,
                "{voxels} voxels are NaN or infinite and were taken as air"
            ),
            Self::SpacingDiffers {
                metadata_mm,
                header_mm,
            } => {
                write!(
                    f,
                    "the metadata's spacing {metadata_mm:?} mm was used, the header says {header_mm:?} mm"
                )
            }
            Self::File(note) => f.write_str(note),
            Self::ThinnerThanAVoxel => write!(
                f,
                "the scan is thinner than one voxel of the network's input"
            ),
        }
    }
}
