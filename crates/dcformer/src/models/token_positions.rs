//! A class token, and where the others are: a learnt vector for each position of a grid.

use burn::module::{Module, Param};
use burn::nn::Initializer;
use burn::tensor::{Device, Tensor, TensorData};

use super::encoder::check_size;
use crate::complexity::{Cost, Shape3};
use crate::error::Result;

/// Most positions along an axis.
const MOST_POSITIONS: usize = 4096;

/// A class token in front of a grid of tokens, and learnt positions of all of them. Positions of another grid than the
/// learnt one are interpolated.
#[derive(Module, Debug)]
pub(super) struct TokenPositions {
    /// `[1, 1, features]`
    class_token: Param<Tensor<3>>,
    /// `[1, 1 + positions, features]`: of the class token, then of the grid in the order height, width, depth (P2).
    positions: Param<Tensor<3>>,
    /// The grid whose positions are learnt.
    #[module(skip)]
    grid: Shape3,
}

impl TokenPositions {
    pub(super) fn new(
        features: usize,
        grid: Shape3,
        positions: &Initializer,
        device: &Device,
    ) -> Self {
        let normal = Initializer::Normal {
            mean: 0.0,
            std: 1.0,
        };
        Self {
            class_token: normal.init([1, 1, features], device),
            positions: positions.init([1, 1 + grid.voxels(), features], device),
            grid,
        }
    }

    /// # Shapes
    /// - `x`: `[batch, depth, height, width, features]`
    /// - output: `[batch, 1 + depth * height * width, features]`, the class token first
    pub(super) fn prepend(&self, x: Tensor<5>) -> Tensor<3> {
        let [batch, depth, height, width, features] = x.dims();
        let tokens = x.reshape([batch, depth * height * width, features]);
        let class = self.class_token.val().expand([batch, 1, features]);
        let positions = self.positions.val();
        let of_class = positions.clone().narrow(1, 0, 1);
        let learnt = positions.narrow(1, 1, self.grid.voxels());
        let of_grid = resized(
            learnt.reshape([self.grid.height, self.grid.width, self.grid.depth, features]),
            [height, width, depth],
        );
        let of_grid = of_grid
            .permute([2, 0, 1, 3])
            .reshape([1, depth * height * width, features]);
        Tensor::cat(vec![class, tokens], 1) + Tensor::cat(vec![of_class, of_grid], 1)
    }

    /// The grid without its class token.
    ///
    /// # Shapes
    /// - `x`: `[batch, 1 + depth * height * width, features]`
    /// - output: `[batch, depth, height, width, features]`; `grid` has its sizes along the middle axes
    pub(super) fn drop_class(x: Tensor<3>, [depth, height, width]: [usize; 3]) -> Tensor<5> {
        let [batch, tokens, features] = x.dims();
        x.narrow(1, 1, tokens - 1)
            .reshape([batch, depth, height, width, features])
    }

    /// What they cost in front of and at `tokens` tokens; `grid` is the one whose positions are learnt.
    pub(super) fn cost(features: usize, grid: Shape3, tokens: usize) -> Cost {
        let mut cost = Cost::default();
        cost.parameter("class_token", features);
        cost.concatenate("prepended", &[], (1 + tokens) * features);
        cost.parameter("positions", (1 + grid.voxels()) * features);
        cost.linear_map("placed");
        cost
    }

    /// Refuses grids that no network has.
    pub(super) fn check(network: &'static str, grid: Shape3) -> Result<()> {
        [grid.depth, grid.height, grid.width]
            .into_iter()
            .try_for_each(|size| check_size(network, "positions", size, MOST_POSITIONS))
    }
}

/// A table brought to another grid by linear interpolation along each axis, with half-pixel centres: PyTorch's
/// `interpolate(mode = "trilinear", align_corners = False)`.
///
/// # Shapes
/// - `table`: `[a, b, c, features]`; output: `[to[0], to[1], to[2], features]`
fn resized(table: Tensor<4>, to: [usize; 3]) -> Tensor<4> {
    let device = table.device();
    (0..3).fold(table, |table, axis| {
        let mut shape = table.dims();
        let (from, to) = (shape[axis], to[axis]);
        if from == to {
            return table;
        }
        let before: usize = shape[..axis].iter().product();
        let after: usize = shape[axis + 1..].iter().product();
        let matrix = TensorData::new(interpolation(from, to), [1, to, from]);
        let matrix = Tensor::<3>::from_data(matrix, &device).expand([before, to, from]);
        shape[axis] = to;
        matrix
            .matmul(table.reshape([before, from, after]))
            .reshape(shape)
    })
}

/// The matrix, `[to, from]`, that resamples a row of `from` values to `to`.
fn interpolation(from: usize, to: usize) -> Vec<f32> {
    let mut matrix = vec![0.0; to * from];
    for (index, row) in matrix.chunks_exact_mut(from).enumerate() {
        let place = ((index as f64 + 0.5) * from as f64 / to as f64 - 0.5).max(0.0);
        let below = (place as usize).min(from - 1);
        let share = (place - below as f64) as f32;
        row[below] += 1.0 - share;
        row[(below + 1).min(from - 1)] += share;
    }
    matrix
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_interpolated_between_centres() {
        // PyTorch's interpolate of [1, 3] to 4: centres at -0.25, 0.25, 0.75, 1.25.
        let resample = |from: &[f32], to: usize| -> Vec<f32> {
            let matrix = interpolation(from.len(), to);
            let rows = matrix.chunks_exact(from.len());
            rows.map(|row| row.iter().zip(from).map(|(a, b)| a * b).sum())
                .collect()
        };
        assert_eq!(resample(&[1.0, 3.0], 4), [1.0, 1.5, 2.5, 3.0]);
        assert_eq!(resample(&[1.0, 3.0, 5.0, 7.0], 2), [2.0, 6.0]);
        assert_eq!(resample(&[1.0, 3.0, 5.0], 1), [3.0]);
        assert_eq!(resample(&[4.0], 3), [4.0; 3]);
    }

    #[test]
    fn every_token_gets_the_position_of_its_place() {
        let device = Device::flex();
        let grid = Shape3 {
            depth: 2,
            height: 3,
            width: 4,
        };
        let initializer = Initializer::Zeros;
        let mut positions = TokenPositions::new(1, grid, &initializer, &device);
        // A table that counts in its own order: height, width, depth.
        let counted: Vec<f32> = (0..25).map(|value| value as f32).collect();
        let table = Tensor::from_data(TensorData::new(counted, [1, 25, 1]), &device);
        positions.positions = Param::from_tensor(table);
        let tokens = positions.prepend(Tensor::zeros([1, 2, 3, 4, 1], &device));
        let places: Vec<f32> = TokenPositions::drop_class(tokens, [2, 3, 4])
            .into_data()
            .try_to_vec()
            .unwrap();
        for depth in 0..2 {
            for height in 0..3 {
                for width in 0..4 {
                    let expected = 1 + (height * 4 + width) * 2 + depth;
                    assert_eq!(places[(depth * 3 + height) * 4 + width], expected as f32);
                }
            }
        }
    }
}
