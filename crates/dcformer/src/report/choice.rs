//! Which volumes of an evaluation are worth showing.

use crate::evaluate::{Evaluation, Predictions};

use super::Verdict;

/// A volume, the label that it is shown for, and whether the answer is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Row of the predictions.
    pub volume: usize,
    /// Column of the predictions.
    pub label: usize,
    /// Right or wrong.
    pub verdict: Verdict,
}

/// The clearest right answers and the worst wrong ones, `each` of both: no volume twice, no label twice among the right
/// or among the wrong.
///
/// Right: abnormalities that are there, with the highest score within their label. Wrong: alternately one that is there
/// with the lowest score of its label, and one that is not with the highest.
pub fn choose_cases(
    predictions: &Predictions,
    evaluation: &Evaluation,
    each: usize,
) -> Vec<Choice> {
    let mut labels: Vec<usize> = (0..predictions.label_names().len()).collect();
    let auroc = |label: usize| evaluation.metrics.auroc[label].unwrap_or(0.5);
    labels.sort_by(|a, b| auroc(*b).total_cmp(&auroc(*a)).then(a.cmp(b)));
    let mut chosen: Vec<Choice> = Vec::new();
    // The volume whose share of lower scores within the label is the highest (or lowest): scores of different labels
    // have different scales, so only the rank counts.
    let extreme = |label: usize, present: bool, highest: bool, chosen: &[Choice]| {
        let candidates = (0..predictions.volumes()).filter(|volume| {
            predictions.label(*volume, label) == Some(present)
                && chosen.iter().all(|choice| choice.volume != *volume)
        });
        let score = |volume: usize| predictions.score(volume, label);
        if highest {
            candidates.max_by(|a, b| score(*a).total_cmp(&score(*b)).then(b.cmp(a)))
        } else {
            candidates.min_by(|a, b| score(*a).total_cmp(&score(*b)).then(a.cmp(b)))
        }
    };
    for &label in labels.iter().take(each) {
        if let Some(volume) = extreme(label, true, true, &chosen) {
            chosen.push(Choice {
                volume,
                label,
                verdict: Verdict::Right,
            });
        }
    }
    for (turn, &label) in labels.iter().take(each).enumerate() {
        let missed = turn % 2 == 0;
        if let Some(volume) = extreme(label, missed, !missed, &chosen) {
            chosen.push(Choice {
                volume,
                label,
                verdict: Verdict::Wrong,
            });
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::{Bootstrap, Threshold};

    #[test]
    fn right_cases_have_the_highest_scores_and_wrong_ones_contradict_their_label() {
        let names = vec!["a".to_owned(), "b".to_owned()];
        let scores = vec![0.9, 0.1, 0.2, 0.8, 0.1, 0.7, 0.6, 0.2, 0.3, 0.3];
        let labels: Vec<Option<bool>> = [
            true, false, false, true, true, false, true, true, false, false,
        ]
        .map(Some)
        .into();
        let predictions = Predictions::new(names, scores, labels).expect("they fit");
        let patients = ["1", "2", "3", "4", "5"];
        let bootstrap = Bootstrap {
            resamples: 10,
            seed: 1,
        };
        let evaluation =
            Evaluation::new(&predictions, &patients, Threshold::Half, bootstrap).expect("they fit");
        let chosen = choose_cases(&predictions, &evaluation, 2);
        assert_eq!(chosen.len(), 4);
        for choice in &chosen[..2] {
            assert_eq!(choice.verdict, Verdict::Right);
            assert_eq!(predictions.label(choice.volume, choice.label), Some(true));
        }
        let mut volumes: Vec<usize> = chosen.iter().map(|choice| choice.volume).collect();
        volumes.sort_unstable();
        volumes.dedup();
        assert_eq!(volumes.len(), 4);
        assert_eq!(
            predictions.label(chosen[2].volume, chosen[2].label),
            Some(true)
        );
        assert_eq!(
            predictions.label(chosen[3].volume, chosen[3].label),
            Some(false)
        );
    }
}
