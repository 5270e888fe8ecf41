//! The stored values of a frame, whatever its coding.
#![warn(clippy::indexing_slicing)]

use std::fs::File;
use std::ops::Range;

use super::elements::{self, Fault};
use super::header::Header;
use super::source::{self, Codec};
use super::{codestream, jpeg_ls, rle};
use crate::{Error, Result};

/// What a compressed frame may claim beyond [`MAX_RATIO`] without being refused: a blank 512x512 slice and more.
const FREE_BYTES: u64 = 1 << 20;

/// Pixel bytes for each compressed byte. A blank 2048x2048 slice in JPEG-LS is the most that a real scan comes to.
const MAX_RATIO: u64 = 1 << 14;

/// The pixel data of a file, found and checked. Holds no file open: a series has more of them than a process may.
pub(super) struct Pixels<'a> {
    header: &'a Header,
    /// The data set, if it was deflated.
    inflated: Option<Vec<u8>>,
    /// Pieces of each frame.
    frames: Vec<Vec<Range<u64>>>,
}

impl<'a> Pixels<'a> {
    /// Checks that the header describes grey pixels which the file has, and finds them.
    pub(super) fn open(header: &'a Header) -> Result<Self> {
        check_layout(header)?;
        match header.pixel_length {
            Some(length) => Self::native(header, length),
            None if header.syntax.codec == Codec::Native => Err(fault(
                header,
                "in fragments, which the transfer syntax does not allow".into(),
            )),
            None => Self::encapsulated(header),
        }
    }

    fn native(header: &'a Header, length: u32) -> Result<Self> {
        if header.syntax.codec != Codec::Native {
            return Err(fault(
                header,
                "not in fragments, which the transfer syntax asks for".into(),
            ));
        }
        let (frames, size) = (header.frames.len() as u64, frame_bytes(header) as u64);
        if u64::from(length) / size < frames {
            let found = format!("{length} bytes, expected {size} for each of {frames} frames");
            return Err(fault(header, found));
        }
        let start = header.pixel_offset;
        let frames = (0..frames)
            .map(|frame| {
                vec![Range {
                    start: start + frame * size,
                    end: start + (frame + 1) * size,
                }]
            })
            .collect();
        let inflated = match header.syntax.deflated {
            true => Some(source::inflate(&header.path, start + u64::from(length))?),
            false => None,
        };
        Ok(Self {
            header,
            inflated,
            frames,
        })
    }

    fn encapsulated(header: &'a Header) -> Result<Self> {
        let read_error = |source| Error::Read {
            path: header.path.clone(),
            source,
        };
        let mut file = File::open(&header.path).map_err(read_error)?;
        let size = file.metadata().map_err(read_error)?.len();
        let found = elements::fragments(header.pixel_offset, size, |offset| {
            let bytes = source::read_range(&mut file, &(offset..offset + 8))?;
            bytes
                .try_into()
                .map_err(|_| std::io::ErrorKind::UnexpectedEof.into())
        });
        let fragments = found.map_err(read_error)?.map_err(|damage| match damage {
            Fault::Malformed { offset, found } => Error::DicomDamaged {
                path: header.path.clone(),
                offset,
                found,
            },
            Fault::Incomplete => fault(header, "a fragment that breaks off".into()),
        })?;
        let frames = assign(header, &mut file, fragments)?;
        for pieces in &frames {
            let coded: u64 = pieces.iter().map(|piece| piece.end - piece.start).sum();
            if frame_bytes(header) as u64 > coded.saturating_mul(MAX_RATIO) + FREE_BYTES {
                let found = format!(
                    "{coded} bytes for {}x{} pixels",
                    header.rows, header.columns
                );
                return Err(fault(header, found));
            }
        }
        Ok(Self {
            header,
            inflated: None,
            frames,
        })
    }

    /// Stored values of a frame, row by row.
    pub(super) fn frame(&self, index: usize) -> Result<Vec<i32>> {
        let header = self.header;
        let data = self.coded(index)?;
        let (rows, columns) = (header.rows, header.columns);
        let pixels = usize::from(rows) * usize::from(columns);
        let codec = header.syntax.codec;
        let decoded = match codec {
            Codec::Native => Ok(self.words(&data)),
            Codec::Rle => {
                rle::decode(&data, pixels, bytes_per_sample(header)).map(|bytes| self.words(&bytes))
            }
            Codec::Jpeg => codestream::jpeg(&data, rows, columns),
            Codec::Jpeg2000 => codestream::jpeg_2000(&data, rows, columns),
            Codec::JpegLs => jpeg_ls::decode(&data, rows, columns).map(|image| image.samples),
        };
        let mut values =
            decoded.map_err(|reason| fault(header, format!("{codec:?} pixels: {reason}")))?;
        if values.len() != pixels {
            return Err(fault(
                header,
                format!("{} pixels, expected {pixels}", values.len()),
            ));
        }
        let sample = Sample::of(header);
        values
            .iter_mut()
            .for_each(|value| *value = sample.value(*value));
        Ok(values)
    }

    /// Bytes of a frame as they are in the file.
    fn coded(&self, index: usize) -> Result<Vec<u8>> {
        let header = self.header;
        let pieces = self
            .frames
            .get(index)
            .map(Vec::as_slice)
            .unwrap_or_default();
        let mut data = Vec::new();
        if let Some(bytes) = &self.inflated {
            for piece in pieces {
                let range = usize::try_from(piece.start)
                    .ok()
                    .zip(usize::try_from(piece.end).ok());
                let piece = range.and_then(|(start, end)| bytes.get(start..end));
                data.extend_from_slice(piece.ok_or_else(|| fault(header, "cut off".into()))?);
            }
            return Ok(data);
        }
        let read_error = |source| Error::Read {
            path: header.path.clone(),
            source,
        };
        let mut file = File::open(&header.path).map_err(read_error)?;
        for piece in pieces {
            data.extend(source::read_range(&mut file, piece).map_err(read_error)?);
        }
        Ok(data)
    }

    fn words(&self, bytes: &[u8]) -> Vec<i32> {
        if bytes_per_sample(self.header) == 1 {
            return bytes.iter().map(|&byte| i32::from(byte)).collect();
        }
        let big_endian = self.header.syntax.encoding.big_endian;
        let word = |&pair: &[u8; 2]| {
            if big_endian {
                u16::from_be_bytes(pair)
            } else {
                u16::from_le_bytes(pair)
            }
        };
        bytes
            .as_chunks()
            .0
            .iter()
            .map(|pair| i32::from(word(pair)))
            .collect()
    }
}

/// Which bits of a stored word are the value.
struct Sample {
    shift: u16,
    unused: u32,
    signed: bool,
}

impl Sample {
    fn of(header: &Header) -> Self {
        let padded = matches!(header.syntax.codec, Codec::Native | Codec::Rle);
        let shift = if padded {
            header.high_bit + 1 - header.bits_stored
        } else {
            0
        };
        Self {
            shift,
            unused: 32 - u32::from(header.bits_stored),
            signed: header.signed,
        }
    }

    /// Drops what stands beside the value (overlays, copies of the sign) and extends its sign.
    #[allow(
        clippy::cast_possible_wrap,
        clippy::cast_sign_loss,
        reason = "the bits are what is meant"
    )]
    fn value(&self, word: i32) -> i32 {
        let top = ((word >> self.shift) as u32) << self.unused;
        if self.signed {
            (top as i32) >> self.unused
        } else {
            (top >> self.unused) as i32
        }
    }
}

fn fault(header: &Header, found: String) -> Error {
    Error::DicomPixels {
        path: header.path.clone(),
        found,
    }
}

fn bytes_per_sample(header: &Header) -> usize {
    usize::from(header.bits_allocated / 8)
}

fn frame_bytes(header: &Header) -> usize {
    usize::from(header.rows) * usize::from(header.columns) * bytes_per_sample(header)
}

/// Checks that the pixels are grey and of a size that can be read, and that each frame is described.
pub(super) fn check_layout(header: &Header) -> Result<()> {
    let wrong = |field, found, expected| {
        Err(Error::Header {
            path: header.path.clone(),
            field,
            found,
            expected,
        })
    };
    if header.samples_per_pixel != 1 {
        let found = format!("{} ({})", header.samples_per_pixel, header.photometric);
        return wrong(
            "SamplesPerPixel",
            found,
            "1: colour pictures carry no Hounsfield units",
        );
    }
    if !matches!(header.photometric.as_str(), "MONOCHROME1" | "MONOCHROME2") {
        return wrong(
            "PhotometricInterpretation",
            super::header::shorten(&header.photometric),
            "MONOCHROME2",
        );
    }
    if !matches!(header.bits_allocated, 8 | 16) {
        return wrong(
            "BitsAllocated",
            header.bits_allocated.to_string(),
            "8 or 16",
        );
    }
    if header.bits_stored == 0 || header.bits_stored > header.bits_allocated {
        return wrong(
            "BitsStored",
            header.bits_stored.to_string(),
            "between 1 and BitsAllocated",
        );
    }
    if header.high_bit >= header.bits_allocated || header.high_bit + 1 < header.bits_stored {
        return wrong(
            "HighBit",
            header.high_bit.to_string(),
            "between BitsStored - 1 and BitsAllocated - 1",
        );
    }
    if header.frames.is_empty() {
        return wrong(
            "NumberOfFrames",
            "without a description of each frame".into(),
            "1, or functional groups for each",
        );
    }
    Ok(())
}

/// Which fragments are which frame: one each, all of the only frame, or as the offset table says (PS3.5, A.4).
fn assign(
    header: &Header,
    file: &mut File,
    fragments: Vec<Range<u64>>,
) -> Result<Vec<Vec<Range<u64>>>> {
    let frames = header.frames.len();
    let mut fragments = fragments.into_iter();
    let table = fragments.next().unwrap_or(0..0);
    let fragments: Vec<_> = fragments.collect();
    if fragments.len() == frames {
        return Ok(fragments
            .into_iter()
            .map(|fragment| vec![fragment])
            .collect());
    }
    if frames == 1 {
        return Ok(vec![fragments]);
    }
    let bytes = source::read_range(file, &table);
    let bytes = bytes.map_err(|source| Error::Read {
        path: header.path.clone(),
        source,
    })?;
    let starts: Vec<u64> = bytes
        .as_chunks()
        .0
        .iter()
        .map(|&start| u64::from(u32::from_le_bytes(start)))
        .collect();
    if starts.len() != frames || !starts.is_sorted() {
        let found = format!(
            "{} fragments and {} offsets for {frames} frames",
            fragments.len(),
            starts.len()
        );
        return Err(fault(header, found));
    }
    // Offsets count from the first fragment's own header of eight bytes.
    let first = fragments.first().map_or(0, |fragment| fragment.start - 8);
    let mut assigned = vec![Vec::new(); frames];
    for fragment in fragments {
        let frame = starts
            .partition_point(|&start| first + start <= fragment.start - 8)
            .saturating_sub(1);
        if let Some(pieces) = assigned.get_mut(frame) {
            pieces.push(fragment);
        }
    }
    Ok(assigned)
}
