//! The definition: the framework's error function.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata};
use burn::tensor::Slice;

/// See [`gelu`](super::gelu()).
pub(crate) fn forward<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    let scaled = B::float_mul_scalar(x.clone(), std::f64::consts::FRAC_1_SQRT_2.into());
    let cdf = B::float_mul_scalar(
        B::float_add_scalar(B::float_erf(scaled), 1.0.into()),
        0.5.into(),
    );
    B::float_mul(x, cdf)
}

/// See [`gated_gelu`](super::gated_gelu()).
pub(crate) fn gated<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    let channels = x.shape()[1];
    let half =
        |from: usize, to: usize| B::float_slice(x.clone(), &[Slice::full(), Slice::from(from..to)]);
    let gates = forward::<B>(half(channels / 2, channels));
    B::float_mul(half(0, channels / 2), gates)
}
