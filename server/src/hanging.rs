//! Work in drivers that may never come back: on a thread of its own, with a limit, and not tried again while it hangs.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::Duration;

/// The pipelines, and the branches of one, of one owner that are being started or stopped now, by their texts; and
/// other work with its devices.
///
/// A driver that never comes back keeps a thread and a pipeline for ever. One is bearable, one for each try is not.
#[derive(Clone, Debug, Default)]
pub struct Hanging(Arc<Mutex<Vec<Weak<String>>>>);

/// Why one that hangs is not started once more.
pub const STILL_HANGS: &str =
    "the former attempt still hangs in the driver; if it stays so, unplug the device or restart the machine";

impl Hanging {
    /// How many there are; one that hangs stays among them.
    #[cfg(test)]
    pub fn count(&self) -> usize {
        self.lock().len()
    }

    /// Whether one of this text is still being started or stopped.
    pub fn holds(&self, text: &str) -> bool {
        self.lock().iter().filter_map(Weak::upgrade).any(|other| *other == text)
    }

    /// Whether anything hangs, or is at work.
    pub fn any(&self) -> bool {
        !self.lock().is_empty()
    }

    /// As [`Self::within`]; while a former attempt of this text hangs, there is no other one.
    pub fn attempt<T: Send + 'static>(
        &self,
        text: &str,
        limit: Duration,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, String> {
        if self.holds(text) {
            return Err(STILL_HANGS.to_owned());
        }
        self.within(text, limit, work).ok_or_else(|| format!("{text} took longer than {} s", limit.as_secs_f64()))
    }

    /// Does this on a thread of its own, as it may hang in a driver, and waits for it, `limit` at most: then it is left
    /// to itself, and counts until it is done.
    pub fn within<T: Send + 'static>(
        &self,
        text: &str,
        limit: Duration,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let text = Arc::new(text.to_owned());
        self.lock().push(Arc::downgrade(&text));
        let (done, result) = mpsc::channel();
        let thread = thread::spawn(move || {
            let outcome = work();
            drop(text);
            // Fails only when nobody waits for it any more.
            let _ = done.send(outcome);
        });
        match result.recv_timeout(limit) {
            Ok(outcome) => Some(outcome),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => match thread.join() {
                Err(panic) => std::panic::resume_unwind(panic),
                Ok(()) => None,
            },
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Weak<String>>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|work| work.strong_count() > 0);
        all
    }
}
