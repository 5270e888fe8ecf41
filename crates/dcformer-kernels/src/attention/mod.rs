//! Attention within sequences of different lengths, laid end to end.

pub(crate) mod cpu;
pub(crate) mod reference;

use burn::backend::Dispatch;
use burn::tensor::Tensor;

use crate::KernelOps;

/// `softmax(q · kᵀ / √head_dim) · v` per head, within each sequence: what a padded, masked batch computes, without the
/// padding.
///
/// # Shapes
/// - `q`, `k`, `v`, output: `[tokens, heads * head_dim]`, the sequences of a batch one after the other
/// - `lengths`: tokens of each sequence; their sum is `tokens`
///
/// # Panics
/// If the shapes differ, `heads` does not divide the channels, or the lengths do not add up.
pub fn packed_attention(
    q: Tensor<2>,
    k: Tensor<2>,
    v: Tensor<2>,
    lengths: &[usize],
    heads: usize,
) -> Tensor<2> {
    let [tokens, channels] = q.dims();
    assert_eq!(k.dims(), [tokens, channels], "k must have the shape of q");
    assert_eq!(v.dims(), [tokens, channels], "v must have the shape of q");
    assert!(
        heads > 0 && channels % heads == 0,
        "{heads} heads do not divide {channels} channels"
    );
    let sum: usize = lengths.iter().sum();
    assert_eq!(
        sum, tokens,
        "the lengths add up to {sum}, there are {tokens} tokens"
    );
    Tensor::from_dispatch(<Dispatch as KernelOps>::packed_attention(
        q.into_dispatch(),
        k.into_dispatch(),
        v.into_dispatch(),
        lengths.to_vec(),
        heads,
    ))
}
