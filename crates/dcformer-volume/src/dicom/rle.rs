//! RLE Lossless (PS3.5, annex G): one `PackBits` segment for each byte of a sample, the most significant first.
#![warn(clippy::indexing_slicing)]

/// Bytes of the samples of one frame, little-endian.
///
/// `pixels` samples of `bytes_per_sample` bytes; the error says what is wrong with `data`.
pub(super) fn decode(
    data: &[u8],
    pixels: usize,
    bytes_per_sample: usize,
) -> Result<Vec<u8>, String> {
    const HEADER: usize = 64;
    let word = |index: usize| -> Result<usize, String> {
        let bytes = data
            .get(index * 4..)
            .and_then(|rest| rest.first_chunk())
            .ok_or("shorter than its header")?;
        usize::try_from(u32::from_le_bytes(*bytes)).map_err(|error| error.to_string())
    };
    let segments = word(0)?;
    if segments != bytes_per_sample {
        return Err(format!("{segments} segments, expected {bytes_per_sample}"));
    }
    let mut out = vec![0; pixels * bytes_per_sample];
    for segment in 0..segments {
        let start = word(1 + segment)?;
        let end = if segment + 1 < segments {
            word(2 + segment)?
        } else {
            data.len()
        };
        let packed = data
            .get(start..end)
            .filter(|_| start >= HEADER)
            .ok_or("segment outside the data")?;
        let place = bytes_per_sample - 1 - segment;
        let mut places = out.iter_mut().skip(place).step_by(bytes_per_sample);
        if unpack(packed, &mut places).is_none() {
            return Err(format!(
                "segment {segment} ends before the {pixels} pixels do"
            ));
        }
    }
    Ok(out)
}

/// Fills `places` from `PackBits`; `None` if `packed` runs out first.
fn unpack<'a>(packed: &[u8], places: &mut impl ExactSizeIterator<Item = &'a mut u8>) -> Option<()> {
    let mut packed = packed.iter();
    while places.len() > 0 {
        let control = *packed.next()?;
        match control {
            0..=127 => {
                for place in places.take(usize::from(control) + 1) {
                    *place = *packed.next()?;
                }
            }
            128 => {}
            129.. => {
                let value = *packed.next()?;
                places
                    .take(257 - usize::from(control))
                    .for_each(|place| *place = value);
            }
        }
    }
    Some(())
}

#[cfg(test)]
#[allow(
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "what the test itself made"
)]
mod tests {
    use super::*;

    /// The example of `PackBits` in Apple's technical note 1023, padded as DICOM pads.
    const PACKED: [u8; 16] = [
        0xFE, 0xAA, 0x02, 0x80, 0x00, 0x2A, 0xFD, 0xAA, 0x03, 0x80, 0x00, 0x2A, 0x22, 0xF7, 0xAA,
        0x00,
    ];
    const UNPACKED: [u8; 24] = [
        0xAA, 0xAA, 0xAA, 0x80, 0x00, 0x2A, 0xAA, 0xAA, 0xAA, 0xAA, 0x80, 0x00, 0x2A, 0x22, 0xAA,
        0xAA, 0xAA, 0xAA, 0xAA, 0xAA, 0xAA, 0xAA, 0xAA, 0xAA,
    ];

    fn frame(segments: &[&[u8]]) -> Vec<u8> {
        let mut offset = 64;
        let mut data = (segments.len() as u32).to_le_bytes().to_vec();
        for segment in segments {
            data.extend((offset as u32).to_le_bytes());
            offset += segment.len();
        }
        data.resize(64, 0);
        data.extend(segments.concat());
        data
    }

    #[test]
    fn packbits_of_the_technical_note() {
        assert_eq!(decode(&frame(&[&PACKED]), 24, 1).unwrap(), UNPACKED);
    }

    #[test]
    fn the_first_segment_is_the_high_byte() {
        let data = frame(&[&[0xFE, 0x12], &[0x02, 1, 2, 3]]);
        assert_eq!(decode(&data, 3, 2).unwrap(), [1, 0x12, 2, 0x12, 3, 0x12]);
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        assert!(decode(&[1, 0], 3, 1).unwrap_err().contains("header"));
        assert!(
            decode(&frame(&[&PACKED]), 24, 2)
                .unwrap_err()
                .contains("1 segments, expected 2")
        );
        assert!(
            decode(&frame(&[&PACKED]), 25, 1)
                .unwrap_err()
                .contains("ends before")
        );
        let mut outside = frame(&[&PACKED]);
        outside[4] = 0xFF;
        assert!(decode(&outside, 24, 1).unwrap_err().contains("outside"));
    }
}
