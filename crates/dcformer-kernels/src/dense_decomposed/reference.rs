//! The definition: three convolutions of the framework, added.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata};
use burn::tensor::ops::ConvOptions;
use burn::tensor::{Shape, Slice};

/// Channels-last to channels-first.
pub(crate) const TO_CHANNELS_FIRST: [usize; 5] = [0, 4, 1, 2, 3];
/// Channels-first to channels-last.
pub(crate) const TO_CHANNELS_LAST: [usize; 5] = [0, 2, 3, 4, 1];

/// See [`dense_decomposed_conv`](super::dense_decomposed_conv).
pub(crate) fn conv<B: Backend>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    bias: FloatTensor<B>,
    stride: usize,
) -> FloatTensor<B> {
    let [first, second, third] = branches::<B>(x, weight, stride);
    let channels = bias.shape()[0];
    let sum = B::float_add(B::float_add(first, second), third);
    B::float_add(
        sum,
        B::float_reshape(bias, Shape::new([1, 1, 1, 1, channels])),
    )
}

/// See [`dense_decomposed_norm`](super::dense_decomposed_norm).
pub(crate) fn norm<B: Backend>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    gamma: FloatTensor<B>,
    beta: FloatTensor<B>,
    stride: usize,
    epsilon: f64,
) -> (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>) {
    add_normalized::<B>(branches::<B>(x, weight, stride), gamma, beta, epsilon)
}

/// The three convolutions, channels-last.
fn branches<B: Backend>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    stride: usize,
) -> [FloatTensor<B>; 3] {
    let shape = weight.shape();
    let (taps, channels_in, channels_out) = (shape[1], shape[2], shape[3]);
    let x = B::float_permute(x, &TO_CHANNELS_FIRST);
    [0, 1, 2].map(|axis| {
        let branch = B::float_slice(weight.clone(), &[Slice::from(axis..axis + 1)]);
        let branch = B::float_permute(
            B::float_reshape(branch, Shape::new([taps, channels_in, channels_out])),
            &[2, 1, 0],
        );
        let mut kernel = [channels_out, channels_in, 1, 1, 1];
        kernel[2 + axis] = taps;
        let mut padding = [0; 3];
        padding[axis] = taps / 2;
        let options = ConvOptions::new([stride; 3], padding, [1; 3], 1);
        let y = B::conv3d(
            x.clone(),
            B::float_reshape(branch, Shape::new(kernel)),
            None,
            options,
        );
        B::float_permute(y, &TO_CHANNELS_LAST)
    })
}

/// Normalises each branch with its own batch statistics and adds them; returns mean and biased variance too.
pub(crate) fn add_normalized<B: Backend>(
    branches: [FloatTensor<B>; 3],
    gamma: FloatTensor<B>,
    beta: FloatTensor<B>,
    epsilon: f64,
) -> (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>) {
    let shape = branches[0].shape();
    let channels = shape[4];
    let rows = shape.num_elements() / channels.max(1);
    let (mut means, mut variances, mut sum) = (Vec::new(), Vec::new(), None);
    for (axis, branch) in branches.into_iter().enumerate() {
        let of_branch =
            |table: &FloatTensor<B>| B::float_slice(table.clone(), &[Slice::from(axis..axis + 1)]);
        let u = B::float_reshape(branch, Shape::new([rows, channels]));
        let mean = B::float_mean_dim(u.clone(), 0);
        let centred = B::float_sub(u, mean.clone());
        let variance = B::float_mean_dim(B::float_mul(centred.clone(), centred.clone()), 0);
        let deviation = B::float_sqrt(B::float_add_scalar(variance.clone(), epsilon.into()));
        let scaled = B::float_mul(B::float_div(centred, deviation), of_branch(&gamma));
        let y = B::float_add(scaled, of_branch(&beta));
        sum = Some(match sum {
            None => y,
            Some(sum) => B::float_add(sum, y),
        });
        means.push(B::float_detach(mean));
        variances.push(B::float_detach(variance));
    }
    let sum = sum.expect("there are three branches");
    (
        B::float_reshape(sum, shape),
        B::float_cat(means, 0),
        B::float_cat(variances, 0),
    )
}
