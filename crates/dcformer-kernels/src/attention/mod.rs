//! Attention within sequences that are laid end to end: of different lengths, or of one length with a bias of the logits.

pub(crate) mod cpu;
pub(crate) mod reference;
mod softmax;

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

/// `softmax(q · kᵀ / √head_dim + bias) · v` per head, within each of several sequences of one length.
///
/// # Shapes
/// - `q`, `k`, `v`, output: `[sequences * tokens, heads * head_dim]`
/// - `bias`: `[heads, tokens, tokens]`, of a query and a key, the same for all sequences
///
/// # Panics
/// If the shapes differ, there are no heads or tokens, or they do not divide the channels or the rows.
///
/// Gradients reach all four. Of the weights, which are quadratic in the tokens, some rows are in memory at a time.
pub fn biased_attention(q: Tensor<2>, k: Tensor<2>, v: Tensor<2>, bias: Tensor<3>) -> Tensor<2> {
    let [rows, channels] = q.dims();
    let [heads, tokens, keys] = bias.dims();
    assert_eq!(k.dims(), [rows, channels], "k must have the shape of q");
    assert_eq!(v.dims(), [rows, channels], "v must have the shape of q");
    assert_eq!(tokens, keys, "the bias must have a key for each query");
    assert!(
        heads > 0 && channels % heads == 0,
        "{heads} heads do not divide {channels} channels"
    );
    assert!(
        tokens > 0 && rows % tokens == 0,
        "sequences of {tokens} tokens do not divide {rows} rows"
    );
    Tensor::from_dispatch(<Dispatch as KernelOps>::biased_attention(
        q.into_dispatch(),
        k.into_dispatch(),
        v.into_dispatch(),
        bias.into_dispatch(),
    ))
}
