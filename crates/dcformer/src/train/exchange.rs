//! What workers of a run tell each other: latents, gradients, running statistics, where they start.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Tensor, TensorData};

use super::optimizer::ParameterGradients;
use crate::error::{Error, Result};
use crate::models::BatchNorm;
use crate::workers::{Communicator, bytes_of, numbers_of};

/// Rows of all workers, by rank, where this one has its own: gradients reach those.
///
/// # Shapes
/// - `own`: `[groups, rows of this worker, width]`; output: `[groups, rows of all, width]`
pub(super) fn gather_rows(own: Tensor<3>, workers: &dyn Communicator) -> Result<Tensor<3>> {
    let ([groups, _, width], device) = (own.dims(), own.device());
    let values: Vec<f32> = own
        .clone()
        .detach()
        .into_data()
        .try_to_vec()
        .expect("latents are single precision");
    let all = workers.all_gather(&bytes_of(&values))?;
    let rows = all.iter().enumerate().map(|(rank, bytes)| {
        if rank == workers.rank() {
            return own.clone();
        }
        let values = numbers_of(bytes);
        let shape = [groups, values.len() / (groups * width), width];
        Tensor::from_data(TensorData::new(values, shape), &device)
    });
    Ok(Tensor::cat(rows.collect(), 1))
}

/// Adds up the gradients of all workers. A parameter may have taken part in some of them only.
pub(super) fn sum_gradients<M: Module>(
    module: &M,
    gradients: &mut ParameterGradients,
    workers: &dyn Communicator,
) -> Result<()> {
    if workers.size() == 1 {
        return Ok(());
    }
    let mut parameters = Sizes::default();
    module.visit(&mut parameters);
    // One message: of each parameter, how many workers have a gradient, and the gradient.
    let mut message = Vec::new();
    for (path, size) in &parameters.sizes {
        match gradients.by_path.get(path) {
            Some(gradient) => {
                message.push(1.0);
                message.extend(gradient);
            }
            None => message.resize(message.len() + 1 + size, 0.0),
        }
    }
    workers.all_reduce(&mut message)?;
    let mut rest = message.as_slice();
    for (path, size) in parameters.sizes {
        let (own, others) = rest.split_at(1 + size);
        rest = others;
        if own[0] > 0.0 {
            gradients.by_path.insert(path, own[1..].to_vec());
        }
    }
    Ok(())
}

/// Replaces the running statistics of batch norms by their means over all workers.
pub(super) fn average_running<M: Module>(module: M, workers: &dyn Communicator) -> Result<M> {
    if workers.size() == 1 {
        return Ok(module);
    }
    let mut values = values_of(&module, is_running);
    workers.all_reduce(&mut values)?;
    let share = 1.0 / workers.size() as f32;
    values.iter_mut().for_each(|value| *value *= share);
    Ok(with_values(module, is_running, values))
}

/// Replaces everything that the forward pass reads, parameters and buffers, by what the first worker has.
pub(super) fn broadcast<M: Module>(module: M, workers: &dyn Communicator) -> Result<M> {
    if workers.size() == 1 {
        return Ok(module);
    }
    let own = values_of(&module, is_any);
    let values = numbers_of(&workers.broadcast(bytes_of(&own))?);
    if workers.any(values.len() != own.len())? {
        return Err(Error::WorkersDiffer {
            rank: workers.rank(),
            what: "network",
        });
    }
    Ok(with_values(module, is_any, values))
}

/// Refuses workers that were not started alike.
pub(super) fn check_alike(
    what: &'static str,
    own: &[u8],
    workers: &dyn Communicator,
) -> Result<()> {
    let all = workers.all_gather(own)?;
    match all.iter().position(|of_worker| *of_worker != all[0]) {
        Some(rank) => Err(Error::WorkersDiffer { rank, what }),
        None => Ok(()),
    }
}

/// Which tensors are meant, by their path.
type Selection = fn(&[String]) -> bool;

fn is_any(_path: &[String]) -> bool {
    true
}

fn is_running(path: &[String]) -> bool {
    path.last()
        .is_some_and(|name| BatchNorm::RUNNING.contains(&name.as_str()))
}

fn values_of<M: Module>(module: &M, select: Selection) -> Vec<f32> {
    let mut reader = Reader {
        select,
        path: Vec::new(),
        values: Vec::new(),
    };
    module.visit(&mut reader);
    reader.values
}

fn with_values<M: Module>(module: M, select: Selection, values: Vec<f32>) -> M {
    module.map(&mut Writer {
        select,
        path: Vec::new(),
        values: values.into_iter(),
    })
}

/// Number of values of each parameter that is trained, in the module's order.
#[derive(Default)]
struct Sizes {
    path: Vec<String>,
    sizes: Vec<(String, usize)>,
}

impl ModuleVisitor for Sizes {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let tensor = param.val();
        if tensor.is_require_grad() {
            let size = tensor.dims().iter().product();
            self.sizes.push((self.path.join("."), size));
        }
    }
}

/// Reads tensors one after the other.
struct Reader {
    select: Selection,
    path: Vec<String>,
    values: Vec<f32>,
}

impl ModuleVisitor for Reader {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if (self.select)(&self.path) {
            let values = param.val().detach().into_data().try_to_vec::<f32>();
            self.values
                .extend(values.expect("parameters are single precision"));
        }
    }
}

/// Fills tensors one after the other, in the order of a [`Reader`].
struct Writer {
    select: Selection,
    path: Vec<String>,
    values: std::vec::IntoIter<f32>,
}

impl ModuleMapper for Writer {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if !(self.select)(&self.path) {
            return param;
        }
        param.map(|tensor| {
            let (shape, device) = (tensor.dims(), tensor.device());
            let values = self.values.by_ref().take(shape.iter().product()).collect();
            let filled = Tensor::from_data(TensorData::new::<f32, _>(values, shape), &device);
            filled.set_require_grad(tensor.is_require_grad())
        })
    }
}

#[cfg(test)]
mod tests;
