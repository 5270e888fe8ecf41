//! Several workers of one run, and how they talk.
//!
//! A worker computes its share of every batch; [`Communicator`] is all that training needs of whatever joins the workers:
//! [`Alone`] is a run of one process, [`ThreadWorker`] is one of several threads of a process, which is how the tests run
//! without MPI, and `MpiWorker` (feature `mpi`) is one of several processes, on one machine or many.
//!
//! All workers call the same functions in the same order. What they get is the same on each, bit for bit, so that
//! weights which start equal stay equal.

use std::fmt;
use std::sync::Arc;

use dcformer_kernels::{SumOverWorkers, synchronized};

use crate::error::Result;

#[cfg(feature = "mpi")]
mod mpi;
mod threads;

#[cfg(feature = "mpi")]
pub use mpi::MpiWorker;
pub use threads::ThreadWorker;

/// What a worker can do together with the others.
///
/// # Errors
/// Every function fails with [`Error::WorkerLost`](crate::Error::WorkerLost) if another worker has ended, where the engine
/// does not end this one as well (MPI does).
pub trait Communicator: Send + Sync + fmt::Debug {
    /// Which worker this is, from 0.
    fn rank(&self) -> usize;

    /// How many there are.
    fn size(&self) -> usize;

    /// Replaces every value by its sum over all workers, which give equally many.
    fn all_reduce(&self, values: &mut [f32]) -> Result<()>;

    /// What each worker gives, by rank; any length.
    fn all_gather(&self, bytes: &[u8]) -> Result<Vec<Vec<u8>>>;

    /// What the first worker gives; what the others give does not matter.
    fn broadcast(&self, bytes: Vec<u8>) -> Result<Vec<u8>>;
}

impl dyn Communicator + '_ {
    /// Whether this is the worker that reads and writes for all.
    pub fn is_first(&self) -> bool {
        self.rank() == 0
    }

    /// Sums of a few values over all workers, in double precision.
    ///
    /// # Errors
    /// As all functions of a [`Communicator`].
    pub fn sum<const N: usize>(&self, mut values: [f64; N]) -> Result<[f64; N]> {
        self.sum_all(&mut values)?;
        Ok(values)
    }

    /// Replaces values by their sums over all workers, in double precision.
    ///
    /// # Errors
    /// As all functions of a [`Communicator`].
    pub fn sum_all(&self, values: &mut [f64]) -> Result<()> {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes());
        let all = self.all_gather(&bytes.collect::<Vec<u8>>())?;
        values.fill(0.0);
        for of_worker in all {
            let (of_worker, _) = of_worker.as_chunks();
            for (sum, &value) in values.iter_mut().zip(of_worker) {
                *sum += f64::from_le_bytes(value);
            }
        }
        Ok(())
    }

    /// Whether it is true of any worker.
    ///
    /// # Errors
    /// As all functions of a [`Communicator`].
    pub fn any(&self, is: bool) -> Result<bool> {
        let [count] = self.sum([f64::from(u8::from(is))])?;
        Ok(count > 0.0)
    }

    /// Waits until every worker is here.
    ///
    /// # Errors
    /// As all functions of a [`Communicator`].
    pub fn wait_for_all(&self) -> Result<()> {
        self.all_gather(&[]).map(|_| ())
    }
}

/// The share of a worker of so many things in a row; the shares of all ranks, one after the other, are the row.
pub fn share(of: usize, workers: &dyn Communicator) -> std::ops::Range<usize> {
    let until = |rank| of * rank / workers.size();
    until(workers.rank())..until(workers.rank() + 1)
}

/// The only worker.
#[derive(Clone, Copy, Debug, Default)]
pub struct Alone;

impl Communicator for Alone {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn all_reduce(&self, _values: &mut [f32]) -> Result<()> {
        Ok(())
    }

    fn all_gather(&self, bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
        Ok(vec![bytes.to_vec()])
    }

    fn broadcast(&self, bytes: Vec<u8>) -> Result<Vec<u8>> {
        Ok(bytes)
    }
}

/// Carries out `work`, forward and backward passes, with batch norms over the batches of all workers.
pub(crate) fn with_shared_norms<R>(workers: &Arc<dyn Communicator>, work: impl FnOnce() -> R) -> R {
    struct Sums(Arc<dyn Communicator>);

    impl SumOverWorkers for Sums {
        fn workers(&self) -> usize {
            self.0.size()
        }

        fn sum(&self, values: &mut [f64]) {
            // A worker that is lost is missed again, and then reported, when the gradients are added up.
            if self.0.sum_all(values).is_err() {
                values.fill(f64::NAN);
            }
        }
    }

    synchronized(Arc::new(Sums(Arc::clone(workers))), work)
}

/// Numbers as they travel, little-endian.
pub(crate) fn bytes_of(values: &[f32]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect()
}

/// The numbers of [`bytes_of`].
pub(crate) fn numbers_of(bytes: &[u8]) -> Vec<f32> {
    let (values, _) = bytes.as_chunks();
    values
        .iter()
        .map(|&bytes| f32::from_le_bytes(bytes))
        .collect()
}

#[cfg(test)]
pub(crate) mod tests;
