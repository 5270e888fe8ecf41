//! `dcformer`: trains and runs 3D vision-language models of medical scans.
//!
//! Arguments, progress, tables and files are here; the science is in the libraries.
#![forbid(unsafe_code)]

mod addresses;
mod args;
mod command;
mod cost;
mod hub;
mod interrupt;
mod model;
mod output;
mod progress;
mod recipe;
mod scan_args;
mod steps_args;
mod summary;
mod workers;

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser};

use crate::command::Command;

/// Train and run 3D vision-language models of medical scans
///
/// From a CT scan (NIfTI or DICOM) to what is probably in it, and from scans with reports to a model. Research software:
/// not a medical device, not for diagnosis.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Examples:\n  \
        dcformer demo                                        train on synthetic chests, open report.html\n  \
        dcformer detect --model MODEL scan.nii.gz            what is in this scan?\n  \
        dcformer import official.pth --vocab vocab.txt --out MODEL   bring the authors' weights"
)]
pub(crate) struct Program {
    #[command(subcommand)]
    command: Command,
}

#[global_allocator]
static POOL: dcformer_kernels::BufferPool = dcformer_kernels::BufferPool::new();

/// The arguments; wrong use is said, and ends the program.
fn parse() -> Program {
    let mut program = Program::command();
    let matches = program.get_matches_mut();
    addresses::check(&mut program, &matches)
        .and_then(|()| Program::from_arg_matches(&matches))
        .unwrap_or_else(|error| error.format(&mut program).exit())
}

fn main() -> ExitCode {
    dcformer_kernels::keep_freed_memory();
    match parse().command.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if output::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            progress::error(&error);
            ExitCode::FAILURE
        }
    }
}
