//! Rounding that becomes vector code.
//!
//! Without SSE 4.1, `floor` and `round` are calls into the C library, and casts from float to integer check for NaN and
//! overflow. All values here are far below 2^22.

/// Where neighbouring floats are 1 apart: adding and subtracting it rounds, halves to even.
const WHOLE: f32 = 12_582_912.0;
/// The same, where the lower bits of a float are the whole number that is added.
const BITS: f32 = 8_388_608.0;

/// `value.floor()`.
pub(super) fn floor(value: f32) -> f32 {
    let nearest = (value + WHOLE) - WHOLE;
    if nearest > value {
        nearest - 1.0
    } else {
        nearest
    }
}

/// `value.round()`: halves away from zero.
pub(super) fn round(value: f32) -> f32 {
    let nearest = (value + WHOLE) - WHOLE;
    let rest = value - nearest;
    if rest == 0.5 && value > 0.0 {
        nearest + 1.0
    } else if rest == -0.5 && value < 0.0 {
        nearest - 1.0
    } else {
        nearest
    }
}

/// A whole number that is not negative as an index.
pub(super) fn index(whole: f32) -> u32 {
    (whole + BITS).to_bits() & 0x7F_FFFF
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_is_that_of_the_library() {
        for half in -20_000..20_000 {
            let value = half as f32 / 2.0;
            for value in [value, value.next_up(), value.next_down(), value + 0.3] {
                assert_eq!(floor(value), value.floor(), "{value}");
                assert_eq!(round(value), value.round(), "{value}");
            }
        }
        assert_eq!([0.0, 1.0, 70_000.0].map(index), [0, 1, 70_000]);
    }
}
