//! `dcformer complexity`: what does a network cost?

use std::path::PathBuf;
use std::str::FromStr;

use anyhow::ensure;
use clap::{Args, ValueEnum};
use dcformer::complexity::{Complexity as Row, Kind, LayerShare};
use dcformer::models::{Preset, preset, presets};
use dcformer::report::study::{self, Sheet};
use serde::Serialize;

use crate::args::{Format, List, Runtime};
use crate::output::{self, Align};
use crate::progress::note;

/// Bytes of a MB, as `bench` prints them.
const MB: f64 = 1024.0 * 1024.0;

/// Parameters, multiply-adds and activation memory of every network
///
/// Memory is that of plain execution in single precision, one volume: in inference the tensors that are alive together, in
/// training all that the backward pass needs. docs/cost.md says what is counted.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    dcformer complexity --shape 128,256,256 --json\n  \
    dcformer complexity --model-name vit --by kind\n  \
    dcformer complexity --model-name dcformer --variant nano --by layer --depth 2\n  \
    dcformer complexity --paper\n  \
    dcformer complexity --figures cost")]
pub(crate) struct Complexity {
    /// One network only
    #[arg(long, value_name = "NAME")]
    model_name: Option<String>,
    /// One size of it only
    #[arg(long, value_name = "V", requires = "model_name")]
    variant: Option<String>,
    /// Voxels of the volume
    #[arg(long, value_name = "D,H,W", default_value_t = List([256, 512, 512]))]
    shape: List<usize, 3>,
    /// Break the cost down
    #[arg(long, value_enum)]
    by: Option<By>,
    /// Levels of the layers' names that `--by layer` keeps apart: a number, or `full`
    #[arg(long, value_name = "N", requires = "by")]
    depth: Option<Depth>,
    /// Set the counts beside those that the paper prints, and say where they differ and why
    #[arg(long, conflicts_with_all = ["shape", "model_name", "by", "json"])]
    paper: bool,
    /// Write figures 1 and 2 and tables 1 and 2 of the paper into a folder, as SVG, Markdown and JSON
    #[arg(long, value_name = "DIR", conflicts_with_all = ["shape", "model_name", "by", "paper", "json"])]
    figures: Option<PathBuf>,
    #[command(flatten)]
    format: Format,
    #[command(flatten)]
    runtime: Runtime,
}

/// What a row of the breakdown is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum By {
    /// Multiply-adds by what the layers do
    Kind,
    /// Parameters, multiply-adds and memory by part of the network
    Layer,
}

/// How far down the names of layers are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Depth(usize);

impl FromStr for Depth {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "full" {
            return Ok(Self(usize::MAX));
        }
        match text.parse() {
            Ok(levels) if levels > 0 => Ok(Self(levels)),
            _ => Err("expected a number from 1, or `full`".to_owned()),
        }
    }
}

/// A network by layer, as JSON.
#[derive(Serialize)]
struct Layered {
    #[serde(flatten)]
    row: Row,
    layers: Vec<LayerShare>,
}

impl Complexity {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        self.runtime.start()?;
        ensure!(
            self.depth.is_none() || self.by == Some(By::Layer),
            "--depth goes with --by layer"
        );
        if let Some(folder) = &self.figures {
            let written = study::write(folder)?;
            let lines = written.iter().map(|path| format!("{}\n", path.display()));
            return output::text(&lines.collect::<String>());
        }
        if self.paper {
            return print_sheet(&study::table_1());
        }
        let chosen = self.chosen()?;
        let json = self.format.json;
        match self.by {
            Some(By::Layer) => {
                let rows = chosen
                    .into_iter()
                    .map(|(preset, row)| self.layered(&preset, row));
                let rows: Vec<Layered> = rows.collect();
                if json {
                    output::json(&rows)
                } else {
                    print_layers(&rows)
                }
            }
            by => {
                let rows: Vec<Row> = chosen.into_iter().map(|(_, row)| row).collect();
                match by {
                    _ if json => output::json(&rows),
                    Some(_) => print_kinds(&rows),
                    None => print_totals(&rows),
                }
            }
        }
    }

    /// A row of each network that was asked for; those that cannot take the volume are named and left out, unless none
    /// is left.
    fn chosen(&self) -> anyhow::Result<Vec<(Preset, Row)>> {
        /// Larger than any volume, and small enough that no count overflows.
        const LARGEST: usize = 1 << 13;
        ensure!(
            self.shape.0.iter().all(|size| (1..=LARGEST).contains(size)),
            "--shape is {}, expected three sizes from 1 to {LARGEST}",
            self.shape
        );
        let mut chosen = presets();
        if let Some(network) = &self.model_name {
            let named = preset(network, self.variant.as_deref())?;
            chosen.retain(|row| {
                row.network == named.network
                    && (self.variant.is_none() || row.variant == named.variant)
            });
        }
        let (mut rows, mut refused) = (Vec::new(), None);
        for preset in chosen {
            match Row::of(&preset, self.shape.into()) {
                Ok(row) => rows.push((preset, row)),
                Err(error) => {
                    note(&format!(
                        "left out: {} {}: {error}",
                        preset.network, preset.variant
                    ));
                    refused = Some(error);
                }
            }
        }
        match refused {
            Some(error) if rows.is_empty() => Err(error.into()),
            _ => Ok(rows),
        }
    }

    fn layered(&self, preset: &Preset, row: Row) -> Layered {
        let volume = self.shape.into();
        let Depth(depth) = self.depth.unwrap_or(Depth(1));
        Layered {
            row,
            layers: preset.config.cost(volume).by_layer(volume, depth),
        }
    }
}

/// A row for each network.
fn print_totals(rows: &[Row]) -> anyhow::Result<()> {
    let cells = |row: &Row| {
        let projected = row
            .params_with_projection
            .map_or("-".to_owned(), |params| params.to_string());
        let memory = &row.activation_memory;
        vec![
            row.model.to_owned(),
            row.variant.to_owned(),
            row.params.to_string(),
            projected,
            format!("{:.4}", row.gmacs),
            mb(memory.inference_bytes),
            mb(memory.training_bytes),
        ]
    };
    let headings = [
        ("model", Align::Left),
        ("variant", Align::Left),
        ("parameters", Align::Right),
        ("with projection", Align::Right),
        ("GMACs", Align::Right),
        ("inference MB", Align::Right),
        ("training MB", Align::Right),
    ];
    output::table(&headings, &rows.iter().map(cells).collect::<Vec<_>>())
}

fn mb(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / MB)
}

fn gmacs(macs: u64) -> String {
    format!("{:.4}", macs as f64 / 1e9)
}

/// GMACs by kind of operation.
fn print_kinds(rows: &[Row]) -> anyhow::Result<()> {
    // Kinds without multiply-adds would be columns of zeros.
    let counts = |kind: Kind| !matches!(kind, Kind::Parameter | Kind::Elementwise);
    let kinds: Vec<Kind> = Kind::ALL.into_iter().filter(|kind| counts(*kind)).collect();
    let names: Vec<String> = kinds.iter().map(Kind::to_string).collect();
    let cells = |row: &Row| {
        let mut cells = vec![row.model.to_owned(), row.variant.to_owned()];
        cells.extend(kinds.iter().map(|kind| {
            let share = row.by_kind.iter().find(|share| share.kind == *kind);
            share.map_or("-".to_owned(), |share| gmacs(share.amount.macs))
        }));
        cells.push(gmacs(row.macs));
        cells
    };
    let mut headings = vec![("model", Align::Left), ("variant", Align::Left)];
    headings.extend(names.iter().map(|name| (name.as_str(), Align::Right)));
    headings.push(("GMACs", Align::Right));
    output::table(&headings, &rows.iter().map(cells).collect::<Vec<_>>())
}

/// A row for each part of each network, and one for all of it.
fn print_layers(rows: &[Layered]) -> anyhow::Result<()> {
    let mut cells = Vec::new();
    for Layered { row, layers } in rows {
        let mut push = |layer: &str, params: u64, macs: u64, training_bytes: u64| {
            let share = 100.0 * macs as f64 / row.macs.max(1) as f64;
            cells.push(vec![
                row.model.to_owned(),
                row.variant.to_owned(),
                layer.to_owned(),
                params.to_string(),
                gmacs(macs),
                format!("{share:.1}"),
                mb(training_bytes),
            ]);
        };
        for share in layers {
            let amount = share.amount;
            push(
                &share.layer,
                amount.params,
                amount.macs,
                share.training_bytes,
            );
        }
        let training_bytes = row.activation_memory.training_bytes;
        push("together", row.params, row.macs, training_bytes);
    }
    let headings = [
        ("model", Align::Left),
        ("variant", Align::Left),
        ("layer", Align::Left),
        ("parameters", Align::Right),
        ("GMACs", Align::Right),
        ("% of them", Align::Right),
        ("training MB", Align::Right),
    ];
    output::table(&headings, &cells)
}

fn print_sheet(sheet: &Sheet) -> anyhow::Result<()> {
    let align = |column| {
        if column < sheet.words {
            Align::Left
        } else {
            Align::Right
        }
    };
    let headings = sheet.headings.iter().enumerate();
    let headings: Vec<(&str, Align)> = headings
        .map(|(column, heading)| (heading.as_str(), align(column)))
        .collect();
    output::text(&format!("{}\n\n", sheet.title))?;
    output::table(&headings, &sheet.rows)?;
    let notes = sheet.notes.iter().enumerate();
    let notes = notes.map(|(index, note)| format!("\n{}. {note}", index + 1));
    output::text(&format!("{}\n", notes.collect::<String>()))
}
