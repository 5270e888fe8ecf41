//! Threads that compute.

use crate::synchronized::batch_workers;

/// Runs `work`, which makes several operations one after the other, on one of the threads that compute.
///
/// Each operation is a few parallel passes, the stem one for each plane. Begun on any other thread, a pass first wakes a
/// computing thread and then sleeps until that one is done: tens of microseconds each, in a virtual machine more than a
/// small volume's arithmetic. On a computing thread a pass begins at once. What is computed does not change.
///
/// `work` must not wait for other threads: with one computing thread there is none that they could use. Batch norms that
/// are [`synchronized`](crate::synchronized()) do wait, so `work` then stays on the thread that calls.
pub fn on_workers<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    if batch_workers() > 1 {
        return work();
    }
    rayon::scope(|_| work())
}
