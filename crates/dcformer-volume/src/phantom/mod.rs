//! Synthetic chest scans with known findings and reports.
//!
//! A phantom is an adult's chest built of soft-edged shapes in millimetres, changed by the abnormalities of CT-RATE, seen
//! by a scanner with noise, and described by a report. It depends on its configuration, a seed and its number only: never on
//! other phantoms, threads or time. Phantoms are the data that come with the program, and the test bed of experiments
//! whose answer must be known. They are no patients: what a network learns from them says nothing about people.
//!
//! ```
//! use dcformer_volume::phantom::{PhantomConfig, generate};
//!
//! let config = PhantomConfig { columns: 64, ..PhantomConfig::default() };
//! let phantom = generate(&config, 7, 0);
//! assert_eq!(phantom.volume.grid.size[0], 64);
//! assert_eq!(phantom.findings.len(), phantom.labels.iter().filter(|label| **label).count());
//! println!("{} {}", phantom.report.findings, phantom.report.impressions);
//! ```

mod abnormality;
mod acquisition;
mod anatomy;
mod background;
mod brush;
mod cells;
mod config;
mod image_noise;
mod labels;
mod parenchyma;
mod plane;
mod random;
mod render;
mod report;
mod rounding;
mod scene;
mod shape;
mod texture;
mod write;

#[cfg(test)]
mod tests;

pub use self::abnormality::{Finding, Laterality};
pub use self::config::{DataSetConfig, PhantomConfig, Storage};
pub use self::labels::Frequencies;
pub use self::report::Report;
pub use self::write::{Progress, WrittenSet, write_ct_rate};

use self::acquisition::Acquisition;
use self::anatomy::Anatomy;
use self::anatomy::patient::Patient;
use self::random::Random;
use self::render::Scene;
use crate::geometry::{Affine, Grid};
use crate::volume::{Rescale, Volume, Voxels};

/// A synthetic scan and everything known about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Phantom {
    /// The scan, stored as CT-RATE stores it: columns towards left, rows towards posterior, slices towards superior, int16.
    pub volume: Volume,
    /// One per [`ABNORMALITIES`](crate::dataset::ABNORMALITIES).
    pub labels: [bool; 18],
    /// What was drawn for each abnormality that is present, in their order.
    pub findings: Vec<Finding>,
    /// What a radiologist would write.
    pub report: Report,
    /// What a metadata table says.
    pub metadata: Metadata,
}

/// What DICOM fields say about a phantom.
#[derive(Clone, Debug, PartialEq)]
pub struct Metadata {
    /// `RescaleSlope` and `RescaleIntercept` of the scanner; whether they still have to be applied depends on
    /// [`Storage`].
    pub rescale: Rescale,
    /// Between voxels along `i`, `j`, `k`.
    pub spacing_mm: [f64; 3],
    /// Years.
    pub age: u32,
    /// `M` or `F`.
    pub sex: char,
    /// `HFS` (on the back) or `HFP` (on the belly).
    pub patient_position: &'static str,
    /// Name of the reconstruction kernel.
    pub kernel: &'static str,
    /// Milliamperes.
    pub tube_current_ma: u32,
    /// Whether iodine was given.
    pub contrast: bool,
}

/// Which image of which patient.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Image {
    /// Number of the patient.
    pub patient: u64,
    /// Number of the scan: the same patient on another day. Findings that come and go differ.
    pub scan: usize,
    /// Number of the reconstruction: the same scan with another kernel and noise.
    pub reconstruction: usize,
}

/// Phantom number `index`: the first image of that patient.
///
/// # Panics
/// If the configuration asks for slices without voxels or gives no spacing; [`write_ct_rate`] refuses such ones.
pub fn generate(config: &PhantomConfig, seed: u64, index: u64) -> Phantom {
    generate_image(
        config,
        seed,
        Image {
            patient: index,
            ..Image::default()
        },
    )
}

/// Any image of a patient.
pub fn generate_image(config: &PhantomConfig, seed: u64, image: Image) -> Phantom {
    generate_with(config, seed, image, |_| {})
}

/// The image with other abnormalities: `change` edits those that were drawn for the patient. Everything else about the
/// patient and the image stays as it is, so that the two images differ by the findings alone.
pub fn generate_with(
    config: &PhantomConfig,
    seed: u64,
    image: Image,
    change: impl FnOnce(&mut [bool; 18]),
) -> Phantom {
    let root = Random::new(seed).stream(image.patient);
    let scan = image.scan as u64;
    let mut patient = Patient::sample(&mut root.stream(1));
    let mut labels = config
        .frequencies
        .sample(&root.stream(3), image.scan, patient.age);
    change(&mut labels);

    let drawn = root.stream(4);
    let healthy = patient.clone();
    abnormality::change_patient(&mut patient, &labels, &drawn, image.scan);
    let (anatomy, mut strokes) = Anatomy::build(patient, &root.stream(2));
    let (parenchyma, findings) =
        abnormality::draw(&anatomy, &labels, &drawn, image.scan, &mut strokes);
    let Anatomy {
        patient, thorax, ..
    } = anatomy;

    let images = root.stream(6).stream(scan);
    let acquisition = Acquisition::sample(
        config,
        &healthy,
        &thorax,
        &mut root.stream(5).stream(scan),
        &mut images.stream(image.reconstruction as u64),
        image.reconstruction,
    );
    let report = report::write(
        &mut root.stream(7).stream(scan),
        &patient,
        &labels,
        &findings,
    );
    let metadata = metadata(&patient, &acquisition);
    let scene = Scene {
        patient,
        thorax,
        parenchyma,
        strokes,
        texture: root.stream(8).key(),
    };
    let volume = volume(&scene, &acquisition, config.storage);
    Phantom {
        volume,
        labels,
        findings,
        report,
        metadata,
    }
}

fn metadata(patient: &Patient, acquisition: &Acquisition) -> Metadata {
    Metadata {
        rescale: Rescale {
            slope: 1.0,
            intercept: acquisition.intercept,
        },
        spacing_mm: acquisition.spacing(),
        age: patient.age,
        sex: if patient.female { 'F' } else { 'M' },
        patient_position: if patient.prone { "HFP" } else { "HFS" },
        kernel: acquisition.kernel_name,
        tube_current_ma: acquisition.tube_current_ma,
        contrast: patient.contrast,
    }
}

fn volume(scene: &Scene, acquisition: &Acquisition, storage: Storage) -> Volume {
    let mut voxels = scene.render(acquisition);
    if storage == Storage::Raw {
        let intercept = acquisition.intercept as i16;
        voxels.iter_mut().for_each(|value| *value -= intercept);
    }
    let [x, y, z] = acquisition.spacing();
    let [left, posterior] = acquisition.plane.origin.map(f64::from);
    let origin = [-left, -posterior, f64::from(acquisition.slice_z(0))];
    let affine = Affine {
        matrix: [
            [-x, 0.0, 0.0, origin[0]],
            [0.0, -y, 0.0, origin[1]],
            [0.0, 0.0, z, origin[2]],
        ],
    };
    let size = [acquisition.columns, acquisition.columns, acquisition.slices];
    Volume {
        voxels: Voxels::I16(voxels),
        rescale: Rescale::NONE,
        grid: Grid { size, affine },
    }
}
