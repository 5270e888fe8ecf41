//! Gradient of [`depthwise_conv`](crate::depthwise_conv()): it keeps the operands.

use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Flex, TensorMetadata};

use super::super::flex::{Values, all_f32, tensor, window};
use crate::KernelOps;
use crate::depthwise_conv::{backward, cpu, reference};
use crate::geometry::Geometry;
use crate::simd::Level;

#[derive(Clone, Debug)]
struct Saved {
    x: NodeId,
    weight: NodeId,
    before: [usize; 3],
}

#[derive(Debug)]
struct DepthwiseConv;

impl Backward<Flex, 3> for DepthwiseConv {
    type State = Saved;

    fn backward(self, ops: Ops<Saved, 3>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let [x_node, weight_node, bias_node] = ops.parents;
        let gradient = Values::of(&grads.consume::<Flex>(&ops.node));
        let x: FlexTensor = checkpointer.retrieve_node_output(ops.state.x);
        let weight: FlexTensor = checkpointer.retrieve_node_output(ops.state.weight);
        let (level, geometry) = (Level::current(), Geometry::of(&x.shape()));
        let window = window(&weight.shape(), ops.state.before);
        if weight_node.is_some() || bias_node.is_some() {
            let values = Values::of(&x);
            let out = backward::filter_gradients(level, &values, window, &gradient, geometry);
            register!(grads, weight_node, out.weight, weight.shape());
            register!(grads, bias_node, out.bias, [geometry.channels]);
        }
        if let Some(node) = x_node {
            let filters = cpu::Filters {
                weight: &Values::of(&weight),
                window,
            };
            let of_x = cpu::input_gradient(level, filters, &gradient, geometry);
            grads.register::<Flex>(node.id, tensor(of_x, geometry.shape()));
        }
    }
}

/// See [`KernelOps::depthwise_conv_3d`].
pub(super) fn forward<C: CheckpointStrategy>(
    x: FloatTensor<Autodiff<Flex, C>>,
    weight: FloatTensor<Autodiff<Flex, C>>,
    bias: FloatTensor<Autodiff<Flex, C>>,
    before: [usize; 3],
) -> FloatTensor<Autodiff<Flex, C>> {
    if !all_f32(&[x.primitive(), weight.primitive(), bias.primitive()]) {
        return reference::forward::<Autodiff<Flex, C>>(x, weight, bias, before);
    }
    let nodes = [x.node(), weight.node(), bias.node()];
    match DepthwiseConv.prepare::<C>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(mut prep) => {
            let saved = Saved {
                x: prep.checkpoint(&x),
                weight: prep.checkpoint(&weight),
                before,
            };
            let [x, weight, bias] = [x, weight, bias].map(|operand| operand.into_primitive());
            prep.finish(saved, Flex::depthwise_conv_3d(x, weight, bias, before))
        }
        OpsKind::UnTracked(prep) => {
            let [x, weight, bias] = [x, weight, bias].map(|operand| operand.into_primitive());
            prep.finish(Flex::depthwise_conv_3d(x, weight, bias, before))
        }
    }
}
