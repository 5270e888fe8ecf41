use super::*;

/// One label; volume `index` is right if its bit says so.
fn set(right: &[bool]) -> Predictions {
    let labels: Vec<_> = (0..right.len()).map(|index| index % 3 == 0).collect();
    let scores = right
        .iter()
        .zip(&labels)
        .map(|(right, label)| if right == label { 0.9 } else { 0.1 });
    let scores = scores.collect();
    Predictions::new(
        vec!["Effusion".into()],
        scores,
        labels.into_iter().map(Some).collect(),
    )
    .unwrap()
}

fn random_set(volumes: usize, share_right: f64) -> Predictions {
    let mut random = Random::new(11, "test", 0);
    set(&(0..volumes)
        .map(|_| random.uniform() < share_right)
        .collect::<Vec<_>>())
}

fn names(volumes: usize, volumes_each: usize) -> Vec<String> {
    (0..volumes)
        .map(|volume| format!("patient {}", volume / volumes_each))
        .collect()
}

fn accuracy(predictions: &Predictions, patients: &[String]) -> Interval {
    let bootstrap = Bootstrap {
        resamples: 4000,
        seed: 1,
    };
    bootstrap
        .intervals(predictions, patients, &Threshold::Half)
        .unwrap()
        .accuracy
        .unwrap()
}

#[test]
fn the_interval_of_a_share_is_the_binomial_one() {
    let set = random_set(400, 0.7);
    let share = Metrics::new(&set, &Threshold::Half)
        .unwrap()
        .accuracy
        .unwrap();
    let expected = 1.96 * (share * (1.0 - share) / 400.0).sqrt();
    let Interval { low, high } = accuracy(&set, &names(400, 1));
    // The ends of 4000 resamples scatter by about 4 % of the half width, and shares are multiples of 1/400.
    let tolerance = 0.12 * expected + 1.0 / 400.0;
    assert!(
        (share - low - expected).abs() < tolerance,
        "{low} {share} {expected}"
    );
    assert!(
        (high - share - expected).abs() < tolerance,
        "{high} {share} {expected}"
    );
}

#[test]
fn volumes_of_one_patient_are_drawn_together() {
    // Four copies of every volume say nothing new; drawn one by one they would halve the interval.
    let mut random = Random::new(11, "test", 0);
    let right: Vec<bool> = (0..90).map(|_| random.uniform() < 0.7).collect();
    let once = accuracy(&set(&right), &names(90, 1));
    let copy = |index: usize| (index / 12) * 3 + index % 3; // keeps the label, which follows `index % 3`
    let copies: Vec<bool> = (0..360).map(|index| right[copy(index)]).collect();
    let patients: Vec<String> = (0..360)
        .map(|index| format!("patient {}", copy(index)))
        .collect();
    let four_times = accuracy(&set(&copies), &patients);
    assert!(
        (once.low - four_times.low).abs() < 1e-12 && (once.high - four_times.high).abs() < 1e-12
    );
    let apart = accuracy(&set(&copies), &names(360, 1));
    let ratio = (apart.high - apart.low) / (once.high - once.low);
    assert!((0.4..0.6).contains(&ratio), "{ratio}");
}

#[test]
fn threads_do_not_change_a_bit_and_the_seed_does() {
    let set = random_set(120, 0.8);
    let patients = names(120, 2);
    let with = |threads, seed| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        let bootstrap = Bootstrap {
            resamples: 200,
            seed,
        };
        pool.install(|| {
            bootstrap
                .intervals(&set, &patients, &Threshold::Half)
                .unwrap()
        })
    };
    assert_eq!(with(1, 5), with(3, 5));
    assert_ne!(with(1, 5), with(1, 6));
}

#[test]
fn every_number_lies_in_its_interval() {
    let set = random_set(150, 0.75);
    let values = Metrics::new(&set, &Threshold::Half).unwrap().values();
    let intervals = Bootstrap::default()
        .intervals(&set, &names(150, 1), &Threshold::Half)
        .unwrap()
        .values();
    assert_eq!(values.len(), intervals.len());
    for (value, interval) in values.into_iter().zip(intervals) {
        let (value, interval) = (value.unwrap(), interval.unwrap());
        assert!(
            interval.low < value && value < interval.high,
            "{value} {interval:?}"
        );
    }
}

#[test]
fn a_number_that_resamples_rarely_define_has_no_interval() {
    // The one positive belongs to one of forty patients, who is in 64 % of the resamples.
    let mut labels = vec![Some(false); 80];
    labels[0] = Some(true);
    let set = Predictions::new(vec!["rare".into()], vec![0.3; 80], labels).unwrap();
    let intervals = Bootstrap::default()
        .intervals(&set, &names(80, 2), &Threshold::Half)
        .unwrap();
    assert_eq!(
        intervals.auroc[0],
        Some(Interval {
            low: 0.5,
            high: 0.5
        })
    );

    let mut labels = vec![None; 3 * 80];
    labels[0] = Some(true);
    labels[3 * 40] = Some(false);
    let names_of_labels = ["a", "b", "c"].map(String::from).to_vec();
    let set = Predictions::new(names_of_labels, vec![0.3; 3 * 80], labels).unwrap();
    let intervals = Bootstrap::default()
        .intervals(&set, &names(80, 2), &Threshold::Half)
        .unwrap();
    // Two patients of forty must both be drawn: 40 % of the resamples.
    assert_eq!(intervals.auroc, [None; 3]);
}

#[test]
fn percentiles_are_numpys() {
    let values = [1.0, 2.0, 4.0, 8.0];
    // numpy.percentile([1, 2, 4, 8], [0, 2.5, 50, 97.5, 100])
    for (share, expected) in [
        (0.0, 1.0),
        (0.025, 1.075),
        (0.5, 3.0),
        (0.975, 7.7),
        (1.0, 8.0),
    ] {
        assert!(
            (percentile(&values, share) - expected).abs() < 1e-12,
            "{share}"
        );
    }
}
