//! Self-attention with one matrix for queries, keys and values.

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Tensor};
use dcformer_kernels::packed_attention;
use serde::{Deserialize, Serialize};

use crate::complexity::{AttentionSize, Bias, Cost, Operands, Products};

/// What the logits of attention are multiplied by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttentionScale {
    /// One over the root of a head's features: attention as it was published.
    #[default]
    Divided,
    /// The root of a head's features: a slip in the code that some of the paper's encoders come from (P35).
    Multiplied,
}

/// Sizes of a [`SelfAttention`].
#[derive(Clone, Copy, Debug)]
pub(super) struct SelfAttentionConfig {
    /// Features of a token.
    pub(super) width: usize,
    pub(super) heads: usize,
    /// Features of a head.
    pub(super) head_dim: usize,
    /// Of the output; queries, keys and values have none.
    pub(super) bias: Bias,
    pub(super) scale: AttentionScale,
}

impl SelfAttentionConfig {
    pub(super) fn init(&self, device: &Device) -> SelfAttention {
        let inner = self.heads * self.head_dim;
        SelfAttention {
            qkv: LinearConfig::new(self.width, 3 * inner)
                .with_bias(false)
                .init(device),
            output: LinearConfig::new(inner, self.width)
                .with_bias(self.bias == Bias::With)
                .init(device),
            heads: self.heads,
            scale: self.scale,
        }
    }

    pub(super) fn cost(&self, sequences: usize, tokens: usize, products: Products) -> Cost {
        let (inner, rows) = (self.heads * self.head_dim, sequences * tokens);
        let mut cost = Cost::default();
        cost.linear("qkv", [self.width, 3 * inner], rows, Bias::Without);
        let qkv = cost.here();
        cost.attention(
            "product",
            AttentionSize {
                sequences,
                tokens,
                heads: self.heads,
                head_dim: self.head_dim,
                products,
                bias: false,
            },
            Operands::packed(qkv),
        );
        cost.linear("output", [inner, self.width], rows, self.bias);
        cost
    }
}

/// Every token gathers from all tokens of its sequence, in several heads.
#[derive(Module, Debug)]
pub(super) struct SelfAttention {
    /// Queries, keys and values, in this order; within each, head after head.
    qkv: Linear,
    output: Linear,
    heads: usize,
    #[module(skip)]
    scale: AttentionScale,
}

impl SelfAttention {
    /// # Shapes
    /// - input, output: `[sequences, tokens, width]`
    pub(super) fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let [sequences, tokens, width] = x.dims();
        let qkv = self.qkv.forward(x.reshape([sequences * tokens, width]));
        let [query, key, value] = <[Tensor<2>; 3]>::try_from(qkv.chunk(3, 1))
            .expect("three chunks of a width of three times the heads");
        let query = match self.scale {
            AttentionScale::Divided => query,
            // The operation divides by √head_dim, so that this leaves a factor of √head_dim.
            AttentionScale::Multiplied => {
                let head_dim = query.dims()[1] / self.heads;
                query * head_dim as f64
            }
        };
        let lengths = vec![tokens; sequences];
        let gathered = packed_attention(query, key, value, &lengths, self.heads);
        self.output
            .forward(gathered)
            .reshape([sequences, tokens, width])
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Distribution, activation::softmax};

    use super::*;

    /// The formula, one sequence and one head at a time.
    fn formula(attention: &SelfAttention, x: &Tensor<3>, factor: f64) -> Tensor<3> {
        let [sequences, tokens, _] = x.dims();
        let outputs = (0..sequences).map(|sequence| {
            let x: Tensor<2> = x.clone().narrow(0, sequence, 1).squeeze_dim(0);
            let qkv = x.matmul(attention.qkv.weight.val());
            let head_dim = qkv.dims()[1] / 3 / attention.heads;
            let part = |which: usize, head: usize| {
                let first = (which * attention.heads + head) * head_dim;
                qkv.clone().narrow(1, first, head_dim)
            };
            let heads = (0..attention.heads).map(|head| {
                let logits = part(0, head).matmul(part(1, head).transpose()) * factor;
                softmax(logits, 1).matmul(part(2, head))
            });
            let gathered = Tensor::cat(heads.collect(), 1);
            assert_eq!(gathered.dims()[0], tokens);
            attention.output.forward(gathered).unsqueeze_dim(0)
        });
        Tensor::cat(outputs.collect(), 0)
    }

    #[test]
    fn it_is_its_formula_at_either_scale() {
        let device = Device::flex();
        let x = Tensor::random([2, 5, 8], Distribution::Normal(0.0, 1.0), &device);
        for (scale, factor) in [
            (AttentionScale::Divided, 0.5),
            (AttentionScale::Multiplied, 2.0),
        ] {
            let config = SelfAttentionConfig {
                width: 8,
                heads: 3,
                head_dim: 4,
                bias: Bias::With,
                scale,
            };
            let attention = config.init(&device);
            let far = attention.forward(x.clone()) - formula(&attention, &x, factor);
            let far = far.abs().max().into_scalar::<f32>();
            // Values of order 1; sums of 5 and 12 terms in another order.
            assert!(far < 1e-5, "{scale:?} is {far} away");
        }
    }
}
