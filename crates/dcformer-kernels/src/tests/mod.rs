//! Two judges for every operation: the *formula*, plain loops that share no code with the crate, and the
//! *definition*, made of the framework's operations, whose gradients the framework derives by itself.

mod average_pool;
mod depthwise_conv;
mod formula;
mod gradient;
mod invariance;
mod property;
mod value;

use burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
use burn::backend::{Autodiff, Flex};
use burn::tensor::{Device, Tensor, TensorData};

/// The autodiff backend of the tests.
type Differentiated = Autodiff<Flex, NoCheckpointing>;

/// One problem. No two axes are equal, so a swapped pair shows; channels both fit and miss the vector width.
#[derive(Clone, Copy, Debug)]
struct Case {
    batch: usize,
    /// Depth, height, width.
    size: [usize; 3],
    channels: usize,
    channels_out: usize,
    taps: usize,
    stride: usize,
}

impl Case {
    const fn new(
        batch: usize,
        size: [usize; 3],
        channels: [usize; 2],
        taps: usize,
        stride: usize,
    ) -> Self {
        let [channels, channels_out] = channels;
        Self {
            batch,
            size,
            channels,
            channels_out,
            taps,
            stride,
        }
    }

    /// The layers of DCFormer nano at small sizes, and the corners that break kernels.
    const ALL: [Self; 9] = [
        Self::new(2, [9, 10, 27], [1, 32], 7, 4), // first layer of the stem
        Self::new(1, [5, 6, 13], [32, 32], 3, 1), // its other layers
        Self::new(1, [4, 3, 9], [32, 64], 3, 1),  // two panels on AVX-512
        Self::new(2, [5, 6, 7], [16, 8], 13, 1),  // kernel longer than the volume
        Self::new(1, [1, 1, 1], [1, 1], 7, 1),    // one voxel, one channel
        Self::new(1, [3, 4, 17], [37, 5], 9, 1),  // channels are no multiple of 16
        Self::new(1, [2, 1, 24], [3, 33], 5, 2),  // strided, a panel with one column
        Self::new(3, [1, 7, 2], [20, 20], 3, 3),  // stride as long as the kernel
        Self::new(1, [8, 8, 8], [48, 24], 7, 1),
    ];

    fn input_shape(&self) -> [usize; 5] {
        let [d, h, w] = self.size;
        [self.batch, d, h, w, self.channels]
    }

    fn input_len(&self) -> usize {
        self.input_shape().iter().product()
    }
}

/// Small integers: sums of a few thousand products are exact in `f32`, whatever the order, so equality needs no
/// tolerance.
fn integers(len: usize, seed: u32) -> Vec<f32> {
    numbers(len, seed)
        .into_iter()
        .map(|value| (value * 4.0).round())
        .collect()
}

/// Values in -1..1 without any symmetry.
fn numbers(len: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(12345);
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            (state >> 8) as f32 / 8_388_608.0 - 1.0
        })
        .collect()
}

fn tensor<const D: usize>(values: &[f32], shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values.to_vec(), shape), device)
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_to_vec().expect("f32 in, f32 out")
}

/// Largest difference relative to the largest magnitude of `expected`.
fn error(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len(), "lengths differ");
    let scale = expected
        .iter()
        .fold(1e-6_f32, |scale, value| scale.max(value.abs()));
    found
        .iter()
        .zip(expected)
        .fold(0.0_f32, |error, (found, expected)| {
            let difference = (found - expected).abs() / scale;
            if difference.is_nan() {
                f32::INFINITY
            } else {
                error.max(difference)
            }
        })
}
