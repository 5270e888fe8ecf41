//! Tensor operations of 3D encoders on [burn]: what they compute, a fast version for the CPU, and gradients.
//!
//! | operation | what it is | trains |
//! |---|---|---|
//! | [`dense_decomposed_conv`] | three 1-D convolutions along the axes, added (stem) | yes |
//! | [`dense_decomposed_norm`] | the same, each branch batch-normalised first | yes |
//! | [`depthwise_decomposed_conv`] | one filter per channel along each axis, added (mixer) | yes |
//! | [`depthwise_decomposed_norm`] | the same, each branch batch-normalised first | yes |
//! | [`depthwise_conv()`] | one 3-D filter per channel | yes |
//! | [`average_pool()`] | 3x3x3 mean, stride 1 | yes |
//! | [`dense_conv()`] | convolution of boxes of taps, channels mixed, optional ReLU | yes |
//! | [`batch_norm()`] | mean 0, variance 1 over rows, optional ReLU | yes |
//! | [`max_pool()`] | 3x3x3 maximum, stride 2 | yes |
//! | [`pool_project()`] | the same, then a matrix product over channels | as its parts |
//! | [`stem()`] | dense decomposed convolutions in a row, pooled and projected | as its parts |
//! | [`mixer_mlp()`] | depthwise decomposed convolution, MLP, residual: a whole block | as its parts |
//! | [`mlp()`] | linear, GELU, linear | yes |
//! | [`gelu()`] | the exact GELU, element by element | yes |
//! | [`layer_norm()`] | mean 0, variance 1 over channels | yes |
//! | [`gated_gelu()`] | one half of the channels times the GELU of the other | yes |
//! | [`packed_attention`] | attention within sequences laid end to end, no padding | yes |
//! | [`biased_attention`] | attention with a bias for each pair of positions | yes |
//!
//! Features are channels-last, `[batch, depth, height, width, channels]`. Every operation is a method of
//! [`KernelOps`] whose default body, made of ordinary tensor operations, is its *definition*: it runs and
//! differentiates on any backend, and tests hold the fast versions to it.

pub mod attention;
pub mod average_pool;
mod backend;
pub mod batch_norm;
pub mod dense_conv;
pub mod dense_decomposed;
pub mod depthwise_conv;
pub mod depthwise_decomposed;
mod extension;
mod gathered;
pub mod gelu;
mod geometry;
mod kept;
pub mod layer_norm;
mod math;
mod matmul;
pub mod max_pool;
mod memory;
pub mod mixer_mlp;
pub mod mlp;
mod shared;
pub mod simd;
mod statistics;
pub mod stem;
mod synchronized;
#[cfg(test)]
mod tests;
mod tiles;
mod workers;

pub use attention::{biased_attention, packed_attention};
pub use average_pool::average_pool;
pub use batch_norm::{BatchNormalized, batch_norm};
pub use dense_conv::dense_conv;
pub use dense_decomposed::{dense_decomposed_conv, dense_decomposed_norm};
pub use depthwise_conv::depthwise_conv;
pub use depthwise_decomposed::{depthwise_decomposed_conv, depthwise_decomposed_norm};
pub use extension::KernelOps;
pub use gelu::{gated_gelu, gelu};
pub use kept::keep_hidden_activations;
pub use layer_norm::layer_norm;
pub use max_pool::{max_pool, pool_project};
pub use memory::{BufferPool, keep_freed_memory};
pub use mixer_mlp::{MixerMlp, mixer_mlp};
pub use mlp::mlp;
pub use stem::{StemWeights, stem};
pub use synchronized::{SumOverWorkers, batch_workers, synchronized};
pub use workers::on_workers;

use burn::tensor::Tensor;

/// What a batch-normalised operation gives: its output and the statistics that running averages need.
#[derive(Clone, Debug)]
pub struct Normalized {
    /// The normalised, added branches, `[batch, depth, height, width, channels]`.
    pub output: Tensor<5>,
    /// Mean of each branch before normalisation, `[3, channels]`; carries no gradient.
    pub mean: Tensor<2>,
    /// Biased variance of each branch, `[3, channels]`; carries no gradient.
    pub variance: Tensor<2>,
    /// Values behind each mean: `batch * depth * height * width` of the output.
    pub count: usize,
}
