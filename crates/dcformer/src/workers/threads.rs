//! Workers that are threads of one process.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::{Communicator, bytes_of, numbers_of};
use crate::error::{Error, Result};

/// A worker that is a thread. It counts as lost once it is dropped.
#[derive(Debug)]
pub struct ThreadWorker {
    rank: usize,
    meeting: Arc<Meeting>,
}

/// Where the workers meet.
#[derive(Debug)]
struct Meeting {
    round: Mutex<Round>,
    changed: Condvar,
}

#[derive(Debug)]
struct Round {
    /// Exchanges that are complete.
    number: u64,
    /// What each has brought to the exchange under way.
    brought: Vec<Option<Vec<u8>>>,
    /// What all had brought to the last one.
    complete: Arc<Vec<Vec<u8>>>,
    /// The first that has left.
    lost: Option<usize>,
}

impl ThreadWorker {
    /// So many workers, by rank, each for a thread of its own.
    pub fn group(size: usize) -> Vec<Self> {
        let meeting = Arc::new(Meeting {
            round: Mutex::new(Round {
                number: 0,
                brought: vec![None; size],
                complete: Arc::default(),
                lost: None,
            }),
            changed: Condvar::new(),
        });
        (0..size)
            .map(|rank| Self {
                rank,
                meeting: Arc::clone(&meeting),
            })
            .collect()
    }

    fn round(&self) -> MutexGuard<'_, Round> {
        // Nothing panics while it holds the lock.
        let round = self.meeting.round.lock();
        round.unwrap_or_else(PoisonError::into_inner)
    }

    /// Brings this and takes what all have brought. Nobody is an exchange ahead: it needs everybody's part.
    fn exchange(&self, bytes: Vec<u8>) -> Result<Arc<Vec<Vec<u8>>>> {
        let mut round = self.round();
        let number = round.number;
        round.brought[self.rank] = Some(bytes);
        if round.brought.iter().all(Option::is_some) {
            let brought = round.brought.iter_mut().filter_map(Option::take).collect();
            round.complete = Arc::new(brought);
            round.number += 1;
            self.meeting.changed.notify_all();
        }
        while round.number == number {
            if let Some(rank) = round.lost {
                return Err(Error::WorkerLost { rank });
            }
            let woken = self.meeting.changed.wait(round);
            round = woken.unwrap_or_else(PoisonError::into_inner);
        }
        Ok(Arc::clone(&round.complete))
    }
}

impl Drop for ThreadWorker {
    fn drop(&mut self) {
        let mut round = self.round();
        round.lost.get_or_insert(self.rank);
        drop(round);
        self.meeting.changed.notify_all();
    }
}

impl Communicator for ThreadWorker {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.round().brought.len()
    }

    fn all_reduce(&self, values: &mut [f32]) -> Result<()> {
        let all = self.exchange(bytes_of(values))?;
        values.fill(0.0);
        for of_worker in all.iter() {
            for (sum, value) in values.iter_mut().zip(numbers_of(of_worker)) {
                *sum += value;
            }
        }
        Ok(())
    }

    fn all_gather(&self, bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
        Ok(self.exchange(bytes.to_vec())?.to_vec())
    }

    fn broadcast(&self, bytes: Vec<u8>) -> Result<Vec<u8>> {
        let bytes = if self.rank == 0 { bytes } else { Vec::new() };
        Ok(self.exchange(bytes)?[0].clone())
    }
}
