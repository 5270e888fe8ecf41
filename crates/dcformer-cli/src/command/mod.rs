//! The verbs, a file each.

mod demo;
pub(crate) mod evaluate;
mod phantom;
mod train;

use clap::Subcommand;

/// What the program can do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Demo(demo::Demo),
    Phantom(phantom::Phantom),
    Train(train::Train),
    Evaluate(evaluate::Evaluate),
}

impl Command {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Demo(command) => command.run(),
            Self::Phantom(command) => command.run(),
            Self::Train(command) => command.run(),
            Self::Evaluate(command) => command.run(),
        }
    }
}
