//! Ctrl+C and SIGTERM: the run is to end in order.

use std::sync::atomic::{AtomicBool, Ordering};

static WANTED: AtomicBool = AtomicBool::new(false);

/// From now on signals are noted instead of ending the process.
pub fn on_signals() {
    extern "C" fn stop(_: libc::c_int) {
        WANTED.store(true, Ordering::Relaxed);
    }
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: the handler only stores to an atomic.
        unsafe { libc::signal(signal, stop as extern "C" fn(libc::c_int) as libc::sighandler_t) };
    }
}

pub fn is_wanted() -> bool {
    WANTED.load(Ordering::Relaxed)
}
