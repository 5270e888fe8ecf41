//! Which abnormalities a patient has: CT-RATE's frequencies, and diseases that come together.

use serde::{Deserialize, Serialize};

use super::random::Random;
use crate::dataset::ABNORMALITIES;

/// How often each abnormality occurs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Frequencies {
    /// Those of CT-RATE's training split (table 3 of the paper).
    CtRate,
    /// The same, rare ones raised to this share: a small test set then holds enough positives of every abnormality to
    /// say something about it.
    AtLeast(f32),
}

impl Default for Frequencies {
    /// 0.2: of 150 patients, 30 are expected to have the rarest abnormality, and fewer than 12 have it in one of 50,000 sets.
    fn default() -> Self {
        Self::AtLeast(0.2)
    }
}

/// Table 3 of the paper, training split.
pub(super) const CT_RATE: [f32; 18] = [
    0.123, 0.284, 0.113, 0.072, 0.255, 0.143, 0.259, 0.193, 0.260, 0.453, 0.369, 0.267, 0.121,
    0.077, 0.105, 0.176, 0.100, 0.079,
];

/// Hidden causes.
const FACTORS: usize = 4;

/// How strongly age, smoking, heart failure and infection drive each abnormality (correlation of its liability with the
/// cause). The groups are CT-RATE's: calcifications with age, effusions with heart failure, opacities with infection.
const LOADINGS: [[f32; FACTORS]; 18] = [
    [0.30, 0.00, 0.35, 0.10], // Medical material
    [0.70, 0.20, 0.10, 0.00], // Arterial wall calcification
    [0.35, 0.00, 0.55, 0.00], // Cardiomegaly
    [0.05, 0.00, 0.45, 0.15], // Pericardial effusion
    [0.60, 0.25, 0.15, 0.00], // Coronary artery wall calcification
    [0.40, 0.00, 0.00, 0.00], // Hiatal hernia
    [0.00, 0.10, 0.15, 0.35], // Lymphadenopathy
    [0.20, 0.60, 0.00, 0.00], // Emphysema
    [0.20, 0.00, 0.30, 0.15], // Atelectasis
    [0.10, 0.20, 0.00, 0.00], // Lung nodule
    [0.00, 0.00, 0.15, 0.55], // Lung opacity
    [0.35, 0.25, 0.00, 0.00], // Pulmonary fibrotic sequela
    [0.10, 0.00, 0.55, 0.20], // Pleural effusion
    [0.00, 0.25, 0.10, 0.10], // Mosaic attenuation pattern
    [0.00, 0.45, 0.00, 0.25], // Peribronchial thickening
    [0.00, 0.00, 0.15, 0.60], // Consolidation
    [0.15, 0.30, 0.00, 0.15], // Bronchiectasis
    [0.05, 0.00, 0.45, 0.15], // Interlobular septal thickening
];

/// Findings that come and go between two scans of a patient.
const ACUTE: [usize; 7] = [3, 8, 10, 12, 13, 15, 17];

impl Frequencies {
    /// Probability of each abnormality.
    pub fn probabilities(self) -> [f32; 18] {
        match self {
            Self::CtRate => CT_RATE,
            Self::AtLeast(least) => {
                CT_RATE.map(|probability| probability.max(least.clamp(0.0, 1.0)))
            }
        }
    }

    /// Draws the abnormalities of a patient's scan: each has exactly its probability, together they have the hidden
    /// causes' correlations (a Gaussian copula).
    pub(super) fn sample(self, patient: &Random, scan: usize, age: u32) -> [bool; 18] {
        let mut random = patient.stream(0);
        let mut factors = [0.0; FACTORS].map(|_: f32| random.normal());
        // The age that the patient was drawn with (mean 57, deviation 16 years).
        factors[0] = (age as f32 - 57.0) / 16.0;
        let probabilities = self.probabilities();
        let mut labels = [false; ABNORMALITIES.len()];
        for (index, label) in labels.iter_mut().enumerate() {
            let own = own_stream(&patient.stream(1), index, scan).normal();
            let shared: f32 = LOADINGS[index]
                .iter()
                .zip(&factors)
                .map(|(loading, factor)| loading * factor)
                .sum();
            let explained: f32 = LOADINGS[index]
                .iter()
                .map(|loading| loading * loading)
                .sum();
            let liability = shared + (1.0 - explained).sqrt() * own;
            *label = normal_cdf(liability) > 1.0 - probabilities[index];
        }
        labels
    }
}

/// The stream of one abnormality: the same in every scan of a patient unless the finding comes and goes.
pub(super) fn own_stream(patient: &Random, index: usize, scan: usize) -> Random {
    let episode = if ACUTE.contains(&index) {
        scan as u64
    } else {
        0
    };
    patient.stream(index as u64).stream(episode)
}

/// Cumulative distribution of the standard normal (Abramowitz and Stegun 26.2.17, error below 8e-8).
fn normal_cdf(x: f32) -> f32 {
    let t = 1.0 / (1.0 + 0.231_641_9 * x.abs());
    let series = t
        * (0.319_381_54
            + t * (-0.356_563_78 + t * (1.781_477_9 + t * (-1.821_255_9 + t * 1.330_274_4))));
    let tail = (-0.5 * x * x).exp() * 0.398_942_3 * series;
    if x > 0.0 { 1.0 - tail } else { tail }
}

#[cfg(test)]
mod tests {
    use super::super::anatomy::patient::Patient;
    use super::*;

    fn draw(frequencies: Frequencies, patients: u64) -> Vec<[bool; 18]> {
        (0..patients)
            .map(|seed| {
                let random = Random::new(seed);
                let patient = Patient::sample(&mut random.stream(9));
                frequencies.sample(&random, 0, patient.age)
            })
            .collect()
    }

    #[test]
    fn frequencies_are_those_asked_for() {
        for frequencies in [Frequencies::CtRate, Frequencies::default()] {
            let drawn = draw(frequencies, 8_000);
            for (index, expected) in frequencies.probabilities().into_iter().enumerate() {
                let share =
                    drawn.iter().filter(|labels| labels[index]).count() as f32 / drawn.len() as f32;
                // Five standard errors, and half a percent because age is rounded and bounded.
                let tolerance =
                    5.0 * (expected * (1.0 - expected) / drawn.len() as f32).sqrt() + 0.005;
                assert!(
                    (share - expected).abs() < tolerance,
                    "{}: {share} {expected}",
                    ABNORMALITIES[index]
                );
            }
        }
    }

    #[test]
    fn a_small_test_set_holds_every_abnormality() {
        let drawn = draw(Frequencies::default(), 150);
        for (index, name) in ABNORMALITIES.iter().enumerate() {
            assert!(
                drawn.iter().filter(|labels| labels[index]).count() >= 12,
                "{name}"
            );
        }
    }

    #[test]
    fn diseases_come_together_moderately() {
        let drawn = draw(Frequencies::CtRate, 6_000);
        let correlation = |a: usize, b: usize| {
            let count = drawn.len() as f32;
            let mean = |k: usize| drawn.iter().filter(|labels| labels[k]).count() as f32 / count;
            let both = drawn.iter().filter(|labels| labels[a] && labels[b]).count() as f32 / count;
            let (p, q) = (mean(a), mean(b));
            (both - p * q) / (p * (1.0 - p) * q * (1.0 - q)).sqrt()
        };
        assert!(
            (0.15..0.5).contains(&correlation(1, 4)),
            "calcifications: {}",
            correlation(1, 4)
        );
        assert!(
            (0.1..0.45).contains(&correlation(10, 15)),
            "opacity and consolidation: {}",
            correlation(10, 15)
        );
        assert!(
            correlation(5, 13).abs() < 0.08,
            "hernia and mosaic: {}",
            correlation(5, 13)
        );
    }

    #[test]
    fn a_second_scan_keeps_what_does_not_heal() {
        let mut changed = 0;
        for seed in 0..200 {
            let random = Random::new(seed);
            let (first, second) = (
                Frequencies::CtRate.sample(&random, 0, 60),
                Frequencies::CtRate.sample(&random, 1, 60),
            );
            for index in 0..18 {
                if first[index] != second[index] {
                    changed += 1;
                    assert!(ACUTE.contains(&index));
                }
            }
        }
        assert!(changed > 50);
    }
}
