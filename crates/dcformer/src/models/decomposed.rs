//! Decomposed convolution with its norms: a neighbourhood of k x k x k reached by three 1-D convolutions.
//!
//! ```text
//! y = norm_h(conv_h(x)) + norm_w(conv_w(x)) + norm_d(conv_d(x))
//! ```
//!
//! Dense, it makes the stem; depthwise, it is the token mixer of a block (paper section 3, SPEC section 1). The authors'
//! network turns its input from (depth, height, width) to (height, width, depth) first, so their branches `c1`, `c2`, `c3`
//! run along height, width and depth; here the branches carry their axis in their name (P2).

use burn::module::{Module, Param};
use burn::nn::Initializer;
use burn::tensor::{Device, Tensor};
use dcformer_kernels::{
    Normalized, dense_decomposed_conv, dense_decomposed_norm, depthwise_decomposed_conv,
    depthwise_decomposed_norm,
};

use super::batch_norm::{BATCH_NORM_EPSILON, BatchNorm, Statistics};
use super::cache::Cache;
use crate::complexity::{Bias, Cost};

/// A decomposed convolution and its three norms.
///
/// # Shapes
/// - input: `[batch, depth, height, width, channels_in]`
/// - output: `[batch, ceil(depth / stride), ceil(height / stride), ceil(width / stride), channels_out]`
#[derive(Module, Debug)]
pub struct DecomposedConv {
    height: Branch,
    width: Branch,
    depth: Branch,
    #[module(skip)]
    connection: Connection,
    folded: Cache<Folded>,
}

#[derive(Clone, Copy, Debug)]
enum Connection {
    /// Every output channel reads every input channel; a window starts at every `stride`-th voxel.
    Dense { stride: usize },
    /// Every channel reads itself, at every voxel.
    Depthwise,
}

/// Weights with the norms multiplied in.
#[derive(Clone, Debug)]
pub(super) struct Folded {
    /// `[3, taps, channels_in, channels_out]`, or for depthwise `[3, taps, 1, channels]`; depth, height, width.
    pub(super) weight: Tensor<4>,
    /// `[channels_out]`
    pub(super) bias: Tensor<1>,
}

impl DecomposedConv {
    /// A dense convolution of `taps` taps along each axis, with fresh weights.
    pub fn dense(
        [channels_in, channels_out]: [usize; 2],
        taps: usize,
        stride: usize,
        device: &Device,
    ) -> Self {
        Self::new(
            channels_in,
            channels_out,
            taps,
            Connection::Dense { stride },
            device,
        )
    }

    /// A depthwise convolution of `taps` taps along each axis, with fresh weights.
    pub fn depthwise(channels: usize, taps: usize, device: &Device) -> Self {
        Self::new(1, channels, taps, Connection::Depthwise, device)
    }

    fn new(
        inputs: usize,
        outputs: usize,
        taps: usize,
        connection: Connection,
        device: &Device,
    ) -> Self {
        Self {
            height: Branch::new([outputs, inputs, taps, 1, 1], device),
            width: Branch::new([outputs, inputs, 1, taps, 1], device),
            depth: Branch::new([outputs, inputs, 1, 1, taps], device),
            connection,
            folded: Cache::default(),
        }
    }

    /// The sum of the three normalised branches.
    pub fn forward(&self, x: Tensor<5>, statistics: Statistics) -> Tensor<5> {
        if self.uses_running(&x, statistics) {
            return self.forward_running(x);
        }
        let normalized = self.forward_batch(x);
        if statistics == Statistics::ByDevice {
            self.move_running(&normalized);
        }
        normalized.output
    }

    /// Whether the norms are constants for this input, so that [`folded`](Self::folded) weights serve.
    pub(super) fn uses_running(&self, x: &Tensor<5>, statistics: Statistics) -> bool {
        self.height.norm.uses_running(x, statistics)
    }

    fn forward_batch(&self, x: Tensor<5>) -> Normalized {
        let gamma = self.stack(|branch| branch.norm.gamma.val());
        let beta = self.stack(|branch| branch.norm.beta.val());
        let weight = self.weight();
        match self.connection {
            Connection::Dense { stride } => {
                dense_decomposed_norm(x, weight, gamma, beta, stride, BATCH_NORM_EPSILON)
            }
            Connection::Depthwise => {
                depthwise_decomposed_norm(x, weight.squeeze_dim(2), gamma, beta, BATCH_NORM_EPSILON)
            }
        }
    }

    /// The weights with the running statistics multiplied in.
    pub(super) fn folded(&self) -> Folded {
        // Tracked weights need their gradient through the folding, so nothing of it may be kept.
        if self.height.weight.lazy_device().is_autodiff() {
            self.fold()
        } else {
            self.folded.get_or(|| self.fold())
        }
    }

    fn forward_running(&self, x: Tensor<5>) -> Tensor<5> {
        let Folded { weight, bias } = self.folded();
        match self.connection {
            Connection::Dense { stride } => dense_decomposed_conv(x, weight, bias, stride),
            Connection::Depthwise => depthwise_decomposed_conv(x, weight.squeeze_dim(2), bias),
        }
    }

    /// The branches in the order of the kernels: depth, height, width (P2). The only place that knows it.
    fn in_kernel_order(&self) -> [&Branch; 3] {
        [&self.depth, &self.height, &self.width]
    }

    fn stack<const D: usize, const STACKED: usize>(
        &self,
        of: impl Fn(&Branch) -> Tensor<D>,
    ) -> Tensor<STACKED> {
        Tensor::stack(self.in_kernel_order().map(of).to_vec(), 0)
    }

    /// `[3, taps, channels_in, channels_out]`
    fn weight(&self) -> Tensor<4> {
        self.stack(Branch::taps)
    }

    fn fold(&self) -> Folded {
        let affine = |branch: &Branch| branch.norm.affine_after_bias(branch.bias.val());
        let scale: Tensor<2> = self.stack(|branch| affine(branch).scale);
        let shift: Tensor<2> = self.stack(|branch| affine(branch).shift);
        Folded {
            weight: self.weight() * scale.unsqueeze_dims::<4>(&[1, 1]),
            bias: shift.sum_dim(0).squeeze_dim(0),
        }
    }

    fn move_running(&self, batch: &Normalized) {
        for (index, branch) in self.in_kernel_order().into_iter().enumerate() {
            let row = |of: &Tensor<2>| of.clone().narrow(0, index, 1).squeeze_dim::<1>(0);
            // The kernels leave out the bias, which normalisation takes away again.
            let mean = row(&batch.mean) + branch.bias.val();
            branch
                .norm
                .move_running(mean, row(&batch.variance), batch.count);
        }
        self.folded.clear();
    }

    /// What a [`dense`](Self::dense) one costs at `positions` outputs.
    pub(super) fn dense_cost(widths: [usize; 2], taps: usize, positions: usize) -> Cost {
        Self::cost(widths[1], positions, |cost, axis| {
            cost.conv(axis, widths, taps, positions, Bias::With);
        })
    }

    /// What a [`depthwise`](Self::depthwise) one costs at `positions` outputs.
    pub(super) fn depthwise_cost(channels: usize, taps: usize, positions: usize) -> Cost {
        Self::cost(channels, positions, |cost, axis| {
            cost.depthwise(axis, channels, taps, positions, Bias::With);
        })
    }

    fn cost(outputs: usize, positions: usize, branch: impl Fn(&mut Cost, &str)) -> Cost {
        let mut cost = Cost::default();
        cost.sum_of(&["height", "width", "depth"], |cost, axis| {
            branch(cost, axis);
            cost.norm(&format!("{axis}.norm"), outputs, positions);
        });
        cost
    }
}

/// A 1-D convolution along one axis and its norm.
#[derive(Module, Debug)]
pub struct Branch {
    /// `[channels_out, channels_in, height, width, depth]` with one axis longer than 1: the authors' shape (P2).
    weight: Param<Tensor<5>>,
    /// `[channels_out]`. It moves the running mean and nothing else: the norm takes it away, so its gradient is zero.
    bias: Param<Tensor<1>>,
    norm: BatchNorm,
}

impl Branch {
    fn new(shape: [usize; 5], device: &Device) -> Self {
        let (weight, bias) = fresh_filters(shape, device);
        Self {
            weight,
            bias,
            norm: BatchNorm::new(shape[0], device),
        }
    }

    /// The weight as `[taps, channels_in, channels_out]`.
    fn taps(&self) -> Tensor<3> {
        taps_first(self.weight.val())
    }
}

/// Fresh weight and bias of a convolution, `[channels_out, channels_in, ..]` and `[channels_out]`: PyTorch's default,
/// uniform within one over the root of the inputs of an output, for both.
pub(super) fn fresh_filters(
    shape: [usize; 5],
    device: &Device,
) -> (Param<Tensor<5>>, Param<Tensor<1>>) {
    let uniform = Initializer::KaimingUniform {
        gain: 1.0 / 3f64.sqrt(),
        fan_out_only: false,
    };
    let fan_in = shape[1..].iter().product();
    (
        uniform.init_with(shape, Some(fan_in), None, device),
        uniform.init_with([shape[0]], Some(fan_in), None, device),
    )
}

/// A filter along one axis as `[taps, channels_in, channels_out]`.
fn taps_first(weight: Tensor<5>) -> Tensor<3> {
    let [outputs, inputs, height, width, depth] = weight.dims();
    weight
        .reshape([outputs, inputs, height * width * depth])
        .permute([2, 1, 0])
}

/// A depthwise convolution along one axis, without a norm.
#[derive(Module, Debug)]
pub(super) struct AxisConv {
    /// `[channels, 1, height, width, depth]` with one axis longer than 1 (P2).
    weight: Param<Tensor<5>>,
    /// `[channels]`
    bias: Param<Tensor<1>>,
}

impl AxisConv {
    /// With fresh weights of this shape.
    pub(super) fn new(shape: [usize; 5], device: &Device) -> Self {
        let (weight, bias) = fresh_filters(shape, device);
        Self { weight, bias }
    }

    /// The weight as `[taps, channels]`.
    pub(super) fn taps(&self) -> Tensor<2> {
        taps_first(self.weight.val()).squeeze_dim(1)
    }

    /// `[channels]`
    pub(super) fn bias(&self) -> Tensor<1> {
        self.bias.val()
    }
}
