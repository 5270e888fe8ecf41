//! A radiologist's words for what was drawn.

mod sentences;

use self::sentences::{ABSENT, NORMAL, PLAIN_ABSENT, PLAIN_PRESENT, PRESENT, SUMMARY, SYSTEMS};
use super::abnormality::{Finding, Laterality};
use super::anatomy::patient::Patient;
use super::random::Random;
use crate::dataset::ABNORMALITIES;

/// The four texts of a report, as CT-RATE's tables have them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Why the scan was made.
    pub clinical_information: String,
    /// How it was made.
    pub technique: String,
    /// What is seen.
    pub findings: String,
    /// What it means.
    pub impressions: String,
}

/// What CT-RATE's tables hold where nothing was written.
const NOT_GIVEN: &str = "Not given.";
/// Share of absent abnormalities that a report mentions.
const MENTIONED_ABSENT: f32 = 0.95;
/// Share of statements in the plain words of structured reports ("... is present.").
const PLAIN: f32 = 0.3;

/// Writes the report of a patient's findings.
pub(super) fn write(
    random: &mut Random,
    patient: &Patient,
    labels: &[bool; 18],
    findings: &[Finding],
) -> Report {
    Report {
        clinical_information: clinical_information(random, patient),
        technique: technique(random, patient),
        findings: describe(&mut random.stream(1), labels, findings),
        impressions: conclude(&mut random.stream(2), findings),
    }
}

fn clinical_information(random: &mut Random, patient: &Patient) -> String {
    if random.chance(0.3) {
        return NOT_GIVEN.into();
    }
    let reasons = [
        "Cough.",
        "Dyspnea.",
        "Chest pain.",
        "Fever, cough.",
        "Routine control.",
        "Weakness, weight loss.",
        "Shortness of breath.",
    ];
    let sex = if patient.female { "female" } else { "male" };
    let reason = random.pick(&reasons);
    if random.chance(0.3) {
        format!("{} year old {sex} patient. {reason}", patient.age)
    } else {
        reason.into()
    }
}

fn technique(random: &mut Random, patient: &Patient) -> String {
    if random.chance(0.1) {
        return NOT_GIVEN.into();
    }
    let contrast = if patient.contrast {
        "after intravenous contrast material"
    } else {
        "without intravenous contrast material"
    };
    let start = random.pick(&[
        "Images were taken",
        "Sections were obtained",
        "Axial sections were taken",
    ]);
    format!("{start} in the axial plane {contrast}.")
}

/// Organ by organ, in one of a few orders.
fn describe(random: &mut Random, labels: &[bool; 18], findings: &[Finding]) -> String {
    let mut systems: Vec<usize> = (0..SYSTEMS.len()).collect();
    if random.chance(0.5) {
        // Lungs before the mediastinum.
        systems.swap(0, 1);
    }
    if random.chance(0.3) {
        systems.swap(2, 3);
    }
    let mut sentences = Vec::new();
    for system in systems {
        let mut members = SYSTEMS[system].to_vec();
        random.shuffle(&mut members);
        let mut own = Vec::new();
        for index in members {
            if labels[index] {
                let of_this = findings
                    .iter()
                    .filter(|finding| finding.abnormality == index);
                own.extend(of_this.map(|finding| present(random, finding)));
            } else if random.chance(MENTIONED_ABSENT) {
                own.push(absent(random, index));
            }
        }
        for filler in NORMAL[system] {
            if random.chance(0.15) {
                own.insert(random.below(own.len() + 1), (*filler).into());
            }
        }
        sentences.extend(own);
    }
    sentences.join(" ")
}

fn conclude(random: &mut Random, findings: &[Finding]) -> String {
    if random.chance(0.06) {
        return NOT_GIVEN.into();
    }
    if findings.is_empty() {
        let calm = [
            "No pathological finding in the thorax.",
            "Thorax CT examination within normal limits.",
            "Findings within normal limits.",
        ];
        return (random.pick(&calm)).into();
    }
    let mut order: Vec<&Finding> = findings.iter().collect();
    random.shuffle(&mut order);
    let statement = |random: &mut Random, finding: &Finding| {
        if random.chance(PLAIN) {
            plain(random.pick(&PLAIN_PRESENT), finding.abnormality)
        } else {
            fill(random.pick(SUMMARY[finding.abnormality]), finding, random)
        }
    };
    order
        .into_iter()
        .map(|finding| statement(random, finding))
        .collect::<Vec<_>>()
        .join(" ")
}

fn present(random: &mut Random, finding: &Finding) -> String {
    if random.chance(PLAIN) {
        plain(random.pick(&PLAIN_PRESENT), finding.abnormality)
    } else {
        fill(random.pick(PRESENT[finding.abnormality]), finding, random)
    }
}

fn absent(random: &mut Random, index: usize) -> String {
    if random.chance(PLAIN) {
        plain(random.pick(&PLAIN_ABSENT), index)
    } else {
        capitalised(random.pick(ABSENT[index]))
    }
}

fn plain(template: &str, index: usize) -> String {
    capitalised(&template.replace("{name}", &ABNORMALITIES[index].to_lowercase()))
}

/// Puts a finding's facts into a sentence.
fn fill(template: &str, finding: &Finding, random: &mut Random) -> String {
    let degree = match finding.severity {
        mild if mild < 0.45 => random.pick(&["mild", "minimal", "slight"]),
        moderate if moderate < 0.75 => "moderate",
        _ => random.pick(&["marked", "prominent", "severe"]),
    };
    let side = match finding.laterality {
        Laterality::Right => "right",
        Laterality::Left => "left",
        Laterality::Bilateral | Laterality::Midline => "bilateral",
    };
    let size = if finding.size_mm < 20.0 && random.chance(0.5) {
        format!("{:.0} mm", finding.size_mm.max(2.0))
    } else {
        format!("{:.1} cm", finding.size_mm / 10.0)
    };
    let amount = match finding.count {
        0 | 1 => "a single",
        2..=4 => "a few",
        _ => "multiple",
    };
    let text = template
        .replace("{degree}", degree)
        .replace("{side}", side)
        .replace("{where}", &location(finding))
        .replace("{place}", finding.place)
        .replace("{form}", finding.form)
        .replace("{size}", &size)
        .replace("{amount}", amount);
    capitalised(&text)
}

/// "in the right lower lobe", "in both lungs".
fn location(finding: &Finding) -> String {
    let place = finding.place;
    match finding.laterality {
        Laterality::Right | Laterality::Left if place == "lingula" => "in the lingula".into(),
        Laterality::Right => format!("in the right {place}"),
        Laterality::Left => format!("in the left {place}"),
        Laterality::Bilateral if place.ends_with("lobe") || place.ends_with("lung") => {
            format!("in both {place}s")
        }
        Laterality::Bilateral if place == "apex" => "in both apices".into(),
        Laterality::Bilateral => format!("in the {place} of both lungs"),
        Laterality::Midline => format!("in the {place}"),
    }
}

fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    match letters.next() {
        Some(first) => first.to_uppercase().chain(letters).collect(),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn example(index: usize, laterality: Laterality) -> Finding {
        Finding {
            abnormality: index,
            laterality,
            place: "lower lobe",
            form: "solid",
            size_mm: 12.0,
            count: 3,
            severity: 0.6,
        }
    }

    #[test]
    fn every_sentence_is_filled_and_ends() {
        let mut random = Random::new(1);
        for index in 0..18 {
            for template in PRESENT[index].iter().chain(SUMMARY[index]) {
                for laterality in [
                    Laterality::Right,
                    Laterality::Left,
                    Laterality::Bilateral,
                    Laterality::Midline,
                ] {
                    let text = fill(template, &example(index, laterality), &mut random);
                    assert!(!text.contains(['{', '}']), "{text}");
                    assert!(
                        text.ends_with(['.', '?']) && text.starts_with(char::is_uppercase),
                        "{text}"
                    );
                }
            }
            assert!(
                PRESENT[index].len() >= 4 && ABSENT[index].len() >= 3 && SUMMARY[index].len() >= 2
            );
        }
    }

    #[test]
    fn systems_hold_every_abnormality_once() {
        let mut all: Vec<usize> = SYSTEMS
            .iter()
            .flat_map(|members| members.iter().copied())
            .collect();
        all.sort_unstable();
        assert_eq!(all, (0..18).collect::<Vec<_>>());
    }

    #[test]
    fn sides_are_those_of_the_finding() {
        let mut random = Random::new(3);
        for _ in 0..200 {
            let text = describe(
                &mut random,
                &std::array::from_fn(|index| index == 12),
                &[example(12, Laterality::Left)],
            );
            assert!(!text.contains("right pleural"), "{text}");
        }
    }

    #[test]
    fn reports_vary_within_a_few_hundred_words() {
        let mut reports = HashSet::new();
        let mut words = HashSet::new();
        let labels: [bool; 18] = std::array::from_fn(|index| index % 3 == 0);
        let findings: Vec<Finding> = (0..18)
            .step_by(3)
            .map(|index| example(index, Laterality::Right))
            .collect();
        for seed in 0..300 {
            let text = describe(&mut Random::new(seed), &labels, &findings);
            words.extend(
                text.split_whitespace()
                    .map(|word| word.trim_matches(['.', ',']).to_lowercase()),
            );
            reports.insert(text);
        }
        assert_eq!(reports.len(), 300);
        assert!((150..700).contains(&words.len()), "{}", words.len());
    }
}
