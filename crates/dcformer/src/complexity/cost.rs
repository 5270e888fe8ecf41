//! The vocabulary in which networks state what they cost, layer by layer.

use std::fmt;

use serde::Serialize;

/// Multiply-adds of normalising one element, as fvcore has it: mean, variance, two to normalise, scale and shift.
const NORM_COST: u64 = 5;

/// What a layer does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A convolution in which every output channel reads every input channel, over more than one tap.
    Convolution,
    /// A convolution in which every channel reads itself.
    Depthwise,
    /// A linear layer, or a convolution of a single tap.
    Linear,
    /// The two matrix products of attention.
    Attention,
    /// A normalisation.
    Norm,
    /// Learnt numbers that are added or multiplied: scales, positions, tokens.
    Parameter,
}

impl Kind {
    /// All kinds, in the order in which they are printed.
    pub const ALL: [Self; 6] = [
        Self::Convolution,
        Self::Depthwise,
        Self::Linear,
        Self::Attention,
        Self::Norm,
        Self::Parameter,
    ];
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Convolution => "convolution",
            Self::Depthwise => "depthwise convolution",
            Self::Linear => "linear",
            Self::Attention => "attention",
            Self::Norm => "norm",
            Self::Parameter => "parameter",
        })
    }
}

/// What a part of a network costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Amount {
    /// Learnt numbers.
    pub params: u64,
    /// Multiply-adds of one volume.
    pub macs: u64,
    /// Numbers that convolutions, linear layers and matrix products write for one volume: a measure of the memory that
    /// passes (arXiv 2003.13678, section 4; fvcore's `ActivationCountAnalysis`).
    pub activations: u64,
}

impl std::iter::Sum for Amount {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self::default(), |sum, next| Self {
            params: sum.params + next.params,
            macs: sum.macs + next.macs,
            activations: sum.activations + next.activations,
        })
    }
}

/// A layer and what it costs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Layer {
    /// Path of the layer in the network, as in `stages.0.blocks.1.expand`.
    pub name: String,
    /// What it does.
    pub kind: Kind,
    /// What it costs.
    #[serde(flatten)]
    pub amount: Amount,
}

/// Whether a layer adds a learnt number to each output channel. It costs a parameter and, in this count, no work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bias {
    /// It does.
    With,
    /// It does not.
    Without,
}

/// How fvcore learns the size of attention's products.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Products {
    /// From the shapes of matrix products: exactly.
    Matmul,
    /// From what NumPy prints of an `einsum`, which is twice the multiply-adds in four digits (P36).
    Einsum,
}

/// Self-attention among the tokens of each of several sequences.
#[derive(Clone, Copy, Debug)]
pub struct AttentionSize {
    /// Sequences of a volume.
    pub sequences: usize,
    /// Tokens of a sequence.
    pub tokens: usize,
    /// Heads.
    pub heads: usize,
    /// Features of a head.
    pub head_dim: usize,
    /// How the products are counted.
    pub products: Products,
}

/// What a network costs, layer by layer, in the order of its forward pass.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    layers: Vec<Layer>,
}

impl Cost {
    /// The layers, in the order of the forward pass.
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// The sum over all layers.
    pub fn total(&self) -> Amount {
        self.layers.iter().map(|layer| layer.amount).sum()
    }

    /// The sum over the layers of one kind.
    pub fn of_kind(&self, kind: Kind) -> Amount {
        let layers = self.layers.iter().filter(|layer| layer.kind == kind);
        layers.map(|layer| layer.amount).sum()
    }

    /// Multiply-adds in units of 10^9, to the four decimals of the published table.
    pub fn gmacs(&self) -> f64 {
        (self.total().macs as f64 / 1e5).round() / 1e4
    }

    /// Appends a part, its layers' names behind `name`.
    pub fn part(&mut self, name: impl fmt::Display, part: Self) {
        let named = part.layers.into_iter().map(|layer| Layer {
            name: format!("{name}.{}", layer.name),
            ..layer
        });
        self.layers.extend(named);
    }

    /// The same as the only part of a network, behind `name`.
    #[must_use]
    pub fn inside(self, name: impl fmt::Display) -> Self {
        let mut outer = Self::default();
        outer.part(name, self);
        outer
    }

    /// Appends the layers of a part under their own names.
    pub fn append(&mut self, part: Self) {
        self.layers.extend(part.layers);
    }

    /// A convolution of `taps` taps in all that reads `inputs` channels for each of `outputs`, at `positions` places.
    pub fn conv(
        &mut self,
        name: &str,
        [inputs, outputs]: [usize; 2],
        taps: usize,
        positions: usize,
        bias: Bias,
    ) {
        let kind = if taps == 1 {
            Kind::Linear
        } else {
            Kind::Convolution
        };
        self.filters(name, kind, [inputs * taps, outputs], positions, bias);
    }

    /// A convolution of `taps` taps in all that reads each channel for itself, at `positions` places.
    pub fn depthwise(
        &mut self,
        name: &str,
        channels: usize,
        taps: usize,
        positions: usize,
        bias: Bias,
    ) {
        self.filters(name, Kind::Depthwise, [taps, channels], positions, bias);
    }

    /// A linear layer on `rows` rows.
    pub fn linear(&mut self, name: &str, widths: [usize; 2], rows: usize, bias: Bias) {
        self.filters(name, Kind::Linear, widths, rows, bias);
    }

    /// `outputs` sums of `fan_in` products, at `positions` places.
    fn filters(
        &mut self,
        name: &str,
        kind: Kind,
        [fan_in, outputs]: [usize; 2],
        positions: usize,
        bias: Bias,
    ) {
        let [fan_in, outputs, positions] = [fan_in, outputs, positions].map(|size| size as u64);
        let biases = match bias {
            Bias::With => outputs,
            Bias::Without => 0,
        };
        self.push(
            name,
            kind,
            Amount {
                params: fan_in * outputs + biases,
                macs: fan_in * outputs * positions,
                activations: outputs * positions,
            },
        );
    }

    /// Both products of self-attention; what surrounds them is linear layers.
    pub fn attention(&mut self, name: &str, size: AttentionSize) {
        let [sequences, tokens, heads, head_dim] =
            [size.sequences, size.tokens, size.heads, size.head_dim].map(|size| size as u64);
        let weights = sequences * heads * tokens * tokens;
        let product = match size.products {
            Products::Matmul => weights * head_dim,
            Products::Einsum => four_digits(2 * weights * head_dim) / 2,
        };
        self.push(
            name,
            Kind::Attention,
            Amount {
                params: 0,
                macs: 2 * product,
                activations: weights + sequences * tokens * heads * head_dim,
            },
        );
    }

    /// A norm with scale and shift, over `rows` rows, in training.
    pub fn norm(&mut self, name: &str, channels: usize, rows: usize) {
        self.norm_of(name, 2 * channels, channels * rows);
    }

    /// A norm with a learnt scale and no shift.
    pub fn norm_without_shift(&mut self, name: &str, channels: usize, rows: usize) {
        self.norm_of(name, channels, channels * rows);
    }

    /// A norm with scale and shift that its authors wrote by hand, of operations that fvcore does not count (P36).
    pub fn handwritten_norm(&mut self, name: &str, channels: usize) {
        self.norm_of(name, 2 * channels, 0);
    }

    fn norm_of(&mut self, name: &str, params: usize, elements: usize) {
        let amount = Amount {
            params: params as u64,
            macs: NORM_COST * elements as u64,
            activations: 0,
        };
        self.push(name, Kind::Norm, amount);
    }

    /// Learnt numbers that cost no multiply-adds in this count.
    pub fn parameter(&mut self, name: &str, count: usize) {
        let amount = Amount {
            params: count as u64,
            ..Amount::default()
        };
        self.push(name, Kind::Parameter, amount);
    }

    fn push(&mut self, name: &str, kind: Kind, amount: Amount) {
        self.layers.push(Layer {
            name: name.to_owned(),
            kind,
            amount,
        });
    }
}

/// A number as `%.3e` prints it.
fn four_digits(number: u64) -> u64 {
    let printed = format!("{:.3e}", number as f64);
    printed.parse::<f64>().expect("a printed number") as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_counted_by_hand() {
        let mut cost = Cost::default();
        cost.conv("dense", [2, 3], 27, 10, Bias::With);
        cost.conv("pointwise", [2, 3], 1, 10, Bias::Without);
        cost.depthwise("depthwise", 4, 9, 10, Bias::With);
        cost.norm("norm", 4, 10);
        cost.handwritten_norm("by_hand", 4);
        cost.norm_without_shift("scale_only", 4, 10);
        cost.parameter("gamma", 4);
        cost.attention(
            "attention",
            AttentionSize {
                sequences: 2,
                tokens: 5,
                heads: 3,
                head_dim: 7,
                products: Products::Matmul,
            },
        );
        let found: Vec<_> = cost
            .layers()
            .iter()
            .map(|layer| {
                let Amount {
                    params,
                    macs,
                    activations,
                } = layer.amount;
                (layer.kind, [params, macs, activations])
            })
            .collect();
        let expected = [
            (Kind::Convolution, [162 + 3, 1620, 30]),
            (Kind::Linear, [6, 60, 30]),
            (Kind::Depthwise, [36 + 4, 360, 40]),
            (Kind::Norm, [8, 200, 0]),
            (Kind::Norm, [8, 0, 0]),
            (Kind::Norm, [4, 200, 0]),
            (Kind::Parameter, [4, 0, 0]),
            (
                Kind::Attention,
                [0, 2 * 2 * 3 * 25 * 7, 2 * 3 * 25 + 2 * 5 * 21],
            ),
        ];
        assert_eq!(found, expected);
        let kinds: Amount = Kind::ALL.map(|kind| cost.of_kind(kind)).into_iter().sum();
        assert_eq!(kinds, cost.total());
    }

    #[test]
    fn parts_are_named_by_their_place() {
        let mut block = Cost::default();
        block.parameter("gamma", 1);
        let mut cost = Cost::default();
        cost.part("stages.0", block.clone());
        let mut outer = Cost::default();
        outer.part("encoder", cost);
        assert_eq!(outer.layers()[0].name, "encoder.stages.0.gamma");
    }

    /// 2049 tokens in 4 heads of 96: 2 x 1 612 185 984, of which NumPy prints 3.224e+09.
    #[test]
    fn an_einsum_is_counted_in_four_digits() {
        let mut cost = Cost::default();
        cost.attention(
            "attention",
            AttentionSize {
                sequences: 1,
                tokens: 2049,
                heads: 4,
                head_dim: 96,
                products: Products::Einsum,
            },
        );
        assert_eq!(cost.total().macs, 3_224_000_000);
    }
}
