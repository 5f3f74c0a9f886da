//! Whether video by TCP grows old on its way: a link slower than the stream loses nothing, and what waits in front of
//! it gets more and more. Pure; takes the arrival times.
//!
//! Packets are compared with the quickest of their session, by the sender's own clock. A sender whose time stamps are
//! slow, as of a camera that delivers fewer pictures in the dark than it stamps, looks the same. But what waits in
//! front of a link comes in one piece: when the last packet of a picture is read, a part of the next one is there
//! already. From a camera with slow stamps each picture comes at once, and then nothing until the next. Where the
//! socket cannot be looked at, the times at which the packets come must tell (`rhythm`), and a clock is believed to be
//! a little slow only.

use std::time::{Duration, Instant};

use crate::rhythm::Rhythm;

/// Older than this at the arrival, compared with the quickest packet, is no live video.
const OLD: Duration = Duration::from_secs(2);
/// What was held up once catches up sooner than this.
const LASTING: Duration = Duration::from_secs(3);
/// Clocks drift: so many seconds of each are not taken for a delay.
const DRIFT: f64 = 0.005;
/// A clock that is slow by more than this is none, where nothing but the packets' times tells.
const SLOWEST_CLOCK: f64 = 0.05;
/// Seconds over which these are looked at.
const MEMORY: f64 = 60.0;
/// So many pictures at whose end the socket was looked at tell enough.
const FEWEST_LOOKS: u32 = 5;
const CLOCK_RATE: f64 = 90_000.0;
/// A timestamp that goes back by more than this belongs to another timeline: by TCP nothing is overtaken.
const BACK: i32 = -90_000;

/// The measure of one session.
#[derive(Debug)]
pub struct Backlog {
    last: Option<(u32, Instant)>,
    /// Seconds by which the packet came later than the quickest.
    late: f64,
    /// When the quickest came.
    quickest: Option<Instant>,
    since: Option<Instant>,
    rhythm: Rhythm,
    /// Since then.
    looks: Looks,
    /// The sender uses marker bits.
    marks: bool,
}

impl Default for Backlog {
    fn default() -> Self {
        Self {
            last: None,
            late: 0.0,
            quickest: None,
            since: None,
            rhythm: Rhythm::new(MEMORY),
            looks: Looks::default(),
            marks: false,
        }
    }
}

impl Backlog {
    /// A packet came, with this RTP timestamp (90 kHz) and marker bit: by how much its picture is too old, if that has
    /// lasted. `waiting` says whether bytes wait in the socket behind it, where that is known; it is asked only when in
    /// doubt.
    pub fn arrived(
        &mut self,
        timestamp: u32,
        marker: bool,
        at: Instant,
        waiting: impl FnOnce() -> Option<bool>,
    ) -> Option<Duration> {
        self.marks |= marker;
        if let Some((before, then)) = self.last.replace((timestamp, at)) {
            let ticks = timestamp.wrapping_sub(before) as i32;
            if ticks < BACK {
                *self = Self { last: self.last, marks: self.marks, ..Self::default() };
                return None;
            }
            let passed = at.saturating_duration_since(then).as_secs_f64();
            self.late = (self.late + passed * (1.0 - DRIFT) - f64::from(ticks) / CLOCK_RATE).max(0.0);
            self.rhythm.packet(passed, ticks != 0);
            self.looks.packet(ticks != 0);
        }
        if self.late == 0.0 {
            self.quickest = Some(at);
        }
        if self.late < OLD.as_secs_f64() {
            (self.since, self.looks) = (None, Looks::default());
            return None;
        }
        let since = *self.since.get_or_insert(at);
        if marker || !self.marks {
            self.looks.behind_last = waiting();
        }
        if at.saturating_duration_since(since) < LASTING {
            return None;
        }
        let measured = self.quickest.map_or(0.0, |quickest| at.saturating_duration_since(quickest).as_secs_f64());
        let by_rhythm = || self.late > measured * SLOWEST_CLOCK || !self.rhythm.is_idle_between();
        if !self.looks.verdict().unwrap_or_else(by_rhythm) {
            // The sender's time stamps are slow: from here on it is measured anew.
            (self.late, self.quickest, self.since, self.looks) = (0.0, Some(at), None, Looks::default());
            return None;
        }
        Some(Duration::from_secs_f64(self.late))
    }
}

/// Whether bytes wait in the socket behind the last packets of pictures.
#[derive(Debug, Default)]
struct Looks {
    /// Behind the packet that came last, if that may be the last of its picture.
    behind_last: Option<bool>,
    pictures: u32,
    waiting: u32,
}

impl Looks {
    fn packet(&mut self, is_first_of_picture: bool) {
        if let Some(waits) = self.behind_last.take().filter(|_| is_first_of_picture) {
            self.pictures += 1;
            self.waiting += u32::from(waits);
        }
    }

    /// Whether the link is slower than the stream; none where it could not be looked at.
    fn verdict(&self) -> Option<bool> {
        (self.pictures >= FEWEST_LOOKS).then_some(2 * self.waiting > self.pictures)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// When, of 30 pictures a second of which each takes `stretch` times its own time to come, the first is said to be
    /// old.
    fn old_after(seconds: u32, stretch: f64) -> Option<f64> {
        let (start, mut backlog) = (Instant::now(), Backlog::default());
        (0..seconds * 30).find_map(|i| {
            let passed = f64::from(i) / 30.0 * stretch;
            // The timestamps wrap around.
            let timestamp = (u32::MAX - 90_000).wrapping_add(i * 3000);
            backlog.arrived(timestamp, true, start + Duration::from_secs_f64(passed), || None).map(|_| passed)
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

    /// As [`old_after`], with ten packets a picture, of which all come within this share of its time.
    fn in_packets(seconds: u32, stretch: f64, spread: f64) -> Option<f64> {
        let (start, mut backlog) = (Instant::now(), Backlog::default());
        (0..seconds * 300).find_map(|i| {
            let passed = (f64::from(i / 10) + f64::from(i % 10) / 10.0 * spread) / 30.0 * stretch;
            backlog
                .arrived(i / 10 * 3000, i % 10 == 9, start + Duration::from_secs_f64(passed), || None)
                .map(|_| passed)
        })
    }

    #[test]
    fn a_camera_whose_clock_is_slow_is_no_slow_link() {
        for stretch in [1.01, 1.02, 1.05] {
            assert_eq!(in_packets(1800, stretch, 0.2), None, "{stretch}");
        }
    }

    #[test]
    fn a_link_that_is_a_little_too_slow_shows_although_a_clock_could_be_so_slow() {
        for (stretch, limit) in [(1.01, 450.0), (1.02, 150.0), (1.05, 60.0)] {
            let after = in_packets(1800, stretch, 1.0).expect("old pictures");
            assert!(after < limit, "{stretch}: {after}");
        }
        assert!(
            old_after(300, 1.02).is_some(),
            "one packet a picture: it cannot be told, and old pictures would be worse"
        );
        assert!(in_packets(60, 1.2, 0.2).is_some(), "no clock is so slow");
    }

    #[test]
    fn a_link_that_becomes_too_slow_behind_a_slow_clock_shows_as_well() {
        let (start, mut backlog) = (Instant::now(), Backlog::default());
        let mut passed = 0.0;
        let old = (0..1200_u32 * 300).find_map(|i| {
            // After ten minutes the link is saturated.
            let spread = if i / 300 < 600 { 0.2 } else { 1.0 };
            let stretch = if i / 300 < 600 { 1.01 } else { 1.03 };
            passed += if i % 10 == 0 { 1.0 - 0.9 * spread } else { 0.1 * spread } / 30.0 * stretch;
            backlog
                .arrived(i / 10 * 3000, i % 10 == 9, start + Duration::from_secs_f64(passed), || None)
                .map(|_| i / 300)
        });
        let second = old.expect("old pictures");
        assert!((600..720).contains(&second), "{second}");
    }

    #[test]
    fn a_pause_that_is_made_up_for_is_none() {
        let (start, mut backlog) = (Instant::now(), Backlog::default());
        for i in 0..600_u32 {
            // From the tenth second on, nothing comes for five.
            let due = Duration::from_millis(u64::from(i) * 33);
            let held = if due.as_secs() >= 10 { due.max(Duration::from_secs(15)) } else { due };
            assert_eq!(backlog.arrived(i * 2970, true, start + held, || None), None, "{i}");
        }
    }

    #[test]
    fn another_timeline_is_measured_anew() {
        for (before, after) in [(9_000_000, 0), (0, 9_000_000), (0, 3_000_000_000)] {
            let (start, mut backlog) = (Instant::now(), Backlog::default());
            for i in 0..600_u32 {
                let timestamp = if i < 150 { before } else { after } + i * 2970;
                let at = start + Duration::from_millis(u64::from(i) * 33);
                assert_eq!(backlog.arrived(timestamp, true, at, || None), None, "{i}");
            }
        }
    }

    /// When pictures, stamped 25 a second, are said to be old: `real` of them come a second, the link is saturated
    /// from second `saturated` on.
    fn dim(seconds: u32, real: f64, saturated: u32, marks: fn(u32) -> bool) -> Option<u32> {
        let (start, mut backlog) = (Instant::now(), Backlog::default());
        // Pictures of one packet, but for keyframes.
        let packets = (0..seconds * 25).flat_map(|picture| {
            let count = if picture % 50 == 0 { 8 } else { 1 };
            (0..count).map(move |i| (picture, i, count))
        });
        for (picture, i, count) in packets {
            let second = f64::from(picture) / real;
            let is_saturated = second >= f64::from(saturated);
            let waits = is_saturated || i + 1 < count;
            let at = start + Duration::from_secs_f64(second);
            if backlog.arrived(picture * 3600, marks(u32::from(i + 1 == count)), at, || Some(waits)).is_some() {
                return Some(second as u32);
            }
        }
        None
    }

    #[test]
    fn a_camera_that_delivers_fewer_pictures_than_it_stamps_is_no_slow_link() {
        for real in [3.0, 12.0, 21.0, 24.0] {
            assert_eq!(dim(90, real, u32::MAX, |is_last| is_last == 1), None, "{real}");
            assert_eq!(dim(90, real, u32::MAX, |_| true), None, "{real}: each packet marked");
            assert_eq!(dim(90, real, u32::MAX, |_| false), None, "{real}: no packet marked");
        }
    }

    #[test]
    fn a_slow_link_behind_slow_stamps_shows_soon() {
        for (real, limit) in [(12.0, 20), (21.0, 45)] {
            let old = dim(120, real, 10, |is_last| is_last == 1).expect("old pictures");
            assert!((13..limit).contains(&old), "{real}: {old}");
        }
    }
}
