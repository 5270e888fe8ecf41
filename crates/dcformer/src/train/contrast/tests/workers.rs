//! Workers that share a batch have the gradients of one.

use std::sync::Arc;

use super::*;
use crate::train::exchange::{broadcast, sum_gradients};
use crate::workers::tests::on_threads;
use crate::workers::{share, with_shared_norms};

/// Loss, gradients, and parameters and running statistics afterwards.
type OfWorker = (f64, ParameterGradients, BTreeMap<String, Vec<f32>>);

/// Of the share of a case's pairs that a worker has, with the others.
fn gradients_of_worker(
    case: &Case,
    contrast: Contrast,
    workers: &Arc<dyn Communicator>,
) -> OfWorker {
    let together = workers;
    let workers = &**together;
    let pairs = case.volumes.dims()[0];
    let own = share(pairs, workers);
    // The first texts of all volumes, then their second ones.
    let texts = [0, pairs].map(|first| case.texts_of(first + own.start..first + own.end));
    let volumes = case.volumes.clone().slice(own.clone());
    let mut batch = PairBatch {
        pairs: own.len(),
        texts: &TextBatch::new(&texts.concat()),
        volumes: &mut |part| Ok(volumes.clone().slice(part)),
        dropout_seed: 3,
        workers,
    };
    // Weights of its own: the framework lets one thread at a time go backward through what threads share.
    let clip = broadcast(case.clip.clone(), workers).unwrap();
    let mut gradients = ParameterGradients::default();
    let mut add = || contrast.add_gradients(&clip, &mut batch, 0.5, &mut gradients);
    let loss = match contrast.batch_norm {
        BatchNormStatistics::Synchronized => with_shared_norms(together, add),
        _ => add(),
    };
    sum_gradients(&clip, &mut gradients, workers).unwrap();
    (loss.unwrap(), gradients, state(&clip))
}

#[track_caller]
fn assert_equal_on_all(found: &[OfWorker], expected: &(f64, ParameterGradients)) {
    assert_equal_on_all_within(TOLERANCE, found, expected);
}

#[track_caller]
fn assert_equal_on_all_within(
    tolerance: f32,
    found: &[OfWorker],
    expected: &(f64, ParameterGradients),
) {
    for (loss, gradients, _) in found {
        assert_equal_within(tolerance, &(*loss, gradients.clone()), expected);
        assert_eq!(*loss, found[0].0);
        assert_eq!(gradients.by_path(), found[0].1.by_path());
    }
}

#[test]
fn workers_have_the_gradients_of_one_that_has_all_pairs() {
    for temperature in [Temperature::CLIP, Temperature::SIGLIP] {
        let case = Case::new_without_batch_norm(temperature);
        let whole = Contrast {
            micro_batch: None,
            ..case.contrast
        };
        let expected = case.gradients(whole);
        assert!(expected.1.by_path()["logit_scale.log_scale"][0] != 0.0);
        for workers in [2, 3] {
            for contrast in [whole, case.contrast] {
                let found = on_threads(workers, |workers| {
                    gradients_of_worker(&case, contrast, workers)
                });
                assert_equal_on_all(&found, &expected);
            }
        }
    }
}

#[test]
fn with_frozen_statistics_workers_have_the_gradients_of_one() {
    let case = Case::new(("dcformer", "nano"), SMALL, 6, 2);
    for _ in 0..40 {
        case.clip
            .image
            .features(case.volumes.clone(), Statistics::ByDevice);
    }
    let frozen = Contrast {
        micro_batch: None,
        batch_norm: BatchNormStatistics::Frozen,
    };
    let expected = case.gradients(frozen);
    let found = on_threads(2, |workers| gradients_of_worker(&case, frozen, workers));
    assert_equal_on_all(&found, &expected);
}

/// Every parameter, through every kind of norm, and the running statistics.
#[test]
fn with_synchronized_norms_workers_have_the_gradients_of_one() {
    // A norm takes mean and scale out of what goes in. In InceptionNeXt biases come right before a norm, and deep stages
    // have filters of which one tap alone meets a value: their gradients are zero but for the norm's epsilon and for
    // rounding, and another order of the pairs changes those of a single worker as much.
    for (encoder, variant, tolerance) in [
        ("dcformer", "nano", TOLERANCE),
        ("inceptionnext", "naive", 1e-2),
    ] {
        let synchronized = Contrast {
            micro_batch: None,
            batch_norm: BatchNormStatistics::Synchronized,
        };
        let case = Case::new((encoder, variant), SMALL, 8, 2);
        let before = running(&case.state());
        let found = on_threads(2, |workers| {
            gradients_of_worker(&case, synchronized, workers)
        });
        assert_equal_on_all_within(tolerance, &found, &case.gradients(synchronized));
        let moved = running(&case.state());
        assert!(moved != before);
        for (path, moved) in moved {
            for (found, expected) in found[0].2[&path].iter().zip(&moved) {
                assert!((found - expected).abs() < 1e-5 * largest(&moved), "{path}");
            }
        }
    }
}

/// The running statistics of a state.
fn running(state: &BTreeMap<String, Vec<f32>>) -> BTreeMap<String, Vec<f32>> {
    let state = state.clone().into_iter();
    state.filter(|(path, _)| path.contains("running")).collect()
}

/// Parts of two workers are encoded together, the first with the first: as one worker encodes them in that order.
#[test]
fn synchronized_norms_see_a_part_of_every_worker() {
    // Norms of fewer than six values, as the last stage has them of a volume, enlarge rounding errors too much.
    let parts = Contrast {
        micro_batch: Some(3),
        batch_norm: BatchNormStatistics::Synchronized,
    };
    let case = Case::new(("dcformer", "nano"), SMALL, 12, 3);
    let found = on_threads(2, |workers| gradients_of_worker(&case, parts, workers));
    let order = [0, 1, 2, 6, 7, 8, 3, 4, 5, 9, 10, 11];
    let device = case.volumes.device();
    let texts =
        [0, 12].map(|first| order.map(|pair| case.texts_of(first + pair..first + pair + 1)));
    let texts: Vec<Vec<u32>> = texts.into_iter().flatten().flatten().collect();
    let one = Case {
        clip: case.clip.clone(),
        volumes: case
            .volumes
            .clone()
            .select(0, indices(order.into_iter(), &device)),
        texts: TextBatch::new(&texts),
        contrast: Contrast {
            micro_batch: Some(6),
            ..parts
        },
    };
    assert_equal_on_all(&found, &one.gradients(one.contrast));
}

#[cfg(feature = "mpi")]
#[test]
fn processes_have_the_gradients_of_one() {
    let part = "train::contrast::tests::workers::a_process_has_the_gradients_of_one";
    let output = std::process::Command::new("mpirun")
        .args(["--oversubscribe", "-n", "2"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", part, "--ignored"])
        // A container's only user is often this one.
        .envs(["", "_CONFIRM"].map(|part| (format!("OMPI_ALLOW_RUN_AS_ROOT{part}"), "1")))
        .output()
        .expect("mpirun, of the MPI library that the feature `mpi` needs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(said.matches("1 passed").count(), 2, "{said}");
}

#[cfg(feature = "mpi")]
#[test]
#[ignore = "processes_have_the_gradients_of_one runs it, in two processes"]
fn a_process_has_the_gradients_of_one() {
    let workers: Arc<dyn Communicator> = Arc::new(crate::workers::MpiWorker::start().expect("MPI"));
    assert_eq!(workers.size(), 2);
    let case = Case::new_without_batch_norm(Temperature::CLIP);
    let whole = Contrast {
        micro_batch: None,
        ..case.contrast
    };
    let expected = case.gradients(whole);
    for contrast in [whole, case.contrast] {
        assert_equal_on_all(&[gradients_of_worker(&case, contrast, &workers)], &expected);
    }
    let case = Case::new(("dcformer", "nano"), SMALL, 6, 2);
    let synchronized = Contrast {
        micro_batch: None,
        batch_norm: BatchNormStatistics::Synchronized,
    };
    // Of one worker, which has all pairs; it moves its running statistics, which training does not read.
    let expected = case.gradients(synchronized);
    let found = gradients_of_worker(&case, synchronized, &workers);
    assert_equal_on_all(&[found], &expected);
    assert_eq!(
        workers.broadcast(vec![workers.rank() as u8 + 7]).unwrap(),
        [7]
    );
    assert_eq!(workers.sum([workers.rank() as f64]).unwrap(), [1.0]);
    // Of nothing too.
    let own = vec![7; workers.rank()];
    assert_eq!(workers.all_gather(&own).unwrap(), [vec![], vec![7]]);
    workers.wait_for_all().unwrap();
}
