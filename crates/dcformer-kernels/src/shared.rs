//! Values that several threads use at once, each other parts.

use std::marker::PhantomData;
use std::ops::Range;

/// A borrowed slice of which threads write parts while others read or write other parts, where a division made in advance
/// would not do: what is read at one time is written at another.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SharedSlice<'a, T = f32> {
    start: *mut T,
    len: usize,
    borrowed: PhantomData<&'a mut [T]>,
}

// SAFETY: it gives access to values that its creator borrowed exclusively, and values may be sent and shared; that parts do
// not overlap is what its methods ask of their callers.
unsafe impl<T: Send> Send for SharedSlice<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync> Sync for SharedSlice<'_, T> {}

impl<'a, T> SharedSlice<'a, T> {
    pub(crate) fn new(values: &'a mut [T]) -> Self {
        Self {
            start: values.as_mut_ptr(),
            len: values.len(),
            borrowed: PhantomData,
        }
    }

    /// Where the value at `index` lies, whether there is one or not.
    pub(crate) fn address(self, index: usize) -> *const T {
        self.start.wrapping_add(index)
    }

    /// All values.
    ///
    /// # Safety
    /// While the result is used, nobody writes any of them, and what was written before happened before.
    pub(crate) unsafe fn all(self) -> &'a [T] {
        // SAFETY: the pointer and the length are those of a slice that is borrowed for `'a`; see above.
        unsafe { std::slice::from_raw_parts(self.start, self.len) }
    }

    /// Some values, to write.
    ///
    /// # Safety
    /// While the result is used, nobody else reads or writes any of them, and what was written before happened before.
    ///
    /// # Panics
    /// If they are not inside.
    pub(crate) unsafe fn part(self, range: Range<usize>) -> &'a mut [T] {
        assert!(range.start <= range.end && range.end <= self.len);
        // SAFETY: the part is inside a slice that is borrowed exclusively for `'a`; see above.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.len()) }
    }
}
