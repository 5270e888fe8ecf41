//! The bytes of a file, decompressed if they are compressed.

use std::io::{self, BufRead, Read};

use flate2::bufread::GzDecoder;

/// DEFLATE's best ratio: two bits stand for 258 bytes. A stream cannot hold more than this times its length.
const LARGEST_INFLATION: u64 = 1032;

/// First byte of a gzip member; the second is 0x8b.
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// Bytes of a plain or gzip stream, recognised by its first bytes; gzip members follow each other without a seam.
///
/// flate2's own decoder of several members cannot tell rubbish after the last member from a broken checksum, and it
/// must be told beforehand that the stream is compressed.
#[derive(Debug)]
pub(super) struct ByteStream<R> {
    source: Source<R>,
    /// Length of the stream as stored.
    stored_len: u64,
    /// Bytes delivered so far.
    position: u64,
}

#[derive(Debug)]
enum Source<R> {
    Plain(R),
    Gzip(Box<GzDecoder<R>>),
    /// After the last gzip member; whether bytes follow that are no gzip member.
    Ended {
        rubbish: bool,
    },
}

impl<R: BufRead> ByteStream<R> {
    /// Looks at the first bytes of `reader`, of which `stored_len` are to come.
    pub(super) fn new(mut reader: R, stored_len: u64) -> io::Result<Self> {
        let source = if reader.fill_buf()?.starts_with(&GZIP_MAGIC) {
            Source::Gzip(Box::new(GzDecoder::new(reader)))
        } else {
            Source::Plain(reader)
        };
        Ok(Self {
            source,
            stored_len,
            position: 0,
        })
    }

    /// Bytes delivered so far.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// Length of the stream as stored, before decompression.
    pub(super) fn stored_len(&self) -> u64 {
        self.stored_len
    }

    /// Whether the stream is compressed.
    pub(super) fn is_compressed(&self) -> bool {
        !matches!(self.source, Source::Plain(_))
    }

    /// Whether the last gzip member is followed by something else. Known once the stream has ended.
    pub(super) fn ends_in_rubbish(&self) -> bool {
        matches!(self.source, Source::Ended { rubbish: true })
    }

    /// More bytes than this the stream cannot have, whatever a header claims.
    pub(super) fn most_bytes(&self) -> u64 {
        if self.is_compressed() {
            self.stored_len.saturating_mul(LARGEST_INFLATION)
        } else {
            self.stored_len
        }
    }

    /// Fills `buffer` as far as the stream goes; how far that was.
    pub(super) fn read_up_to(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }
}

impl<R: BufRead> Read for ByteStream<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            let count = match &mut self.source {
                Source::Plain(reader) => reader.read(buffer)?,
                Source::Gzip(member) => member.read(buffer)?,
                Source::Ended { .. } => 0,
            };
            self.position += count as u64;
            if count > 0 || !matches!(self.source, Source::Gzip(_)) {
                return Ok(count);
            }
            self.next_member()?;
        }
    }
}

impl<R: BufRead> ByteStream<R> {
    /// Goes on to the gzip member after the one that has just ended, its checksum verified.
    fn next_member(&mut self) -> io::Result<()> {
        let ended = Source::Ended { rubbish: false };
        if let Source::Gzip(member) = std::mem::replace(&mut self.source, ended) {
            let mut reader = member.into_inner();
            // One byte decides, since the buffer may end after it.
            let next = reader.fill_buf()?.first().copied();
            self.source = match next {
                Some(byte) if byte == GZIP_MAGIC[0] => {
                    Source::Gzip(Box::new(GzDecoder::new(reader)))
                }
                other => Source::Ended {
                    rubbish: other.is_some(),
                },
            };
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufReader, Write};

    use flate2::{Compression, write::GzEncoder};

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn read_all(stored: &[u8]) -> io::Result<(Vec<u8>, bool)> {
        // A buffer of two bytes, so that members begin at its end as well as at its start.
        let reader = BufReader::with_capacity(2, stored);
        let mut stream = ByteStream::new(reader, stored.len() as u64)?;
        let mut bytes = vec![0; 1000];
        let count = stream.read_up_to(&mut bytes)?;
        bytes.truncate(count);
        assert_eq!(stream.position(), count as u64);
        Ok((bytes, stream.ends_in_rubbish()))
    }

    #[test]
    fn members_follow_each_other_and_rubbish_is_told_apart() {
        let two = [gzip(b"first "), gzip(b""), gzip(b"second")].concat();
        assert_eq!(read_all(&two).unwrap(), (b"first second".to_vec(), false));
        let padded = [two.clone(), vec![0; 5]].concat();
        assert_eq!(read_all(&padded).unwrap(), (b"first second".to_vec(), true));
        assert_eq!(read_all(b"plain").unwrap(), (b"plain".to_vec(), false));
    }

    #[test]
    fn a_wrong_checksum_and_a_missing_end_are_errors() {
        let whole = gzip(b"some bytes");
        let mut wrong = whole.clone();
        let checksum = whole.len() - 8;
        wrong[checksum] ^= 1;
        assert!(read_all(&wrong).is_err());
        for len in 3..whole.len() {
            assert!(read_all(&whole[..len]).is_err(), "cut to {len} bytes");
        }
    }
}
