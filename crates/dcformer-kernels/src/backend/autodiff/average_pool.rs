//! Gradient of [`average_pool`](crate::average_pool()): it keeps the sizes.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Flex, TensorMetadata};

use super::super::flex::{Values, all_f32, tensor};
use crate::KernelOps;
use crate::average_pool::{cpu, reference};
use crate::geometry::Geometry;
use crate::simd::Level;

#[derive(Debug)]
struct AveragePool;

impl Backward<Flex, 1> for AveragePool {
    type State = Geometry;

    fn backward(self, ops: Ops<Geometry, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let [node] = ops.parents;
        let gradient = Values::of(&grads.consume::<Flex>(&ops.node));
        let out = cpu::backward(Level::current(), &gradient, ops.state);
        register!(grads, node, out, ops.state.shape());
    }
}

/// See [`KernelOps::average_pool_3d`].
pub(super) fn forward<C: CheckpointStrategy>(
    x: FloatTensor<Autodiff<Flex, C>>,
) -> FloatTensor<Autodiff<Flex, C>> {
    if !all_f32(&[x.primitive()]) {
        return reference::forward::<Autodiff<Flex, C>>(x);
    }
    let geometry = Geometry::of(&x.primitive().shape());
    match AveragePool
        .prepare::<C>([x.node()])
        .compute_bound()
        .stateful()
    {
        OpsKind::Tracked(prep) => prep.finish(geometry, Flex::average_pool_3d(x.into_primitive())),
        OpsKind::UnTracked(prep) => prep.finish(Flex::average_pool_3d(x.into_primitive())),
    }
}
