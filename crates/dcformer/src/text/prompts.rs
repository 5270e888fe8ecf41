//! Prompts of zero-shot detection: two sentences for each abnormality.

use serde::{Deserialize, Serialize};

/// The abnormalities that CT-RATE labels, in the order of its columns.
pub const CT_RATE_ABNORMALITIES: [&str; 18] = [
    "Medical material",
    "Arterial wall calcification",
    "Cardiomegaly",
    "Pericardial effusion",
    "Coronary artery wall calcification",
    "Hiatal hernia",
    "Lymphadenopathy",
    "Emphysema",
    "Atelectasis",
    "Lung nodule",
    "Lung opacity",
    "Pulmonary fibrotic sequela",
    "Pleural effusion",
    "Mosaic attenuation pattern",
    "Peribronchial thickening",
    "Consolidation",
    "Bronchiectasis",
    "Interlobular septal thickening",
];

/// Where a template names the abnormality.
const PLACE: &str = "{}";

/// Abnormalities to look for, and the sentences that say so. `{}` stands for the name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prompts {
    /// Names of the abnormalities.
    pub abnormalities: Vec<String>,
    /// The sentence that says that one is there.
    pub present: String,
    /// The sentence that says that it is not.
    pub absent: String,
}

impl Prompts {
    /// The authors' sentences for these abnormalities.
    pub fn new(abnormalities: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            abnormalities: abnormalities.into_iter().map(Into::into).collect(),
            present: "{} is present.".to_owned(),
            absent: "{} is not present.".to_owned(),
        }
    }

    /// The sentences that say of each abnormality that it is there.
    pub fn present(&self) -> Vec<String> {
        self.fill(&self.present)
    }

    /// The sentences that say of each abnormality that it is not there.
    pub fn absent(&self) -> Vec<String> {
        self.fill(&self.absent)
    }

    fn fill(&self, template: &str) -> Vec<String> {
        let fill = |name: &String| template.replace(PLACE, name);
        self.abnormalities.iter().map(fill).collect()
    }
}

/// CT-RATE's abnormalities in the authors' sentences.
impl Default for Prompts {
    fn default() -> Self {
        Self::new(CT_RATE_ABNORMALITIES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_replaces_its_place() {
        let mut prompts = Prompts::new(["Emphysema"]);
        assert_eq!(prompts.present(), ["Emphysema is present."]);
        prompts.absent = "No indication of {}.".to_owned();
        assert_eq!(prompts.absent(), ["No indication of Emphysema."]);
    }
}
