//! What is there before strokes are painted: skin, fat, muscle, lungs and belly.
//!
//! Every step is a loop over neighbouring voxels of a row, so that it becomes vector code; functions with many lists are
//! not inlined, because the compiler knows of an argument that it overlaps no other. Divisions stand outside of `if`.

use std::ops::Range;

use super::anatomy::thorax::Level;
use super::anatomy::{AIR, SOFT_TISSUE};
use super::parenchyma::{Chest, Lobules};
use super::render::{Canvas, View};
use super::scene::{coverage, ellipse, lerp, smoothstep};
use super::texture::SliceNoise;

const FAT: f32 = -98.0;
const SKIN: f32 = 20.0;

/// Neighbouring voxels of a row; one value a voxel in each list.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stretch<'a> {
    pub(super) level: &'a Level,
    /// Positions in the patient as if the spine were straight.
    pub(super) x: &'a [f32],
    pub(super) y: &'a [f32],
    /// Textures.
    pub(super) fine: &'a [f32],
    pub(super) coarse: &'a [f32],
}

impl Stretch<'_> {
    fn part(&self, range: Range<usize>) -> Self {
        Self {
            level: self.level,
            x: &self.x[range.clone()],
            y: &self.y[range.clone()],
            fine: &self.fine[range.clone()],
            coarse: &self.coarse[range],
        }
    }
}

/// Ranges of neighbours that `wanted` accepts.
pub(super) fn runs(
    values: &[f32],
    wanted: impl Fn(f32) -> bool,
) -> impl Iterator<Item = Range<usize>> {
    let mut end = 0;
    std::iter::from_fn(move || {
        let run = next_run(values, end, &wanted)?;
        end = run.end;
        Some(run)
    })
}

/// The first range from `start` on. A loop of its own: inlined, it would keep count of all that the range is used for.
#[inline(never)]
fn next_run(values: &[f32], start: usize, wanted: impl Fn(f32) -> bool) -> Option<Range<usize>> {
    let start = start + values[start..].iter().position(|value| wanted(*value))?;
    let len = values[start..].iter().position(|value| !wanted(*value));
    Some(start..len.map_or(values.len(), |len| start + len))
}

/// Textures of a layer, and room for one value a voxel of a row.
#[derive(Debug, Default)]
pub(super) struct Rows {
    fine_noise: SliceNoise,
    coarse_noise: SliceNoise,
    x: Vec<f32>,
    body: Vec<f32>,
    fine: Vec<f32>,
    coarse: Vec<f32>,
    trunk: Trunk,
}

/// Room for what lies under the skin.
#[derive(Debug, Default)]
struct Trunk {
    cage: Vec<f32>,
    /// Share of a voxel inside the rib cage.
    inside: Vec<f32>,
    wall: Vec<f32>,
    organs: Organs,
}

/// Textures and room for what lies inside the rib cage.
#[derive(Debug, Default)]
struct Organs {
    lobules: Lobules,
    lung: Vec<f32>,
    diaphragm: Vec<f32>,
    /// Share of a voxel that is not mediastinum or belly.
    open: Vec<f32>,
    closed: Vec<f32>,
}

impl Rows {
    fn resize(&mut self, columns: usize) {
        let trunk = &mut self.trunk;
        let organs = &mut trunk.organs;
        for list in [
            &mut self.x,
            &mut self.body,
            &mut self.fine,
            &mut self.coarse,
            &mut trunk.cage,
            &mut trunk.inside,
            &mut trunk.wall,
            &mut organs.lung,
            &mut organs.diaphragm,
            &mut organs.open,
            &mut organs.closed,
        ] {
            list.resize(columns, 0.0);
        }
    }
}

impl View<'_> {
    /// Air, table, chest wall, mediastinal fat, lungs and belly at height `z`.
    pub(super) fn background(&self, canvas: &mut Canvas, z: f32) {
        let Canvas {
            hounsfield,
            lung,
            rows,
            ..
        } = canvas;
        hounsfield.clone_from(&self.surroundings);
        lung.clear();
        lung.resize(hounsfield.len(), 0.0);
        let columns = self.acquisition.columns;
        rows.resize(columns);
        let (thorax, texture) = (&self.scene.thorax, self.scene.texture);
        let level = thorax.level(z);
        let reach = thorax.reach(&level);
        let low = reach.map(|side| -side);
        rows.fine_noise.fill(texture, low, reach, z, 6.5);
        rows.coarse_noise.fill(texture ^ 1, low, reach, z, 21.0);
        let lobules = &mut rows.trunk.organs.lobules;
        lobules.fill(&self.scene.parenchyma, low, reach, z);
        for row in 0..columns {
            let voxels = row * columns..(row + 1) * columns;
            let (x, y) = (
                &self.positions.x[voxels.clone()],
                &self.positions.y[voxels.clone()],
            );
            if y.iter().all(|y| y.abs() > reach[1]) {
                continue;
            }
            for (straight, x) in rows.x.iter_mut().zip(x) {
                *straight = x - level.shift_x;
            }
            thorax.bodies(&level, &rows.x, y, &mut rows.body);
            for ((x, y), body) in rows.x.iter().zip(y).zip(&mut rows.body) {
                let far = (x.abs() > reach[0]) | (y.abs() > reach[1]);
                *body = if far { f32::INFINITY } else { *body };
            }
            self.row(
                &level,
                y,
                rows,
                &mut hounsfield[voxels.clone()],
                &mut lung[voxels],
            );
        }
    }

    /// The voxels of a row that lie in the body.
    fn row(
        &self,
        level: &Level,
        y: &[f32],
        rows: &mut Rows,
        hounsfield: &mut [f32],
        lung: &mut [f32],
    ) {
        let edge = self.acquisition.edge_mm;
        for run in runs(&rows.body, |body| body <= edge) {
            let (x, y) = (&rows.x[run.clone()], &y[run.clone()]);
            let (fine, coarse) = (&mut rows.fine[run.clone()], &mut rows.coarse[run.clone()]);
            rows.fine_noise.row(x, y, fine);
            rows.coarse_noise.row(x, y, coarse);
            let stretch = Stretch {
                level,
                x,
                y,
                fine,
                coarse,
            };
            self.trunk(
                stretch,
                &rows.body[run.clone()],
                &mut rows.trunk,
                &mut hounsfield[run.clone()],
                &mut lung[run],
            );
        }
    }

    /// Hounsfield units and share of lung under the skin.
    fn trunk(
        &self,
        stretch: Stretch<'_>,
        body: &[f32],
        trunk: &mut Trunk,
        hounsfield: &mut [f32],
        lung: &mut [f32],
    ) {
        let count = body.len();
        let (cage, inside) = (&mut trunk.cage[..count], &mut trunk.inside[..count]);
        let Stretch { level, x, y, .. } = stretch;
        self.scene.thorax.cages(level, x, y, cage);
        for (inside, cage) in inside.iter_mut().zip(&*cage) {
            *inside = coverage(*cage, self.acquisition.edge_mm);
        }
        hounsfield.fill(0.0);
        for run in runs(inside, |inside| inside > 0.0) {
            let lung = &mut lung[run.clone()];
            self.organs(
                stretch.part(run.clone()),
                &cage[run.clone()],
                &mut trunk.organs,
                &mut hounsfield[run.clone()],
                lung,
            );
            for (lung, inside) in lung.iter_mut().zip(&inside[run]) {
                *lung *= inside;
            }
        }
        for run in runs(inside, |inside| inside < 1.0) {
            let wall = &mut trunk.wall[..run.len()];
            self.wall(
                stretch.part(run.clone()),
                &body[run.clone()],
                &cage[run.clone()],
                wall,
            );
            let values = hounsfield[run.clone()].iter_mut().zip(&*wall);
            for ((value, wall), inside) in values.zip(&inside[run]) {
                *value = lerp(*wall, *value, *inside);
            }
        }
    }

    /// Hounsfield units of skin, fat and muscle around the rib cage.
    #[inline(never)]
    fn wall(&self, stretch: Stretch<'_>, body: &[f32], cage: &[f32], out: &mut [f32]) {
        let edge = self.acquisition.edge_mm;
        let level = stretch.level;
        let shoulders = smoothstep(0.6, 0.9, level.t);
        let positions = stretch.x.iter().zip(stretch.y);
        let textures = stretch.fine.iter().zip(stretch.coarse);
        let distances = body.iter().zip(cage);
        for (((out, (&x, &y)), (&fine, &coarse)), (&body, &cage)) in
            out.iter_mut().zip(positions).zip(textures).zip(distances)
        {
            let skin = lerp(AIR, SKIN, coverage(body, edge));
            let fat = lerp(skin, FAT + 8.0 * fine, coverage(body + 2.2, edge));
            // The back's long muscles fill the corner beside the spine.
            let beside_spine = 0.25 * y * smoothstep(60.0, 10.0, x.abs());
            let back = if y > level.center_y {
                beside_spine
            } else {
                0.0
            };
            let end = level.muscle * (1.0 + 0.25 * coarse) + back;
            // Fat between the muscles of the shoulders.
            let planes = smoothstep(0.1, 0.5, coarse + 0.4 * fine) * shoulders;
            let muscle = lerp(SOFT_TISSUE + 8.0 + 5.0 * fine, FAT, planes);
            *out = lerp(
                fat,
                muscle,
                coverage(cage - end, edge).min(coverage(body + 5.0, edge)),
            );
        }
    }

    /// Hounsfield units and share of lung inside the rib cage; both are 0 before.
    fn organs(
        &self,
        stretch: Stretch<'_>,
        cage: &[f32],
        organs: &mut Organs,
        hounsfield: &mut [f32],
        lung_share: &mut [f32],
    ) {
        let edge = self.acquisition.edge_mm;
        let chest = Chest {
            thorax: &self.scene.thorax,
            patient: &self.scene.patient,
            edge,
        };
        let count = cage.len();
        let (lung, diaphragm) = (&mut organs.lung[..count], &mut organs.diaphragm[..count]);
        chest
            .thorax
            .fields(stretch.level, [stretch.x, stretch.y], cage, lung, diaphragm);
        let open = &mut organs.open[..count];
        for (open, lung) in open.iter_mut().zip(&*lung) {
            *open = coverage(*lung, edge);
        }
        for run in runs(open, |open| open > 0.0) {
            self.scene.parenchyma.fill(
                chest,
                stretch.part(run.clone()),
                &lung[run.clone()],
                &mut organs.lobules,
                &mut hounsfield[run.clone()],
                &mut lung_share[run],
            );
        }
        for run in runs(open, |open| open < 1.0) {
            let closed = &mut organs.closed[..run.len()];
            self.closed(stretch.part(run.clone()), &diaphragm[run.clone()], closed);
            let values = hounsfield[run.clone()].iter_mut().zip(&*closed);
            let shares = lung_share[run.clone()].iter_mut().zip(&open[run]);
            for ((value, closed), (share, open)) in values.zip(shares) {
                *value = lerp(*closed, *value, *open);
                *share *= open;
            }
        }
    }

    /// Hounsfield units of mediastinum and belly.
    fn closed(&self, stretch: Stretch<'_>, diaphragm: &[f32], out: &mut [f32]) {
        for (out, fine) in out.iter_mut().zip(stretch.fine) {
            *out = FAT + 6.0 * fine;
        }
        for run in runs(diaphragm, |diaphragm| diaphragm < 0.0) {
            self.belly(
                stretch.part(run.clone()),
                &diaphragm[run.clone()],
                &mut out[run],
            );
        }
    }

    /// Liver, stomach and spleen below the diaphragm.
    #[inline(never)]
    fn belly(&self, stretch: Stretch<'_>, below: &[f32], out: &mut [f32]) {
        let patient = &self.scene.patient;
        let [a, b] = patient.cage;
        let height = 0.12 * (stretch.level.z - self.scene.thorax.height(0.1)).abs();
        let contrast = if patient.contrast { 35.0 } else { 0.0 };
        let gravity = patient.gravity();
        let positions = stretch.x.iter().zip(stretch.y);
        let around = stretch.fine.iter().zip(below);
        for ((out, (&x, &y)), (&fine, &below)) in out.iter_mut().zip(positions).zip(around) {
            let stomach = ellipse(x - 0.42 * a, y + 0.1 * b, [0.36 * a, 0.42 * b]) + height;
            let dependent = (y + 0.1 * b) * gravity;
            let gas_or_food = if dependent < -0.12 * b {
                -970.0
            } else {
                22.0 + 10.0 * fine
            };
            let spleen = ellipse(x - 0.66 * a, y - 0.45 * b, [0.24 * a, 0.36 * b]);
            let liver = smoothstep(26.0, 8.0, x + 0.15 * y + 6.0 * fine)
                * smoothstep(0.9 * b, 0.8 * b, y + 0.2 * x.abs());
            let solid = if spleen < 0.0 {
                50.0 + contrast + 3.0 * fine
            } else {
                lerp(FAT, 58.0 + contrast + 3.0 * fine, liver)
            };
            *out = if below > -3.0 || (stomach < 0.0 && stomach > -4.0) {
                // The diaphragm, and the stomach's wall.
                40.0
            } else if stomach < 0.0 {
                gas_or_food
            } else {
                solid
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::acquisition::Acquisition;
    use super::super::anatomy::Anatomy;
    use super::super::anatomy::patient::Patient;
    use super::super::random::Random;
    use super::super::render::Scene;
    use super::super::{PhantomConfig, abnormality};
    use super::*;

    #[test]
    fn runs_are_all_that_is_wanted() {
        let found =
            |values: &[f32]| -> Vec<Range<usize>> { runs(values, |value| value > 0.0).collect() };
        assert_eq!(found(&[]), []);
        assert_eq!(found(&[0.0, -1.0]), []);
        assert_eq!(found(&[1.0, 2.0, 0.0, 3.0]), [0..2, 3..4]);
        assert_eq!(found(&[0.0, 1.0, 2.0, 0.0, 3.0, 0.0]), [1..3, 4..5]);
    }

    /// A patient with every finding, and how the scanner sees it with voxels of 4 mm, the first at `origin`.
    fn scene_and_acquisition(seed: u64, origin: [f32; 2]) -> (Scene, Acquisition) {
        let random = Random::new(seed);
        let patient = Patient::sample(&mut random.stream(1));
        let (anatomy, mut strokes) = Anatomy::build(patient, &random.stream(2));
        let (parenchyma, _) =
            abnormality::draw(&anatomy, &[true; 18], &random.stream(3), 0, &mut strokes);
        let config = PhantomConfig {
            columns: 80,
            ..PhantomConfig::default()
        };
        let mut acquisition = Acquisition::sample(
            &config,
            &anatomy.patient,
            &anatomy.thorax,
            &mut random.stream(4),
            &mut random.stream(5),
            0,
        );
        acquisition.plane.spacing = 4.0;
        acquisition.plane.origin = origin;
        acquisition.plane.rotation = [1.0, 0.0];
        let scene = Scene {
            patient: anatomy.patient,
            thorax: anatomy.thorax,
            parenchyma,
            strokes,
            texture: 7,
        };
        (scene, acquisition)
    }

    #[test]
    fn a_voxel_does_not_depend_on_its_place_in_the_slice() {
        const SHIFT: [usize; 2] = [3, 5];
        for seed in 0..6 {
            let (scene, acquisition) = scene_and_acquisition(seed, [-160.0, -160.0]);
            let (_, shifted) =
                scene_and_acquisition(seed, SHIFT.map(|voxels| -160.0 + 4.0 * voxels as f32));
            let view = View::new(&scene, &acquisition);
            let shifted = View::new(&scene, &shifted);
            let (mut canvas, mut other) = (Canvas::default(), Canvas::default());
            for t in [0.02, 0.2, 0.45, 0.7, 0.9, 1.05] {
                let z = scene.thorax.height(t);
                let level = scene.thorax.level(z);
                view.background(&mut canvas, z);
                shifted.background(&mut other, z);
                let mut compared = 0;
                for j in SHIFT[1]..80 {
                    for i in SHIFT[0]..80 {
                        let (here, there) = (80 * j + i, 80 * (j - SHIFT[1]) + i - SHIFT[0]);
                        let x = view.positions.x[here] - level.shift_x;
                        // The table moves with the slice.
                        if scene.thorax.body(&level, x, view.positions.y[here]) < 0.0 {
                            compared += 1;
                            assert_eq!(canvas.hounsfield[here], other.hounsfield[there]);
                            assert_eq!(canvas.lung[here], other.lung[there]);
                        }
                    }
                }
                assert!(compared > 900, "{compared}");
            }
        }
    }
}
