//! The definition, in the framework's operations.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata};
use burn::tensor::Shape;

/// See [`batch_norm`](super::batch_norm()): output, mean, variance.
pub(crate) fn forward<B: Backend>(
    x: FloatTensor<B>,
    gamma: FloatTensor<B>,
    beta: FloatTensor<B>,
    epsilon: f64,
    rectify: bool,
) -> (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>) {
    let channels = gamma.shape()[0];
    let row = Shape::new([1, channels]);
    let mean = B::float_mean_dim(x.clone(), 0);
    let centred = B::float_sub(x, mean.clone());
    let variance = B::float_mean_dim(B::float_mul(centred.clone(), centred.clone()), 0);
    let deviation = B::float_sqrt(B::float_add_scalar(variance.clone(), epsilon.into()));
    let scaled = B::float_mul(
        B::float_div(centred, deviation),
        B::float_reshape(gamma, row.clone()),
    );
    let output = B::float_add(scaled, B::float_reshape(beta, row));
    let table = |table| B::float_reshape(B::float_detach(table), Shape::new([channels]));
    (
        if rectify { B::relu(output) } else { output },
        table(mean),
        table(variance),
    )
}
