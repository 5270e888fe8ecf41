//! Gradient of [`gated_gelu`](crate::gated_gelu()): it keeps the input.

use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Flex, TensorMetadata};

use super::super::flex::{Values, all_f32, tensor};
use crate::KernelOps;
use crate::gelu::{cpu, reference};
use crate::simd::Level;

#[derive(Debug)]
struct GatedGelu;

impl Backward<Flex, 1> for GatedGelu {
    /// The input.
    type State = NodeId;

    fn backward(self, ops: Ops<NodeId, 1>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let [node] = ops.parents;
        let gradient = grads.consume::<Flex>(&ops.node);
        let x: FlexTensor = checkpointer.retrieve_node_output(ops.state);
        let out = cpu::gated_backward(
            Level::current(),
            &Values::of(&x),
            x.shape()[1] / 2,
            &Values::of(&gradient),
        );
        register!(grads, node, out, x.shape());
    }
}

/// See [`KernelOps::gated_gelu_rows`].
pub(super) fn forward<C: CheckpointStrategy>(
    x: FloatTensor<Autodiff<Flex, C>>,
) -> FloatTensor<Autodiff<Flex, C>> {
    if !all_f32(&[x.primitive()]) {
        return reference::gated::<Autodiff<Flex, C>>(x);
    }
    match GatedGelu
        .prepare::<C>([x.node()])
        .compute_bound()
        .stateful()
    {
        OpsKind::Tracked(mut prep) => {
            let saved = prep.checkpoint(&x);
            prep.finish(saved, Flex::gated_gelu_rows(x.into_primitive()))
        }
        OpsKind::UnTracked(prep) => prep.finish(Flex::gated_gelu_rows(x.into_primitive())),
    }
}
