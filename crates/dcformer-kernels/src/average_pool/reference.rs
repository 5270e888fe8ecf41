//! The definition: how many values of a window are inside is a product over the axes, so two 2-D poolings make a 3-D one.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata};
use burn::tensor::Shape;

use crate::dense_decomposed::reference::{TO_CHANNELS_FIRST, TO_CHANNELS_LAST};

/// See [`average_pool`](super::average_pool()).
pub(crate) fn forward<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    let x = B::float_permute(x, &TO_CHANNELS_FIRST);
    let shape = x.shape();
    let (n, c, d, h, w) = (shape[0], shape[1], shape[2], shape[3], shape[4]);
    let planes = B::float_reshape(x, Shape::new([n, c * d, h, w]));
    let planes = B::avg_pool2d(planes, [3, 3], [1, 1], [1, 1], false, false);
    let columns = B::float_reshape(planes, Shape::new([n, c, d, h * w]));
    let columns = B::avg_pool2d(columns, [3, 1], [1, 1], [1, 0], false, false);
    B::float_permute(B::float_reshape(columns, shape), &TO_CHANNELS_LAST)
}
