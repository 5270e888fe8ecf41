//! What commands share: device, threads, seed, JSON.

use anyhow::Context;
use clap::{Args, ValueEnum};
use dcformer::Device;

/// Where and how a command computes.
#[derive(Clone, Debug, Args)]
pub(crate) struct Runtime {
    /// Where to compute
    #[arg(long, value_enum, default_value_t = DeviceChoice::Cpu, help_heading = "Runtime")]
    device: DeviceChoice,
    /// Threads to use; all cores if not given
    #[arg(long, value_name = "N", help_heading = "Runtime")]
    threads: Option<std::num::NonZero<usize>>,
}

/// Devices of this build.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum DeviceChoice {
    /// The processor, with AVX-512, AVX2 or NEON where it has them
    Cpu,
}

impl Runtime {
    /// Sets the threads and gives the device. Called once, before anything computes.
    pub(crate) fn start(&self) -> anyhow::Result<Device> {
        if let Some(threads) = self.threads {
            rayon::ThreadPoolBuilder::new()
                .num_threads(threads.get())
                .build_global()
                .context("cannot start the threads")?;
        }
        Ok(match self.device {
            DeviceChoice::Cpu => Device::flex(),
        })
    }
}

/// How results are printed.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Format {
    /// Print JSON for programs
    #[arg(long)]
    pub(crate) json: bool,
}
