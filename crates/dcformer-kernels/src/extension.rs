//! The one backend trait of this crate.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, backend_extension};

use crate::{
    attention, average_pool, batch_norm, dense_conv, dense_decomposed, depthwise_conv,
    depthwise_decomposed, gelu, layer_norm, max_pool, mixer_mlp, mlp, stem,
};

/// The operations of this crate, as a backend sees them.
///
/// Every method has a body made of ordinary tensor operations: the definition. It runs and differentiates on any
/// backend; a backend overrides it only to be faster, and the tests hold it to the definition.
#[allow(
    clippy::too_many_arguments,
    reason = "the framework's generated dispatch takes tensors one by one"
)]
#[backend_extension(Flex, Autodiff)]
pub trait KernelOps: Backend {
    /// See [`dense_decomposed_conv`](crate::dense_decomposed_conv).
    fn dense_decomposed_conv(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        stride: usize,
    ) -> FloatTensor<Self> {
        dense_decomposed::reference::conv::<Self>(x, weight, bias, stride)
    }

    /// See [`dense_decomposed_norm`](crate::dense_decomposed_norm).
    fn dense_decomposed_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        stride: usize,
        epsilon: f64,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        dense_decomposed::reference::norm::<Self>(x, weight, gamma, beta, stride, epsilon)
    }

    /// See [`depthwise_decomposed_conv`](crate::depthwise_decomposed_conv).
    fn depthwise_decomposed_conv(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        depthwise_decomposed::reference::conv::<Self>(x, weight, bias)
    }

    /// See [`depthwise_decomposed_norm`](crate::depthwise_decomposed_norm).
    fn depthwise_decomposed_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        epsilon: f64,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        depthwise_decomposed::reference::norm::<Self>(x, weight, gamma, beta, epsilon)
    }

    /// See [`depthwise_conv`](crate::depthwise_conv()).
    fn depthwise_conv_3d(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        before: [usize; 3],
    ) -> FloatTensor<Self> {
        depthwise_conv::reference::forward::<Self>(x, weight, bias, before)
    }

    /// See [`average_pool`](crate::average_pool()).
    fn average_pool_3d(x: FloatTensor<Self>) -> FloatTensor<Self> {
        average_pool::reference::forward::<Self>(x)
    }

    /// See [`dense_conv`](crate::dense_conv()).
    fn dense_conv_3d(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        stride: usize,
        before: [usize; 3],
        rectify: bool,
    ) -> FloatTensor<Self> {
        dense_conv::reference::forward::<Self>(x, weight, bias, stride, before, rectify)
    }

    /// See [`batch_norm`](crate::batch_norm()).
    fn batch_norm_rows(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        epsilon: f64,
        rectify: bool,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        batch_norm::reference::forward::<Self>(x, gamma, beta, epsilon, rectify)
    }

    /// See [`max_pool`](crate::max_pool()).
    fn max_pool_3d(x: FloatTensor<Self>) -> FloatTensor<Self> {
        max_pool::reference::forward::<Self>(x)
    }

    /// See [`pool_project`](crate::pool_project()).
    fn pool_project(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        max_pool::reference::project::<Self>(x, weight)
    }

    /// See [`stem`](crate::stem()).
    fn stem(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        refinements: FloatTensor<Self>,
        refinement_biases: FloatTensor<Self>,
        projection: FloatTensor<Self>,
        stride: usize,
        activate: bool,
    ) -> FloatTensor<Self> {
        let (first, rest) = ([weight, bias], [refinements, refinement_biases]);
        stem::reference::forward::<Self>(x, first, rest, projection, stride, activate)
    }

    /// See [`mixer_mlp`](crate::mixer_mlp()).
    fn mixer_mlp(
        x: FloatTensor<Self>,
        filters: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        w1: FloatTensor<Self>,
        b1: FloatTensor<Self>,
        w2: FloatTensor<Self>,
        b2: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        mixer_mlp::reference::forward::<Self>(x, [filters, bias], [w1, b1, w2, b2])
    }

    /// See [`mlp`](crate::mlp()).
    fn mlp(
        x: FloatTensor<Self>,
        w1: FloatTensor<Self>,
        b1: FloatTensor<Self>,
        w2: FloatTensor<Self>,
        b2: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        mlp::reference::forward::<Self>(x, w1, b1, w2, b2)
    }

    /// See [`gelu`](crate::gelu()).
    fn exact_gelu(x: FloatTensor<Self>) -> FloatTensor<Self> {
        gelu::reference::forward::<Self>(x)
    }

    /// See [`gated_gelu`](crate::gated_gelu()).
    fn gated_gelu_rows(x: FloatTensor<Self>) -> FloatTensor<Self> {
        gelu::reference::gated::<Self>(x)
    }

    /// See [`layer_norm`](crate::layer_norm()).
    fn layer_norm_rows(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        epsilon: f64,
    ) -> FloatTensor<Self> {
        layer_norm::reference::forward::<Self>(x, gamma, beta, epsilon)
    }

    /// See [`packed_attention`](crate::packed_attention).
    fn packed_attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        lengths: Vec<usize>,
        heads: usize,
    ) -> FloatTensor<Self> {
        attention::reference::forward::<Self>(q, k, v, None, &lengths, heads)
    }

    /// See [`biased_attention`](crate::biased_attention).
    fn biased_attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        bias: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        attention::reference::biased::<Self>(q, k, v, bias)
    }
}
