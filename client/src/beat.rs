//! Whether the window's thread still comes around. It hangs where a graphics driver does, and can then say nothing
//! itself: what is on the screen stays, and looks live. Another thread looks.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Without a beat for so long it hangs.
const HANGS_AFTER: Duration = Duration::from_secs(2);
/// What counts between two looks: whoever looks may have stood still, too, with the whole process.
const MOST_BETWEEN: Duration = Duration::from_millis(1_100);

/// Of the thread that shows the pictures.
#[derive(Debug, Default)]
pub struct Beat(AtomicU64);

impl Beat {
    /// It has come around.
    pub fn beat(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// It ends: nothing is to be expected of it.
    pub fn end(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Of whoever looks, again and again. Pure.
#[derive(Debug, Default)]
pub struct BeatWatch {
    count: u64,
    looked: Option<Instant>,
    still: Duration,
}

/// What has become another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Hangs,
    /// After so long.
    GoesOn(Duration),
}

impl BeatWatch {
    pub fn look(&mut self, count: u64, now: Instant) -> Option<Change> {
        let (before, is_same) = (self.still, count == std::mem::replace(&mut self.count, count));
        let passed = self.looked.replace(now).map_or(Duration::ZERO, |looked| now.saturating_duration_since(looked));
        // It has not begun, or has ended.
        let is_expected = count > 0;
        self.still = if is_same && is_expected { before + passed.min(MOST_BETWEEN) } else { Duration::ZERO };
        match (before >= HANGS_AFTER, self.still >= HANGS_AFTER) {
            (false, true) => Some(Change::Hangs),
            (true, false) => Some(Change::GoesOn(before)),
            _ => None,
        }
    }

    /// For how long it has hung; none: it does not.
    pub fn hangs(&self) -> Option<Duration> {
        Some(self.still).filter(|still| *still >= HANGS_AFTER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_does_not_come_around_hangs_after_two_seconds() {
        let (beat, mut watch, start) = (Beat::default(), BeatWatch::default(), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        assert_eq!((watch.look(beat.count(), at(0)), watch.look(beat.count(), at(9_000))), (None, None), "not begun");
        let mut look = |beats: u64, ms| {
            (0..beats).for_each(|_| beat.beat());
            (watch.look(beat.count(), at(ms)), watch.hangs().map(|hangs| hangs.as_millis()))
        };
        assert_eq!(look(20, 10_000), (None, None));
        assert_eq!(look(0, 11_000), (None, None));
        assert_eq!(look(0, 12_000), (Some(Change::Hangs), Some(2_000)));
        assert_eq!(look(0, 13_000), (None, Some(3_000)));
        assert_eq!(look(1, 14_000), (Some(Change::GoesOn(Duration::from_secs(3))), None));
        // The whole process stood still: the one that looks comes first.
        assert_eq!(look(0, 60_000), (None, None));
        assert_eq!(look(0, 60_001), (None, None));
        assert_eq!(look(9, 61_000), (None, None));
        beat.end();
        let mut look = |ms| watch.look(beat.count(), at(ms));
        assert_eq!([look(62_000), look(64_000), look(66_000)], [None; 3], "it has ended");
    }
}
