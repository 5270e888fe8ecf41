//! Several workers share a run: the same pairs and losses as one worker has, one folder, and nothing lost with a worker.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use burn::tensor::Device;
use dcformer::train::{
    ContrastOver, FinetuneConfig, Method, Outcome, ReportText, RunConfig, RunOptions, Schedule,
    StepReport, TrainConfig, train,
};
use dcformer::workers::{Communicator, ThreadWorker};
use dcformer::{Error, Result};
use dcformer_volume::ct_rate::{self, Split};
use dcformer_volume::geometry::Shape3;
use dcformer_volume::phantom::{DataSetConfig, PhantomConfig, write_ct_rate};

use crate::training::{Silent, config, write_manifest};

/// Losses of a run whose sums are rounded in another order, after a few steps of AdamW, relative to them.
const TOLERANCE: f64 = 1e-4;

/// A run of 6 steps of 4 pairs, with a checkpoint after every second. It starts from a model: fresh weights come from one
/// stream a process, which the tests beside this one draw from as well.
fn small(folder: &Path, encoder: (&str, &str)) -> RunConfig {
    let phantoms = folder.join("phantoms");
    let manifest = folder.join("train.csv");
    let set = DataSetConfig {
        phantom: PhantomConfig {
            columns: 64,
            slice_spacing_mm: vec![16.0],
            ..PhantomConfig::default()
        },
        train_patients: 9,
        valid_patients: 1,
        ..DataSetConfig::default()
    };
    write_ct_rate(&phantoms, &set, |_| ()).unwrap();
    let options = ct_rate::Options::default();
    let data = ct_rate::read(&phantoms, Split::Train, &options).unwrap();
    write_manifest(&manifest, &data, 0);
    let mut config = config(manifest);
    config.model.encoder = encoder.0.to_owned();
    config.model.variant = encoder.1.to_owned();
    config.preprocess.shape = Shape3 {
        depth: 16,
        height: 40,
        width: 24,
    };
    config.train = TrainConfig {
        steps: Some(6),
        batch: 4,
        texts_per_volume: 2,
        report: ReportText::Sentences { most: 2 },
        checkpoint_every_steps: Some(2),
        ..config.train
    };
    config.train.optimizer.schedule = Schedule::Constant;
    config.train.optimizer.learning_rate = Some(1e-4);
    let start = folder.join("start");
    let mut first = config.clone();
    first.train.steps = Some(1);
    complete(1, &first, &start, false);
    config.model.start = Some(start.join("model"));
    config
}

/// Trains with one worker a communicator; how each of them ended.
fn run<C: Communicator + 'static>(
    workers: Vec<C>,
    config: &RunConfig,
    folder: &Path,
    resume: bool,
) -> Vec<Result<Outcome>> {
    let stop = &AtomicBool::new(false);
    std::thread::scope(|scope| {
        let threads: Vec<_> = workers
            .into_iter()
            .map(|worker| {
                scope.spawn(move || {
                    let options = RunOptions {
                        device: Device::flex(),
                        resume,
                        stop,
                        workers: Arc::new(worker),
                    };
                    train(config, folder, &options, &Silent)
                })
            })
            .collect();
        let ends = threads.into_iter().map(|thread| thread.join());
        ends.map(|end| end.expect("no panic")).collect()
    })
}

fn complete(workers: usize, config: &RunConfig, folder: &Path, resume: bool) {
    for end in run(ThreadWorker::group(workers), config, folder, resume) {
        assert!(matches!(end, Ok(Outcome::Complete(_))), "{end:?}");
    }
}

fn losses(folder: &Path) -> Vec<f64> {
    let lines = std::fs::read_to_string(folder.join("metrics.jsonl")).unwrap();
    let report = |line| serde_json::from_str::<StepReport>(line).unwrap();
    lines.lines().map(|line| report(line).loss).collect()
}

#[track_caller]
fn assert_near(found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        let far = (found / expected - 1.0).abs();
        assert!(far < TOLERANCE, "{found}, not {expected}: {far:e}");
    }
}

fn weights(folder: &Path) -> Vec<u8> {
    std::fs::read(folder.join("model/model.safetensors")).unwrap()
}

#[test]
fn workers_see_the_pairs_of_one_and_lose_as_much() {
    let folder = tempfile::tempdir().unwrap();
    // No batch norms, which would see the volumes of one worker.
    let mut config = small(folder.path(), ("convnext", "naive"));
    let at = |name: &str| folder.path().join(name);
    complete(1, &config, &at("one"), false);
    let expected = losses(&at("one"));
    assert_eq!(expected.len(), 6);
    for workers in [2, 3] {
        let name = at(&format!("{workers}"));
        complete(workers, &config, &name, false);
        assert_near(&losses(&name), &expected);
    }
    config.train.micro_batch = Some(1);
    complete(2, &config, &at("parts"), false);
    assert_near(&losses(&at("parts")), &expected);
    // Contrasted among two only, a pair is told from fewer others.
    config.train.contrast_over = ContrastOver::OwnWorker;
    complete(2, &config, &at("own"), false);
    let own = losses(&at("own"));
    assert!(own[0] < 0.8 * expected[0], "{own:?}, {expected:?}");
}

/// A worker that dies after so many sums.
#[derive(Debug)]
struct Mortal {
    worker: ThreadWorker,
    sums: AtomicUsize,
}

impl Communicator for Mortal {
    fn rank(&self) -> usize {
        self.worker.rank()
    }

    fn size(&self) -> usize {
        self.worker.size()
    }

    fn all_reduce(&self, values: &mut [f32]) -> Result<()> {
        if self.sums.fetch_sub(1, Ordering::Relaxed) == 0 {
            return Err(Error::Stopped);
        }
        self.worker.all_reduce(values)
    }

    fn all_gather(&self, bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
        self.worker.all_gather(bytes)
    }

    fn broadcast(&self, bytes: Vec<u8>) -> Result<Vec<u8>> {
        self.worker.broadcast(bytes)
    }
}

#[test]
fn a_worker_that_dies_loses_nothing_since_the_last_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    // With batch norms, whose running statistics are part of what all must have.
    let config = small(folder.path(), ("dcformer", "nano"));
    let [whole, killed] = ["whole", "killed"].map(|name| folder.path().join(name));
    complete(2, &config, &whole, false);
    // Two sums a step, of gradients and of running statistics: it dies in the fourth.
    let mortal = |(rank, worker)| Mortal {
        worker,
        sums: AtomicUsize::new(if rank == 1 { 7 } else { usize::MAX }),
    };
    let workers = ThreadWorker::group(2).into_iter().enumerate().map(mortal);
    let ends = run(workers.collect(), &config, &killed, false);
    assert!(
        matches!(ends[0], Err(Error::WorkerLost { rank: 1 })),
        "{:?}",
        ends[0]
    );
    let checkpoints: Vec<PathBuf> = std::fs::read_dir(killed.join("checkpoints"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert_eq!(checkpoints, [killed.join("checkpoints/step-00000002")]);
    complete(2, &config, &killed, true);
    assert_eq!(weights(&killed), weights(&whole));
    assert_eq!(losses(&killed), losses(&whole));
}

#[test]
fn another_number_of_workers_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let config = small(folder.path(), ("convnext", "naive"));
    let [one, changed] = ["one", "changed"].map(|name| folder.path().join(name));
    complete(1, &config, &one, false);
    let mortal = |worker| Mortal {
        worker,
        sums: AtomicUsize::new(4),
    };
    let workers = ThreadWorker::group(3).into_iter().map(mortal);
    for end in run(workers.collect(), &config, &changed, false) {
        assert!(matches!(end, Err(Error::Stopped)), "{end:?}");
    }
    complete(2, &config, &changed, true);
    assert_near(&losses(&changed), &losses(&one));
}

#[test]
fn more_workers_than_pairs_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = small(folder.path(), ("convnext", "naive"));
    let ends = run(
        ThreadWorker::group(5),
        &config,
        &folder.path().join("run"),
        false,
    );
    let said = ends[0].as_ref().unwrap_err().to_string();
    assert_eq!(
        said,
        "`train.batch` is 4 with 5 workers, expected at least as many pairs as workers"
    );
    config.train.contrast_over = ContrastOver::OwnWorker;
    assert!(config.train.check_workers(2).is_ok());
    assert!(config.train.check_workers(3).is_err());
    assert!(!folder.path().join("run").exists());
}

#[test]
fn fine_tuning_is_not_shared() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path().join("train.csv"));
    config.model.start = Some(folder.path().join("model"));
    config.finetune = Some(FinetuneConfig::new(Method::Full));
    for end in run(ThreadWorker::group(2), &config, folder.path(), false) {
        assert_eq!(
            end.unwrap_err().to_string(),
            "`finetune` is given with 2 workers, expected one worker, since fine-tuning is not shared"
        );
    }
}
