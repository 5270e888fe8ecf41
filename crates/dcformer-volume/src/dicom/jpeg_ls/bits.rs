//! The entropy-coded bits of a scan.
#![warn(clippy::indexing_slicing)]

/// Bits, most significant first. After a byte FF the next one carries seven (A.1).
pub(super) struct Bits<'a> {
    bytes: std::slice::Iter<'a, u8>,
    /// The next bits, from the top.
    cache: u64,
    /// How many of them there are.
    filled: u32,
    after_ff: bool,
}

impl<'a> Bits<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes: bytes.iter(),
            cache: 0,
            filled: 0,
            after_ff: false,
        }
    }

    fn fill(&mut self) {
        while self.filled <= 56 {
            let Some(&byte) = self.bytes.as_slice().first() else {
                return;
            };
            // A set first bit after FF is a marker: the scan is over.
            if self.after_ff && byte & 0x80 != 0 {
                self.bytes = [].iter();
                return;
            }
            self.bytes.next();
            let width = if self.after_ff { 7 } else { 8 };
            self.cache |= u64::from(byte) << (64 - width - self.filled);
            self.filled += width;
            self.after_ff = byte == 0xFF;
        }
    }

    fn consume(&mut self, count: u32) {
        self.cache = self.cache.checked_shl(count).unwrap_or(0);
        self.filled -= count;
    }

    /// The next `count` bits, at most 32, or `None` if there are fewer.
    pub(super) fn take(&mut self, count: u32) -> Option<u32> {
        if count == 0 {
            return Some(0);
        }
        if self.filled < count {
            self.fill();
        }
        if self.filled < count {
            return None;
        }
        let value = self.cache >> (64 - count);
        self.consume(count);
        u32::try_from(value).ok()
    }

    /// Number of zeros before the next one, which is consumed too; `None` beyond `limit` or the end.
    pub(super) fn zeros(&mut self, limit: u32) -> Option<u32> {
        let mut zeros = 0;
        loop {
            if self.filled == 0 {
                self.fill();
            }
            let run = self.cache.leading_zeros().min(self.filled);
            zeros += run;
            if zeros > limit || self.filled == 0 {
                return None;
            }
            if run < self.filled {
                self.consume(run + 1);
                return Some(zeros);
            }
            self.consume(run);
        }
    }
}
