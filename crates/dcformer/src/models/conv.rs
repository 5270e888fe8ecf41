//! 3-D convolution of channels-last features, alone and with a batch norm.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use dcformer_kernels::{dense_conv, depthwise_conv};

use super::batch_norm::{Affine, BatchNorm, Statistics};
use super::cache::Cache;
use super::decomposed::fresh_filters;
use crate::complexity::{Bias, Cost};

/// Sizes of a [`Conv`].
#[derive(Clone, Copy, Debug)]
pub(super) struct ConvConfig {
    /// Of input and output.
    channels: [usize; 2],
    /// Taps along each axis.
    kernel: usize,
    stride: usize,
    depthwise: bool,
    bias: Bias,
}

impl ConvConfig {
    /// A convolution with a bias in which every output channel reads every input channel. An odd kernel is centred, with
    /// zeros around the grid; an even one is as long as the stride, and windows do not overlap.
    pub(super) fn dense(channels: [usize; 2], kernel: usize, stride: usize) -> Self {
        debug_assert!(
            kernel % 2 == 1 || kernel == stride,
            "an even kernel has no centre"
        );
        Self {
            channels,
            kernel,
            stride,
            depthwise: false,
            bias: Bias::With,
        }
    }

    /// A convolution with a bias in which every channel reads itself, at every position.
    pub(super) fn depthwise(channels: usize, kernel: usize) -> Self {
        Self {
            depthwise: true,
            ..Self::dense([channels; 2], kernel, 1)
        }
    }

    pub(super) fn without_bias(self) -> Self {
        Self {
            bias: Bias::Without,
            ..self
        }
    }

    pub(super) fn init(&self, device: &Device) -> Conv {
        let [inputs, outputs] = self.channels;
        let inputs = if self.depthwise { 1 } else { inputs };
        let kernel = self.kernel;
        let (weight, bias) = fresh_filters([outputs, inputs, kernel, kernel, kernel], device);
        Conv {
            weight,
            bias: (self.bias == Bias::With).then_some(bias),
            stride: self.stride,
            depthwise: self.depthwise,
            taps_first: Cache::default(),
            repacked: Cache::default(),
        }
    }

    /// Adds the layer called `name` to `cost`, for `positions` outputs.
    pub(super) fn cost(&self, cost: &mut Cost, name: &str, positions: usize) {
        let taps = self.kernel.pow(3);
        if self.depthwise {
            cost.depthwise(name, self.channels[1], taps, positions, self.bias);
        } else {
            cost.conv(name, self.channels, taps, positions, self.bias);
        }
    }
}

/// A 3-D convolution.
///
/// # Shapes
/// - input: `[batch, depth, height, width, channels_in]`
/// - output: `[batch, ceil(depth / stride), ceil(height / stride), ceil(width / stride), channels_out]`
#[derive(Module, Debug)]
pub(super) struct Conv {
    /// `[channels_out, channels_in, height, width, depth]`, or `[channels, 1, ..]` depthwise (P2).
    weight: Param<Tensor<5>>,
    bias: Option<Param<Tensor<1>>>,
    stride: usize,
    depthwise: bool,
    /// Of a depthwise one, see `taps_first`.
    taps_first: Cache<Tensor<4>>,
    /// Of any other.
    repacked: Cache<Filters>,
}

/// Weights as the kernels want them.
#[derive(Clone, Debug)]
struct Filters {
    /// `[depth, height, width, channels_in, channels_out]`
    weight: Tensor<5>,
    bias: Tensor<1>,
}

impl Filters {
    /// From weights in the order of a [`Conv`]'s.
    fn new(weight: Tensor<5>, bias: Option<Tensor<1>>) -> Self {
        let [outputs, ..] = weight.dims();
        let bias = bias.unwrap_or_else(|| Tensor::zeros([outputs], &weight.device()));
        Self {
            weight: taps_first(weight),
            bias,
        }
    }

    /// Those of `cache`, or of `compute`, which are kept unless they are tracked: then each pass needs its own.
    fn cached(cache: &Cache<Self>, tracked: bool, compute: impl FnOnce() -> Self) -> Self {
        if tracked {
            return compute();
        }
        cache.get_or(|| {
            let Self { weight, bias } = compute();
            let device = weight.device();
            // With a kernel of 1 it may be a view; a copy in the new order is what is to be kept.
            let weight = Tensor::from_data(weight.into_data(), &device);
            Self { weight, bias }
        })
    }

    fn convolve(self, x: Tensor<5>, stride: usize, rectify: bool) -> Tensor<5> {
        let [kernel, ..] = self.weight.dims();
        // Patches begin with their first voxel.
        let before = if kernel % 2 == 1 { kernel / 2 } else { 0 };
        dense_conv(x, self.weight, self.bias, stride, [before; 3], rectify)
    }
}

/// A [`Conv`]'s weight as `[depth, height, width, channels_in, channels_out]`.
fn taps_first(weight: Tensor<5>) -> Tensor<5> {
    let [outputs, inputs, kernel, ..] = weight.dims();
    let rows = kernel.pow(3) * inputs;
    // In two steps, each of which copies runs of memory; a reversal of all axes in one would go value by value.
    weight
        .reshape([outputs, rows])
        .transpose()
        .reshape([inputs, kernel, kernel, kernel, outputs])
        .permute([3, 1, 2, 0, 4])
        .reshape([rows, outputs])
        .reshape([kernel, kernel, kernel, inputs, outputs])
}

impl Conv {
    pub(super) fn forward(&self, x: Tensor<5>) -> Tensor<5> {
        if !self.depthwise {
            return self.filters().convolve(x, self.stride, false);
        }
        let weight = self.taps_first();
        let [kernel, _, _, channels] = weight.dims();
        let bias = self.bias.as_ref().map(Param::val);
        let bias = bias.unwrap_or_else(|| Tensor::zeros([channels], &x.device()));
        depthwise_conv(x, weight, bias, [kernel / 2; 3])
    }

    /// The weight of a depthwise convolution as the kernel takes it, `[depth, height, width, channels]`.
    fn taps_first(&self) -> Tensor<4> {
        let turned = || {
            // One channel goes into each.
            taps_first(self.weight.val()).squeeze_dim(3)
        };
        // Tracked weights need their gradient through it, so nothing may be kept.
        if self.is_tracked() {
            turned()
        } else {
            self.taps_first.get_or(turned)
        }
    }

    fn is_tracked(&self) -> bool {
        self.weight.lazy_device().is_autodiff()
    }

    fn filters(&self) -> Filters {
        Filters::cached(&self.repacked, self.is_tracked(), || {
            Filters::new(self.weight.val(), self.bias.as_ref().map(Param::val))
        })
    }
}

/// A convolution without bias and a batch norm.
#[derive(Module, Debug)]
pub(super) struct ConvNorm {
    conv: Conv,
    norm: BatchNorm,
    folded: Cache<Filters>,
}

impl ConvNorm {
    pub(super) fn new(conv: ConvConfig, device: &Device) -> Self {
        Self {
            norm: BatchNorm::new(conv.channels[1], device),
            conv: conv.without_bias().init(device),
            folded: Cache::default(),
        }
    }

    /// # Shapes
    /// As [`Conv`].
    pub(super) fn forward(&self, x: Tensor<5>, statistics: Statistics) -> Tensor<5> {
        self.through(x, statistics, false)
    }

    /// The ReLU of [`forward`](Self::forward).
    pub(super) fn forward_rectified(&self, x: Tensor<5>, statistics: Statistics) -> Tensor<5> {
        self.through(x, statistics, true)
    }

    fn through(&self, x: Tensor<5>, statistics: Statistics, rectify: bool) -> Tensor<5> {
        if self.norm.uses_running(&x, statistics) {
            return self.folded().convolve(x, self.conv.stride, rectify);
        }
        let x = self.conv.forward(x);
        let normalized = if rectify {
            self.norm.forward_rectified(x, statistics)
        } else {
            self.norm.forward(x, statistics)
        };
        self.folded.clear();
        normalized
    }

    /// The weights with the running statistics multiplied in.
    fn folded(&self) -> Filters {
        Filters::cached(&self.folded, self.conv.is_tracked(), || {
            let Affine { scale, shift } = self.norm.affine();
            let scale = scale.unsqueeze_dims::<5>(&[1, 2, 3, 4]);
            Filters::new(self.conv.weight.val() * scale, Some(shift))
        })
    }

    pub(super) fn cost(conv: ConvConfig, positions: usize) -> Cost {
        let mut cost = Cost::default();
        conv.without_bias().cost(&mut cost, "conv", positions);
        cost.norm("norm", conv.channels[1], positions);
        cost
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Distribution, TensorData};

    use super::*;

    /// The definition, one output at a time.
    fn formula(conv: &Conv, x: &Tensor<5>) -> (Vec<f32>, [usize; 5]) {
        let values = |tensor: Tensor<5>| -> Vec<f32> { tensor.into_data().try_to_vec().unwrap() };
        let [batch, depth, height, width, channels] = x.dims();
        let [outputs, inputs, kernel, ..] = conv.weight.dims();
        let (x, weight) = (values(x.clone()), values(conv.weight.val()));
        let bias: Option<Vec<f32>> = conv
            .bias
            .as_ref()
            .map(|bias| bias.val().into_data().try_to_vec().unwrap());
        let reach = if kernel % 2 == 1 { kernel / 2 } else { 0 };
        let sizes = [depth, height, width].map(|size| size.div_ceil(conv.stride));
        let mut out = Vec::new();
        let at = |n: usize, position: [usize; 3], c: usize| -> f32 {
            let [z, y, x_] = position.map(|index| index.wrapping_sub(reach));
            if z >= depth || y >= height || x_ >= width {
                return 0.0;
            }
            x[(((n * depth + z) * height + y) * width + x_) * channels + c]
        };
        for index in 0..batch * sizes.iter().product::<usize>() {
            let (n, rest) = (index / (sizes[0] * sizes[1] * sizes[2]), index);
            let window = [
                rest / (sizes[1] * sizes[2]) % sizes[0],
                rest / sizes[2] % sizes[1],
                rest % sizes[2],
            ];
            for output in 0..outputs {
                let mut sum = bias.as_ref().map_or(0.0, |bias| f64::from(bias[output]));
                for (tap, weight) in weight[output * inputs * kernel.pow(3)..]
                    [..inputs * kernel.pow(3)]
                    .iter()
                    .enumerate()
                {
                    let (input, tap) = (tap / kernel.pow(3), tap % kernel.pow(3));
                    // The file's order of a filter's axes is height, width, depth.
                    let (h, w, d) = (tap / kernel.pow(2), tap / kernel % kernel, tap % kernel);
                    let starts = window.map(|position| position * conv.stride);
                    let position = [starts[0] + d, starts[1] + h, starts[2] + w];
                    let channel = if conv.depthwise { output } else { input };
                    sum += f64::from(*weight) * f64::from(at(n, position, channel));
                }
                out.push(sum as f32);
            }
        }
        (out, [batch, sizes[0], sizes[1], sizes[2], outputs])
    }

    #[test]
    fn every_kind_of_convolution_is_its_formula() {
        let device = Device::flex();
        for config in [
            ConvConfig::dense([2, 3], 3, 1),
            ConvConfig::dense([2, 3], 3, 2).without_bias(),
            ConvConfig::dense([1, 4], 7, 4),
            ConvConfig::dense([2, 3], 2, 2),
            ConvConfig::dense([3, 2], 1, 1),
            ConvConfig::dense([3, 2], 1, 2).without_bias(),
            ConvConfig::depthwise(3, 5),
            ConvConfig::depthwise(3, 7).without_bias(),
        ] {
            let conv = config.init(&device);
            let shape = [2, 5, 3, 4, config.channels[0]];
            let x = Tensor::random(shape, Distribution::Uniform(-1.0, 1.0), &device);
            let (expected, shape) = formula(&conv, &x);
            let found = conv.forward(x);
            assert_eq!(found.dims(), shape, "{config:?}");
            let expected = Tensor::<5>::from_data(TensorData::new(expected, shape), &device);
            let far = (found - expected).abs().max().into_scalar::<f32>();
            // Sums of at most 343 products of order 1.
            assert!(far < 1e-5, "{config:?} is {far} away");
        }
    }

    #[test]
    fn a_norm_that_is_a_constant_is_part_of_the_weights() {
        let device = Device::flex().autodiff();
        let conv = ConvNorm::new(ConvConfig::dense([2, 3], 3, 2), &device);
        let x = Tensor::random([2, 6, 5, 4, 2], Distribution::Normal(1.0, 2.0), &device);
        // Moves the running statistics away from where they start.
        conv.forward(x.clone(), Statistics::ByDevice);
        let apart = conv
            .norm
            .forward(conv.conv.forward(x.clone()), Statistics::Running);
        let far = (conv.forward(x, Statistics::Running) - apart).abs().max();
        assert!(far.into_scalar::<f32>() < 1e-5);
    }
}
