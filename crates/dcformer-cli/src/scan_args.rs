//! What commands that read scans share: facts about a scan that its header lacks, and choices among its readings.

use std::path::Path;

use clap::{Args, ValueEnum};
use dcformer_volume::dataset::ScanMetadata;
use dcformer_volume::dicom::{DicomOptions, TiltPolicy};
use dcformer_volume::intensity::RescalePolicy;
use dcformer_volume::preprocess::{OrientationPolicy, Preprocess};
use dcformer_volume::scan::ScanOptions;
use dcformer_volume::volume::Rescale;

use crate::args::List;

/// Facts and choices about scans.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Scans")]
pub(crate) struct ScanArgs {
    /// Slope from stored values to Hounsfield units, if the header does not say it; with --intercept
    #[arg(
        long,
        value_name = "S",
        requires = "intercept",
        allow_negative_numbers = true
    )]
    slope: Option<f64>,
    /// Intercept from stored values to Hounsfield units; with --slope
    #[arg(
        long,
        value_name = "I",
        requires = "slope",
        allow_negative_numbers = true
    )]
    intercept: Option<f64>,
    /// Millimetres between voxels along the stored axes, if the header does not say it
    #[arg(long, value_name = "X,Y,Z")]
    spacing: Option<List<f64, 3>>,
    /// Where slope and intercept come from; the default decides by the values and says what it found
    #[arg(long, value_enum)]
    rescale: Option<RescaleChoice>,
    /// Axes as stored, or turned to CT-RATE's order; the default is the model's
    #[arg(long, value_enum)]
    orientation: Option<OrientationChoice>,
    /// DICOM series to read: its UID, the beginning of it, or its number; the largest CT volume if not given
    #[arg(long, value_name = "SERIES")]
    series: Option<String>,
    /// What to do with a tilted gantry
    #[arg(long, value_enum, default_value_t = TiltChoice::Correct)]
    tilt: TiltChoice,
    /// Read a DICOM series although slices are missing
    #[arg(long)]
    allow_gaps: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum RescaleChoice {
    Auto,
    Metadata,
    Header,
    None,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum OrientationChoice {
    Keep,
    Canonical,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum TiltChoice {
    Correct,
    Refuse,
}

impl ScanArgs {
    /// What is known about the scan beside its header.
    pub(crate) fn metadata(&self) -> ScanMetadata {
        ScanMetadata {
            rescale: self
                .slope
                .zip(self.intercept)
                .map(|(slope, intercept)| Rescale { slope, intercept }),
            spacing_mm: self.spacing.map(|List(spacing)| spacing),
        }
    }

    /// How files are read.
    pub(crate) fn options(&self) -> ScanOptions {
        ScanOptions {
            dicom: DicomOptions {
                series: self.series.clone(),
                tilt: match self.tilt {
                    TiltChoice::Correct => TiltPolicy::Correct,
                    TiltChoice::Refuse => TiltPolicy::Refuse,
                },
                allow_gaps: self.allow_gaps,
            },
        }
    }

    /// Overrides of a model's preprocessing.
    pub(crate) fn adjust(&self, preprocess: &mut Preprocess) {
        if let Some(choice) = self.rescale {
            preprocess.rescale = match choice {
                RescaleChoice::Auto => RescalePolicy::Auto,
                RescaleChoice::Metadata => RescalePolicy::Metadata,
                RescaleChoice::Header => RescalePolicy::Header,
                RescaleChoice::None => RescalePolicy::None,
            };
        }
        if let Some(choice) = self.orientation {
            preprocess.orientation = match choice {
                OrientationChoice::Keep => OrientationPolicy::Keep,
                OrientationChoice::Canonical => OrientationPolicy::Canonical,
            };
        }
    }
}

/// Whether an input is a file of tensors and not a scan.
pub(crate) fn is_tensor_file(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("safetensors"))
}
