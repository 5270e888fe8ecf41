//! What happens to memory between operations: large buffers are kept and taken again, in huge pages.

use std::alloc::{GlobalAlloc, Layout, System};
use std::mem::MaybeUninit;

use rayon::prelude::*;

/// Tells the C library's allocator to keep freed memory for the next request instead of giving it back to the system.
///
/// By default each larger buffer is mapped and cleared anew, page by page. Programs call this once, at their start; it
/// changes how much memory a process holds, never what it computes. Does nothing where the allocator is another. Buffers of
/// megabytes are [`BufferPool`]'s.
pub fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        /// Largest request that is served from kept memory.
        const LARGEST_KEPT: libc::c_int = libc::c_int::MAX;
        // SAFETY: `mallopt` takes two integers, and both parameters exist in every version of glibc. It is called
        // before other threads allocate; glibc locks its arena in any case.
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, LARGEST_KEPT);
            libc::mallopt(libc::M_TRIM_THRESHOLD, LARGEST_KEPT);
        }
    }
}

/// `len` zeros. Large buffers are cleared on all threads: one alone would take as long as the arithmetic that fills them.
pub(crate) fn zeros(len: usize) -> Vec<f32> {
    /// Values that a thread clears at a time.
    const CHUNK: usize = 1 << 18;
    let mut values = Vec::with_capacity(len);
    values.spare_capacity_mut()[..len]
        .par_chunks_mut(CHUNK)
        .for_each(|chunk| {
            chunk.fill(MaybeUninit::new(0.0));
        });
    // SAFETY: the capacity is at least `len`, and the line above wrote each of the first `len` values.
    unsafe { values.set_len(len) };
    values
}

/// `len` values computed chunk by chunk on all threads: `work` gets its thread's state, the number of a chunk and the chunk,
/// which is zeros before.
///
/// A chunk is cleared when its turn comes, on its way to the cache anyway: a pass over memory less than [`zeros`] first.
pub(crate) fn fill_chunks<T>(
    len: usize,
    chunk: usize,
    init: impl Fn() -> T + Sync + Send,
    work: impl Fn(&mut T, usize, &mut [f32]) + Sync + Send,
) -> Vec<f32> {
    let mut values = Vec::with_capacity(len);
    values.spare_capacity_mut()[..len]
        .par_chunks_mut(chunk.max(1))
        .enumerate()
        .for_each_init(init, |state, (index, chunk)| {
            work(state, index, zeroed(chunk));
        });
    // SAFETY: the capacity is at least `len`, and each of the first `len` values lies in a chunk that was cleared: a panic in
    // one would have left this function.
    unsafe { values.set_len(len) };
    values
}

/// The values, made zeros.
pub(crate) fn zeroed(values: &mut [MaybeUninit<f32>]) -> &mut [f32] {
    values.fill(MaybeUninit::new(0.0));
    // SAFETY: the line above wrote every value.
    unsafe { values.assume_init_mut() }
}

/// The allocator of a program that works on volumes: requests of megabytes come from a pool of large blocks, all others
/// from the system, beginning with a cache line from 4 KB on.
///
/// A network asks for the same few large buffers at every pass. Fresh ones cost a page fault and a cleared page for each
/// 4 KB, and as many entries of the processor's page table as it has pages; a pool of blocks in huge pages (2 MB, where the
/// system grants them) costs neither. The pool holds little more than is needed: before it maps a new block, it gives
/// free ones back until all together are at most a quarter more than the most that was in use at once.
///
/// A vector of AVX-512 is a cache line long. In a buffer that begins within one, as the system's do, every load and every
/// store of a vector touches two.
///
/// ```
/// #[global_allocator]
/// static POOL: dcformer_kernels::BufferPool = dcformer_kernels::BufferPool::new();
/// ```
///
/// On systems other than Linux it is the system's allocator.
#[derive(Debug)]
pub struct BufferPool {
    #[cfg(target_os = "linux")]
    blocks: std::sync::Mutex<linux::Blocks>,
}

impl BufferPool {
    /// An empty pool.
    pub const fn new() -> Self {
        Self {
            #[cfg(target_os = "linux")]
            blocks: std::sync::Mutex::new(linux::Blocks::new()),
        }
    }

    #[cfg(target_os = "linux")]
    fn lock(&self) -> std::sync::MutexGuard<'_, linux::Blocks> {
        self.blocks
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Default for BufferPool {
    fn default() -> Self {
        Self::new()
    }
}

// SAFETY: small requests go to the system's allocator with their own layout or a stricter alignment. Large ones get a block of
// their own of at least their size, aligned to 2 MB, which no other request gets before it is given back; whether a request is
// large, and what the system is asked for, depend on its layout alone, so memory goes back where and as it came.
#[cfg(target_os = "linux")]
unsafe impl GlobalAlloc for BufferPool {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match linux::block_size(layout) {
            Some(size) => self.lock().take(size).start,
            // SAFETY: the caller's.
            None => unsafe { System.alloc(linux::aligned(layout)) },
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let Some(size) = linux::block_size(layout) else {
            // SAFETY: the caller's.
            return unsafe { System.alloc_zeroed(linux::aligned(layout)) };
        };
        let block = self.lock().take(size);
        if block.used && !block.start.is_null() {
            // SAFETY: the block is ours and has at least that many bytes.
            unsafe { block.start.write_bytes(0, layout.size()) };
        }
        block.start
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        match linux::block_size(layout) {
            Some(size) => self.lock().give(start, size),
            // SAFETY: the caller's, and the layout that was asked for is a function of this one.
            None => unsafe { System.dealloc(start, linux::aligned(layout)) },
        }
    }

    unsafe fn realloc(&self, start: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller promises that `new_size` is not zero and does not overflow when rounded up to the alignment.
        let new = unsafe { Layout::from_size_align_unchecked(new_size, layout.align()) };
        let (old_block, new_block) = (linux::block_size(layout), linux::block_size(new));
        let from_system = old_block.is_none() && new_block.is_none();
        if from_system && linux::aligned(layout).align() == linux::aligned(new).align() {
            // SAFETY: the caller's, and the layout that was asked for is a function of this one.
            return unsafe { System.realloc(start, linux::aligned(layout), new_size) };
        }
        if !from_system && old_block == new_block {
            return start;
        }
        // SAFETY: `start` holds `layout.size()` bytes and the new place `new_size`; they are different blocks.
        unsafe {
            let moved = self.alloc(new);
            if !moved.is_null() {
                moved.copy_from_nonoverlapping(start, layout.size().min(new_size));
                self.dealloc(start, layout);
            }
            moved
        }
    }
}

// SAFETY: all of it is the system's allocator.
#[cfg(not(target_os = "linux"))]
unsafe impl GlobalAlloc for BufferPool {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        // SAFETY: the caller's.
        unsafe { System.dealloc(start, layout) }
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::alloc::Layout;
    use std::ptr::null_mut;

    /// A huge page; blocks are whole numbers of them.
    const PAGE: usize = 2 << 20;
    /// Free blocks that are remembered.
    const PLACES: usize = 64;

    /// A cache line.
    const LINE: usize = 64;
    /// Requests from here on begin with a line.
    const ALIGNED_FROM: usize = 64 * LINE;

    /// What the system is asked for.
    pub(super) fn aligned(layout: Layout) -> Layout {
        if layout.size() < ALIGNED_FROM {
            return layout;
        }
        layout.align_to(LINE).unwrap_or(layout)
    }

    /// Size of the block for a request, if it is large enough for one.
    pub(super) fn block_size(layout: Layout) -> Option<usize> {
        (layout.size() >= PAGE && layout.align() <= PAGE)
            .then(|| layout.size().checked_next_multiple_of(PAGE))
            .flatten()
    }

    /// A block, and whether it may hold old values; a fresh one is all zeros.
    pub(super) struct Block {
        pub(super) start: *mut u8,
        pub(super) used: bool,
    }

    #[derive(Debug)]
    pub(super) struct Blocks {
        /// Start and size of the free ones, longest free first; no start, no block.
        free: [(*mut u8, usize); PLACES],
        free_bytes: usize,
        live_bytes: usize,
        peak_bytes: usize,
    }

    // SAFETY: the blocks are the pool's alone while they are free, whichever thread holds its lock.
    unsafe impl Send for Blocks {}

    impl Blocks {
        pub(super) const fn new() -> Self {
            Self {
                free: [(null_mut(), 0); PLACES],
                free_bytes: 0,
                live_bytes: 0,
                peak_bytes: 0,
            }
        }

        /// The most bytes that were in use at once.
        #[cfg(test)]
        pub(super) fn peak(&self) -> usize {
            self.peak_bytes
        }

        /// Bytes of all blocks, in use or free.
        #[cfg(test)]
        pub(super) fn held(&self) -> usize {
            self.live_bytes + self.free_bytes
        }

        /// A block of `size` bytes: the last freed one of that size, or a new one. Its start is null if there is no memory.
        pub(super) fn take(&mut self, size: usize) -> Block {
            let place = self.free.iter().rposition(|block| block.1 == size);
            self.live_bytes = self.live_bytes.saturating_add(size);
            if let Some(place) = place {
                self.peak_bytes = self.peak_bytes.max(self.live_bytes);
                return Block {
                    start: self.remove(place),
                    used: true,
                };
            }
            let most = self.peak_bytes.max(self.live_bytes);
            // A quarter more, because not every free block has the size that is asked for.
            let held = most.saturating_add(most / 4);
            while self.free_bytes > 0 && self.live_bytes.saturating_add(self.free_bytes) > held {
                self.unmap_oldest();
            }
            let start = map(size);
            if start.is_null() {
                self.live_bytes -= size;
            } else {
                self.peak_bytes = most;
            }
            Block { start, used: false }
        }

        pub(super) fn give(&mut self, start: *mut u8, size: usize) {
            self.live_bytes -= size;
            if !self.free[PLACES - 1].0.is_null() {
                self.unmap_oldest();
            }
            let place = self.free.iter().position(|block| block.0.is_null());
            self.free[place.unwrap_or(PLACES - 1)] = (start, size);
            self.free_bytes += size;
        }

        fn remove(&mut self, place: usize) -> *mut u8 {
            let (start, size) = self.free[place];
            self.free.copy_within(place + 1.., place);
            self.free[PLACES - 1] = (null_mut(), 0);
            self.free_bytes -= size;
            start
        }

        fn unmap_oldest(&mut self) {
            let size = self.free[0].1;
            let start = self.remove(0);
            // SAFETY: the block was mapped with this size and nobody uses it.
            unsafe { libc::munmap(start.cast(), size) };
        }
    }

    /// Fresh zeroed memory, aligned to a huge page; null if there is none.
    fn map(size: usize) -> *mut u8 {
        let Some(more) = size.checked_add(PAGE) else {
            return null_mut();
        };
        // SAFETY: an anonymous mapping touches nothing that exists; the ends that alignment leaves over are unmapped, and
        // the rest, `size` bytes, is the caller's.
        unsafe {
            let start = libc::mmap(
                null_mut(),
                more,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            );
            if start == libc::MAP_FAILED {
                return null_mut();
            }
            let start = start.cast::<u8>();
            let before = start.align_offset(PAGE);
            let aligned = start.add(before);
            if before > 0 {
                libc::munmap(start.cast(), before);
            }
            if before < PAGE {
                libc::munmap(aligned.add(size).cast(), PAGE - before);
            }
            // A wish; where huge pages are switched off, it is refused and nothing else changes.
            libc::madvise(aligned.cast(), size, libc::MADV_HUGEPAGE);
            aligned
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: usize = 1 << 20;

    fn layout(bytes: usize) -> Layout {
        Layout::from_size_align(bytes, 16).expect("a layout")
    }

    #[test]
    fn a_freed_block_is_taken_again_and_zeroed_on_request() {
        let pool = BufferPool::new();
        // SAFETY: blocks are written inside their size and given back once, with their layout.
        unsafe {
            let first = pool.alloc(layout(5 * MB));
            first.write_bytes(7, 5 * MB);
            pool.dealloc(first, layout(5 * MB));
            let second = pool.alloc_zeroed(layout(5 * MB - 100));
            assert!(
                std::slice::from_raw_parts(second, 5 * MB - 100)
                    .iter()
                    .all(|b| *b == 0)
            );
            #[cfg(target_os = "linux")]
            assert_eq!(first, second);
            pool.dealloc(second, layout(5 * MB - 100));
        }
    }

    #[test]
    fn growing_and_shrinking_keeps_the_content() {
        let pool = BufferPool::new();
        // SAFETY: as above; a block is not used after it was moved.
        unsafe {
            let mut bytes = pool.alloc(layout(1000));
            bytes.write_bytes(3, 1000);
            let mut size = 1000;
            for new in [3 * MB, 3 * MB + 5, 9 * MB, 2 * MB, 700] {
                bytes = pool.realloc(bytes, layout(size), new);
                size = new;
                assert!(
                    std::slice::from_raw_parts(bytes, 700)
                        .iter()
                        .all(|b| *b == 3)
                );
            }
            pool.dealloc(bytes, layout(size));
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn it_holds_little_more_than_was_in_use_at_once() {
        let pool = BufferPool::new();
        // SAFETY: every block is given back once, with its layout.
        unsafe {
            for size in 2..40 {
                let block = pool.alloc(layout(2 * size * MB));
                pool.dealloc(block, layout(2 * size * MB));
            }
        }
        assert_eq!(pool.lock().peak(), 78 * MB);
        assert!(pool.lock().held() <= 78 * MB / 4 * 5);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn an_impossible_request_is_refused() {
        let pool = BufferPool::new();
        // SAFETY: nothing is touched.
        assert!(unsafe { pool.alloc(layout(isize::MAX as usize - 64)) }.is_null());
        assert_eq!(pool.lock().held(), 0);
    }
}
