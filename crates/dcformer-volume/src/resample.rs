//! Trilinear resampling with half-pixel centres, as PyTorch's `interpolate(align_corners=False)` does it.
//!
//! Voxels are cells, not points: the first and the last half cell of the result lie outside the outermost centres of
//! the source and take their values. There is no smoothing before shrinking, because the authors' code has none.

use std::ops::Range;

use rayon::prelude::*;

use crate::geometry::Shape3;

/// Number of voxels of an axis at another spacing: `floor(len * (spacing / target))` in float64, and at least one.
///
/// The order of the operations is the authors': `len * spacing / target` rounds differently. They would stop at a
/// result of zero voxels; a scan thinner than one target voxel becomes one voxel here.
pub fn resampled_len(len: usize, spacing_mm: f64, target_mm: f64) -> usize {
    // A float-to-integer cast saturates, and NaN becomes 0: a hostile spacing gives a large number, never a panic.
    ((len as f64 * (spacing_mm / target_mm)) as usize).max(1)
}

/// The two source positions that a resampled position lies between.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tap {
    /// The one before.
    pub lower: usize,
    /// The one after; equal to `lower` where that one alone counts (on its centre, and beyond the last).
    pub upper: usize,
    /// Distance from `lower`, between 0 and 1: the result is `lower + fraction * (upper - lower)`.
    pub fraction: f32,
}

/// Taps of the resampled positions `range` when an axis of `len` voxels becomes one of `resampled` voxels.
///
/// ```text
/// x = max(len / resampled * (position + 1/2) - 1/2, 0)
/// ```
/// In float32, as PyTorch computes it for float32 arrays: exact positions would be up to 3e-5 voxels away, which is 1e-5
/// of the network's range at the edge of a bone.
pub fn taps(len: usize, resampled: usize, range: Range<usize>) -> Vec<Tap> {
    let scale = len as f32 / resampled as f32;
    let last = len.saturating_sub(1);
    range
        .map(|position| {
            let x = (scale * (position as f32 + 0.5) - 0.5).max(0.0);
            let lower = (x as usize).min(last);
            let fraction = (x - lower as f32).min(1.0);
            if lower == last || fraction == 0.0 {
                Tap {
                    lower,
                    upper: lower,
                    fraction: 0.0,
                }
            } else {
                Tap {
                    lower,
                    upper: lower + 1,
                    fraction,
                }
            }
        })
        .collect()
}

/// `a + fraction * (b - a)`: exact for equal values and for a fraction of 0.
///
/// The other form, `(1 - fraction) * a + fraction * b`, would move a constant by a rounding error.
pub(crate) fn lerp(a: f32, b: f32, fraction: f32) -> f32 {
    a + fraction * (b - a)
}

/// Taps along the two axes of a slice.
#[derive(Clone, Debug)]
pub(crate) struct PlaneTaps {
    /// Along the rows of the source plane.
    pub(crate) height: Vec<Tap>,
    /// Along its columns.
    pub(crate) width: Vec<Tap>,
    /// Values in a row of the source plane.
    pub(crate) source_width: usize,
}

/// One slice of the result from the two slices around it.
///
/// `near` and `far` are `[source height, source width]`; `rows` are where the rows of the result go, in order.
/// Depth and height are interpolated first, along whole rows, which vectorises; the last
/// axis gathers from a row that fits the fastest cache. `finish` is applied to each value.
pub(crate) fn interpolate_plane<'out>(
    near: &[f32],
    far: &[f32],
    fraction: f32,
    taps: &PlaneTaps,
    rows: impl Iterator<Item = &'out mut [f32]>,
    finish: impl Fn(f32) -> f32,
) {
    let width = taps.source_width;
    let mut blended = vec![0.0_f32; width];
    for (tap, row) in taps.height.iter().zip(rows) {
        let (lower, upper) = (tap.lower * width, tap.upper * width);
        let near_lower = &near[lower..lower + width];
        let near_upper = &near[upper..upper + width];
        let far_lower = &far[lower..lower + width];
        let far_upper = &far[upper..upper + width];
        for (x, value) in blended.iter_mut().enumerate() {
            let a = lerp(near_lower[x], near_upper[x], tap.fraction);
            let b = lerp(far_lower[x], far_upper[x], tap.fraction);
            *value = lerp(a, b, fraction);
        }
        for (tap, value) in taps.width.iter().zip(row.iter_mut()) {
            *value = lerp(blended[tap.lower], blended[tap.upper], tap.fraction);
        }
        // A loop of its own, because the gathering one does not vectorise.
        for value in row {
            *value = finish(*value);
        }
    }
}

/// Resamples a whole array.
///
/// # Shapes
/// - `values`: `from` (depth slowest, width fastest); result: `to`.
///
/// # Panics
/// If `values` does not hold `from.voxels()` values, or a size of `from` or `to` is zero.
pub fn trilinear(values: &[f32], from: Shape3, to: Shape3) -> Vec<f32> {
    assert_eq!(
        values.len(),
        from.voxels(),
        "values and shape {from} disagree"
    );
    assert!(
        from.voxels() > 0 && to.voxels() > 0,
        "cannot resample {from} to {to}"
    );
    let depth = taps(from.depth, to.depth, 0..to.depth);
    let plane_taps = PlaneTaps {
        height: taps(from.height, to.height, 0..to.height),
        width: taps(from.width, to.width, 0..to.width),
        source_width: from.width,
    };
    let plane =
        |slice: usize| &values[slice * from.height * from.width..][..from.height * from.width];
    let mut resampled = vec![0.0; to.voxels()];
    resampled
        .par_chunks_mut(to.height * to.width)
        .zip(&depth)
        .for_each(|(out, tap)| {
            let rows = out.chunks_mut(to.width);
            interpolate_plane(
                plane(tap.lower),
                plane(tap.upper),
                tap.fraction,
                &plane_taps,
                rows,
                |value| value,
            );
        });
    resampled
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape([depth, height, width]: [usize; 3]) -> Shape3 {
        Shape3 {
            depth,
            height,
            width,
        }
    }

    /// The formula written out: eight corners, their weights multiplied, float64.
    fn definition(values: &[f32], from: Shape3, to: Shape3) -> Vec<f64> {
        let corner = |position: usize, len: usize, resampled: usize| {
            let x = ((position as f64 + 0.5) * len as f64 / resampled as f64 - 0.5)
                .clamp(0.0, (len - 1) as f64);
            let lower = x.floor();
            [
                (lower as usize, 1.0 - (x - lower)),
                ((lower as usize + 1).min(len - 1), x - lower),
            ]
        };
        let mut resampled = Vec::with_capacity(to.voxels());
        for d in 0..to.depth {
            for h in 0..to.height {
                for w in 0..to.width {
                    let mut sum = 0.0;
                    for (z, a) in corner(d, from.depth, to.depth) {
                        for (y, b) in corner(h, from.height, to.height) {
                            for (x, c) in corner(w, from.width, to.width) {
                                sum += a
                                    * b
                                    * c
                                    * f64::from(values[(z * from.height + y) * from.width + x]);
                            }
                        }
                    }
                    resampled.push(sum);
                }
            }
        }
        resampled
    }

    fn wave(voxels: usize) -> Vec<f32> {
        (0..voxels)
            .map(|index| ((index * 2_654_435_761) % 2001) as f32 - 1000.0)
            .collect()
    }

    #[test]
    fn resampling_equals_its_definition() {
        for (from, to) in [
            ([4, 5, 6], [7, 9, 11]),
            ([7, 9, 11], [4, 5, 6]),
            ([1, 1, 1], [3, 2, 4]),
            ([3, 2, 4], [1, 1, 1]),
            ([1, 8, 1], [5, 3, 2]),
            ([6, 6, 6], [6, 6, 6]),
        ] {
            let (from, to) = (shape(from), shape(to));
            let values = wave(from.voxels());
            let expected = definition(&values, from, to);
            for (index, (got, want)) in trilinear(&values, from, to)
                .iter()
                .zip(&expected)
                .enumerate()
            {
                // Three positions below 16, each rounded thrice (half an ulp: 5e-7), times a difference of 2000.
                assert!(
                    (f64::from(*got) - want).abs() < 9e-3,
                    "{from} to {to}, {index}: {got}, expected {want}"
                );
            }
        }
    }

    #[test]
    fn the_same_size_changes_no_value() {
        let from = shape([3, 5, 4]);
        let values = wave(from.voxels());
        assert_eq!(trilinear(&values, from, from), values);
    }

    #[test]
    fn a_constant_stays_that_constant_exactly() {
        let resampled = trilinear(&[-871.3; 60], shape([3, 4, 5]), shape([7, 3, 11]));
        assert!(resampled.iter().all(|value| *value == -871.3));
    }

    #[test]
    fn a_ramp_stays_a_ramp_between_the_outermost_centres() {
        let (len, resampled) = (9, 24);
        for (position, tap) in taps(len, resampled, 0..resampled).iter().enumerate() {
            let centre = (position as f64 + 0.5) * len as f64 / resampled as f64 - 0.5;
            let value = tap.lower as f64 + f64::from(tap.fraction) * (tap.upper - tap.lower) as f64;
            // 2e-6: positions below 16 in float32, three roundings of half an ulp.
            assert!(
                (value - centre.clamp(0.0, 8.0)).abs() < 1e-6,
                "{position}: {value} at {centre}"
            );
        }
    }

    #[test]
    fn part_of_an_axis_has_the_taps_of_the_whole() {
        assert_eq!(taps(10, 17, 5..9), taps(10, 17, 0..17)[5..9]);
    }

    #[test]
    fn sizes_are_rounded_down_in_the_authors_order() {
        assert_eq!(resampled_len(512, 0.75, 0.75), 512);
        assert_eq!(resampled_len(512, 0.7, 0.75), 477);
        assert_eq!(resampled_len(300, 1.0, 1.5), 200);
        // `102 * 1.5 / 0.75` and `102 * (1.5 / 0.75)` agree; these two orders do not: 0.3 / 0.1 is below 3 in float64.
        assert_eq!(resampled_len(10, 0.3, 0.1), 29);
        assert_eq!(resampled_len(1, 0.5, 1.5), 1, "thinner than a target voxel");
        assert_eq!(resampled_len(3, f64::NAN, 1.5), 1);
    }
}
