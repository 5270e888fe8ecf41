//! Where the voxels of a slice are.

use super::rounding::floor;

/// Where the voxels of a slice are in the patient's frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plane {
    pub(super) columns: usize,
    pub(super) spacing: f32,
    pub(super) origin: [f32; 2],
    /// Cosine and sine of the patient's rotation about the table's axis.
    pub(super) rotation: [f32; 2],
}

impl Plane {
    /// Where every voxel is.
    pub(super) fn positions(&self) -> Positions {
        let [cos, sin] = self.rotation;
        let mut positions = Positions::default();
        for j in 0..self.columns {
            let v = self.origin[1] + j as f32 * self.spacing;
            for i in 0..self.columns {
                let u = self.origin[0] + i as f32 * self.spacing;
                positions.x.push(cos * u + sin * v);
                positions.y.push(cos * v - sin * u);
            }
        }
        positions
    }

    /// Voxel coordinates of a position.
    fn voxel(&self, x: f32, y: f32) -> [f32; 2] {
        let [cos, sin] = self.rotation;
        let (u, v) = (cos * x - sin * y, cos * y + sin * x);
        [
            (u - self.origin[0]) / self.spacing,
            (v - self.origin[1]) / self.spacing,
        ]
    }

    /// Ranges of columns and rows that hold a box of the patient's frame.
    pub(super) fn range(&self, low: [f32; 2], high: [f32; 2]) -> Option<[[usize; 2]; 2]> {
        let center = self.voxel(0.5 * (low[0] + high[0]), 0.5 * (low[1] + high[1]));
        let half = [0.5 * (high[0] - low[0]), 0.5 * (high[1] - low[1])];
        let [cos, sin] = self.rotation.map(f32::abs);
        let reach = [cos * half[0] + sin * half[1], sin * half[0] + cos * half[1]];
        let mut ranges = [[0; 2]; 2];
        for axis in 0..2 {
            let reach = reach[axis] / self.spacing;
            let first = (-floor(reach - center[axis])).max(0.0);
            let last = floor(center[axis] + reach).min(self.columns as f32 - 1.0);
            if first > last {
                return None;
            }
            ranges[axis] = [first as usize, last as usize];
        }
        Some(ranges)
    }
}

/// Positions of the voxels of a slice in the patient's frame, row by row.
#[derive(Clone, Debug, Default)]
pub(super) struct Positions {
    pub(super) x: Vec<f32>,
    pub(super) y: Vec<f32>,
}
