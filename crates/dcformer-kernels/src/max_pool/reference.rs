//! The definition: a window maximum is separable, so two 2-D poolings make a 3-D one.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata};
use burn::tensor::Shape;

use crate::KernelOps;
use crate::dense_decomposed::reference::{TO_CHANNELS_FIRST, TO_CHANNELS_LAST};

/// See [`max_pool`](super::max_pool()).
pub(crate) fn forward<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    let x = B::float_permute(x, &TO_CHANNELS_FIRST);
    let shape = x.shape();
    let (n, c, d, h, w) = (shape[0], shape[1], shape[2], shape[3], shape[4]);
    let (half_d, half_h, half_w) = (d.div_ceil(2), h.div_ceil(2), w.div_ceil(2));
    let planes = B::float_reshape(x, Shape::new([n, c * d, h, w]));
    let planes = B::max_pool2d(planes, [3, 3], [2, 2], [1, 1], [1, 1], false);
    let columns = B::float_reshape(planes, Shape::new([n, c, d, half_h * half_w]));
    let columns = B::max_pool2d(columns, [3, 1], [2, 1], [1, 0], [1, 1], false);
    let y = B::float_reshape(columns, Shape::new([n, c, half_d, half_h, half_w]));
    B::float_permute(y, &TO_CHANNELS_LAST)
}

/// See [`pool_project`](super::pool_project()).
pub(crate) fn project<B: KernelOps>(x: FloatTensor<B>, weight: FloatTensor<B>) -> FloatTensor<B> {
    let pooled = B::max_pool_3d(x);
    let shape = pooled.shape();
    let (channels, outputs) = (shape[4], weight.shape()[1]);
    let rows = shape.num_elements() / channels;
    let product = B::float_matmul(
        B::float_reshape(pooled, Shape::new([rows, channels])),
        weight,
    );
    let grid = [shape[0], shape[1], shape[2], shape[3], outputs];
    B::float_reshape(product, Shape::new(grid))
}
