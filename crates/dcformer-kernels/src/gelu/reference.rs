//! The definition: the framework's error function.

use burn::backend::Backend;
use burn::backend::tensor::FloatTensor;

/// See [`gelu`](super::gelu()).
pub(crate) fn forward<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    let scaled = B::float_mul_scalar(x.clone(), std::f64::consts::FRAC_1_SQRT_2.into());
    let cdf = B::float_mul_scalar(
        B::float_add_scalar(B::float_erf(scaled), 1.0.into()),
        0.5.into(),
    );
    B::float_mul(x, cdf)
}
