//! Which storage axis is depth, height and width.

use crate::geometry::{AxisMap, Orientation};

use super::{OrientationPolicy, PlaneOrder};

/// A storage axis in its part as depth, height or width.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StorageAxis {
    /// 0 for `i`, the fastest, to 2 for `k`.
    pub(super) number: usize,
    /// Whether it runs from the last voxel to the first.
    pub(super) reversed: bool,
}

/// Parts of the three storage axes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) depth: StorageAxis,
    pub(super) height: StorageAxis,
    pub(super) width: StorageAxis,
}

impl Layout {
    pub(super) fn new(
        orientation: Orientation,
        policy: OrientationPolicy,
        plane: PlaneOrder,
    ) -> Self {
        let map = match policy {
            OrientationPolicy::Keep => AxisMap::IDENTITY,
            OrientationPolicy::Canonical => orientation.axes_to(Orientation::LPS),
        };
        let [i, j, k] = [0, 1, 2].map(|axis| StorageAxis {
            number: map.from[axis],
            reversed: map.reversed[axis],
        });
        match plane {
            PlaneOrder::ColumnsFirst => Self {
                depth: k,
                height: i,
                width: j,
            },
            PlaneOrder::RowsFirst => Self {
                depth: k,
                height: j,
                width: i,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::Direction::{Anterior, Inferior, Left, Posterior, Right, Superior};

    fn axis(number: usize, reversed: bool) -> StorageAxis {
        StorageAxis { number, reversed }
    }

    #[test]
    fn canonical_order_follows_the_anatomy() {
        let canonical = |orientation| {
            Layout::new(
                orientation,
                OrientationPolicy::Canonical,
                PlaneOrder::ColumnsFirst,
            )
        };
        let keep = Layout::new(
            Orientation([Right, Anterior, Inferior]),
            OrientationPolicy::Keep,
            PlaneOrder::ColumnsFirst,
        );
        assert_eq!(canonical(Orientation::LPS), keep);
        assert_eq!(
            canonical(Orientation([Posterior, Inferior, Right])),
            Layout {
                depth: axis(1, true),
                height: axis(2, true),
                width: axis(0, false)
            }
        );
        assert_eq!(
            Layout::new(
                Orientation([Left, Anterior, Superior]),
                OrientationPolicy::Canonical,
                PlaneOrder::RowsFirst
            ),
            Layout {
                depth: axis(2, false),
                height: axis(1, true),
                width: axis(0, false)
            }
        );
    }
}
