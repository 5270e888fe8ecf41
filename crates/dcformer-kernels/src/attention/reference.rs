//! The definition: one sequence at a time, in the framework's operations.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata};
use burn::tensor::{Shape, Slice};

/// See [`biased_attention`](super::biased_attention).
pub(crate) fn biased<B: Backend>(
    q: FloatTensor<B>,
    k: FloatTensor<B>,
    v: FloatTensor<B>,
    bias: FloatTensor<B>,
) -> FloatTensor<B> {
    let (heads, tokens) = (bias.shape()[0], bias.shape()[1]);
    let lengths = vec![tokens; q.shape()[0] / tokens];
    forward::<B>(q, k, v, Some(bias), &lengths, heads)
}

/// See [`packed_attention`](super::packed_attention); with `bias`, `[heads, length, length]`, added to the logits.
pub(crate) fn forward<B: Backend>(
    q: FloatTensor<B>,
    k: FloatTensor<B>,
    v: FloatTensor<B>,
    bias: Option<FloatTensor<B>>,
    lengths: &[usize],
    heads: usize,
) -> FloatTensor<B> {
    let channels = q.shape()[1];
    let head_dim = channels / heads;
    let scale = 1.0 / (head_dim as f64).sqrt();
    let mut first = 0;
    let mut outputs = Vec::with_capacity(lengths.len());
    for &length in lengths.iter().filter(|&&length| length > 0) {
        // [length, heads * head_dim] -> [heads, length, head_dim]
        let of_sequence = |tensor: &FloatTensor<B>| {
            let rows = B::float_slice(tensor.clone(), &[Slice::from(first..first + length)]);
            B::float_permute(
                B::float_reshape(rows, Shape::new([length, heads, head_dim])),
                &[1, 0, 2],
            )
        };
        let keys = B::float_permute(of_sequence(&k), &[0, 2, 1]);
        let products = B::float_matmul(of_sequence(&q), keys);
        let mut logits = B::float_mul_scalar(products, scale.into());
        if let Some(bias) = &bias {
            logits = B::float_add(logits, bias.clone());
        }
        let exponentials = B::float_exp(B::float_sub(
            logits.clone(),
            B::float_detach(B::float_max_dim(logits, 2)),
        ));
        let weights = B::float_div(exponentials.clone(), B::float_sum_dim(exponentials, 2));
        let output = B::float_permute(B::float_matmul(weights, of_sequence(&v)), &[1, 0, 2]);
        outputs.push(B::float_reshape(output, Shape::new([length, channels])));
        first += length;
    }
    if outputs.is_empty() {
        q
    } else {
        B::float_cat(outputs, 0)
    }
}
