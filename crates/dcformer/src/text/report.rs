//! What of a report is read, and its sentences.

use serde::{Deserialize, Serialize};

/// What of a report a step sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReportText {
    /// All of it, as the authors do.
    #[default]
    Whole,
    /// All of its sentences, in an order that is drawn anew each step.
    Shuffled,
    /// A few of its sentences, dealt anew each step, in random order: short texts, such as prompts are, are then as
    /// familiar as long ones, and one sentence says one thing, which a small text encoder learns first.
    Sentences {
        /// Each text has from one to this many.
        most: usize,
    },
}

impl ReportText {
    /// Whether it is all of it.
    pub fn is_whole(&self) -> bool {
        *self == Self::Whole
    }
}

/// The sentences of a report. A full stop inside a number or an abbreviation ends none; one that touches the next
/// sentence does, as where the authors' texts of CT-RATE go from findings to impressions.
pub(crate) fn sentences(report: &str) -> impl Iterator<Item = &str> {
    let is_end = |(index, _): &(usize, &str)| {
        let abbreviates = report[..*index].ends_with(char::is_uppercase);
        report[index + 1..]
            .chars()
            .next()
            .is_none_or(|next| next.is_whitespace() || (next.is_uppercase() && !abbreviates))
    };
    let ends = report
        .match_indices(['.', '?', '!'])
        .filter(is_end)
        .map(|(index, _)| index + 1);
    let mut start = 0;
    ends.chain([report.len()])
        .map(move |end| {
            let sentence = &report[start..end.max(start)];
            start = end.max(start);
            sentence.trim()
        })
        .filter(|sentence| !sentence.is_empty())
}

#[cfg(test)]
mod tests {
    use super::sentences;

    #[test]
    fn sentences_end_at_full_stops_but_not_inside_numbers() {
        let report = "A nodule of 7.5 mm. Effusion?  Post C.T. findings.Heart is normal";
        let found: Vec<&str> = sentences(report).collect();
        assert_eq!(
            found,
            [
                "A nodule of 7.5 mm.",
                "Effusion?",
                "Post C.T.",
                "findings.",
                "Heart is normal"
            ]
        );
        assert_eq!(sentences("").count(), 0);
        assert_eq!(sentences(" . ").collect::<Vec<_>>(), ["."]);
    }
}
