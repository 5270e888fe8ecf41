//! What commands share: device, threads, seed, JSON.

use std::fmt::{self, Display};
use std::str::FromStr;

use anyhow::{Context, ensure};
use clap::{Args, ValueEnum};
use dcformer::Device;
use dcformer::complexity::Shape3;
use dcformer_kernels::keep_hidden_activations;

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

    /// The same for another run of the program.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let mut arguments = Vec::new();
        if let Some(device) = self.device.to_possible_value() {
            arguments.extend(["--device".to_owned(), device.get_name().to_owned()]);
        }
        if let Some(threads) = self.threads {
            arguments.extend(["--threads".to_owned(), threads.to_string()]);
        }
        arguments
    }
}

/// What training may keep in memory.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct ActivationMemory {
    /// GB of memory for hidden activations, so that backward passes need not compute them again; the result stays the same
    #[arg(
        long,
        value_name = "GB",
        default_value_t = 0.0,
        help_heading = "Runtime"
    )]
    activation_memory: f64,
}

impl ActivationMemory {
    /// Sets it. Called once, before anything computes.
    pub(crate) fn apply(self) -> anyhow::Result<()> {
        let gigabytes = self.activation_memory;
        ensure!(
            gigabytes.is_finite() && gigabytes >= 0.0,
            "--activation-memory is {gigabytes}, expected 0 or more"
        );
        keep_hidden_activations((gigabytes * 1e9) as usize);
        Ok(())
    }
}

/// How results are printed.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Format {
    /// Print JSON for programs
    #[arg(long)]
    pub(crate) json: bool,
}

/// Numbers with commas between them, such as `256,512,512`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct List<T, const N: usize>(pub(crate) [T; N]);

impl<T: FromStr, const N: usize> FromStr for List<T, N> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("expected {N} numbers with commas between them");
        let numbers: Vec<T> = text
            .split(',')
            .map(|number| number.trim().parse())
            .collect::<Result<_, _>>()
            .map_err(|_| wrong())?;
        Ok(Self(numbers.try_into().map_err(|_| wrong())?))
    }
}

impl From<List<usize, 3>> for Shape3 {
    /// Of depth, height and width.
    fn from(List([depth, height, width]): List<usize, 3>) -> Self {
        Self {
            depth,
            height,
            width,
        }
    }
}

impl<T: Display, const N: usize> Display for List<T, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers: Vec<String> = self.0.iter().map(T::to_string).collect();
        f.write_str(&numbers.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::List;

    #[test]
    fn lists_have_as_many_numbers_as_asked_for() {
        assert_eq!("1, 2,3".parse(), Ok(List([1, 2, 3])));
        assert!("1,2".parse::<List<usize, 3>>().is_err());
        assert!("1,2,x".parse::<List<usize, 3>>().is_err());
        assert_eq!("-1000,200".parse(), Ok(List([-1000.0, 200.0])));
        assert_eq!(List([1, 2, 3]).to_string(), "1,2,3");
    }
}
