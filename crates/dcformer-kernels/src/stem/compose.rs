//! Two convolutions in a row, without activation between them, are one.
//!
//! The first convolution of the stem turns one channel into many, the second mixes those. As one they are a stencil of 115
//! taps on the single channel (7 taps with stride 4, then 3 taps): half the multiplications of the two, since nothing has 32
//! or 64 channels in between. At the border the second convolution sees zeros where the first would have given values: the
//! part of a neighbour that is outside the grid is left out, which stencils do by zones.

use crate::dense_decomposed::cpu::Filters;
use crate::dense_decomposed::stencil::Part;
use crate::statistics::add_to;

/// The first two convolutions of a stem as one, `second ∘ first`: a part for each voxel that the second reads.
///
/// # Panics
/// If the first has more than one input channel.
pub(crate) fn compose([first, second]: [(Filters<'_>, &[f32]); 2], stride: usize) -> Vec<Part> {
    let (outputs, centre) = (second.0.channels_out, Part::decomposed(first.0, first.1));
    assert_eq!(first.0.channels_in, 1);
    let mut parts = vec![Part {
        shift: [0; 3],
        taps: Vec::new(),
        weight: Vec::new(),
        bias: second.1.to_vec(),
    }];
    parts.extend(neighbours(second.0).into_iter().map(|(shift, matrix)| {
        let moved =
            |tap: &[isize; 3]| [0, 1, 2].map(|axis| shift[axis] * stride as isize + tap[axis]);
        Part {
            shift,
            taps: centre.taps.iter().map(moved).collect(),
            weight: product(&centre.weight, &matrix, outputs),
            bias: product(&centre.bias, &matrix, outputs),
        }
    }));
    parts
}

/// The voxels that a convolution along the three axes reads, and the matrix of each.
fn neighbours(filters: Filters<'_>) -> Vec<([isize; 3], Vec<f32>)> {
    let mut all: Vec<([isize; 3], Vec<f32>)> = Vec::new();
    for branch in 0..3 {
        for tap in 0..filters.taps {
            let shift = filters.shift(branch, tap);
            let matrix = filters.matrix(branch, tap);
            match all.iter_mut().find(|(known, _)| *known == shift) {
                Some((_, sum)) => add_to(sum, matrix),
                None => all.push((shift, matrix.to_vec())),
            }
        }
    }
    all
}

/// `rows · matrix`, row-major, with sums in double precision.
fn product(rows: &[f32], matrix: &[f32], columns: usize) -> Vec<f32> {
    let steps = matrix.len() / columns.max(1);
    let mut out = Vec::with_capacity(rows.len() / steps.max(1) * columns);
    for row in rows.chunks_exact(steps.max(1)) {
        let mut sums = vec![0.0_f64; columns];
        for (value, matrix) in row.iter().zip(matrix.chunks_exact(columns.max(1))) {
            for (sum, weight) in sums.iter_mut().zip(matrix) {
                *sum += f64::from(*value) * f64::from(*weight);
            }
        }
        out.extend(sums.into_iter().map(|sum| sum as f32));
    }
    out
}
