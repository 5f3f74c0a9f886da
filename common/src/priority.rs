//! Work that is not to take the processor from the pictures.

/// How much later the calling thread gets the processor than others: of 19.
#[cfg(target_os = "linux")]
const NICENESS: libc::c_int = 10;

/// Has the calling thread, on Linux, come behind all others of this process.
pub fn lower() {
    #[cfg(target_os = "linux")]
    {
        // Where it fails, the thread stays as it is.
        // SAFETY: no pointers. 0 is the calling thread there, see setpriority(2).
        unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICENESS) };
    }
}
