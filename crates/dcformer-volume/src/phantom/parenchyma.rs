//! What lungs are filled with: healthy parenchyma and the findings that change it everywhere or along the pleura.

use super::anatomy::patient::Patient;
use super::anatomy::thorax::{Level, Side, Thorax};
use super::background::{Stretch, runs};
use super::cells::{Cell, Cells};
use super::scene::{lerp, smoothstep};
use super::texture::Lattice;

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
    /// Hounsfield units of points of a lung, `lung` millimetres outside it, and how much of them is lung (not fluid).
    /// `lobules` are this parenchyma's at the points' height.
    pub(super) fn fill(
        &self,
        chest: Chest<'_>,
        stretch: Stretch<'_>,
        lung: &[f32],
        lobules: &mut Lobules,
        hounsfield: &mut [f32],
        share: &mut [f32],
    ) {
        let Stretch { level, x, y, .. } = stretch;
        chest.healthy(stretch, lung, hounsfield);
        if let Some(mosaic) = &self.mosaic {
            let cells = lobules.mosaic.row(x, y);
            for (value, cell) in hounsfield.iter_mut().zip(cells) {
                *value += mosaic.at(cell);
            }
        }
        if let Some(emphysema) = &self.emphysema {
            emphysema.fill(stretch, lung, lobules, hounsfield);
        }
        chest.fissures(stretch, hounsfield);
        if let Some(septa) = &self.septa {
            septa.fill(stretch, lung, chest.edge, lobules, hounsfield);
        }
        share.fill(1.0);
        for (side, effusion) in self.effusion.iter().enumerate() {
            let Some(effusion) = effusion else { continue };
            let voxels = hounsfield.iter_mut().zip(&mut *share);
            for ((&x, &y), (value, share)) in x.iter().zip(y).zip(voxels) {
                let here = if x < 0.0 { Side::Right } else { Side::Left };
                if here as usize == side {
                    let fluid = effusion.share(level, x, chest.dependent(level, y), chest.edge);
                    *value = lerp(*value, effusion.hounsfield, fluid);
                    *share = 1.0 - fluid;
                }
            }
        }
    }
}

/// What all points of a chest have in common.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chest<'a> {
    pub(super) thorax: &'a Thorax,
    pub(super) patient: &'a Patient,
    /// Width of the transition at an edge, millimetres.
    pub(super) edge: f32,
}

impl Chest<'_> {
    /// How far a point lies on the side to which fluid sinks: 1 at the wall.
    fn dependent(&self, level: &Level, y: f32) -> f32 {
        self.patient.gravity() * (y - level.center_y) / level.radius[1]
    }

    /// Parenchyma without any finding.
    #[inline(never)] // see `background`
    fn healthy(&self, stretch: Stretch<'_>, lung: &[f32], hounsfield: &mut [f32]) {
        let full = self.patient.breath;
        let middle = lerp(-765.0, -835.0, full);
        let gradient = lerp(42.0, 22.0, full);
        let closed = lerp(70.0, 25.0, full);
        let around = stretch.y.iter().zip(lung);
        let textures = stretch.fine.iter().zip(stretch.coarse);
        for ((value, (&y, &lung)), (fine, coarse)) in
            hounsfield.iter_mut().zip(around).zip(textures)
        {
            let sink = self.dependent(stretch.level, y).clamp(-1.0, 1.0);
            *value = middle + gradient * sink + 10.0 * fine + 9.0 * coarse;
            // The last millimetres at the dependent pleura are never quite open.
            *value += closed * smoothstep(0.55, 1.0, sink) * smoothstep(-14.0, 0.0, lung);
        }
    }

    /// Draws the fissures between lobes.
    #[inline(never)] // see `background`
    fn fissures(&self, stretch: Stretch<'_>, hounsfield: &mut [f32]) {
        const THICKNESS: f32 = 0.6;
        let Self { thorax, edge, .. } = *self;
        let most = (THICKNESS / edge).min(1.0);
        let width = edge.max(1.0);
        for ((&x, &y), value) in stretch.x.iter().zip(stretch.y).zip(hounsfield) {
            let point = [x, y, stretch.level.z];
            let above = thorax.oblique_fissure(point);
            let oblique = 0.72 * above.abs();
            let horizontal = thorax.horizontal_fissure(point).abs();
            let nearest = if x < 0.0 && above > 0.0 {
                oblique.min(horizontal)
            } else {
                oblique
            };
            let share = (0.5 + 0.5 * THICKNESS - nearest / width).clamp(0.0, most);
            *value = lerp(*value, -300.0, share);
        }
    }
}

/// Textures of a parenchyma at one height.
#[derive(Debug, Default)]
pub(super) struct Lobules {
    mosaic: CellRow,
    septa: CellRow,
    holes: Lattice,
    /// Room for one value a voxel of a row.
    row: Vec<f32>,
}

impl Lobules {
    /// For the box `low..=high` (`x`, `y`) at height `z`.
    pub(super) fn fill(&mut self, parenchyma: &Parenchyma, low: [f32; 2], high: [f32; 2], z: f32) {
        if let Some(Mosaic { seed, size, .. }) = parenchyma.mosaic {
            self.mosaic.cells.fill(seed, low, high, z, size);
        }
        if let Some(Septa { seed, size, .. }) = parenchyma.septa {
            self.septa.cells.fill(seed, low, high, z, size);
        }
        if let Some(Emphysema { seed, size, .. }) = parenchyma.emphysema {
            self.holes.fill(seed, low, high, z, size);
        }
    }
}

/// Cells with room for those of a row.
#[derive(Debug, Default)]
struct CellRow {
    cells: Cells,
    row: Vec<Cell>,
}

impl CellRow {
    fn row(&mut self, x: &[f32], y: &[f32]) -> &[Cell] {
        self.row.resize(x.len(), Cell::default());
        self.cells.row(x, y, &mut self.row);
        &self.row
    }
}

impl Effusion {
    fn share(&self, level: &Level, x: f32, dependent: f32, edge: f32) -> f32 {
        let above = (level.t / self.top).max(0.0);
        let [a, b] = level.radius;
        // The surface is level, climbs along the chest wall, and falls towards the top.
        let lateral = (x.abs() / a - 0.5) / 0.5;
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
    fn at(&self, cell: &Cell) -> f32 {
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
    fn fill(
        &self,
        stretch: Stretch<'_>,
        lung: &[f32],
        edge: f32,
        lobules: &mut Lobules,
        hounsfield: &mut [f32],
    ) {
        let Lobules {
            septa, row: near, ..
        } = lobules;
        let low = smoothstep(self.top + 0.12, self.top - 0.12, stretch.level.t);
        near.resize(lung.len(), 0.0);
        for (near, &lung) in near.iter_mut().zip(lung) {
            *near = smoothstep(-self.reach, -0.6 * self.reach, lung) * low;
        }
        let half = 0.5 * self.thickness;
        let most = (self.thickness / edge).min(1.0);
        for run in runs(near, |near| near > 0.0) {
            let cells = septa.row(&stretch.x[run.clone()], &stretch.y[run.clone()]);
            let values = hounsfield[run.clone()].iter_mut().zip(&near[run]);
            for ((value, near), cell) in values.zip(cells) {
                let share = ((half + 0.5 * edge - cell.to_wall) / edge).clamp(0.0, most);
                *value = lerp(*value, self.hounsfield, share * near);
            }
        }
    }
}

impl Emphysema {
    fn fill(
        &self,
        stretch: Stretch<'_>,
        lung: &[f32],
        lobules: &mut Lobules,
        hounsfield: &mut [f32],
    ) {
        let zone = smoothstep(self.bottom - 0.2, self.bottom + 0.15, stretch.level.t);
        if zone <= 0.0 {
            return;
        }
        let Lobules { holes, row, .. } = lobules;
        row.resize(lung.len(), 0.0);
        holes.row(stretch.x, stretch.y, row);
        for hole in &mut *row {
            *hole = if self.paraseptal {
                smoothstep(-0.45, -0.2, *hole)
            } else {
                smoothstep(-0.1, 0.15, *hole)
            };
        }
        if self.paraseptal {
            for (hole, &lung) in row.iter_mut().zip(lung) {
                *hole *= smoothstep(-1.3 * self.size, -0.9 * self.size, lung);
            }
        }
        for (value, hole) in hounsfield.iter_mut().zip(&*row) {
            let general = lerp(*value, -955.0, 0.8 * self.loss * zone);
            *value = lerp(general, -992.0, hole * zone * self.loss.max(0.45));
        }
    }
}
