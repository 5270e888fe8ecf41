//! Batch norms whose batch several workers share.
//!
//! A norm needs four sums over the batch, per channel: of values and of squares forward, of gradients and of their products
//! with the values backward. Added up over the workers, they make it the norm of the whole batch; nothing else of it knows
//! of workers.

use std::cell::RefCell;
use std::sync::Arc;

/// Whoever adds up numbers over workers.
pub trait SumOverWorkers {
    /// How many workers there are.
    fn workers(&self) -> usize;

    /// Replaces every number by its sum over all workers, which call this equally often with equally many. It cannot fail:
    /// where the others cannot be reached it gives NaN.
    fn sum(&self, values: &mut [f64]);
}

thread_local! {
    static SHARED: RefCell<Option<Arc<dyn SumOverWorkers>>> = const { RefCell::new(None) };
}

/// Carries out `work`, forward and backward passes, with batch norms over the batches of all workers. Only what this thread
/// calls takes part, and every worker must do the same. Gradients of the norms' scales and shifts remain the worker's own
/// share: their sum over the workers is that of the batch.
pub fn synchronized<R>(workers: Arc<dyn SumOverWorkers>, work: impl FnOnce() -> R) -> R {
    /// Puts back what was there before, whether `work` returns or panics.
    struct Before(Option<Arc<dyn SumOverWorkers>>);

    impl Drop for Before {
        fn drop(&mut self) {
            SHARED.set(self.0.take());
        }
    }

    let _before = Before(SHARED.replace(Some(workers)));
    work()
}

/// Workers that the batches of this thread's batch norms are shared by; 1 unless [`synchronized`].
pub fn batch_workers() -> usize {
    SHARED.with_borrow(|shared| shared.as_ref().map_or(1, |shared| shared.workers()))
}

/// Two sums per channel and the number of values behind them, over all workers.
pub(crate) fn over_workers(sums: [&[f64]; 2], count: usize) -> ([Vec<f64>; 2], f64) {
    // Not borrowed while it waits for the others.
    let Some(shared) = SHARED.with_borrow(Option::clone) else {
        return (sums.map(<[f64]>::to_vec), count as f64);
    };
    let mut message = vec![count as f64];
    message.extend(sums.into_iter().flatten());
    shared.sum(&mut message);
    let mut rest = &message[1..];
    let sums = sums.map(|own| {
        let (sums, others) = rest.split_at(own.len());
        rest = others;
        sums.to_vec()
    });
    (sums, message[0])
}

#[cfg(test)]
mod tests;
