//! `dcformer completions`: commands and options at the press of a key.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::Program;
use crate::output;

/// Print the completions of a shell
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  dcformer completions bash > ~/.local/share/bash-completion/completions/dcformer"
)]
pub(crate) struct Completions {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

impl Completions {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Program::command(), "dcformer", &mut script);
        output::text(&String::from_utf8_lossy(&script))
    }
}
