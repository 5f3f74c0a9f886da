//! A mailbox of depth one, where the newest wins: between the decoder's thread and the window.
//!
//! A window that falls behind must lose pictures, never collect them: each one kept would be a frame of delay for ever.
//! Only where pictures are chosen by their times is it deeper, for a reader that empties it each time.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Rung by each of several mailboxes when it is filled, for a reader of all of them.
#[derive(Debug, Default)]
pub struct Bell {
    /// It rang since somebody waited for it.
    rung: Mutex<bool>,
    changed: Condvar,
}

impl Bell {
    fn ring(&self) {
        *self.rung.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_one();
    }

    /// Waits until it rings, at most so long; at once where it rang since the last call.
    pub fn wait(&self, limit: Duration) {
        let rung = self.rung.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(rung, limit, |rung| !*rung);
        *waited.unwrap_or_else(PoisonError::into_inner).0 = false;
    }
}

/// Holds at most one value, unless it is made deeper; a newer one takes the place of the oldest.
#[derive(Debug)]
pub struct Mailbox<T> {
    slot: Mutex<Slot<T>>,
    bell: Arc<Bell>,
}

#[derive(Debug)]
struct Slot<T> {
    values: VecDeque<T>,
    depth: usize,
    replaced: u64,
    cleared: u64,
}

impl<T> Default for Mailbox<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Mailbox<T> {
    pub fn new() -> Self {
        Self::with(Arc::default())
    }

    /// One that rings `bell`.
    pub fn with(bell: Arc<Bell>) -> Self {
        let slot = Slot { values: VecDeque::with_capacity(1), depth: 1, replaced: 0, cleared: 0 };
        Self { slot: Mutex::new(slot), bell }
    }

    /// Leaves `value` for the reader. One that was not taken yet is dropped and counted. Never blocks for longer than
    /// the other side needs to move a value.
    pub fn put(&self, value: T) {
        self.put_if(value, || true);
    }

    /// The same where `is_wanted` when nobody else can put or take: what one who then calls [`Self::take`] has set
    /// before is seen, so that nothing comes after it.
    pub fn put_if(&self, value: T, is_wanted: impl FnOnce() -> bool) {
        let old = {
            let mut slot = self.lock();
            if !is_wanted() {
                return;
            }
            let old = if slot.values.len() >= slot.depth { slot.values.pop_front() } else { None };
            slot.values.push_back(value);
            slot.replaced += u64::from(old.is_some());
            old
        };
        self.bell.ring();
        // Outside the lock: dropping a picture may give a buffer back to GStreamer's pool.
        drop(old);
    }

    /// What is there now; of several values the oldest.
    pub fn take(&self) -> Option<T> {
        self.lock().values.pop_front()
    }

    /// Nothing that was put before is taken any more.
    pub fn clear(&self) {
        let mut slot = self.lock();
        slot.cleared += 1;
        let values = std::mem::take(&mut slot.values);
        drop(slot);
        drop(values);
    }

    /// How often it was cleared.
    pub fn cleared(&self) -> u64 {
        self.lock().cleared
    }

    /// Holds so many values from now on, at least one; of more the newest.
    pub fn set_depth(&self, depth: usize) {
        let mut slot = self.lock();
        slot.depth = depth.max(1);
        let more = slot.values.len().saturating_sub(slot.depth);
        let old: Vec<T> = slot.values.drain(..more).collect();
        slot.replaced += old.len() as u64;
        drop(slot);
        drop(old);
    }

    /// What is there now, or comes within `timeout`. For the one reader of a bell that no other mailbox rings.
    pub fn wait(&self, timeout: Duration) -> Option<T> {
        let end = Instant::now() + timeout;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if let Some(value) = self.take() {
                return Some(value);
            }
            if left.is_zero() {
                return None;
            }
            self.bell.wait(left);
        }
    }

    pub fn is_filled(&self) -> bool {
        !self.lock().values.is_empty()
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
    fn a_deeper_one_keeps_the_newest_in_their_order_until_it_is_cleared() {
        let mailbox = Mailbox::new();
        mailbox.set_depth(3);
        (1..=5).for_each(|value| mailbox.put(value));
        assert_eq!((mailbox.take(), mailbox.replaced()), (Some(3), 2));
        mailbox.put(6);
        mailbox.set_depth(1);
        assert_eq!((mailbox.take(), mailbox.take(), mailbox.replaced()), (Some(6), None, 4));
        mailbox.put(7);
        mailbox.clear();
        assert_eq!((mailbox.take(), mailbox.cleared(), mailbox.replaced()), (None, 1, 4));
    }

    #[test]
    fn what_is_not_wanted_replaces_nothing() {
        let mailbox = Mailbox::new();
        mailbox.put(1);
        mailbox.put_if(2, || false);
        assert_eq!((mailbox.take(), mailbox.replaced()), (Some(1), 0));
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
    fn whoever_waits_for_a_bell_hears_each_of_its_mailboxes() {
        let bell = Arc::new(Bell::default());
        let mailboxes = [(); 2].map(|()| Mailbox::with(Arc::clone(&bell)));
        for mailbox in &mailboxes {
            mailbox.put(7);
            bell.wait(Duration::from_secs(600));
            assert_eq!(mailbox.take(), Some(7));
        }
    }

    #[test]
    fn waiting_for_nothing_ends_at_the_timeout() {
        let mailbox = Mailbox::<u8>::new();
        let start = Instant::now();
        assert_eq!(mailbox.wait(Duration::from_millis(20)), None);
        assert!(start.elapsed() >= Duration::from_millis(20));
    }
}
