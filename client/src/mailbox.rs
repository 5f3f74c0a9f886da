//! A mailbox of depth one, where the newest wins: between the decoder's thread and the window.
//!
//! A window that falls behind must lose pictures, never collect them: each one kept would be a frame of delay for ever.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Holds at most one value; a newer one takes its place.
#[derive(Debug)]
pub struct Mailbox<T> {
    slot: Mutex<Slot<T>>,
    filled: Condvar,
}

#[derive(Debug)]
struct Slot<T> {
    value: Option<T>,
    replaced: u64,
}

impl<T> Default for Mailbox<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Mailbox<T> {
    pub const fn new() -> Self {
        Self { slot: Mutex::new(Slot { value: None, replaced: 0 }), filled: Condvar::new() }
    }

    /// Leaves `value` for the reader. One that was not taken yet is dropped and counted. Never blocks for longer than
    /// the other side needs to move a value.
    pub fn put(&self, value: T) {
        let old = {
            let mut slot = self.lock();
            let old = slot.value.replace(value);
            slot.replaced += u64::from(old.is_some());
            old
        };
        self.filled.notify_one();
        // Outside the lock: dropping a picture may give a buffer back to GStreamer's pool.
        drop(old);
    }

    /// What is there now.
    pub fn take(&self) -> Option<T> {
        self.lock().value.take()
    }

    /// What is there now, or comes within `timeout`.
    pub fn wait(&self, timeout: Duration) -> Option<T> {
        let end = Instant::now() + timeout;
        let mut slot = self.lock();
        loop {
            if let Some(value) = slot.value.take() {
                return Some(value);
            }
            let left = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
            slot = self.filled.wait_timeout(slot, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// How many values were replaced by a newer one before anybody took them.
    pub fn replaced(&self) -> u64 {
        self.lock().replaced
    }

    /// A panic elsewhere cannot leave the slot half written, so its poison is of no interest here.
    fn lock(&self) -> MutexGuard<'_, Slot<T>> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn the_newest_wins_and_the_replaced_are_counted() {
        let mailbox = Mailbox::new();
        assert_eq!(mailbox.take(), None);
        mailbox.put(1);
        mailbox.put(2);
        mailbox.put(3);
        assert_eq!(mailbox.take(), Some(3));
        assert_eq!(mailbox.take(), None);
        assert_eq!(mailbox.replaced(), 2);
    }

    #[test]
    fn waiting_ends_when_a_value_comes() {
        let mailbox = Arc::new(Mailbox::new());
        let writer = {
            let mailbox = Arc::clone(&mailbox);
            std::thread::spawn(move || mailbox.put(7))
        };
        assert_eq!(mailbox.wait(Duration::from_secs(10)), Some(7));
        writer.join().unwrap();
    }

    #[test]
    fn waiting_for_nothing_ends_at_the_timeout() {
        let mailbox = Mailbox::<u8>::new();
        let start = Instant::now();
        assert_eq!(mailbox.wait(Duration::from_millis(20)), None);
        assert!(start.elapsed() >= Duration::from_millis(20));
    }
}
