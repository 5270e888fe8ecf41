//! Workers that are processes, joined by MPI.

use std::sync::{Mutex, MutexGuard, PoisonError};

use ::mpi::Threading;
use ::mpi::collective::SystemOperation;
use ::mpi::datatype::PartitionMut;
use ::mpi::environment::Universe;
use ::mpi::topology::SimpleCommunicator;
use ::mpi::traits::{Communicator as _, CommunicatorCollectives as _, Root as _};

use super::Communicator;
use crate::error::Result;

/// Values of one message: MPI counts them in 32 bits with a sign.
const MESSAGE: usize = 1 << 28;

/// Status of a process that ends the others.
const FAILURE: i32 = 1;

/// A worker that is a process, which `mpirun` or `srun` has started beside the others; one that was started alone is the
/// only one. A process that dies takes the others with it: MPI ends them, and says so.
pub struct MpiWorker {
    rank: usize,
    size: usize,
    /// MPI was asked for a level of threads at which one call is made at a time.
    one_call: Mutex<()>,
    /// MPI until it is dropped.
    _universe: Universe,
}

impl MpiWorker {
    /// Joins the others; `None` if the process has done so before, or MPI does not let threads call it.
    pub fn start() -> Option<Self> {
        let (universe, threads) = ::mpi::initialize_with_threading(Threading::Serialized)?;
        if threads < Threading::Serialized {
            return None;
        }
        let world = universe.world();
        let count = |number| usize::try_from(number).ok();
        Some(Self {
            rank: count(world.rank())?,
            size: count(world.size())?,
            one_call: Mutex::new(()),
            _universe: universe,
        })
    }

    /// Ends all workers: what a worker does that cannot go on, since the others would wait for it.
    pub fn abort(&self) -> ! {
        SimpleCommunicator::world().abort(FAILURE)
    }

    fn world(&self) -> (MutexGuard<'_, ()>, SimpleCommunicator) {
        let call = self.one_call.lock();
        let call = call.unwrap_or_else(PoisonError::into_inner);
        (call, SimpleCommunicator::world())
    }
}

impl Drop for MpiWorker {
    fn drop(&mut self) {
        // Leaving in good order would wait for the others, and they for this one.
        if std::thread::panicking() && self.size > 1 {
            self.abort();
        }
    }
}

impl std::fmt::Debug for MpiWorker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MpiWorker")
            .field("rank", &self.rank)
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}

// An error of MPI itself ends all processes: that is how it treats errors unless told otherwise. Sums have the same bits on
// all, as the standard requires of reductions that give all processes the result.
impl Communicator for MpiWorker {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn all_reduce(&self, values: &mut [f32]) -> Result<()> {
        let (_call, world) = self.world();
        for sums in values.chunks_mut(MESSAGE) {
            let own = sums.to_vec();
            world.all_reduce_into(&own[..], sums, SystemOperation::sum());
        }
        Ok(())
    }

    fn all_gather(&self, bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
        let (_call, world) = self.world();
        let length = i32::try_from(bytes.len()).expect("latents of a batch are below 2 GB");
        let mut lengths = vec![0; self.size];
        world.all_gather_into(&length, &mut lengths[..]);
        let starts: Vec<i32> = lengths
            .iter()
            .scan(0i32, |next, length| {
                let start = *next;
                *next = next.checked_add(*length)?;
                Some(start)
            })
            .collect();
        assert_eq!(
            starts.len(),
            self.size,
            "latents of a batch are below 2 GB, those of all workers"
        );
        let sizes = lengths.iter().map(|&length| length as usize);
        // Bytes that are never sent: where there are none, Rust's address of them is the number 1, and Open MPI takes that
        // for `MPI_IN_PLACE`.
        let nothing = [0];
        let own = if bytes.is_empty() {
            &nothing[..0]
        } else {
            bytes
        };
        let total: usize = sizes.clone().sum();
        let mut all = vec![0; total + nothing.len()];
        let mut parts = PartitionMut::new(&mut all[..total], &lengths[..], &starts[..]);
        world.all_gather_varcount_into(own, &mut parts);
        let mut rest = &all[..total];
        let parts = sizes.map(|size| {
            let (part, others) = rest.split_at(size);
            rest = others;
            part.to_vec()
        });
        Ok(parts.collect())
    }

    fn broadcast(&self, mut bytes: Vec<u8>) -> Result<Vec<u8>> {
        let (_call, world) = self.world();
        let first = world.process_at_rank(0);
        let mut length = bytes.len() as u64;
        first.broadcast_into(&mut length);
        bytes.resize(length as usize, 0);
        for part in bytes.chunks_mut(MESSAGE) {
            first.broadcast_into(part);
        }
        Ok(bytes)
    }
}
