//! How many arenas the C library's allocator divides memory into.
//!
//! glibc gives each thread an arena of its own until there are eight for each processor, and what is freed in one is of no use to another
//! (mallopt(3), M_ARENA_MAX). Helpers allocate what the loops free, so every arena keeps half a megabyte of holes: with 32 helpers
//! a server with a cache of 8 MB had 19 to 21 MB resident, and has 16 with 4 arenas. Where memory is scarce the page cache pays for
//! that: one read more in twenty.

/// Lets threads share `count` arenas from now on. To be called before the first thread is started: the limit is read once. Each thread
/// takes a new arena until there are that many, so those that must not wait for another's allocations start first.
/// Elsewhere than with glibc it does nothing.
pub fn limit_arenas(count: usize) {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: mallopt takes two numbers, and may be called at any time.
    unsafe {
        // It refuses nothing but parameters that it does not know.
        libc::mallopt(libc::M_ARENA_MAX, libc::c_int::try_from(count).unwrap_or(libc::c_int::MAX));
    }
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    let _ = count;
}
