//! Reading latents that a stranger may have written.

use std::collections::HashMap;
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use dcformer_volume::preprocess::Preprocess;
use parquet::basic::{Compression, Type as PhysicalType};
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DataType, FloatType};
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::reader::{FileReader, SerializedFileReader};
use rayon::prelude::*;

use super::chunks::{BoundedFile, read_column};
use super::{COLUMNS, Entry, FORMAT, PROVENANCE, Provenance};
use crate::error::{Error, Result};
use crate::tensors::is_unit;

/// Bytes of a name that may be read; a file name has fewer.
const LONGEST_NAME: usize = 4096;

/// Bytes of a report that may be read; the longest of CT-RATE have some thousands.
const LONGEST_REPORT: usize = 1 << 20;

/// A file of latents, of which the metadata was read.
pub struct LatentFile {
    path: PathBuf,
    file: SerializedFileReader<BoundedFile>,
    provenance: Provenance,
    /// Rows of each row group.
    groups: Vec<usize>,
    /// Place of each of [`COLUMNS`].
    columns: [usize; COLUMNS.len()],
    labels: Vec<Label>,
}

/// A column of labels.
#[derive(Clone, Debug)]
struct Label {
    name: String,
    column: usize,
}

impl std::fmt::Debug for LatentFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LatentFile")
            .field("path", &self.path)
            .field("rows", &self.rows())
            .finish_non_exhaustive()
    }
}

impl LatentFile {
    /// Opens a file and holds what it says of itself against its columns and its length.
    ///
    /// # Errors
    /// If it cannot be read, is damaged, or is no file of latents.
    pub fn open(path: &Path) -> Result<Self> {
        let read_error = |source| Error::Read {
            path: path.to_owned(),
            source,
        };
        let file = File::open(path).map_err(read_error)?;
        let file = BoundedFile::new(file).map_err(read_error)?;
        let length = parquet::file::reader::Length::len(&file);
        let file = guarded(path, || SerializedFileReader::new(file))?;
        let found = |found| Error::NotLatents {
            path: path.to_owned(),
            found,
        };
        let provenance = read_provenance(&file).map_err(found)?;
        let columns = find_columns(&file).map_err(found)?;
        let labels = find_labels(&file);
        let groups = count_rows(&file, columns[5], &provenance, length).map_err(found)?;
        Ok(Self {
            path: path.to_owned(),
            file,
            provenance,
            groups,
            columns,
            labels,
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Which model made the latents, and how.
    pub fn provenance(&self) -> &Provenance {
        &self.provenance
    }

    /// Number of volumes.
    pub fn rows(&self) -> usize {
        self.groups.iter().sum()
    }

    /// Names of the labels, in the order of the entries'.
    pub fn labels(&self) -> impl ExactSizeIterator<Item = &str> {
        self.labels.iter().map(|label| label.name.as_str())
    }

    /// Refuses latents that another model made than the one in a folder.
    ///
    /// # Errors
    /// [`Error::OtherModel`], or if the model's weights cannot be read.
    pub fn check_model(&self, model: &Path) -> Result<()> {
        let own = Provenance::new(model, self.provenance.width, &self.provenance.preprocess)?;
        if own.model_sha256 == self.provenance.model_sha256 {
            return Ok(());
        }
        Err(Error::OtherModel {
            path: self.path.clone(),
            model: model.to_owned(),
            found: self.provenance.model_sha256.clone(),
            expected: own.model_sha256,
        })
    }

    /// How a scan is preprocessed to be compared with those of the file: as the model does, but for the reading of values and the
    /// turning of axes, which are choices about files.
    ///
    /// # Errors
    /// [`Error::OtherPreprocess`] if the scans of the file were treated otherwise.
    pub fn preprocess(&self, model: &Preprocess) -> Result<Preprocess> {
        let found = &self.provenance.preprocess;
        let preprocess = Preprocess {
            rescale: found.rescale,
            orientation: found.orientation,
            ..model.clone()
        };
        if preprocess == *found {
            return Ok(preprocess);
        }
        Err(Error::OtherPreprocess {
            path: self.path.clone(),
        })
    }

    /// Refuses latents of another length than a model's.
    ///
    /// # Errors
    /// [`Error::LatentWidth`]
    pub fn check_width(&self, expected: usize) -> Result<()> {
        let found = self.provenance.width;
        if found == expected {
            return Ok(());
        }
        Err(Error::LatentWidth {
            path: self.path.clone(),
            found,
            expected,
        })
    }

    /// All latents, `[rows][width]`, each of unit length.
    ///
    /// # Errors
    /// If the file is damaged, or a row is no direction.
    pub fn read_latents(&self) -> Result<Vec<f32>> {
        let width = self.provenance.width;
        // Not more than the file is long, as `count_rows` has seen.
        let mut latents = vec![0.0; self.rows() * width];
        let mut rest = &mut latents[..];
        let mut parts = Vec::new();
        for (group, rows) in self.groups.iter().enumerate() {
            let (part, behind) = rest.split_at_mut(rows * width);
            parts.push((group, part));
            rest = behind;
        }
        parts.into_par_iter().try_for_each(|(group, part)| {
            let read = guarded(&self.path, || self.read_latents_of(group))?;
            part.copy_from_slice(&read);
            Ok::<_, Error>(())
        })?;
        match latents.chunks_exact(width).position(|row| !is_unit(row)) {
            Some(row) => Err(self.damaged(format!("the latent of row {row} has not length 1"))),
            None => Ok(latents),
        }
    }

    fn read_latents_of(&self, group: usize) -> ParquetResult<Vec<f32>> {
        let (rows, width) = (self.groups[group], self.provenance.width);
        let (column, most) = (self.columns[5], rows * width);
        let column = read_column::<FloatType>(&self.file, group, column, rows, most)?;
        let begins_row = |(index, level): (usize, &i16)| (*level == 0) == (index % width == 0);
        let is_even = column.repeated.iter().enumerate().all(begins_row);
        if column.values.len() != most || column.repeated.len() != most || !is_even {
            return Err(ParquetError::General(format!(
                "a latent has not {width} numbers"
            )));
        }
        Ok(column.values)
    }

    /// Of each row the study, numbered from 0 in the order of the first rows.
    ///
    /// # Errors
    /// If the file is damaged.
    pub fn read_studies(&self) -> Result<Vec<u32>> {
        let mut numbers = HashMap::new();
        let mut studies = Vec::with_capacity(self.rows());
        for group in 0..self.groups.len() {
            for study in self.read_texts(group, self.columns[2])? {
                let study = study.unwrap_or_default();
                if study.len() > LONGEST_NAME {
                    return Err(self.too_long("study", studies.len()));
                }
                let next = numbers.len() as u32;
                studies.push(*numbers.entry(study.data().to_vec()).or_insert(next));
            }
        }
        Ok(studies)
    }

    /// What is known of some rows, in the order asked for.
    ///
    /// # Errors
    /// If the file is damaged.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn read_entries(&self, rows: &[usize]) -> Result<Vec<Entry>> {
        let mut entries: Vec<Option<Entry>> = vec![None; rows.len()];
        let mut first = 0;
        for (group, &count) in self.groups.iter().enumerate() {
            let in_group = rows.iter().enumerate();
            let wanted: Vec<(usize, usize)> = in_group
                .filter(|(_, row)| (first..first + count).contains(*row))
                .map(|(place, row)| (place, row - first))
                .collect();
            if !wanted.is_empty() {
                let group = self.read_group(group, first)?;
                for (place, row) in wanted {
                    entries[place] = Some(group.entry(row)?);
                }
            }
            first += count;
        }
        let entries = entries.into_iter();
        Ok(entries
            .map(|e| e.expect("rows are those of the file"))
            .collect())
    }

    fn read_group(&self, group: usize, first: usize) -> Result<GroupTexts<'_>> {
        let [volume, patient, study, split, report, _] = self.columns;
        let labels = self
            .labels
            .iter()
            .map(|label| self.read_optional::<BoolType>(group, label.column));
        Ok(GroupTexts {
            file: self,
            first,
            names: [
                ("volume", self.read_texts(group, volume)?),
                ("patient", self.read_texts(group, patient)?),
                ("study", self.read_texts(group, study)?),
                ("split", self.read_texts(group, split)?),
            ],
            reports: self.read_texts(group, report)?,
            labels: labels.collect::<Result<_>>()?,
        })
    }

    fn read_texts(&self, group: usize, column: usize) -> Result<Vec<Option<ByteArray>>> {
        self.read_optional::<ByteArrayType>(group, column)
    }

    /// A column of one value a row, or none.
    fn read_optional<T: DataType>(&self, group: usize, column: usize) -> Result<Vec<Option<T::T>>> {
        let rows = self.groups[group];
        let read = guarded(&self.path, || {
            read_column::<T>(&self.file, group, column, rows, rows)
        })?;
        let mut values = read.values.into_iter();
        if read.present.is_empty() {
            return Ok(values.map(Some).collect());
        }
        let levels = read.present.iter();
        Ok(levels
            .map(|level| if *level > 0 { values.next() } else { None })
            .collect())
    }

    fn too_long(&self, column: &str, row: usize) -> Error {
        self.damaged(format!("`{column}` of row {row} is too long"))
    }

    fn damaged(&self, found: String) -> Error {
        Error::LatentsDamaged {
            path: self.path.clone(),
            found,
        }
    }
}

/// What is known of the rows of a group.
struct GroupTexts<'a> {
    file: &'a LatentFile,
    /// Its first row.
    first: usize,
    names: [(&'static str, Vec<Option<ByteArray>>); 4],
    reports: Vec<Option<ByteArray>>,
    labels: Vec<Vec<Option<bool>>>,
}

impl GroupTexts<'_> {
    fn entry(&self, row: usize) -> Result<Entry> {
        let text = |column: &str, values: &[Option<ByteArray>], longest| {
            let Some(value) = &values[row] else {
                return Ok(None);
            };
            if value.len() > longest {
                return Err(self.file.too_long(column, self.first + row));
            }
            match value.as_utf8() {
                Ok(text) => Ok(Some(text.to_owned())),
                Err(_) => Err(self
                    .file
                    .damaged(format!("`{column}` of row {} is no text", self.first + row))),
            }
        };
        let name = |index: usize| {
            let (column, values) = &self.names[index];
            text(column, values, LONGEST_NAME)
        };
        Ok(Entry {
            volume: name(0)?.unwrap_or_default(),
            patient: name(1)?.unwrap_or_default(),
            study: name(2)?.unwrap_or_default(),
            split: name(3)?,
            report: text("report", &self.reports, LONGEST_REPORT)?,
            labels: self.labels.iter().map(|label| label[row]).collect(),
        })
    }
}

/// What the file's metadata says of its making.
fn read_provenance(file: &SerializedFileReader<BoundedFile>) -> Result<Provenance, String> {
    let metadata = file.metadata().file_metadata().key_value_metadata();
    let json = metadata
        .into_iter()
        .flatten()
        .find(|pair| pair.key == PROVENANCE)
        .and_then(|pair| pair.value.as_deref())
        .ok_or_else(|| format!("its metadata has no `{PROVENANCE}`"))?;
    let json: serde_json::Value = serde_json::from_str(json)
        .map_err(|error| format!("its `{PROVENANCE}` is no JSON, {error}"))?;
    // The format first: another one may have other fields.
    if json["format"] != FORMAT {
        return Err(format!(
            "its format is {}, this program has {FORMAT}",
            json["format"]
        ));
    }
    serde_json::from_value(json)
        .map_err(|error| format!("its `{PROVENANCE}` says something else, {error}"))
}

/// Places of [`COLUMNS`], each of the type that it has.
fn find_columns(
    file: &SerializedFileReader<BoundedFile>,
) -> Result<[usize; COLUMNS.len()], String> {
    let schema = file.metadata().file_metadata().schema_descr();
    let mut places = [0; COLUMNS.len()];
    for (place, name) in places.iter_mut().zip(COLUMNS) {
        let (wanted, nesting) = if name == "latent" {
            (PhysicalType::FLOAT, 1)
        } else {
            (PhysicalType::BYTE_ARRAY, 0)
        };
        let columns = schema.columns().iter();
        let found = columns.clone().position(|column| {
            column
                .path()
                .parts()
                .first()
                .is_some_and(|part| part == name)
        });
        *place = found.ok_or_else(|| {
            let names = columns.map(|column| format!("`{}`", column.path().string()));
            let names: Vec<String> = names.take(10).collect();
            format!("it has no column `{name}`, but {}", names.join(", "))
        })?;
        let column = schema.column(*place);
        if (column.physical_type(), column.max_rep_level()) != (wanted, nesting) {
            let wanted = if nesting == 1 {
                "lists of float32"
            } else {
                "text"
            };
            return Err(format!("its column `{name}` is not {wanted}"));
        }
    }
    Ok(places)
}

/// All columns of yes and no.
fn find_labels(file: &SerializedFileReader<BoundedFile>) -> Vec<Label> {
    let schema = file.metadata().file_metadata().schema_descr();
    let columns = schema.columns().iter().enumerate();
    columns
        .filter(|(_, column)| {
            column.physical_type() == PhysicalType::BOOLEAN
                && column.path().parts().len() == 1
                && column.max_rep_level() == 0
        })
        .map(|(place, column)| Label {
            name: column.name().to_owned(),
            column: place,
        })
        .collect()
}

/// Rows of each row group: not more than there are latents for in the file.
fn count_rows(
    file: &SerializedFileReader<BoundedFile>,
    latent: usize,
    provenance: &Provenance,
    length: u64,
) -> Result<Vec<usize>, String> {
    let width = provenance.width;
    if width == 0 {
        return Err("its latents have 0 numbers".to_owned());
    }
    let mut groups = Vec::new();
    let mut room = length;
    for group in file.metadata().row_groups() {
        if let Some(column) = group
            .columns()
            .iter()
            .find(|column| column.compression() != Compression::UNCOMPRESSED)
        {
            return Err(format!(
                "its column `{}` is compressed ({}), which this program does not read; write it uncompressed",
                column.column_path().string(),
                column.compression()
            ));
        }
        let latents = group.column(latent);
        let bytes = u64::try_from(latents.compressed_size()).unwrap_or(u64::MAX);
        let rows = usize::try_from(group.num_rows()).ok();
        let values = rows.and_then(|rows| rows.checked_mul(width));
        let fits = values.is_some_and(|values| {
            let needed = (values as u64).checked_mul(size_of::<f32>() as u64);
            i64::try_from(values) == Ok(latents.num_values())
                && needed.is_some_and(|needed| needed <= bytes)
        });
        match (rows, room.checked_sub(bytes)) {
            (Some(rows), Some(left)) if fits => {
                groups.push(rows);
                room = left;
            }
            _ => {
                return Err(format!(
                    "a row group claims {} rows with latents of {width} numbers, and has {} numbers in {bytes} bytes",
                    group.num_rows(),
                    latents.num_values()
                ));
            }
        }
    }
    if groups.iter().sum::<usize>() > u32::MAX as usize {
        return Err("it has more rows than can be numbered".to_owned());
    }
    Ok(groups)
}

/// Runs the Parquet library on what may be damaged: its errors, and its panics, are the file's.
fn guarded<T>(path: &Path, read: impl FnOnce() -> ParquetResult<T>) -> Result<T> {
    let read = catch_unwind(AssertUnwindSafe(read))
        .unwrap_or_else(|_| Err(ParquetError::General("it contradicts itself".to_owned())));
    read.map_err(|source| Error::Parquet {
        path: path.to_owned(),
        source,
    })
}
