use super::*;

#[test]
fn recall_counts_queries_whose_own_candidate_is_found() {
    let similarity = [[0.9, 0.1, 0.2], [0.8, 0.5, 0.2], [0.3, 0.2, 0.1]];
    assert_eq!(
        recall_at_each(&[1, 2, 3, 100], &similarity),
        [1.0 / 3.0, 2.0 / 3.0, 1.0, 1.0]
    );
}

#[test]
fn ties_go_to_the_lower_index_and_nan_to_nobody() {
    assert_eq!(recall_at(1, &[[0.5; 4]; 4]), 0.25);
    assert_eq!(recall_at(2, &[[0.0, -0.0, 0.0]; 3]), 2.0 / 3.0);
    assert_eq!(recall_at(1, &[[f32::NAN, 0.1], [f32::NAN, -1.0]]), 0.5);
    assert_eq!(recall_at(1, &[[f32::NAN; 4]; 4]), 0.25);
}

#[test]
#[should_panic(expected = "row 1 of the similarity matrix")]
fn recall_wants_a_square_matrix() {
    recall_at(1, &[vec![0.0, 1.0], vec![0.0]]);
}

const LABELS: [[bool; 3]; 5] = [
    [true, true, false],
    [true, true, true],
    [false, true, false],
    [false, false, false],
    [true, false, false],
];
const PATIENTS: [&str; 5] = ["a", "a", "b", "c", "d"];

/// Every query prefers low indices.
fn similarity() -> Vec<[f32; 5]> {
    vec![[0.9, 0.8, 0.7, 0.6, 0.5]; 5]
}

#[test]
fn agreement_leaves_the_querys_patient_out() {
    // Volume 3 has no abnormality: no candidate, but a query that agrees with nothing.
    // Candidates of the queries, best first: [2, 4], [2, 4], [0, 1, 4], [0, 1, 2, 4], [0, 1, 2].
    let found = label_agreement_at(
        &[1, 2],
        &similarity(),
        &LABELS,
        &PATIENTS,
        Candidates::OtherPatients,
    )
    .unwrap();
    let at_1 = [1.0 / 2.0, 1.0 / 3.0, 1.0 / 2.0, 0.0, 1.0 / 2.0];
    let at_2 = [
        (1.0 / 2.0 + 1.0 / 2.0) / 2.0,
        (1.0 / 3.0 + 1.0 / 3.0) / 2.0,
        (1.0 / 2.0 + 1.0 / 3.0) / 2.0,
        0.0,
        (1.0 / 2.0 + 1.0 / 3.0) / 2.0,
    ];
    for (found, expected) in found.iter().zip([at_1, at_2]) {
        assert!(
            (found - expected.iter().sum::<f64>() / 5.0).abs() < 1e-12,
            "{found} {expected:?}"
        );
    }
}

#[test]
fn a_query_may_find_itself_only_if_asked_to() {
    let mut similarity = similarity();
    (0..5).for_each(|volume| similarity[volume][volume] = 1.0);
    let found = label_agreement_at(&[1], &similarity, &LABELS, &PATIENTS, Candidates::All).unwrap();
    assert_eq!(found, [4.0 / 5.0]); // all but the one without abnormalities agree with themselves
}

#[test]
fn few_candidates_are_measured_and_none_leave_the_query_out() {
    let labels = [[true], [true], [true]];
    let similarity = [[0.1, 0.2, 0.3]; 3];
    let found = label_agreement_at(
        &[1, 50],
        &similarity,
        &labels,
        &["a", "a", "b"],
        Candidates::OtherPatients,
    );
    assert_eq!(found, Some(vec![1.0, 1.0]));
    let nobody = label_agreement_at(
        &[1],
        &similarity,
        &labels,
        &["a"; 3],
        Candidates::OtherPatients,
    );
    assert_eq!(nobody, None);
}

#[test]
fn the_best_are_those_of_a_full_sort() {
    let mut random = crate::random::Random::new(1, "test", 0);
    let row: Vec<f32> = (0..200).map(|_| random.below(20) as f32).collect();
    let mut all: Vec<usize> = (0..200).collect();
    all.sort_by(|a, b| row[*b].total_cmp(&row[*a]).then(a.cmp(b)));
    for count in [1, 7, 50, 199, 200, 300] {
        assert_eq!(
            most_similar(&row, (0..200).rev().collect(), count),
            all[..count.min(200)]
        );
    }
}

/// Unit rows, in double precision.
fn directions(rows: usize, width: usize, seed: u64) -> Vec<Vec<f32>> {
    let mut random = crate::random::Random::new(seed, "test", 0);
    let row = |_| {
        let values: Vec<f64> = (0..width).map(|_| random.normal()).collect();
        let length = values.iter().map(|value| value * value).sum::<f64>().sqrt();
        values.iter().map(|value| (value / length) as f32).collect()
    };
    (0..rows).map(row).collect()
}

/// The candidates of a query, best first, from products in double precision.
fn sorted(query: &[f32], candidates: &[Vec<f32>]) -> Vec<usize> {
    let product = |candidate: &Vec<f32>| -> f64 {
        let pairs = query.iter().zip(candidate);
        pairs.map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    };
    let mut order: Vec<usize> = (0..candidates.len()).collect();
    order.sort_by(|a, b| product(&candidates[*b]).total_cmp(&product(&candidates[*a])));
    order
}

#[test]
fn all_numbers_equal_those_of_brute_force() {
    const PAIRS: usize = 130;
    let (mut texts, volumes) = (directions(PAIRS, 24, 1), directions(PAIRS, 24, 2));
    // A report leans to its volume, more or less.
    for (index, text) in texts.iter_mut().enumerate() {
        let pull = 0.1 * (index % 10) as f32;
        let pulled = text.iter().zip(&volumes[index]).map(|(a, b)| a + pull * b);
        *text = pulled.collect();
    }
    let mut random = crate::random::Random::new(3, "test", 0);
    let labels: Vec<Vec<bool>> = (0..PAIRS)
        .map(|_| (0..5).map(|_| random.below(4) == 0).collect())
        .collect();
    let patients: Vec<String> = (0..PAIRS).map(|pair| (pair / 3).to_string()).collect();
    let bootstrap = crate::evaluate::Bootstrap {
        resamples: 200,
        seed: 5,
    };
    for candidates in [Candidates::OtherPatients, Candidates::All] {
        let found = RetrievalAnswers::new(&texts, &volumes, &labels, patients.clone(), candidates);
        let retrieval = Retrieval::new(&found, bootstrap).unwrap();
        assert_eq!((retrieval.pairs, retrieval.patients), (PAIRS, 44));

        let recall = |queries: &[Vec<f32>], candidates: &[Vec<f32>], k: usize| {
            let is_found =
                |query: &usize| sorted(&queries[*query], candidates)[..k].contains(query);
            (0..PAIRS).filter(is_found).count() as f64 / PAIRS as f64
        };
        for (recalls, queries, others) in [
            (&retrieval.text_to_volume, &texts, &volumes),
            (&retrieval.volume_to_text, &volumes, &texts),
        ] {
            assert_eq!(recalls.len(), RECALL_AT.len());
            for (measured, k) in recalls.iter().zip(RECALL_AT) {
                assert_eq!(
                    (measured.k, measured.value),
                    (k, Some(recall(queries, others, k)))
                );
                let interval = measured.interval.unwrap();
                let value = measured.value.unwrap();
                assert!(
                    (interval.low..=interval.high).contains(&value),
                    "{measured:?}"
                );
            }
        }

        assert_eq!(retrieval.volume_to_volume.len(), VOLUMES_AT.len());
        for (measured, k) in retrieval.volume_to_volume.iter().zip(VOLUMES_AT) {
            let expected = mean_agreement(&volumes, &labels, &patients, candidates, k);
            // Sums of the same numbers in another order.
            assert!(
                (measured.value - expected).abs() < 1e-12,
                "{k}: {measured:?} {expected}"
            );
            let interval = measured.interval.unwrap();
            assert!(interval.low < measured.value && measured.value < interval.high);
        }
    }
}

/// SPEC section 8, by its words.
fn mean_agreement(
    volumes: &[Vec<f32>],
    labels: &[Vec<bool>],
    patients: &[String],
    candidates: Candidates,
    k: usize,
) -> f64 {
    let mut of_queries = Vec::new();
    for query in 0..volumes.len() {
        let mut found = sorted(&volumes[query], volumes);
        found.retain(|other| labels[*other].contains(&true));
        if candidates == Candidates::OtherPatients {
            found.retain(|other| patients[*other] != patients[query]);
        }
        found.truncate(k);
        let shares = found.iter().map(|other| {
            let count = |is: fn(bool, bool) -> bool| {
                let pairs = labels[query].iter().zip(&labels[*other]);
                pairs.filter(|(a, b)| is(**a, **b)).count() as f64
            };
            count(|a, b| a && b) / count(|a, b| a || b)
        });
        of_queries.push(shares.sum::<f64>() / found.len() as f64);
    }
    of_queries.iter().sum::<f64>() / of_queries.len() as f64
}
