use std::path::Path;

use proptest::prelude::*;
use safetensors::SafeTensors;

use super::*;
use crate::random::Random;

/// The largest difference from scikit-learn's numbers, which are sums of at most 200 terms in another order.
const GOLDEN_TOLERANCE: f64 = 1e-9;

fn predictions(columns: usize, scores: &[f32], labels: &[Option<bool>]) -> Predictions {
    let names = (0..columns).map(|index| format!("label {index}")).collect();
    Predictions::new(names, scores.to_vec(), labels.to_vec()).unwrap()
}

fn one_label(scores: &[f32], labels: &[u8]) -> Predictions {
    predictions(
        1,
        scores,
        &labels
            .iter()
            .map(|label| Some(*label == 1))
            .collect::<Vec<_>>(),
    )
}

fn metrics(predictions: &Predictions) -> Metrics {
    Metrics::new(predictions, &Threshold::Half).unwrap()
}

#[test]
fn numbers_equal_the_golden_ones() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden");
    let bytes = std::fs::read(folder.join("metrics.safetensors"))
        .expect("golden/metrics.safetensors is in the repository");
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let scores: Vec<f32> = tensors
        .tensor("scores")
        .unwrap()
        .data()
        .chunks_exact(4)
        .map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()))
        .collect();
    let labels: Vec<_> = tensors
        .tensor("labels")
        .unwrap()
        .data()
        .iter()
        .map(|label| Some(*label == 1))
        .collect();
    let json = std::fs::read_to_string(folder.join("metrics.json")).unwrap();
    let expected: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&json).unwrap();

    let found = serde_json::to_value(metrics(&predictions(18, &scores, &labels))).unwrap();
    let mut compared = 0;
    for (name, expected) in &expected {
        let numbers = |value: &serde_json::Value| match value {
            serde_json::Value::Array(values) => {
                values.iter().map(|value| value.as_f64().unwrap()).collect()
            }
            value => vec![value.as_f64().unwrap()],
        };
        let (found, expected) = (numbers(&found[name]), numbers(expected));
        assert_eq!(found.len(), expected.len(), "{name}");
        for (found, expected) in found.iter().zip(&expected) {
            assert!(
                (found - expected).abs() < GOLDEN_TOLERANCE,
                "{name}: {found}, expected {expected}"
            );
            compared += 1;
        }
    }
    assert_eq!(compared, 7 + 4 * 18);
}

#[test]
fn half_rounds_to_absent() {
    let above = f32::from_bits(0.5f32.to_bits() + 1);
    let metrics = metrics(&one_label(&[0.5, above, 0.0, 1.0], &[1, 1, 0, 0]));
    assert_eq!(metrics.sensitivity, [Some(0.5)]);
    assert_eq!(metrics.specificity, [Some(0.5)]);
}

#[test]
fn numbers_that_are_not_defined_are_none_and_the_others_are_scikit_learns() {
    // The first label is never present, the second always, the third unknown; none is ever predicted.
    let scores = [0.1, 0.2, 0.3, 0.4, 0.3, 0.2];
    let labels = [Some(false), Some(true), None, Some(false), Some(true), None];
    let metrics = metrics(&predictions(3, &scores, &labels));
    assert_eq!(metrics.auroc, [None; 3]);
    assert_eq!(metrics.auroc_mean, None);
    assert_eq!(metrics.average_precision, [None, Some(1.0), None]);
    assert_eq!(metrics.f1, [Some(0.0), Some(0.0), None]);
    assert_eq!(metrics.precision, [Some(0.0), Some(0.0), None]);
    assert_eq!(metrics.sensitivity, [None, Some(0.0), None]);
    assert_eq!(metrics.specificity, [Some(1.0), None, None]);
    assert_eq!(metrics.specificity_at_youden, [None; 3]);
    assert_eq!(metrics.accuracy_each, [Some(1.0), Some(0.0), None]);
    assert_eq!(
        (metrics.accuracy, metrics.f1_weighted),
        (Some(0.5), Some(0.0))
    );
    let json = serde_json::to_string(&metrics).unwrap();
    assert!(json.contains("\"auroc_mean\":null"), "{json}");
    assert_eq!(serde_json::from_str::<Metrics>(&json).unwrap(), metrics);
}

#[test]
fn a_pair_whose_label_is_unknown_counts_nowhere() {
    let with = predictions(
        1,
        &[0.9, 0.8, 0.3, 0.7],
        &[Some(true), None, Some(false), Some(false)],
    );
    let without = one_label(&[0.9, 0.3, 0.7], &[1, 0, 0]);
    assert_eq!(metrics(&with), metrics(&without));
    assert_eq!(reliability::bins(&with), reliability::bins(&without));
}

#[test]
fn youdens_point_and_the_corner_are_where_they_are_by_hand() {
    // Thresholds 0.9, 0.8, 0.7, 0.6: (fpr, tpr) = (0, 1/3), (1/2, 1/3), (1/2, 1), (1, 1).
    let set = one_label(&[0.9, 0.8, 0.7, 0.7, 0.6], &[1, 0, 1, 1, 0]);
    let points: Vec<_> = set.rankings()[0]
        .roc()
        .iter()
        .map(|p| (p.false_positive_rate, p.true_positive_rate))
        .collect();
    assert_eq!(
        points,
        [
            (0.0, 0.0),
            (0.0, 1.0 / 3.0),
            (0.5, 1.0 / 3.0),
            (0.5, 1.0),
            (1.0, 1.0)
        ]
    );
    assert_eq!(metrics(&set).specificity_at_youden, [Some(0.5)]);
    assert_eq!(metrics(&set).auroc, [Some(4.0 / 6.0)]);
    assert_eq!(Threshold::choose(&set), Threshold::Each(vec![0.7]));
    let corner = Metrics::new(&set, &Threshold::RocCorner).unwrap();
    assert_eq!(
        (corner.sensitivity[0], corner.specificity[0]),
        (Some(1.0), Some(0.5))
    );
    assert_eq!(
        Metrics::new(&set, &Threshold::choose(&set)).unwrap(),
        corner
    );
}

#[test]
fn the_corner_of_a_label_with_one_class_is_a_half() {
    let set = one_label(&[0.4, 0.6], &[0, 0]);
    assert_eq!(
        Metrics::new(&set, &Threshold::RocCorner)
            .unwrap()
            .specificity,
        [Some(0.5)]
    );
}

#[test]
fn predictions_that_do_not_fit_are_refused() {
    let names = || vec!["a".to_owned(), "b".to_owned()];
    let message = |scores: &[f32], labels: &[Option<bool>]| {
        Predictions::new(names(), scores.to_vec(), labels.to_vec())
            .unwrap_err()
            .to_string()
    };
    let known = [Some(true); 4];
    assert_eq!(
        message(&[0.0; 3], &known),
        "scores: found 3 values, expected 2, one for each volume and label name"
    );
    assert_eq!(
        message(&[0.0; 2], &known),
        "labels: found 4 values, expected 2, one for each volume and label name"
    );
    for (wrong, text) in [
        (f32::NAN, "NaN"),
        (1.5, "1.5"),
        (-0.1, "-0.1"),
        (f32::INFINITY, "inf"),
    ] {
        let expected =
            format!("the score of volume 1 for `a` is {text}, expected a probability from 0 to 1");
        assert_eq!(message(&[0.0, 0.0, wrong, 0.0], &known), expected);
    }
    assert!(message(&[0.0; 4], &[None; 4]).starts_with("no label is known for any of 2 volumes"));
    assert!(Predictions::new(vec![], vec![], vec![]).is_err());

    let set = one_label(&[0.0, 1.0], &[0, 1]);
    let error = Metrics::new(&set, &Threshold::Each(vec![]))
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "thresholds: found 0 values, expected 1, one for each label name"
    );
    let error = Evaluation::new(&set, &["p"], Threshold::Half, Bootstrap::default())
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "patients: found 1 values, expected 2, one for each volume"
    );
}

#[test]
fn reliability_counts_every_pair_once() {
    let set = one_label(&[0.0, 0.05, 0.1, 0.95, 1.0], &[0, 1, 0, 1, 1]);
    let bins = reliability::bins(&set);
    assert_eq!(bins.len(), 10);
    assert_eq!((bins[0].negatives, bins[0].positives), (1, 1));
    assert!((bins[0].mean_score - 0.025).abs() < 1e-7);
    assert_eq!(
        (bins[1].count(), bins[9].count(), bins[5].observed()),
        (1, 2, None)
    );
    // |0.5 - 0.025| * 2 + |0 - 0.1| * 1 + |1 - 0.975| * 2, over five pairs.
    assert!((calibration_error(&bins) - 0.22).abs() < 1e-7);
}

#[test]
fn an_evaluation_survives_json() {
    let set = one_label(&[0.1, 0.9, 0.6, 0.4], &[0, 1, 0, 1]);
    let bootstrap = Bootstrap {
        resamples: 20,
        seed: 1,
    };
    let evaluation =
        Evaluation::new(&set, &["p", "p", "q", "r"], Threshold::Half, bootstrap).unwrap();
    assert_eq!((evaluation.volumes, evaluation.patients), (4, 3));
    assert_eq!(
        evaluation.support,
        [Support {
            name: "label 0".into(),
            known: 4,
            positive: 2
        }]
    );
    let json = serde_json::to_string(&evaluation).unwrap();
    assert_eq!(
        serde_json::from_str::<Evaluation>(&json).unwrap(),
        evaluation
    );
}

/// The definitions, pair by pair and threshold by threshold, sharing no code with the ranking.
mod slow {
    pub(super) fn auroc(scores: &[f32], labels: &[bool]) -> Option<f64> {
        let (mut ordered, mut pairs) = (0.0, 0.0);
        for (a, present) in scores.iter().zip(labels) {
            for (b, also_present) in scores.iter().zip(labels) {
                if *present && !also_present {
                    pairs += 1.0;
                    ordered += if a > b {
                        1.0
                    } else if a == b {
                        0.5
                    } else {
                        0.0
                    };
                }
            }
        }
        (pairs > 0.0).then(|| ordered / pairs)
    }

    fn counts(scores: &[f32], labels: &[bool], threshold: f32) -> [f64; 2] {
        [true, false].map(|class| {
            let found = scores
                .iter()
                .zip(labels)
                .filter(|(score, label)| **score >= threshold && **label == class);
            found.count() as f64
        })
    }

    fn thresholds(scores: &[f32]) -> Vec<f32> {
        let mut thresholds = scores.to_vec();
        thresholds.sort_by(|a, b| b.total_cmp(a));
        thresholds.dedup();
        thresholds
    }

    pub(super) fn average_precision(scores: &[f32], labels: &[bool]) -> Option<f64> {
        let [positives, _] = counts(scores, labels, f32::NEG_INFINITY);
        let (mut sum, mut recall) = (0.0, 0.0);
        for threshold in thresholds(scores) {
            let [right, wrong] = counts(scores, labels, threshold);
            sum += (right / positives - recall) * right / (right + wrong);
            recall = right / positives;
        }
        (positives > 0.0).then_some(sum)
    }

    pub(super) fn specificity_at_youden(scores: &[f32], labels: &[bool]) -> Option<f64> {
        let [positives, negatives] = counts(scores, labels, f32::NEG_INFINITY);
        let (mut best, mut specificity) = (0.0, 1.0);
        for threshold in thresholds(scores) {
            let [right, wrong] = counts(scores, labels, threshold);
            // Whole numbers, so that equal points compare equal.
            let index = right * negatives - wrong * positives;
            if index > best {
                (best, specificity) = (index, 1.0 - wrong / negatives);
            }
        }
        (positives > 0.0 && negatives > 0.0).then_some(specificity)
    }
}

/// Scores with many ties, and labels of which some are unknown.
fn any_pairs() -> impl Strategy<Value = Vec<(f32, Option<bool>)>> {
    let pair = (
        (0..12u8).prop_map(|score| f32::from(score) / 11.0),
        any::<Option<bool>>(),
    );
    prop::collection::vec(pair, 1..40).prop_filter("one label must be known", |pairs| {
        pairs.iter().any(|(_, label)| label.is_some())
    })
}

fn close(a: Option<f64>, b: Option<f64>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => (a - b).abs() < 1e-12,
        (a, b) => a == b,
    }
}

proptest! {
    #[test]
    fn ranking_equals_the_definitions(pairs in any_pairs()) {
        let (scores, labels): (Vec<_>, Vec<_>) = pairs.iter().copied().unzip();
        let found = metrics(&predictions(1, &scores, &labels));
        let (scores, labels): (Vec<f32>, Vec<bool>) = pairs.iter().filter_map(|(score, label)| Some((*score, (*label)?))).unzip();
        prop_assert!(close(found.auroc[0], slow::auroc(&scores, &labels)));
        prop_assert!(close(found.average_precision[0], slow::average_precision(&scores, &labels)));
        prop_assert!(close(found.specificity_at_youden[0], slow::specificity_at_youden(&scores, &labels)));
    }

    #[test]
    fn the_area_under_the_curve_is_the_auroc(pairs in any_pairs()) {
        let (scores, labels): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
        let set = predictions(1, &scores, &labels);
        let points = set.rankings()[0].roc();
        let area: f64 = points
            .windows(2)
            .map(|ends| {
                let width = ends[1].false_positive_rate - ends[0].false_positive_rate;
                width * (ends[0].true_positive_rate + ends[1].true_positive_rate) / 2.0
            })
            .sum();
        let expected = metrics(&set).auroc[0];
        prop_assert!(close(expected.map(|_| area), expected), "{area} {expected:?}");
    }

    #[test]
    fn a_weight_is_a_repetition(pairs in any_pairs(), seed: u64) {
        let mut random = Random::new(seed, "test", 0);
        let weights: Vec<u64> = pairs.iter().map(|_| random.below(4) as u64).collect();
        let (scores, labels): (Vec<_>, Vec<_>) = pairs.iter().copied().unzip();
        let rankings = predictions(1, &scores, &labels).rankings();
        let weighted = Metrics::of(&rankings, &Threshold::Half.count_present(&rankings).unwrap(), |row| weights[row]);

        let repeated: Vec<_> = pairs.iter().zip(&weights).flat_map(|(pair, weight)| vec![*pair; *weight as usize]).collect();
        prop_assume!(repeated.iter().any(|(_, label)| label.is_some()));
        let (scores, labels): (Vec<_>, Vec<_>) = repeated.into_iter().unzip();
        let expected = metrics(&predictions(1, &scores, &labels)).values();
        prop_assert!(weighted.values().into_iter().zip(expected).all(|(a, b)| close(a, b)));
    }

    #[test]
    fn the_order_of_the_volumes_changes_nothing(pairs in any_pairs(), seed: u64) {
        let (scores, labels): (Vec<_>, Vec<_>) = pairs.iter().copied().unzip();
        let mut shuffled = pairs;
        Random::new(seed, "test", 0).shuffle(&mut shuffled);
        let (other_scores, other_labels): (Vec<_>, Vec<_>) = shuffled.into_iter().unzip();
        prop_assert_eq!(metrics(&predictions(1, &scores, &labels)), metrics(&predictions(1, &other_scores, &other_labels)));
    }
}
