//! The CPU backend: operands taken apart, the fast version called.
//!
//! The fast versions are for `f32`; other types call the definition.

use burn::backend::flex::{FlexTensor, Layout};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Flex, TensorMetadata};
use burn::tensor::{Bytes, DType, Shape};

use crate::attention::{self, cpu::Attention};
use crate::average_pool;
use crate::dense_conv::{self, cpu::Conv};
use crate::dense_decomposed;
use crate::depthwise_conv::{self, lines::Window};
use crate::depthwise_decomposed;
use crate::geometry::Geometry;
use crate::mixer_mlp::{self, cpu::MixerMlp};
use crate::mlp::{self, cpu::Mlp};
use crate::simd::Level;
use crate::statistics::Statistics;
use crate::stem::{self, cpu::Stem};
use crate::{KernelOps, batch_norm, gelu, layer_norm, max_pool};

/// A tensor's values in row-major order; a copy only if it was a view of another order.
pub(crate) struct Values(FlexTensor);

impl Values {
    pub(crate) fn of(tensor: &FlexTensor) -> Self {
        Self(if tensor.as_slice::<f32>().is_some() {
            tensor.clone()
        } else {
            tensor.to_contiguous()
        })
    }
}

impl std::ops::Deref for Values {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        self.0
            .as_slice::<f32>()
            .expect("a contiguous f32 tensor, by construction")
    }
}

/// A tensor of `values`.
pub(crate) fn tensor(values: Vec<f32>, shape: impl Into<Shape>) -> FlexTensor {
    FlexTensor::new(
        Bytes::from_elems(values),
        Layout::contiguous(shape.into()),
        DType::F32,
    )
}

/// Whether the fast versions apply.
pub(crate) fn all_f32(tensors: &[&FlexTensor]) -> bool {
    tensors.iter().all(|tensor| tensor.dtype() == DType::F32)
}

pub(crate) fn dense_filters<'a>(
    weight: &'a Values,
    shape: &Shape,
) -> dense_decomposed::cpu::Filters<'a> {
    dense_decomposed::cpu::Filters {
        weight,
        taps: shape[1],
        channels_in: shape[2],
        channels_out: shape[3],
    }
}

/// The convolution of volumes like `x`.
pub(crate) fn conv_of<'a>(
    x: &Shape,
    weight: &'a Values,
    shape: &Shape,
    stride: usize,
    before: [usize; 3],
) -> Conv<'a> {
    Conv {
        weight,
        taps: [shape[0], shape[1], shape[2]],
        channels_out: shape[4],
        stride,
        before,
        geometry: Geometry::of(x),
    }
}

pub(crate) fn depthwise_filters<'a>(
    weight: &'a Values,
    shape: &Shape,
) -> depthwise_decomposed::cpu::Filters<'a> {
    depthwise_decomposed::cpu::Filters {
        weight,
        taps: shape[1],
    }
}

pub(crate) fn window(weight: &Shape, before: [usize; 3]) -> Window {
    Window {
        taps: [weight[0], weight[1], weight[2]],
        before,
    }
}

/// Mean and variance as `[3, channels]` tensors.
pub(crate) fn statistics_tensors(statistics: &[Statistics; 3], channels: usize) -> [FlexTensor; 2] {
    let table = |column: fn(&Statistics) -> &Vec<f64>| {
        let values = statistics
            .iter()
            .flat_map(column)
            .map(|value| *value as f32)
            .collect();
        tensor(values, [3, channels])
    };
    [
        table(|statistics| &statistics.mean),
        table(|statistics| &statistics.variance),
    ]
}

impl KernelOps for Flex {
    fn dense_decomposed_conv(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        stride: usize,
    ) -> FloatTensor<Self> {
        if !all_f32(&[&x, &weight, &bias]) {
            return dense_decomposed::reference::conv::<Self>(x, weight, bias, stride);
        }
        let geometry = Geometry::of(&x.shape());
        let (values, bias, weights) = (Values::of(&x), Values::of(&bias), Values::of(&weight));
        let filters = dense_filters(&weights, &weight.shape());
        let out = dense_decomposed::cpu::conv(
            Level::current(),
            &values,
            filters,
            &bias,
            geometry,
            stride,
        );
        tensor(
            out,
            geometry.strided(stride).with_channels(bias.len()).shape(),
        )
    }

    fn dense_decomposed_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        stride: usize,
        epsilon: f64,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        if !all_f32(&[&x, &weight, &gamma, &beta]) {
            return dense_decomposed::reference::norm::<Self>(
                x, weight, gamma, beta, stride, epsilon,
            );
        }
        let geometry = Geometry::of(&x.shape());
        let (values, weights) = (Values::of(&x), Values::of(&weight));
        let (gamma, beta) = (Values::of(&gamma), Values::of(&beta));
        let filters = dense_filters(&weights, &weight.shape());
        let affine = [&*gamma, &*beta];
        let (out, statistics) = dense_decomposed::training::norm(
            Level::current(),
            &values,
            filters,
            affine,
            epsilon,
            geometry,
            stride,
        );
        let channels = filters.channels_out;
        let [mean, variance] = statistics_tensors(&statistics, channels);
        (
            tensor(
                out,
                geometry.strided(stride).with_channels(channels).shape(),
            ),
            mean,
            variance,
        )
    }

    fn depthwise_decomposed_conv(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        if !all_f32(&[&x, &weight, &bias]) {
            return depthwise_decomposed::reference::conv::<Self>(x, weight, bias);
        }
        let geometry = Geometry::of(&x.shape());
        let (values, bias, weights) = (Values::of(&x), Values::of(&bias), Values::of(&weight));
        let filters = depthwise_filters(&weights, &weight.shape());
        let out =
            depthwise_decomposed::tile::conv(Level::current(), &values, filters, &bias, geometry);
        tensor(out, geometry.shape())
    }

    fn depthwise_decomposed_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        epsilon: f64,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        if !all_f32(&[&x, &weight, &gamma, &beta]) {
            return depthwise_decomposed::reference::norm::<Self>(x, weight, gamma, beta, epsilon);
        }
        let geometry = Geometry::of(&x.shape());
        let (values, weights) = (Values::of(&x), Values::of(&weight));
        let (gamma, beta) = (Values::of(&gamma), Values::of(&beta));
        let filters = depthwise_filters(&weights, &weight.shape());
        let level = Level::current();
        let statistics = depthwise_decomposed::cpu::statistics(level, &values, filters, geometry);
        let affine = [&*gamma, &*beta];
        let out = depthwise_decomposed::cpu::norm(
            level,
            &values,
            filters,
            affine,
            &statistics,
            epsilon,
            geometry,
        );
        let [mean, variance] = statistics_tensors(&statistics, geometry.channels);
        (tensor(out, geometry.shape()), mean, variance)
    }

    fn depthwise_conv_3d(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        before: [usize; 3],
    ) -> FloatTensor<Self> {
        if !all_f32(&[&x, &weight, &bias]) {
            return depthwise_conv::reference::forward::<Self>(x, weight, bias, before);
        }
        let geometry = Geometry::of(&x.shape());
        let window = window(&weight.shape(), before);
        let [x, weight, bias] = [x, weight, bias].map(|operand| Values::of(&operand));
        let filters = depthwise_conv::cpu::Filters {
            weight: &weight,
            window,
        };
        let out = depthwise_conv::cpu::forward(Level::current(), &x, filters, &bias, geometry);
        tensor(out, geometry.shape())
    }

    fn average_pool_3d(x: FloatTensor<Self>) -> FloatTensor<Self> {
        if !all_f32(&[&x]) {
            return average_pool::reference::forward::<Self>(x);
        }
        let geometry = Geometry::of(&x.shape());
        let out = average_pool::cpu::forward(Level::current(), &Values::of(&x), geometry);
        tensor(out, geometry.shape())
    }

    fn dense_conv_3d(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        stride: usize,
        before: [usize; 3],
        rectify: bool,
    ) -> FloatTensor<Self> {
        if !all_f32(&[&x, &weight, &bias]) {
            return dense_conv::reference::forward::<Self>(
                x, weight, bias, stride, before, rectify,
            );
        }
        let (shape, weight_shape) = (x.shape(), weight.shape());
        let [x, weight, bias] = [x, weight, bias].map(|operand| Values::of(&operand));
        let conv = conv_of(&shape, &weight, &weight_shape, stride, before);
        let out = conv.forward(Level::current(), &x, &bias, rectify);
        tensor(out, conv.out_geometry().shape())
    }

    fn batch_norm_rows(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        epsilon: f64,
        rectify: bool,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        if !all_f32(&[&x, &gamma, &beta]) {
            return batch_norm::reference::forward::<Self>(x, gamma, beta, epsilon, rectify);
        }
        let shape = x.shape();
        let [x, gamma, beta] = [x, gamma, beta].map(|operand| Values::of(&operand));
        let affine = [&*gamma, &*beta];
        let (out, statistics) =
            batch_norm::cpu::forward(Level::current(), &x, affine, epsilon, rectify);
        let table = |values: &[f64]| {
            let values: Vec<f32> = values.iter().map(|value| *value as f32).collect();
            tensor(values, [gamma.len()])
        };
        let (mean, variance) = (table(&statistics.mean), table(&statistics.variance));
        (tensor(out, shape), mean, variance)
    }

    fn max_pool_3d(x: FloatTensor<Self>) -> FloatTensor<Self> {
        if !all_f32(&[&x]) {
            return max_pool::reference::forward::<Self>(x);
        }
        let geometry = Geometry::of(&x.shape());
        let pooled = max_pool::cpu::values(Level::current(), &Values::of(&x), geometry);
        tensor(pooled, geometry.strided(2).shape())
    }

    fn pool_project(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        if !all_f32(&[&x, &weight]) {
            return max_pool::reference::project::<Self>(x, weight);
        }
        let geometry = Geometry::of(&x.shape());
        let outputs = weight.shape()[1];
        let (x, weight) = (Values::of(&x), Values::of(&weight));
        let out = max_pool::cpu::project(Level::current(), &x, &weight, outputs, geometry);
        tensor(out, geometry.strided(2).with_channels(outputs).shape())
    }

    fn stem(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        refinements: FloatTensor<Self>,
        refinement_biases: FloatTensor<Self>,
        projection: FloatTensor<Self>,
        stride: usize,
        activate: bool,
    ) -> FloatTensor<Self> {
        let operands = [
            &x,
            &weight,
            &bias,
            &refinements,
            &refinement_biases,
            &projection,
        ];
        // The pipeline begins with one channel.
        if !all_f32(&operands) || x.shape()[4] != 1 {
            let (first, rest) = ([weight, bias], [refinements, refinement_biases]);
            return stem::reference::forward::<Self>(x, first, rest, projection, stride, activate);
        }
        let geometry = Geometry::of(&x.shape());
        let (shape, rest_shape) = (weight.shape(), refinements.shape());
        let [x, weight, bias, rest, rest_biases, projection] =
            [x, weight, bias, refinements, refinement_biases, projection]
                .map(|operand| Values::of(&operand));
        let channels = bias.len();
        let mut convs = vec![(dense_filters(&weight, &shape), &*bias)];
        for index in 0..rest_shape[0] {
            let len = rest.len() / rest_shape[0];
            let filters = dense_decomposed::cpu::Filters {
                weight: &rest[index * len..][..len],
                taps: rest_shape[2],
                channels_in: channels,
                channels_out: channels,
            };
            convs.push((filters, &rest_biases[index * channels..][..channels]));
        }
        let stem = Stem {
            convs,
            projection: &projection,
            stride,
            activate,
        };
        tensor(
            stem.forward(Level::current(), &x, geometry),
            stem.out_geometry(geometry).shape(),
        )
    }

    fn mixer_mlp(
        x: FloatTensor<Self>,
        filters: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        w1: FloatTensor<Self>,
        b1: FloatTensor<Self>,
        w2: FloatTensor<Self>,
        b2: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        if !all_f32(&[&x, &filters, &bias, &w1, &b1, &w2, &b2]) {
            return mixer_mlp::reference::forward::<Self>(x, [filters, bias], [w1, b1, w2, b2]);
        }
        let geometry = Geometry::of(&x.shape());
        let shape = filters.shape();
        let [x, weight, bias, w1, b1, w2, b2] =
            [x, filters, bias, w1, b1, w2, b2].map(|operand| Values::of(&operand));
        let operation = MixerMlp {
            filters: depthwise_filters(&weight, &shape),
            bias: &bias,
            w1: &w1,
            b1: &b1,
            w2: &w2,
            b2: &b2,
        };
        tensor(
            operation.forward(Level::current(), &x, geometry),
            geometry.shape(),
        )
    }

    fn mlp(
        x: FloatTensor<Self>,
        w1: FloatTensor<Self>,
        b1: FloatTensor<Self>,
        w2: FloatTensor<Self>,
        b2: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        if !all_f32(&[&x, &w1, &b1, &w2, &b2]) {
            return mlp::reference::forward::<Self>(x, w1, b1, w2, b2);
        }
        let rows = x.shape()[0];
        let operands = [&x, &w1, &b1, &w2, &b2].map(Values::of);
        let out = Mlp::of(&operands, rows).forward(Level::current());
        tensor(out, [rows, operands[4].len()])
    }

    fn exact_gelu(x: FloatTensor<Self>) -> FloatTensor<Self> {
        if !all_f32(&[&x]) {
            return gelu::reference::forward::<Self>(x);
        }
        let mut values = Values::of(&x).to_vec();
        gelu::cpu::forward(Level::current(), &mut values);
        tensor(values, x.shape())
    }

    fn gated_gelu_rows(x: FloatTensor<Self>) -> FloatTensor<Self> {
        if !all_f32(&[&x]) {
            return gelu::reference::gated::<Self>(x);
        }
        let [rows, channels] = [0, 1].map(|axis| x.shape()[axis]);
        let out = gelu::cpu::gated(Level::current(), &Values::of(&x), channels / 2);
        tensor(out, [rows, channels / 2])
    }

    fn layer_norm_rows(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        epsilon: f64,
    ) -> FloatTensor<Self> {
        if !all_f32(&[&x, &gamma, &beta]) {
            return layer_norm::reference::forward::<Self>(x, gamma, beta, epsilon);
        }
        let shape = x.shape();
        let [x, gamma, beta] = [x, gamma, beta].map(|operand| Values::of(&operand));
        tensor(
            layer_norm::cpu::forward(Level::current(), &x, &gamma, &beta, epsilon),
            shape,
        )
    }

    fn packed_attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        lengths: Vec<usize>,
        heads: usize,
    ) -> FloatTensor<Self> {
        if !all_f32(&[&q, &k, &v]) {
            return attention::reference::forward::<Self>(q, k, v, None, &lengths, heads);
        }
        let shape = q.shape();
        let channels = shape[1];
        let [q, k, v] = [q, k, v].map(|operand| Values::of(&operand));
        let attention = Attention {
            q: &q,
            k: &k,
            v: &v,
            bias: None,
            lengths: &lengths,
            heads,
            channels,
        };
        tensor(attention.forward(Level::current()), shape)
    }

    fn biased_attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        bias: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        if !all_f32(&[&q, &k, &v, &bias]) {
            return attention::reference::biased::<Self>(q, k, v, bias);
        }
        let (shape, sizes) = (q.shape(), bias.shape());
        let lengths = vec![sizes[1]; shape[0] / sizes[1]];
        let [q, k, v, bias] = [q, k, v, bias].map(|operand| Values::of(&operand));
        let attention = Attention {
            q: &q,
            k: &k,
            v: &v,
            bias: Some(&bias),
            lengths: &lengths,
            heads: sizes[0],
            channels: shape[1],
        };
        tensor(attention.forward(Level::current()), shape)
    }
}
