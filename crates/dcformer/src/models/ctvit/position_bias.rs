//! What a slab's attention adds to its logits: a function of how far two patches are apart.

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::activation::leaky_relu;
use burn::tensor::{Device, Tensor, TensorData};

use crate::complexity::{Bias, Cost};
use crate::models::bert::indices;

/// Slope of the activation below zero.
const NEGATIVE_SLOPE: f64 = 0.1;

/// An MLP from the distance of two patches along height and width to a bias for each head.
#[derive(Module, Debug)]
pub(super) struct PositionBias {
    first: Linear,
    second: Linear,
    output: Linear,
}

impl PositionBias {
    pub(super) fn new(width: usize, heads: usize, device: &Device) -> Self {
        let linear = |inputs, outputs| LinearConfig::new(inputs, outputs).init(device);
        Self {
            first: linear(2, width),
            second: linear(width, width),
            output: linear(width, heads),
        }
    }

    /// The biases of all pairs of positions of a grid. The original computes one for each pair; here each distance is
    /// computed once.
    ///
    /// # Shapes
    /// - `[height, width]`: sizes of the grid
    /// - output: `[heads, height * width, height * width]`, of a query and a key
    pub(super) fn forward(&self, [height, width]: [usize; 2]) -> Tensor<3> {
        let device = self.first.weight.device();
        let (down, across) = (2 * height - 1, 2 * width - 1);
        let signed_log = |index: usize, zero: usize| {
            let distance = index as f32 - zero as f32;
            distance.signum() * (distance.abs() + 1.0).ln()
        };
        let distances: Vec<f32> = (0..down * across)
            .flat_map(|index| {
                let (y, x) = (index / across, index % across);
                [signed_log(y, height - 1), signed_log(x, width - 1)]
            })
            .collect();
        let distances = TensorData::new(distances, [down * across, 2]);
        let x = self
            .first
            .forward(Tensor::<2>::from_data(distances, &device));
        let x = self.second.forward(leaky_relu(x, NEGATIVE_SLOPE));
        let biases = self.output.forward(leaky_relu(x, NEGATIVE_SLOPE));

        let positions = height * width;
        let of_pair = (0..positions * positions).map(|pair| {
            let (query, key) = (pair / positions, pair % positions);
            let y = query / width + height - 1 - key / width;
            let x = query % width + width - 1 - key % width;
            y * across + x
        });
        let heads = biases.dims()[1];
        biases
            .select(0, indices(of_pair, &device))
            .reshape([positions, positions, heads])
            .permute([2, 0, 1])
    }

    /// Counted as the original computes it, for each pair of positions.
    pub(super) fn cost(width: usize, heads: usize, positions: usize) -> Cost {
        let pairs = positions * positions;
        let mut cost = Cost::default();
        cost.constant("distances", 2 * pairs);
        cost.linear("first", [2, width], pairs, Bias::With);
        cost.activation("first.leaky_relu");
        cost.linear("second", [width, width], pairs, Bias::With);
        cost.activation("second.leaky_relu");
        cost.linear("output", [width, heads], pairs, Bias::With);
        cost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pair_has_the_bias_of_its_distance() {
        let device = Device::flex();
        let bias = PositionBias::new(6, 2, &device);
        let (height, width) = (3, 2);
        let found = bias.forward([height, width]);
        let mut farthest = 0.0_f32;
        for query in 0..6 {
            for key in 0..6 {
                let apart = |a: usize, b: usize| {
                    let distance = a as f32 - b as f32;
                    if distance == 0.0 {
                        0.0
                    } else {
                        distance.signum() * (distance.abs() + 1.0).ln()
                    }
                };
                let distance = [
                    apart(query / width, key / width),
                    apart(query % width, key % width),
                ];
                let x = Tensor::<2>::from_data([distance], &device);
                let x = leaky_relu(bias.first.forward(x), 0.1);
                let x = leaky_relu(bias.second.forward(x), 0.1);
                let expected: Tensor<2> = bias.output.forward(x);
                let found: Tensor<3> = found.clone().narrow(1, query, 1).narrow(2, key, 1);
                let far = found.reshape([1, 2]) - expected;
                farthest = farthest.max(far.abs().max().into_scalar());
            }
        }
        assert!(farthest < 1e-6, "{farthest}");
    }
}
