//! How late packets are: compared with the quickest of the last seconds, by the sender's own clock. A process that
//! stood still, or a path that held packets back, delivers old ones that look as if they had just come; their
//! timestamps tell. Pure; takes the arrival times.
//!
//! The sender's clock and ours share no origin, so a delay that was there from the start cannot be seen, and one that
//! lasts is taken for the path's own after `ADAPT`.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::rhythm::Rhythm;

/// Later than this is late. A LAN's own variation is some milliseconds, a large keyframe on a slow tether takes 100 ms,
/// and a pilot notices half a second.
pub const LATE: Duration = Duration::from_millis(300);
/// Packets that stay late for so long are not catching up: the path, or the sender's timeline, is another now.
const ADAPT: Duration = Duration::from_secs(2);
/// The window of the quickest packet. Long, so that a queue that builds up slowly shows; two clocks drift by a
/// millisecond in it.
const WINDOW: Duration = Duration::from_secs(10);
const BUCKET: Duration = Duration::from_secs(1);
/// Of a pause in the arrivals, no more than this counts as time: a process that stood still has learnt nothing in it.
const PAUSE: Duration = Duration::from_millis(500);
/// Timestamps that go back by more than this (90 kHz) belong to a new timeline: no packet waited, or it would be late
/// as well.
const BACK: i64 = 18_000;
/// What comes later and later, picture by picture over a link that is idle in between, has waited nowhere: the sender's
/// timestamps are slow, as of a camera that delivers fewer pictures in the dark than it stamps. Beyond this they are
/// followed.
const FOLLOWED: i64 = 100_000;
/// Seconds over which the link is looked at for that. A link that becomes too slow must soon show.
const MEMORY: f64 = 4.0;
/// A picture that comes so many times later than usual was held up; where the link is seen to run empty, a sender that
/// becomes slower is more likely.
const HELD_UP: u32 = 2;
const HELD_UP_WHERE_EMPTY: u32 = 3;
/// Less than this is not told from it.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(20);
/// A picture that follows the one before within this share of the time between their stamps has waited for it.
const TOGETHER: f64 = 0.25;
/// Where pictures come in groups, and more than this share of these have several, the link holds them back, or the
/// sender. Whether the link is too slow, or the sender's timestamps are, only the connection tells then; where it
/// cannot be looked at, they are not followed, as old video that looks live is worse.
const MOST_BURSTS: f64 = 0.5;

/// When packets came, and how.
#[derive(Clone, Copy, Debug)]
pub struct Received {
    pub at: Instant,
    /// The connection that they came by is seen to be empty again and again: nothing waits in front of its link.
    pub link_runs_empty: bool,
}

impl From<Instant> for Received {
    /// By a way that cannot be looked into.
    fn from(at: Instant) -> Self {
        Self { at, link_runs_empty: false }
    }
}

/// The measure of one stream.
#[derive(Debug, Default)]
pub struct Lateness {
    stream: Option<Stream>,
    /// The synchronisation source before, whose stragglers say nothing.
    ssrc_before: Option<u32>,
}

#[derive(Debug)]
struct Stream {
    ssrc: u32,
    origin: Instant,
    newest: Newest,
    /// Time that passed while packets came.
    clock: Duration,
    /// The quickest packet of each bucket: when the bucket began by `clock`, and the packet's transit.
    quickest: VecDeque<(Duration, i64)>,
    /// Since when, by `clock`, all packets were late, and the quickest of them.
    late_since: Option<(Duration, i64)>,
    rhythm: Rhythm,
    /// When the first packet of the newest picture came, how long after that of the one before, and the usual time
    /// between two.
    picture_at: Instant,
    passed: Duration,
    interval: Duration,
    /// As `passed`, of the newest that came not together with the one before.
    group_passed: Duration,
    bursts: Bursts,
}

#[derive(Clone, Copy, Debug)]
struct Newest {
    sequence: u16,
    timestamp: u32,
    /// The timestamp without wrapping around, 90 kHz from the first.
    ticks: i64,
    at: Instant,
}

impl Lateness {
    /// A packet of this source, sequence number and timestamp (90 kHz) came: how much later it is than it should be.
    pub fn arrived(&mut self, ssrc: u32, sequence: u16, timestamp: u32, received: Received) -> Duration {
        if self.ssrc_before == Some(ssrc) {
            return Duration::ZERO;
        }
        if let Some(stream) = &mut self.stream {
            if stream.ssrc == ssrc {
                return stream.arrived(sequence, timestamp, received);
            }
            self.ssrc_before = Some(stream.ssrc);
        }
        self.stream = Some(Stream::new(ssrc, sequence, timestamp, received.at));
        Duration::ZERO
    }
}

impl Stream {
    fn new(ssrc: u32, sequence: u16, timestamp: u32, at: Instant) -> Self {
        Self {
            ssrc,
            origin: at,
            newest: Newest { sequence, timestamp, ticks: 0, at },
            clock: Duration::ZERO,
            quickest: VecDeque::from([(Duration::ZERO, 0)]),
            late_since: None,
            rhythm: Rhythm::new(MEMORY),
            picture_at: at,
            passed: Duration::ZERO,
            interval: Duration::ZERO,
            group_passed: Duration::ZERO,
            bursts: Bursts::default(),
        }
    }

    fn arrived(&mut self, sequence: u16, timestamp: u32, received: Received) -> Duration {
        let at = received.at;
        let step = i64::from(timestamp.wrapping_sub(self.newest.timestamp).cast_signed());
        let ahead = sequence.wrapping_sub(self.newest.sequence).cast_signed() > 0;
        if ahead && step < -BACK {
            let (rhythm, interval, bursts) = (self.rhythm, self.interval, self.bursts);
            // The link is the same.
            *self = Self { rhythm, interval, bursts, ..Self::new(self.ssrc, sequence, timestamp, at) };
            return Duration::ZERO;
        }
        let ticks = self.newest.ticks + step;
        // In microseconds; only differences mean anything.
        let transit = at.saturating_duration_since(self.origin).as_micros() as i64 - ticks * 100 / 9;
        // One that was sent again took longer than the path takes.
        if ahead || step > 0 {
            let passed = at.saturating_duration_since(self.newest.at);
            self.rhythm.packet(passed.as_secs_f64(), step != 0);
            if step > 0 {
                self.follow(transit, step, received);
            }
            self.clock += passed.min(PAUSE);
            self.newest = Newest { sequence, timestamp, ticks, at };
            self.learn(transit);
        }
        micros(transit - self.baseline())
    }

    /// The first packet of another picture came.
    fn follow(&mut self, transit: i64, step: i64, Received { at, link_runs_empty }: Received) {
        let passed = at.saturating_duration_since(std::mem::replace(&mut self.picture_at, at));
        let is_together = self.bursts.picture(passed.as_secs_f64(), step as f64 / 90_000.0);
        // What was held up is followed by a burst. Where the next picture takes as long, the sender has become slower;
        // so it has where the next group does, and the link is seen to run empty.
        let mut before = std::mem::replace(&mut self.passed, passed);
        if !is_together {
            let group_before = std::mem::replace(&mut self.group_passed, passed);
            before = if link_runs_empty { group_before } else { before };
        }
        self.interval = match self.interval {
            Duration::ZERO if is_together => Duration::ZERO,
            Duration::ZERO => passed,
            interval => interval.max(passed.min(before)),
        };
        let times = if link_runs_empty { HELD_UP_WHERE_EMPTY } else { HELD_UP };
        let longest = self.interval.max(SHORTEST_INTERVAL) * times;
        // What comes in a burst tells nothing.
        if !is_together && passed > self.interval / 4 {
            self.interval = (7 * self.interval + passed.min(longest)) / 8;
        }
        let grown = passed.as_micros() as i64 - step * 100 / 9;
        let over = (transit - self.baseline() - FOLLOWED).min(grown);
        let is_idle = link_runs_empty || self.rhythm.is_idle_between() && !self.bursts.are_usual();
        if over > 0 && passed <= longest && is_idle {
            let all = self.quickest.iter_mut().map(|(_, transit)| transit);
            all.chain(self.late_since.iter_mut().map(|(_, transit)| transit)).for_each(|transit| *transit += over);
        }
    }

    fn baseline(&self) -> i64 {
        self.quickest.iter().map(|(_, transit)| *transit).min().unwrap_or_default()
    }

    fn learn(&mut self, transit: i64) {
        match self.quickest.back_mut() {
            Some((since, quickest)) if self.clock - *since < BUCKET => *quickest = transit.min(*quickest),
            _ => self.quickest.push_back((self.clock, transit)),
        }
        while self.quickest.front().is_some_and(|(since, _)| self.clock - *since > WINDOW) {
            self.quickest.pop_front();
        }
        if micros(transit - self.baseline()) <= LATE {
            self.late_since = None;
            return;
        }
        let (since, quickest) = self.late_since.unwrap_or((self.clock, transit));
        let quickest = quickest.min(transit);
        self.late_since = Some((since, quickest));
        if self.clock - since >= ADAPT {
            self.quickest = VecDeque::from([(self.clock, quickest)]);
            self.late_since = None;
        }
    }
}

/// Whether pictures usually come in bursts. Groups are counted, not pictures: a single long backlog is no rule.
#[derive(Clone, Copy, Debug, Default)]
struct Bursts {
    /// Groups of pictures of the last seconds, and how many of them have several; older ones weigh less.
    groups: f64,
    bursts: f64,
    in_burst: bool,
}

impl Bursts {
    /// A picture came `passed` seconds after the one before, whose timestamp is `step` seconds older; whether it had
    /// waited for that one.
    fn picture(&mut self, passed: f64, step: f64) -> bool {
        let kept = (1.0 - passed / MEMORY).max(0.0);
        self.groups *= kept;
        self.bursts *= kept;
        let is_together = passed < step * TOGETHER;
        if !is_together {
            self.groups += 1.0;
        } else if !self.in_burst {
            self.bursts += 1.0;
        }
        self.in_burst = is_together;
        is_together
    }

    fn are_usual(&self) -> bool {
        self.bursts > self.groups * MOST_BURSTS
    }
}

fn micros(micros: i64) -> Duration {
    Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: u32 = 3_000;

    /// A sender of 30 pictures a second, one packet each, whose timestamps soon wrap around.
    struct Sender {
        lateness: Lateness,
        start: Instant,
        offset: u32,
        ssrc: u32,
    }

    impl Sender {
        fn new() -> Self {
            Self { lateness: Lateness::default(), start: Instant::now(), offset: u32::MAX - 40_000, ssrc: 7 }
        }

        /// Picture `n` of the timeline comes `ms` after the start.
        fn comes(&mut self, n: u32, ms: u64) -> u64 {
            self.comes_as(n as u16, n, ms)
        }

        fn comes_as(&mut self, sequence: u16, n: u32, ms: u64) -> u64 {
            let (sequence, timestamp) = (sequence.wrapping_add(65_500), (n * FRAME).wrapping_add(self.offset));
            let at = self.start + Duration::from_millis(ms);
            self.lateness.arrived(self.ssrc, sequence, timestamp, at.into()).as_millis() as u64
        }

        /// Pictures that come when they were sent, and a constant `delay` later.
        fn steady(&mut self, pictures: std::ops::Range<u32>, delay: u64) -> Vec<u64> {
            pictures.map(|n| self.comes(n, u64::from(n) * 100 / 3 + delay)).collect()
        }
    }

    #[test]
    fn what_comes_as_it_was_sent_is_not_late() {
        let mut sender = Sender::new();
        assert!(sender.steady(0..3_000, 20).iter().all(|late| *late <= 1));
    }

    #[test]
    fn the_delay_is_that_beyond_the_quickest() {
        let mut sender = Sender::new();
        sender.comes(0, 30);
        assert_eq!(sender.comes(3, 120), 0, "quicker than the first");
        assert_eq!(sender.comes(6, 250), 30);
    }

    #[test]
    fn after_a_stall_the_backlog_is_late_and_what_follows_is_not() {
        for stall_ms in [1_000_u64, 3_000, 30_000, 600_000] {
            let mut sender = Sender::new();
            sender.steady(0..60, 0);
            let resumed = 2_000 + stall_ms;
            let backlog: Vec<_> = (60..90).map(|n| sender.comes(n, resumed)).collect();
            assert_eq!(backlog[0], stall_ms);
            assert!(backlog.windows(2).all(|pair| pair[1] < pair[0]), "{backlog:?}");
            let live = resumed as u32 * 3 / 100 + 1;
            assert!(sender.steady(live..live + 300, 0).iter().all(|late| *late <= 1), "{stall_ms}");
        }
    }

    #[test]
    fn two_stalls_one_after_the_other_do_not_make_the_backlog_the_rule() {
        let mut sender = Sender::new();
        sender.steady(0..60, 0);
        for (n, ms) in [(60, 5_000), (61, 5_000), (62, 8_000), (63, 11_000)] {
            assert!(sender.comes(n, ms) >= ms - u64::from(n) * 100 / 3 - 1);
        }
    }

    #[test]
    fn a_longer_path_is_accepted_after_two_seconds() {
        let mut sender = Sender::new();
        sender.steady(0..300, 5);
        let late = sender.steady(300..600, 705);
        assert!(late[..59].iter().all(|late| (699..=701).contains(late)), "{late:?}");
        assert!(late[63..].iter().all(|late| *late <= 1), "{late:?}");
    }

    #[test]
    fn a_longer_path_is_accepted_at_one_picture_in_two_seconds_too() {
        let mut sender = Sender::new();
        for n in 0..10 {
            sender.comes(n * 60, u64::from(n) * 2_000);
        }
        let late: Vec<_> = (10..20).map(|n| sender.comes(n * 60, u64::from(n) * 2_000 + 900)).collect();
        assert_eq!((late[0], late[9]), (900, 0), "{late:?}");
    }

    #[test]
    fn a_queue_that_builds_up_slowly_is_late() {
        let mut sender = Sender::new();
        let late: Vec<_> = (0..240).map(|n| sender.comes(n, u64::from(n) * 100 / 3 + u64::from(n) * 2)).collect();
        assert!((399..=401).contains(&late[200]), "{late:?}");
    }

    #[test]
    fn drifting_clocks_are_followed() {
        let mut sender = Sender::new();
        // Two in a thousand: far more than any clock.
        let late = (0..20_000).map(|n| sender.comes(n, u64::from(n) * 100 / 3 + u64::from(n) / 15));
        assert!(late.max().unwrap() < 50);
    }

    #[test]
    fn a_timeline_that_begins_again_is_not_late() {
        let mut sender = Sender::new();
        sender.steady(0..300, 5);
        // Back to its beginning, with the sequence going on.
        assert_eq!(sender.comes_as(300, 0, 10_400), 0);
        assert_eq!(sender.comes_as(301, 1, 10_440), 6);
        // And forward by an hour.
        assert_eq!(sender.comes_as(302, 108_000, 10_480), 0);
        assert_eq!(sender.comes_as(303, 108_001, 10_513), 0);
    }

    #[test]
    fn a_timeline_that_stood_still_is_accepted_after_two_seconds() {
        let mut sender = Sender::new();
        sender.steady(0..300, 5);
        // The camera was away for five seconds, and its timestamps go on as if it had not.
        let late: Vec<_> = (300..400).map(|n| sender.comes(n, u64::from(n) * 100 / 3 + 5_005)).collect();
        assert!(late[58] >= 4_999 && late[63] <= 1, "{late:?}");
    }

    #[test]
    fn another_source_starts_anew_and_stragglers_of_the_first_say_nothing() {
        let mut sender = Sender::new();
        sender.steady(0..30, 5);
        sender.ssrc = 8;
        assert_eq!(sender.comes(10, 2_000), 0);
        sender.ssrc = 7;
        assert_eq!(sender.comes(31, 5_000), 0);
        sender.ssrc = 8;
        assert_eq!(sender.comes(11, 2_134), 100);
    }

    #[test]
    fn a_retransmission_is_late_itself_and_changes_nothing() {
        let mut sender = Sender::new();
        sender.steady(0..30, 0);
        sender.comes(31, 1_034);
        assert_eq!(sender.comes(30, 1_040), 40);
        assert_eq!(sender.comes(32, 1_067), 1);
    }

    /// What is said of a camera's pictures.
    #[derive(Debug)]
    struct Said {
        /// The largest lateness.
        latest: Duration,
        /// The share of the pictures that were over half a second old, and not said to be late.
        old_but_live: f64,
    }

    /// Of pictures that a camera makes for a minute and a half, `real(second)` of them a second, stamped 25 a second
    /// and `jump` more from second 45 on. Every 50th has eight packets. `link` gives the second in which a packet of
    /// this picture arrives that was sent in that second; at least 0.1 ms behind the one before.
    fn said(real: impl Fn(f64) -> f64, jump: f64, link: impl FnMut(u32, f64) -> f64) -> Said {
        said_where(false, real, jump, link)
    }

    /// As [`said`], and whether the link is seen to run empty.
    fn said_where(
        link_runs_empty: bool,
        real: impl Fn(f64) -> f64,
        jump: f64,
        mut link: impl FnMut(u32, f64) -> f64,
    ) -> Said {
        let (mut lateness, start) = (Lateness::default(), Instant::now());
        let (mut made, mut free, mut sequence) = (0.0_f64, 0.0_f64, 0_u16);
        let (mut latest, mut old_but_live, mut pictures) = (Duration::ZERO, 0, 0);
        while made < 90.0 {
            let stamp = f64::from(pictures) / 25.0 + if made < 45.0 { 1.0 } else { 1.0 + jump };
            let mut late = Duration::ZERO;
            for _ in 0..if pictures % 50 == 0 { 8 } else { 1 } {
                free = link(pictures, made).max(free + 1e-4);
                sequence = sequence.wrapping_add(1);
                let at = start + Duration::from_secs_f64(free);
                let received = Received { at, link_runs_empty };
                late = lateness.arrived(7, sequence, (stamp * 90e3) as u32, received);
            }
            latest = latest.max(late);
            old_but_live += u32::from(free > made + 0.5 && late < LATE);
            pictures += 1;
            made += 1.0 / real(made);
        }
        Said { latest, old_but_live: f64::from(old_but_live) / f64::from(pictures) }
    }

    /// A link that releases whole pictures each `hold` seconds, but no more than `rate` a second.
    fn bursts(hold: f64, rate: f64) -> impl FnMut(u32, f64) -> f64 {
        let (mut slot, mut room, mut released) = (0.0, 0.0_f64, None);
        move |picture, made| {
            if released.replace(picture) != Some(picture) {
                while slot * hold < made || room < 1.0 {
                    slot += 1.0;
                    room = (room + rate * hold).min(rate * hold + 1.0);
                }
                room -= 1.0;
            }
            slot * hold
        }
    }

    #[test]
    fn slow_timestamps_are_followed_over_an_idle_link() {
        let at_once = |_, made| made;
        let with_jitter = |n, made: f64| made + f64::from(n * 37 % 41) / 1e3;
        // What the camera sent before the first of it was read comes at once.
        let joined = |_, made: f64| made.max(0.3);
        for real in [
            |_| 24.0,
            |_| 21.0,
            |_| 12.0,
            |_| 6.0,
            |second| if second < 30.0 { 25.0 } else { 11.0 },
            |second| if second < 30.0 { 25.0 } else { 5.0 },
            |second| if (20.0..40.0).contains(&second) { 25.0 } else { 12.0 },
        ] {
            for jump in [0.0, -0.7, 0.7] {
                let says = [said(real, jump, at_once), said(real, jump, with_jitter), said(real, jump, joined)];
                assert!(says.iter().all(|said| said.latest < LATE), "{} fps, {jump}: {says:?}", real(0.0));
            }
        }
    }

    /// As of a camera that sends some pictures together.
    #[test]
    fn slow_timestamps_of_groups_are_followed_where_the_link_is_seen_to_run_empty() {
        for group in [2, 3] {
            for real in [21.0, 12.0, 6.0, 3.0] {
                let together = |picture: u32, made: f64| made + f64::from(group - 1 - picture % group) / real;
                let said = said_where(true, |_| real, 0.0, together);
                let spread = f64::from(group) / real;
                assert!(said.latest < LATE.max(Duration::from_secs_f64(0.1 + spread)), "{group} at {real}: {said:?}");
            }
        }
    }

    #[test]
    fn groups_that_become_rare_at_once_are_not_late() {
        for group in [1, 2, 3] {
            let real = |second| if second < 30.0 { 25.0 } else { 12.0 };
            let together = |picture: u32, made: f64| made + f64::from(group - 1 - picture % group) / real(made);
            let said = said_where(true, real, 0.0, together);
            assert!(said.latest < Duration::from_millis(240), "{group}: {said:?}");
        }
    }

    #[test]
    fn a_link_that_is_too_slow_is_not_taken_for_slow_timestamps() {
        let mut free = 0.0_f64;
        let busy = said(
            |_| 25.0,
            0.0,
            |_, made| {
                free = free.max(made) + 0.042;
                free
            },
        );
        assert!(busy.old_but_live < 0.05, "{busy:?}");
        for (hold, rate) in [(0.1, 20.0), (0.2, 20.0), (0.5, 20.0), (0.2, 12.5), (0.5, 12.5)] {
            let said = said(|_| 25.0, 0.0, bursts(hold, rate));
            assert!(said.old_but_live < 0.05, "{rate} fps, released each {hold} s: {said:?}");
        }
    }

    #[test]
    fn a_quick_link_that_releases_pictures_in_bursts_is_as_late_as_it_holds_them() {
        for hold in [0.1, 0.2] {
            let said = said(|_| 25.0, 0.0, bursts(hold, 100.0));
            assert!(said.latest < Duration::from_secs_f64(hold + 0.01), "{hold}: {said:?}");
        }
    }

    /// What all clocks do, 100 ppm of it.
    #[test]
    fn a_clock_that_drifts_is_not_late() {
        for real in [25.0025, 24.9975] {
            assert!(said(|_| real, 0.0, |_, made| made).latest < Duration::from_millis(2), "{real}");
        }
    }

    #[test]
    fn timestamps_that_jump_either_way_are_not_late() {
        for jump in [-90_000, -63_000, -28_000, -20_000, 20_000, 63_000, 90_000_i32] {
            let (mut lateness, start) = (Lateness::default(), Instant::now());
            for n in 0..500_u16 {
                let jumped = if n < 250 { 0 } else { jump.cast_unsigned() };
                let at = start + Duration::from_millis(u64::from(n) * 40);
                let late = lateness.arrived(7, n, (u32::from(n) * 3_600).wrapping_add(jumped), at.into());
                assert!(late < LATE, "{jump}, picture {n}: {late:?}");
            }
        }
    }
}
