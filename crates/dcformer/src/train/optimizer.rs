//! AdamW over the parameters of a module.
//!
//! Ours and not the framework's, because its state must be written and read exactly, by name, for a resumed run to end
//! with the same bits, and because one pass over each parameter does what the framework does in ten.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Gradients, Tensor, TensorData};
use dcformer_kernels::on_workers;
use rayon::prelude::*;

use super::config::OptimizerConfig;

/// Running means of a parameter's gradient and of its square.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Moments {
    /// Of the gradient.
    pub mean: Vec<f32>,
    /// Of its square.
    pub square: Vec<f32>,
}

/// AdamW (arXiv 1711.05101) as PyTorch computes it.
///
/// ```text
/// m = b1 m + (1 - b1) g          v = b2 v + (1 - b2) g²
/// w = w (1 - rate decay) - rate / (1 - b1^t) · m / (sqrt(v / (1 - b2^t)) + epsilon)
/// ```
/// Decay applies to tensors of two or more dimensions. A parameter without a gradient stays as it is.
#[derive(Clone, Debug)]
pub struct AdamW {
    config: OptimizerConfig,
    /// Steps taken.
    step: u64,
    moments: BTreeMap<String, Moments>,
}

impl AdamW {
    /// An optimiser that has taken no step.
    pub fn new(config: OptimizerConfig) -> Self {
        Self {
            config,
            step: 0,
            moments: BTreeMap::new(),
        }
    }

    /// An optimiser that goes on.
    pub fn resume(config: OptimizerConfig, step: u64, moments: BTreeMap<String, Moments>) -> Self {
        Self {
            config,
            step,
            moments,
        }
    }

    /// Running means by the parameter's path in the module.
    pub fn moments(&self) -> &BTreeMap<String, Moments> {
        &self.moments
    }

    /// Moves every parameter that has a gradient.
    pub fn step<M: Module>(
        &mut self,
        module: M,
        gradients: &ParameterGradients,
        learning_rate: f64,
    ) -> M {
        self.step += 1;
        module.map(&mut Stepper {
            optimizer: self,
            gradients,
            learning_rate,
            path: Vec::new(),
        })
    }

    fn update(
        &mut self,
        path: &str,
        weights: &mut [f32],
        gradient: &[f32],
        rate: f64,
        decays: bool,
    ) {
        /// Values of one task.
        const CHUNK: usize = 1 << 14;
        let moments = self.moments.entry(path.to_owned()).or_default();
        moments.mean.resize(weights.len(), 0.0);
        moments.square.resize(weights.len(), 0.0);
        let [b1, b2] = self.config.betas;
        let power = |beta: f64| 1.0 - beta.powi(i32::try_from(self.step).unwrap_or(i32::MAX));
        let step_size = (rate / power(b1)) as f32;
        let root_correction = power(b2).sqrt() as f32;
        let keep = if decays {
            (1.0 - rate * self.config.weight_decay) as f32
        } else {
            1.0
        };
        let (b1, b2, epsilon) = (b1 as f32, b2 as f32, self.config.epsilon as f32);
        weights
            .par_chunks_mut(CHUNK)
            .zip(gradient.par_chunks(CHUNK))
            .zip(
                moments
                    .mean
                    .par_chunks_mut(CHUNK)
                    .zip(moments.square.par_chunks_mut(CHUNK)),
            )
            .for_each(|((weights, gradient), (mean, square))| {
                for index in 0..weights.len() {
                    let g = gradient[index];
                    mean[index] = b1 * mean[index] + (1.0 - b1) * g;
                    square[index] = b2 * square[index] + (1.0 - b2) * g * g;
                    let root = square[index].sqrt() / root_correction + epsilon;
                    weights[index] = weights[index] * keep - step_size * mean[index] / root;
                }
            });
    }
}

/// The gradients of a loss, computed where operations follow each other without waking threads.
pub(crate) fn backward(loss: Tensor<1>) -> Gradients {
    on_workers(|| loss.backward())
}

/// Gradients by the parameter's path in the module.
#[derive(Clone, Debug, Default)]
pub struct ParameterGradients {
    by_path: BTreeMap<String, Vec<f32>>,
}

impl ParameterGradients {
    /// Adds the gradients of a module's parameters, times `factor`.
    pub fn add<M: Module>(&mut self, module: &M, gradients: &Gradients, factor: f32) {
        module.visit(&mut Collector {
            into: self,
            gradients,
            factor,
            path: Vec::new(),
        });
    }

    /// The gradients, by the parameter's path; a parameter that took no part has none.
    pub fn by_path(&self) -> &BTreeMap<String, Vec<f32>> {
        &self.by_path
    }

    /// Norm of all gradients together.
    pub fn norm(&self) -> f64 {
        let squares = self
            .by_path
            .values()
            .flatten()
            .map(|value| f64::from(*value).powi(2));
        squares.sum::<f64>().sqrt()
    }

    /// Multiplies all gradients.
    pub fn scale(&mut self, factor: f32) {
        self.by_path
            .values_mut()
            .flatten()
            .for_each(|value| *value *= factor);
    }
}

struct Collector<'a> {
    into: &'a mut ParameterGradients,
    gradients: &'a Gradients,
    factor: f32,
    path: Vec<String>,
}

impl ModuleVisitor for Collector<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Some(gradient) = param.val().grad(self.gradients) else {
            return;
        };
        let values: Vec<f32> = gradient
            .into_data()
            .try_to_vec()
            .expect("gradients are single precision");
        let sums = self
            .into
            .by_path
            .entry(self.path.join("."))
            .or_insert_with(|| vec![0.0; values.len()]);
        for (sum, value) in sums.iter_mut().zip(values) {
            *sum += self.factor * value;
        }
    }
}

struct Stepper<'a> {
    optimizer: &'a mut AdamW,
    gradients: &'a ParameterGradients,
    learning_rate: f64,
    path: Vec<String>,
}

impl ModuleMapper for Stepper<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let path = self.path.join(".");
        let Some(gradient) = self.gradients.by_path.get(&path) else {
            return param;
        };
        param.map(|tensor| {
            let (shape, device) = (tensor.dims(), tensor.device());
            let mut weights: Vec<f32> = tensor
                .detach()
                .into_data()
                .try_to_vec()
                .expect("weights are single precision");
            self.optimizer
                .update(&path, &mut weights, gradient, self.learning_rate, D >= 2);
            Tensor::from_data(TensorData::new(weights, shape), &device).require_grad()
        })
    }
}

#[cfg(test)]
mod tests {
    use burn::nn::{Linear, LinearConfig};
    use burn::tensor::Device;

    use super::*;

    fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
        tensor.into_data().try_to_vec().expect("f32")
    }

    /// Two steps written out by hand for the first weight and the first bias.
    #[test]
    fn two_steps_equal_the_formula_and_only_matrices_decay() {
        let device = Device::flex().autodiff();
        let mut linear: Linear = LinearConfig::new(3, 2).init(&device);
        let config = OptimizerConfig::default();
        let mut optimizer = AdamW::new(config.clone());
        let rate = 0.1;
        let mut expected: Vec<(f64, f64, f64)> = vec![
            (f64::from(values(linear.weight.val())[0]), 0.0, 0.0),
            (
                f64::from(values(linear.bias.as_ref().expect("a bias").val())[0]),
                0.0,
                0.0,
            ),
        ];
        for step in 1..=2 {
            let x = Tensor::<2>::from_data([[1.0, 2.0, -1.0], [0.5, -3.0, 2.0]], &device);
            let loss = linear.forward(x).powi_scalar(2).sum();
            let gradients = loss.backward();
            let mut collected = ParameterGradients::default();
            collected.add(&linear, &gradients, 1.0);
            let first =
                [collected.by_path["weight"][0], collected.by_path["bias"][0]].map(f64::from);
            for ((w, m, v), (g, decay)) in expected
                .iter_mut()
                .zip(first.into_iter().zip([config.weight_decay, 0.0]))
            {
                *m = 0.9 * *m + 0.1 * g;
                *v = 0.95 * *v + 0.05 * g * g;
                let (corrected_m, corrected_v) = (
                    *m / (1.0 - 0.9f64.powi(step)),
                    *v / (1.0 - 0.95f64.powi(step)),
                );
                *w = *w * (1.0 - rate * decay)
                    - rate * corrected_m / (corrected_v.sqrt() + config.epsilon);
            }
            linear = optimizer.step(linear, &collected, rate);
        }
        let found = [
            values(linear.weight.val())[0],
            values(linear.bias.as_ref().expect("a bias").val())[0],
        ];
        for (found, (expected, ..)) in found.into_iter().zip(expected) {
            assert!(
                (f64::from(found) - expected).abs() < 1e-6,
                "{found} is not {expected}"
            );
        }
    }
}
