//! What lungs are filled with: healthy parenchyma and the findings that change it everywhere or along the pleura.

use super::anatomy::patient::Patient;
use super::anatomy::thorax::{Field, Level, Side, Thorax};
use super::scene::{Point, lerp, smoothstep};
use super::texture::{cell, noise};

/// Fluid in a pleural space.
#[derive(Clone, Copy, Debug)]
pub(super) struct Effusion {
    /// How far it reaches from the dependent wall at the base, in half depths of the chest.
    pub(super) depth: f32,
    /// Relative height where it ends.
    pub(super) top: f32,
    pub(super) hounsfield: f32,
}

/// Lobules that differ in density.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mosaic {
    pub(super) size: f32,
    /// Hounsfield units between light and dark lobules.
    pub(super) difference: f32,
    /// Share of dark lobules.
    pub(super) dark: f32,
    pub(super) seed: u64,
}

/// Lobules whose walls are thick.
#[derive(Clone, Copy, Debug)]
pub(super) struct Septa {
    pub(super) size: f32,
    pub(super) thickness: f32,
    /// How far from the pleura they are seen, millimetres.
    pub(super) reach: f32,
    /// Relative height above which they fade.
    pub(super) top: f32,
    pub(super) hounsfield: f32,
    pub(super) seed: u64,
}

/// Destroyed parenchyma.
#[derive(Clone, Copy, Debug)]
pub(super) struct Emphysema {
    /// Share of the parenchyma's density that is lost.
    pub(super) loss: f32,
    /// Size of the holes, millimetres.
    pub(super) size: f32,
    /// Relative height below which the lung is spared.
    pub(super) bottom: f32,
    /// Holes along the pleura instead of in the middle of lobules.
    pub(super) paraseptal: bool,
    pub(super) seed: u64,
}

/// State of the parenchyma.
#[derive(Clone, Debug, Default)]
pub(super) struct Parenchyma {
    /// Right and left.
    pub(super) effusion: [Option<Effusion>; 2],
    pub(super) mosaic: Option<Mosaic>,
    pub(super) septa: Option<Septa>,
    pub(super) emphysema: Option<Emphysema>,
}

impl Parenchyma {
    /// Hounsfield units of a point of a lung, and how much of it is lung (not fluid).
    #[allow(
        clippy::too_many_arguments,
        reason = "one voxel's view of the patient; called for every voxel of the lungs"
    )]
    pub(super) fn at(
        &self,
        thorax: &Thorax,
        patient: &Patient,
        level: &Level,
        point: Point,
        field: &Field,
        [fine, coarse]: [f32; 2],
        edge: f32,
    ) -> (f32, f32) {
        let dependent = patient.gravity() * (point[1] - level.center_y) / level.radius[1];
        let sink = dependent.clamp(-1.0, 1.0);
        let full = patient.breath;
        let mut value =
            lerp(-765.0, -835.0, full) + lerp(42.0, 22.0, full) * sink + 10.0 * fine + 9.0 * coarse;
        // The last millimetres at the dependent pleura are never quite open.
        value += lerp(70.0, 25.0, full)
            * smoothstep(0.55, 1.0, sink)
            * smoothstep(-14.0, 0.0, field.lung);
        if let Some(mosaic) = &self.mosaic {
            value += mosaic.at(point);
        }
        if let Some(emphysema) = &self.emphysema {
            value = emphysema.at(level, point, field.lung, value);
        }
        value = fissures(thorax, point, value, edge);
        if let Some(septa) = &self.septa {
            value = septa.at(level, point, field.lung, value, edge);
        }
        let side = if point[0] < 0.0 {
            Side::Right
        } else {
            Side::Left
        };
        if let Some(effusion) = &self.effusion[side as usize] {
            let fluid = effusion.share(level, point, dependent, edge);
            return (lerp(value, effusion.hounsfield, fluid), 1.0 - fluid);
        }
        (value, 1.0)
    }
}

fn fissures(thorax: &Thorax, point: Point, value: f32, edge: f32) -> f32 {
    const THICKNESS: f32 = 0.6;
    let oblique = 0.72 * thorax.oblique_fissure(point).abs();
    let horizontal = if point[0] < 0.0 && thorax.oblique_fissure(point) > 0.0 {
        thorax.horizontal_fissure(point).abs()
    } else {
        f32::INFINITY
    };
    let share = (0.5 + 0.5 * THICKNESS - oblique.min(horizontal) / edge.max(1.0))
        .clamp(0.0, (THICKNESS / edge).min(1.0));
    lerp(value, -300.0, share)
}

impl Effusion {
    fn share(&self, level: &Level, point: Point, dependent: f32, edge: f32) -> f32 {
        let above = (level.t / self.top).max(0.0);
        let [a, b] = level.radius;
        // The surface is level, climbs along the chest wall, and falls towards the top.
        let lateral = (point[0].abs() / a - 0.5) / 0.5;
        let surface = 1.0
            - self.depth * (1.0 - above * above)
            - 0.22 * lateral * lateral * self.depth.min(0.8);
        if above > 1.0 {
            return 0.0;
        }
        (0.5 + (dependent - surface) * b / (edge + 3.0)).clamp(0.0, 1.0)
    }
}

impl Mosaic {
    fn at(&self, point: Point) -> f32 {
        let cell = cell(self.seed, point, self.size);
        let dark = ((cell.id >> 32) as f32 / 4_294_967_296.0) < self.dark;
        // Lobules that are dense hold the blood that the others lack.
        if dark {
            -0.2 * self.difference
        } else {
            0.8 * self.difference
        }
    }
}

impl Septa {
    fn at(&self, level: &Level, point: Point, depth: f32, value: f32, edge: f32) -> f32 {
        let near = smoothstep(-self.reach, -0.6 * self.reach, depth)
            * smoothstep(self.top + 0.12, self.top - 0.12, level.t);
        if near <= 0.0 {
            return value;
        }
        let to_wall = cell(self.seed, point, self.size).to_wall;
        let half = 0.5 * self.thickness;
        let share =
            ((half + 0.5 * edge - to_wall) / edge).clamp(0.0, (self.thickness / edge).min(1.0));
        lerp(value, self.hounsfield, share * near)
    }
}

impl Emphysema {
    fn at(&self, level: &Level, point: Point, depth: f32, value: f32) -> f32 {
        let zone = smoothstep(self.bottom - 0.2, self.bottom + 0.15, level.t);
        if zone <= 0.0 {
            return value;
        }
        let hole = if self.paraseptal {
            let rim = smoothstep(-1.3 * self.size, -0.9 * self.size, depth);
            rim * smoothstep(-0.45, -0.2, noise(self.seed, point, self.size))
        } else {
            smoothstep(-0.1, 0.15, noise(self.seed, point, self.size))
        };
        let general = lerp(value, -955.0, 0.8 * self.loss * zone);
        lerp(general, -992.0, hole * zone * self.loss.max(0.45))
    }
}
