//! JPEG and JPEG 2000 through their crates, behind checks of what the stream says about itself.
//!
//! Both crates trust the sizes in the stream, so those are held against the header's before a decoder sees them; and
//! neither promises not to panic on damaged data.
#![warn(clippy::indexing_slicing)]

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Samples of one grey frame, `rows * columns`, as coded: neither masked nor sign-extended.
pub(super) fn jpeg(data: &[u8], rows: u16, columns: u16) -> Result<Vec<i32>, String> {
    guarded(|| {
        let mut decoder = jpeg_decoder::Decoder::new(data);
        decoder.read_info().map_err(|error| error.to_string())?;
        let info = decoder.info().ok_or("no frame header")?;
        same_size([info.height.into(), info.width.into()], rows, columns)?;
        let bytes = decoder.decode().map_err(|error| error.to_string())?;
        match info.pixel_format {
            jpeg_decoder::PixelFormat::L8 => Ok(bytes.into_iter().map(i32::from).collect()),
            jpeg_decoder::PixelFormat::L16 => {
                let samples = bytes.as_chunks().0.iter();
                Ok(samples
                    .map(|&sample| i32::from(u16::from_ne_bytes(sample)))
                    .collect())
            }
            format => Err(format!("pixels in {format:?}, expected grey")),
        }
    })
}

/// As [`jpeg`].
pub(super) fn jpeg_2000(data: &[u8], rows: u16, columns: u16) -> Result<Vec<i32>, String> {
    check_size_marker(data, rows, columns)?;
    guarded(|| {
        let parameters = jpeg2k::DecodeParameters::new().strict(true);
        let image =
            jpeg2k::Image::from_bytes_with(data, parameters).map_err(|error| error.to_string())?;
        let [component] = image.components() else {
            return Err(format!("{} components, expected 1", image.num_components()));
        };
        same_size([component.height(), component.width()], rows, columns)?;
        Ok(component.data().to_vec())
    })
}

fn same_size(found: [u32; 2], rows: u16, columns: u16) -> Result<(), String> {
    if found == [u32::from(rows), u32::from(columns)] {
        return Ok(());
    }
    Err(format!(
        "{} rows of {} in the stream, {rows} of {columns} in the header",
        found[0], found[1]
    ))
}

fn guarded(decode: impl FnOnce() -> Result<Vec<i32>, String>) -> Result<Vec<i32>, String> {
    catch_unwind(AssertUnwindSafe(decode)).unwrap_or_else(|_| Err("damaged stream".to_owned()))
}

/// Checks the image and tile size marker (ISO 15444-1, A.5.1).
fn check_size_marker(data: &[u8], rows: u16, columns: u16) -> Result<(), String> {
    const START_AND_SIZE: &[u8] = &[0xFF, 0x4F, 0xFF, 0x51];
    const MAX_TILES: u64 = 65_535;
    // At the start of a bare codestream, somewhere in the boxes of a JP2 file.
    let start = data
        .windows(4)
        .position(|window| window == START_AND_SIZE)
        .ok_or("no size marker")?;
    let marker = data.get(start + 8..).unwrap_or_default();
    let word = |index: usize| -> Result<u32, String> {
        let bytes = marker
            .get(index * 4..)
            .and_then(|rest| rest.first_chunk())
            .ok_or("size marker breaks off")?;
        Ok(u32::from_be_bytes(*bytes))
    };
    let [x, y, x_offset, y_offset] = [word(0)?, word(1)?, word(2)?, word(3)?];
    let [tile_x, tile_y] = [word(4)?, word(5)?];
    same_size(
        [y.saturating_sub(y_offset), x.saturating_sub(x_offset)],
        rows,
        columns,
    )?;
    if tile_x == 0
        || tile_y == 0
        || u64::from(x.div_ceil(tile_x)) * u64::from(y.div_ceil(tile_y)) > MAX_TILES
    {
        return Err(format!("tiles of {tile_x}x{tile_y} in an image of {x}x{y}"));
    }
    match marker.get(32..37) {
        Some(&[0, 1, depth, 1, 1]) if depth & 0x7F < 16 => Ok(()),
        Some(components) => Err(format!(
            "components described as {components:02x?}, expected one of up to 16 bits"
        )),
        None => Err("size marker breaks off".to_owned()),
    }
}
