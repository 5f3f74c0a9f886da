//! How the process takes memory from the system, and gives it back. It concerns glibc, which by itself lets the memory
//! of a program that runs for days grow with everything that ever happened at the same time.

#[cfg(all(target_os = "linux", target_env = "gnu"))]
use std::time::Duration;

/// What is free in the heaps goes back to the system so often: within a minute of the last viewers' end, which is
/// noticed within 10 s. It takes a millisecond or a few, by how much that is.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const GIVE_BACK: Duration = Duration::from_secs(45);

/// Has all threads share two heaps, and gives back now and then what is free in them. By default glibc gives each
/// thread one of up to eight for each core, and each of them stays as large as what was ever needed in it at once:
/// viewers come and go, links break, pipelines are built anew, and each would leave a little. Called first in `main`.
pub fn tend_heaps() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // SAFETY: no pointers; it concerns heaps that are made later.
        unsafe { libc::mallopt(libc::M_ARENA_MAX, 2) };
        let tend = || loop {
            std::thread::sleep(GIVE_BACK);
            // SAFETY: no pointers; free memory alone is touched, under the heaps' own locks.
            unsafe { libc::malloc_trim(0) };
        };
        // It ends with the program. Where there is no thread to be had, memory stays where glibc leaves it.
        let _ = std::thread::Builder::new().name("heaps".to_owned()).stack_size(64 << 10).spawn(tend);
    }
}
