//! What a model costs: parameters, and multiply-adds as the paper counts them (SPEC section 2).
//!
//! Counted are the multiply-adds of convolutions, linear layers and matrix products, without their biases, and 5 for
//! every element that a BatchNorm or LayerNorm of training normalises. GELU, additions and pooling count nothing. These are
//! the conventions of fvcore, with which the paper's table was made: batch 1, training mode.

use serde::Serialize;

use crate::models::DcformerEncoderConfig;
use crate::models::clip::LATENT;

/// Multiply-adds of normalising one element, as fvcore has it: mean, variance, two to normalise, scale and shift.
const NORM_COST: u64 = 5;
/// Heads of the attention in `small-paper`.
const ATTENTION_HEADS: u64 = 8;
/// Taps of the position encodings in `small-paper`.
const POSITION_TAPS: u64 = 3;

/// Size of a volume or of a grid of features, in voxels or positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape3 {
    /// Slices.
    pub depth: u64,
    /// Rows.
    pub height: u64,
    /// Columns.
    pub width: u64,
}

impl Shape3 {
    /// The paper's input, 512 x 512 x 256.
    pub const PAPER: Self = Self {
        depth: 256,
        height: 512,
        width: 512,
    };

    /// What a stride leaves, rounded up.
    fn divided(self, stride: u64) -> Self {
        Self {
            depth: self.depth.div_ceil(stride),
            height: self.height.div_ceil(stride),
            width: self.width.div_ceil(stride),
        }
    }

    fn count(self) -> u64 {
        self.depth * self.height * self.width
    }
}

/// A row of the table, under the names of `dcformer complexity --json`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Complexity {
    /// The network.
    pub model: &'static str,
    /// Its size.
    pub variant: String,
    /// Learnt parameters of the encoder.
    pub params: u64,
    /// The same with the projection to 512, for networks whose paper's row has it.
    pub params_with_projection: Option<u64>,
    /// Multiply-adds of a volume, in units of 10^9.
    pub gmacs: f64,
}

/// The rows of every network and variant, for volumes of this shape.
pub fn table(volume: Shape3) -> Vec<Complexity> {
    let mut rows: Vec<Complexity> = DcformerEncoderConfig::VARIANTS
        .iter()
        .map(|(variant, preset)| dcformer_row(variant, &Dcformer::of(&preset()), volume))
        .collect();
    let small = rows
        .iter()
        .position(|row| row.variant == "small")
        .map_or(rows.len(), |at| at + 1);
    rows.insert(
        small,
        dcformer_row("small-paper", &Dcformer::small_paper(), volume),
    );
    rows
}

/// The row of a DCFormer of any size.
pub fn dcformer(variant: &str, config: &DcformerEncoderConfig, volume: Shape3) -> Complexity {
    dcformer_row(variant, &Dcformer::of(config), volume)
}

fn dcformer_row(variant: &str, network: &Dcformer, volume: Shape3) -> Complexity {
    let cost = network.cost(volume);
    let features = network.channels[4] as u64;
    Complexity {
        model: "dcformer",
        variant: variant.to_owned(),
        params: cost.params,
        params_with_projection: Some(cost.params + features * LATENT as u64),
        gmacs: cost.gmacs(),
    }
}

/// Parameters and multiply-adds, summed layer by layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Cost {
    params: u64,
    macs: u64,
}

impl Cost {
    /// Multiply-adds in units of 10^9, to the four decimals of the published table.
    fn gmacs(self) -> f64 {
        (self.macs as f64 / 1e5).round() / 1e4
    }

    /// A convolution of `taps` taps that reads `inputs` channels for each of `outputs`, at `positions` places.
    fn conv(&mut self, [inputs, outputs]: [u64; 2], taps: u64, positions: u64) {
        self.params += inputs * outputs * taps;
        self.macs += inputs * outputs * taps * positions;
    }

    /// A linear layer on `rows` rows.
    fn linear(&mut self, widths: [u64; 2], rows: u64) {
        self.conv(widths, 1, rows);
    }

    fn bias(&mut self, channels: u64) {
        self.params += channels;
    }

    /// A norm with scale and shift, over `rows` rows.
    fn norm(&mut self, channels: u64, rows: u64) {
        self.params += 2 * channels;
        self.macs += NORM_COST * channels * rows;
    }

    /// Both products of self-attention among `tokens` tokens of `width` features in all heads.
    fn attention(&mut self, tokens: u64, width: u64) {
        self.macs += 2 * tokens * tokens * width;
    }

    /// Linear to four times the width and back, with biases.
    fn mlp(&mut self, channels: u64, rows: u64) {
        self.linear([channels, 4 * channels], rows);
        self.bias(4 * channels);
        self.linear([4 * channels, channels], rows);
        self.bias(channels);
    }

    /// Three 1-D convolutions with biases and norms.
    fn decomposed(&mut self, widths: [u64; 2], taps: u64, positions: u64) {
        for _axis in 0..3 {
            self.conv(widths, taps, positions);
            self.bias(widths[1]);
            self.norm(widths[1], positions);
        }
    }
}

/// What a block of a stage mixes tokens with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mixer {
    /// Depthwise decomposed convolution.
    Convolution,
    /// Self-attention between position encodings.
    Attention,
}

/// The sizes that decide what a DCFormer costs.
#[derive(Clone, Debug)]
struct Dcformer {
    channels: [usize; 5],
    blocks: [usize; 4],
    kernels: [usize; 4],
    mixers: [Mixer; 4],
}

impl Dcformer {
    fn of(config: &DcformerEncoderConfig) -> Self {
        Self {
            channels: config.channels,
            blocks: config.blocks,
            kernels: config.kernels,
            mixers: [Mixer::Convolution; 4],
        }
    }

    /// The `small` of the paper's table: attention in the last two stages, 7 taps in the others (SPEC section 2). No
    /// code or weights of it were published; only its cost is here.
    fn small_paper() -> Self {
        use Mixer::{Attention, Convolution};
        Self {
            kernels: [7; 4],
            mixers: [Convolution, Convolution, Attention, Attention],
            ..Self::of(&DcformerEncoderConfig::small())
        }
    }

    fn cost(&self, volume: Shape3) -> Cost {
        let mut cost = Cost::default();
        let mut grid = volume.divided(4);
        let stem = self.channels[0] as u64;
        cost.decomposed([1, stem], 7, grid.count());
        for _refinement in 0..3 {
            cost.decomposed([stem, stem], 3, grid.count());
        }
        for stage in 0..4 {
            grid = grid.divided(2);
            let [inputs, channels] = [self.channels[stage] as u64, self.channels[stage + 1] as u64];
            cost.linear([inputs, channels], grid.count());
            for _block in 0..self.blocks[stage] {
                match self.mixers[stage] {
                    Mixer::Convolution => {
                        let taps = self.kernels[stage] as u64;
                        convolution_block(&mut cost, channels, taps, grid.count());
                    }
                    Mixer::Attention => attention_block(&mut cost, channels, grid.count()),
                }
            }
        }
        cost
    }
}

fn convolution_block(cost: &mut Cost, channels: u64, taps: u64, positions: u64) {
    cost.decomposed([1, channels], taps, positions);
    cost.mlp(channels, positions);
    cost.params += channels; // gamma
}

fn attention_block(cost: &mut Cost, channels: u64, positions: u64) {
    debug_assert_eq!(channels % ATTENTION_HEADS, 0, "heads share the channels");
    for _encoding in 0..2 {
        for _axis in 0..3 {
            cost.conv([1, channels], POSITION_TAPS, positions);
            cost.bias(channels);
        }
        cost.norm(channels, positions);
    }
    cost.linear([channels, 3 * channels], positions);
    cost.attention(positions, channels);
    cost.linear([channels, channels], positions);
    cost.mlp(channels, positions);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_rounded_up_at_every_stride() {
        let volume = Shape3 {
            depth: 1,
            height: 65,
            width: 130,
        };
        let expected = Shape3 {
            depth: 1,
            height: 2,
            width: 3,
        };
        let last = (0..4).fold(volume.divided(4), |grid, _| grid.divided(2));
        assert_eq!(last, expected);
    }

    #[test]
    fn a_volume_twice_as_deep_costs_a_convolutional_network_twice() {
        let deep = Shape3 {
            depth: 512,
            ..Shape3::PAPER
        };
        let nano = Dcformer::of(&DcformerEncoderConfig::nano());
        assert_eq!(nano.cost(deep).macs, 2 * nano.cost(Shape3::PAPER).macs);
        assert_eq!(nano.cost(deep).params, nano.cost(Shape3::PAPER).params);
    }
}
