//! Random fields: smooth noise, cells, and the noise of an image.

use super::random::mix;
use super::scene::{Point, lerp};

fn hash(key: u64, cell: [i32; 3]) -> u64 {
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

/// Value noise in `[-1, 1]` with the given correlation length.
pub(super) fn noise(key: u64, point: Point, length: f32) -> f32 {
    let scaled = point.map(|value| value / length);
    let cell = scaled.map(|value| value.floor() as i32);
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

/// [`noise`] at one height, tabulated: many points of one slice cost little.
#[derive(Clone, Debug, Default)]
pub(super) struct SliceNoise {
    values: Vec<f32>,
    first: [i32; 2],
    width: usize,
    length: f32,
}

impl SliceNoise {
    /// Tabulates the box `low..high` (`x`, `y`) at height `z`.
    pub(super) fn fill(&mut self, key: u64, low: [f32; 2], high: [f32; 2], z: f32, length: f32) {
        let cell = |value: f32| (value / length).floor() as i32;
        self.length = length;
        self.first = low.map(cell);
        self.width = (cell(high[0]) - self.first[0] + 2) as usize;
        let rows = (cell(high[1]) - self.first[1] + 2) as usize;
        let k = cell(z);
        let fz = fade(z / length - k as f32);
        self.values.clear();
        for row in 0..rows as i32 {
            for column in 0..self.width as i32 {
                let at =
                    |k: i32| signed(hash(key, [self.first[0] + column, self.first[1] + row, k]));
                self.values.push(lerp(at(k), at(k + 1), fz));
            }
        }
    }

    /// Value at a point inside the tabulated box.
    pub(super) fn at(&self, x: f32, y: f32) -> f32 {
        let (u, v) = (
            x / self.length - self.first[0] as f32,
            y / self.length - self.first[1] as f32,
        );
        let (i, j) = (u as usize, v as usize);
        let (fu, fv) = (fade(u - i as f32), fade(v - j as f32));
        let start = j * self.width + i;
        let row = |start: usize| match self.values.get(start..start + 2) {
            Some(pair) => lerp(pair[0], pair[1], fu),
            None => 0.0,
        };
        lerp(row(start), row(start + self.width), fv)
    }
}

/// Where a point lies among random cells (Worley, SIGGRAPH 1996).
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Cell {
    /// Names the cell.
    pub(super) id: u64,
    /// Distance to the wall to the nearest other cell, millimetres.
    pub(super) to_wall: f32,
}

/// The cell that holds a point, cells being about `size` millimetres wide.
pub(super) fn cell(key: u64, point: Point, size: f32) -> Cell {
    let scaled = point.map(|value| value / size);
    let home = scaled.map(|value| value.floor() as i32);
    let (mut nearest, mut second, mut id) = (f32::INFINITY, f32::INFINITY, 0);
    for k in -1..=1 {
        for j in -1..=1 {
            for i in -1..=1 {
                let place = [home[0] + i, home[1] + j, home[2] + k];
                let code = hash(key, place);
                // Three 16-bit coordinates of the seed inside its cube, kept off the faces so that 27 cubes suffice.
                let inside = |shift: u32| 0.15 + 0.7 * ((code >> shift) & 0xFFFF) as f32 / 65_536.0;
                let offset = [
                    place[0] as f32 + inside(0) - scaled[0],
                    place[1] as f32 + inside(16) - scaled[1],
                    place[2] as f32 + inside(32) - scaled[2],
                ];
                let squared = offset[0] * offset[0] + offset[1] * offset[1] + offset[2] * offset[2];
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

/// Noise of a reconstructed slice with unit variance: white noise through the reconstruction kernel's three taps.
///
/// Values depend on `key`, the slice and the position only.
#[derive(Clone, Debug, Default)]
pub(super) struct ImageNoise {
    white: Vec<f32>,
    rows: Vec<f32>,
}

impl ImageNoise {
    /// Fills `out` (`columns` wide). `side` is the weight of each neighbour, negative for kernels that sharpen.
    pub(super) fn fill(
        &mut self,
        key: u64,
        slice: usize,
        columns: usize,
        side: f32,
        out: &mut [f32],
    ) {
        self.white.clear();
        let start = mix(key ^ mix(slice as u64 + 1));
        let mut counter = start;
        while self.white.len() < out.len() {
            counter = counter.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let bits = mix(counter);
            let (first, second) = gaussian_pair(bits);
            self.white.push(first);
            self.white.push(second);
        }
        self.white.truncate(out.len());
        let norm = 1.0 / (1.0 + 2.0 * side * side).sqrt();
        smooth_rows(&self.white, columns, side, norm, &mut self.rows);
        let last = out.len() / columns - 1;
        for (row, line) in out.chunks_exact_mut(columns).enumerate() {
            let at = |row: usize| &self.rows[row * columns..(row + 1) * columns];
            let (before, here, after) =
                (at(row.saturating_sub(1)), at(row), at((row + 1).min(last)));
            for ((out, here), (before, after)) in
                line.iter_mut().zip(here).zip(before.iter().zip(after))
            {
                *out = (here + side * (before + after)) * norm;
            }
        }
    }
}

fn smooth_rows(white: &[f32], columns: usize, side: f32, norm: f32, out: &mut Vec<f32>) {
    out.clear();
    for line in white.chunks_exact(columns) {
        for i in 0..columns {
            let (before, after) = (line[i.saturating_sub(1)], line[(i + 1).min(columns - 1)]);
            out.push((line[i] + side * (before + after)) * norm);
        }
    }
}

/// Two nearly normal values of unit variance, each a sum of four uniform bytes.
fn gaussian_pair(bits: u64) -> (f32, f32) {
    // The sum of four bytes has mean 510 and variance 4 * (256^2 - 1) / 12.
    const DEVIATION: f32 = 147.798_96;
    let sum = |word: u32| {
        word.to_le_bytes()
            .iter()
            .map(|&byte| u32::from(byte))
            .sum::<u32>()
    };
    let value = |word: u32| (sum(word) as f32 - 510.0) / DEVIATION;
    (value(bits as u32), value((bits >> 32) as u32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tabulated_noise_equals_noise() {
        let mut table = SliceNoise::default();
        table.fill(9, [-50.0, -40.0], [50.0, 40.0], 13.7, 7.0);
        for (x, y) in [(-49.0, -39.0), (0.0, 0.0), (12.3, -8.1), (49.5, 39.5)] {
            assert!((table.at(x, y) - noise(9, [x, y, 13.7], 7.0)).abs() < 1e-5);
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

    #[test]
    fn image_noise_has_unit_variance_and_the_kernels_correlation() {
        for side in [0.5, 0.0, -0.25] {
            let (columns, mut out) = (256, vec![0.0; 256 * 256]);
            ImageNoise::default().fill(4, 7, columns, side, &mut out);
            let count = out.len() as f32;
            let variance = out.iter().map(|value| value * value).sum::<f32>() / count;
            let neighbours = out.windows(2).map(|pair| pair[0] * pair[1]).sum::<f32>() / count;
            let expected = 2.0 * side / (1.0 + 2.0 * side * side);
            assert!((variance - 1.0).abs() < 0.05, "{side} {variance}");
            assert!(
                (neighbours - expected).abs() < 0.05,
                "{side} {neighbours} {expected}"
            );
        }
    }
}
