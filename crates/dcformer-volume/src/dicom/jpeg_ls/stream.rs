//! The marker segments around a scan (annex C).
#![warn(clippy::indexing_slicing)]

use super::model::Parameters;

/// A stream taken apart.
#[derive(Debug)]
pub(super) struct Stream<'a> {
    pub(super) parameters: Parameters,
    /// Entropy-coded data, to the end of the stream.
    pub(super) scan: &'a [u8],
}

const START_OF_IMAGE: u8 = 0xD8;
const END_OF_IMAGE: u8 = 0xD9;
const START_OF_SCAN: u8 = 0xDA;
const RESTART_INTERVAL: u8 = 0xDD;
const START_OF_FRAME: u8 = 0xF7;
const PRESETS: u8 = 0xF8;

impl<'a> Stream<'a> {
    /// Reads up to the first scan; the size must be the one that the header around the stream gives.
    pub(super) fn parse(data: &'a [u8], rows: u16, columns: u16) -> Result<Self, String> {
        let mut rest = data
            .strip_prefix(&[0xFF, START_OF_IMAGE])
            .ok_or("no start of image")?;
        let mut precision = None;
        let mut presets = [0; 5];
        loop {
            let (marker, segment, after) = segment(rest)?;
            rest = after;
            match marker {
                START_OF_FRAME => precision = Some(frame(segment, rows, columns)?),
                PRESETS => match *segment {
                    [1, a, b, c, d, e, f, g, h, i, j] => {
                        let words = [[a, b], [c, d], [e, f], [g, h], [i, j]];
                        presets = words.map(|word| i32::from(u16::from_be_bytes(word)));
                    }
                    [2 | 3, ..] => {} // a mapping table, which the scan header would have to name
                    _ => return Err("presets of an unknown kind".into()),
                },
                RESTART_INTERVAL if segment.iter().any(|&byte| byte != 0) => {
                    return Err("restart intervals, which are not supported".into());
                }
                START_OF_SCAN => {
                    let precision = precision.ok_or("a scan without a frame header")?;
                    let near = scan(segment)?;
                    return Ok(Self {
                        parameters: Parameters::new(precision, near, presets)?,
                        scan: rest,
                    });
                }
                END_OF_IMAGE => return Err("no scan".into()),
                0xC0..=0xCF => return Err("another kind of JPEG".into()),
                _ => {}
            }
        }
    }
}

/// The next marker, its parameters and what follows.
fn segment(data: &[u8]) -> Result<(u8, &[u8], &[u8]), String> {
    const BROKEN: &str = "breaks off before its scan";
    let [0xFF, rest @ ..] = data else {
        return Err("no marker where one belongs".into());
    };
    // Any number of FF may fill the space before a marker.
    let fill = rest.iter().take_while(|&&byte| byte == 0xFF).count();
    let Some([marker, rest @ ..]) = rest.get(fill..) else {
        return Err(BROKEN.into());
    };
    if *marker == END_OF_IMAGE {
        return Ok((END_OF_IMAGE, &[], rest));
    }
    let length = rest
        .first_chunk()
        .map_or(0, |&length| usize::from(u16::from_be_bytes(length)));
    match (rest.get(2..length), rest.get(length..)) {
        (Some(segment), Some(after)) => Ok((*marker, segment, after)),
        _ => Err(BROKEN.into()),
    }
}

/// Bits of a sample, from the frame header (C.2.2).
fn frame(segment: &[u8], rows: u16, columns: u16) -> Result<u8, String> {
    let [precision, y0, y1, x0, x1, components, ..] = *segment else {
        return Err("a short frame header".into());
    };
    let (y, x) = (u16::from_be_bytes([y0, y1]), u16::from_be_bytes([x0, x1]));
    if (y, x) != (rows, columns) {
        return Err(format!(
            "{y} rows of {x} in the stream, {rows} of {columns} in the header"
        ));
    }
    if components != 1 {
        return Err(format!("{components} components, expected 1"));
    }
    Ok(precision)
}

/// NEAR, from the scan header (C.2.3).
fn scan(segment: &[u8]) -> Result<u8, String> {
    match *segment {
        [1, _, 0, near, _, 0] => Ok(near),
        [1, _, 0, _, _, shift] => Err(format!(
            "a point transform by {shift} bits, which is not supported"
        )),
        [1, _, table, ..] => Err(format!("mapping table {table}, which is not supported")),
        _ => Err("a scan header that is not of one component".into()),
    }
}
