//! A chunk of half floats as a Blosc frame: bytes shuffled, then zstd, block by block.
//!
//! Neighbours in a scan share the high bytes of their values and hardly the low ones. A block holds all its low bytes,
//! then all its high ones, so that the half that can be compressed lies together. Zarr's `blosc` codec is this format:
//!
//! ```text
//! 16 bytes         version 2, version of the codec 1, flags, size of a value; then, as u32, bytes of the chunk, of a
//!                  block and of the frame
//! u32 a block      where it begins in the frame
//! u32, then bytes  a block: its stored length, then a zstd frame, or the shuffled bytes if zstd saves nothing
//! ```
//! (c-blosc 1.21, `README_CHUNK_FORMAT.rst`; all numbers little-endian.)

use std::io;

use half::f16;
use zstd::bulk::{Compressor, Decompressor};

/// The two versions, the flags (bytes shuffled, blocks not split, zstd) and the bytes of a value.
const BEGINNING: [u8; 4] = [2, 1, 0b1001_0001, 2];

const HEADER_BYTES: usize = 16;

/// A slice of 512 x 512: stays in the second-level cache, and a table of zstd's serves 128 KiB anyhow.
const BLOCK_BYTES: usize = 1 << 19;

/// Two levels more save 1 % of size and cost half the time of preprocessing (ARCHITECTURE D34).
const ZSTD_LEVEL: i32 = 3;

/// Blosc's own number for it: `2 * level - 1` is zstd's.
pub(super) const LEVEL: i32 = 2;

/// Compresses chunks; keeps its buffers from one to the next.
pub(super) struct Encoder {
    zstd: Compressor<'static>,
    shuffled: Vec<u8>,
    compressed: Vec<u8>,
}

impl Encoder {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            zstd: Compressor::new(ZSTD_LEVEL)?,
            shuffled: Vec::new(),
            compressed: Vec::new(),
        })
    }

    /// The values as a frame.
    ///
    /// # Panics
    /// If there are none, or 2 GiB of them or more.
    pub(super) fn encode(&mut self, values: &[f16]) -> io::Result<Vec<u8>> {
        let bytes = size_of_val(values);
        assert!(
            bytes > 0 && bytes < 1 << 31,
            "a Blosc frame holds from 1 byte to 2 GiB, not {bytes}"
        );
        let block_bytes = bytes.min(BLOCK_BYTES);
        let blocks = bytes.div_ceil(block_bytes);
        let mut frame = vec![0; HEADER_BYTES + 4 * blocks];
        self.compressed
            .resize(zstd::zstd_safe::compress_bound(block_bytes), 0);
        for (block, values) in values.chunks(block_bytes / 2).enumerate() {
            let start = frame.len();
            put_u32(&mut frame[HEADER_BYTES + 4 * block..], start);
            shuffle(values, &mut self.shuffled);
            let length = self
                .zstd
                .compress_to_buffer(&self.shuffled, &mut self.compressed[..])?;
            let stored = if length < self.shuffled.len() {
                &self.compressed[..length]
            } else {
                &self.shuffled[..]
            };
            frame.extend([0; 4]);
            put_u32(&mut frame[start..], stored.len());
            frame.extend(stored);
        }
        let length = frame.len();
        frame[..4].copy_from_slice(&BEGINNING);
        put_u32(&mut frame[4..], bytes);
        put_u32(&mut frame[8..], block_bytes);
        put_u32(&mut frame[12..], length);
        Ok(frame)
    }
}

/// A frame of so many values has at least this length, however much they are alike.
pub(super) const fn least_bytes(values: usize) -> usize {
    /// Where a block begins, its length, and a byte of it.
    const LEAST_BLOCK: usize = 4 + 4 + 1;
    HEADER_BYTES + (2 * values).div_ceil(BLOCK_BYTES) * LEAST_BLOCK
}

/// Writes a number that is known to fit: a frame is less than 4 GiB.
fn put_u32(to: &mut [u8], value: usize) {
    let value = u32::try_from(value).expect("less than 4 GiB");
    to[..4].copy_from_slice(&value.to_le_bytes());
}

/// All low bytes, then all high ones.
fn shuffle(values: &[f16], bytes: &mut Vec<u8>) {
    bytes.resize(2 * values.len(), 0);
    let (low, high) = bytes.split_at_mut(values.len());
    for ((value, low), high) in values.iter().zip(low).zip(high) {
        [*low, *high] = value.to_le_bytes();
    }
}

/// Takes chunks apart; keeps its buffers from one to the next.
pub(super) struct Decoder {
    zstd: Decompressor<'static>,
    shuffled: Vec<u8>,
}

impl Decoder {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            zstd: Decompressor::new()?,
            shuffled: Vec::new(),
        })
    }

    /// The values of a frame, which must be as many as there is room for; what is wrong with it otherwise.
    ///
    /// No more memory is taken than `values` has, whatever the frame says.
    pub(super) fn decode(&mut self, frame: &[u8], values: &mut [f16]) -> Result<(), String> {
        let bytes = size_of_val(values);
        if !frame.starts_with(&BEGINNING) {
            return Err("it is no Blosc frame of half floats, shuffled, with zstd".into());
        }
        let found = [4, 8, 12].map(|at| get_u32(frame, at).unwrap_or_default());
        let [described, block_bytes, length] = found;
        if described != bytes || length != frame.len() {
            return Err(format!(
                "its frame is {described} bytes in {length}, expected {bytes} in {}",
                frame.len()
            ));
        }
        if block_bytes == 0 || block_bytes % 2 != 0 || block_bytes > bytes {
            return Err(format!("its blocks are {block_bytes} bytes of {bytes}"));
        }
        self.shuffled.resize(block_bytes, 0);
        for (block, values) in values.chunks_mut(block_bytes / 2).enumerate() {
            let stored = stored_block(frame, block)
                .ok_or_else(|| format!("block {block} lies outside of its frame"))?;
            let shuffled = &mut self.shuffled[..2 * values.len()];
            if stored.len() == shuffled.len() {
                unshuffle(stored, values);
                continue;
            }
            match self.zstd.decompress_to_buffer(stored, shuffled) {
                Ok(length) if length == 2 * values.len() => unshuffle(shuffled, values),
                Ok(length) => {
                    let expected = 2 * values.len();
                    return Err(format!(
                        "block {block} is {length} bytes, expected {expected}"
                    ));
                }
                Err(error) => return Err(format!("block {block}: {error}")),
            }
        }
        Ok(())
    }
}

/// The stored bytes of a block.
fn stored_block(frame: &[u8], block: usize) -> Option<&[u8]> {
    let start = get_u32(frame, HEADER_BYTES + 4 * block)?;
    let length = get_u32(frame, start)?;
    frame.get(start + 4..)?.get(..length)
}

fn get_u32(bytes: &[u8], at: usize) -> Option<usize> {
    let bytes: [u8; 4] = bytes.get(at..)?.first_chunk().copied()?;
    usize::try_from(u32::from_le_bytes(bytes)).ok()
}

fn unshuffle(bytes: &[u8], values: &mut [f16]) {
    let (low, high) = bytes.split_at(values.len());
    for ((value, &low), &high) in values.iter_mut().zip(low).zip(high) {
        *value = f16::from_le_bytes([low, high]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A ramp with noise in its low bits, and a stretch of one value.
    fn values(count: usize) -> Vec<f16> {
        let mut state = 1_u32;
        (0..count)
            .map(|index| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let noise = if index % 7 < 5 {
                    (state >> 22) as f32
                } else {
                    0.0
                };
                f16::from_f32(index as f32 / count as f32 - 0.5 + noise * 1e-4)
            })
            .collect()
    }

    fn decoded(frame: &[u8], count: usize) -> Result<Vec<f16>, String> {
        let mut values = vec![f16::ZERO; count];
        Decoder::new()
            .expect("a decoder")
            .decode(frame, &mut values)
            .map(|()| values)
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        let mut encoder = Encoder::new().expect("an encoder");
        for count in [
            1,
            2,
            3,
            1000,
            BLOCK_BYTES / 2,
            BLOCK_BYTES / 2 + 1,
            3 * BLOCK_BYTES,
        ] {
            let values = values(count);
            let frame = encoder.encode(&values).expect("a frame");
            assert_eq!(decoded(&frame, count).as_ref(), Ok(&values), "{count}");
        }
        let same = vec![f16::NEG_ONE; BLOCK_BYTES];
        let frame = encoder.encode(&same).expect("a frame");
        assert!(frame.len() < 200, "{} bytes", frame.len());
        assert_eq!(decoded(&frame, same.len()), Ok(same));
    }

    #[test]
    fn bytes_that_zstd_cannot_shorten_are_kept() {
        let frame = Encoder::new()
            .unwrap()
            .encode(&[f16::ONE])
            .expect("a frame");
        let expected = [
            &BEGINNING[..],
            &[2, 0, 0, 0, 2, 0, 0, 0, 26, 0, 0, 0],
            &[20, 0, 0, 0, 2, 0, 0, 0, 0x00, 0x3c],
        ]
        .concat();
        assert_eq!(frame, expected);
    }

    #[test]
    fn a_damaged_frame_is_an_error_and_never_more() {
        let count = BLOCK_BYTES + 100;
        let values = values(count);
        let frame = Encoder::new().unwrap().encode(&values).expect("a frame");
        for length in (0..frame.len()).step_by(997) {
            assert!(decoded(&frame[..length], count).is_err(), "{length}");
        }
        assert!(decoded(&frame, count - 1).is_err());
        assert!(decoded(&frame, count + 1).is_err());
        // The checksum around a frame finds a changed byte; here it must only do no harm.
        for at in (0..200).chain((200..frame.len()).step_by(4999)) {
            for byte in [0x00, 0x7f, 0xff] {
                let mut frame = frame.clone();
                frame[at] = byte;
                let _ = decoded(&frame, count);
            }
        }
    }
}
