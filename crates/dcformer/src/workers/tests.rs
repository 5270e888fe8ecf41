use super::*;
use crate::error::Error;

/// Runs each worker in a thread; what they give, by rank.
pub(crate) fn on_threads<T: Send>(
    workers: usize,
    run: impl Fn(&Arc<dyn Communicator>) -> T + Sync,
) -> Vec<T> {
    std::thread::scope(|scope| {
        let run = &run;
        let threads: Vec<_> = ThreadWorker::group(workers)
            .into_iter()
            .map(|worker| scope.spawn(move || run(&(Arc::new(worker) as Arc<dyn Communicator>))))
            .collect();
        let results = threads.into_iter().map(|thread| thread.join());
        results.map(|result| result.expect("no panic")).collect()
    })
}

#[test]
fn all_get_the_same_of_all() {
    let results = on_threads(3, |workers| {
        let rank = workers.rank();
        let mut sums = [0.1, 10.0].map(|value| value * (rank + 1) as f32);
        let mut all = Vec::new();
        // Often, so that one worker is still leaving an exchange while another comes to the next.
        for round in 0..100 {
            let bytes = vec![rank as u8 + round; rank];
            all = workers.all_gather(&bytes).unwrap();
            let expected: Vec<_> = (0..3).map(|rank| vec![rank as u8 + round; rank]).collect();
            assert_eq!(all, expected);
        }
        workers.all_reduce(&mut sums).unwrap();
        let first = workers.broadcast(vec![rank as u8 + 7]).unwrap();
        let any = [0, 1, 9].map(|which| workers.any(rank == which).unwrap());
        (
            sums,
            all,
            first,
            any,
            workers.sum([0.1, rank as f64]).unwrap(),
        )
    });
    for (sums, _, first, any, doubles) in &results {
        assert_eq!(*sums, [0.1 + 0.1 * 2.0 + 0.1 * 3.0, 60.0]);
        assert_eq!(*first, [7]);
        assert_eq!(*any, [true, true, false]);
        assert_eq!(*doubles, [0.1 + 0.1 + 0.1, 3.0]);
    }
}

#[test]
fn a_worker_that_leaves_ends_the_others() {
    let results = on_threads(3, |workers| {
        workers.wait_for_all()?;
        if workers.rank() == 1 {
            return Ok(());
        }
        workers.wait_for_all()
    });
    for (rank, result) in results.into_iter().enumerate() {
        match result {
            Ok(()) => assert_eq!(rank, 1),
            // The others leave as well, so that any of them may be the first that a third one misses.
            Err(error) => assert!(matches!(error, Error::WorkerLost { .. }), "{error}"),
        }
    }
}

#[test]
fn shares_are_a_row_without_gaps() {
    for (size, of) in [(1, 5), (2, 8), (3, 8), (4, 3)] {
        let shares = on_threads(size, |workers| share(of, &**workers));
        let row: Vec<usize> = shares.into_iter().flatten().collect();
        assert_eq!(row, (0..of).collect::<Vec<_>>());
    }
}
