//! Scans to a cache, and how long making and loading a volume takes; what `benches/peers/prepare.py` times.
//!
//! ```text
//! cargo run --release -p dcformer-volume --example cache -- CACHE scan.nii.gz ...
//! ```
//! `RAYON_NUM_THREADS` sets the threads.
#![allow(clippy::print_stdout, reason = "an example shows its results")]

use std::error::Error;
use std::num::NonZero;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use dcformer_volume::cache::{Job, Listing, PreparedVolume, Settings, Shard, prepare};
use dcformer_volume::dataset::{DataSet, Sample, ScanMetadata};

/// Each volume is loaded so many times; the median counts.
const LOADS: usize = 5;

fn main() -> Result<(), Box<dyn Error>> {
    let mut paths = std::env::args_os().skip(1).map(PathBuf::from);
    let cache = paths.next().ok_or("usage: cache CACHE SCAN...")?;
    let sample = |(number, path): (usize, PathBuf)| Sample {
        name: format!("scan_{number}"),
        patient: String::new(),
        path,
        report: None,
        labels: Vec::new(),
        metadata: ScanMetadata::default(),
    };
    let samples: Vec<Sample> = paths.enumerate().map(sample).collect();
    let job = Job {
        settings: Settings::default(),
        shard: Shard::WHOLE,
        workers: NonZero::new(rayon::current_num_threads()).ok_or("no threads")?,
        stop: &AtomicBool::new(false),
    };
    let names: Vec<String> = samples.iter().map(|sample| sample.name.clone()).collect();
    let data = DataSet {
        samples,
        ..DataSet::default()
    };
    let start = Instant::now();
    let summary = prepare(&[Listing { split: None, data }], &cache, &job, &|_| {})?;
    println!(
        "prepared {} in {:.3} s",
        summary.prepared,
        start.elapsed().as_secs_f64()
    );
    for bad in summary.quarantined {
        println!("{}: {}", bad.name, bad.message);
    }
    for name in names {
        let folder = cache.join("volumes").join(format!("{name}.zarr"));
        let mut seconds = [0.0; LOADS];
        for seconds in &mut seconds {
            let start = Instant::now();
            let values = PreparedVolume::open(&folder)?.values()?;
            *seconds = start.elapsed().as_secs_f64();
            std::hint::black_box(values);
        }
        seconds.sort_by(f64::total_cmp);
        let bytes = std::fs::metadata(folder.join("c.0.0.0"))?.len();
        println!(
            "{name}: {bytes} bytes, loaded in {:.3} s",
            seconds[LOADS / 2]
        );
    }
    Ok(())
}
