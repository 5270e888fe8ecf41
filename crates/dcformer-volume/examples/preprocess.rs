//! A scan to the input of DCFormer, with what was found out about it and how long it took.
//!
//! ```text
//! cargo run --release -p dcformer-volume --example preprocess -- scan.nii.gz
//! ```
//! A second path receives the values as raw little-endian float32, depth slowest, width fastest.
#![allow(clippy::print_stdout, reason = "an example shows its results")]

use std::error::Error;
use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use dcformer_volume::dataset::ScanMetadata;
use dcformer_volume::preprocess::Preprocess;
use dcformer_volume::scan::ScanOptions;

fn main() -> Result<(), Box<dyn Error>> {
    let mut paths = std::env::args_os().skip(1).map(PathBuf::from);
    let scan = paths.next().ok_or("usage: preprocess SCAN [OUT.f32]")?;
    let start = Instant::now();
    let input = Preprocess::dcformer().run_file(
        &scan,
        &ScanMetadata::default(),
        &ScanOptions::default(),
    )?;
    let elapsed_s = start.elapsed().as_secs_f64();
    println!("{}: {}", scan.display(), input.rescale);
    for note in &input.notes {
        println!("note: {note}");
    }
    let sum: f64 = input.values.iter().map(|value| f64::from(*value)).sum();
    let mean = sum / input.values.len() as f64;
    println!("shape {}, mean {mean:.6}, {elapsed_s:.3} s", input.shape);
    if let Some(out) = paths.next() {
        let bytes: Vec<u8> = input
            .values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        fs::write(out, bytes)?;
    }
    Ok(())
}
