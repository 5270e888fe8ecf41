//! The definition: the operations one after the other.

use burn::backend::TensorMetadata;
use burn::backend::tensor::FloatTensor;
use burn::tensor::Shape;

use crate::KernelOps;

/// See [`mixer_mlp`](super::mixer_mlp()).
pub(crate) fn forward<B: KernelOps>(
    x: FloatTensor<B>,
    [filters, bias]: [FloatTensor<B>; 2],
    [w1, b1, w2, b2]: [FloatTensor<B>; 4],
) -> FloatTensor<B> {
    let shape = x.shape();
    let channels = bias.shape()[0];
    let rows = shape.num_elements() / channels.max(1);
    let mixed = B::depthwise_decomposed_conv(x.clone(), filters, bias);
    let mixed = B::float_reshape(mixed, Shape::new([rows, channels]));
    let residual = B::mlp(mixed, w1, b1, w2, b2);
    B::float_add(x, B::float_reshape(residual, shape))
}
