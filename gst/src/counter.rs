//! Numbers and times of what passes a point, for other threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer::prelude::*;

/// A moment that one thread sets and others read.
#[derive(Debug)]
pub struct Moment {
    /// Microseconds after `epoch`, plus one; 0: not set.
    us: AtomicU64,
    epoch: Instant,
}

impl Moment {
    pub fn new(epoch: Instant) -> Self {
        Self { us: AtomicU64::new(0), epoch }
    }

    pub fn set(&self, at: Instant) {
        let us = at.saturating_duration_since(self.epoch).as_micros();
        self.us.store(u64::try_from(us).unwrap_or(u64::MAX - 1) + 1, Ordering::Relaxed);
    }

    pub fn get(&self) -> Option<Instant> {
        let us = self.us.load(Ordering::Relaxed).checked_sub(1)?;
        Some(self.epoch + Duration::from_micros(us))
    }
}

/// Number and time of what passes a point.
#[derive(Debug)]
pub struct Counter {
    count: AtomicU64,
    first: Moment,
    last: Moment,
}

impl Counter {
    pub fn new(epoch: Instant) -> Self {
        Self { count: AtomicU64::new(0), first: Moment::new(epoch), last: Moment::new(epoch) }
    }

    pub fn add(&self) {
        let now = Instant::now();
        if self.count.fetch_add(1, Ordering::Relaxed) == 0 {
            self.first.set(now);
        }
        self.last.set(now);
    }

    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    pub fn first(&self) -> Option<Instant> {
        self.first.get()
    }

    pub fn last(&self) -> Option<Instant> {
        self.last.get()
    }
}

/// Counts the buffers that pass `pad`.
pub fn count(pad: &gst::Pad, counter: &Arc<Counter>) {
    let counter = counter.clone();
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
        counter.add();
        gst::PadProbeReturn::Ok
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_read_back() {
        let epoch = Instant::now();
        let moment = Moment::new(epoch);
        assert_eq!(moment.get(), None);
        moment.set(epoch);
        assert_eq!(moment.get(), Some(epoch));
        moment.set(epoch + Duration::from_secs(3));
        assert_eq!(moment.get(), Some(epoch + Duration::from_secs(3)));
    }
}
