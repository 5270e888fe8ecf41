//! A volume of a cache: an array of half floats in a folder of its own, written and read.

use std::fs::{self, File};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use half::f16;
use half::slice::HalfFloatSliceExt;
use half::vec::HalfBitsVecExt;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::blosc::{self, Decoder, Encoder};
use super::source::Source;
use super::zarr::{Array, METADATA, SHARD, chunk_slices, read_json, to_json};
use super::{FORMAT, Settings};
use crate::dataset::ScanMetadata;
use crate::geometry::Shape3;
use crate::intensity::RescaleDecision;
use crate::preprocess::{MAX_VOXELS, ModelInput, Note, Preprocess};
use crate::scan::ScanOptions;
use crate::storage::{self, Reader};
use crate::{Error, Result};

/// How a volume came about.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Version of what is written here.
    pub(super) format: u32,
    /// Version of the program that prepared it.
    pub version: String,
    /// Name of the volume in its data set.
    pub name: String,
    /// The scan.
    pub source: Source,
    /// What was done to it.
    pub preprocess: Preprocess,
    /// How it was read.
    pub scan: ScanOptions,
    /// What was known about it from outside.
    pub metadata: ScanMetadata,
    /// How its stored values were read.
    pub rescale: RescaleDecision,
    /// What the user should know about it, one sentence each.
    pub notes: Vec<String>,
}

impl Record {
    pub(super) fn new(
        name: &str,
        source: Source,
        settings: &Settings,
        metadata: ScanMetadata,
        input: &ModelInput,
    ) -> Self {
        Self {
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION").into(),
            name: name.into(),
            source,
            preprocess: settings.preprocess.clone(),
            scan: settings.scan.clone(),
            metadata,
            rescale: input.rescale.clone(),
            notes: input.notes.iter().map(ToString::to_string).collect(),
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Attributes<R> {
    dcformer: R,
}

/// Ending of a volume's folder.
pub(super) const EXTENSION: &str = "zarr";

/// Length of the two numbers that say where a chunk lies.
const ENTRY_BYTES: usize = 16;

/// Length of a checksum.
const CHECKSUM_BYTES: usize = 4;

/// Writes volumes; keeps its buffers from one to the next.
pub(super) struct Writer {
    encoder: Encoder,
    half: Vec<f16>,
}

impl Writer {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            encoder: Encoder::new()?,
            half: Vec::new(),
        })
    }

    /// Writes a volume, whole or not at all; the same input gives the same bytes.
    pub(super) fn write(
        &mut self,
        folder: &Path,
        input: &ModelInput,
        record: &Record,
    ) -> io::Result<()> {
        let fill_value = record.preprocess.pad_value;
        let metadata = Array::new(input.shape, fill_value, Attributes { dcformer: record });
        storage::create_folder(folder, METADATA, |folder| {
            self.write_shard(&folder.join(SHARD), input)?;
            fs::write(folder.join(METADATA), to_json(&metadata))
        })
    }

    /// Chunks with a checksum each, then where they lie, then the checksum of that.
    fn write_shard(&mut self, path: &Path, input: &ModelInput) -> io::Result<()> {
        let Shape3 { height, width, .. } = input.shape;
        let chunk_values = chunk_slices(input.shape) * height * width;
        let mut file = BufWriter::new(File::create(path)?);
        let mut index = Vec::new();
        let mut start = 0;
        for chunk in input.values.chunks(chunk_values) {
            self.half.resize(chunk.len(), f16::ZERO);
            self.half.convert_from_f32_slice(chunk);
            let mut frame = self.encoder.encode(&self.half)?;
            frame.extend(checksum(&frame));
            file.write_all(&frame)?;
            let length = frame.len() as u64;
            index.extend([start, length].into_iter().flat_map(u64::to_le_bytes));
            start += length;
        }
        index.extend(checksum(&index));
        file.write_all(&index)?;
        file.flush()
    }
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    crc32c::crc32c(bytes).to_le_bytes()
}

/// What a checksum follows, if it is its own.
fn checked(bytes: &[u8]) -> Option<&[u8]> {
    let (checked, sum) = bytes.split_last_chunk()?;
    (checksum(checked) == *sum).then_some(checked)
}

/// A volume of a cache whose description is read and whose values are not.
#[derive(Clone, Debug)]
pub struct PreparedVolume {
    /// The shard.
    path: PathBuf,
    shape: Shape3,
    record: Record,
}

impl PreparedVolume {
    /// Opens a volume; its values, beyond their number, are not looked at.
    ///
    /// # Errors
    /// If it is not there, or not as it was written.
    pub fn open(folder: &Path) -> Result<Self> {
        let path = folder.join(METADATA);
        let array: Array<Attributes<Record>> = read_json(&path)?;
        let damaged = |found| Err(Error::CacheDamaged { path, found });
        let (shape, record) = (array.shape(), &array.attributes.dcformer);
        if record.format != FORMAT {
            return damaged(format!(
                "its format is {}, expected {FORMAT}",
                record.format
            ));
        }
        if record.preprocess.shape != shape || record.preprocess.check().is_err() {
            let expected = record.preprocess.shape;
            return damaged(format!("its shape is {shape}, prepared was {expected}"));
        }
        if let Some(deviation) = array.deviation() {
            return damaged(deviation);
        }
        Ok(Self {
            path: folder.join(SHARD),
            shape,
            record: array.attributes.dcformer,
        })
    }

    /// Opens a volume that must be what this preprocessing makes of a scan about which nothing more is known.
    pub(crate) fn open_for(
        folder: &Path,
        preprocess: &Preprocess,
        metadata: &ScanMetadata,
        options: &ScanOptions,
    ) -> Result<Self> {
        if *metadata != ScanMetadata::default() || *options != ScanOptions::default() {
            return Err(Error::PreparedAlready {
                path: folder.into(),
            });
        }
        let volume = Self::open(folder)?;
        // How stored values were read is a matter of the scan; a network gets Hounsfield units in any case.
        let wanted = Preprocess {
            rescale: volume.record.preprocess.rescale,
            ..preprocess.clone()
        };
        super::same_settings(folder, &volume.record.preprocess, &wanted)?;
        Ok(volume)
    }

    /// How it came about.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Sizes of the array.
    pub fn shape(&self) -> Shape3 {
        self.shape
    }

    /// Whether the stored values are all there, as far as their lengths tell.
    pub(super) fn is_complete(&self) -> bool {
        self.read_index().is_ok()
    }

    /// Where the chunks of the shard lie.
    fn read_index(&self) -> Result<Vec<Range<u64>>> {
        let read = || -> io::Result<Vec<Range<u64>>> {
            let bytes = self.index_bytes() as u64;
            let (index, length) = Reader::open(&self.path)?.end(bytes)?;
            let Some(end) = length.checked_sub(bytes) else {
                return Err(invalid(format!(
                    "it holds {length} bytes, not even a list of chunks"
                )));
            };
            self.chunks(&index, end).map_err(invalid)
        };
        read().map_err(|source| self.error(source))
    }

    /// Length of the list of chunks, with its checksum.
    fn index_bytes(&self) -> usize {
        self.shape.depth / chunk_slices(self.shape) * ENTRY_BYTES + CHECKSUM_BYTES
    }

    /// The values, width fastest, decompressed on all threads.
    ///
    /// # Errors
    /// If they are not as they were written.
    pub fn values(&self) -> Result<Vec<f16>> {
        let chunks = self.read_index()?;
        debug_assert!(
            self.shape.voxels() <= MAX_VOXELS,
            "checked when it was opened"
        );
        // As bits, since memory of zeros comes from the system as it is, and other values are written one by one.
        let mut values = vec![0_u16; self.shape.voxels()].reinterpret_into::<f16>();
        values
            .par_chunks_mut(self.chunk_values())
            .zip(chunks)
            .try_for_each_init(
                || ChunkReader::new(&self.path),
                |reader, (values, chunk)| match reader {
                    Ok(reader) => reader.read(chunk, values),
                    Err(error) => Err(error.kind().into()),
                },
            )
            .map_err(|source| self.error(source))?;
        Ok(values)
    }

    /// The volume as preprocessing gives it.
    ///
    /// # Errors
    /// As [`values`](Self::values).
    pub fn input(&self) -> Result<ModelInput> {
        let values = self.values()?;
        Ok(ModelInput {
            shape: self.shape,
            values: values.to_f32_vec(),
            rescale: self.record.rescale.clone(),
            notes: self.record.notes.iter().cloned().map(Note::File).collect(),
        })
    }

    /// The list of chunks, which lie before byte `end`.
    fn chunks(&self, index: &[u8], end: u64) -> Result<Vec<Range<u64>>, String> {
        let entries = checked(index).ok_or("the checksum of its list of chunks is wrong")?;
        let (entries, _) = entries.as_chunks::<ENTRY_BYTES>();
        let least = blosc::least_bytes(self.chunk_values()) as u64;
        let chunk = |entry: &[u8; ENTRY_BYTES]| {
            let (start, length) = entry.split_at(ENTRY_BYTES / 2);
            let number = |bytes: &[u8]| bytes.try_into().ok().map(u64::from_le_bytes);
            let (start, length) = (number(start)?, number(length)?);
            let stop = start.checked_add(length)?;
            (length >= least && stop <= end).then_some(start..stop)
        };
        entries
            .iter()
            .enumerate()
            .map(|(number, entry)| {
                chunk(entry).ok_or(format!("chunk {number} is too short or lies outside of it"))
            })
            .collect()
    }

    fn chunk_values(&self) -> usize {
        chunk_slices(self.shape) * self.shape.height * self.shape.width
    }

    /// What is wrong with the contents is not what the system finds wrong with the file.
    fn error(&self, source: io::Error) -> Error {
        let path = self.path.clone();
        match source.kind() {
            ErrorKind::InvalidData | ErrorKind::UnexpectedEof => Error::CacheDamaged {
                path,
                found: source.to_string(),
            },
            _ => Error::Read { path, source },
        }
    }
}

/// Reads chunks of a shard, one after the other, through buffers that stay in the processor's cache.
struct ChunkReader {
    file: Reader,
    bytes: Vec<u8>,
    decoder: Decoder,
}

impl ChunkReader {
    fn new(path: &Path) -> io::Result<Self> {
        Ok(Self {
            file: Reader::open(path)?,
            bytes: Vec::new(),
            decoder: Decoder::new()?,
        })
    }

    fn read(&mut self, chunk: Range<u64>, values: &mut [f16]) -> io::Result<()> {
        self.file.read(chunk.clone(), &mut self.bytes)?;
        let wrong = |found| invalid(format!("the chunk at byte {}: {found}", chunk.start));
        let frame = checked(&self.bytes).ok_or_else(|| wrong("its checksum is wrong".into()))?;
        self.decoder.decode(frame, values).map_err(wrong)
    }
}

fn invalid(found: String) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, found)
}

/// Whether a folder is a volume of a cache, or meant to be one; at an address its name says so.
pub(crate) fn is_volume(folder: &Path) -> bool {
    if storage::is_address(folder) {
        return folder.extension().is_some_and(|kind| kind == EXTENSION);
    }
    folder.join(METADATA).is_file()
}
