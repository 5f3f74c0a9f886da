//! Whether video by TCP grows old on its way: a link slower than the stream loses nothing, and what waits in front of
//! it gets more and more. Pure; takes the arrival times.
//!
//! Packets are compared with the quickest of their session, by the sender's own clock. A sender whose time stamps are
//! slow, as of a camera that delivers fewer pictures in the dark than it stamps, looks the same. But what waits in
//! front of a link comes in one piece: when the last packet of a picture is read, a part of the next one is there
//! already, nearly always. From a camera with slow stamps each picture, or each group of some, comes at once, and then
//! nothing until the next: the socket is empty behind one of them at least. Where a way holds many of them together, or
//! ends such a group within a picture, the socket is empty for most of the time, behind a whole packet. Where the
//! socket cannot be looked at, the times at which the packets come must tell (`rhythm`), and a clock is believed to be
//! a little slow only.

use std::time::{Duration, Instant};

use crate::rhythm::Rhythm;

/// Older than this at the arrival, compared with the quickest packet, is no live video. So much later and no more is
/// what a link held up once, and what it needs for a large keyframe.
const OLD: Duration = Duration::from_secs(1);
/// For so long, by the time in which packets came, bytes must wait behind the pictures.
const LASTING: Duration = Duration::from_secs(1);
/// For so long where the pictures come less late than at first: what was held up once catches up sooner than this.
const CATCHING_UP: Duration = Duration::from_secs(3);
/// Of a pause in the arrivals, no more than this counts for these.
const PAUSE: Duration = Duration::from_millis(250);
/// Where the socket cannot be looked at: older than this, for so long.
const OLD_BY_RHYTHM: Duration = Duration::from_secs(2);
const LASTING_BY_RHYTHM: Duration = Duration::from_secs(3);
/// Clocks drift: so many seconds of each are not taken for a delay.
const DRIFT: f64 = 0.005;
/// A clock that is slow by more than this is none, where nothing but the packets' times tells.
const SLOWEST_CLOCK: f64 = 0.05;
/// Seconds over which these are looked at.
const MEMORY: f64 = 60.0;
/// So many pictures at whose end the socket was looked at tell enough.
const FEWEST_LOOKS: u32 = 5;
/// A link is idle where the socket is empty behind one picture of so many. Behind one of very many it is so by chance,
/// where a segment of TCP ends with the picture.
const EMPTY_BEHIND: u32 = 8;
/// A pause of so long behind a packet, with the socket empty, is one of a link that is idle: packets may end where a
/// segment of TCP does, also in front of a slow link, but then the next segment comes sooner.
const SILENCE: Duration = Duration::from_millis(100);
/// A link is idle where such pauses are this share of the time, or more.
const SILENT: f64 = 0.5;
/// For [`Backlog::runs_empty`] the last pictures count, so many.
const RECENT: u32 = 16;
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
    spell: Option<Spell>,
    rhythm: Rhythm,
    looks: Looks,
    /// The sender uses marker bits.
    marks: bool,
}

/// What has come since the pictures are old.
#[derive(Debug)]
struct Spell {
    /// How late the first of them was.
    late: f64,
    /// The time in which packets came.
    lasted: Duration,
    /// Of this, pauses behind a packet with the socket empty.
    silent: Duration,
    /// Since when they are as old as is needed where the socket cannot be looked at.
    very_old: Option<Instant>,
    looks: Count,
}

impl Spell {
    /// Whether the link is idle again and again; none where that is not known yet.
    fn runs_empty(&self) -> Option<bool> {
        let is_silent = self.silent >= self.lasted.mul_f64(SILENT);
        self.looks.runs_empty().map(|runs_empty| runs_empty || is_silent)
    }
}

/// Pictures behind which the socket was looked at.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    pictures: u32,
    /// Of these.
    empty: u32,
}

impl Count {
    fn add(&mut self, is_empty: bool) {
        self.pictures += 1;
        self.empty += u32::from(is_empty);
    }

    /// Whether the link is idle between pictures or groups of them; none where that is not known yet.
    fn runs_empty(self) -> Option<bool> {
        (self.pictures >= FEWEST_LOOKS).then_some(self.empty * EMPTY_BEHIND >= self.pictures)
    }
}

impl Default for Backlog {
    fn default() -> Self {
        Self {
            last: None,
            late: 0.0,
            quickest: None,
            spell: None,
            rhythm: Rhythm::new(MEMORY),
            looks: Looks::default(),
            marks: false,
        }
    }
}

impl Backlog {
    /// A packet came, with this RTP timestamp (90 kHz) and marker bit: by how much its picture is too old, if that has
    /// lasted. `waiting` says whether bytes wait in the socket behind it, where that is known; it is asked about what
    /// may be the last packet of a picture, and about each packet while pictures are old.
    pub fn arrived(
        &mut self,
        timestamp: u32,
        marker: bool,
        at: Instant,
        waiting: impl FnOnce() -> Option<bool>,
    ) -> Option<Duration> {
        self.marks |= marker;
        let mut passed = Duration::ZERO;
        let mut look = None;
        let mut was_empty = false;
        if let Some((before, then)) = self.last.replace((timestamp, at)) {
            let ticks = timestamp.wrapping_sub(before) as i32;
            if ticks < BACK {
                *self = Self { last: self.last, marks: self.marks, looks: self.looks, ..Self::default() };
                return None;
            }
            passed = at.saturating_duration_since(then);
            let seconds = passed.as_secs_f64();
            self.late = (self.late + seconds * (1.0 - DRIFT) - f64::from(ticks) / CLOCK_RATE).max(0.0);
            self.rhythm.packet(seconds, ticks != 0);
            was_empty = self.looks.waits == Some(false);
            look = self.looks.packet(ticks != 0);
        }
        if marker || !self.marks || self.spell.is_some() {
            self.looks.behind(waiting());
        }
        if self.late == 0.0 {
            self.quickest = Some(at);
        }
        if self.late < OLD.as_secs_f64() {
            self.spell = None;
            return None;
        }
        let late = self.late;
        let new =
            || Spell { late, lasted: Duration::ZERO, silent: Duration::ZERO, very_old: None, looks: Count::default() };
        let spell = match &mut self.spell {
            Some(spell) => {
                spell.lasted += passed.min(PAUSE);
                if was_empty && passed >= SILENCE {
                    spell.silent += passed.min(PAUSE);
                }
                look.into_iter().for_each(|is_empty| spell.looks.add(is_empty));
                spell
            }
            none => none.insert(new()),
        };
        let is_slow = match spell.runs_empty() {
            Some(runs_empty) => {
                let needed = if runs_empty || late >= spell.late { LASTING } else { CATCHING_UP };
                (spell.lasted >= needed).then_some(!runs_empty)
            }
            // Soon.
            None if self.looks.can_be_taken => None,
            None if late < OLD_BY_RHYTHM.as_secs_f64() => {
                spell.very_old = None;
                None
            }
            None => {
                let since = *spell.very_old.get_or_insert(at);
                let has_lasted = at.saturating_duration_since(since) >= LASTING_BY_RHYTHM;
                let passed = |quickest| at.saturating_duration_since(quickest).as_secs_f64();
                let measured = self.quickest.map_or(0.0, passed);
                has_lasted.then(|| late > measured * SLOWEST_CLOCK || !self.rhythm.is_idle_between())
            }
        };
        if is_slow == Some(false) {
            // The sender's time stamps are slow: from here on it is measured anew.
            (self.late, self.quickest, self.spell) = (0.0, Some(at), None);
        }
        (is_slow == Some(true)).then(|| Duration::from_secs_f64(late))
    }

    /// Whether the socket is seen to be empty again and again, so that nothing waits in front of the link.
    pub fn runs_empty(&self) -> bool {
        self.looks.recent().runs_empty() == Some(true)
    }
}

/// Looks into the socket.
#[derive(Clone, Copy, Debug, Default)]
struct Looks {
    /// Behind the packet that came last, where it was looked at.
    waits: Option<bool>,
    can_be_taken: bool,
    /// The last [`RECENT`] of them, a bit each: empty.
    bits: u32,
    known: u32,
}

impl Looks {
    fn behind(&mut self, waits: Option<bool>) {
        (self.waits, self.can_be_taken) = (waits, waits.is_some());
    }

    /// A packet came: whether the socket was empty behind the picture before, if it ends that.
    fn packet(&mut self, is_first_of_picture: bool) -> Option<bool> {
        let is_empty = !self.waits.take().filter(|_| is_first_of_picture)?;
        self.bits = self.bits << 1 | u32::from(is_empty);
        self.known = (self.known + 1).min(RECENT);
        Some(is_empty)
    }

    fn recent(self) -> Count {
        let of_these = (1 << self.known) - 1;
        Count { pictures: self.known, empty: (self.bits & of_these).count_ones() }
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
        dim_in_groups(1, seconds, real, saturated, marks)
    }

    /// As [`dim`], so many pictures sent together.
    fn dim_in_groups(group: u32, seconds: u32, real: f64, saturated: u32, marks: fn(u32) -> bool) -> Option<u32> {
        let (start, mut backlog) = (Instant::now(), Backlog::default());
        // Pictures of one packet, but for keyframes.
        let packets = (0..seconds * 25).flat_map(|picture| {
            let count = if picture % 50 == 0 { 8 } else { 1 };
            (0..count).map(move |i| (picture, i, count))
        });
        for (picture, i, count) in packets {
            let is_saturated = f64::from(picture) / real >= f64::from(saturated);
            let sent_with = if is_saturated { picture } else { picture / group * group };
            let second = f64::from(sent_with) / real;
            let waits = is_saturated || i + 1 < count || picture % group + 1 < group;
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
    fn a_camera_that_delivers_few_pictures_in_groups_is_no_slow_link() {
        for group in [2, 3, 6, 12, 25] {
            for real in [1.0, 3.0, 12.0, 21.0, 24.0] {
                for marks in [|is_last| is_last == 1, |_| true, |_| false] {
                    assert_eq!(dim_in_groups(group, 180, real, u32::MAX, marks), None, "{group} at {real}");
                }
            }
        }
    }

    /// After how many seconds pictures, stamped 25 a second, of so many packets are said to be old, where `comes` gives
    /// the time at which a packet comes; bytes wait behind it where the next one comes at the same time.
    fn said_after(pictures: u32, packets: u32, comes: impl Fn(u32, u32) -> f64) -> Option<f64> {
        let (start, mut backlog) = (Instant::now(), Backlog::default());
        (0..pictures * packets).find_map(|i| {
            let at = |i| comes(i / packets, i % packets);
            let is_last = i % packets + 1 == packets;
            let came = start + Duration::from_secs_f64(at(i));
            let waits = || Some(at(i) == at(i + 1));
            backlog.arrived(i / packets * 3600, is_last, came, waits).map(|_| at(i))
        })
    }

    #[test]
    fn a_camera_that_delivers_few_pictures_in_bunches_that_end_within_one_is_no_slow_link() {
        // As with the algorithm of Nagle: the first packet of a picture is sent 40 ms before the others.
        let sent = |picture, i| f64::from(picture) / 12.5 + if i == 0 { 0.0 } else { 0.04 };
        let in_bunches = |picture, i| ((sent(picture, i) + 0.22) / 0.24).ceil() * 0.24;
        assert_eq!(said_after(12 * 90, 6, in_bunches), None);
    }

    #[test]
    fn a_slow_link_that_delivers_whole_packets_some_together_shows() {
        // Nine at a time, and 240 a second.
        let in_bursts = |picture, i| f64::from((picture * 20 + i) / 9) * 9.0 / 240.0;
        let after = said_after(12 * 20, 20, in_bursts).expect("old pictures");
        assert!(after < 5.0, "{after}");
    }

    #[test]
    fn a_camera_that_delivers_very_few_pictures_is_no_slow_link() {
        for real in [0.2, 0.5, 1.0, 1.5] {
            assert_eq!(dim(600, real, u32::MAX, |is_last| is_last == 1), None, "{real}");
        }
    }

    #[test]
    fn a_slow_link_behind_slow_stamps_shows_soon() {
        for group in [1, 3] {
            for (real, limit) in [(12.0, 14), (21.0, 20)] {
                let old = dim_in_groups(group, 120, real, 10, |is_last| is_last == 1).expect("old pictures");
                assert!((11..limit).contains(&old), "{real}: {old}");
            }
        }
    }

    /// How late the pictures were, at most, before it was said; and whether that was. They come 25 a second over a link
    /// that takes `rate` of them from second 5 on, and nothing for `stall` seconds there; bytes wait behind each that
    /// the next one has to wait for.
    fn over_a_link(rate: f64, stall: f64) -> (f64, bool) {
        let (start, mut backlog) = (Instant::now(), Backlog::default());
        let (mut free, mut oldest) = (0.0_f64, 0.0_f64);
        for picture in 0..25 * 60 {
            let made = f64::from(picture) / 25.0;
            let begins = if made >= 5.0 { free.max(made).max(5.0 + stall) } else { made };
            free = begins + if made >= 5.0 { 1.0 / rate } else { 0.001 };
            oldest = oldest.max(free - made);
            let waits = free > f64::from(picture + 1) / 25.0;
            let at = start + Duration::from_secs_f64(free);
            if backlog.arrived(picture * 3600, true, at, || Some(waits)).is_some() {
                return (oldest, true);
            }
        }
        (oldest, false)
    }

    #[test]
    fn nothing_older_than_little_more_than_a_second_comes_over_a_slow_link_whose_socket_is_seen() {
        for rate in [5.0, 12.0, 17.5, 20.0, 23.0] {
            let (oldest, is_said) = over_a_link(rate, 0.0);
            assert!(is_said && oldest < 1.0 + 1.3 * (1.0 - rate / 25.0) + 0.2, "{rate}: {oldest}");
        }
    }

    #[test]
    fn a_stall_that_is_made_up_for_is_no_slow_link() {
        for (rate, stall) in [(1000.0, 10.0), (100.0, 5.0), (50.0, 1.5), (37.5, 1.5), (30.0, 1.5), (30.0, 0.5)] {
            let (oldest, is_said) = over_a_link(rate, stall);
            assert!(!is_said && oldest >= stall, "{rate}, {stall}: {oldest}");
        }
        assert!(over_a_link(26.0, 1.5).1, "one that takes half a minute for it is too slow");
    }
}
