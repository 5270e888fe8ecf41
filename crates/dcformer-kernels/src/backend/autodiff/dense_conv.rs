//! Gradient of [`dense_conv`](crate::dense_conv()): it keeps the operands, and the output where a ReLU cleared part of it.

use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Flex, TensorMetadata};

use super::super::flex::{Values, all_f32, conv_of, tensor};
use crate::KernelOps;
use crate::dense_conv::{cpu::through_relu, reference};
use crate::mlp::cpu::sum_of_rows;
use crate::simd::Level;

/// Operands of a dense convolution, and its output if a ReLU cleared part of it.
#[derive(Clone, Debug)]
struct Saved {
    x: NodeId,
    weight: NodeId,
    rectified: Option<FlexTensor>,
    stride: usize,
    before: [usize; 3],
}

#[derive(Debug)]
struct DenseConv;

impl Backward<Flex, 3> for DenseConv {
    type State = Saved;

    fn backward(self, ops: Ops<Saved, 3>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let [x_node, weight_node, bias_node] = ops.parents;
        let saved = ops.state;
        let mut gradient = grads.consume::<Flex>(&ops.node);
        if let Some(output) = saved.rectified {
            let shape = gradient.shape();
            let through = through_relu(&Values::of(&output), &Values::of(&gradient));
            gradient = tensor(through, shape);
        }
        let x: FlexTensor = checkpointer.retrieve_node_output(saved.x);
        let weight: FlexTensor = checkpointer.retrieve_node_output(saved.weight);
        let (shape, weight_shape) = (x.shape(), weight.shape());
        let [x, weight, gradient] = [x, weight, gradient].map(|operand| Values::of(&operand));
        let conv = conv_of(&shape, &weight, &weight_shape, saved.stride, saved.before);
        let level = Level::current();
        // Only what is asked for: the first layer of a network has an input that nobody differentiates.
        if let Some(node) = weight_node {
            let of_weight = conv.weight_gradient(level, &x, &gradient);
            grads.register::<Flex>(node.id, tensor(of_weight, weight_shape.clone()));
        }
        if let Some(node) = bias_node {
            let channels = conv.channels_out;
            let of_bias = sum_of_rows(&gradient, channels);
            grads.register::<Flex>(node.id, tensor(of_bias, [channels]));
        }
        if let Some(node) = x_node {
            let of_x = conv.input_gradient(level, &gradient);
            grads.register::<Flex>(node.id, tensor(of_x, shape));
        }
    }
}

/// See [`KernelOps::dense_conv_3d`].
pub(super) fn forward<C: CheckpointStrategy>(
    x: FloatTensor<Autodiff<Flex, C>>,
    weight: FloatTensor<Autodiff<Flex, C>>,
    bias: FloatTensor<Autodiff<Flex, C>>,
    stride: usize,
    before: [usize; 3],
    rectify: bool,
) -> FloatTensor<Autodiff<Flex, C>> {
    if !all_f32(&[x.primitive(), weight.primitive(), bias.primitive()]) {
        return reference::forward::<Autodiff<Flex, C>>(x, weight, bias, stride, before, rectify);
    }
    let nodes = [x.node(), weight.node(), bias.node()];
    let forward = |operands: [FloatTensor<Autodiff<Flex, C>>; 3]| {
        let [x, weight, bias] = operands.map(|operand| operand.into_primitive());
        Flex::dense_conv_3d(x, weight, bias, stride, before, rectify)
    };
    match DenseConv.prepare::<C>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(mut prep) => {
            let [x_node, weight_node] = [&x, &weight].map(|operand| prep.checkpoint(operand));
            let output = forward([x, weight, bias]);
            let saved = Saved {
                x: x_node,
                weight: weight_node,
                rectified: rectify.then(|| output.clone()),
                stride,
                before,
            };
            prep.finish(saved, output)
        }
        OpsKind::UnTracked(prep) => prep.finish(forward([x, weight, bias])),
    }
}
