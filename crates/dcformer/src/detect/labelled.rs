//! The labelled scans of a data set, with the labels that a model is asked for.

use dcformer_volume::dataset::{DataSet, Sample};

use crate::error::{Error, Result};

/// Scans whose answers can be held against labels.
#[derive(Clone, Debug)]
pub struct LabelledScans {
    /// The scans that have a label.
    pub samples: Vec<Sample>,
    /// Names of labels that the model is asked for and the data know.
    pub names: Vec<String>,
    /// `[samples][names]`
    pub labels: Vec<Vec<Option<bool>>>,
    /// Where each name is among those that the model is asked for.
    asked: Vec<usize>,
}

impl LabelledScans {
    /// Matches what a model is asked for with the labels of a data set, by name.
    ///
    /// # Errors
    /// If they have no name in common, or no scan has a label.
    pub fn new(asked: &[String], data: &DataSet) -> Result<Self> {
        let column = |name: &String| {
            let same = |label: &String| label.eq_ignore_ascii_case(name);
            data.label_names.iter().position(same)
        };
        let columns: Vec<(usize, usize)> = asked
            .iter()
            .enumerate()
            .filter_map(|(index, name)| Some((index, column(name)?)))
            .collect();
        if columns.is_empty() {
            return Err(Error::NoCommonLabel {
                asked: asked.join(", "),
                known: data.label_names.join(", "),
            });
        }
        let labelled = data.samples.iter().filter(|sample| sample.is_labelled());
        let samples: Vec<Sample> = labelled.cloned().collect();
        if samples.is_empty() {
            return Err(Error::NoLabelledScan);
        }
        let labels_of = |sample: &Sample| {
            let known = columns.iter().map(|&(_, known)| sample.labels[known]);
            known.collect()
        };
        Ok(Self {
            labels: samples.iter().map(labels_of).collect(),
            names: columns
                .iter()
                .map(|&(index, _)| asked[index].clone())
                .collect(),
            asked: columns.iter().map(|&(index, _)| index).collect(),
            samples,
        })
    }

    /// From a number for everything that the model is asked for, those of [`names`](Self::names).
    ///
    /// # Panics
    /// If there are fewer than the model is asked for.
    pub fn select(&self, probabilities: &[f32]) -> Vec<f32> {
        self.asked
            .iter()
            .map(|&index| probabilities[index])
            .collect()
    }
}
