//! Centre crop or pad: which part of an axis a fixed size keeps, and where it lies in it.

use std::ops::Range;

/// Where the voxels of an axis go when the axis is brought to a fixed size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Positions of the source that survive: all of them when the axis is padded.
    pub source: Range<usize>,
    /// First position of the result that they fill; what lies before and after is padding.
    pub start: usize,
}

impl Placement {
    /// Positions of the result that hold source voxels; the others are padding.
    pub fn target(&self) -> Range<usize> {
        self.start..self.start + self.source.len()
    }
}

/// Crops or pads one axis about its centre.
///
/// An odd difference puts the extra voxel at the end: a crop starts at `(len - wanted) / 2`, padding before is
/// `(wanted - len) / 2`, both rounded down (SPEC section 4, as the authors' code).
///
/// # Example
/// ```
/// # use dcformer_volume::crop::centre;
/// assert_eq!(centre(7, 4).source, 1..5); // one voxel off the start, two off the end
/// assert_eq!(centre(4, 7).target(), 1..5); // one voxel of padding before, two after
/// ```
pub fn centre(len: usize, wanted: usize) -> Placement {
    if len >= wanted {
        let start = (len - wanted) / 2;
        Placement {
            source: start..start + wanted,
            start: 0,
        }
    } else {
        Placement {
            source: 0..len,
            start: (wanted - len) / 2,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_odd_difference_leaves_the_extra_voxel_at_the_end() {
        for (len, wanted, source, target) in [
            (5, 5, 0..5, 0..5),
            (6, 5, 0..5, 0..5),
            (7, 5, 1..6, 0..5),
            (5, 6, 0..5, 0..5),
            (5, 7, 0..5, 1..6),
            (1, 4, 0..1, 1..2),
            (4, 1, 1..2, 0..1),
            (0, 3, 0..0, 1..1),
        ] {
            let placement = centre(len, wanted);
            assert_eq!(
                (placement.source.clone(), placement.target()),
                (source, target),
                "{len} to {wanted}"
            );
        }
    }
}
