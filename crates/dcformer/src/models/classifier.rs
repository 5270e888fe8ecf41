//! The head of fine-tuning: from the latent of a volume to a logit for each label (SPEC section 9).
//!
//! ```text
//! latent of unit length -> ReLU -> dropout (in training) -> linear
//! ```

use burn::module::Module;
use burn::nn::{Dropout, DropoutConfig, Linear, LinearConfig};
use burn::tensor::{Device, Tensor, TensorData, activation};
use serde::{Deserialize, Serialize};

/// What a [`Classifier`] consists of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassifierConfig {
    /// Names of the labels, in the order of the logits.
    pub labels: Vec<String>,
    /// Length of the latent.
    pub latent: usize,
    /// Share of the latent's numbers that a training step leaves out.
    #[serde(default)]
    pub dropout: f64,
}

impl ClassifierConfig {
    /// Builds the head with fresh weights.
    pub fn init(&self, device: &Device) -> Classifier {
        Classifier {
            dropout: DropoutConfig::new(self.dropout).init(),
            linear: LinearConfig::new(self.latent, self.labels.len()).init(device),
        }
    }
}

/// Latent to logits.
#[derive(Module, Debug)]
pub struct Classifier {
    dropout: Dropout,
    linear: Linear,
}

impl Classifier {
    /// Log-odds of each label.
    ///
    /// # Shapes
    /// - `latents`: `[batch, latent]`, rows of unit length; output: `[batch, labels]`
    pub fn logits(&self, latents: Tensor<2>) -> Tensor<2> {
        let left = self.dropout.forward(activation::relu(latents));
        self.linear.forward(left)
    }

    /// Probability of each label.
    ///
    /// # Shapes
    /// As [`logits`](Self::logits).
    pub fn probabilities(&self, latents: Tensor<2>) -> Tensor<2> {
        activation::sigmoid(self.logits(latents))
    }

    /// The same head with other weights.
    ///
    /// # Shapes
    /// - `weights`: `[labels][latent]`, `biases`: `[labels]`
    ///
    /// # Panics
    /// If they are not as many as the head has.
    #[must_use]
    pub(crate) fn with_weights(mut self, weights: &[Vec<f32>], biases: &[f32]) -> Self {
        let [latent, labels] = self.linear.weight.dims();
        assert_eq!((weights.len(), biases.len()), (labels, labels));
        let by_latent = (0..latent).flat_map(|from| weights.iter().map(move |row| row[from]));
        let by_latent: Vec<f32> = by_latent.collect();
        let weights = TensorData::new(by_latent, [latent, labels]);
        let weight = self.linear.weight;
        let (id, weights) = (weight.id, Tensor::from_data(weights, &weight.lazy_device()));
        self.linear.weight = weight.transform_for_load(weights, id);
        self.linear.bias = self.linear.bias.map(|bias| {
            let data = TensorData::new(biases.to_vec(), [labels]);
            let (id, biases) = (bias.id, Tensor::from_data(data, &bias.lazy_device()));
            bias.transform_for_load(biases, id)
        });
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensors::rows;

    #[test]
    fn logits_are_those_of_the_positive_numbers() {
        let device = Device::flex();
        let config = ClassifierConfig {
            labels: vec!["a".to_owned(), "b".to_owned()],
            latent: 3,
            dropout: 0.5,
        };
        let weights = [vec![1.0, 10.0, 100.0], vec![2.0, 3.0, 4.0]];
        let classifier = config.init(&device).with_weights(&weights, &[0.5, -1.0]);
        let latents = Tensor::from_data([[0.5, -1.0, 2.0], [-1.0, 1.0, -1.0]], &device);
        let logits = rows(classifier.logits(latents.clone()));
        assert_eq!(logits, [[201.0, 8.0], [10.5, 2.0]]);
        let probability = rows(classifier.probabilities(latents))[1][1];
        assert!((probability - 1.0 / (1.0 + (-2.0f32).exp())).abs() < 1e-6);
    }
}
