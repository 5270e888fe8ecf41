//! The paper's study of costs, made anew: figures 1 and 2, the cost columns of table 1, and table 2.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::cost_chart;
use crate::checkpoint::{json_text, write_file};
use crate::complexity::published::{Compared, Comparison, ROWS, Scope};
use crate::complexity::{Complexity, Figure, PAPER_VOLUME, Point, table};
use crate::error::{Error, Result};
use crate::models::dcformer::{DcformerEncoderConfig, Mixer};
use crate::models::{ImageEncoderConfig, Preset, presets};

/// Rows of words and numbers under headings, with notes below.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sheet {
    /// What it shows.
    pub title: String,
    /// A heading for each column.
    pub headings: Vec<String>,
    /// How many columns, from the first, are words.
    pub words: usize,
    /// The cells.
    pub rows: Vec<Vec<String>>,
    /// What is said below; a cell may refer to one by its number, from 1.
    pub notes: Vec<String>,
}

impl Sheet {
    /// The same as Markdown.
    pub fn to_markdown(&self) -> String {
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let rules: Vec<String> = (0..self.headings.len())
            .map(|column| if column < self.words { "---" } else { "---:" }.to_owned())
            .collect();
        let mut text = format!("{}\n\n{}{}", self.title, line(&self.headings), line(&rules));
        self.rows.iter().for_each(|row| text += &line(row));
        for (index, note) in self.notes.iter().enumerate() {
            text += &format!("\n{}. {note}", index + 1);
        }
        text.trim_end().to_owned() + "\n"
    }
}

/// Table 1: every network for volumes of the paper's size, beside what the paper prints. The paper's rows come first, in
/// its order.
pub fn table_1() -> Sheet {
    let mut notes = Vec::new();
    let rows = table_1_rows();
    let rows = rows.iter().map(|row| {
        let mut cells = vec![row.model.to_owned(), row.variant.to_owned()];
        match &row.paper {
            Some(paper) => {
                cells.extend(compared_cells(&paper.params, 1e6));
                cells.extend(compared_cells(&paper.macs, 1e9));
                cells.push(paper.reason.map_or(String::new(), |reason| {
                    notes.push(format!("{} {}: {reason}.", row.model, row.variant));
                    notes.len().to_string()
                }));
            }
            None => {
                let params = row.params_with_projection.unwrap_or(row.params);
                cells.extend([in_units(params, 1e6), "-".into(), "-".into()]);
                cells.extend([in_units(row.macs, 1e9), "-".into(), "-".into()]);
                cells.push(String::new());
            }
        }
        cells
    });
    let rows = rows.collect();
    notes.push(
        "Parameters are those of the encoder, with the projection to 512 numbers for dcformer (but for naive, as the paper \
         has it), ctvit and inceptionnext (P8). A difference without a note is the rounding of the printed number."
            .to_owned(),
    );
    let headings = [
        "model",
        "variant",
        "params in M",
        "paper",
        "difference",
        "GMACs",
        "paper",
        "difference",
        "note",
    ];
    Sheet {
        title: "Table 1, cost of each encoder for a volume of 512 x 512 x 256".to_owned(),
        headings: headings.map(str::to_owned).to_vec(),
        words: 2,
        rows,
        notes,
    }
}

fn in_units(number: u64, unit: f64) -> String {
    format!("{:.4}", number as f64 / unit)
}

/// Ours, the paper's, the difference.
fn compared_cells(compared: &Compared, unit: f64) -> [String; 3] {
    [
        in_units(compared.counted, unit),
        compared.printed.to_string(),
        format!("{:+.2} %", compared.difference_percent),
    ]
}

/// A row of table 1.
#[derive(Debug, Serialize)]
struct Table1Row {
    model: &'static str,
    variant: &'static str,
    params: u64,
    params_with_projection: Option<u64>,
    macs: u64,
    paper: Option<Comparison>,
}

fn table_1_rows() -> Vec<Table1Row> {
    let mut rows = table(PAPER_VOLUME);
    // A stable order: rows that the paper does not have stay behind those that it has.
    rows.sort_by_key(|row| {
        let place = ROWS
            .iter()
            .position(|printed| (printed.model, printed.variant) == (row.model, row.variant));
        place.unwrap_or(ROWS.len())
    });
    let row = |row: Complexity| Table1Row {
        model: row.model,
        variant: row.variant,
        params: row.params,
        params_with_projection: row.params_with_projection,
        macs: row.macs,
        paper: row.paper,
    };
    rows.into_iter().map(row).collect()
}

/// A size of DCFormer, with what table 2 says of it.
#[derive(Debug, Serialize)]
struct Table2Column {
    variant: &'static str,
    config: DcformerEncoderConfig,
    params: u64,
    params_with_projection: Option<u64>,
    macs: u64,
    paper: Option<Comparison>,
}

fn table_2_columns() -> Vec<Table2Column> {
    let column = |preset: Preset| {
        let ImageEncoderConfig::Dcformer(config) = &preset.config else {
            return None;
        };
        let row = Complexity::of(&preset, PAPER_VOLUME).expect("DCFormer takes any volume");
        Some(Table2Column {
            variant: preset.variant,
            config: config.clone(),
            params: row.params,
            params_with_projection: row.params_with_projection,
            macs: row.macs,
            paper: row.paper,
        })
    };
    presets().into_iter().filter_map(column).collect()
}

/// Table 2: the sizes of DCFormer, layer by layer, and their cost beside what the paper prints.
pub fn table_2() -> Sheet {
    let columns = table_2_columns();
    let row = |name: String, cell: &dyn Fn(&Table2Column) -> String| -> Vec<String> {
        [name].into_iter().chain(columns.iter().map(cell)).collect()
    };
    let config = |name: String, cell: &dyn Fn(&DcformerEncoderConfig) -> String| {
        row(name, &|column| cell(&column.config))
    };
    let mut rows = vec![config("stem (1/4): channels".to_owned(), &|config| {
        config.channels[0].to_string()
    })];
    for stage in 0..4 {
        let name = |what: &str| format!("stage {} (1/{}): {what}", stage + 1, 8 << stage);
        rows.push(config(name("channels"), &|config| {
            config.channels[stage + 1].to_string()
        }));
        rows.push(config(
            name("mixer"),
            &|config| match config.mixers[stage] {
                Mixer::Convolution => format!("kernel {}", config.kernels[stage]),
                Mixer::Attention => "attention".to_owned(),
            },
        ));
        rows.push(config(name("blocks"), &|config| {
            config.blocks[stage].to_string()
        }));
    }
    let printed = |of: fn(&Comparison) -> &Compared, column: &Table2Column| {
        let paper = column.paper.as_ref();
        paper.map_or("-".to_owned(), |paper| of(paper).printed.to_string())
    };
    rows.push(row("encoder's parameters in M".to_owned(), &|column| {
        in_units(column.params, 1e6)
    }));
    rows.push(row("with projection".to_owned(), &|column| {
        column
            .params_with_projection
            .map_or("-".to_owned(), |params| in_units(params, 1e6))
    }));
    rows.push(row("paper".to_owned(), &|column| {
        printed(|paper| &paper.params, column)
    }));
    rows.push(row("GMACs".to_owned(), &|column| {
        in_units(column.macs, 1e9)
    }));
    rows.push(row("paper (GFLOPs)".to_owned(), &|column| {
        printed(|paper| &paper.macs, column)
    }));
    let variants = columns.iter().map(|column| column.variant.to_owned());
    Sheet {
        title: "Table 2, the sizes of DCFormer for a volume of 512 x 512 x 256".to_owned(),
        headings: ["".to_owned()].into_iter().chain(variants).collect(),
        words: 1,
        rows,
        notes: table_2_notes(&columns),
    }
}

fn table_2_notes(columns: &[Table2Column]) -> Vec<String> {
    let mut notes = vec![
        "The paper's table has kernels of 7 in all stages; only those of the authors' code make its own numbers of \
         parameters (P1)."
            .to_owned(),
        "The paper's small is small-paper; small is that of the authors' code (P7). base and large are those of their \
         follow-up project, without numbers in the paper."
            .to_owned(),
    ];
    let alone = columns.iter().filter(|column| {
        let paper = column.paper.as_ref();
        paper.is_some_and(|paper| paper.scope == Scope::Encoder)
    });
    let alone: Vec<&str> = alone.map(|column| column.variant).collect();
    notes.push(format!(
        "The paper's parameters include the projection to 512 numbers, but for {} (P8).",
        alone.join(", ")
    ));
    let reasons = columns.iter().filter_map(|column| {
        let reason = column.paper.as_ref()?.reason?;
        Some(format!("{}: {reason}.", column.variant))
    });
    notes.extend(reasons);
    notes
}

/// A figure as a table: parameters and multiply-adds of each curve, by kernel.
pub fn figure_sheet(figure: &Figure) -> Sheet {
    let [params, macs] = ["params", "MACs"].map(|what| {
        let curves = figure.curves.iter();
        curves.map(move |curve| format!("{what}, {}", curve.name))
    });
    let headings = ["kernel".to_owned()].into_iter().chain(params).chain(macs);
    let kernels = figure.curves.first().map_or(&[][..], |curve| &curve.points);
    let row = |(index, point): (usize, &Point)| {
        let points = || figure.curves.iter().map(move |curve| curve.points[index]);
        let params = points().map(|point| point.params.to_string());
        let macs = points().map(|point| point.macs.to_string());
        let kernel = [point.kernel.to_string()];
        kernel.into_iter().chain(params).chain(macs).collect()
    };
    Sheet {
        title: format!("Figure {}: {}", figure.number, figure.title),
        headings: headings.collect(),
        words: 0,
        rows: kernels.iter().enumerate().map(row).collect(),
        notes: vec![
            format!("Counted: {}.", figure.assumed),
            "The paper's text does not say for which channels and sizes its figure was made; these are those of the first \
             stage of DCFormer naive."
                .to_owned(),
        ],
    }
}

/// All files of the study, by name: a chart, a table and its numbers for each.
pub fn files() -> Vec<(&'static str, String)> {
    let (one, two) = (Figure::one(), Figure::two());
    let rows = table_1_rows();
    let compared = rows.iter().filter_map(|row| {
        Some((
            format!("{} {}", row.model, row.variant),
            row.paper.as_ref()?,
        ))
    });
    vec![
        ("figure1.svg", cost_chart::figure(&one)),
        ("figure1.md", figure_sheet(&one).to_markdown()),
        ("figure1.json", json_text(&one)),
        ("figure2.svg", cost_chart::figure(&two)),
        ("figure2.md", figure_sheet(&two).to_markdown()),
        ("figure2.json", json_text(&two)),
        (
            "table1.svg",
            cost_chart::comparison(&compared.collect::<Vec<_>>()),
        ),
        ("table1.md", table_1().to_markdown()),
        ("table1.json", json_text(&rows)),
        ("table2.md", table_2().to_markdown()),
        ("table2.json", json_text(&table_2_columns())),
    ]
}

/// Writes [`files`] into a folder, which is made if it is not there. A file is replaced once the new one is whole.
///
/// # Errors
/// [`Error::Write`] if the folder or a file cannot be written.
pub fn write(folder: &Path) -> Result<Vec<PathBuf>> {
    std::fs::create_dir_all(folder).map_err(|source| Error::Write {
        path: folder.to_owned(),
        source,
    })?;
    let write = |(name, text): (&str, String)| {
        let path = folder.join(name);
        write_file(&path, text.as_bytes())?;
        Ok(path)
    };
    files().into_iter().map(write).collect()
}
