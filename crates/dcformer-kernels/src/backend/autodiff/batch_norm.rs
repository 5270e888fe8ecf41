//! Gradient of [`batch_norm`](crate::batch_norm()): it keeps the operands and the statistics.

use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, AutodiffBackend, Flex, TensorMetadata};

use super::super::flex::{Values, all_f32, tensor};
use crate::KernelOps;
use crate::batch_norm::{cpu, reference};
use crate::simd::Level;
use crate::statistics::Statistics;

/// Operands of a batch norm and its statistics.
#[derive(Clone, Debug)]
struct Saved {
    operands: [NodeId; 3],
    mean: FlexTensor,
    variance: FlexTensor,
    epsilon: f64,
    rectify: bool,
}

#[derive(Debug)]
struct BatchNorm;

impl Backward<Flex, 3> for BatchNorm {
    type State = Saved;

    fn backward(self, ops: Ops<Saved, 3>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let [x_node, gamma_node, beta_node] = ops.parents;
        let gradient = grads.consume::<Flex>(&ops.node);
        let saved = ops.state;
        let [x, gamma, beta] = saved
            .operands
            .map(|node| checkpointer.retrieve_node_output::<FlexTensor>(node));
        let (shape, channels) = (x.shape(), gamma.shape());
        let [x, gamma, beta] = [x, gamma, beta].map(|operand| Values::of(&operand));
        let table = |table| Values::of(table).iter().map(|v| f64::from(*v)).collect();
        let statistics = Statistics {
            mean: table(&saved.mean),
            variance: table(&saved.variance),
        };
        let out = cpu::backward(
            Level::current(),
            &x,
            [&gamma, &beta],
            &statistics,
            saved.epsilon,
            saved.rectify,
            &Values::of(&gradient),
        );
        register!(grads, x_node, out.x, shape);
        register!(grads, gamma_node, out.gamma, channels.clone());
        register!(grads, beta_node, out.beta, channels);
    }
}

/// A tensor of the backend that differentiates.
type Tracked<C> = FloatTensor<Autodiff<Flex, C>>;

/// See [`KernelOps::batch_norm_rows`].
pub(super) fn forward<C: CheckpointStrategy>(
    x: Tracked<C>,
    gamma: Tracked<C>,
    beta: Tracked<C>,
    epsilon: f64,
    rectify: bool,
) -> (Tracked<C>, Tracked<C>, Tracked<C>) {
    if !all_f32(&[x.primitive(), gamma.primitive(), beta.primitive()]) {
        return reference::forward::<Autodiff<Flex, C>>(x, gamma, beta, epsilon, rectify);
    }
    let nodes = [x.node(), gamma.node(), beta.node()];
    let forward = |operands: [Tracked<C>; 3]| {
        let [x, gamma, beta] = operands.map(|operand| operand.into_primitive());
        Flex::batch_norm_rows(x, gamma, beta, epsilon, rectify)
    };
    let (output, mean, variance) = match BatchNorm.prepare::<C>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(mut prep) => {
            let operands = [&x, &gamma, &beta].map(|operand| prep.checkpoint(operand));
            let (output, mean, variance) = forward([x, gamma, beta]);
            let saved = Saved {
                operands,
                mean: mean.clone(),
                variance: variance.clone(),
                epsilon,
                rectify,
            };
            (prep.finish(saved, output), mean, variance)
        }
        OpsKind::UnTracked(prep) => {
            let (output, mean, variance) = forward([x, gamma, beta]);
            (prep.finish(output), mean, variance)
        }
    };
    (
        output,
        Autodiff::<Flex, C>::from_inner(mean),
        Autodiff::<Flex, C>::from_inner(variance),
    )
}
