//! The elements of a DICOM data set in a buffer: tag, value representation, length, value (PS3.5, section 7).
//!
//! The crates that exist reserve what an element's length claims before they look for it; here a length is held
//! against what the file has, and a value is a slice.
#![warn(clippy::indexing_slicing)]

use std::borrow::Cow;

/// Group and element number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Tag(pub(super) u16, pub(super) u16);

impl Tag {
    pub(super) const PIXEL_DATA: Self = Self(0x7FE0, 0x0010);
    const ITEM: Self = Self(0xFFFE, 0xE000);
    const ITEM_DELIMITATION: Self = Self(0xFFFE, 0xE00D);
    const SEQUENCE_DELIMITATION: Self = Self(0xFFFE, 0xE0DD);
}

/// How numbers and value representations are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Encoding {
    pub(super) big_endian: bool,
    /// Whether each element names its value representation.
    pub(super) explicit: bool,
}

impl Encoding {
    pub(super) const IMPLICIT: Self = Self {
        big_endian: false,
        explicit: false,
    };
    pub(super) const EXPLICIT: Self = Self {
        big_endian: false,
        explicit: true,
    };
    pub(super) const EXPLICIT_BIG: Self = Self {
        big_endian: true,
        explicit: true,
    };

    fn u16(self, bytes: [u8; 2]) -> u16 {
        if self.big_endian {
            u16::from_be_bytes(bytes)
        } else {
            u16::from_le_bytes(bytes)
        }
    }

    fn u32(self, bytes: [u8; 4]) -> u32 {
        if self.big_endian {
            u32::from_be_bytes(bytes)
        } else {
            u32::from_le_bytes(bytes)
        }
    }
}

/// Why no element could be had.
#[derive(Debug)]
pub(super) enum Fault {
    /// The buffer is the beginning of a file that has more.
    Incomplete,
    /// No reading further would help.
    Malformed {
        /// Byte in the file (in the inflated data set of a deflated one).
        offset: u64,
        /// What is there.
        found: String,
    },
}

/// Length field of an element whose end is marked by a delimiter.
const UNDEFINED: u32 = u32::MAX;

/// Sequences in sequences deeper than this are an attack on the stack; functional groups need three.
const MAX_DEPTH: usize = 24;

/// Value representations with a four-byte length (PS3.5, table 7.1-1).
const LONG: [&[u8; 2]; 13] = [
    b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV",
];

/// One element.
#[derive(Clone, Copy, Debug)]
pub(super) struct Element<'a> {
    pub(super) tag: Tag,
    /// Where the value starts, in the same count as [`Fault::Malformed`].
    pub(super) offset: u64,
    /// What the file says; `None`: until a delimiter.
    pub(super) length: Option<u32>,
    /// Empty for the pixel data, which stay where they are.
    pub(super) value: &'a [u8],
    /// Of the value.
    pub(super) encoding: Encoding,
}

impl<'a> Element<'a> {
    /// Text without padding. What is not UTF-8 is taken as Latin-1: no text that decides anything is either.
    pub(super) fn text(&self) -> Cow<'a, str> {
        let padding = |byte: &u8| *byte == 0 || byte.is_ascii_whitespace();
        let start = self
            .value
            .iter()
            .position(|byte| !padding(byte))
            .unwrap_or(self.value.len());
        let end = self
            .value
            .iter()
            .rposition(|byte| !padding(byte))
            .map_or(start, |last| last + 1);
        let text = self.value.get(start..end).unwrap_or_default();
        match std::str::from_utf8(text) {
            Ok(text) => Cow::Borrowed(text),
            Err(_) => Cow::Owned(text.iter().map(|&byte| char::from(byte)).collect()),
        }
    }

    /// First binary 16-bit number.
    pub(super) fn u16(&self) -> Option<u16> {
        self.value
            .first_chunk()
            .map(|&bytes| self.encoding.u16(bytes))
    }

    /// The data sets of a sequence.
    pub(super) fn items(&self) -> Result<Vec<Elements<'a>>, Fault> {
        let mut reader = Elements::nested(self.value, self.offset, self.encoding, 1);
        let mut items = Vec::new();
        while reader.remaining() >= 8 {
            let (tag, length) = reader.item_header()?;
            if tag != Tag::ITEM {
                break;
            }
            let start = reader.position;
            let end = if length == UNDEFINED {
                reader.skip_item()?
            } else {
                reader.advance(u64::from(length))?
            };
            let value = reader.bytes.get(start..end).unwrap_or_default();
            items.push(Elements::nested(
                value,
                reader.base + start as u64,
                self.encoding,
                1,
            ));
        }
        Ok(items)
    }
}

/// Elements of a buffer, one after the other.
#[derive(Clone, Debug)]
pub(super) struct Elements<'a> {
    bytes: &'a [u8],
    position: usize,
    /// Place of the buffer in the file.
    base: u64,
    /// End of the data in the file, beyond the buffer if that holds only the beginning.
    end: u64,
    encoding: Encoding,
    depth: usize,
}

impl<'a> Elements<'a> {
    /// Elements of `bytes`, which start at `base` of a file that ends at `end`.
    pub(super) fn new(bytes: &'a [u8], base: u64, end: u64, encoding: Encoding) -> Self {
        Self {
            bytes,
            position: 0,
            base,
            end,
            encoding,
            depth: 0,
        }
    }

    fn nested(bytes: &'a [u8], base: u64, encoding: Encoding, depth: usize) -> Self {
        Self {
            bytes,
            position: 0,
            base,
            end: base + bytes.len() as u64,
            encoding,
            depth,
        }
    }

    fn remaining(&self) -> u64 {
        self.end.saturating_sub(self.offset())
    }

    /// Where the next element starts.
    pub(super) fn offset(&self) -> u64 {
        self.base + self.position as u64
    }

    fn malformed(&self, found: impl Into<String>) -> Fault {
        Fault::Malformed {
            offset: self.offset(),
            found: found.into(),
        }
    }

    /// Moves past `length` bytes and gives the new position.
    fn advance(&mut self, length: u64) -> Result<usize, Fault> {
        if length > self.remaining() {
            return Err(self.malformed(format!(
                "a value of {length} bytes where {} are left",
                self.remaining()
            )));
        }
        let end = usize::try_from(length)
            .ok()
            .and_then(|length| self.position.checked_add(length));
        let end = end
            .filter(|&end| end <= self.bytes.len())
            .ok_or(Fault::Incomplete)?;
        self.position = end;
        Ok(end)
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let start = self.position;
        self.advance(N as u64)?;
        self.bytes
            .get(start..)
            .and_then(|rest| rest.first_chunk().copied())
            .ok_or(Fault::Incomplete)
    }

    fn tag(&mut self) -> Result<Tag, Fault> {
        let group = self.take()?;
        let element = self.take()?;
        Ok(Tag(self.encoding.u16(group), self.encoding.u16(element)))
    }

    /// Tag of the next element, which stays the next.
    pub(super) fn peek(&self) -> Option<Tag> {
        self.clone().tag().ok()
    }

    fn item_header(&mut self) -> Result<(Tag, u32), Fault> {
        let tag = self.tag()?;
        let length = self.take()?;
        Ok((tag, self.encoding.u32(length)))
    }

    /// The next element, or `None` at the end. A nested delimiter counts as the end.
    pub(super) fn next(&mut self) -> Result<Option<Element<'a>>, Fault> {
        // Fewer bytes than a header needs are padding that some writers add.
        if self.remaining() < 8 {
            return Ok(None);
        }
        let tag = self.tag()?;
        if tag.0 == Tag::ITEM.0 {
            self.take::<4>()?;
            return Ok(None);
        }
        let (length, representation) = self.length()?;
        let start = self.position;
        let offset = self.offset();
        let mut encoding = self.encoding;
        if tag == Tag::PIXEL_DATA && self.depth == 0 {
            if length != UNDEFINED && u64::from(length) > self.remaining() {
                return Err(self.malformed(format!(
                    "PixelData of {length} bytes where {} are left",
                    self.remaining()
                )));
            }
            let length = (length != UNDEFINED).then_some(length);
            return Ok(Some(Element {
                tag,
                offset,
                length,
                value: &[],
                encoding,
            }));
        }
        let end = if length == UNDEFINED {
            // A sequence that its writer did not know is "UN" and always implicit (PS3.5, section 6.2.2, note 4).
            if representation == Some(*b"UN") {
                encoding = Encoding::IMPLICIT;
            }
            self.skip_sequence(encoding)?
        } else {
            self.advance(u64::from(length))?
        };
        let value = self.bytes.get(start..end).unwrap_or_default();
        Ok(Some(Element {
            tag,
            offset,
            length: (length != UNDEFINED).then_some(length),
            value,
            encoding,
        }))
    }

    fn length(&mut self) -> Result<(u32, Option<[u8; 2]>), Fault> {
        if !self.encoding.explicit {
            let length = self.take()?;
            return Ok((self.encoding.u32(length), None));
        }
        let representation: [u8; 2] = self.take()?;
        if !representation.iter().all(u8::is_ascii_uppercase) {
            return Err(self.malformed(format!(
                "bytes {representation:02x?} where a value representation belongs"
            )));
        }
        let length = if LONG.contains(&&representation) {
            self.take::<2>()?;
            let length = self.take()?;
            self.encoding.u32(length)
        } else {
            let length = self.take()?;
            u32::from(self.encoding.u16(length))
        };
        Ok((length, Some(representation)))
    }

    /// Moves past the items and the delimiter of a sequence of undefined length; gives the end of its items.
    fn skip_sequence(&mut self, encoding: Encoding) -> Result<usize, Fault> {
        if self.depth >= MAX_DEPTH {
            return Err(self.malformed("sequences nested beyond reason"));
        }
        let outer = (self.encoding, self.depth);
        (self.encoding, self.depth) = (encoding, self.depth + 1);
        let end = loop {
            let end = self.position;
            match self.item_header()? {
                (Tag::SEQUENCE_DELIMITATION, _) => break end,
                (Tag::ITEM, UNDEFINED) => self.skip_item()?,
                (Tag::ITEM, length) => self.advance(u64::from(length))?,
                (Tag(group, element), _) => {
                    return Err(self.malformed(format!(
                        "element ({group:04x},{element:04x}) where an item belongs"
                    )));
                }
            };
        };
        (self.encoding, self.depth) = outer;
        Ok(end)
    }

    /// Moves past the elements and the delimiter of an item of undefined length; gives the end of its elements.
    fn skip_item(&mut self) -> Result<usize, Fault> {
        self.depth += 1;
        let end = loop {
            let end = self.position;
            if self.peek() == Some(Tag::ITEM_DELIMITATION) {
                self.advance(8)?;
                break end;
            }
            if self.next()?.is_none() {
                return Err(self.malformed("an item without its end"));
            }
        };
        self.depth -= 1;
        Ok(end)
    }
}

/// Fragments of encapsulated pixel data, from byte `offset` of `read` on; the offset table is the first.
///
/// `read` gives the eight bytes at a place, or `None` beyond the end. Ranges lie within `end`.
pub(super) fn fragments(
    offset: u64,
    end: u64,
    mut read: impl FnMut(u64) -> std::io::Result<[u8; 8]>,
) -> std::io::Result<Result<Vec<std::ops::Range<u64>>, Fault>> {
    let mut ranges = Vec::new();
    let mut position = offset;
    loop {
        if end.saturating_sub(position) < 8 {
            let found = "pixel data that end without their delimiter".to_owned();
            return Ok(Err(Fault::Malformed {
                offset: position,
                found,
            }));
        }
        let header = read(position)?;
        let mut item = Elements::new(&header, position, position + 8, Encoding::EXPLICIT);
        let Ok((tag, length)) = item.item_header() else {
            return Ok(Err(Fault::Incomplete));
        };
        let start = position + 8;
        let stop = start + u64::from(length);
        match tag {
            Tag::SEQUENCE_DELIMITATION => return Ok(Ok(ranges)),
            Tag::ITEM if stop <= end => ranges.push(start..stop),
            _ => {
                let found =
                    format!("no fragment of the pixel data (tag {tag:04x?}, {length} bytes)");
                return Ok(Err(Fault::Malformed {
                    offset: position,
                    found,
                }));
            }
        }
        position = stop;
    }
}
