//! The 18 abnormalities, each drawn as a change of the anatomy.
//!
//! Every abnormality has its own stream of random numbers: drawing one more changes nothing else in the image.

mod cardiovascular;
mod diffuse;
mod focal;
mod material;
mod mediastinum;

use super::anatomy::Anatomy;
use super::anatomy::patient::Patient;
use super::anatomy::thorax::{Lobe, Side};
use super::labels::own_stream;
use super::parenchyma::Parenchyma;
use super::random::Random;
use super::scene::{Layer, Stroke, lerp};

/// Where a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Laterality {
    /// The patient's right side.
    Right,
    /// The patient's left side.
    Left,
    /// Both sides.
    Bilateral,
    /// Neither: heart, aorta, mediastinum.
    Midline,
}

/// An abnormality as it was drawn: what its report may say.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// Index into [`ABNORMALITIES`](crate::dataset::ABNORMALITIES).
    pub abnormality: usize,
    /// Side.
    pub laterality: Laterality,
    /// Part of the organ, in a report's words ("upper lobe").
    pub place: &'static str,
    /// Form that it takes, in a report's words ("port catheter"); empty if there is only one.
    pub form: &'static str,
    /// Largest extent, millimetres.
    pub size_mm: f32,
    /// How many there are.
    pub count: usize,
    /// 0 is barely there, 1 as bad as it gets.
    pub severity: f32,
}

/// What an abnormality draws with.
pub(super) struct Drawing<'a> {
    anatomy: &'a Anatomy,
    strokes: &'a mut Vec<Stroke>,
    parenchyma: &'a mut Parenchyma,
    random: Random,
    severity: f32,
    index: usize,
}

impl Drawing<'_> {
    /// A finding of this abnormality.
    fn finding(&self, laterality: Laterality, place: &'static str, size_mm: f32) -> Finding {
        Finding {
            abnormality: self.index,
            laterality,
            place,
            form: "",
            size_mm,
            count: 1,
            severity: self.severity,
        }
    }

    /// Between a mild and a severe value.
    fn graded(&self, mild: f32, severe: f32) -> f32 {
        lerp(mild, severe, self.severity)
    }

    fn side(&mut self) -> Side {
        if self.random.chance(0.5) {
            Side::Right
        } else {
            Side::Left
        }
    }

    /// One side or, with the given probability, both.
    fn sides(&mut self, both: f32) -> Vec<Side> {
        let side = self.side();
        if self.random.chance(both) {
            vec![side, side.other()]
        } else {
            vec![side]
        }
    }

    fn push(&mut self, stroke: Stroke) {
        self.strokes.push(stroke);
    }
}

/// How bad an abnormality is: mild ones are few, as in reports that mention it.
fn severity(random: &mut Random) -> f32 {
    0.25 + 0.75 * random.uniform().sqrt()
}

/// What abnormalities change about the whole patient, before anything is drawn. `random` is the stream of the findings.
pub(super) fn change_patient(
    patient: &mut Patient,
    labels: &[bool; 18],
    random: &Random,
    scan: usize,
) {
    let draw = |index: usize| {
        labels[index].then(|| severity(&mut own_stream(random, index, scan).stream(1)))
    };
    if let Some(severity) = draw(CARDIOMEGALY) {
        patient.cardiothoracic_ratio = lerp(0.54, 0.63, severity);
    }
    if let Some(severity) = draw(ARTERIAL_CALCIFICATION) {
        // Arteries that harden widen.
        patient.aorta *= lerp(1.06, 1.3, severity);
    }
    if let Some(severity) = draw(PERICARDIAL_EFFUSION) {
        patient.pericardial_fluid = lerp(6.0, 20.0, severity);
    }
    if let Some(severity) = draw(ATELECTASIS) {
        // Lung that has lost its air takes less room: the diaphragm comes up.
        let rise = lerp(10.0, 30.0, severity);
        patient.dome_lift = patient.dome_lift.map(|lift| lift + rise);
    }
    if let Some(severity) = draw(EMPHYSEMA) {
        let drop = lerp(4.0, 16.0, severity);
        patient.dome_lift = patient.dome_lift.map(|lift| lift - drop);
    }
}

const ARTERIAL_CALCIFICATION: usize = 1;
const CARDIOMEGALY: usize = 2;
const PERICARDIAL_EFFUSION: usize = 3;
const EMPHYSEMA: usize = 7;
const ATELECTASIS: usize = 8;

type Draw = fn(&mut Drawing<'_>) -> Finding;

/// In the order of [`ABNORMALITIES`](crate::dataset::ABNORMALITIES).
const DRAW: [Draw; 18] = [
    material::medical_material,
    cardiovascular::arterial_calcification,
    cardiovascular::cardiomegaly,
    cardiovascular::pericardial_effusion,
    cardiovascular::coronary_calcification,
    mediastinum::hiatal_hernia,
    mediastinum::lymphadenopathy,
    diffuse::emphysema,
    focal::atelectasis,
    focal::nodules,
    focal::opacity,
    focal::fibrotic_sequela,
    diffuse::pleural_effusion,
    diffuse::mosaic_attenuation,
    diffuse::peribronchial_thickening,
    focal::consolidation,
    diffuse::bronchiectasis,
    diffuse::septal_thickening,
];

/// Draws the abnormalities of a patient; the strokes are left in the order of painting.
pub(super) fn draw(
    anatomy: &Anatomy,
    labels: &[bool; 18],
    random: &Random,
    scan: usize,
    strokes: &mut Vec<Stroke>,
) -> (Parenchyma, Vec<Finding>) {
    let mut parenchyma = Parenchyma::default();
    let mut findings = Vec::new();
    for index in (0..labels.len()).filter(|&index| labels[index]) {
        let own = own_stream(random, index, scan);
        let severity = severity(&mut own.stream(1));
        let mut drawing = Drawing {
            anatomy,
            strokes,
            parenchyma: &mut parenchyma,
            random: own.stream(2),
            severity,
            index,
        };
        findings.push(DRAW[index](&mut drawing));
    }
    strokes.sort_by_key(|stroke| stroke.layer);
    (parenchyma, findings)
}

/// A lobe in a report's words.
fn lobe_name(side: Side, lobe: Lobe) -> &'static str {
    match (side, lobe) {
        (_, Lobe::Upper) => "upper lobe",
        (_, Lobe::Lower) => "lower lobe",
        (Side::Right, Lobe::Middle) => "middle lobe",
        (Side::Left, Lobe::Middle) => "lingula",
    }
}

/// The lobes that several findings of one kind are in, in a report's words.
fn lobes_name(lobes: &[(Side, Lobe)]) -> &'static str {
    let Some(&(side, first)) = lobes.first() else {
        return "lung";
    };
    if lobes.iter().all(|&(_, lobe)| lobe == first)
        && (first != Lobe::Middle || lobes.iter().all(|&(s, _)| s == side))
    {
        lobe_name(side, first)
    } else {
        "lung"
    }
}

fn laterality(sides: impl IntoIterator<Item = Side>) -> Laterality {
    let mut seen = [false; 2];
    sides
        .into_iter()
        .for_each(|side| seen[side as usize] = true);
    match seen {
        [true, true] => Laterality::Bilateral,
        [true, false] => Laterality::Right,
        [false, true] => Laterality::Left,
        [false, false] => Laterality::Midline,
    }
}

/// Layers in which lesions of the lung are painted, named for what they cover.
const UNDER_VESSELS: Layer = Layer::LungBackground;
const OVER_VESSELS: Layer = Layer::LungLesions;
