//! The verbs, a file each.

mod bench;
mod compare;
mod completions;
mod complexity;
mod demo;
mod detect;
mod embed;
pub(crate) mod evaluate;
mod finetune;
mod import;
mod metrics;
mod phantom;
mod prepare;
mod preprocess;
mod search;
mod train;

use std::time::Instant;

use clap::Subcommand;

use crate::cost;

/// What the program can do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Demo(demo::Demo),
    Detect(detect::Detect),
    Train(train::Train),
    Finetune(finetune::Finetune),
    Evaluate(evaluate::Evaluate),
    Compare(compare::Compare),
    Embed(embed::Embed),
    Search(search::Search),
    Prepare(prepare::Prepare),
    Preprocess(preprocess::Preprocess),
    Phantom(phantom::Phantom),
    Import(import::Import),
    Export(import::Export),
    Metrics(metrics::Metrics),
    Complexity(complexity::Complexity),
    Bench(bench::Bench),
    #[command(hide = true)]
    ComparePart(compare::ComparePart),
    Completions(completions::Completions),
}

impl Command {
    /// Carries out a verb; one that reads scans or trains says at its end what it cost.
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let started = Instant::now();
        let says_cost = matches!(
            self,
            Self::Demo(_)
                | Self::Detect(_)
                | Self::Train(_)
                | Self::Finetune(_)
                | Self::Evaluate(_)
                | Self::Embed(_)
                | Self::Search(_)
                | Self::Prepare(_)
                | Self::Preprocess(_)
        );
        self.carry_out()?;
        if says_cost {
            cost::say(started.elapsed());
        }
        Ok(())
    }

    fn carry_out(self) -> anyhow::Result<()> {
        match self {
            Self::Demo(command) => command.run(),
            Self::Detect(command) => command.run(),
            Self::Train(command) => command.run(),
            Self::Finetune(command) => command.run(),
            Self::Evaluate(command) => command.run(),
            Self::Compare(command) => command.run(),
            Self::ComparePart(command) => command.run(),
            Self::Embed(command) => command.run(),
            Self::Search(command) => command.run(),
            Self::Prepare(command) => command.run(),
            Self::Preprocess(command) => command.run(),
            Self::Phantom(command) => command.run(),
            Self::Import(command) => command.run(),
            Self::Export(command) => command.run(),
            Self::Metrics(command) => command.run(),
            Self::Complexity(command) => command.run(),
            Self::Bench(command) => command.run(),
            Self::Completions(command) => command.run(),
        }
    }
}
