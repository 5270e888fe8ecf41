//! From file to slices.

use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind};
use std::path::{Path, PathBuf};

use super::bytes::ByteStream;
use super::data_type::Voxel;
use super::header::{Header, NIFTI_1_LEN, version_and_order};
use crate::geometry::Grid;
use crate::volume::{Rescale, Volume, Voxels};
use crate::{Error, Result};

/// Bytes decompressed and decoded at a time: few calls, and both copies stay in the second-level cache.
const CHUNK_BYTES: usize = 256 << 10;

/// Bytes read at a time where the start of a file is all that is wanted.
const START_BYTES: usize = 4 << 10;

/// Memory is first taken for a file that is compressed this well, and doubled where that is too little. A chest CT
/// reaches 2 to 4.
const USUAL_COMPRESSION: u64 = 8;

/// A checksum stands at the end of the stream. As many bytes after the last voxel are decompressed to reach it, and no
/// more.
const MOST_TRAILING_BYTES: u64 = 1 << 20;

/// Reads a whole volume: `.nii`, `.hdr` with `.img`, either of them compressed or not, whatever the names say.
///
/// Integers whose values all fit become [`Voxels::I16`], whatever type they are stored in; everything else becomes
/// [`Voxels::F32`], rounded where the stored type is wider. Values that are not finite stay as they are.
///
/// # Errors
/// If the file is no NIfTI file, is damaged or cut, or holds no single 3-D volume of numbers. The module's doc says how
/// doubtful headers are read.
pub fn read_nifti(path: &Path) -> Result<Volume> {
    NiftiReader::open(path)?
        .into_volume()
        .map(|(volume, _)| volume)
}

/// Reads a volume from the bytes of a single file, compressed or not. `path` is for messages.
///
/// # Errors
/// As [`read_nifti`].
pub fn parse_nifti(path: &Path, bytes: &[u8]) -> Result<Volume> {
    NiftiReader::from_bytes(path, bytes)?
        .into_volume()
        .map(|(volume, _)| volume)
}

/// A NIfTI file whose header is known and whose slices are read in order.
///
/// # Example
/// ```no_run
/// # use dcformer_volume::nifti::NiftiReader;
/// # fn main() -> dcformer_volume::Result<()> {
/// let mut reader = NiftiReader::open("scan.nii.gz".as_ref())?;
/// let [columns, rows, _] = reader.grid().size;
/// let mut slab = vec![0.0_f32; 16 * columns * rows];
/// loop {
///     let slices = reader.read_slices(&mut slab)?;
///     if slices == 0 {
///         break;
///     }
///     let stored = &slab[..slices * columns * rows];
///     // …resample `stored` while the file is still being read
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct NiftiReader<R = BufReader<File>> {
    /// File with the voxels.
    path: PathBuf,
    header: Header,
    stream: ByteStream<R>,
    slices_left: usize,
    /// Bytes of the current chunk.
    chunk: Vec<u8>,
}

impl NiftiReader {
    /// Opens a file and reads its header. Of a pair, either file may be named.
    ///
    /// # Errors
    /// As [`read_nifti`], as far as the header tells.
    pub fn open(path: &Path) -> Result<Self> {
        let header_path = match pair_name(path, "img") {
            Some(stem) => existing(&stem, "hdr").unwrap_or_else(|| path.into()),
            None => path.into(),
        };
        let mut stream = open_stream(&header_path, CHUNK_BYTES)?;
        let header = read_header(&header_path, &mut stream)?;
        if header.single_file {
            return Self::new(&header_path, header, stream);
        }
        let image = if header_path == path {
            let stem = pair_name(path, "hdr").unwrap_or_else(|| path.with_extension(""));
            existing(&stem, "img").ok_or_else(|| Error::ImageMissing {
                path: path.into(),
                image: with_suffix(&stem, "img"),
            })?
        } else {
            path.into()
        };
        let stream = open_stream(&image, CHUNK_BYTES)?;
        Self::new(&image, header, stream)
    }
}

impl<'a> NiftiReader<&'a [u8]> {
    /// Reads the header of a single file in memory. `path` is for messages.
    ///
    /// # Errors
    /// As [`read_nifti`], as far as the header tells.
    pub fn from_bytes(path: &Path, bytes: &'a [u8]) -> Result<Self> {
        let read_error = |source| Error::Read {
            path: path.into(),
            source,
        };
        let mut stream = ByteStream::new(bytes, bytes.len() as u64).map_err(read_error)?;
        let header = read_header(path, &mut stream)?;
        if !header.single_file {
            return Err(Error::ImageMissing {
                path: path.into(),
                image: path.with_extension("img"),
            });
        }
        Self::new(path, header, stream)
    }
}

impl<R: BufRead> NiftiReader<R> {
    /// Goes to the first voxel of `stream`, which is the file `path`.
    fn new(path: &Path, header: Header, stream: ByteStream<R>) -> Result<Self> {
        let mut reader = Self {
            path: path.into(),
            slices_left: header.grid.size[2],
            header,
            stream,
            chunk: vec![0; CHUNK_BYTES],
        };
        if reader.end_of_voxels() > reader.stream.most_bytes() {
            return Err(Error::LargerThanFile {
                path: path.into(),
                described: reader.end_of_voxels(),
                stored: reader.stream.stored_len(),
            });
        }
        // Extensions and padding.
        while reader.stream.position() < reader.header.vox_offset {
            let rest = reader.header.vox_offset - reader.stream.position();
            reader.read_chunk(
                usize::try_from(rest).map_or(CHUNK_BYTES, |rest| rest.min(CHUNK_BYTES)),
            )?;
        }
        Ok(reader)
    }

    /// Size and place of the volume.
    pub fn grid(&self) -> Grid {
        self.header.grid
    }

    /// What the header says the stored values mean.
    pub fn rescale(&self) -> Rescale {
        self.header.rescale
    }

    /// Whether the stored type has no value beyond `i16`, so that slices may be read as `i16`.
    pub fn fits_i16(&self) -> bool {
        self.header.data_type.always_fits_i16()
    }

    /// What was decided about a doubtful file, for the user to hear; complete once the last slice is read.
    pub fn notes(&self) -> &[String] {
        &self.header.notes
    }

    /// Slices not yet read.
    pub fn slices_left(&self) -> usize {
        self.slices_left
    }

    /// Reads the next slices along `k` into `slices`, as many as it has room for and as there are; how many.
    ///
    /// Values are the stored ones, not rescaled, `i` fastest; those that are not finite stay. With the last slice the
    /// end of the file is checked too.
    ///
    /// # Panics
    /// If `slices` has no room for whole slices exactly, or `V` is `i16` and the file's type does not fit it.
    ///
    /// # Errors
    /// If the file ends early or its compressed data are damaged.
    pub fn read_slices<V: Voxel>(&mut self, slices: &mut [V]) -> Result<usize> {
        let slice = self.header.grid.size[0] * self.header.grid.size[1];
        assert!(
            slices.len() >= slice && slices.len().is_multiple_of(slice),
            "{} voxels are no whole slices of {slice}",
            slices.len()
        );
        let count = self.slices_left.min(slices.len() / slice);
        if count == 0 {
            return Ok(0);
        }
        for out in slices[..count * slice].chunks_mut(self.chunk_voxels()) {
            self.read_chunk(out.len() * self.header.data_type.bytes())?;
            assert!(
                self.decode(out),
                "the stored type does not fit i16; read f32"
            );
        }
        self.slices_left -= count;
        if self.slices_left == 0 {
            self.check_end()?;
        }
        Ok(count)
    }

    /// Reads the whole volume; the notes come with it.
    ///
    /// # Panics
    /// If slices were read before.
    ///
    /// # Errors
    /// As [`read_nifti`].
    pub fn into_volume(mut self) -> Result<(Volume, Vec<String>)> {
        assert_eq!(
            self.slices_left, self.header.grid.size[2],
            "slices were read before"
        );
        let voxels = if self.header.data_type.is_integer() {
            self.read_integers()?
        } else {
            Voxels::F32(self.read_all(Vec::new())?)
        };
        self.check_end()?;
        let Header {
            rescale,
            grid,
            notes,
            ..
        } = self.header;
        Ok((
            Volume {
                voxels,
                rescale,
                grid,
            },
            notes,
        ))
    }

    /// Reads all voxels as `i16`, and as `f32` from the first that does not fit.
    fn read_integers(&mut self) -> Result<Voxels> {
        let total = self.header.grid.voxels();
        let mut voxels: Vec<i16> = Vec::new();
        while voxels.len() < total {
            let (start, fits) = self.read_more(&mut voxels)?;
            if !fits {
                let mut wide = Vec::new();
                self.make_room(&mut wide, voxels.len())?;
                wide.iter_mut()
                    .zip(&voxels[..start])
                    .for_each(|(wide, &voxel)| *wide = f32::from(voxel));
                self.decode(&mut wide[start..]);
                drop(voxels);
                return self.read_all(wide).map(Voxels::F32);
            }
        }
        Ok(Voxels::I16(voxels))
    }

    /// Reads the voxels that follow those in `voxels`.
    fn read_all(&mut self, mut voxels: Vec<f32>) -> Result<Vec<f32>> {
        while voxels.len() < self.header.grid.voxels() {
            self.read_more(&mut voxels)?;
        }
        Ok(voxels)
    }

    /// Appends a chunk; where it begins and whether all its values fitted.
    fn read_more<V: Voxel>(&mut self, voxels: &mut Vec<V>) -> Result<(usize, bool)> {
        let start = voxels.len();
        let count = self.chunk_voxels().min(self.header.grid.voxels() - start);
        // Memory is taken once the bytes are there.
        self.read_chunk(count * self.header.data_type.bytes())?;
        self.make_room(voxels, start + count)?;
        Ok((start, self.decode(&mut voxels[start..])))
    }

    /// Lengthens `voxels` to `len` with zeros, in steps that hostile headers cannot enlarge.
    fn make_room<V: Voxel>(&self, voxels: &mut Vec<V>, len: usize) -> Result<()> {
        if len > voxels.capacity() {
            let likely = self.stream.stored_len().saturating_mul(USUAL_COMPRESSION);
            let likely =
                usize::try_from(likely).unwrap_or(usize::MAX) / self.header.data_type.bytes();
            let wanted = len.max(voxels.capacity().saturating_mul(2)).max(likely);
            let wanted = wanted.min(self.header.grid.voxels());
            voxels
                .try_reserve_exact(wanted - voxels.len())
                .map_err(|_| Error::OutOfMemory {
                    path: self.path.clone(),
                    bytes: (wanted as u64).saturating_mul(size_of::<V>() as u64),
                })?;
        }
        voxels.resize(len, V::default());
        Ok(())
    }

    /// Voxels in a full chunk.
    fn chunk_voxels(&self) -> usize {
        CHUNK_BYTES / self.header.data_type.bytes()
    }

    /// Decodes the current chunk; whether all values fitted.
    fn decode<V: Voxel>(&self, out: &mut [V]) -> bool {
        V::decode(self.header.data_type, self.header.order, &self.chunk, out)
    }

    /// Offset of the first byte after the voxels.
    fn end_of_voxels(&self) -> u64 {
        self.header
            .vox_offset
            .saturating_add(self.header.voxel_bytes())
    }

    /// Fills the first `len` bytes of the chunk from the stream.
    fn read_chunk(&mut self, len: usize) -> Result<()> {
        let count = match self.stream.read_up_to(&mut self.chunk[..len]) {
            Ok(count) => count,
            // A compressed stream that was cut.
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => 0,
            Err(error) => return Err(stream_error(&self.path, &self.stream, error)),
        };
        if count < len {
            return Err(Error::Truncated {
                path: self.path.clone(),
                found: self.stream.position(),
                expected: self.end_of_voxels(),
            });
        }
        Ok(())
    }

    /// Looks at what follows the last voxel, as far as the checksum needs it.
    fn check_end(&mut self) -> Result<()> {
        let end = self.end_of_voxels();
        if !self.stream.is_compressed() {
            let trailing = self.stream.stored_len().saturating_sub(end);
            if trailing > 0 {
                self.note(format!(
                    "{trailing} bytes after the last voxel were ignored"
                ));
            }
            return Ok(());
        }
        while self.stream.position() <= end + MOST_TRAILING_BYTES {
            let count = self
                .stream
                .read_up_to(&mut self.chunk)
                .map_err(|error| stream_error(&self.path, &self.stream, error))?;
            if count < self.chunk.len() {
                let trailing = self.stream.position() - end;
                if trailing > 0 {
                    self.note(format!(
                        "{trailing} bytes after the last voxel were ignored"
                    ));
                }
                if self.stream.ends_in_rubbish() {
                    self.note("bytes after the end of the compressed data were ignored".into());
                }
                return Ok(());
            }
        }
        self.note(format!(
            "more than {MOST_TRAILING_BYTES} bytes follow the last voxel; they were not read, and the file's checksum was \
             not verified"
        ));
        Ok(())
    }

    fn note(&mut self, note: String) {
        self.header.notes.push(note);
    }
}

/// Reads a header, no byte more, since voxels may follow at once.
fn read_header<R: BufRead>(path: &Path, stream: &mut ByteStream<R>) -> Result<Header> {
    let mut bytes = vec![0; NIFTI_1_LEN];
    let mut filled = 0;
    loop {
        let count = stream
            .read_up_to(&mut bytes[filled..])
            .map_err(|error| stream_error(path, stream, error))?;
        filled += count;
        let len =
            version_and_order(&bytes[..filled]).map_or(0, |(version, _)| version.header_len());
        if filled < bytes.len() || filled >= len {
            bytes.truncate(filled);
            return Header::parse(path, &bytes);
        }
        bytes.resize(len, 0);
    }
}

/// The first `len` bytes of a file, or fewer if it is shorter, decompressed if it is compressed; whether it is.
pub(crate) fn start_of_file(path: &Path, len: usize) -> Result<(Vec<u8>, bool)> {
    let mut stream = open_stream(path, START_BYTES)?;
    let mut start = vec![0; len];
    let count = stream
        .read_up_to(&mut start)
        .map_err(|error| stream_error(path, &stream, error))?;
    start.truncate(count);
    Ok((start, stream.is_compressed()))
}

/// Whether a file that begins so has a NIfTI header, or one of its predecessor.
pub(crate) fn is_nifti(start: &[u8]) -> bool {
    version_and_order(start).is_some()
}

/// Whether the path names the voxels of a pair whose header is beside it.
pub(crate) fn is_image_of_pair(path: &Path) -> bool {
    pair_name(path, "img").is_some_and(|stem| existing(&stem, "hdr").is_some())
}

/// The other file of a pair, if the path names one of the two and both are there.
pub(crate) fn other_of_pair(path: &Path) -> Option<PathBuf> {
    let other = |own, other| pair_name(path, own).and_then(|stem| existing(&stem, other));
    other("hdr", "img").or_else(|| other("img", "hdr"))
}

/// `buffer_bytes` are read at a time.
fn open_stream(path: &Path, buffer_bytes: usize) -> Result<ByteStream<BufReader<File>>> {
    let open = || -> io::Result<_> {
        let file = File::open(path)?;
        let len = file.metadata()?.len();
        ByteStream::new(BufReader::with_capacity(buffer_bytes, file), len)
    };
    open().map_err(|source| Error::Read {
        path: path.into(),
        source,
    })
}

/// What the decompressor finds wrong with the data is not what the system finds wrong with the file.
fn stream_error<R: BufRead>(path: &Path, stream: &ByteStream<R>, source: io::Error) -> Error {
    let path = path.into();
    match source.kind() {
        ErrorKind::InvalidInput | ErrorKind::InvalidData | ErrorKind::UnexpectedEof
            if stream.is_compressed() =>
        {
            Error::Damaged {
                path,
                position: stream.position(),
                source,
            }
        }
        _ => Error::Read { path, source },
    }
}

/// The path without its extension `extension` or `extension.gz`, if it has one of them, in any case.
fn pair_name(path: &Path, extension: &str) -> Option<PathBuf> {
    let is = |path: &Path, wanted: &str| {
        path.extension()
            .is_some_and(|found| found.eq_ignore_ascii_case(wanted))
    };
    let plain = if is(path, "gz") {
        path.with_extension("")
    } else {
        path.into()
    };
    is(&plain, extension).then(|| plain.with_extension(""))
}

/// `stem.extension` or `stem.extension.gz`, whichever is there, in lower or upper case.
fn existing(stem: &Path, extension: &str) -> Option<PathBuf> {
    let upper = extension.to_uppercase();
    [
        extension.into(),
        format!("{extension}.gz"),
        upper.clone(),
        format!("{upper}.GZ"),
    ]
    .iter()
    .map(|suffix| with_suffix(stem, suffix))
    .find(|path| path.is_file())
}

/// `stem.suffix`; unlike `with_extension`, a stem that holds dots keeps them all.
fn with_suffix(stem: &Path, suffix: &str) -> PathBuf {
    let mut name = stem.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    name.into()
}
