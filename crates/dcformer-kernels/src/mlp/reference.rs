//! The definition: the framework's matrix products and error function.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata};
use burn::tensor::Shape;

/// See [`mlp`](super::mlp()).
pub(crate) fn forward<B: Backend>(
    x: FloatTensor<B>,
    w1: FloatTensor<B>,
    b1: FloatTensor<B>,
    w2: FloatTensor<B>,
    b2: FloatTensor<B>,
) -> FloatTensor<B> {
    let hidden = linear::<B>(x, w1, b1);
    // Composed from `erf`: the framework's own GELU has the gradient of the tanh form on some backends.
    let scaled = B::float_mul_scalar(hidden.clone(), std::f64::consts::FRAC_1_SQRT_2.into());
    let cdf = B::float_mul_scalar(
        B::float_add_scalar(B::float_erf(scaled), 1.0.into()),
        0.5.into(),
    );
    linear::<B>(B::float_mul(hidden, cdf), w2, b2)
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
