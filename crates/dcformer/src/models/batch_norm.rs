//! Batch normalisation with running statistics as PyTorch keeps them.

use burn::module::{Flag, Module, Param};
use burn::nn::Initializer;
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor};
use dcformer_kernels::{batch_norm, batch_workers};

use super::buffer::Buffer;

/// Added to a variance before its root is taken; PyTorch's default, which the authors keep.
pub const BATCH_NORM_EPSILON: f64 = 1e-5;

/// Share of a batch in the running statistics, `running = 0.9 running + 0.1 batch`; PyTorch's default.
pub const BATCH_NORM_MOMENTUM: f64 = 0.1;

/// Which mean and variance the norms use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Statistics {
    /// Those of the batch in training, and the running ones move with them; in inference the running ones. Training is an
    /// autodiff device and a module that was not frozen.
    #[default]
    ByDevice,
    /// Those of the batch; the running ones stay. For a forward pass that is repeated before the weights change, and
    /// must count once.
    Batch,
    /// The running ones, on every device: fine-tuning with frozen statistics.
    Running,
}

/// Normalises channels over all positions of a batch.
#[derive(Module, Debug)]
pub struct BatchNorm {
    pub(super) gamma: Param<Tensor<1>>,
    pub(super) beta: Param<Tensor<1>>,
    running_mean: Buffer<1>,
    /// Unbiased.
    running_var: Buffer<1>,
    training: Param<Flag>,
}

/// A batch norm with running statistics multiplied out: `x * scale + shift`, each `[channels]`.
#[derive(Clone, Debug)]
pub(super) struct Affine {
    pub(super) scale: Tensor<1>,
    pub(super) shift: Tensor<1>,
}

impl BatchNorm {
    /// Names of the fields that move with the batches and that no optimiser trains.
    pub(crate) const RUNNING: [&str; 2] = ["running_mean", "running_var"];

    pub(super) fn new(channels: usize, device: &Device) -> Self {
        Self {
            gamma: Initializer::Ones.init([channels], device),
            beta: Initializer::Zeros.init([channels], device),
            running_mean: Buffer::new(Tensor::zeros([channels], device)),
            running_var: Buffer::new(Tensor::ones([channels], device)),
            training: Param::from_bool(true),
        }
    }

    /// Whether the norm is a constant for this input, an [`Affine`].
    pub(super) fn uses_running(&self, x: &Tensor<5>, statistics: Statistics) -> bool {
        match statistics {
            Statistics::ByDevice => !(x.device().is_autodiff() && self.training.is_enabled()),
            Statistics::Batch => false,
            Statistics::Running => true,
        }
    }

    /// The norm with its running statistics.
    pub(super) fn affine(&self) -> Affine {
        let scale = self.gamma.val() / (self.running_var.value() + BATCH_NORM_EPSILON).sqrt();
        Affine {
            shift: self.beta.val() - self.running_mean.value() * scale.clone(),
            scale,
        }
    }

    /// The norm with its running statistics, of values to which `bias` is to be added first.
    pub(super) fn affine_after_bias(&self, bias: Tensor<1>) -> Affine {
        let scale = self.affine().scale;
        Affine {
            shift: self.beta.val() + (bias - self.running_mean.value()) * scale.clone(),
            scale,
        }
    }

    /// # Shapes
    /// - input, output: `[batch, depth, height, width, channels]`
    pub(super) fn forward(&self, x: Tensor<5>, statistics: Statistics) -> Tensor<5> {
        self.through(x, statistics, false)
    }

    /// The ReLU of [`forward`](Self::forward).
    pub(super) fn forward_rectified(&self, x: Tensor<5>, statistics: Statistics) -> Tensor<5> {
        self.through(x, statistics, true)
    }

    fn through(&self, x: Tensor<5>, statistics: Statistics, rectify: bool) -> Tensor<5> {
        if self.uses_running(&x, statistics) {
            let Affine { scale, shift } = self.affine();
            let x = x * scale.unsqueeze() + shift.unsqueeze();
            return if rectify { relu(x) } else { x };
        }
        let shape = x.dims();
        let count = shape[..4].iter().product();
        let rows = x.reshape([count, shape[4]]);
        let (gamma, beta) = (self.gamma.val(), self.beta.val());
        let normalized = batch_norm(rows, gamma, beta, BATCH_NORM_EPSILON, rectify);
        if statistics == Statistics::ByDevice {
            self.move_running(normalized.mean, normalized.variance, count);
        }
        normalized.output.reshape(shape)
    }

    /// Moves the running statistics towards those of a batch of `count` values, of this worker if several share it;
    /// `variance` is biased.
    pub(super) fn move_running(&self, mean: Tensor<1>, variance: Tensor<1>, count: usize) {
        let count = (count * batch_workers()) as f64;
        // PyTorch keeps the unbiased variance (P10); a single value has none, and its biased one is zero already.
        let variance = variance * (count / (count - 1.0).max(1.0));
        for (running, seen) in [(&self.running_mean, mean), (&self.running_var, variance)] {
            let kept = running.value() * (1.0 - BATCH_NORM_MOMENTUM);
            running.set(kept + seen.detach() * BATCH_NORM_MOMENTUM);
        }
    }
}
