//! Gradients on the CPU backend: what each operation keeps, and which function turns it into gradients.
//!
//! Other backends use the definitions, which the framework differentiates by itself.

use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, AutodiffBackend, Flex, TensorMetadata};

use super::flex::{Values, all_f32, dense_filters, depthwise_filters, tensor};
use crate::attention::{self, cpu::Attention};
use crate::geometry::Geometry;
use crate::kept::Kept;
use crate::mlp::{self, cpu::Mlp};
use crate::simd::Level;
use crate::statistics::Statistics;
use crate::{KernelOps, dense_decomposed, depthwise_decomposed, gelu, layer_norm, max_pool};

/// What the backward pass of a normalised convolution needs: its operands and the batch statistics. The branches are
/// recomputed; keeping them would cost three times the output.
#[derive(Clone, Debug)]
struct NormSaved {
    x: NodeId,
    weight: NodeId,
    gamma: NodeId,
    mean: FlexTensor,
    variance: FlexTensor,
    stride: usize,
    epsilon: f64,
}

impl NormSaved {
    fn statistics(&self) -> [Statistics; 3] {
        let (mean, variance) = (Values::of(&self.mean), Values::of(&self.variance));
        [0, 1, 2].map(|branch| Statistics::of_branch(&mean, &variance, branch))
    }
}

/// The operands of a normalised convolution, fetched for the backward pass.
struct NormOperands {
    x: FlexTensor,
    weight: FlexTensor,
    gamma: FlexTensor,
}

impl NormOperands {
    fn fetch(saved: &NormSaved, checkpointer: &mut Checkpointer) -> Self {
        Self {
            x: checkpointer.retrieve_node_output(saved.x),
            weight: checkpointer.retrieve_node_output(saved.weight),
            gamma: checkpointer.retrieve_node_output(saved.gamma),
        }
    }
}

/// Registers a gradient for a parent that is tracked.
macro_rules! register {
    ($grads:ident, $parent:expr, $values:expr, $shape:expr) => {
        if let Some(node) = $parent {
            $grads.register::<Flex>(node.id, tensor($values, $shape));
        }
    };
}

mod average_pool;
mod batch_norm;
mod biased_attention;
mod dense_conv;
mod depthwise_conv;
mod gated_gelu;

#[derive(Debug)]
struct DenseNorm;

impl Backward<Flex, 4> for DenseNorm {
    type State = NormSaved;

    fn backward(
        self,
        ops: Ops<NormSaved, 4>,
        grads: &mut Gradients,
        checkpointer: &mut Checkpointer,
    ) {
        let [x_node, weight_node, gamma_node, beta_node] = ops.parents;
        let gradient = grads.consume::<Flex>(&ops.node);
        let saved = ops.state;
        let operands = NormOperands::fetch(&saved, checkpointer);
        let (x, weight, gamma) = (
            Values::of(&operands.x),
            Values::of(&operands.weight),
            Values::of(&operands.gamma),
        );
        let (level, geometry) = (Level::current(), Geometry::of(&operands.x.shape()));
        let filters = dense_filters(&weight, &operands.weight.shape());
        let out = dense_decomposed::training::norm_backward(
            level,
            &x,
            filters,
            &gamma,
            &saved.statistics(),
            saved.epsilon,
            &Values::of(&gradient),
            geometry,
            saved.stride,
        );
        // The largest buffer of the backward pass makes room for the next.
        drop(gradient);
        if let Some(node) = x_node {
            let of_x = dense_decomposed::training::input_gradient(
                level,
                &out.branches,
                filters,
                geometry,
                saved.stride,
            );
            grads.register::<Flex>(node.id, tensor(of_x, operands.x.shape()));
        }
        register!(grads, weight_node, out.weight, operands.weight.shape());
        register!(grads, gamma_node, out.gamma, operands.gamma.shape());
        register!(grads, beta_node, out.beta, operands.gamma.shape());
    }
}

#[derive(Debug)]
struct DepthwiseNorm;

impl Backward<Flex, 4> for DepthwiseNorm {
    type State = NormSaved;

    fn backward(
        self,
        ops: Ops<NormSaved, 4>,
        grads: &mut Gradients,
        checkpointer: &mut Checkpointer,
    ) {
        let [x_node, weight_node, gamma_node, beta_node] = ops.parents;
        let gradient = grads.consume::<Flex>(&ops.node);
        let saved = ops.state;
        let operands = NormOperands::fetch(&saved, checkpointer);
        let (x, weight, gamma) = (
            Values::of(&operands.x),
            Values::of(&operands.weight),
            Values::of(&operands.gamma),
        );
        let out = depthwise_decomposed::cpu::norm_backward(
            Level::current(),
            &x,
            depthwise_filters(&weight, &operands.weight.shape()),
            &gamma,
            &saved.statistics(),
            saved.epsilon,
            &Values::of(&gradient),
            Geometry::of(&operands.x.shape()),
        );
        register!(grads, x_node, out.x, operands.x.shape());
        register!(grads, weight_node, out.weight, operands.weight.shape());
        register!(grads, gamma_node, out.gamma, operands.gamma.shape());
        register!(grads, beta_node, out.beta, operands.gamma.shape());
    }
}

/// Which voxel of each window won, and the sizes of the input.
#[derive(Clone, Debug)]
struct PoolSaved {
    winners: Vec<u8>,
    geometry: Geometry,
}

#[derive(Debug)]
struct MaxPool;

impl Backward<Flex, 1> for MaxPool {
    type State = PoolSaved;

    fn backward(self, ops: Ops<PoolSaved, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let [node] = ops.parents;
        let gradient = grads.consume::<Flex>(&ops.node);
        let PoolSaved { winners, geometry } = ops.state;
        let out =
            max_pool::cpu::backward(Level::current(), &Values::of(&gradient), &winners, geometry);
        register!(grads, node, out, geometry.shape());
    }
}

#[derive(Debug)]
struct MlpBackward;

impl Backward<Flex, 5> for MlpBackward {
    /// All operands, and the hidden activations where there is room for them.
    type State = ([NodeId; 5], Option<Kept>);

    fn backward(
        self,
        ops: Ops<Self::State, 5>,
        grads: &mut Gradients,
        checkpointer: &mut Checkpointer,
    ) {
        let gradient = grads.consume::<Flex>(&ops.node);
        let (nodes, kept) = ops.state;
        let operands: [FlexTensor; 5] = nodes.map(|node| checkpointer.retrieve_node_output(node));
        let values = operands.each_ref().map(Values::of);
        let out = Mlp::of(&values, operands[0].shape()[0]).backward(
            Level::current(),
            &Values::of(&gradient),
            kept.map(Kept::into_values),
        );
        let gradients = [out.x, out.w1, out.b1, out.w2, out.b2];
        for ((parent, values), operand) in ops.parents.into_iter().zip(gradients).zip(&operands) {
            register!(grads, parent, values, operand.shape());
        }
    }
}

#[derive(Debug)]
struct Gelu;

impl Backward<Flex, 1> for Gelu {
    /// The input.
    type State = NodeId;

    fn backward(self, ops: Ops<NodeId, 1>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let [node] = ops.parents;
        let mut gradient = Values::of(&grads.consume::<Flex>(&ops.node)).to_vec();
        let x: FlexTensor = checkpointer.retrieve_node_output(ops.state);
        gelu::cpu::backward(
            Level::current(),
            &mut Values::of(&x).to_vec(),
            &mut gradient,
        );
        register!(grads, node, gradient, x.shape());
    }
}

/// Operands of a layer normalisation; the row statistics are recomputed.
#[derive(Clone, Debug)]
struct LayerNormSaved {
    x: NodeId,
    gamma: NodeId,
    epsilon: f64,
}

#[derive(Debug)]
struct LayerNorm;

impl Backward<Flex, 3> for LayerNorm {
    type State = LayerNormSaved;

    fn backward(
        self,
        ops: Ops<LayerNormSaved, 3>,
        grads: &mut Gradients,
        checkpointer: &mut Checkpointer,
    ) {
        let [x_node, gamma_node, beta_node] = ops.parents;
        let gradient = grads.consume::<Flex>(&ops.node);
        let x: FlexTensor = checkpointer.retrieve_node_output(ops.state.x);
        let gamma: FlexTensor = checkpointer.retrieve_node_output(ops.state.gamma);
        let (values, scale) = (Values::of(&x), Values::of(&gamma));
        let epsilon = ops.state.epsilon;
        let out = layer_norm::cpu::backward(
            Level::current(),
            &values,
            &scale,
            epsilon,
            &Values::of(&gradient),
        );
        register!(grads, x_node, out.x, x.shape());
        register!(grads, gamma_node, out.gamma, gamma.shape());
        register!(grads, beta_node, out.beta, gamma.shape());
    }
}

/// Operands of an attention; the weights are recomputed.
#[derive(Clone, Debug)]
struct AttentionSaved {
    operands: [NodeId; 3],
    lengths: Vec<usize>,
    heads: usize,
}

#[derive(Debug)]
struct AttentionBackward;

impl Backward<Flex, 3> for AttentionBackward {
    type State = AttentionSaved;

    fn backward(
        self,
        ops: Ops<AttentionSaved, 3>,
        grads: &mut Gradients,
        checkpointer: &mut Checkpointer,
    ) {
        let gradient = grads.consume::<Flex>(&ops.node);
        let AttentionSaved {
            operands,
            lengths,
            heads,
        } = ops.state;
        let operands: [FlexTensor; 3] =
            operands.map(|node| checkpointer.retrieve_node_output(node));
        let shape = operands[0].shape();
        let [q, k, v] = operands.each_ref().map(Values::of);
        let attention = Attention {
            q: &q,
            k: &k,
            v: &v,
            bias: None,
            lengths: &lengths,
            heads,
            channels: shape[1],
        };
        let out = attention.backward(Level::current(), &Values::of(&gradient));
        for (parent, values) in ops.parents.into_iter().zip([out.q, out.k, out.v]) {
            register!(grads, parent, values, shape.clone());
        }
    }
}

impl<C: CheckpointStrategy> KernelOps for Autodiff<Flex, C> {
    fn dense_decomposed_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        stride: usize,
        epsilon: f64,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        if !all_f32(&[
            x.primitive(),
            weight.primitive(),
            gamma.primitive(),
            beta.primitive(),
        ]) {
            return dense_decomposed::reference::norm::<Self>(
                x, weight, gamma, beta, stride, epsilon,
            );
        }
        let nodes = [x.node(), weight.node(), gamma.node(), beta.node()];
        let forward = |x, weight, gamma, beta| {
            Flex::dense_decomposed_norm(x, weight, gamma, beta, stride, epsilon)
        };
        let (output, mean, variance) =
            match DenseNorm.prepare::<C>(nodes).compute_bound().stateful() {
                OpsKind::Tracked(mut prep) => {
                    let [x_node, weight_node, gamma_node] =
                        [&x, &weight, &gamma].map(|operand| prep.checkpoint(operand));
                    let (output, mean, variance) = forward(
                        x.into_primitive(),
                        weight.into_primitive(),
                        gamma.into_primitive(),
                        beta.into_primitive(),
                    );
                    let saved = NormSaved {
                        x: x_node,
                        weight: weight_node,
                        gamma: gamma_node,
                        mean: mean.clone(),
                        variance: variance.clone(),
                        stride,
                        epsilon,
                    };
                    (prep.finish(saved, output), mean, variance)
                }
                OpsKind::UnTracked(prep) => {
                    let (output, mean, variance) = forward(
                        x.into_primitive(),
                        weight.into_primitive(),
                        gamma.into_primitive(),
                        beta.into_primitive(),
                    );
                    (prep.finish(output), mean, variance)
                }
            };
        (output, Self::from_inner(mean), Self::from_inner(variance))
    }

    fn depthwise_decomposed_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        epsilon: f64,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        if !all_f32(&[
            x.primitive(),
            weight.primitive(),
            gamma.primitive(),
            beta.primitive(),
        ]) {
            return depthwise_decomposed::reference::norm::<Self>(x, weight, gamma, beta, epsilon);
        }
        let nodes = [x.node(), weight.node(), gamma.node(), beta.node()];
        let forward = |x, weight, gamma, beta| {
            Flex::depthwise_decomposed_norm(x, weight, gamma, beta, epsilon)
        };
        let (output, mean, variance) =
            match DepthwiseNorm.prepare::<C>(nodes).compute_bound().stateful() {
                OpsKind::Tracked(mut prep) => {
                    let [x_node, weight_node, gamma_node] =
                        [&x, &weight, &gamma].map(|operand| prep.checkpoint(operand));
                    let (output, mean, variance) = forward(
                        x.into_primitive(),
                        weight.into_primitive(),
                        gamma.into_primitive(),
                        beta.into_primitive(),
                    );
                    let saved = NormSaved {
                        x: x_node,
                        weight: weight_node,
                        gamma: gamma_node,
                        mean: mean.clone(),
                        variance: variance.clone(),
                        stride: 1,
                        epsilon,
                    };
                    (prep.finish(saved, output), mean, variance)
                }
                OpsKind::UnTracked(prep) => {
                    let (output, mean, variance) = forward(
                        x.into_primitive(),
                        weight.into_primitive(),
                        gamma.into_primitive(),
                        beta.into_primitive(),
                    );
                    (prep.finish(output), mean, variance)
                }
            };
        (output, Self::from_inner(mean), Self::from_inner(variance))
    }

    fn depthwise_conv_3d(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        before: [usize; 3],
    ) -> FloatTensor<Self> {
        depthwise_conv::forward::<C>(x, weight, bias, before)
    }

    fn average_pool_3d(x: FloatTensor<Self>) -> FloatTensor<Self> {
        average_pool::forward::<C>(x)
    }

    fn dense_conv_3d(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        stride: usize,
        before: [usize; 3],
        rectify: bool,
    ) -> FloatTensor<Self> {
        dense_conv::forward::<C>(x, weight, bias, stride, before, rectify)
    }

    fn batch_norm_rows(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        epsilon: f64,
        rectify: bool,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        batch_norm::forward::<C>(x, gamma, beta, epsilon, rectify)
    }

    fn max_pool_3d(x: FloatTensor<Self>) -> FloatTensor<Self> {
        if !all_f32(&[x.primitive()]) {
            return max_pool::reference::forward::<Self>(x);
        }
        let geometry = Geometry::of(&x.primitive().shape());
        match MaxPool.prepare::<C>([x.node()]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let pooled =
                    max_pool::cpu::forward(Level::current(), &Values::of(x.primitive()), geometry);
                let output = tensor(pooled.values, geometry.strided(2).shape());
                prep.finish(
                    PoolSaved {
                        winners: pooled.winners,
                        geometry,
                    },
                    output,
                )
            }
            OpsKind::UnTracked(prep) => prep.finish(Flex::max_pool_3d(x.into_primitive())),
        }
    }

    fn mlp(
        x: FloatTensor<Self>,
        w1: FloatTensor<Self>,
        b1: FloatTensor<Self>,
        w2: FloatTensor<Self>,
        b2: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        if !all_f32(&[
            x.primitive(),
            w1.primitive(),
            b1.primitive(),
            w2.primitive(),
            b2.primitive(),
        ]) {
            return mlp::reference::forward::<Self>(x, w1, b1, w2, b2);
        }
        let nodes = [x.node(), w1.node(), b1.node(), w2.node(), b2.node()];
        let prepared = MlpBackward.prepare::<C>(nodes).compute_bound().stateful();
        match prepared {
            OpsKind::Tracked(mut prep) => {
                let nodes = [&x, &w1, &b1, &w2, &b2].map(|operand| prep.checkpoint(operand));
                let operands = [x, w1, b1, w2, b2].map(|operand| operand.into_primitive());
                let (rows, columns) = (operands[0].shape()[0], operands[4].shape()[0]);
                let values = operands.each_ref().map(Values::of);
                let (operation, level) = (Mlp::of(&values, rows), Level::current());
                let (out, kept) = Kept::with_room(
                    operation.hidden_len(),
                    || operation.forward_keeping(level),
                    || operation.forward(level),
                );
                prep.finish((nodes, kept), tensor(out, [rows, columns]))
            }
            OpsKind::UnTracked(prep) => {
                let [x, w1, b1, w2, b2] =
                    [x, w1, b1, w2, b2].map(|operand| operand.into_primitive());
                prep.finish(Flex::mlp(x, w1, b1, w2, b2))
            }
        }
    }

    fn exact_gelu(x: FloatTensor<Self>) -> FloatTensor<Self> {
        if !all_f32(&[x.primitive()]) {
            return gelu::reference::forward::<Self>(x);
        }
        match Gelu.prepare::<C>([x.node()]).compute_bound().stateful() {
            OpsKind::Tracked(mut prep) => {
                let saved = prep.checkpoint(&x);
                prep.finish(saved, Flex::exact_gelu(x.into_primitive()))
            }
            OpsKind::UnTracked(prep) => prep.finish(Flex::exact_gelu(x.into_primitive())),
        }
    }

    fn gated_gelu_rows(x: FloatTensor<Self>) -> FloatTensor<Self> {
        gated_gelu::forward::<C>(x)
    }

    fn layer_norm_rows(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        epsilon: f64,
    ) -> FloatTensor<Self> {
        if !all_f32(&[x.primitive(), gamma.primitive(), beta.primitive()]) {
            return layer_norm::reference::forward::<Self>(x, gamma, beta, epsilon);
        }
        let nodes = [x.node(), gamma.node(), beta.node()];
        let forward = |operands: [FloatTensor<Self>; 3]| {
            let [x, gamma, beta] = operands.map(|operand| operand.into_primitive());
            Flex::layer_norm_rows(x, gamma, beta, epsilon)
        };
        match LayerNorm.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(mut prep) => {
                let [x_node, gamma_node] = [&x, &gamma].map(|operand| prep.checkpoint(operand));
                let saved = LayerNormSaved {
                    x: x_node,
                    gamma: gamma_node,
                    epsilon,
                };
                prep.finish(saved, forward([x, gamma, beta]))
            }
            OpsKind::UnTracked(prep) => prep.finish(forward([x, gamma, beta])),
        }
    }

    fn packed_attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        lengths: Vec<usize>,
        heads: usize,
    ) -> FloatTensor<Self> {
        if !all_f32(&[q.primitive(), k.primitive(), v.primitive()]) {
            return attention::reference::forward::<Self>(q, k, v, None, &lengths, heads);
        }
        let nodes = [q.node(), k.node(), v.node()];
        let forward = |operands: [FloatTensor<Self>; 3], lengths| {
            let [q, k, v] = operands.map(|operand| operand.into_primitive());
            Flex::packed_attention(q, k, v, lengths, heads)
        };
        match AttentionBackward
            .prepare::<C>(nodes)
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(mut prep) => {
                let operands = [&q, &k, &v].map(|operand| prep.checkpoint(operand));
                let saved = AttentionSaved {
                    operands,
                    lengths: lengths.clone(),
                    heads,
                };
                prep.finish(saved, forward([q, k, v], lengths))
            }
            OpsKind::UnTracked(prep) => prep.finish(forward([q, k, v], lengths)),
        }
    }

    fn biased_attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        bias: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        biased_attention::forward::<C>(q, k, v, bias)
    }
}
