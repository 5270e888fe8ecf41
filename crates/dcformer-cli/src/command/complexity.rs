//! `dcformer complexity`: what does a network cost?

use anyhow::ensure;
use clap::Args;
use dcformer::complexity::{Complexity as Row, Shape3};
use dcformer::models::{preset, presets};

use crate::args::{Format, List, Runtime};
use crate::output::{self, Align};
use crate::progress::note;

/// Parameters and multiply-adds of every network
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    dcformer complexity --shape 128,256,256 --json\n  \
    dcformer complexity --model-name vit")]
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
    #[command(flatten)]
    format: Format,
    #[command(flatten)]
    runtime: Runtime,
}

impl Complexity {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        self.runtime.start()?;
        let rows = self.rows()?;
        if self.format.json {
            return output::json(&rows);
        }
        let rows: Vec<Vec<String>> = rows
            .iter()
            .map(|row| {
                let projected = row
                    .params_with_projection
                    .map_or("-".to_owned(), |params| params.to_string());
                vec![
                    row.model.to_owned(),
                    row.variant.to_owned(),
                    row.params.to_string(),
                    projected,
                    format!("{:.4}", row.gmacs),
                ]
            })
            .collect();
        let headings = [
            ("model", Align::Left),
            ("variant", Align::Left),
            ("parameters", Align::Right),
            ("with projection", Align::Right),
            ("GMACs", Align::Right),
        ];
        output::table(&headings, &rows)
    }

    /// A row of each network that was asked for; those that cannot take the volume are named and left out, unless none
    /// is left.
    fn rows(&self) -> anyhow::Result<Vec<Row>> {
        /// Larger than any volume, and small enough that no count overflows.
        const LARGEST: usize = 1 << 13;
        let List([depth, height, width]) = self.shape;
        ensure!(
            self.shape.0.iter().all(|size| (1..=LARGEST).contains(size)),
            "--shape is {}, expected three sizes from 1 to {LARGEST}",
            self.shape
        );
        let volume = Shape3 {
            depth,
            height,
            width,
        };
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
            match Row::of(&preset, volume) {
                Ok(row) => rows.push(row),
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
}
