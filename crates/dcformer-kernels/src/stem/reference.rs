//! The definition: the operations one after the other.

use burn::backend::TensorMetadata;
use burn::backend::tensor::FloatTensor;
use burn::tensor::{Shape, Slice};

use crate::KernelOps;

/// See [`stem`](super::stem()); the arrays are weight and bias of the first convolution and of those that follow.
pub(crate) fn forward<B: KernelOps>(
    x: FloatTensor<B>,
    [weight, bias]: [FloatTensor<B>; 2],
    [refinements, refinement_biases]: [FloatTensor<B>; 2],
    projection: FloatTensor<B>,
    stride: usize,
    activate: bool,
) -> FloatTensor<B> {
    let activated = |y| if activate { B::exact_gelu(y) } else { y };
    let first = activated(B::dense_decomposed_conv(x, weight, bias, stride));
    let shape = refinements.shape();
    let features = (0..shape[0]).fold(first, |x, index| {
        let of =
            |all: &FloatTensor<B>| B::float_slice(all.clone(), &[Slice::from(index..index + 1)]);
        let weight = Shape::new([shape[1], shape[2], shape[3], shape[4]]);
        let weight = B::float_reshape(of(&refinements), weight);
        let bias = B::float_reshape(of(&refinement_biases), Shape::new([shape[4]]));
        activated(B::dense_decomposed_conv(x, weight, bias, 1))
    });
    B::pool_project(features, projection)
}
