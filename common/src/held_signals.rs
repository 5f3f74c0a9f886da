//! Signals that end a program, kept back until it can end in order: one that comes in its first milliseconds would end
//! it without a word otherwise.

use std::marker::PhantomData;

/// While there is one, the calling thread, and those that it starts, get neither SIGTERM nor SIGINT. They wait.
#[must_use]
#[derive(Debug)]
pub struct HeldSignals {
    /// It is let go by the thread that made it.
    _of_thread: PhantomData<*const ()>,
}

impl HeldSignals {
    /// To be called before there are other threads.
    pub fn hold() -> Self {
        #[cfg(unix)]
        mask(libc::SIG_BLOCK);
        Self { _of_thread: PhantomData }
    }
}

impl Drop for HeldSignals {
    /// What came meanwhile comes now, to this thread.
    fn drop(&mut self) {
        #[cfg(unix)]
        mask(libc::SIG_UNBLOCK);
    }
}

/// Where it fails, the thread stays as it is.
#[cfg(unix)]
fn mask(how: libc::c_int) {
    // SAFETY: plain numbers, and a place for them that outlasts the calls.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGTERM);
        libc::sigaddset(&raw mut set, libc::SIGINT);
        libc::pthread_sigmask(how, &raw const set, std::ptr::null_mut());
    }
}
