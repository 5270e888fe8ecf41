//! One encoder of a comparison: its folder, and the parts of the work, each in a process of its own.
//!
//! ```text
//! runs/dcformer-nano/
//! ├── request.json     what was asked for: a run that was made of another request is not taken for this one
//! ├── config.toml, checkpoints/, metrics.jsonl, model/    a run of `dcformer train`
//! ├── steps.json       of a budget of minutes, the steps that fit into it
//! ├── trained.json     what training took; there once it is done
//! ├── measured.json    what the model said of every volume, and how fast; there once it is done
//! └── failed.txt       why it is not done, from the last try
//! ```
//!
//! A process of its own has a peak of memory of its own, and its end, even by the system, leaves the others' results alone.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use dcformer::compare::{Budget, Measured, Request, Subject, Trained, read_json, write_json};
use dcformer::train::{Outcome, RunOptions, seconds_of_step};
use dcformer::workers::Alone;

use crate::args::Runtime;
use crate::command::train::train_with_progress;
use crate::cost::peak_rss_mb;
use crate::interrupt::{stop, stop_flag};
use crate::progress::{Progress, note};
use crate::summary::steps;

/// Part of a comparison; started by `dcformer compare`, and ends when that ends
#[derive(Debug, Args)]
pub(crate) struct ComparePart {
    /// What to do
    #[arg(value_enum)]
    part: Part,
    /// Folder of the encoder's run
    run: PathBuf,
    #[command(flatten)]
    runtime: Runtime,
}

/// What is done with an encoder in one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Part {
    Train,
    Measure,
}

impl Part {
    fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Measure => "measure",
        }
    }
}

/// How a part of the work ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Done,
    Stopped,
    /// And why.
    Failed(String),
}

/// The folder of an encoder's run.
#[derive(Clone, Debug)]
pub(super) struct RunFolder {
    pub(super) folder: PathBuf,
}

impl RunFolder {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Takes the folder for a request: a new one, or one that was made of the same request.
    pub(super) fn claim(&self, request: &Request) -> anyhow::Result<()> {
        let path = self.path("request.json");
        match read_json::<Request>(&path)? {
            Some(found) if found == *request => Ok(()),
            None if !self.path("config.toml").exists() => {
                std::fs::create_dir_all(&self.folder)
                    .with_context(|| format!("cannot make {}", self.folder.display()))?;
                Ok(write_json(&path, request)?)
            }
            _ => bail!(
                "{} holds a run of another configuration, budget or data; remove it, or choose another --out",
                self.folder.display()
            ),
        }
    }

    /// What training took, if it is done.
    pub(super) fn trained(&self) -> anyhow::Result<Option<Trained>> {
        Ok(read_json(&self.path("trained.json"))?)
    }

    /// What was measured, if it is done.
    pub(super) fn measured(&self) -> anyhow::Result<Option<Measured>> {
        Ok(read_json(&self.path("measured.json"))?)
    }

    /// The steps of training.
    pub(super) fn metrics(&self) -> PathBuf {
        self.path("metrics.jsonl")
    }

    /// Does a part of the work in a process of its own, unless it is done.
    pub(super) fn carry_out(
        &self,
        part: Part,
        runtime: &Runtime,
        stop: &AtomicBool,
    ) -> anyhow::Result<Ending> {
        let is_done = || match part {
            Part::Train => self.trained().map(|found| found.is_some()),
            Part::Measure => self.measured().map(|found| found.is_some()),
        };
        if is_done()? {
            return Ok(Ending::Done);
        }
        if stop.load(Ordering::Relaxed) {
            return Ok(Ending::Stopped);
        }
        let failed = self.path("failed.txt");
        // An older reason would be taken for this one's.
        let _ = std::fs::remove_file(&failed);
        let program = std::env::current_exe().context("cannot find this program")?;
        let child = Command::new(program)
            .args(["compare-part", part.name()])
            .arg(&self.folder)
            .args(runtime.arguments())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .context("cannot start this program again")?;
        let status = wait(child, stop)?;
        if is_done()? {
            return Ok(Ending::Done);
        }
        if stop.load(Ordering::Relaxed) {
            return Ok(Ending::Stopped);
        }
        let reason = std::fs::read_to_string(&failed);
        Ok(Ending::Failed(
            reason.unwrap_or_else(|_| describe(part, status)),
        ))
    }
}

/// Waits for a part; asks it to stop once this program is asked to.
fn wait(mut child: Child, stop: &AtomicBool) -> anyhow::Result<ExitStatus> {
    const EVERY: Duration = Duration::from_millis(50);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if stop.load(Ordering::Relaxed) {
            // The end of its input is the sign to stop.
            drop(child.stdin.take());
        }
        std::thread::sleep(EVERY);
    }
}

/// Why a process that could not say it itself has ended.
fn describe(part: Part, status: ExitStatus) -> String {
    format!(
        "the process that was to {} it ended with {status}; a signal 9 mostly means that memory ran out",
        part.name()
    )
}

impl ComparePart {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let run = RunFolder {
            folder: self.run.clone(),
        };
        // One that a killed comparison left behind is still on its way out.
        let lock = File::create(run.path("lock"))?;
        lock.lock()?;
        let stop = stop_flag()?;
        std::thread::spawn(stop_with_the_input);
        let outcome = self.carry_out(&run, stop);
        if let Err(reason) = &outcome {
            std::fs::write(run.path("failed.txt"), format!("{reason:#}"))?;
        }
        outcome
    }

    fn carry_out(&self, run: &RunFolder, stop: &AtomicBool) -> anyhow::Result<()> {
        let path = run.path("request.json");
        let request: Request = read_json(&path)?.with_context(|| {
            format!(
                "{} is missing; `dcformer compare` writes it",
                path.display()
            )
        })?;
        match self.part {
            Part::Train => self.train(run, request, stop),
            Part::Measure => self.measure(run, &request),
        }
    }

    fn train(&self, run: &RunFolder, request: Request, stop: &AtomicBool) -> anyhow::Result<()> {
        let options = RunOptions {
            device: self.runtime.start()?,
            resume: true,
            stop,
            workers: Arc::new(Alone),
        };
        let mut config = request.config;
        if let Budget::Minutes(minutes) = request.budget {
            let path = run.path("steps.json");
            config.train.steps = match read_json(&path)? {
                Some(steps) => Some(steps),
                None => {
                    let scratch = run.path("pace");
                    let Some(seconds) = seconds_of_step(&config, &scratch, &options)? else {
                        return Ok(());
                    };
                    let steps = ((minutes * 60.0 / seconds) as u64).max(1);
                    note(&format!(
                        "{seconds:.3} s a step: {steps} steps in {minutes} minutes"
                    ));
                    write_json(&path, &steps)?;
                    Some(steps)
                }
            };
        }
        let outcome = train_with_progress(&config, &run.folder, &options)?;
        if let Outcome::Complete(_) = outcome {
            let pairs = config.train.effective_batch();
            let trained = Trained::of_steps(&steps(&run.metrics())?, pairs, peak_rss_mb());
            let trained = trained.context("the run has no steps")?;
            write_json(&run.path("trained.json"), &trained)?;
        }
        Ok(())
    }

    fn measure(&self, run: &RunFolder, request: &Request) -> anyhow::Result<()> {
        let device = self.runtime.start()?;
        let subject = Subject::load(&run.path("model"), &device)?;
        let inference = subject.time(peak_rss_mb)?;
        let data = request.config.data.validation()?;
        let progress = std::sync::OnceLock::new();
        let show = |done: usize, volumes: usize| {
            progress
                .get_or_init(|| Progress::new("detecting", 0, volumes as u64))
                .set(done as u64, "");
        };
        let answers = subject.answer(&data, request.config.train.report, &show)?;
        if let Some(progress) = progress.get() {
            progress.finish();
        }
        let measured = Measured { answers, inference };
        Ok(write_json(&run.path("measured.json"), &measured)?)
    }
}

/// Asks the work at hand to stop when the input ends: the program that holds its other end has ended, or says so.
fn stop_with_the_input() {
    let mut input = std::io::stdin().lock();
    let _ = std::io::copy(&mut input, &mut std::io::sink());
    stop();
}

/// A lock on the folder of a comparison; two at once would write over each other.
pub(super) fn lock(out: &Path) -> anyhow::Result<File> {
    let file = File::create(out.join("lock"))
        .with_context(|| format!("cannot write into {}", out.display()))?;
    file.try_lock().with_context(|| {
        format!(
            "another comparison is at work in {}; wait for it, or choose another --out",
            out.display()
        )
    })?;
    Ok(file)
}
