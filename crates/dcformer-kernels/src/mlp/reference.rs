//! The definition: the framework's matrix products and error function.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata};
use burn::tensor::Shape;

use crate::gelu;

/// See [`mlp`](super::mlp()).
pub(crate) fn forward<B: Backend>(
    x: FloatTensor<B>,
    w1: FloatTensor<B>,
    b1: FloatTensor<B>,
    w2: FloatTensor<B>,
    b2: FloatTensor<B>,
) -> FloatTensor<B> {
    let hidden = linear::<B>(x, w1, b1);
    linear::<B>(gelu::reference::forward::<B>(hidden), w2, b2)
}

fn linear<B: Backend>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    bias: FloatTensor<B>,
) -> FloatTensor<B> {
    let channels = bias.shape()[0];
    B::float_add(
        B::float_matmul(x, weight),
        B::float_reshape(bias, Shape::new([1, channels])),
    )
}
