//! The definition: a convolution of the framework.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata};
use burn::tensor::ops::{ConvOptions, PadMode};

use crate::dense_decomposed::reference::{TO_CHANNELS_FIRST, TO_CHANNELS_LAST};

/// See [`dense_conv`](super::dense_conv()).
pub(crate) fn forward<B: Backend>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    bias: FloatTensor<B>,
    stride: usize,
    before: [usize; 3],
    rectify: bool,
) -> FloatTensor<B> {
    let (grid, taps) = (x.shape(), weight.shape());
    // The framework pads both sides alike; here each gets what is read of it.
    let mut padding = vec![(0, 0); 5];
    for axis in 0..3 {
        let size = grid[axis + 1];
        let read = (size.div_ceil(stride).max(1) - 1) * stride + taps[axis];
        padding[axis + 1] = (before[axis], read.saturating_sub(before[axis] + size));
    }
    let padded = B::float_pad(x, &padding, PadMode::Constant(0.0));
    let y = B::conv3d(
        B::float_permute(padded, &TO_CHANNELS_FIRST),
        B::float_permute(weight, &[4, 3, 0, 1, 2]),
        Some(bias),
        ConvOptions::new([stride; 3], [0; 3], [1; 3], 1),
    );
    let y = B::float_permute(y, &TO_CHANNELS_LAST);
    if rectify { B::relu(y) } else { y }
}
