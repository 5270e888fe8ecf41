//! The most multiply-adds per second that a machine can do.

use std::hint::black_box;
use std::time::{Duration, Instant};

use super::{Kernel, Level, Simd};

impl Level {
    /// Floating-point operations per second of all of rayon's threads together, measured with sums in registers and nothing
    /// read from memory: what no kernel can exceed. Takes about a second.
    pub fn peak_flops(self) -> f64 {
        /// The best of some trials, since other programs only make it slower.
        const TRIALS: usize = 5;
        const TRIAL: Duration = Duration::from_millis(200);
        (0..TRIALS)
            .map(|_| {
                let per_thread = rayon::broadcast(|_| {
                    let (started, mut flops) = (Instant::now(), 0);
                    while started.elapsed() < TRIAL {
                        flops += self.run(MultiplyAdds);
                    }
                    flops as f64 / started.elapsed().as_secs_f64()
                });
                per_thread.into_iter().sum()
            })
            .fold(0.0, f64::max)
    }
}

/// A tile's worth of independent chains; gives the number of operations.
struct MultiplyAdds;

impl Kernel for MultiplyAdds {
    type Output = u64;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> u64 {
        const CHAINS: usize = 12;
        const STEPS: u64 = 100_000;
        let mut sums = [simd.splat(1.0); CHAINS];
        let (factor, summand) = (simd.splat(black_box(0.999)), simd.splat(black_box(0.001)));
        for _ in 0..STEPS {
            for sum in &mut sums {
                *sum = simd.mul_add(*sum, factor, summand);
            }
        }
        let mut lanes = [0.0; super::MAX_LANES];
        for sum in sums {
            simd.store(sum, &mut lanes);
            black_box(&lanes);
        }
        2 * STEPS * (CHAINS * S::LANES) as u64
    }
}
