//! A scan to the input of DCFormer, with what was found out about it and how long it took.
//!
//! ```text
//! cargo run --release -p dcformer-volume --example preprocess -- scan.nii.gz
//! ```
#![allow(clippy::print_stdout, reason = "an example shows its results")]

use std::path::PathBuf;
use std::time::Instant;

use dcformer_volume::dataset::ScanMetadata;
use dcformer_volume::preprocess::Preprocess;
use dcformer_volume::scan::ScanOptions;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let scan = std::env::args_os()
        .nth(1)
        .map(PathBuf::from)
        .ok_or("usage: preprocess SCAN")?;
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
    let mean = input
        .values
        .iter()
        .map(|value| f64::from(*value))
        .sum::<f64>()
        / input.values.len() as f64;
    println!("shape {}, mean {mean:.6}, {elapsed_s:.3} s", input.shape);
    Ok(())
}
