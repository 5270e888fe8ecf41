//! Between a module's parameters and named tensors.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Tensor, TensorData};
use safetensors::{Dtype, View};

use super::weights::{StoredTensor, Weights};
use crate::error::{Error, MisshapenTensor, Result, WeightReport};

/// The name and layout of a parameter in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Placement {
    pub(crate) name: String,
    pub(crate) layout: Layout,
}

/// How a parameter is laid out in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// As in the module.
    Same,
    /// If it is a matrix, `[outputs, inputs]`, which the module has as `[inputs, outputs]`: PyTorch's linear layers.
    Transposed,
}

/// From the path of a parameter in its module to its place in a file.
pub(crate) type Naming = fn(&[&str]) -> Placement;

/// Fills a module with the tensors of a file. `model` says in an error what the module is.
///
/// # Errors
/// As [`check`]; nothing is decoded then.
pub(crate) fn fill<M: Module>(
    module: M,
    weights: &Weights,
    naming: Naming,
    model: &str,
) -> Result<M> {
    check(&module, weights, naming, model)?;
    let mut filler = Filler {
        at: Location::new(naming),
        weights,
        error: None,
    };
    let filled = module.map(&mut filler);
    match filler.error {
        None => Ok(filled),
        Some(error) => Err(error),
    }
}

/// Holds the tensors of a file against a module, which is not filled.
///
/// # Errors
/// [`Error::Weights`] with every tensor that is missing, unknown or of another shape.
pub(crate) fn check<M: Module>(
    module: &M,
    weights: &Weights,
    naming: Naming,
    model: &str,
) -> Result<()> {
    let report = compare(module, weights, naming);
    if report.is_empty() {
        return Ok(());
    }
    Err(Error::Weights {
        path: weights.path.clone(),
        model: model.to_owned(),
        report: Box::new(report),
    })
}

/// Everything that keeps the tensors of a file from filling a module.
fn compare<M: Module>(module: &M, weights: &Weights, naming: Naming) -> WeightReport {
    let mut comparer = Comparer {
        at: Location::new(naming),
        weights,
        used: BTreeSet::new(),
        report: WeightReport::default(),
    };
    module.visit(&mut comparer);
    let Comparer {
        used, mut report, ..
    } = comparer;
    report.unknown = weights
        .tensors
        .keys()
        .filter(|name| !used.contains(*name))
        .cloned()
        .collect();
    report.missing.sort();
    report.misshapen.sort();
    report
}

/// The parameters of a module as tensors of a file.
pub(crate) fn collect<M: Module>(module: &M, naming: Naming) -> BTreeMap<String, OwnedTensor> {
    let mut collector = Collector {
        at: Location::new(naming),
        tensors: BTreeMap::new(),
    };
    module.visit(&mut collector);
    collector.tensors
}

/// A tensor that is to be written.
#[derive(Clone, Debug)]
pub(crate) struct OwnedTensor {
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
    /// Little-endian.
    pub(crate) bytes: Vec<u8>,
}

impl View for &OwnedTensor {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }

    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

/// Writes tensors to a `.safetensors` file with metadata, under a temporary name first.
pub(crate) fn write_safetensors(
    tensors: &BTreeMap<String, OwnedTensor>,
    metadata: &[(&str, &str)],
    path: &Path,
) -> Result<()> {
    // Other readers want to know whose names these are.
    let metadata = metadata
        .iter()
        .chain(&[("format", "pt")])
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    let bytes = safetensors::serialize(tensors.iter(), Some(metadata)).map_err(|source| {
        Error::Safetensors {
            path: path.to_owned(),
            source,
        }
    })?;
    super::folder::write_file(path, &in_fixed_order(bytes))
}

/// The same file with the entries of its header sorted: what is written comes from a hash map, whose order differs from run
/// to run.
fn in_fixed_order(file: Vec<u8>) -> Vec<u8> {
    /// Tensors begin at a multiple of this.
    const ALIGNMENT: usize = 8;
    let (length, rest) = file.split_first_chunk().expect("a length");
    let (header, data) = rest.split_at(u64::from_le_bytes(*length) as usize);
    let entries: BTreeMap<String, BTreeMap<String, serde_json::Value>> =
        serde_json::from_slice(header).expect("a header that was just written");
    let mut header = serde_json::to_vec(&entries).expect("names, numbers and lists");
    header.resize(header.len().next_multiple_of(ALIGNMENT), b' ');
    let length = (header.len() as u64).to_le_bytes();
    [&length, header.as_slice(), data].concat()
}

/// The names of a module's parameters in a file.
pub(crate) fn names<M: Module>(module: &M, naming: Naming) -> Vec<String> {
    let mut namer = Namer {
        at: Location::new(naming),
        names: Vec::new(),
    };
    module.visit(&mut namer);
    namer.names
}

struct Namer {
    at: Location,
    names: Vec<String>,
}

impl ModuleVisitor for Namer {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.at.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.at.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, _param: &Param<Tensor<D>>) {
        self.names.push(self.at.placement().name);
    }
}

/// Where a walk through a module is.
struct Location {
    path: Vec<String>,
    naming: Naming,
}

impl Location {
    fn new(naming: Naming) -> Self {
        Self {
            path: Vec::new(),
            naming,
        }
    }

    fn placement(&self) -> Placement {
        let path: Vec<&str> = self.path.iter().map(String::as_str).collect();
        (self.naming)(&path)
    }
}

struct Comparer<'a> {
    at: Location,
    weights: &'a Weights,
    used: BTreeSet<String>,
    report: WeightReport,
}

impl ModuleVisitor for Comparer<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.at.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.at.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Placement { name, layout } = self.at.placement();
        let expected = in_file(&param.lazy_shape().dims::<D>(), layout);
        match self.weights.shape(&name) {
            None => self.report.missing.push(name),
            Some(found) => {
                if found != expected {
                    self.report.misshapen.push(MisshapenTensor {
                        name: name.clone(),
                        found: found.to_vec(),
                        expected,
                    });
                }
                self.used.insert(name);
            }
        }
    }
}

struct Filler<'a> {
    at: Location,
    weights: &'a Weights,
    /// The first tensor that could not be decoded.
    error: Option<Error>,
}

impl Filler<'_> {
    fn read(&self, name: &str, tensor: &StoredTensor, layout: Layout) -> Result<Vec<f32>> {
        let values = self.weights.read_f32(name, tensor)?;
        Ok(match (layout, tensor.shape.as_slice()) {
            (Layout::Transposed, &[rows, columns]) => transpose(&values, rows, columns),
            _ => values,
        })
    }
}

impl ModuleMapper for Filler<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.at.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.at.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Placement { name, layout } = self.at.placement();
        let (None, Some(tensor)) = (&self.error, self.weights.tensors.get(&name)) else {
            return param;
        };
        match self.read(&name, tensor, layout) {
            Ok(values) => {
                let data = TensorData::new(values, param.lazy_shape());
                let value = Tensor::from_data(data, &param.lazy_device());
                let id = param.id;
                param.transform_for_load(value, id)
            }
            Err(error) => {
                self.error = Some(error);
                param
            }
        }
    }
}

struct Collector {
    at: Location,
    tensors: BTreeMap<String, OwnedTensor>,
}

impl ModuleVisitor for Collector {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.at.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.at.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Placement { name, layout } = self.at.placement();
        let value = param.val();
        let dims = value.dims();
        let values: Vec<f32> = value
            .try_into_vec_as()
            .expect("a tensor of this process can be read as f32");
        let values = match (layout, dims.as_slice()) {
            (Layout::Transposed, &[rows, columns]) => transpose(&values, rows, columns),
            _ => values,
        };
        let tensor = OwnedTensor {
            dtype: Dtype::F32,
            shape: in_file(&dims, layout),
            bytes: values
                .iter()
                .flat_map(|value| value.to_le_bytes())
                .collect(),
        };
        self.tensors.insert(name, tensor);
    }
}

/// The shape in a file of a parameter of this shape.
fn in_file(dims: &[usize], layout: Layout) -> Vec<usize> {
    match (layout, dims) {
        (Layout::Transposed, &[inputs, outputs]) => vec![outputs, inputs],
        _ => dims.to_vec(),
    }
}

/// Side of the squares in which a matrix is transposed: source and destination lines both stay in cache.
const SQUARE: usize = 32;

/// The transpose of a row-major matrix of `rows` x `columns`.
fn transpose(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    let mut transposed = vec![0.0; values.len()];
    for row_start in (0..rows).step_by(SQUARE) {
        for column_start in (0..columns).step_by(SQUARE) {
            for row in row_start..(row_start + SQUARE).min(rows) {
                for column in column_start..(column_start + SQUARE).min(columns) {
                    transposed[column * rows + row] = values[row * columns + column];
                }
            }
        }
    }
    transposed
}

#[cfg(test)]
mod tests {
    use super::transpose;

    #[test]
    fn transposing_exchanges_rows_and_columns_at_every_size() {
        for (rows, columns) in [(1, 1), (2, 3), (33, 65), (64, 1)] {
            let values: Vec<f32> = (0..rows * columns).map(|value| value as f32).collect();
            let transposed = transpose(&values, rows, columns);
            for row in 0..rows {
                for column in 0..columns {
                    assert_eq!(
                        transposed[column * rows + row],
                        values[row * columns + column]
                    );
                }
            }
        }
    }
}
