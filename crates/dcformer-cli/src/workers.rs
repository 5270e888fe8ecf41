//! The other workers of a run: processes that `mpirun` or `srun` has started with this one.

use std::sync::Arc;

use dcformer::workers::Communicator;

/// Carries out a worker's part; if it fails, all workers end.
#[cfg(feature = "mpi")]
pub(crate) fn on_workers(
    part: impl FnOnce(Arc<dyn Communicator>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    use anyhow::Context;
    use dcformer::workers::MpiWorker;

    use crate::progress;

    let worker = MpiWorker::start()
        .context("MPI does not start, or was built for programs without threads")?;
    let worker = Arc::new(worker);
    let rank = worker.rank();
    if rank > 0 {
        progress::be_quiet();
    }
    let result = part(Arc::<MpiWorker>::clone(&worker));
    match result {
        Err(error) if worker.size() > 1 => {
            progress::error(&error.context(format!("worker {rank} ends the run")));
            worker.abort();
        }
        alone_or_complete => alone_or_complete,
    }
}

/// Carries out the run of the only worker. One of several, which this program cannot join, would train on its own and
/// write over the others.
#[cfg(not(feature = "mpi"))]
pub(crate) fn on_workers(
    part: impl FnOnce(Arc<dyn Communicator>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    /// What Open MPI, MPICH and Slurm's `srun` tell a process: how many there are.
    const SIZES: [&str; 3] = ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"];

    for variable in SIZES {
        let value = std::env::var(variable).unwrap_or_default();
        if value.parse::<usize>().is_ok_and(|size| size > 1) {
            anyhow::bail!(
                "{variable} says that this is one of {value} workers, but this program was built without MPI; build it with \
                 `cargo build --release --features dcformer-cli/mpi`"
            );
        }
    }
    part(Arc::new(dcformer::workers::Alone))
}
