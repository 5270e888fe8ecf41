//! The vocabulary in which networks state what they cost, layer by layer.

use std::fmt;

use serde::Serialize;

use super::memory::{Activation, Flow, Keeps, Size};

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
    /// Activations, sums, pooling, copies: no multiply-adds in this count, but memory.
    Elementwise,
}

impl Kind {
    /// All kinds, in the order in which they are printed.
    pub const ALL: [Self; 7] = [
        Self::Convolution,
        Self::Depthwise,
        Self::Linear,
        Self::Attention,
        Self::Norm,
        Self::Parameter,
        Self::Elementwise,
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
            Self::Elementwise => "elementwise",
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
    /// Whether something is added to the logits.
    pub bias: bool,
}

/// The tensors between which attention computes. Parts of one tensor are that tensor.
#[derive(Clone, Copy, Debug)]
pub struct Operands {
    /// What the queries are in.
    pub query: Activation,
    /// What the keys are in.
    pub key: Activation,
    /// What the values are in.
    pub value: Activation,
}

impl Operands {
    /// Queries, keys and values are parts of one tensor.
    pub fn packed(all: Activation) -> Self {
        Self {
            query: all,
            key: all,
            value: all,
        }
    }
}

/// What a network costs, layer by layer, in the order of its forward pass.
///
/// Each layer reads what the one before made, unless [`back_to`](Self::back_to) says otherwise; from that follows which
/// activations are alive together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    layers: Vec<Layer>,
    pub(super) flow: Flow,
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

    /// Multiply-adds in units of 10^9, to the four decimals of the published table.
    pub fn gmacs(&self) -> f64 {
        (self.total().macs as f64 / 1e5).round() / 1e4
    }
}

/// How parts become a network, and which tensors they read.
impl Cost {
    /// Appends a part, its layers' names behind `name`.
    pub fn part(&mut self, name: impl fmt::Display, part: Self) {
        let named = part.layers.into_iter().map(|layer| Layer {
            name: format!("{name}.{}", layer.name),
            ..layer
        });
        self.append(Self {
            layers: named.collect(),
            flow: part.flow,
        });
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
        self.flow.append(part.flow, self.layers.len());
        self.layers.extend(part.layers);
    }

    /// What the next layer reads.
    pub fn here(&self) -> Activation {
        self.flow.current()
    }

    /// Lets the next layer read `activation`.
    pub fn back_to(&mut self, activation: Activation) {
        self.flow.set_current(activation);
    }

    /// Branches that read the same tensor, each added to the sum of those before as soon as it is made.
    pub fn sum_of(&mut self, names: &[&str], mut branch: impl FnMut(&mut Self, &str)) {
        let x = self.here();
        let mut sum = None;
        for name in names {
            self.back_to(x);
            branch(self, name);
            if let Some(sum) = sum {
                self.add(&format!("{name}.sum"), sum);
            }
            sum = Some(self.here());
        }
    }

    /// `x + part(x)`, the part's layers behind `name`.
    pub fn residual(&mut self, name: &str, part: Self) {
        let x = self.here();
        self.part(name, part);
        self.add(&format!("{name}.residual"), x);
    }

    /// Keeps `activation` alive up to here, where a part read it last that does not say so.
    pub fn last_use(&mut self, name: &str, activation: Activation) {
        let here = self.here();
        let nothing = Size::Numbers(0);
        self.elementwise(name, &[activation], nothing, Keeps::Nothing);
        self.back_to(here);
    }
}

/// The layers that learn.
impl Cost {
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
        let amount = Amount {
            params: fan_in * outputs + biases,
            macs: fan_in * outputs * positions,
            activations: outputs * positions,
        };
        let layer = self.push(name, kind, amount);
        let made = Size::Numbers(outputs * positions);
        self.flow.step(layer, &[self.here()], made, Keeps::Inputs);
    }

    /// Both products of self-attention and the softmax between them; what surrounds them is linear layers.
    pub fn attention(&mut self, name: &str, size: AttentionSize, operands: Operands) {
        let [sequences, tokens, heads, head_dim] =
            [size.sequences, size.tokens, size.heads, size.head_dim].map(|size| size as u64);
        let weights = sequences * heads * tokens * tokens;
        let gathered = sequences * tokens * heads * head_dim;
        let product = match size.products {
            Products::Matmul => weights * head_dim,
            Products::Einsum => four_digits(2 * weights * head_dim) / 2,
        };
        let amount = Amount {
            params: 0,
            macs: 2 * product,
            activations: weights + gathered,
        };
        let layer = self.push(name, Kind::Attention, amount);
        let flow = &mut self.flow;
        let Operands { query, key, value } = operands;
        let logits = Size::Numbers(weights);
        let mut x = flow.step(layer, &[query, key], logits, Keeps::Inputs);
        if size.bias {
            x = flow.step(layer, &[x], Size::Like(x), Keeps::Nothing);
        }
        let weights = flow.step(layer, &[x], Size::Like(x), Keeps::Output);
        let gathered = Size::Numbers(gathered);
        flow.step(layer, &[weights, value], gathered, Keeps::Inputs);
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

    /// A norm of which `elements` are counted.
    fn norm_of(&mut self, name: &str, params: usize, elements: usize) {
        let amount = Amount {
            params: params as u64,
            macs: NORM_COST * elements as u64,
            activations: 0,
        };
        let layer = self.push(name, Kind::Norm, amount);
        let x = self.here();
        self.flow.step(layer, &[x], Size::Like(x), Keeps::Inputs);
    }

    /// Learnt numbers that cost no multiply-adds in this count, and are no operation of their own.
    pub fn parameter(&mut self, name: &str, count: usize) {
        let amount = Amount {
            params: count as u64,
            ..Amount::default()
        };
        self.push(name, Kind::Parameter, amount);
    }

    /// A learnt factor for each of `count` channels.
    pub fn scale(&mut self, name: &str, count: usize) {
        self.parameter(name, count);
        let (layer, x) = (self.layers.len() - 1, self.here());
        self.flow.step(layer, &[x], Size::Like(x), Keeps::Inputs);
    }

    /// Appends a layer and gives its index.
    fn push(&mut self, name: &str, kind: Kind, amount: Amount) -> usize {
        self.layers.push(Layer {
            name: name.to_owned(),
            kind,
            amount,
        });
        self.layers.len() - 1
    }
}

/// What counts nothing and takes memory.
impl Cost {
    /// A function of each number whose derivative needs the number: GELU, or a division by a length.
    pub fn activation(&mut self, name: &str) {
        self.like_here(name, &[], Keeps::Inputs);
    }

    /// A rectifier; its derivative can be read from its result.
    pub fn relu(&mut self, name: &str) {
        self.like_here(name, &[], Keeps::Output);
    }

    /// The sum with another tensor, or the difference.
    pub fn add(&mut self, name: &str, other: Activation) {
        self.like_here(name, &[other], Keeps::Nothing);
    }

    /// A tensor of the same size whose derivatives need nothing: a mean of neighbours, a copy in another order, a sum with
    /// learnt numbers.
    pub fn linear_map(&mut self, name: &str) {
        self.like_here(name, &[], Keeps::Nothing);
    }

    /// The maxima of windows, `outputs` of them.
    pub fn max_pool(&mut self, name: &str, outputs: usize) {
        let outputs = Size::Numbers(outputs as u64);
        self.elementwise(name, &[self.here()], outputs, Keeps::Choices);
    }

    /// `numbers` values out of the tensor and `others`, side by side.
    pub fn concatenate(&mut self, name: &str, others: &[Activation], numbers: usize) {
        let reads = [&[self.here()], others].concat();
        let numbers = Size::Numbers(numbers as u64);
        self.elementwise(name, &reads, numbers, Keeps::Nothing);
    }

    /// An [`activation`](Self::activation) of `numbers` values of a tensor.
    pub fn activation_of_part(&mut self, name: &str, numbers: usize) {
        let part = Size::Numbers(numbers as u64);
        self.elementwise(name, &[self.here()], part, Keeps::Inputs);
    }

    /// The product of the two halves of a tensor, of `numbers` values each, one of them through an activation.
    pub fn gate(&mut self, name: &str, numbers: usize) {
        let both = self.here();
        self.activation_of_part(&format!("{name}.activation"), numbers);
        let product = [self.here(), both];
        let numbers = Size::Numbers(numbers as u64);
        self.elementwise(&format!("{name}.product"), &product, numbers, Keeps::Inputs);
    }

    /// `numbers` values that are computed from nothing that flows.
    pub fn constant(&mut self, name: &str, numbers: usize) {
        self.elementwise(name, &[], Size::Numbers(numbers as u64), Keeps::Nothing);
    }

    fn like_here(&mut self, name: &str, others: &[Activation], keeps: Keeps) {
        let x = self.here();
        self.elementwise(name, &[&[x], others].concat(), Size::Like(x), keeps);
    }

    fn elementwise(&mut self, name: &str, reads: &[Activation], makes: Size, keeps: Keeps) {
        let layer = self.push(name, Kind::Elementwise, Amount::default());
        self.flow.step(layer, reads, makes, keeps);
    }
}

/// A number as `%.3e` prints it.
fn four_digits(number: u64) -> u64 {
    let printed = format!("{:.3e}", number as f64);
    printed.parse::<f64>().expect("a printed number") as u64
}

#[cfg(test)]
mod tests;
