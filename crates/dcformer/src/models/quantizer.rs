//! Vector quantizer: every token becomes the code it points at most (SPEC section 3).
//!
//! The authors' code has one between encoder and pooling, which the paper never says. A network imported with a codebook
//! keeps it; new ones go without, like the follow-up project.

use burn::module::{Flag, Module, Param};
use burn::tensor::{Device, Distribution, IndexingUpdateOp, Int, Tensor};
use serde::{Deserialize, Serialize};

use super::buffer::Buffer;
use super::similarity::unit_rows;

/// Share of the past in the moving averages of the codes (authors' code).
const DECAY: f64 = 0.8;
/// Smooths the counts of codes, so that an unused one divides nothing by zero (authors' code).
const COUNT_EPSILON: f64 = 1e-5;
/// Tokens compared with the codebook at once: 2048 x 8192 similarities are 64 MiB.
const TOKENS_AT_ONCE: usize = 2048;

/// Sizes of a [`VectorQuantizer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VectorQuantizerConfig {
    /// Codes in the book; the authors use 8192.
    pub codes: usize,
    /// Length of a code: the channels of the tokens.
    pub channels: usize,
}

impl VectorQuantizerConfig {
    /// Builds the quantizer with random codes of unit length on `device`.
    pub fn init(&self, device: &Device) -> VectorQuantizer {
        let Self { codes, channels } = *self;
        let embed = Tensor::random([codes, channels], Distribution::Uniform(-1.0, 1.0), device);
        let embed = unit_rows(embed).unsqueeze_dim::<3>(0);
        VectorQuantizer {
            embed_average: Buffer::new(embed.clone()),
            embed: Buffer::new(embed),
            cluster_size: Buffer::new(Tensor::zeros([1, codes], device)),
            training: Param::from_bool(true),
        }
    }
}

/// A codebook compared by cosine similarity, in the authors' shapes.
#[derive(Module, Debug)]
pub struct VectorQuantizer {
    /// `[1, codes, channels]`, rows of unit length.
    embed: Buffer<3>,
    /// Moving sum of the tokens of each code, `[1, codes, channels]`.
    embed_average: Buffer<3>,
    /// Moving count of the tokens of each code, `[1, codes]`.
    cluster_size: Buffer<2>,
    training: Param<Flag>,
}

impl VectorQuantizer {
    /// Replaces every token by its code. In training (an autodiff device, and not frozen) the codes move towards the
    /// tokens and the gradient passes straight through.
    ///
    /// # Shapes
    /// - input, output: `[batch, depth, height, width, channels]`
    pub fn forward(&self, x: Tensor<5>) -> Tensor<5> {
        let shape = x.dims();
        let channels = shape[4];
        let tokens: Tensor<2> = x.clone().detach().reshape([-1, channels as isize]);
        let tokens = unit_rows(tokens);
        let codes = self.nearest(tokens.clone());
        let embed = self.embed.value().squeeze_dim::<2>(0);
        let quantized = embed.select(0, codes.clone()).reshape(shape);
        if !x.device().is_autodiff() {
            return quantized;
        }
        if self.training.is_enabled() {
            self.move_codes(tokens, codes);
        }
        x.clone() + (quantized - x.detach())
    }

    /// The code of each token.
    ///
    /// # Shapes
    /// - `tokens`: `[tokens, channels]`, rows of any length; output: `[tokens]`
    pub fn nearest(&self, tokens: Tensor<2>) -> Tensor<1, Int> {
        let codebook = self.embed.value().squeeze_dim::<2>(0).transpose();
        let nearest = tokens
            .split(TOKENS_AT_ONCE, 0)
            .into_iter()
            .map(|part| part.matmul(codebook.clone()).argmax(1).squeeze_dim::<1>(1))
            .collect();
        Tensor::cat(nearest, 0)
    }

    /// Exponential moving averages of counts and sums; a code is the direction of its sum.
    fn move_codes(&self, tokens: Tensor<2>, codes: Tensor<1, Int>) {
        let [_, book, channels] = self.embed.value().dims();
        let device = tokens.device();
        let [count, _] = tokens.dims();
        let add = IndexingUpdateOp::Add;
        let counts = Tensor::<1>::zeros([book], &device).select_assign(
            0,
            codes.clone(),
            Tensor::ones([count], &device),
            add,
        );
        let sums =
            Tensor::<2>::zeros([book, channels], &device).select_assign(0, codes, tokens, add);

        let moved = |buffer: Tensor<2>, seen: Tensor<2>| buffer * DECAY + seen * (1.0 - DECAY);
        let sizes = moved(self.cluster_size.value(), counts.unsqueeze_dim(0));
        let averages = moved(self.embed_average.value().squeeze_dim(0), sums);
        let total = sizes.clone().sum();
        let smoothed = (sizes.clone() + COUNT_EPSILON)
            / (total.clone() + COUNT_EPSILON * book as f64).unsqueeze_dim(0)
            * total.unsqueeze_dim(0);
        let embed = unit_rows(averages.clone() / smoothed.transpose());

        self.cluster_size.set(sizes);
        self.embed_average.set(averages.unsqueeze_dim(0));
        self.embed.set(embed.unsqueeze_dim(0));
    }
}

#[cfg(test)]
mod tests;
