//! Noise of a reconstructed image.

use super::random::{INCREMENT, mix};

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
        // Values come in pairs.
        self.white.resize(out.len().next_multiple_of(2), 0.0);
        fill_white(mix(key ^ mix(slice as u64 + 1)), &mut self.white);
        let norm = 1.0 / (1.0 + 2.0 * side * side).sqrt();
        self.rows.resize(out.len(), 0.0);
        let lines = self.white.chunks_exact(columns);
        for (line, row) in lines.zip(self.rows.chunks_exact_mut(columns)) {
            smooth_row(line, side, norm, row);
        }
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

/// Nearly normal values of unit variance, each the sum of four uniform bytes.
fn fill_white(key: u64, out: &mut [f32]) {
    // The sum of four bytes has mean 510 and variance 4 * (256^2 - 1) / 12.
    const MEAN: f32 = 510.0;
    const DEVIATION: f32 = 147.798_96;
    let mut counter = key;
    for pair in out.chunks_exact_mut(2) {
        counter = counter.wrapping_add(INCREMENT);
        pair.copy_from_slice(&byte_sums(mix(counter)).map(|sum| sum as f32));
    }
    // A loop of its own, which becomes vector code.
    for value in out {
        *value = (*value - MEAN) / DEVIATION;
    }
}

/// Sums of the four lower and of the four higher bytes.
fn byte_sums(bits: u64) -> [u16; 2] {
    const EVEN: u64 = 0x00FF_00FF_00FF_00FF;
    // Four sums of two bytes, in 16 bits each; then two of four.
    let twos = (bits & EVEN) + ((bits >> 8) & EVEN);
    let fours = twos + (twos >> 16);
    [fours as u16, (fours >> 32) as u16]
}

/// One row through the three taps; the outermost values are their own neighbours.
fn smooth_row(line: &[f32], side: f32, norm: f32, out: &mut [f32]) {
    let last = line.len() - 1;
    let tap = |before: f32, here: f32, after: f32| (here + side * (before + after)) * norm;
    out[0] = tap(line[0], line[0], line[1.min(last)]);
    out[last] = tap(line[last.saturating_sub(1)], line[last], line[last]);
    for (out, near) in out[1..].iter_mut().zip(line.windows(3)) {
        *out = tap(near[0], near[1], near[2]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn sums_of_bytes_are_those_of_the_bytes() {
        for bits in [0, u64::MAX, 0x0102_0304_0506_0708, mix(3), mix(4)] {
            let [low, high] = [bits as u32, (bits >> 32) as u32]
                .map(|word| word.to_le_bytes().map(u16::from).iter().sum::<u16>());
            assert_eq!(byte_sums(bits), [low, high], "{bits:x}");
        }
    }

    #[test]
    fn narrow_slices_have_noise_too() {
        let mut out = [0.0; 3];
        ImageNoise::default().fill(4, 7, 1, 0.5, &mut out);
        assert!(out.iter().all(|value| *value != 0.0));
    }
}
