//! Whether video by TCP grows old on its way: a link slower than the stream loses nothing, and what waits in front of it gets
//! more and more. Pure; takes the arrival times.
//!
//! Packets are compared with the quickest of their session, by the sender's own clock.

use std::time::{Duration, Instant};

/// Older than this at the arrival, compared with the quickest packet, is no live video.
const OLD: Duration = Duration::from_secs(2);
/// What was held up once catches up sooner than this.
const LASTING: Duration = Duration::from_secs(3);
/// Clocks drift, and the timestamps of some cameras run a little slow: so many seconds of each are not taken for a delay.
const DRIFT: f64 = 0.005;
const CLOCK_RATE: f64 = 90_000.0;
/// A timestamp that goes back by more than this belongs to another timeline: by TCP nothing is overtaken.
const BACK: i32 = -90_000;

/// The measure of one session.
#[derive(Debug, Default)]
pub struct Backlog {
    last: Option<(u32, Instant)>,
    /// Seconds by which the packet came later than the quickest.
    late: f64,
    since: Option<Instant>,
}

impl Backlog {
    /// A packet came, with this RTP timestamp (90 kHz): by how much its picture is too old, if that has lasted.
    pub fn arrived(&mut self, timestamp: u32, at: Instant) -> Option<Duration> {
        if let Some((before, then)) = self.last.replace((timestamp, at)) {
            let ticks = timestamp.wrapping_sub(before) as i32;
            if ticks < BACK {
                (self.late, self.since) = (0.0, None);
                return None;
            }
            let passed = at.saturating_duration_since(then).as_secs_f64();
            self.late = (self.late + passed * (1.0 - DRIFT) - f64::from(ticks) / CLOCK_RATE).max(0.0);
        }
        if self.late < OLD.as_secs_f64() {
            self.since = None;
            return None;
        }
        let since = *self.since.get_or_insert(at);
        (at.saturating_duration_since(since) >= LASTING).then(|| Duration::from_secs_f64(self.late))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// When, of 30 pictures a second of which each takes `stretch` times its own time to come, the first is said to be old.
    fn old_after(seconds: u32, stretch: f64) -> Option<f64> {
        let (start, mut backlog) = (Instant::now(), Backlog::default());
        (0..seconds * 30).find_map(|i| {
            let passed = f64::from(i) / 30.0 * stretch;
            // The timestamps wrap around.
            let timestamp = (u32::MAX - 90_000).wrapping_add(i * 3000);
            backlog.arrived(timestamp, start + Duration::from_secs_f64(passed)).map(|_| passed)
        })
    }

    #[test]
    fn a_link_that_is_too_slow_shows_soon() {
        let after = old_after(60, 1.25).expect("old pictures");
        assert!((12.0..15.0).contains(&after), "{after}");
        assert!(old_after(60, 2.0).expect("old pictures") < 8.0);
    }

    #[test]
    fn clocks_that_drift_are_no_delay() {
        for stretch in [0.99, 1.0, 1.004] {
            assert_eq!(old_after(3600, stretch), None, "{stretch}");
        }
    }

    #[test]
    fn a_pause_that_is_made_up_for_is_none() {
        let (start, mut backlog) = (Instant::now(), Backlog::default());
        for i in 0..600_u32 {
            // From the tenth second on, nothing comes for five.
            let due = Duration::from_millis(u64::from(i) * 33);
            let held = if due.as_secs() >= 10 { due.max(Duration::from_secs(15)) } else { due };
            assert_eq!(backlog.arrived(i * 2970, start + held), None, "{i}");
        }
    }

    #[test]
    fn another_timeline_is_measured_anew() {
        for (before, after) in [(9_000_000, 0), (0, 9_000_000), (0, 3_000_000_000)] {
            let (start, mut backlog) = (Instant::now(), Backlog::default());
            for i in 0..600_u32 {
                let timestamp = if i < 150 { before } else { after } + i * 2970;
                assert_eq!(backlog.arrived(timestamp, start + Duration::from_millis(u64::from(i) * 33)), None, "{i}");
            }
        }
    }
}
