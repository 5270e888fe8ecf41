//! How the scanner sees the patient: grid, dose, kernel, table, padding.

use super::anatomy::AIR;
use super::anatomy::patient::Patient;
use super::anatomy::thorax::Thorax;
use super::config::PhantomConfig;
use super::plane::Plane;
use super::random::Random;

/// A reconstruction of a scan. Nothing in it depends on findings.
#[derive(Clone, Debug)]
pub(super) struct Acquisition {
    pub(super) columns: usize,
    pub(super) slices: usize,
    pub(super) spacing_mm: f32,
    /// Between slices.
    pub(super) increment_mm: f32,
    pub(super) thickness_mm: f32,
    pub(super) plane: Plane,
    lowest_z: f32,
    /// Width of the transition at an edge, millimetres.
    pub(super) edge_mm: f32,
    /// Weight of a neighbour in the kernel's smoothing of noise; negative for sharp kernels.
    pub(super) kernel: f32,
    pub(super) noise_key: u64,
    /// Standard deviation of the noise in the middle of the chest, Hounsfield units.
    noise: f32,
    /// Where the table is: rows below which it begins (positive) or above which it ends (prone).
    table_y: f32,
    prone: bool,
    /// Stored outside the scanner's circular field, if it is marked.
    pub(super) padding: Option<i16>,
    pub(super) kernel_name: &'static str,
    pub(super) tube_current_ma: u32,
    pub(super) intercept: f64,
}

/// Noise at 0.75 x 0.75 x 1.5 mm and how it falls with the volume of a voxel. The exponent is less than one half because
/// noise is correlated and scanners lower the dose for thick slices.
const REFERENCE_VOXEL_MM3: f32 = 0.75 * 0.75 * 1.5;
const NOISE_EXPONENT: f32 = 0.25;

/// Kernels: name, neighbours' weight, sharpness of edges, factor of the noise.
const KERNELS: [(&str, f32, f32, f32); 4] = [
    ("B30f", 0.45, 1.15, 0.8),
    ("I40f", 0.25, 1.0, 1.0),
    ("B60f", -0.12, 0.9, 1.3),
    ("LUNG", -0.2, 0.85, 1.5),
];

impl Acquisition {
    /// Draws the scan's grid from `scan` and the image's kernel and noise from `image`.
    pub(super) fn sample(
        config: &PhantomConfig,
        patient: &Patient,
        thorax: &Thorax,
        scan: &mut Random,
        image: &mut Random,
        reconstruction: usize,
    ) -> Self {
        let columns = config.columns;
        let [narrow, wide] = config.field_of_view_mm;
        // The technician fits the field to the patient.
        let body = 2.0 * (patient.cage[0] + patient.muscle + patient.fat) + 50.0;
        let field = (body * scan.between(0.94, 1.1)).clamp(narrow, wide);
        let spacing = round_to(field / columns as f32, 1e-4);
        let increment = scan.pick(&config.slice_spacing_mm) as f32;
        let [low, high] = [
            thorax.z[0] - scan.between(2.0, 26.0),
            thorax.z[1] + scan.between(6.0, 30.0),
        ];
        let slices = ((high - low) / increment).ceil().max(1.0) as usize;
        let angle = (2.5 * scan.normal()).clamp(-9.0, 9.0).to_radians();
        let [dx, dy] = [
            6.0 * scan.normal().clamp(-2.0, 2.0),
            6.0 * scan.normal().clamp(-2.0, 2.0),
        ];
        let half = 0.5 * (columns as f32 - 1.0) * spacing;
        let dose = scan.between(9.0, 24.0);
        let marked = scan.chance(0.45);
        let (padding, intercept) = scan.pick(&[
            (-1024, -1024.0),
            (-2048, -1024.0),
            (-3024, -1024.0),
            (-8192, -8192.0),
        ]);
        let first = scan.below(2);
        let kernel = if reconstruction == 0 {
            first
        } else {
            2 + image.below(2)
        };
        let (kernel_name, kernel, edges, kernel_noise) = KERNELS[kernel];
        let voxel = spacing * spacing * increment;
        let noise =
            dose * kernel_noise * (REFERENCE_VOXEL_MM3 / voxel).powf(NOISE_EXPONENT).min(1.5);
        let prone = patient.prone;
        let back = patient.cage[1] + patient.muscle + 0.9 * patient.fat + 12.0;
        Self {
            columns,
            slices,
            spacing_mm: spacing,
            increment_mm: increment,
            thickness_mm: increment.max(1.0),
            plane: Plane {
                columns,
                spacing,
                origin: [dx - half, dy - half],
                rotation: [angle.cos(), angle.sin()],
            },
            lowest_z: low,
            edge_mm: edges * spacing.max(0.7),
            kernel,
            noise_key: image.key(),
            noise,
            table_y: if prone { -back } else { back },
            prone,
            padding: marked.then_some(padding),
            kernel_name,
            tube_current_ma: (40_000.0 / (dose * dose)) as u32,
            intercept,
        }
    }

    /// Between voxels along `i`, `j`, `k`, millimetres.
    pub(super) fn spacing(&self) -> [f64; 3] {
        // Written with four decimals, as scanners do.
        let in_plane = (f64::from(self.spacing_mm) * 1e4).round() / 1e4;
        [in_plane, in_plane, f64::from(self.increment_mm)]
    }

    /// Height of a slice.
    pub(super) fn slice_z(&self, k: usize) -> f32 {
        self.lowest_z + k as f32 * self.increment_mm
    }

    /// Noise at a relative height: shoulders absorb most.
    pub(super) fn noise_at(&self, t: f32) -> f32 {
        self.noise * (1.0 + 0.5 * super::scene::smoothstep(0.75, 1.05, t))
    }

    /// Hounsfield units of air or table at a voxel outside the body.
    pub(super) fn table(&self, i: usize, j: usize) -> f32 {
        let half = 0.5 * (self.columns as f32 - 1.0);
        let x = (i as f32 - half) * self.spacing_mm;
        let y = self.plane.origin[1] + j as f32 * self.spacing_mm;
        let towards = if self.prone { -1.0 } else { 1.0 };
        // A shallow trough: mattress, then a shell of carbon fibre with foam inside.
        let depth = towards * (y - self.table_y) + x * x / 1_400.0;
        if depth < 0.0 || x.abs() > 210.0 {
            AIR
        } else if depth < 9.0 {
            -930.0
        } else if depth < 12.5 || (depth > 26.0 && depth < 29.5) {
            -350.0
        } else if depth < 26.0 {
            -955.0
        } else {
            AIR
        }
    }

    /// Marks what lies outside the scanner's circle.
    pub(super) fn pad(&self, slice: &mut [i16]) {
        let Some(value) = self.padding else { return };
        let radius = 0.5 * self.columns as f32;
        let center = radius - 0.5;
        for (j, row) in slice.chunks_exact_mut(self.columns).enumerate() {
            let dy = j as f32 - center;
            let half = (radius * radius - dy * dy).max(0.0).sqrt();
            let first = (center - half).ceil().max(0.0) as usize;
            let last = ((center + half).floor() as usize + 1).min(self.columns);
            row[..first.min(last)].fill(value);
            row[last..].fill(value);
        }
    }
}

fn round_to(value: f32, step: f32) -> f32 {
    (value / step).round() * step
}
