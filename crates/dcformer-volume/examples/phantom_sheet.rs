//! Draws contact sheets of phantoms, to look at: `cargo run --release --example phantom_sheet -- OUT [COLUMNS]`.
//!
//! One picture (PGM) a finding: axial, coronal and sagittal slices in a lung and a soft-tissue window, for patients who have
//! that finding alone.

use std::path::PathBuf;
use std::{env, fs, io};

use dcformer_volume::dataset::ABNORMALITIES;
use dcformer_volume::phantom::{Image, Phantom, PhantomConfig, generate_with};
use dcformer_volume::volume::Voxels;

/// Lowest and highest Hounsfield unit shown.
const WINDOWS: [[f32; 2]; 2] = [[-1350.0, 150.0], [-160.0, 240.0]];
/// Millimetres a pixel of the picture.
const PIXEL_MM: f64 = 2.0;
/// Pixels along the sides of a view.
const VIEW: [usize; 2] = [190, 190];
const PATIENTS: u64 = 4;

fn main() -> io::Result<()> {
    let mut arguments = env::args().skip(1);
    let folder = PathBuf::from(arguments.next().unwrap_or_else(|| "phantom_sheets".into()));
    let columns = arguments
        .next()
        .and_then(|text| text.parse().ok())
        .unwrap_or(192);
    let config = PhantomConfig {
        columns,
        slice_spacing_mm: vec![2.5],
        ..PhantomConfig::default()
    };
    fs::create_dir_all(&folder)?;
    for sheet in 0..=ABNORMALITIES.len() {
        let name = match sheet.checked_sub(1) {
            Some(index) => ABNORMALITIES[index].to_lowercase().replace(' ', "_"),
            None => "healthy".into(),
        };
        let rows: Vec<Phantom> = (0..PATIENTS)
            .map(|patient| {
                let image = Image {
                    patient: patient + 10,
                    ..Image::default()
                };
                generate_with(&config, 3, image, |labels| {
                    *labels = std::array::from_fn(|index| index + 1 == sheet);
                })
            })
            .collect();
        fs::write(
            folder.join(format!("{sheet:02}_{name}.pgm")),
            picture(&rows),
        )?;
    }
    Ok(())
}

/// One row a patient: three axial, two coronal, one sagittal view in both windows.
fn picture(phantoms: &[Phantom]) -> Vec<u8> {
    let views: [(usize, f64); 6] = [
        (2, 0.75),
        (2, 0.52),
        (2, 0.3),
        (1, 0.42),
        (1, 0.62),
        (0, 0.5),
    ];
    let [width, height] = [VIEW[0] * views.len(), VIEW[1] * 2 * phantoms.len()];
    let mut pixels = vec![0; width * height];
    for (row, phantom) in phantoms.iter().enumerate() {
        for (band, window) in WINDOWS.iter().enumerate() {
            for (column, &(axis, at)) in views.iter().enumerate() {
                for v in 0..VIEW[1] {
                    for u in 0..VIEW[0] {
                        let y = (2 * row + band) * VIEW[1] + v;
                        pixels[y * width + column * VIEW[0] + u] =
                            shade(phantom, axis, at, [u, v], *window);
                    }
                }
            }
        }
    }
    let mut file = format!("P5 {width} {height} 255\n").into_bytes();
    file.extend(pixels);
    file
}

/// Grey value of a pixel of a slice across `axis` at a relative position.
fn shade(phantom: &Phantom, axis: usize, at: f64, [u, v]: [usize; 2], [low, high]: [f32; 2]) -> u8 {
    let Voxels::I16(voxels) = &phantom.volume.voxels else {
        return 0;
    };
    let size = phantom.volume.grid.size;
    let spacing = phantom.volume.grid.affine.spacing_mm();
    // Across x: (y, z). Across y: (x, z). Across z: (x, y). Heads are up.
    let [horizontal, vertical] = [[1, 2], [0, 2], [0, 1]][axis];
    let mut index = [0_usize; 3];
    index[axis] = (at * size[axis] as f64) as usize;
    for (axis, pixel, count) in [(horizontal, u, VIEW[0]), (vertical, v, VIEW[1])] {
        let offset = (pixel as f64 - count as f64 / 2.0) * PIXEL_MM / spacing[axis];
        let position = size[axis] as f64 / 2.0 + if axis == 2 { -offset } else { offset };
        if position < 0.0 || position >= size[axis] as f64 {
            return 0;
        }
        index[axis] = position as usize;
    }
    let value = f32::from(voxels[(index[2] * size[1] + index[1]) * size[0] + index[0]]);
    (255.0 * ((value - low) / (high - low)).clamp(0.0, 1.0)) as u8
}
