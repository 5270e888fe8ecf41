//! Grids cut into boxes: the input of patch embeddings, and of convolutions whose windows do not overlap.

use burn::tensor::Tensor;
use burn::tensor::ops::PadMode;

/// In which order the values of a patch are laid out; channels are always last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PatchOrder {
    /// Depth, height, width.
    DepthFirst,
    /// Height, width, depth: code that turns volumes so before the first layer (P2).
    DepthLast,
}

/// The patches of a grid, which is continued with zeros behind where they do not divide it.
///
/// # Shapes
/// - `x`: `[batch, depth, height, width, channels]`; `[pd, ph, pw]`: sizes of a patch
/// - output: `[batch, ceil(depth / pd), ceil(height / ph), ceil(width / pw), pd * ph * pw * channels]`
pub(super) fn patches(x: Tensor<5>, [pd, ph, pw]: [usize; 3], order: PatchOrder) -> Tensor<5> {
    let [batch, depth, height, width, channels] = x.dims();
    let [d, h, w] = [depth.div_ceil(pd), height.div_ceil(ph), width.div_ceil(pw)];
    let behind = [d * pd - depth, h * ph - height, w * pw - width];
    let x = if behind == [0; 3] {
        x
    } else {
        let [behind_d, behind_h, behind_w] = behind.map(|missing| (0, missing));
        x.pad(
            [behind_d, behind_h, behind_w, (0, 0)],
            PadMode::Constant(0.0),
        )
    };
    let within = match order {
        PatchOrder::DepthFirst => [2, 4, 6],
        PatchOrder::DepthLast => [4, 6, 2],
    };
    let [first, second, third] = within;
    x.reshape([batch, d, pd, h, ph, w, pw, channels])
        .permute([0, 1, 3, 5, first, second, third, 7])
        .reshape([batch, d, h, w, pd * ph * pw * channels])
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, TensorData};

    use super::*;

    /// Values of the patches of a grid of 1 x 2 x 2 x 3 voxels that count from 1, in patches of 2 x 2 x 2.
    fn of_counted(order: PatchOrder) -> Vec<f32> {
        let counted: Vec<f32> = (1..=12).map(|value| value as f32).collect();
        let data = TensorData::new(counted, [1, 2, 2, 3, 1]);
        let grid = Tensor::<5>::from_data(data, &Device::flex());
        let patches = patches(grid, [2; 3], order);
        assert_eq!(patches.dims(), [1, 1, 1, 2, 8]);
        patches.into_data().try_to_vec().unwrap()
    }

    #[test]
    fn values_lie_in_the_order_that_was_asked_for() {
        let first = [1., 2., 4., 5., 7., 8., 10., 11.];
        let second = [3., 0., 6., 0., 9., 0., 12., 0.];
        assert_eq!(of_counted(PatchOrder::DepthFirst), [first, second].concat());
        let first = [1., 7., 2., 8., 4., 10., 5., 11.];
        let second = [3., 9., 0., 0., 6., 12., 0., 0.];
        assert_eq!(of_counted(PatchOrder::DepthLast), [first, second].concat());
    }
}
