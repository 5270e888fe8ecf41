//! Random cells: lobules of the lungs (Worley, SIGGRAPH 1996).

use super::random::mix;
use super::texture::{self, hash};

/// Where a point lies among random cells.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Cell {
    /// Names the cell.
    pub(super) id: u64,
    /// Distance to the wall to the nearest other cell, millimetres.
    pub(super) to_wall: f32,
}

/// Position of the seed in a cube, in cubes, kept off the faces so that a cube's 27 neighbours suffice.
fn seed(code: u64, cube: [i32; 3]) -> [f32; 3] {
    // Three 16-bit coordinates.
    let inside = |shift: u32| 0.15 + 0.7 * ((code >> shift) & 0xFFFF) as f32 / 65_536.0;
    [
        cube[0] as f32 + inside(0),
        cube[1] as f32 + inside(16),
        cube[2] as f32 + inside(32),
    ]
}

/// The cells that one height passes through, inside a box: many points of one slice cost little.
#[derive(Clone, Debug, Default)]
pub(super) struct Cells {
    size: f32,
    z: f32,
    /// The lowest cube.
    first: [i32; 2],
    width: usize,
    rows: usize,
    /// Hashes and seeds of three layers of cubes, row by row.
    codes: Vec<u64>,
    seeds: Vec<[f32; 3]>,
}

/// Points worked on at once: two vectors, so that 27 cubes and their neighbours' minima stay in registers.
const LANES: usize = 8;

impl Cells {
    /// Tabulates cells about `size` millimetres wide in the box `low..=high` (`x`, `y`) at height `z`.
    pub(super) fn fill(&mut self, key: u64, low: [f32; 2], high: [f32; 2], z: f32, size: f32) {
        let cube = |value: f32| texture::cell(value / size);
        self.size = size;
        self.z = z / size;
        self.first = low.map(|value| cube(value) - 1);
        self.width = (cube(high[0]) - self.first[0] + 2) as usize;
        self.rows = (cube(high[1]) - self.first[1] + 2) as usize;
        self.codes.clear();
        self.seeds.clear();
        let home = texture::cell(self.z);
        for k in home - 1..=home + 1 {
            for j in (self.first[1]..).take(self.rows) {
                for i in (self.first[0]..).take(self.width) {
                    let code = hash(key, [i, j, k]);
                    self.codes.push(code);
                    self.seeds.push(seed(code, [i, j, k]));
                }
            }
        }
    }

    /// The cells that hold points inside the tabulated box.
    pub(super) fn row(&self, x: &[f32], y: &[f32], out: &mut [Cell]) {
        let scaled = |point: usize| [x[point] / self.size, y[point] / self.size];
        let mut start = 0;
        while start < out.len() {
            let home = scaled(start).map(texture::cell);
            // As many neighbours as are in the same cube.
            let most = LANES.min(out.len() - start);
            let count = (1..most)
                .find(|lane| scaled(start + lane).map(texture::cell) != home)
                .unwrap_or(most);
            let points: [_; LANES] =
                std::array::from_fn(|lane| scaled(start + lane.min(count - 1)));
            let [x, y] = [0, 1].map(|axis| points.map(|point| point[axis]));
            let cells = self.at(home, &x, &y);
            out[start..start + count].copy_from_slice(&cells[..count]);
            start += count;
        }
    }

    /// The cells of points, given in cubes, that are all in the cube `home`.
    fn at(&self, home: [i32; 2], x: &[f32; LANES], y: &[f32; LANES]) -> [Cell; LANES] {
        let (mut nearest, mut second) = ([f32::INFINITY; LANES], [f32::INFINITY; LANES]);
        let mut cubes = [0_u32; LANES];
        let [column, row] = [0, 1].map(|axis| (home[axis] - self.first[axis] - 1) as usize);
        for k in 0..3 {
            for j in 0..3 {
                let start = (k * self.rows + row + j) * self.width + column;
                for cube in start..start + 3 {
                    let seed = self.seeds[cube];
                    let up = seed[2] - self.z;
                    for lane in 0..LANES {
                        let (left, back) = (seed[0] - x[lane], seed[1] - y[lane]);
                        let squared = left * left + back * back + up * up;
                        let nearer = squared < nearest[lane];
                        second[lane] = second[lane].min(squared.max(nearest[lane]));
                        cubes[lane] = if nearer { cube as u32 } else { cubes[lane] };
                        nearest[lane] = if nearer { squared } else { nearest[lane] };
                    }
                }
            }
        }
        std::array::from_fn(|lane| Cell {
            id: mix(self.codes[cubes[lane] as usize]),
            to_wall: 0.5 * (second[lane].sqrt() - nearest[lane].sqrt()) * self.size,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::random::Random;
    use super::super::scene::Point;
    use super::*;

    /// The definition: one point, every cube around its own.
    fn cell(key: u64, point: Point, size: f32) -> Cell {
        let scaled = point.map(|value| value / size);
        let home = scaled.map(|value| value.floor() as i32);
        let (mut nearest, mut second, mut id) = (f32::INFINITY, f32::INFINITY, 0);
        for k in -1..=1 {
            for j in -1..=1 {
                for i in -1..=1 {
                    let cube = [home[0] + i, home[1] + j, home[2] + k];
                    let code = hash(key, cube);
                    let seed = seed(code, cube);
                    let squared = (0..3).map(|axis| (seed[axis] - scaled[axis]).powi(2)).sum();
                    if squared < nearest {
                        (second, nearest, id) = (nearest, squared, code);
                    } else {
                        second = second.min(squared);
                    }
                }
            }
        }
        Cell {
            id: mix(id),
            to_wall: 0.5 * (second.sqrt() - nearest.sqrt()) * size,
        }
    }

    #[test]
    fn tabulated_cells_are_those_of_the_definition() {
        let mut random = Random::new(3);
        for (z, size) in [(4.0, 20.0), (-33.0, 26.5), (0.0, 9.0)] {
            let mut cells = Cells::default();
            cells.fill(3, [-60.0, -45.0], [60.0, 45.0], z, size);
            for y in [-45.0, -7.1, 0.0, 45.0] {
                // Neighbours that share cubes, and points that do not.
                let mut x: Vec<f32> = (0..49).map(|step| -60.0 + 2.5 * step as f32).collect();
                x.extend((0..50).map(|_| random.between(-60.0, 60.0)));
                let mut found = vec![Cell::default(); x.len()];
                cells.row(&x, &vec![y; x.len()], &mut found);
                for (x, found) in x.iter().zip(found) {
                    assert_eq!(found, cell(3, [*x, y, z], size), "{x} {y} {z}");
                }
            }
        }
    }

    #[test]
    fn walls_lie_between_cells() {
        let mut previous = cell(3, [0.0, 0.0, 0.0], 20.0);
        let mut crossings = 0;
        for step in 1..4_000 {
            let here = cell(3, [step as f32 * 0.05, 1.0, 2.0], 20.0);
            if here.id != previous.id && step > 1 {
                crossings += 1;
                assert!(
                    here.to_wall < 0.06 && previous.to_wall < 0.06,
                    "{here:?} {previous:?}"
                );
            }
            previous = here;
        }
        assert!((5..25).contains(&crossings), "{crossings}");
    }
}
