//! The projection head of CXR-BERT (arXiv 2204.09817, published as `BertProjectionHead`): what its contrastive training put
//! between `[CLS]` and the space it shares with images.

use burn::module::Module;
use burn::nn::Linear;
use burn::tensor::{Device, Tensor};
use dcformer_kernels::gelu;

use super::bert::linear;
use super::layer_norm::LayerNorm;

/// The published head's, whatever the encoder's own norms have.
const EPSILON: f64 = 1e-12;

/// Linear, exact GELU, norm, linear.
#[derive(Module, Debug)]
pub(super) struct ProjectionHead {
    hidden: Linear,
    norm: LayerNorm,
    output: Linear,
}

impl ProjectionHead {
    pub(super) fn new(inputs: usize, outputs: usize, device: &Device) -> Self {
        Self {
            hidden: linear(inputs, outputs, device),
            norm: LayerNorm::new(outputs, EPSILON, device),
            output: linear(outputs, outputs, device),
        }
    }

    /// # Shapes
    /// - `x`: `[texts, inputs]`; output: `[texts, outputs]`
    pub(super) fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let hidden = gelu(self.hidden.forward(x));
        self.output.forward(self.norm.forward(hidden))
    }
}
