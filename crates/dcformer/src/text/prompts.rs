//! Prompts of zero-shot detection: sentences that say that an abnormality is there, or not.

use dcformer_volume::dataset::ABNORMALITIES;
use serde::{Deserialize, Serialize};

/// Where a template names the abnormality.
const PLACE: &str = "{}";

/// Two sentences about an abnormality; `{}` stands for its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Template {
    /// The sentence that says that it is there.
    pub present: String,
    /// The sentence that says that it is not.
    pub absent: String,
}

impl Template {
    fn new(present: &str, absent: &str) -> Self {
        Self {
            present: present.to_owned(),
            absent: absent.to_owned(),
        }
    }

    /// The sentences about an abnormality.
    pub fn about(&self, abnormality: &str) -> Self {
        let fill = |sentence: &str| sentence.replace(PLACE, abnormality);
        Self {
            present: fill(&self.present),
            absent: fill(&self.absent),
        }
    }
}

/// Abnormalities to look for, and the sentences that say so. With several templates, the latents of their sentences are
/// averaged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Prompts {
    /// Names of the abnormalities.
    pub abnormalities: Vec<String>,
    /// At least one.
    pub templates: Vec<Template>,
}

impl Prompts {
    /// The authors' sentences for these abnormalities (CT-CLIP's, which the paper adopts).
    pub fn new(abnormalities: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            abnormalities: abnormalities.into_iter().map(Into::into).collect(),
            templates: vec![Template::new("{} is present.", "{} is not present.")],
        }
    }

    /// All templates that the paper names, for an ensemble.
    pub fn paper_templates() -> Vec<Template> {
        vec![
            Template::new("{} is present.", "{} is not present."),
            Template::new(
                "Signs of {} are detected in the image.",
                "Signs of {} are not detected in the image.",
            ),
            Template::new("There is {}.", "There is not {}."),
            Template::new("{} is observed.", "{} is not observed."),
            Template::new("Indication of {}.", "No indication of {}."),
        ]
    }

    /// Whether there is nothing to look for, or no words for it.
    pub fn are_empty(&self) -> bool {
        self.abnormalities.is_empty() || self.templates.is_empty()
    }

    /// The sentences of a template about each abnormality.
    pub fn sentences(&self, template: &Template) -> Vec<Template> {
        self.abnormalities
            .iter()
            .map(|abnormality| template.about(abnormality))
            .collect()
    }
}

/// CT-RATE's abnormalities in the authors' sentences.
impl Default for Prompts {
    fn default() -> Self {
        Self::new(ABNORMALITIES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_replaces_its_place() {
        let prompts = Prompts::new(["Emphysema"]);
        let sentences = prompts.sentences(&prompts.templates[0]);
        assert_eq!(
            sentences,
            [Template::new(
                "Emphysema is present.",
                "Emphysema is not present."
            )]
        );
        let last = &Prompts::paper_templates()[4];
        assert_eq!(
            last.about("Emphysema").absent,
            "No indication of Emphysema."
        );
    }
}
