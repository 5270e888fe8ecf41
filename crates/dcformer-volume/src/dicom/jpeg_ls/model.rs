//! What the decoder has learnt: contexts, their bias and Golomb parameters, the run index (annex A).

use super::bits::Bits;

/// Sizes and thresholds of a scan.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Parameters {
    /// MAXVAL
    pub(super) max: i32,
    /// NEAR
    pub(super) near: i32,
    /// T1, T2, T3
    pub(super) thresholds: [i32; 3],
    /// RESET
    pub(super) reset: i32,
    /// RANGE
    pub(super) range: i32,
    /// qbpp
    pub(super) error_bits: u32,
    /// LIMIT
    pub(super) limit: u32,
}

impl Parameters {
    /// `presets`: MAXVAL, T1, T2, T3, RESET of a preset segment; 0 asks for the default (C.2.4.1.1).
    pub(super) fn new(precision: u8, near: u8, presets: [i32; 5]) -> Result<Self, String> {
        if !(2..=16).contains(&precision) {
            return Err(format!("{precision} bits a sample, expected 2 to 16"));
        }
        let greatest = (1 << precision) - 1;
        let or_default = |value: i32, default: i32| if value == 0 { default } else { value };
        let max = or_default(presets[0], greatest);
        let near = i32::from(near);
        if max > greatest || near > (max / 2).min(255) {
            return Err(format!(
                "greatest value {max} and error {near} at {precision} bits"
            ));
        }
        let [default_1, default_2, default_3] = default_thresholds(max, near);
        let thresholds = [
            or_default(presets[1], default_1),
            or_default(presets[2], default_2),
            or_default(presets[3], default_3),
        ];
        let reset = or_default(presets[4], 64);
        let ordered = [near + 1, thresholds[0], thresholds[1], thresholds[2], max].is_sorted();
        if !ordered || !(3..=max.max(255)).contains(&reset) {
            return Err(format!(
                "thresholds {thresholds:?} and reset {reset} at a greatest value of {max}"
            ));
        }
        let range = (max + 2 * near) / (2 * near + 1) + 1;
        let error_bits = ceil_log2(range);
        let sample_bits = ceil_log2(max + 1).max(2);
        let limit = 2 * (sample_bits + sample_bits.max(8));
        Ok(Self {
            max,
            near,
            thresholds,
            reset,
            range,
            error_bits,
            limit,
        })
    }
}

fn ceil_log2(value: i32) -> u32 {
    i32::BITS - (value - 1).leading_zeros()
}

/// C.2.4.1.1.1
pub(super) fn default_thresholds(max: i32, near: i32) -> [i32; 3] {
    const BASIC: [i32; 3] = [3, 7, 21];
    let clamp = |value: i32, least: i32| {
        if value > max || value < least {
            least
        } else {
            value
        }
    };
    let [first, second, third] = if max >= 128 {
        let factor = (max.min(4095) + 128) / 256;
        [
            factor * (BASIC[0] - 2) + 2 + 3 * near,
            factor * (BASIC[1] - 3) + 3 + 5 * near,
            factor * (BASIC[2] - 4) + 4 + 7 * near,
        ]
    } else {
        let factor = 256 / (max + 1);
        [
            (BASIC[0] / factor + 3 * near).max(2),
            (BASIC[1] / factor + 5 * near).max(3),
            (BASIC[2] / factor + 7 * near).max(4),
        ]
    };
    let first = clamp(first, near + 1);
    let second = clamp(second, first);
    [first, second, clamp(third, second)]
}

/// J: the logarithm of the run that one bit stands for (A.2.1).
pub(super) const RUN_BITS: [u32; 32] = [
    0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 9, 10, 11, 12, 13,
    14, 15,
];

/// A context of the regular mode, and whether it was mirrored into it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Regular {
    pub(super) context: usize,
    pub(super) negative: bool,
}

/// A, B, C, N of one context; `b` counts negative errors (Nn) where the context is of a run's end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Context {
    pub(super) a: i32,
    pub(super) b: i32,
    pub(super) c: i32,
    pub(super) n: i32,
}

impl Context {
    /// Golomb parameter: the first `k` with `n << k >= sum` (A.5.1).
    pub(super) fn golomb(&self, sum: i32) -> u32 {
        let (n, sum) = (i64::from(self.n), i64::from(sum));
        // A mean error is below 2^17, so the search ends before the bound.
        (0..24).find(|&k| n << k >= sum).unwrap_or(24)
    }
}

/// Contexts of the regular mode: 9^3 gradients, mirrored onto half.
const REGULAR: usize = 365;

#[derive(Debug)]
pub(super) struct Model {
    pub(super) parameters: Parameters,
    pub(super) contexts: [Context; REGULAR + 2],
    pub(super) run_index: usize,
}

impl Model {
    pub(super) fn new(parameters: Parameters) -> Self {
        let a = ((parameters.range + 32) / 64).max(2);
        Self {
            parameters,
            contexts: [Context {
                a,
                b: 0,
                c: 0,
                n: 1,
            }; REGULAR + 2],
            run_index: 0,
        }
    }

    /// Context of a sample between its neighbours; `None`: they are flat, a run begins (A.3).
    pub(super) fn context(&self, a: i32, b: i32, c: i32, d: i32) -> Option<Regular> {
        let gradients = [d - b, b - c, c - a].map(|gradient| self.quantise(gradient));
        let index = 81 * gradients[0] + 9 * gradients[1] + gradients[2];
        // The first gradient that is not 0 outweighs the others, so the sign is that of the sum.
        let context = usize::try_from(index.abs())
            .ok()
            .filter(|&context| context != 0)?;
        Some(Regular {
            context,
            negative: index < 0,
        })
    }

    fn quantise(&self, gradient: i32) -> i32 {
        let Parameters {
            near,
            thresholds: [first, second, third],
            ..
        } = self.parameters;
        let size = gradient.abs();
        let level = if size <= near {
            0
        } else if size < first {
            1
        } else if size < second {
            2
        } else if size < third {
            3
        } else {
            4
        };
        level * gradient.signum()
    }

    /// Median edge detector, corrected by the context's bias (A.4).
    pub(super) fn predict(&self, context: usize, negative: bool, a: i32, b: i32, c: i32) -> i32 {
        let edge = if c >= a.max(b) {
            a.min(b)
        } else if c <= a.min(b) {
            a.max(b)
        } else {
            a + b - c
        };
        let bias = self.contexts[context].c;
        (edge + if negative { -bias } else { bias }).clamp(0, self.parameters.max)
    }

    /// Sample from its prediction and quantised error (A.4.4, A.4.5).
    pub(super) fn reconstruct(&self, predicted: i32, error: i32) -> i32 {
        let Parameters {
            max, near, range, ..
        } = self.parameters;
        let step = 2 * near + 1;
        let value = predicted + error * step;
        let value = if value < -near {
            value + range * step
        } else if value > max + near {
            value - range * step
        } else {
            value
        };
        value.clamp(0, max)
    }

    /// Whether the context maps errors to codes in the order that favours negative ones (A.5.2).
    pub(super) fn mirrored(&self, context: usize, k: u32) -> bool {
        let Context { b, n, .. } = self.contexts[context];
        self.parameters.near == 0 && k == 0 && 2 * b <= -n
    }

    /// Quantised error of a regular sample; the context learns from it (A.5, A.6).
    pub(super) fn decode_error(&mut self, context: usize, bits: &mut Bits<'_>) -> Option<i32> {
        let k = self.contexts[context].golomb(self.contexts[context].a);
        let code = self.decode_golomb(k, self.parameters.limit, bits)?;
        let half = code / 2;
        let error = match (code % 2 == 1, self.mirrored(context, k)) {
            (false, false) | (true, true) => half,
            (true, false) | (false, true) => -half - 1,
        };
        self.learn(context, error);
        Some(error)
    }

    /// A.6.1, A.6.2
    pub(super) fn learn(&mut self, index: usize, error: i32) {
        let Parameters { near, reset, .. } = self.parameters;
        let context = &mut self.contexts[index];
        context.b += error * (2 * near + 1);
        context.a = context.a.saturating_add(error.abs());
        if context.n == reset {
            context.a >>= 1;
            context.b >>= 1;
            context.n >>= 1;
        }
        context.n += 1;
        if context.b <= -context.n {
            context.b = (context.b + context.n).max(1 - context.n);
            context.c = (context.c - 1).max(-128);
        } else if context.b > 0 {
            context.b = (context.b - context.n).min(0);
            context.c = (context.c + 1).min(127);
        }
    }

    /// A.5.3
    fn decode_golomb(&self, k: u32, limit: u32, bits: &mut Bits<'_>) -> Option<i32> {
        let error_bits = self.parameters.error_bits;
        let longest = limit - error_bits - 1;
        let zeros = bits.zeros(longest)?;
        let code = if zeros < longest {
            (u64::from(zeros) << k) + u64::from(bits.take(k)?)
        } else {
            u64::from(bits.take(error_bits)?) + 1
        };
        // Errors are reduced to half the range on either side, so only damage goes beyond it.
        i32::try_from(code)
            .ok()
            .filter(|&code| code <= self.parameters.range + 1)
    }

    /// Length of a run, at most `left` to the end of the line (A.7.1).
    pub(super) fn decode_run(&mut self, left: usize, bits: &mut Bits<'_>) -> Option<usize> {
        let mut run = 0;
        loop {
            let width = RUN_BITS[self.run_index];
            if bits.take(1)? == 0 {
                run += usize::try_from(bits.take(width)?).ok()?;
                // The line's end would have been told by a one.
                return (run < left).then_some(run);
            }
            let whole = 1 << width;
            if run + whole > left {
                return Some(left);
            }
            run += whole;
            self.run_index = (self.run_index + 1).min(RUN_BITS.len() - 1);
            if run == left {
                return Some(left);
            }
        }
    }

    /// The sample that ends a run (A.7.2).
    pub(super) fn decode_interruption(
        &mut self,
        a: i32,
        b: i32,
        bits: &mut Bits<'_>,
    ) -> Option<i32> {
        let same = (a - b).abs() <= self.parameters.near;
        let (context, k) = self.interruption(same);
        let limit = self.parameters.limit - RUN_BITS[self.run_index] - 1;
        let code = self.decode_golomb(k, limit, bits)?;
        let twice = code + i32::from(same);
        let folded = twice % 2 == 1;
        let size = (twice + i32::from(folded)) / 2;
        let error = if folded == self.negative_folds(context, k) {
            -size
        } else {
            size
        };
        self.learn_interruption(context, error, code, same);
        self.run_index = self.run_index.saturating_sub(1);
        let predicted = if same { a } else { b };
        Some(self.reconstruct(predicted, if !same && a > b { -error } else { error }))
    }

    /// Context and Golomb parameter of a run's end; `same`: `RItype` 1 (A.7.2.1).
    pub(super) fn interruption(&self, same: bool) -> (usize, u32) {
        let index = REGULAR + usize::from(same);
        let context = self.contexts[index];
        (
            index,
            context.golomb(context.a + if same { context.n >> 1 } else { 0 }),
        )
    }

    /// Whether a negative error is the one whose code is odd (`map` of A.7.2.2).
    pub(super) fn negative_folds(&self, index: usize, k: u32) -> bool {
        let context = self.contexts[index];
        k != 0 || 2 * context.b >= context.n
    }

    pub(super) fn learn_interruption(&mut self, index: usize, error: i32, code: i32, same: bool) {
        let reset = self.parameters.reset;
        let context = &mut self.contexts[index];
        context.b += i32::from(error < 0);
        context.a = context.a.saturating_add((code + 1 - i32::from(same)) >> 1);
        if context.n == reset {
            context.a >>= 1;
            context.b >>= 1;
            context.n >>= 1;
        }
        context.n += 1;
    }
}
