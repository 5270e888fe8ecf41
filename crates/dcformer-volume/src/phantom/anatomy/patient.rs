//! How one patient differs from another.

use super::super::random::Random;

/// Sizes, shape and state of a patient; what abnormalities change about the whole body is in it too.
#[derive(Clone, Debug)]
pub(in super::super) struct Patient {
    pub(in super::super) age: u32,
    pub(in super::super) female: bool,
    /// Half width and half depth of the inside of the rib cage, millimetres.
    pub(in super::super) cage: [f32; 2],
    /// From the lowest to the highest point of the lungs, millimetres.
    pub(in super::super) lung_height: f32,
    /// Thickness of subcutaneous fat, millimetres.
    pub(in super::super) fat: f32,
    /// Thickness of the chest wall's muscle, millimetres.
    pub(in super::super) muscle: f32,
    /// How far the lungs are filled: 0 is breathing out, 1 a full breath.
    pub(in super::super) breath: f32,
    /// Width of the heart over the width of the thorax.
    pub(in super::super) cardiothoracic_ratio: f32,
    /// Fluid in the pericardium, millimetres.
    pub(in super::super) pericardial_fluid: f32,
    /// Added to the height of each dome of the diaphragm (right, left), millimetres.
    pub(in super::super) dome_lift: [f32; 2],
    /// Hounsfield units of blood.
    pub(in super::super) blood: f32,
    /// Whether iodine was given.
    pub(in super::super) contrast: bool,
    /// Factor of the aorta's radius.
    pub(in super::super) aorta: f32,
    /// Sideways bend of the trunk, millimetres at its ends.
    pub(in super::super) scoliosis: f32,
    /// Lies on the belly.
    pub(in super::super) prone: bool,
}

impl Patient {
    /// Draws a healthy adult.
    pub(in super::super) fn sample(random: &mut Random) -> Self {
        let female = random.chance(0.45);
        let size =
            if female { 0.93 } else { 1.02 } * (1.0 + 0.05 * random.normal().clamp(-2.0, 2.0));
        let breath = random.between(0.35, 1.0);
        let contrast = random.chance(0.1);
        Self {
            age: (57.0 + 16.0 * random.normal()).clamp(18.0, 92.0) as u32,
            female,
            cage: [
                size * random.between(124.0, 138.0),
                size * random.between(84.0, 98.0),
            ],
            lung_height: size * random.between(205.0, 235.0) * (0.92 + 0.16 * breath),
            fat: (15.0 + 7.0 * random.normal()).clamp(5.0, 34.0),
            muscle: random.between(14.0, 22.0),
            breath,
            cardiothoracic_ratio: random.between(0.38, 0.46),
            pericardial_fluid: 0.0,
            dome_lift: [0.0; 2],
            blood: if contrast {
                random.between(110.0, 175.0)
            } else {
                random.between(34.0, 46.0)
            },
            contrast,
            aorta: random.between(0.9, 1.12),
            scoliosis: 5.0 * random.normal().clamp(-2.0, 2.0),
            prone: random.chance(0.03),
        }
    }

    /// 1 if what is heavy sinks to the back, -1 if to the front.
    pub(in super::super) fn gravity(&self) -> f32 {
        if self.prone { -1.0 } else { 1.0 }
    }
}
