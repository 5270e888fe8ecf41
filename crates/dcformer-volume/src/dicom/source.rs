//! A DICOM file around its data set: preamble, file meta group, transfer syntax (PS3.10, section 7).
#![warn(clippy::indexing_slicing)]

use std::borrow::Cow;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use super::elements::{Elements, Encoding, Fault, Tag};
use crate::{Error, Result};

/// How the pixels of a file are coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Codec {
    Native,
    /// Baseline, extended and lossless.
    Jpeg,
    JpegLs,
    Jpeg2000,
    Rle,
}

/// What the unique identifier of a transfer syntax stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TransferSyntax {
    pub(super) encoding: Encoding,
    pub(super) codec: Codec,
    /// Whether the data set is compressed as a whole.
    pub(super) deflated: bool,
}

impl TransferSyntax {
    const fn native(encoding: Encoding) -> Self {
        Self {
            encoding,
            codec: Codec::Native,
            deflated: false,
        }
    }

    const fn encapsulated(codec: Codec) -> Self {
        Self {
            encoding: Encoding::EXPLICIT,
            codec,
            deflated: false,
        }
    }

    /// PS3.6, table A-1.
    fn of(uid: &str) -> Option<Self> {
        Some(match uid.strip_prefix("1.2.840.10008.1.2")? {
            "" => Self::native(Encoding::IMPLICIT),
            ".1" => Self::native(Encoding::EXPLICIT),
            ".1.99" => Self {
                deflated: true,
                ..Self::native(Encoding::EXPLICIT)
            },
            ".2" => Self::native(Encoding::EXPLICIT_BIG),
            ".4.50" | ".4.51" | ".4.57" | ".4.70" => Self::encapsulated(Codec::Jpeg),
            ".4.80" | ".4.81" => Self::encapsulated(Codec::JpegLs),
            ".4.90" | ".4.91" => Self::encapsulated(Codec::Jpeg2000),
            ".5" => Self::encapsulated(Codec::Rle),
            _ => return None,
        })
    }
}

/// First look at a file; enough for the header of nearly every slice.
const FIRST_BYTES: u64 = 64 << 10;

/// Deflate never does better (a distance code and a length of 258 in two bits), so this bounds a data set by its file.
const DEFLATE_MAX_RATIO: u64 = 1032;

/// The beginning of a data set, or all of it.
pub(super) struct DataSet<'a> {
    bytes: Cow<'a, [u8]>,
    /// Of `bytes` in the file; 0 for an inflated data set, which counts on its own.
    base: u64,
    end: u64,
    pub(super) syntax: TransferSyntax,
    /// Whether the file begins as PS3.10 says; without that, what looks like DICOM may be anything.
    pub(super) certain: bool,
}

impl DataSet<'_> {
    pub(super) fn elements(&self) -> Elements<'_> {
        Elements::new(&self.bytes, self.base, self.end, self.syntax.encoding)
    }

    /// Bytes of an inflated data set.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes.into_owned()
    }
}

/// What a file turned out to be.
pub(super) enum Parsed<T> {
    Dicom(T),
    Other,
}

/// Opens `path` and lets `parse` read its data set, with more and more of the file until `parse` has enough.
pub(super) fn parse<T>(
    path: &Path,
    mut parse: impl FnMut(&DataSet<'_>) -> Result<Result<T, Fault>>,
) -> Result<Parsed<T>> {
    let read_error = |source| Error::Read {
        path: path.to_owned(),
        source,
    };
    let mut file = File::open(path).map_err(read_error)?;
    let size = file.metadata().map_err(read_error)?.len();
    let mut wanted = FIRST_BYTES;
    let mut bytes = Vec::new();
    loop {
        let missing = wanted.min(size).saturating_sub(bytes.len() as u64);
        file.by_ref()
            .take(missing)
            .read_to_end(&mut bytes)
            .map_err(read_error)?;
        let complete = bytes.len() as u64 >= size.min(wanted) && wanted >= size;
        let Some(frame) = Framing::detect(&bytes, size) else {
            return Ok(Parsed::Other);
        };
        let certain = frame.as_ref().map_or(true, |framing| framing.certain);
        let outcome = match frame.and_then(|framing| framing.data_set(path, &bytes, size, wanted)) {
            Ok(data_set) => parse(&data_set?)?,
            Err(fault) => Err(fault),
        };
        match outcome {
            Ok(value) => return Ok(Parsed::Dicom(value)),
            Err(Fault::Incomplete)
                if !complete || wanted < size.saturating_mul(DEFLATE_MAX_RATIO) =>
            {
                wanted = wanted.saturating_mul(16);
            }
            Err(_) if !certain => return Ok(Parsed::Other),
            Err(Fault::Incomplete) => {
                let found = "the end of the file within an element".to_owned();
                return Err(Error::DicomDamaged {
                    path: path.to_owned(),
                    offset: size,
                    found,
                });
            }
            Err(Fault::Malformed { offset, found }) => {
                return Err(Error::DicomDamaged {
                    path: path.to_owned(),
                    offset,
                    found,
                });
            }
        }
    }
}

/// The whole data set of a deflated file, at most `limit` bytes.
pub(super) fn inflate(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let read_error = |source| Error::Read {
        path: path.to_owned(),
        source,
    };
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|mut file| file.read_to_end(&mut bytes))
        .map_err(read_error)?;
    let size = bytes.len() as u64;
    match Framing::detect(&bytes, size) {
        Some(Ok(framing)) => match framing.data_set(path, &bytes, size, limit) {
            Ok(data_set) => Ok(data_set?.into_bytes()),
            Err(_) => Ok(Vec::new()),
        },
        _ => Ok(Vec::new()),
    }
}

/// Reads a part of a file.
pub(super) fn read_range(
    file: &mut File,
    range: &std::ops::Range<u64>,
) -> std::io::Result<Vec<u8>> {
    let length = range.end - range.start;
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(range.start))?;
    file.take(length).read_to_end(&mut bytes)?;
    if bytes.len() as u64 == length {
        Ok(bytes)
    } else {
        Err(std::io::ErrorKind::UnexpectedEof.into())
    }
}

/// Where the data set of a file starts and how it is written.
struct Framing {
    start: usize,
    uid: Option<String>,
    guessed: Encoding,
    certain: bool,
}

impl Framing {
    /// `None`: not DICOM.
    fn detect(bytes: &[u8], size: u64) -> Option<Result<Self, Fault>> {
        const MAGIC: &[u8] = b"DICM";
        const PREAMBLE: usize = 128;
        let meta_start = if bytes.get(PREAMBLE..PREAMBLE + 4) == Some(MAGIC) {
            Some(PREAMBLE + 4)
        } else if bytes.starts_with(MAGIC) {
            Some(4)
        } else if bytes.starts_with(&[2, 0]) {
            Some(0)
        } else {
            None
        };
        let Some(meta_start) = meta_start else {
            // A data set cut out of a stream may keep the byte that padded what was before it.
            let padded = || {
                Some((
                    1,
                    guess(bytes.strip_prefix(b" ").or(bytes.strip_prefix(b"\0"))?)?,
                ))
            };
            let (start, guessed) = guess(bytes).map(|guessed| (0, guessed)).or_else(padded)?;
            return Some(Ok(Self {
                start,
                uid: None,
                guessed,
                certain: false,
            }));
        };
        let certain = meta_start > 0;
        Some(Self::meta(bytes, size, meta_start).map(|(start, uid)| {
            let rest = bytes.get(start..).unwrap_or_default();
            Self {
                start,
                uid,
                guessed: guess(rest).unwrap_or(Encoding::IMPLICIT),
                certain,
            }
        }))
    }

    /// Reads group 0002; gives its end and the transfer syntax.
    fn meta(bytes: &[u8], size: u64, start: usize) -> Result<(usize, Option<String>), Fault> {
        let rest = bytes.get(start..).unwrap_or_default();
        let mut elements = Elements::new(rest, start as u64, size, Encoding::EXPLICIT);
        let mut uid = None;
        while elements.peek().is_some_and(|tag| tag.0 == 2) {
            match elements.next()? {
                Some(element) if element.tag == Tag(2, 0x10) => {
                    uid = Some(element.text().into_owned());
                }
                Some(_) => {}
                None => break,
            }
        }
        if elements.peek().is_none()
            && elements.offset() >= bytes.len() as u64
            && size > bytes.len() as u64
        {
            return Err(Fault::Incomplete);
        }
        Ok((
            usize::try_from(elements.offset()).map_err(|_| Fault::Incomplete)?,
            uid,
        ))
    }

    fn data_set<'a>(
        self,
        path: &Path,
        bytes: &'a [u8],
        size: u64,
        wanted: u64,
    ) -> Result<Result<DataSet<'a>>, Fault> {
        let syntax = match &self.uid {
            None => TransferSyntax::native(self.guessed),
            Some(uid) => match TransferSyntax::of(uid) {
                Some(syntax) => syntax,
                None => {
                    return Ok(Err(Error::DicomTransferSyntax {
                        path: path.to_owned(),
                        uid: uid.clone(),
                    }));
                }
            },
        };
        let rest = bytes.get(self.start..).unwrap_or_default();
        let certain = self.certain;
        if !syntax.deflated {
            return Ok(Ok(DataSet {
                bytes: rest.into(),
                base: self.start as u64,
                end: size,
                syntax,
                certain,
            }));
        }
        let mut inflated = Vec::new();
        let outcome = flate2::read::DeflateDecoder::new(rest)
            .take(wanted)
            .read_to_end(&mut inflated);
        let more = inflated.len() as u64 == wanted;
        if outcome.is_err() && !more {
            if (bytes.len() as u64) < size {
                return Err(Fault::Incomplete);
            }
            let found = "a deflated data set that breaks off".to_owned();
            return Err(Fault::Malformed {
                offset: size,
                found,
            });
        }
        let end = if more {
            size.saturating_mul(DEFLATE_MAX_RATIO)
        } else {
            inflated.len() as u64
        };
        Ok(Ok(DataSet {
            bytes: inflated.into(),
            base: 0,
            end,
            syntax,
            certain,
        }))
    }
}

/// Encoding of a data set that starts with group 0008 and does not say how it is written.
fn guess(bytes: &[u8]) -> Option<Encoding> {
    let explicit = bytes.get(4..6)?.iter().all(u8::is_ascii_uppercase);
    match (bytes.first_chunk()?, explicit) {
        ([8, 0], explicit) => Some(Encoding {
            big_endian: false,
            explicit,
        }),
        ([0, 8], true) => Some(Encoding::EXPLICIT_BIG),
        _ => None,
    }
}
