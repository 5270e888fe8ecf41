//! Threads that compute.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Runs `work`, which makes several operations one after the other, on one of the threads that compute.
///
/// Each operation is a few parallel passes, the stem one for each plane. Begun on any other thread, a pass first wakes a
/// computing thread and then sleeps until that one is done: tens of microseconds each, in a virtual machine more than a
/// small volume's arithmetic. On a computing thread a pass begins at once. What is computed does not change.
///
/// `work` must not wait for other threads: with one computing thread there is none that they could use.
pub fn on_workers<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    rayon::scope(|_| work())
}

/// Runs tasks in steps on all threads: a task begins when all tasks of earlier steps are done, which then happened before it.
/// Threads take tasks one after the other, each with a state of its own, and call `work` with it, the step, and the task's
/// number in the step.
///
/// A parallel pass for each step would end with threads going to sleep while one finishes, and begin with waking them, which
/// in a virtual machine takes as long as a task. Here they stay awake.
///
/// # Panics
/// If `work` does, or a step has no tasks.
///
/// `work` must neither wait for another task nor divide its own work among threads: they may be waiting for it.
pub(crate) fn in_steps<T>(
    tasks_of_steps: &[usize],
    init: impl Fn() -> T + Sync,
    work: impl Fn(&mut T, usize, usize) + Sync,
) {
    let steps = Steps::new(tasks_of_steps);
    let thread = || {
        let mut state = init();
        let mut step = 0;
        while let Some(task) = steps.take(&mut step) {
            let unwinding = EndOnPanic(&steps);
            work(&mut state, step, task);
            std::mem::forget(unwinding);
            steps.finish(step);
        }
    };
    rayon::scope(|scope| {
        for _ in 1..rayon::current_num_threads() {
            scope.spawn(|_| thread());
        }
        thread();
    });
}

/// How far the tasks of [`in_steps`] are.
struct Steps {
    /// Of each step the number of its first task, over all, and the number of tasks at the end.
    starts: Vec<usize>,
    /// Tasks of each step that are not done.
    left: Vec<AtomicUsize>,
    next: AtomicUsize,
    /// Steps that are done.
    done: AtomicUsize,
}

impl Steps {
    fn new(tasks_of_steps: &[usize]) -> Self {
        assert!(tasks_of_steps.iter().all(|tasks| *tasks > 0));
        let mut starts = vec![0];
        for tasks in tasks_of_steps {
            starts.push(starts[starts.len() - 1] + tasks);
        }
        Self {
            starts,
            left: tasks_of_steps
                .iter()
                .copied()
                .map(AtomicUsize::new)
                .collect(),
            next: AtomicUsize::new(0),
            done: AtomicUsize::new(0),
        }
    }

    /// The next task, by its number in its step, once it can begin; `None` after the last. `step` is that of the task that the
    /// thread had before, and becomes that of this one.
    fn take(&self, step: &mut usize) -> Option<usize> {
        /// Looks at the others before a thread lets another one have its processor.
        const PATIENCE: usize = 1000;
        let task = self.next.fetch_add(1, Ordering::Relaxed);
        while task >= *self.starts.get(*step + 1)? {
            *step += 1;
        }
        let mut looks = 0;
        while self.done.load(Ordering::Acquire) < *step {
            looks += 1;
            if looks % PATIENCE == 0 {
                std::thread::yield_now();
            } else {
                std::hint::spin_loop();
            }
        }
        // Ended by a panic of another thread.
        (self.done.load(Ordering::Relaxed) < self.left.len()).then(|| task - self.starts[*step])
    }

    fn finish(&self, step: usize) {
        // The last one has seen what all others of the step have written, and passes it on.
        if self.left[step].fetch_sub(1, Ordering::AcqRel) == 1 {
            self.done.fetch_add(1, Ordering::Release);
        }
    }
}

/// Lets no thread wait for a task that panicked.
struct EndOnPanic<'a>(&'a Steps);

impl Drop for EndOnPanic<'_> {
    fn drop(&mut self) {
        self.0.done.store(self.0.left.len(), Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    fn on_threads<R: Send>(threads: usize, work: impl FnOnce() -> R + Send) -> R {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        pool.build().expect("threads").install(work)
    }

    #[test]
    fn a_task_begins_when_all_of_earlier_steps_are_done() {
        let counts = [1, 7, 3, 1, 40, 2];
        for threads in 1..5 {
            let done = Mutex::new(vec![Vec::new(); counts.len()]);
            let before = |step: usize| counts[..step].iter().sum::<usize>();
            on_threads(threads, || {
                in_steps(
                    &counts,
                    || 0,
                    |own, step, task| {
                        *own += 1;
                        let seen = done.lock().unwrap()[..step]
                            .iter()
                            .map(Vec::len)
                            .sum::<usize>();
                        assert_eq!(seen, before(step));
                        done.lock().unwrap()[step].push(task);
                    },
                );
            });
            for (mut tasks, count) in done.into_inner().unwrap().into_iter().zip(counts) {
                tasks.sort_unstable();
                assert!(tasks.into_iter().eq(0..count));
            }
        }
        in_steps(&[], || (), |(), _, _| panic!("there is no task"));
    }

    #[test]
    fn a_panic_ends_all_threads() {
        for threads in 1..4 {
            let ended = std::panic::catch_unwind(|| {
                on_threads(threads, || {
                    in_steps(
                        &[3, 3],
                        || (),
                        |(), step, task| assert!((step, task) != (0, 2), "a task fails"),
                    );
                });
            });
            assert!(ended.is_err());
        }
    }
}
