//! Random numbers that depend on a key and a counter only, so that no phantom depends on another or on threads.
//!
//! `SplitMix64` (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", OOPSLA 2014).

use std::f32::consts::TAU;

pub(super) const INCREMENT: u64 = 0x9E37_79B9_7F4A_7C15;

/// `SplitMix64`'s output function: every bit of the input changes half of the output's bits.
pub(super) const fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// A stream of random numbers.
#[derive(Clone, Debug)]
pub(super) struct Random {
    key: u64,
    counter: u64,
}

impl Random {
    pub(super) const fn new(seed: u64) -> Self {
        Self {
            key: mix(seed ^ INCREMENT),
            counter: 0,
        }
    }

    /// An independent stream named by `id`; the numbers drawn from `self` so far make no difference.
    pub(super) const fn stream(&self, id: u64) -> Self {
        Self {
            key: mix(self.key.wrapping_add(mix(id.wrapping_add(INCREMENT)))),
            counter: 0,
        }
    }

    /// A number that stands for this stream, for textures that hash positions.
    pub(super) const fn key(&self) -> u64 {
        self.key
    }

    pub(super) const fn next(&mut self) -> u64 {
        self.counter = self.counter.wrapping_add(INCREMENT);
        mix(self.key.wrapping_add(self.counter))
    }

    /// Uniform in `[0, 1)`.
    pub(super) fn uniform(&mut self) -> f32 {
        (self.next() >> 40) as f32 * (1.0 / (1u64 << 24) as f32)
    }

    /// Uniform in `[low, high)`.
    pub(super) fn between(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.uniform()
    }

    /// Standard normal (Box and Muller).
    pub(super) fn normal(&mut self) -> f32 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (TAU * self.uniform()).cos()
    }

    pub(super) fn chance(&mut self, probability: f32) -> bool {
        self.uniform() < probability
    }

    /// Uniform in `0..count`; `count` is small, so the bias of the product is below 2^-40.
    pub(super) fn below(&mut self, count: usize) -> usize {
        ((u128::from(self.next()) * count as u128) >> 64) as usize
    }

    /// Uniform in `low..=high`.
    pub(super) fn count(&mut self, low: usize, high: usize) -> usize {
        low + self.below(high - low + 1)
    }

    pub(super) fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    /// Uniform direction in space.
    pub(super) fn direction(&mut self) -> [f32; 3] {
        let z = self.between(-1.0, 1.0);
        let (sin, cos) = (TAU * self.uniform()).sin_cos();
        let ring = (1.0 - z * z).sqrt();
        [ring * cos, ring * sin, z]
    }

    /// Puts a list into random order.
    pub(super) fn shuffle<T>(&mut self, list: &mut [T]) {
        for last in (1..list.len()).rev() {
            list.swap(last, self.below(last + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_outputs_are_those_of_splitmix64() {
        // Vigna's splitmix64.c with state 0: the key cancels because mix(0) = 0 there.
        let mut random = Random { key: 0, counter: 0 };
        assert_eq!(random.next(), 0xE220_A839_7B1D_CDAF);
        assert_eq!(random.next(), 0x6E78_9E6A_A1B9_65F4);
    }

    #[test]
    fn streams_do_not_depend_on_what_was_drawn_before() {
        let mut used = Random::new(7);
        let fresh = used.clone();
        used.next();
        assert_eq!(used.stream(3).next(), fresh.stream(3).next());
        assert_ne!(fresh.stream(3).next(), fresh.stream(4).next());
    }

    #[test]
    fn moments_are_those_of_the_distributions() {
        let mut random = Random::new(1);
        let draws = 20_000;
        let normals: Vec<f32> = (0..draws).map(|_| random.normal()).collect();
        let mean = normals.iter().sum::<f32>() / draws as f32;
        let variance = normals.iter().map(|value| value * value).sum::<f32>() / draws as f32;
        // Five standard errors: 5 / sqrt(20,000) and 5 * sqrt(2 / 20,000).
        assert!(mean.abs() < 0.036, "{mean}");
        assert!((variance - 1.0).abs() < 0.05, "{variance}");
        let mut seen = [0; 5];
        (0..draws).for_each(|_| seen[random.below(5)] += 1);
        assert!(
            seen.iter().all(|&count: &i32| (count - 4_000).abs() < 300),
            "{seen:?}"
        );
    }
}
