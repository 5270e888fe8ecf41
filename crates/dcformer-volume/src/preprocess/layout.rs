//! Which storage axis is depth, height and width.

use crate::geometry::{Direction, Orientation};

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
        let [i, j, k] = match policy {
            OrientationPolicy::Keep => [0, 1, 2].map(|number| StorageAxis {
                number,
                reversed: false,
            }),
            OrientationPolicy::Canonical => Orientation::LPS
                .0
                .map(|wanted| towards(orientation, wanted)),
        };
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

/// The storage axis on the wanted direction's line.
fn towards(orientation: Orientation, wanted: Direction) -> StorageAxis {
    let number = orientation
        .0
        .iter()
        .position(|direction| direction.line() == wanted.line());
    let number = number.expect("the three directions of an orientation lie on three lines");
    StorageAxis {
        number,
        reversed: orientation.0[number] != wanted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Direction::{Anterior, Inferior, Left, Posterior, Right, Superior};

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
