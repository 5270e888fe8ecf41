//! What happens to memory between steps.

/// Tells the C library's allocator to keep freed memory for the next request instead of giving it back to the system.
///
/// A training step allocates the same large buffers as the one before. By default each is mapped and cleared anew, page
/// by page, and that takes as long as a third of the arithmetic. Programs call this once, at their start; it changes how
/// much memory a process holds, never what it computes. Does nothing where the allocator is another.
pub fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        /// Largest request that is served from kept memory; beyond it is one volume's features at any size we train.
        const LARGEST_KEPT: libc::c_int = libc::c_int::MAX;
        // SAFETY: `mallopt` takes two integers, and both parameters exist in every version of glibc. It is called
        // before other threads allocate; glibc locks its arena in any case.
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, LARGEST_KEPT);
            libc::mallopt(libc::M_TRIM_THRESHOLD, LARGEST_KEPT);
        }
    }
}
