//! Random numbers that depend on nothing but a seed, a purpose and an index.
//!
//! A stream is a counter and a hash of it, so a run that stops and goes on draws the same numbers as one that never
//! stopped, and threads can draw from streams of their own without sharing anything.

use std::f64::consts::TAU;

/// Step of the counter: 2^64 divided by the golden ratio, odd.
const STEP: u64 = 0x9E37_79B9_7F4A_7C15;

/// A stream of random numbers: `SplitMix64` (Steele, Lea and Flood, 2014).
///
/// ```
/// use dcformer::random::Random;
/// let mut order = [0, 1, 2, 3];
/// Random::new(7, "order of epoch", 3).shuffle(&mut order);
/// let mut again = [0, 1, 2, 3];
/// Random::new(7, "order of epoch", 3).shuffle(&mut again);
/// assert_eq!(order, again);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Random {
    counter: u64,
}

impl Random {
    /// The stream of a purpose: `seed` belongs to the run, `index` to what is counted (an epoch, a step, a resample).
    ///
    /// Streams that differ in any of the three have nothing to do with each other.
    pub fn new(seed: u64, purpose: &str, index: u64) -> Self {
        let absorb = |key: u64, word: u64| mix((key ^ word).wrapping_add(STEP));
        let key = purpose
            .bytes()
            .fold(absorb(0, seed), |key, byte| absorb(key, byte.into()));
        // The length separates a purpose from the bytes of an index.
        Self {
            counter: absorb(absorb(key, purpose.len() as u64), index),
        }
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.counter = self.counter.wrapping_add(STEP);
        mix(self.counter)
    }

    /// Uniform in `[0, 1)`, a multiple of 2^-53.
    pub fn uniform(&mut self) -> f64 {
        (self.bits() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Uniform in `0..bound`, every value equally likely (Lemire, 2019).
    ///
    /// # Panics
    /// If `bound` is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        assert!(bound > 0, "there is no number below 0");
        let bound = bound as u64;
        loop {
            let product = u128::from(self.bits()) * u128::from(bound);
            // The first `2^64 mod bound` fractions would come up once too often.
            if product as u64 >= bound.wrapping_neg() % bound {
                return (product >> 64) as usize;
            }
        }
    }

    /// Standard normal (Box and Muller, 1958; one of the pair, so that no value has to be kept).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (TAU * self.uniform()).cos()
    }

    /// Nearly standard normal, for noise of millions of voxels: the sum of eight uniform bytes. The same mean and variance,
    /// an excess kurtosis of -0.15, nothing beyond 4.9, steps of 0.005; a tenth of the time of [`normal`](Self::normal).
    pub fn near_normal(&mut self) -> f32 {
        const BYTES: u64 = 0x00FF_00FF_00FF_00FF;
        /// Mean of the sum of eight bytes, 8 * 255 / 2.
        const MEAN: f32 = 1020.0;
        /// Its standard deviation, sqrt(8 * (256^2 - 1) / 12).
        const DEVIATION: f32 = 209.021_53;
        let bits = self.bits();
        let pairs = (bits & BYTES) + ((bits >> 8) & BYTES);
        let sum = pairs.wrapping_mul(0x0001_0001_0001_0001) >> 48;
        (sum as f32 - MEAN) * (1.0 / DEVIATION)
    }

    /// Brings `items` into random order, every order equally likely (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

/// `SplitMix64`'s hash of a counter.
const fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Draws for the statistical tests; their bounds are five standard errors and the streams are fixed.
    const DRAWS: usize = 100_000;

    #[test]
    fn bits_are_those_of_the_published_generator() {
        let mut random = Random { counter: 1_234_567 };
        let expected = [
            6_457_827_717_110_365_317,
            3_203_168_211_198_807_973,
            9_817_491_932_198_370_423,
        ];
        assert_eq!([random.bits(), random.bits(), random.bits()], expected);
    }

    #[test]
    fn seed_purpose_and_index_each_make_another_stream() {
        let streams = [
            Random::new(0, "", 0),
            Random::new(1, "", 0),
            Random::new(0, "a", 0),
            Random::new(0, "b", 0),
            Random::new(0, "a\0", 0),
            Random::new(0, "ab", 0),
            Random::new(0, "a", 1),
            Random::new(0, "a", u64::from(b'b')),
        ];
        for (index, stream) in streams.iter().enumerate() {
            assert!(
                !streams[..index].contains(stream),
                "stream {index} is there twice"
            );
        }
    }

    #[test]
    fn first_numbers_of_neighbouring_streams_are_uniform() {
        let draws = (0..DRAWS as u64).map(|index| Random::new(3, "resample", index).uniform());
        assert_moments(draws, 0.5, 1.0 / 12.0);
    }

    #[test]
    fn uniform_and_normal_have_their_moments() {
        let mut random = Random::new(1, "test", 0);
        assert_moments((0..DRAWS).map(|_| random.uniform()), 0.5, 1.0 / 12.0);
        let mut random = Random::new(2, "test", 0);
        assert_moments((0..DRAWS).map(|_| random.normal()), 0.0, 1.0);
        assert_moments(
            (0..DRAWS).map(|_| f64::from(random.near_normal())),
            0.0,
            1.0,
        );
        let far = (0..DRAWS).filter(|_| random.normal().abs() > 1.96).count() as f64 / DRAWS as f64;
        assert!(
            (far - 0.05).abs() < 5.0 * (0.05f64 * 0.95 / DRAWS as f64).sqrt(),
            "{far}"
        );
    }

    fn assert_moments(draws: impl Iterator<Item = f64>, mean: f64, variance: f64) {
        let (mut sum, mut squares) = (0.0, 0.0);
        for draw in draws {
            sum += draw - mean;
            squares += (draw - mean) * (draw - mean);
        }
        let n = DRAWS as f64;
        assert!(
            (sum / n).abs() < 5.0 * (variance / n).sqrt(),
            "mean off by {}",
            sum / n
        );
        // The fourth moment of both distributions is at most three times the variance squared.
        assert!(
            (squares / n - variance).abs() < 5.0 * variance * (2.0 / n).sqrt(),
            "variance {}",
            squares / n
        );
    }

    #[test]
    fn every_value_below_a_bound_and_every_order_is_equally_likely() {
        let mut random = Random::new(5, "test", 0);
        let mut orders = std::collections::HashMap::new();
        let mut values = [0usize; 3];
        for _ in 0..DRAWS {
            values[random.below(3)] += 1;
            let mut order = [0, 1, 2];
            random.shuffle(&mut order);
            *orders.entry(order).or_insert(0usize) += 1;
        }
        assert_eq!(orders.len(), 6);
        for (counts, share) in [
            (values.to_vec(), 1.0 / 3.0),
            (orders.into_values().collect(), 1.0 / 6.0),
        ] {
            let error = (DRAWS as f64 * share * (1.0 - share)).sqrt();
            assert!(
                counts
                    .iter()
                    .all(|count| (*count as f64 - DRAWS as f64 * share).abs() < 5.0 * error),
                "{counts:?}"
            );
        }
        assert_eq!(random.below(1), 0);
        assert!(random.below(usize::MAX) < usize::MAX);
    }
}
