//! How the process takes memory from the system.

/// Has all threads share two heaps. By default glibc gives each thread one of up to eight for each core, and each of them stays
/// as large as what was ever needed in it at once: with threads that come and go with the viewers, memory would grow for hours.
/// Called first in `main`.
pub fn share_heaps() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: no pointers; it concerns heaps that are made later.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 2);
    }
}
