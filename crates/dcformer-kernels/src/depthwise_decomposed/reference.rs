//! The definition: three grouped convolutions of the framework, added.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata};
use burn::tensor::ops::ConvOptions;
use burn::tensor::{Shape, Slice};

use crate::dense_decomposed::reference::{TO_CHANNELS_FIRST, TO_CHANNELS_LAST, add_normalized};

/// See [`depthwise_decomposed_conv`](super::depthwise_decomposed_conv).
pub(crate) fn conv<B: Backend>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    bias: FloatTensor<B>,
) -> FloatTensor<B> {
    let channels = bias.shape()[0];
    let [first, second, third] = branches::<B>(x, weight);
    let sum = B::float_add(B::float_add(first, second), third);
    B::float_add(
        sum,
        B::float_reshape(bias, Shape::new([1, 1, 1, 1, channels])),
    )
}

/// See [`depthwise_decomposed_norm`](super::depthwise_decomposed_norm).
pub(crate) fn norm<B: Backend>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    gamma: FloatTensor<B>,
    beta: FloatTensor<B>,
    epsilon: f64,
) -> (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>) {
    add_normalized::<B>(branches::<B>(x, weight), gamma, beta, epsilon)
}

/// The three convolutions, channels-last.
fn branches<B: Backend>(x: FloatTensor<B>, weight: FloatTensor<B>) -> [FloatTensor<B>; 3] {
    let shape = weight.shape();
    let (taps, channels) = (shape[1], shape[2]);
    let x = B::float_permute(x, &TO_CHANNELS_FIRST);
    [0, 1, 2].map(|axis| {
        let branch = B::float_slice(weight.clone(), &[Slice::from(axis..axis + 1)]);
        let branch = B::float_permute(
            B::float_reshape(branch, Shape::new([taps, channels])),
            &[1, 0],
        );
        let mut kernel = [channels, 1, 1, 1, 1];
        kernel[2 + axis] = taps;
        let mut padding = [0; 3];
        padding[axis] = taps / 2;
        let options = ConvOptions::new([1; 3], padding, [1; 3], channels);
        let y = B::conv3d(
            x.clone(),
            B::float_reshape(branch, Shape::new(kernel)),
            None,
            options,
        );
        B::float_permute(y, &TO_CHANNELS_LAST)
    })
}
