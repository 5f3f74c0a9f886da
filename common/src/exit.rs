//! How a program ends: its exit codes, and an end that no library can disturb.

use std::io::Write;

pub const SUCCESS: u8 = 0;
pub const FAILURE: u8 = 1;
/// Wrong options or configuration, or a port that is taken.
pub const USAGE: u8 = 2;

/// Ends the process at once, without the clean-up of the C libraries that `exit` would run. That clean-up must not run
/// while another thread loads a plug-in, as GStreamer does for its first pipeline: glibc would initialise libraries a
/// second time that have been taken down, and GLib then aborts. Last lines of a log are the caller's to write before.
pub fn end(code: u8) -> ! {
    // Nobody may be there to read it.
    let _ = std::io::stdout().flush();
    // SAFETY: no pointers; nothing runs after it.
    #[cfg(unix)]
    unsafe {
        libc::_exit(code.into())
    }
    #[cfg(not(unix))]
    std::process::exit(code.into())
}
