//! The memory of activations: which tensors a forward pass makes, and how long each is needed.
//!
//! Counted is *plain execution*: one operation after another, each into a tensor of its own, nothing in place and nothing
//! fused. A tensor is alive from the operation that makes it to the last one that reads it; in training it stays if a
//! derivative needs it. Not counted are weights, gradients, what an operation uses within itself, views and transpositions,
//! the mean and variance of each norm, and which features dropout took away.

use serde::Serialize;

/// Bytes of a number in single precision.
const NUMBER_BYTES: u64 = 4;

/// A tensor of a forward pass, in the [`Cost`](super::Cost) that gave it and no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Activation(
    /// 0 is what the network or part reads; the others are made by the steps, in their order.
    usize,
);

/// How many numbers a tensor holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Size {
    Numbers(u64),
    /// As many as another one.
    Like(Activation),
}

/// What the derivatives of a step need of its forward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keeps {
    /// A sum, a mean, a copy.
    Nothing,
    /// What it reads: products, norms, GELU.
    Inputs,
    /// What it makes: a rectifier, softmax.
    Output,
    /// Which of its inputs each output is, a number each: a maximum.
    Choices,
}

/// An operation that makes a tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Step {
    /// Index of the layer that it belongs to.
    layer: usize,
    reads: Vec<Activation>,
    makes: Size,
    keeps: Keeps,
}

/// The operations of a forward pass, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Flow {
    steps: Vec<Step>,
    /// What the next layer reads.
    current: Activation,
}

/// Activations of one volume in single precision, in plain execution.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ActivationMemory {
    /// Bytes of the tensors that are alive together, at most, where each is given back after its last use. The volume is
    /// one of them.
    pub inference_bytes: u64,
    /// The layer during which they are.
    pub inference_peak: String,
    /// Bytes of all tensors that the backward pass needs, at the end of the forward pass.
    pub training_bytes: u64,
}

/// The largest set of tensors that are alive together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Peak {
    pub(super) bytes: u64,
    /// Index of the layer during which they are; `None` before the first one.
    pub(super) layer: Option<usize>,
}

impl Flow {
    pub(super) fn current(&self) -> Activation {
        self.current
    }

    pub(super) fn set_current(&mut self, activation: Activation) {
        self.current = activation;
    }

    /// Appends an operation of a layer; what it makes is what the next layer reads.
    pub(super) fn step(
        &mut self,
        layer: usize,
        reads: &[Activation],
        makes: Size,
        keeps: Keeps,
    ) -> Activation {
        self.steps.push(Step {
            layer,
            reads: reads.to_vec(),
            makes,
            keeps,
        });
        self.current = Activation(self.steps.len());
        self.current
    }

    /// Appends a part that reads the current tensor, and whose layers are preceded by `layers` others.
    pub(super) fn append(&mut self, part: Self, layers: usize) {
        let (entry, before) = (self.current, self.steps.len());
        let placed = |Activation(index)| match index {
            0 => entry,
            _ => Activation(before + index),
        };
        self.steps.extend(part.steps.into_iter().map(|step| Step {
            layer: layers + step.layer,
            reads: step.reads.into_iter().map(placed).collect(),
            makes: match step.makes {
                Size::Like(other) => Size::Like(placed(other)),
                numbers @ Size::Numbers(_) => numbers,
            },
            keeps: step.keeps,
        }));
        self.current = placed(part.current);
    }

    /// Bytes of each tensor, the input first.
    fn bytes(&self, input_numbers: u64) -> Vec<u64> {
        let mut bytes = vec![NUMBER_BYTES * input_numbers];
        for step in &self.steps {
            bytes.push(match step.makes {
                Size::Numbers(numbers) => NUMBER_BYTES * numbers,
                Size::Like(Activation(other)) => bytes[other],
            });
        }
        bytes
    }

    /// What inference needs for an input of so many numbers.
    pub(super) fn peak(&self, input_numbers: u64) -> Peak {
        let bytes = self.bytes(input_numbers);
        // The number of the step after which a tensor is not needed; what nobody reads goes at once, but the result stays.
        let mut last_use: Vec<usize> = (0..bytes.len()).collect();
        for (index, step) in self.steps.iter().enumerate() {
            for &Activation(read) in &step.reads {
                last_use[read] = index + 1;
            }
        }
        last_use[self.current.0] = usize::MAX;
        let mut gone_after = vec![0; bytes.len()];
        for (tensor, &step) in last_use.iter().enumerate() {
            if let Some(gone) = gone_after.get_mut(step) {
                *gone += bytes[tensor];
            }
        }
        let mut alive = bytes[0];
        let mut peak = Peak {
            bytes: alive,
            layer: None,
        };
        for (index, step) in self.steps.iter().enumerate() {
            alive += bytes[index + 1];
            if alive > peak.bytes {
                peak = Peak {
                    bytes: alive,
                    layer: Some(step.layer),
                };
            }
            alive -= gone_after[index + 1];
        }
        peak
    }

    /// What training keeps for the backward pass, by layer, in bytes. A tensor that several layers need belongs to the
    /// first of them.
    pub(super) fn kept(&self, input_numbers: u64, layers: usize) -> Vec<u64> {
        let bytes = self.bytes(input_numbers);
        let mut counted = vec![false; bytes.len()];
        let mut kept = vec![0; layers];
        for (index, step) in self.steps.iter().enumerate() {
            let output = [Activation(index + 1)];
            let needed = match step.keeps {
                Keeps::Inputs => step.reads.as_slice(),
                Keeps::Output => &output,
                Keeps::Nothing => &[],
                Keeps::Choices => {
                    kept[step.layer] += bytes[index + 1];
                    &[]
                }
            };
            for &Activation(tensor) in needed {
                if !std::mem::replace(&mut counted[tensor], true) {
                    kept[step.layer] += bytes[tensor];
                }
            }
        }
        kept
    }
}
