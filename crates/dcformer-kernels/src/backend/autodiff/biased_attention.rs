//! Gradient of [`biased_attention`](crate::biased_attention): it keeps the operands and computes the weights again.

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
use crate::attention::{cpu::Attention, reference};
use crate::simd::Level;

#[derive(Debug)]
struct BiasedAttention;

impl Backward<Flex, 4> for BiasedAttention {
    /// All operands; the weights are recomputed.
    type State = [NodeId; 4];

    fn backward(
        self,
        ops: Ops<[NodeId; 4], 4>,
        grads: &mut Gradients,
        checkpointer: &mut Checkpointer,
    ) {
        let gradient = grads.consume::<Flex>(&ops.node);
        let operands: [FlexTensor; 4] = ops
            .state
            .map(|node| checkpointer.retrieve_node_output(node));
        let (shape, sizes) = (operands[0].shape(), operands[3].shape());
        let lengths = vec![sizes[1]; shape[0] / sizes[1]];
        let [q, k, v, bias] = operands.each_ref().map(Values::of);
        let attention = Attention {
            q: &q,
            k: &k,
            v: &v,
            bias: Some(&bias),
            lengths: &lengths,
            heads: sizes[0],
            channels: shape[1],
        };
        let out = attention.backward(Level::current(), &Values::of(&gradient));
        let of_bias = out.bias.expect("there is a bias");
        let gradients = [out.q, out.k, out.v, of_bias];
        for ((parent, values), operand) in ops.parents.into_iter().zip(gradients).zip(&operands) {
            register!(grads, parent, values, operand.shape());
        }
    }
}

/// See [`KernelOps::biased_attention`].
pub(super) fn forward<C: CheckpointStrategy>(
    q: FloatTensor<Autodiff<Flex, C>>,
    k: FloatTensor<Autodiff<Flex, C>>,
    v: FloatTensor<Autodiff<Flex, C>>,
    bias: FloatTensor<Autodiff<Flex, C>>,
) -> FloatTensor<Autodiff<Flex, C>> {
    if !all_f32(&[
        q.primitive(),
        k.primitive(),
        v.primitive(),
        bias.primitive(),
    ]) {
        return reference::biased::<Autodiff<Flex, C>>(q, k, v, bias);
    }
    let nodes = [q.node(), k.node(), v.node(), bias.node()];
    let forward = |operands: [FloatTensor<Autodiff<Flex, C>>; 4]| {
        let [q, k, v, bias] = operands.map(|operand| operand.into_primitive());
        Flex::biased_attention(q, k, v, bias)
    };
    match BiasedAttention
        .prepare::<C>(nodes)
        .compute_bound()
        .stateful()
    {
        OpsKind::Tracked(mut prep) => {
            let saved = [&q, &k, &v, &bias].map(|operand| prep.checkpoint(operand));
            prep.finish(saved, forward([q, k, v, bias]))
        }
        OpsKind::UnTracked(prep) => prep.finish(forward([q, k, v, bias])),
    }
}
