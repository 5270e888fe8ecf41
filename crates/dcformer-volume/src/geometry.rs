//! Where a voxel is: affine matrices, spacing and orientation.
//!
//! Positions are millimetres in the patient's frame as NIfTI defines it: `x` grows from left to right, `y` from posterior
//! to anterior, `z` from inferior to superior (RAS). A voxel is named by its indices `(i, j, k)` in storage order, `i`
//! fastest.

use std::fmt;

/// Sizes of an array as a network sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub struct Shape3 {
    /// Slices.
    pub depth: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

impl Shape3 {
    /// Number of voxels.
    pub const fn voxels(self) -> usize {
        self.depth * self.height * self.width
    }

    /// What a stride leaves of each axis, rounded up.
    ///
    /// # Panics
    /// If the stride is 0.
    #[must_use]
    pub const fn strided(self, stride: usize) -> Self {
        Self {
            depth: self.depth.div_ceil(stride),
            height: self.height.div_ceil(stride),
            width: self.width.div_ceil(stride),
        }
    }
}

impl fmt::Display for Shape3 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}x{}", self.depth, self.height, self.width)
    }
}

/// Voxel indices to millimetres: `position = matrix[..][0..3] · (i, j, k) + matrix[..][3]`, in RAS.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Affine {
    /// Three rows of a 4x4 matrix whose last row is `0 0 0 1`.
    pub matrix: [[f64; 4]; 3],
}

impl Affine {
    /// Axes along R, A, S with the given spacing and the first voxel at the origin.
    pub const fn from_spacing_mm(spacing_mm: [f64; 3]) -> Self {
        let [x, y, z] = spacing_mm;
        Self {
            matrix: [[x, 0.0, 0.0, 0.0], [0.0, y, 0.0, 0.0], [0.0, 0.0, z, 0.0]],
        }
    }

    /// Column of a storage axis: the step in millimetres from one voxel to the next.
    pub fn step_mm(&self, axis: usize) -> [f64; 3] {
        self.matrix.map(|row| row[axis])
    }

    /// Distance between voxel centres along each storage axis `i, j, k`.
    pub fn spacing_mm(&self) -> [f64; 3] {
        [0, 1, 2].map(|axis| {
            self.step_mm(axis)
                .iter()
                .map(|value| value * value)
                .sum::<f64>()
                .sqrt()
        })
    }

    /// Volume of one voxel in cubic millimetres, negative if the axes `i, j, k` are left-handed.
    pub fn determinant(&self) -> f64 {
        let [[a, b, c, _], [d, e, f, _], [g, h, i, _]] = self.matrix;
        a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)
    }

    /// Position in millimetres (RAS) of a point in voxel coordinates.
    pub fn apply(&self, index: [f64; 3]) -> [f64; 3] {
        self.matrix
            .map(|[a, b, c, origin]| a * index[0] + b * index[1] + c * index[2] + origin)
    }

    /// The same voxels described in the frame of DICOM (x towards left, y towards posterior), or back: its own inverse.
    pub fn swap_lps(&self) -> Self {
        let [x, y, z] = self.matrix;
        Self {
            matrix: [x.map(|value| -value), y.map(|value| -value), z],
        }
    }
}

/// A lattice of voxels in space.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Grid {
    /// Voxels along the storage axes `i` (fastest), `j`, `k`.
    pub size: [usize; 3],
    /// Where they are.
    pub affine: Affine,
}

impl Grid {
    /// Number of voxels.
    pub const fn voxels(&self) -> usize {
        self.size[0] * self.size[1] * self.size[2]
    }

    /// Which anatomical direction each storage axis points to.
    pub fn orientation(&self) -> Orientation {
        Orientation::of(&self.affine)
    }

    /// How to store these voxels so that the axes point to `target`, as closely as whole axes can.
    pub fn axes_to(&self, target: Orientation) -> AxisMap {
        self.orientation().axes_to(target)
    }

    /// The same lattice with its axes permuted and reversed so that they point to `target`: no voxel moves.
    pub fn reoriented(&self, target: Orientation) -> Self {
        self.mapped(self.axes_to(target))
    }

    /// The same lattice with its axes permuted and reversed: no voxel moves.
    pub fn mapped(&self, map: AxisMap) -> Self {
        let mut matrix = self.affine.matrix;
        for (row, stored) in matrix.iter_mut().zip(&self.affine.matrix) {
            for axis in 0..3 {
                let from = map.from[axis];
                row[axis] = stored[from];
                if map.reversed[axis] {
                    // The first voxel becomes the last along this axis.
                    row[axis] = -stored[from];
                    row[3] += stored[from] * (self.size[from] - 1) as f64;
                }
            }
        }
        Self {
            size: map.from.map(|axis| self.size[axis]),
            affine: Affine { matrix },
        }
    }
}

/// Axes of an array taken in another order, some of them backwards: index `n` along the new axis `a` is index `n`, or
/// `size - 1 - n` where `reversed[a]`, along the stored axis `from[a]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AxisMap {
    /// Stored axis (0, 1, 2 for `i`, `j`, `k`) that becomes each new axis.
    pub from: [usize; 3],
    /// Whether each new axis runs against the stored one.
    pub reversed: [bool; 3],
}

impl AxisMap {
    /// Leaves everything in its place.
    pub const IDENTITY: Self = Self {
        from: [0, 1, 2],
        reversed: [false; 3],
    };
}

/// Direction towards which an index grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(
    missing_docs,
    reason = "the six names are the anatomical directions themselves"
)]
pub enum Direction {
    Right,
    Left,
    Anterior,
    Posterior,
    Superior,
    Inferior,
}

impl Direction {
    /// 0 for right–left, 1 for anterior–posterior, 2 for superior–inferior.
    pub const fn line(self) -> usize {
        match self {
            Self::Right | Self::Left => 0,
            Self::Anterior | Self::Posterior => 1,
            Self::Superior | Self::Inferior => 2,
        }
    }

    const fn letter(self) -> char {
        match self {
            Self::Right => 'R',
            Self::Left => 'L',
            Self::Anterior => 'A',
            Self::Posterior => 'P',
            Self::Superior => 'S',
            Self::Inferior => 'I',
        }
    }

    const POSITIVE: [Self; 3] = [Self::Right, Self::Anterior, Self::Superior];
    const NEGATIVE: [Self; 3] = [Self::Left, Self::Posterior, Self::Inferior];
}

/// Directions of the storage axes `i, j, k`; no two on one line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Orientation(pub [Direction; 3]);

impl Orientation {
    /// How CT-RATE stores its volumes, and DICOM's own order: columns towards left, rows towards posterior, slices
    /// towards superior.
    pub const LPS: Self = Self([Direction::Left, Direction::Posterior, Direction::Superior]);

    /// How NIfTI's own coordinates run.
    pub const RAS: Self = Self([Direction::Right, Direction::Anterior, Direction::Superior]);

    /// How to bring axes that point like these to `target`.
    ///
    /// # Panics
    /// If either names a line of the body twice.
    pub fn axes_to(self, target: Self) -> AxisMap {
        let from = target.0.map(|wanted| {
            let axis = self
                .0
                .iter()
                .position(|found| found.line() == wanted.line());
            axis.expect("an orientation has an axis on each line of the body")
        });
        AxisMap {
            from,
            reversed: [0, 1, 2].map(|axis| self.0[from[axis]] != target.0[axis]),
        }
    }

    /// The assignment of axes to lines that follows the matrix most closely (the largest product of cosines, so that a
    /// steeply oblique scan never claims one line twice).
    pub fn of(affine: &Affine) -> Self {
        const ORDERS: [[usize; 3]; 6] = [
            [0, 1, 2],
            [0, 2, 1],
            [1, 0, 2],
            [1, 2, 0],
            [2, 0, 1],
            [2, 1, 0],
        ];
        let spacing = affine.spacing_mm();
        let cosine = |axis: usize, line: usize| {
            affine.matrix[line][axis] / spacing[axis].max(f64::MIN_POSITIVE)
        };
        let closeness = |lines: &[usize; 3]| {
            (0..3)
                .map(|axis| cosine(axis, lines[axis]).abs())
                .product::<f64>()
        };
        let mut best = ORDERS[0];
        for order in ORDERS {
            if closeness(&order) > closeness(&best) {
                best = order;
            }
        }
        Self([0, 1, 2].map(|axis| {
            let line = best[axis];
            if cosine(axis, line) >= 0.0 {
                Direction::POSITIVE[line]
            } else {
                Direction::NEGATIVE[line]
            }
        }))
    }
}

impl fmt::Display for Orientation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .iter()
            .try_for_each(|direction| write!(f, "{}", direction.letter()))
    }
}
