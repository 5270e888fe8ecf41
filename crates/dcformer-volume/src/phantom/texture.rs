//! Smooth random fields.

use std::ops::Range;

use super::random::mix;
use super::rounding::{floor, index};
use super::scene::lerp;

pub(super) fn hash(key: u64, cell: [i32; 3]) -> u64 {
    let [i, j, k] = cell.map(|value| u64::from(value as u32));
    mix(key
        ^ (i.wrapping_mul(0x9E37_79B9_7F4A_7C15)
            ^ j.wrapping_mul(0xC2B2_AE3D_27D4_EB4F)
            ^ k.wrapping_mul(0x1656_67B1_9E37_79F9)))
}

/// Uniform in `[-1, 1)` from a hash.
fn signed(hash: u64) -> f32 {
    (hash >> 40) as f32 * (2.0 / (1u64 << 24) as f32) - 1.0
}

fn fade(t: f32) -> f32 {
    t * t * (3.0 - 2.0 * t)
}

/// The cell of a coordinate, in cells.
pub(super) fn cell(scaled: f32) -> i32 {
    floor(scaled) as i32
}

/// Value noise in `[-1, 1]` with the given correlation length: the definition of what is tabulated here.
#[cfg(test)]
fn noise(key: u64, point: super::scene::Point, length: f32) -> f32 {
    let scaled = point.map(|value| value / length);
    let cell = scaled.map(|value| f32::floor(value) as i32);
    let [fx, fy, fz] = [0, 1, 2].map(|axis| fade(scaled[axis] - cell[axis] as f32));
    let corner =
        |i: i32, j: i32, k: i32| signed(hash(key, [cell[0] + i, cell[1] + j, cell[2] + k]));
    let row = |j: i32, k: i32| lerp(corner(0, j, k), corner(1, j, k), fx);
    lerp(
        lerp(row(0, 0), row(1, 0), fy),
        lerp(row(0, 1), row(1, 1), fy),
        fz,
    )
}

/// Corners of the cells of value noise that one height passes through, inside a box.
#[derive(Clone, Debug, Default)]
struct Corners {
    /// Below and above the height, row by row.
    values: Vec<[f32; 2]>,
    /// Lowest cell along `x` and `y`, and cells along `x`; whole numbers.
    first: [f32; 2],
    width: f32,
    /// Weight of the values above.
    above: f32,
    length: f32,
    /// What the values depend on: key, cells along `x` and `y`, and layer of cells.
    filled: Option<(u64, [Range<i32>; 2], i32)>,
}

impl Corners {
    /// For the box `low..=high` (`x`, `y`) at height `z`.
    fn fill(&mut self, key: u64, low: [f32; 2], high: [f32; 2], z: f32, length: f32) {
        let cells = [0, 1].map(|axis| cell(low[axis] / length)..cell(high[axis] / length) + 2);
        let k = cell(z / length);
        self.length = length;
        self.first = [0, 1].map(|axis| cells[axis].start as f32);
        self.width = cells[0].len() as f32;
        self.above = fade(z / length - k as f32);
        let wanted = Some((key, cells.clone(), k));
        // Neighbouring heights mostly lie in the same layer of cells.
        if self.filled == wanted {
            return;
        }
        self.filled = wanted;
        self.values.clear();
        let [across, down] = cells;
        for j in down {
            let row = across.clone();
            self.values
                .extend(row.map(|i| [k, k + 1].map(|k| signed(hash(key, [i, j, k])))));
        }
    }
}

/// Points worked on at once: enough for vector code.
const LANES: usize = 16;

/// Where points lie among corners.
struct Places {
    /// Index of the corner with the lowest `x` and `y`.
    start: [u32; LANES],
    /// Weights of the corners with the higher `x` and the higher `y`.
    fx: [f32; LANES],
    fy: [f32; LANES],
}

impl Corners {
    /// Places of points, their coordinates counted from the cell `origin`.
    fn places(&self, x: &[f32; LANES], y: &[f32; LANES], origin: [f32; 2]) -> Places {
        let (mut start, mut fx, mut fy) = ([0; LANES], [0.0; LANES], [0.0; LANES]);
        let first = [0, 1].map(|axis| self.first[axis] - origin[axis]);
        for lane in 0..LANES {
            let (u, v) = (
                x[lane] / self.length - origin[0],
                y[lane] / self.length - origin[1],
            );
            let (i, j) = (floor(u), floor(v));
            (fx[lane], fy[lane]) = (fade(u - i), fade(v - j));
            start[lane] = index((j - first[1]) * self.width + (i - first[0]));
        }
        Places { start, fx, fy }
    }
}

impl Corners {
    /// Corners with those that have the next `y`.
    fn pairs(&self) -> impl Iterator<Item = ([f32; 2], [f32; 2])> {
        let next = self.values.iter().skip(self.width as usize);
        self.values.iter().copied().zip(next.copied())
    }
}

/// Calls `values` with as many points as it works on at once, and with room for those that are wanted.
fn in_pieces(
    x: &[f32],
    y: &[f32],
    out: &mut [f32],
    values: impl Fn(&[f32; LANES], &[f32; LANES], &mut [f32]),
) {
    let (x, last_x) = x.as_chunks();
    let (y, last_y) = y.as_chunks();
    let (out, last) = out.as_chunks_mut::<LANES>();
    for ((x, y), out) in x.iter().zip(y).zip(out) {
        values(x, y, out);
    }
    if !last.is_empty() {
        let fill = |points: &[f32]| std::array::from_fn(|lane| points[lane.min(points.len() - 1)]);
        values(&fill(last_x), &fill(last_y), last);
    }
}

/// Value noise at one height: many points of one slice cost little.
#[derive(Clone, Debug, Default)]
pub(super) struct SliceNoise {
    corners: Corners,
    /// Values at the height, of a corner and of that with the next `y`.
    values: Vec<[f32; 2]>,
}

impl SliceNoise {
    /// Tabulates the box `low..=high` (`x`, `y`) at height `z`.
    pub(super) fn fill(&mut self, key: u64, low: [f32; 2], high: [f32; 2], z: f32, length: f32) {
        self.corners.fill(key, low, high, z, length);
        let above = self.corners.above;
        let at = |[a, b]: [f32; 2]| lerp(a, b, above);
        let pairs = self.corners.pairs();
        self.values.clear();
        self.values
            .extend(pairs.map(|(front, back)| [at(front), at(back)]));
    }

    /// Values at points inside the tabulated box.
    pub(super) fn row(&self, x: &[f32], y: &[f32], out: &mut [f32]) {
        in_pieces(x, y, out, |x, y, out| {
            let Places { start, fx, fy } = self.corners.places(x, y, self.corners.first);
            for (lane, out) in out.iter_mut().enumerate() {
                let start = start[lane] as usize;
                let (left, right) = (self.values[start], self.values[start + 1]);
                let [front, back] = [0, 1].map(|y| lerp(left[y], right[y], fx[lane]));
                *out = lerp(front, back, fy[lane]);
            }
        });
    }
}

/// The same noise with positions counted from the patient's origin and heights interpolated last. The two differ in the
/// last bits, and where noise decides between tissues a bit is seen, so neither takes the other's place.
#[derive(Clone, Debug, Default)]
pub(super) struct Lattice {
    corners: Corners,
    /// Values below and above the height, of a corner and of that with the next `y`.
    values: Vec<[f32; 4]>,
}

impl Lattice {
    /// Tabulates the box `low..=high` (`x`, `y`) at height `z`.
    pub(super) fn fill(&mut self, key: u64, low: [f32; 2], high: [f32; 2], z: f32, length: f32) {
        self.corners.fill(key, low, high, z, length);
        let pairs = self.corners.pairs();
        self.values.clear();
        self.values
            .extend(pairs.map(|([a, b], [c, d])| [a, b, c, d]));
    }

    /// Values at points inside the tabulated box.
    pub(super) fn row(&self, x: &[f32], y: &[f32], out: &mut [f32]) {
        in_pieces(x, y, out, |x, y, out| {
            let Places { start, fx, fy } = self.corners.places(x, y, [0.0; 2]);
            for (lane, out) in out.iter_mut().enumerate() {
                let start = start[lane] as usize;
                let (left, right) = (self.values[start], self.values[start + 1]);
                let [a, b, c, d] = [0, 1, 2, 3].map(|k| lerp(left[k], right[k], fx[lane]));
                let [low, high] = [(a, c), (b, d)].map(|(a, b)| lerp(a, b, fy[lane]));
                *out = lerp(low, high, self.corners.above);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::random::Random;
    use super::*;

    #[test]
    fn tabulated_noise_is_noise() {
        let (low, high) = ([-50.0, -40.0], [50.0, 40.0]);
        let mut random = Random::new(2);
        for (z, length) in [(13.7, 7.0), (-21.0, 7.0), (-0.3, 19.5)] {
            let mut slice = SliceNoise::default();
            slice.fill(9, low, high, z, length);
            let mut lattice = Lattice::default();
            lattice.fill(9, low, high, z, length);
            let inside = (0..200).map(|_| [0, 1].map(|axis| random.between(low[axis], high[axis])));
            for [x, y] in inside.chain([low, high, [0.0; 2]]) {
                let expected = noise(9, [x, y, z], length);
                let (mut height_first, mut height_last) = ([0.0], [0.0]);
                slice.row(&[x], &[y], &mut height_first);
                lattice.row(&[x], &[y], &mut height_last);
                // Rounding of three interpolations of values up to 1, in another order.
                assert!((height_first[0] - expected).abs() < 1e-5, "{x} {y} {z}");
                assert_eq!(height_last[0], expected, "{x} {y} {z}");
            }
        }
    }

    #[test]
    fn points_of_a_row_do_not_depend_on_each_other() {
        let mut slice = SliceNoise::default();
        slice.fill(9, [-50.0; 2], [50.0; 2], 3.0, 7.0);
        let x: Vec<f32> = (0..37).map(|step| -50.0 + 2.7 * step as f32).collect();
        let y: Vec<f32> = x.iter().map(|x| -0.9 * x).collect();
        let mut row = vec![0.0; x.len()];
        slice.row(&x, &y, &mut row);
        for ((x, y), value) in x.iter().zip(&y).zip(row) {
            let mut alone = [0.0];
            slice.row(&[*x], &[*y], &mut alone);
            assert_eq!(alone[0], value, "{x} {y}");
        }
    }
}
