//! Decomposed convolution with its norms: a neighbourhood of k x k x k reached by three 1-D convolutions.
//!
//! ```text
//! y = norm_h(conv_h(x)) + norm_w(conv_w(x)) + norm_d(conv_d(x))
//! ```
//!
//! Dense, it makes the stem; depthwise, it is the token mixer of a block (paper section 3, SPEC section 1). The authors'
//! network turns its input from (depth, height, width) to (height, width, depth) first, so their branches `c1`, `c2`, `c3`
//! run along height, width and depth; here the branches carry their axis in their name (P2).

use burn::module::{Flag, Module, Param};
use burn::nn::Initializer;
use burn::tensor::{Device, Tensor};
use dcformer_kernels::{
    Normalized, dense_decomposed_conv, dense_decomposed_norm, depthwise_decomposed_conv,
    depthwise_decomposed_norm,
};

use super::buffer::Buffer;
use super::cache::Cache;

/// Added to a variance before its root is taken; PyTorch's default, which the authors keep.
pub const BATCH_NORM_EPSILON: f64 = 1e-5;

/// Share of a batch in the running statistics, `running = 0.9 running + 0.1 batch`; PyTorch's default.
pub const BATCH_NORM_MOMENTUM: f64 = 0.1;

/// Which mean and variance the norms use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Statistics {
    /// In training those of the batch, which also move the running ones; else the running ones. Training is an
    /// autodiff device and a module that was not frozen.
    #[default]
    ByDevice,
    /// Those of the batch; the running ones stay. For a forward pass that is repeated before the weights change, and
    /// must count once.
    Batch,
    /// The running ones, on every device: fine-tuning with frozen statistics.
    Running,
}

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
    training: Param<Flag>,
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
            training: Param::from_bool(true),
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
        match statistics {
            Statistics::ByDevice => !(x.device().is_autodiff() && self.training.is_enabled()),
            Statistics::Batch => false,
            Statistics::Running => true,
        }
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
        let scale: Tensor<2> = self.stack(|branch| branch.norm.scale());
        let shift: Tensor<2> = self.stack(|branch| {
            let norm = &branch.norm;
            norm.beta.val() + (branch.bias.val() - norm.running_mean.value()) * norm.scale()
        });
        Folded {
            weight: self.weight() * scale.unsqueeze_dims::<4>(&[1, 1]),
            bias: shift.sum_dim(0).squeeze_dim(0),
        }
    }

    fn move_running(&self, batch: &Normalized) {
        let count = batch.count as f64;
        // PyTorch keeps the unbiased variance; a single value has none, and its biased one is zero already.
        let unbiased = count / (count - 1.0).max(1.0);
        for (index, branch) in self.in_kernel_order().into_iter().enumerate() {
            let row = |of: &Tensor<2>| of.clone().narrow(0, index, 1).squeeze_dim::<1>(0);
            // The kernels leave out the bias, which normalisation takes away again.
            let mean = row(&batch.mean) + branch.bias.val();
            let variance = row(&batch.variance) * unbiased;
            let norm = &branch.norm;
            for (running, seen) in [(&norm.running_mean, mean), (&norm.running_var, variance)] {
                let kept = running.value() * (1.0 - BATCH_NORM_MOMENTUM);
                running.set(kept + seen.detach() * BATCH_NORM_MOMENTUM);
            }
        }
        self.folded.clear();
    }
}

/// A 1-D convolution along one axis and its norm.
#[derive(Module, Debug)]
pub struct Branch {
    /// `[channels_out, channels_in, height, width, depth]` with one axis longer than 1: the authors' shape (P2).
    weight: Param<Tensor<5>>,
    /// `[channels_out]`. It moves the running mean and nothing else: the norm takes it away, so its gradient is zero.
    bias: Param<Tensor<1>>,
    norm: BranchNorm,
}

impl Branch {
    fn new(shape: [usize; 5], device: &Device) -> Self {
        let [outputs, inputs, height, width, depth] = shape;
        let fan_in = inputs * height * width * depth;
        // PyTorch's default for convolutions, U(-1/sqrt(fan_in), 1/sqrt(fan_in)), for weight and bias.
        let uniform = Initializer::KaimingUniform {
            gain: 1.0 / 3f64.sqrt(),
            fan_out_only: false,
        };
        Self {
            weight: uniform.init_with(shape, Some(fan_in), None, device),
            bias: uniform.init_with([outputs], Some(fan_in), None, device),
            norm: BranchNorm::new(outputs, device),
        }
    }

    /// The weight as `[taps, channels_in, channels_out]`.
    fn taps(&self) -> Tensor<3> {
        let weight = self.weight.val();
        let [outputs, inputs, height, width, depth] = weight.dims();
        weight
            .reshape([outputs, inputs, height * width * depth])
            .permute([2, 1, 0])
    }
}

/// The norm of one branch, with running statistics as PyTorch keeps them.
#[derive(Module, Debug)]
pub struct BranchNorm {
    gamma: Param<Tensor<1>>,
    beta: Param<Tensor<1>>,
    running_mean: Buffer<1>,
    /// Unbiased.
    running_var: Buffer<1>,
}

impl BranchNorm {
    fn new(channels: usize, device: &Device) -> Self {
        Self {
            gamma: Initializer::Ones.init([channels], device),
            beta: Initializer::Zeros.init([channels], device),
            running_mean: Buffer::new(Tensor::zeros([channels], device)),
            running_var: Buffer::new(Tensor::ones([channels], device)),
        }
    }

    /// What a value is multiplied by when the running statistics are used.
    fn scale(&self) -> Tensor<1> {
        self.gamma.val() / (self.running_var.value() + BATCH_NORM_EPSILON).sqrt()
    }
}
