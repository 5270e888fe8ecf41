//! The definition: a grouped convolution of the framework.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata};
use burn::tensor::ops::ConvOptions;
use burn::tensor::{Shape, Slice};

use crate::dense_decomposed::reference::{TO_CHANNELS_FIRST, TO_CHANNELS_LAST};

/// See [`depthwise_conv`](super::depthwise_conv()).
pub(crate) fn forward<B: Backend>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    bias: FloatTensor<B>,
    before: [usize; 3],
) -> FloatTensor<B> {
    let (grid, shape) = (x.shape(), weight.shape());
    let channels = shape[3];
    let kernel = B::float_reshape(
        B::float_permute(weight, &[3, 0, 1, 2]),
        Shape::new([channels, 1, shape[0], shape[1], shape[2]]),
    );
    // The framework pads both sides alike: as much as the side that needs more, and what is too much is cut off.
    let mut padding = [0; 3];
    let mut kept = vec![Slice::full(); 2];
    for axis in 0..3 {
        padding[axis] = before[axis].max(shape[axis] - 1 - before[axis]);
        let first = padding[axis] - before[axis];
        kept.push(Slice::from(first..first + grid[axis + 1]));
    }
    let y = B::conv3d(
        B::float_permute(x, &TO_CHANNELS_FIRST),
        kernel,
        Some(bias),
        ConvOptions::new([1; 3], padding, [1; 3], channels),
    );
    B::float_permute(B::float_slice(y, &kept), &TO_CHANNELS_LAST)
}
