//! Writing latents, a row group at a time.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use dcformer_volume::output::write_replacing;
use parquet::basic::{LogicalType, Repetition, Type as PhysicalType};
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DataType, FloatType};
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::types::Type;

use super::arrow::{self, Field, Kind};
use super::{COLUMNS, Entry, PROVENANCE, Provenance, check_labels};
use crate::error::{Error, Result};

/// Rows in memory at once: a few megabytes, and few enough groups for a million rows.
const ROWS_OF_GROUP: usize = 1024;

/// A file of latents that is being written.
pub struct LatentWriter {
    file: SerializedFileWriter<File>,
    width: usize,
    labels: usize,
    /// The rows of the group at hand.
    entries: Vec<Entry>,
    latents: Vec<f32>,
    written: usize,
}

impl std::fmt::Debug for LatentWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LatentWriter")
            .field("rows", &self.rows())
            .finish_non_exhaustive()
    }
}

impl LatentWriter {
    /// Lets `fill` write the rows of a file; one of that name is replaced only once the new one is complete, and a failure
    /// leaves nothing.
    ///
    /// # Errors
    /// That of `fill`, if two columns have one name, or if the file cannot be written.
    pub fn create<T>(
        path: &Path,
        provenance: &Provenance,
        labels: &[String],
        fill: impl FnOnce(&mut Self) -> Result<T>,
    ) -> Result<T> {
        check_labels(path, labels)?;
        let mut filled = None;
        let written = write_replacing(path, |file| {
            let mut writer = Self::new(file, provenance, labels).map_err(io_error)?;
            match fill(&mut writer) {
                Ok(value) => {
                    writer.finish()?;
                    filled = Some(Ok(value));
                    Ok(())
                }
                Err(error) => {
                    filled = Some(Err(error));
                    Err(io::Error::other("its rows could not be made"))
                }
            }
        });
        match (written, filled) {
            (Ok(()), Some(filled)) | (Err(_), Some(filled @ Err(_))) => filled,
            (Err(source), _) => Err(Error::Write {
                path: path.to_owned(),
                source,
            }),
            (Ok(()), None) => unreachable!("what was written was filled"),
        }
    }

    fn new(file: File, provenance: &Provenance, labels: &[String]) -> ParquetResult<Self> {
        let json = serde_json::to_string(provenance).expect("settings have a JSON form");
        let arrow = arrow::schema(&fields(provenance.width, labels), &[(PROVENANCE, &json)]);
        let metadata = [(PROVENANCE, json), (arrow::KEY, arrow)];
        let metadata = metadata.map(|(key, value)| KeyValue::new(key.to_owned(), value));
        let properties = WriterProperties::builder()
            .set_created_by(format!("dcformer {}", provenance.version))
            .set_dictionary_enabled(false)
            // Of no use here, and the least report would be a report.
            .set_statistics_enabled(EnabledStatistics::None)
            .set_offset_index_disabled(true)
            .set_key_value_metadata(Some(metadata.to_vec()))
            .build();
        let schema = Arc::new(schema(provenance.width, labels)?);
        Ok(Self {
            file: SerializedFileWriter::new(file, schema, Arc::new(properties))?,
            width: provenance.width,
            labels: labels.len(),
            entries: Vec::new(),
            latents: Vec::new(),
            written: 0,
        })
    }

    /// Rows so far.
    pub fn rows(&self) -> usize {
        self.written + self.entries.len()
    }

    /// Adds a row.
    ///
    /// # Errors
    /// If the file cannot be written.
    ///
    /// # Panics
    /// If the latent or the labels are of another number than the file's.
    pub fn push(&mut self, entry: Entry, latent: &[f32]) -> io::Result<()> {
        assert_eq!(
            (latent.len(), entry.labels.len()),
            (self.width, self.labels),
            "all rows have as many numbers and labels"
        );
        self.entries.push(entry);
        self.latents.extend(latent);
        if self.entries.len() == ROWS_OF_GROUP {
            self.write_group().map_err(io_error)?;
        }
        Ok(())
    }

    fn finish(mut self) -> io::Result<()> {
        if !self.entries.is_empty() {
            self.write_group().map_err(io_error)?;
        }
        let file = self.file.into_inner().map_err(io_error)?;
        // A device or a pipe cannot be waited for.
        if file.metadata()?.is_file() {
            file.sync_all()?;
        }
        Ok(())
    }

    fn write_group(&mut self) -> ParquetResult<()> {
        let (entries, width) = (&self.entries, self.width);
        let mut group = self.file.next_row_group()?;
        let names: [fn(&Entry) -> &str; 3] = [
            |entry| &entry.volume,
            |entry| &entry.patient,
            |entry| &entry.study,
        ];
        for name in names {
            let values: Vec<ByteArray> = entries.iter().map(|entry| name(entry).into()).collect();
            write_column::<ByteArrayType>(&mut group, &values, None, None)?;
        }
        let texts: [fn(&Entry) -> Option<&str>; 2] = [
            |entry| entry.split.as_deref(),
            |entry| entry.report.as_deref(),
        ];
        for text in texts {
            let values = entries.iter().map(|entry| Some(text(entry)?.into()));
            write_optional::<ByteArrayType>(&mut group, values)?;
        }
        let present = vec![1; self.latents.len()];
        let repeated: Vec<i16> = (0..self.latents.len())
            .map(|index| i16::from(index % width != 0))
            .collect();
        write_column::<FloatType>(&mut group, &self.latents, Some(&present), Some(&repeated))?;
        for label in 0..self.labels {
            write_optional::<BoolType>(&mut group, entries.iter().map(|e| e.labels[label]))?;
        }
        group.close()?;
        self.written += self.entries.len();
        self.entries.clear();
        self.latents.clear();
        Ok(())
    }
}

type Group<'a> = SerializedRowGroupWriter<'a, File>;

/// Writes the next column; `levels` say which values are there, `repeated` which belong to the row before.
fn write_column<T: DataType>(
    group: &mut Group<'_>,
    values: &[T::T],
    levels: Option<&[i16]>,
    repeated: Option<&[i16]>,
) -> ParquetResult<()> {
    let mut column = group
        .next_column()?
        .expect("columns are written in the order of the schema");
    column.typed::<T>().write_batch(values, levels, repeated)?;
    column.close()
}

fn write_optional<T: DataType>(
    group: &mut Group<'_>,
    values: impl Iterator<Item = Option<T::T>>,
) -> ParquetResult<()> {
    let values: Vec<Option<T::T>> = values.collect();
    let levels: Vec<i16> = values.iter().map(|v| i16::from(v.is_some())).collect();
    let present: Vec<T::T> = values.into_iter().flatten().collect();
    write_column::<T>(group, &present, Some(&levels), None)
}

/// The columns as Arrow has them, in the order of [`schema`].
fn fields(width: usize, labels: &[String]) -> Vec<Field<'_>> {
    let fixed = COLUMNS.into_iter().map(|name| Field {
        name,
        nullable: is_optional(name),
        kind: if name == "latent" {
            Kind::Floats(width)
        } else {
            Kind::Text
        },
    });
    let labels = labels.iter().map(|name| Field {
        name,
        nullable: true,
        kind: Kind::Boolean,
    });
    fixed.chain(labels).collect()
}

fn is_optional(column: &str) -> bool {
    ["split", "report"].contains(&column)
}

/// The columns as Parquet has them.
fn schema(width: usize, labels: &[String]) -> ParquetResult<Type> {
    let column = |field: &Field<'_>| -> ParquetResult<Arc<Type>> {
        let repetition = if field.nullable {
            Repetition::OPTIONAL
        } else {
            Repetition::REQUIRED
        };
        let column =
            |kind| Type::primitive_type_builder(field.name, kind).with_repetition(repetition);
        Ok(Arc::new(match field.kind {
            Kind::Text => column(PhysicalType::BYTE_ARRAY)
                .with_logical_type(Some(LogicalType::String))
                .build()?,
            Kind::Boolean => column(PhysicalType::BOOLEAN).build()?,
            Kind::Floats(_) => list_of_floats(field.name)?,
        }))
    };
    let columns = fields(width, labels)
        .iter()
        .map(column)
        .collect::<ParquetResult<_>>()?;
    Type::group_type_builder("latents")
        .with_fields(columns)
        .build()
}

/// `required group NAME (LIST) { repeated group list { required float element } }`
fn list_of_floats(name: &str) -> ParquetResult<Type> {
    let element = Type::primitive_type_builder("element", PhysicalType::FLOAT)
        .with_repetition(Repetition::REQUIRED)
        .build()?;
    let list = Type::group_type_builder("list")
        .with_repetition(Repetition::REPEATED)
        .with_fields(vec![Arc::new(element)])
        .build()?;
    Type::group_type_builder(name)
        .with_repetition(Repetition::REQUIRED)
        .with_logical_type(Some(LogicalType::List))
        .with_fields(vec![Arc::new(list)])
        .build()
}

/// What the system said, where it was the system.
fn io_error(error: ParquetError) -> io::Error {
    match error {
        ParquetError::External(cause) => match cause.downcast::<io::Error>() {
            Ok(cause) => *cause,
            Err(cause) => io::Error::other(cause),
        },
        other => io::Error::other(other),
    }
}
