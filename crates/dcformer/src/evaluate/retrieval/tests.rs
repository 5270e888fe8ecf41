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
