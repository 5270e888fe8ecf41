//! Scans to a cache, by any number of processes that do not know of each other.
//!
//! What is done is seen in the cache: a volume's folder gets its name when it is complete. So a process that was killed
//! leaves nothing to repair, and the next run, of any number of shards, does what is missing and tries again what is in
//! quarantine. The tables are written by whichever process finds that no volume is missing any more.

use std::fs;
use std::num::NonZero;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use half::f16;
use rayon::prelude::*;

use super::plan::{Item, Listing, Plan, Shard, State};
use super::volume::{Record, Writer};
use super::zarr::{Group, METADATA, chunk_slices, to_json};
use super::{Description, FORMAT, Quarantined, Root, Settings, Source, VOLUMES};
use super::{quarantine, same_settings, settings, tables};
use crate::geometry::Shape3;
use crate::output::UNFINISHED;
use crate::preprocess::ModelInput;
use crate::storage::{self, Local};
use crate::{Error, Result};

/// How [`prepare`] is carried out.
#[derive(Debug)]
pub struct Job<'a> {
    /// What is made of each scan.
    pub settings: Settings,
    /// Which volumes this process makes.
    pub shard: Shard,
    /// Volumes in work at once; each takes the memory of a network's input in single precision, and a third more.
    pub workers: NonZero<usize>,
    /// Set to true, it ends the work after the volumes at hand.
    pub stop: &'a AtomicBool,
}

/// A volume is done with.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'a> {
    /// Volumes of this run that are done with.
    pub done: usize,
    /// All that it has to do.
    pub of: usize,
    /// The volume.
    pub name: &'a str,
    /// Why it could not be prepared, if so.
    pub quarantined: Option<&'a Quarantined>,
}

/// What [`prepare`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Volumes that this run made.
    pub prepared: usize,
    /// Volumes of its shard that were there already.
    pub already: usize,
    /// Volumes of its shard that could not be made.
    pub quarantined: Vec<Quarantined>,
    /// Volumes that are left, to this shard if it was stopped, and to others; with none, the cache is complete.
    pub left: usize,
}

/// Makes the volumes of a shard that are not in the cache yet, and the cache's tables once no volume is missing.
///
/// A scan that cannot be read or is no CT goes into quarantine and does not stop the others.
///
/// # Errors
/// If the settings cannot be carried out, the cache was begun with others, or it cannot be written.
pub fn prepare(
    listings: &[Listing],
    cache: &Path,
    job: &Job<'_>,
    progress: &(dyn Fn(&Progress<'_>) + Sync),
) -> Result<Summary> {
    check(&job.settings)?;
    let plan = Plan::new(listings)?;
    tables::check_labels(cache, &plan)?;
    begin(cache, &job.settings)?;

    let in_shard = plan.items.iter().enumerate();
    let mine: Vec<&Item<'_>> = in_shard
        .filter(|(number, _)| job.shard.contains(*number))
        .map(|(_, item)| item)
        .collect();
    let is_open = |item: &&Item<'_>| !matches!(item.state(cache, &job.settings), State::Ready(..));
    let open = || -> Vec<&Item<'_>> { mine.par_iter().copied().filter(is_open).collect() };
    let open = look_at(cache, open);
    let outcome = work(&open, cache, job, progress)?;

    let state = |item: &Item<'_>| item.state(cache, &job.settings);
    let states: Vec<State> = look_at(cache, || plan.items.par_iter().map(state).collect());
    let left = states.iter().filter(|state| matches!(state, State::Open));
    let left = left.count();
    if left == 0 {
        clean(cache, &plan, &states)?;
        tables::write(cache, &plan, &states)?;
    }
    Ok(Summary {
        prepared: outcome.done - outcome.quarantined.len(),
        already: mine.len() - open.len(),
        quarantined: outcome.quarantined,
        left,
    })
}

/// Lets `look` look at many volumes of a cache at once. A bucket's answers are waited for and not computed: there are many
/// more of them at once than cores.
fn look_at<T: Send>(cache: &Path, look: impl FnOnce() -> T + Send) -> T {
    const REQUESTS: usize = 32;
    if !storage::is_address(cache) {
        return look();
    }
    match rayon::ThreadPoolBuilder::new()
        .num_threads(REQUESTS)
        .build()
    {
        Ok(pool) => pool.install(look),
        Err(_) => look(),
    }
}

/// Refuses what half floats or the format have no place for.
fn check(settings: &Settings) -> Result<()> {
    let preprocess = &settings.preprocess;
    preprocess.check()?;
    let wrong = |field, found, expected| {
        Err(Error::PreprocessField {
            field,
            found,
            expected,
        })
    };
    if !f16::from_f32(preprocess.pad_value).is_finite() {
        let found = preprocess.pad_value.to_string();
        return wrong("pad_value", found, "at most 65504, for a half float");
    }
    let Shape3 { height, width, .. } = preprocess.shape;
    if chunk_slices(preprocess.shape) * height * width >= 1 << 30 {
        let found = preprocess.shape.to_string();
        return wrong("shape", found, "slices of less than 2^30 voxels");
    }
    Ok(())
}

/// Makes the folders and says in them how they are filled; a cache that was begun with other settings is refused.
fn begin(cache: &Path, wanted: &Settings) -> Result<()> {
    for folder in [VOLUMES, quarantine::FOLDER] {
        let path = cache.join(folder);
        storage::create_folders(&path).map_err(|source| Error::Write { path, source })?;
    }
    if tables::is_file(&cache.join(METADATA))? {
        return same_settings(cache, &settings(cache)?, wanted);
    }
    let root = Root {
        dcformer_cache: Description {
            format: FORMAT,
            settings: wanted.clone(),
        },
    };
    let volumes = Group::new(serde_json::Map::new());
    tables::write_shared(&cache.join(VOLUMES).join(METADATA), &to_json(&volumes))?;
    tables::write_shared(&cache.join(METADATA), &to_json(&Group::new(root)))
}

/// What became of the volumes of a run.
#[derive(Default)]
struct Outcome {
    done: usize,
    quarantined: Vec<Quarantined>,
}

/// Makes volumes on threads of their own, one volume a thread at a time, so that memory is bounded by their number.
fn work(
    items: &[&Item<'_>],
    cache: &Path,
    job: &Job<'_>,
    progress: &(dyn Fn(&Progress<'_>) + Sync),
) -> Result<Outcome> {
    let next = AtomicUsize::new(0);
    let failed = AtomicBool::new(false);
    let outcome = Mutex::new(Outcome::default());
    let worker = || -> Result<()> {
        let mut writer = Writer::new().map_err(|source| Error::Write {
            path: cache.into(),
            source,
        })?;
        while !job.stop.load(Ordering::Relaxed)
            && !failed.load(Ordering::Relaxed)
            && let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed))
        {
            let quarantined = make(item, cache, &job.settings, &mut writer)?;
            let mut outcome = outcome.lock().expect("no worker panics while it counts");
            outcome.done += 1;
            progress(&Progress {
                done: outcome.done,
                of: items.len(),
                name: &item.sample.name,
                quarantined: quarantined.as_ref(),
            });
            outcome.quarantined.extend(quarantined);
        }
        Ok(())
    };
    let results = thread::scope(|scope| {
        let start =
            |_| scope.spawn(|| worker().inspect_err(|_| failed.store(true, Ordering::Relaxed)));
        let workers: Vec<_> = (0..job.workers.get().min(items.len())).map(start).collect();
        let results = workers.into_iter().map(|worker| {
            worker
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        results.collect::<Vec<_>>()
    });
    results.into_iter().collect::<Result<()>>()?;
    let mut outcome = outcome.into_inner().expect("all workers have ended well");
    outcome
        .quarantined
        .sort_by(|one, other| one.name.cmp(&other.name));
    Ok(outcome)
}

/// Makes a volume, or puts it into quarantine. An error is one of the cache, not of the scan.
fn make(
    item: &Item<'_>,
    cache: &Path,
    settings: &Settings,
    writer: &mut Writer,
) -> Result<Option<Quarantined>> {
    let name = &item.sample.name;
    let scan = storage::fetch(&item.sample.path);
    let read = || match &scan {
        Ok(scan) => read(scan, item, settings),
        Err(source) => Err(Error::Read {
            path: item.sample.path.clone(),
            source: std::io::Error::new(source.kind(), source.to_string()),
        }),
    };
    let mut quarantined = match Quarantined::unless(name, read) {
        Ok((source, input)) => {
            let record = Record::new(name, source, settings, item.metadata(settings), &input);
            let place = item.place(cache);
            // A second process that makes the same volume may be first; then it is there.
            if let Err(source) = writer.write(&place, &input, &record)
                && !matches!(item.state(cache, settings), State::Ready(..))
            {
                return Err(Error::Write {
                    path: place,
                    source,
                });
            }
            quarantine::release(cache, &item.key)?;
            return Ok(None);
        }
        Err(quarantined) => quarantined,
    };
    if let Ok(scan) = &scan {
        quarantined.message = scan.name_original(&quarantined.message);
    }
    quarantined.write(cache, &item.key)?;
    Ok(Some(quarantined))
}

fn read(scan: &Local, item: &Item<'_>, settings: &Settings) -> Result<(Source, ModelInput)> {
    let path = scan.path();
    let source = Source::read(path)?;
    let metadata = item.metadata(settings);
    let input = settings
        .preprocess
        .run_file(path, &metadata, &settings.scan)?;
    Ok((source, input))
}

/// Removes what killed processes left, and records of volumes that were made after all.
fn clean(cache: &Path, plan: &Plan<'_>, states: &[State]) -> Result<()> {
    let names_in = |folder: &str| {
        let path = cache.join(folder);
        storage::names_in(&path).map_err(|source| Error::Read { path, source })
    };
    // In a bucket, nothing unfinished is seen.
    if !storage::is_address(cache) {
        for folder in [VOLUMES, quarantine::FOLDER] {
            let unfinished = |name: &String| name.ends_with(UNFINISHED);
            for name in names_in(folder)?.into_iter().filter(unfinished) {
                let path = cache.join(folder).join(name);
                // Another process may be cleaning too; what stays does no harm.
                let _ = fs::remove_dir_all(&path).or_else(|_| fs::remove_file(&path));
            }
        }
    }
    let records = names_in(quarantine::FOLDER)?;
    for (item, state) in plan.items.iter().zip(states) {
        if matches!(state, State::Ready(..)) && records.contains(&quarantine::file_name(&item.key))
        {
            quarantine::release(cache, &item.key)?;
        }
    }
    Ok(())
}
