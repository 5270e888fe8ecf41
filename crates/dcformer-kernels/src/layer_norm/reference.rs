//! The definition, in the framework's operations.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata};
use burn::tensor::Shape;

/// See [`layer_norm`](super::layer_norm()).
pub(crate) fn forward<B: Backend>(
    x: FloatTensor<B>,
    gamma: FloatTensor<B>,
    beta: FloatTensor<B>,
    epsilon: f64,
) -> FloatTensor<B> {
    let row = Shape::new([1, gamma.shape()[0]]);
    let centred = B::float_sub(x.clone(), B::float_mean_dim(x, 1));
    let variance = B::float_mean_dim(B::float_mul(centred.clone(), centred.clone()), 1);
    let deviation = B::float_sqrt(B::float_add_scalar(variance, epsilon.into()));
    let scaled = B::float_mul(
        B::float_div(centred, deviation),
        B::float_reshape(gamma, row.clone()),
    );
    B::float_add(scaled, B::float_reshape(beta, row))
}
