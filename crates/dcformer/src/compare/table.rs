//! The comparison as tables: CSV for programs, Markdown for documents.

use std::path::Path;

use super::{Compared, Comparison};
use crate::error::Result;
use crate::evaluate::retrieval::Recall;

/// A number of an encoder.
type Number = dyn Fn(&Compared) -> Option<f64>;

/// One number of each encoder.
struct Column {
    heading: String,
    value: Box<Number>,
    /// Digits behind the point in Markdown; `None` for a column that only the CSV has.
    decimals: Option<usize>,
}

impl Column {
    fn new(
        heading: impl Into<String>,
        decimals: Option<usize>,
        value: impl Fn(&Compared) -> Option<f64> + 'static,
    ) -> Self {
        Self {
            heading: heading.into(),
            value: Box::new(value),
            decimals,
        }
    }
}

impl Comparison {
    /// A row for each encoder, best first, all digits.
    pub fn to_csv(&self) -> String {
        let columns = self.columns();
        let mut csv = csv::Writer::from_writer(Vec::new());
        let number = |value: Option<f64>| value.map_or(String::new(), |value| value.to_string());
        let names = ["model", "variant"].map(str::to_owned).into_iter();
        let headings = names.chain(columns.iter().map(|column| column.heading.clone()));
        let rows = self.ranked().into_iter().map(|compared| {
            let name = &compared.encoder;
            let numbers = columns
                .iter()
                .map(|column| number((column.value)(compared)));
            [name.model.clone(), name.variant.clone()]
                .into_iter()
                .chain(numbers)
                .collect::<Vec<String>>()
        });
        for row in [headings.collect()].into_iter().chain(rows) {
            csv.write_record(row).expect("a vector takes every row");
        }
        let bytes = csv.into_inner().expect("a vector takes every row");
        String::from_utf8(bytes).expect("a table of text is text")
    }

    /// A row for each encoder, best first, rounded.
    pub fn to_markdown(&self) -> String {
        let columns = self.columns();
        let shown: Vec<(&Column, usize)> = columns
            .iter()
            .filter_map(|column| Some((column, column.decimals?)))
            .collect();
        let headings: Vec<&str> = shown
            .iter()
            .map(|(column, _)| column.heading.as_str())
            .collect();
        let mut table = format!(
            "| encoder | {} |\n|---|{}\n",
            headings.join(" | "),
            "---|".repeat(shown.len())
        );
        for compared in self.ranked() {
            let cells: Vec<String> = shown
                .iter()
                .map(|(column, decimals)| {
                    let value = (column.value)(compared);
                    value.map_or("-".to_owned(), |value| format!("{value:.decimals$}"))
                })
                .collect();
            table += &format!("| {} | {} |\n", compared.encoder, cells.join(" | "));
        }
        for failure in &self.failures {
            let reason = failure.reason.replace(['\n', '|'], " ");
            table += &format!("\n{} came to no result: {reason}\n", failure.encoder);
        }
        table
    }

    /// Writes [`to_csv`](Self::to_csv) and [`to_markdown`](Self::to_markdown).
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn write_tables(&self, csv: &Path, markdown: &Path) -> Result<()> {
        crate::checkpoint::write_file(csv, self.to_csv().as_bytes())?;
        crate::checkpoint::write_file(markdown, self.to_markdown().as_bytes())
    }

    fn columns(&self) -> Vec<Column> {
        let metric = |name: &str, decimals, value: fn(&Compared) -> Option<f64>| {
            Column::new(name, decimals, value)
        };
        let mut columns = vec![
            metric("parameters (M)", Some(2), |c| {
                Some(c.cost.params as f64 / 1e6)
            }),
            metric("parameters with projection (M)", None, |c| {
                Some(c.cost.params_with_projection as f64 / 1e6)
            }),
            metric("GMACs", Some(3), |c| Some(c.cost.gmacs)),
            metric("GMACs of 512x512x256", None, |c| {
                c.cost.gmacs_of_paper_volume
            }),
            metric("mean AUROC", Some(3), |c| c.detection.metrics.auroc_mean),
            metric("95 % from", Some(3), |c| {
                Some(c.detection.intervals.auroc_mean?.low)
            }),
            metric("95 % to", Some(3), |c| {
                Some(c.detection.intervals.auroc_mean?.high)
            }),
            metric("mean AP", Some(3), |c| {
                c.detection.metrics.average_precision_mean
            }),
            metric("accuracy", Some(3), |c| c.detection.metrics.accuracy),
            metric("weighted F1", Some(3), |c| c.detection.metrics.f1_weighted),
            metric("precision", None, |c| c.detection.metrics.precision_micro),
            metric("recall", None, |c| c.detection.metrics.recall_micro),
        ];
        columns.extend(self.recall_columns());
        columns.extend([
            metric("ms per volume", Some(1), |c| {
                Some(c.inference.seconds * 1e3)
            }),
            metric("MB encoding", Some(0), |c| c.inference.peak_rss_mb),
            metric("training pairs/s", Some(1), |c| {
                Some(c.training.pairs_per_s)
            }),
            metric("training s", Some(0), |c| Some(c.training.seconds)),
            metric("MB training", Some(0), |c| c.training.peak_rss_mb),
            metric("pairs seen", None, |c| Some(c.training.pairs as f64)),
            metric("loss", None, |c| Some(c.training.loss)),
        ]);
        columns
    }

    /// Recall at each K, both ways.
    fn recall_columns(&self) -> Vec<Column> {
        let found = self
            .encoders
            .iter()
            .find_map(|compared| compared.retrieval.as_ref());
        let ks = found.iter().flat_map(|found| &found.text_to_volume);
        let ks: Vec<usize> = ks.map(|recall| recall.k).collect();
        let at = |recalls: &[Recall], k| recalls.iter().find(|recall| recall.k == k)?.value;
        let columns = ks.iter().flat_map(move |&k| {
            let decimals = (k == super::comparison::RECALL_COMPARED_AT).then_some(3);
            [
                Column::new(format!("text to volume R@{k}"), decimals, move |c| {
                    at(&c.retrieval.as_ref()?.text_to_volume, k)
                }),
                Column::new(format!("volume to text R@{k}"), decimals, move |c| {
                    at(&c.retrieval.as_ref()?.volume_to_text, k)
                }),
            ]
        });
        columns.collect()
    }
}
