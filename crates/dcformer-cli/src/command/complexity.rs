//! `dcformer complexity`: what does a network cost?

use anyhow::ensure;
use clap::Args;
use dcformer::complexity::{Shape3, table};

use crate::args::{Format, List, Runtime};
use crate::output::{self, Align};

/// Parameters and multiply-adds of every network
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  dcformer complexity --shape 128,256,256 --json")]
pub(crate) struct Complexity {
    /// Voxels of the volume
    #[arg(long, value_name = "D,H,W", default_value_t = List([256, 512, 512]))]
    shape: List<u64, 3>,
    #[command(flatten)]
    format: Format,
    #[command(flatten)]
    runtime: Runtime,
}

impl Complexity {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        self.runtime.start()?;
        /// Larger than any volume, and small enough that no count overflows.
        const LARGEST: u64 = 1 << 14;
        ensure!(
            self.shape.0.iter().all(|size| (1..=LARGEST).contains(size)),
            "--shape is {}, expected three sizes from 1 to {LARGEST}",
            self.shape
        );
        let List([depth, height, width]) = self.shape;
        let rows = table(Shape3 {
            depth,
            height,
            width,
        });
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
                    row.variant.clone(),
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
}
