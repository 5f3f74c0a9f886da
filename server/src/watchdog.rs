//! Decides when a pipeline has stalled, when a camera is frozen, when cameras are looked for, when a keyframe request
//! goes to the encoder, and which of many equal complaints are worth a line. Pure: takes `now`.

use std::time::{Duration, Instant};

use crate::pipeline::playable::Problem;
use crate::pipeline::{Failure, Still};
use crate::stream::Keyless;

/// A pipeline that gives its first picture later than this is taken for dead: cameras may take some seconds to start.
const FIRST_FRAME: Duration = Duration::from_secs(10);
/// Hardware encoders take up to a second to open.
const FIRST_ENCODED: Duration = Duration::from_secs(5);
const SHORTEST_STALL: Duration = Duration::from_secs(1);
const STALL_INTERVALS: u32 = 10;

/// Several viewers asking at once get one keyframe; after that one, the next no sooner than this.
pub const KEYFRAME_SPACING: Duration = Duration::from_millis(200);

/// How long no picture may come before a pipeline is restarted: one second, or ten frame intervals if that is longer.
pub fn stall_limit(frame_interval: Duration) -> Duration {
    (frame_interval * STALL_INTERVALS).max(SHORTEST_STALL)
}

pub const WAITS_AFTER_LOSS: &str =
    "packets of the source were lost on their way to this machine: waiting for its next keyframe";
/// A wait for so long is worth a word to viewers.
const AWAITED_LONG: Duration = Duration::from_secs(1);

/// Whether a whole keyframe is waited for while pictures come, within `limit` of each other; and the reason in words,
/// where that lasts.
pub fn keyframe_awaited(
    now: Instant,
    since_and_last: Option<(Instant, Instant)>,
    limit: Duration,
) -> Option<Option<String>> {
    let (since, _) = since_and_last.filter(|(_, last)| now.saturating_duration_since(*last) < limit)?;
    let awaited = now.saturating_duration_since(since);
    Some((awaited >= AWAITED_LONG).then(|| format!("{WAITS_AFTER_LOSS}, for {} s", awaited.as_secs())))
}

/// What has passed through a pipeline, and when.
#[derive(Clone, Copy, Debug)]
pub struct Passed {
    /// The number of the stream that it came out as.
    pub stream: usize,
    pub started: Instant,
    /// The first and the last raw picture that the source gave.
    pub first_in: Option<Instant>,
    pub last_in: Option<Instant>,
    /// The last picture that came out.
    pub last_out: Option<Instant>,
}

/// The reason to restart, if there is one.
pub fn stalled(now: Instant, passed: &Passed, frame_interval: Duration) -> Option<Failure> {
    let Passed { stream, started, first_in, last_in, last_out } = *passed;
    let Some(last_out) = last_out else {
        let waits_longer = |since: Instant, limit| now.saturating_duration_since(since) > limit;
        if first_in
            .is_some_and(|first| waits_longer(first.max(started), FIRST_ENCODED.max(stall_limit(frame_interval))))
        {
            let seconds = FIRST_ENCODED.as_secs();
            let reason = format!("the encoder gave nothing for {seconds} s from its first picture on");
            return Some(Failure::Encoder { stream, reason });
        }
        let nothing = || Failure::Source(format!("no picture within {} s of starting", FIRST_FRAME.as_secs()));
        return (first_in.is_none() && waits_longer(started, FIRST_FRAME)).then(nothing);
    };
    let limit = stall_limit(frame_interval);
    if now.saturating_duration_since(last_out) <= limit {
        return None;
    }
    let seconds = limit.as_secs_f64();
    let source_alive = last_in.is_some_and(|at| now.saturating_duration_since(at) <= limit);
    Some(if source_alive {
        let reason = format!("the encoder gave nothing for {seconds:.1} s although pictures went in");
        Failure::Encoder { stream, reason }
    } else {
        Failure::Source(format!("the source gave no picture for {seconds:.1} s"))
    })
}

/// A pipeline that ran so long was well.
pub const HEALTHY_AFTER: Duration = Duration::from_secs(10);
/// So many failures of an encoder in a row, none of them after a healthy life, and another one is taken, for good.
const SHORT_LIVES: u32 = 3;
/// The same where it fails after a healthy life each time, and none of these was longer than that.
const HEALTHY_LIVES: u32 = 3;
const LONG_LIFE: Duration = Duration::from_secs(600);
/// One without any picture counts for so many of them: a busy machine can make a single start too slow.
const NO_LIFE: u32 = 2;

/// Decides when an encoder that worked on trial is replaced: at once where it hangs, the second time where it gave
/// nothing at work, else when it fails again and again.
#[derive(Debug, Default)]
pub struct EncoderWatch {
    short_lives: u32,
    healthy_lives: u32,
}

impl EncoderWatch {
    /// A pipeline has failed, from whose first picture to its last `well_for` passed; true: take another encoder.
    /// `hangs`: it has not stopped, so that none like it can be started.
    pub fn failed(&mut self, failure: &Failure, well_for: Option<Duration>, hangs: bool) -> bool {
        let Self { short_lives, healthy_lives } = *self;
        (self.short_lives, self.healthy_lives) = match (failure, well_for) {
            (Failure::Encoder { .. }, _) if hangs => (SHORT_LIVES, healthy_lives),
            (Failure::Encoder { .. }, None) => (short_lives + NO_LIFE, healthy_lives),
            (Failure::Encoder { .. }, Some(time)) if time <= HEALTHY_AFTER => (short_lives + 1, healthy_lives),
            (Failure::Encoder { .. }, Some(time)) if time <= LONG_LIFE => (0, healthy_lives + 1),
            // The encoder had nothing to do.
            (Failure::Source(_), None) => (short_lives, healthy_lives),
            _ => (0, 0),
        };
        let replace = self.short_lives >= SHORT_LIVES || self.healthy_lives >= HEALTHY_LIVES;
        if replace {
            *self = Self::default();
        }
        replace
    }
}

/// Coalesces keyframe requests: the first goes through at once, those within [`KEYFRAME_SPACING`] of it become one.
#[derive(Debug, Default)]
pub struct KeyframeGate {
    last: Option<Instant>,
    pending: bool,
}

impl KeyframeGate {
    /// True when the request is to be carried out now.
    pub fn request(&mut self, now: Instant) -> bool {
        self.pending = true;
        self.due(now)
    }

    /// True when a request that had to wait is to be carried out now.
    pub fn due(&mut self, now: Instant) -> bool {
        let ready = self.pending && self.next().is_none_or(|at| now >= at);
        if ready {
            self.pending = false;
            self.last = Some(now);
        }
        ready
    }

    /// When [`Self::due`] may say yes, while a request waits.
    pub fn deadline(&self) -> Option<Instant> {
        self.pending.then(|| self.next()).flatten()
    }

    fn next(&self) -> Option<Instant> {
        self.last.map(|at| at + KEYFRAME_SPACING)
    }
}

/// A viewer that waits so long for the first keyframe must be told why.
const KEYLESS_AFTER: Duration = Duration::from_secs(8);
/// Cameras that were joined in the middle of a group have sent a keyframe by then.
const LONGEST_GROUP: Duration = Duration::from_secs(30);
/// Recovery points in a row that mean a stream which is refreshed in parts instead of by keyframes.
const REFRESHES: u32 = 3;

/// Why viewers cannot begin, if so: no keyframe has come yet, or none comes any more, only recovery points. Keyframes
/// that are merely rare are waited for.
pub fn keyless(keyless: &Keyless) -> Option<Problem> {
    let Keyless { lasted, interval, recovery_points } = *keyless;
    let is_refreshed = recovery_points >= REFRESHES && interval.is_none_or(|interval| lasted > interval * 2);
    if lasted < KEYLESS_AFTER {
        None
    } else if is_refreshed || interval.is_none() && lasted > LONGEST_GROUP {
        Some(Problem::NoKeyframes)
    } else {
        interval.is_none().then_some(Problem::NoKeyframeFor(KEYLESS_AFTER))
    }
}

/// Tells a camera that has hung and repeats its last picture. It is not restarted for that: a picture may really be at
/// rest.
#[derive(Debug)]
pub struct FrozenWatch {
    limit: Option<Duration>,
    /// It counts only where the picture has changed before: whoever shows a still picture on purpose is not warned.
    may_be_still: bool,
    frozen: bool,
}

/// So many looks must have found the same: pictures may come seldom.
const FROZEN_LOOKS: u32 = 4;

impl FrozenWatch {
    /// `limit`: for how long nothing may change; none: that is never said.
    pub fn new(limit: Option<Duration>, may_be_still: bool) -> Self {
        Self { limit, may_be_still, frozen: false }
    }

    /// For how long nothing has changed when it begins to be frozen, and `Some(None)` when it is not any more.
    pub fn check(&mut self, still: Option<Still>) -> Option<Option<Duration>> {
        let (still, limit) = (still?, self.limit?);
        let lasted = still.until.saturating_duration_since(still.since);
        let counts = still.has_changed || !self.may_be_still;
        let frozen = counts && lasted >= limit && still.looks >= FROZEN_LOOKS;
        (std::mem::replace(&mut self.frozen, frozen) != frozen).then(|| frozen.then_some(lasted))
    }
}

/// When cameras are looked for while there is none: soon after the machine's devices have changed, else now and then,
/// as a look opens each of them.
#[derive(Debug)]
pub struct CameraLook {
    nodes: Vec<String>,
    changed: Option<Instant>,
    looked: Instant,
}

const LOOK_EVERY: Duration = Duration::from_secs(2);
/// A new device may be there before anybody may open it, and before it answers.
const LOOK_SOON: Duration = Duration::from_millis(500);
const SETTLED: Duration = Duration::from_secs(5);

impl CameraLook {
    /// With the devices that are there now.
    pub fn new(now: Instant, nodes: Vec<String>) -> Self {
        Self { nodes, changed: None, looked: now }
    }

    /// Whether to look now.
    pub fn due(&mut self, now: Instant, nodes: Vec<String>) -> bool {
        let changed = self.nodes != nodes;
        if changed {
            (self.nodes, self.changed) = (nodes, Some(now));
        }
        let unsettled = self.changed.is_some_and(|at| now.saturating_duration_since(at) < SETTLED);
        let pause = if unsettled { LOOK_SOON } else { LOOK_EVERY };
        let due = changed || now.saturating_duration_since(self.looked) >= pause;
        if due {
            self.looked = now;
        }
        due
    }
}

/// What is complained of again and again is said once, and then every half minute.
#[derive(Debug, Default)]
pub struct Repeats {
    said: Option<(String, Instant)>,
    times: u32,
}

const SAY_AGAIN: Duration = Duration::from_secs(30);

impl Repeats {
    /// How often it has happened, if it is to be said now.
    pub fn say(&mut self, complaint: &str, now: Instant) -> Option<u32> {
        let same = self.said.as_ref().is_some_and(|(said, _)| said == complaint);
        self.times = if same { self.times.saturating_add(1) } else { 1 };
        if same && self.said.as_ref().is_some_and(|(_, at)| now.saturating_duration_since(*at) < SAY_AGAIN) {
            return None;
        }
        self.said = Some((complaint.to_owned(), now));
        Some(self.times)
    }

    /// All is well: the next complaint is said at once.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// Whether there has been a complaint since all was well.
    pub fn any(&self) -> bool {
        self.said.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: Duration = Duration::from_millis(33);

    fn passed(started: Instant, last_in: Option<Instant>, last_out: Option<Instant>) -> Passed {
        Passed { stream: 0, started, first_in: last_in.map(|_| started), last_in, last_out }
    }

    fn stalled(
        now: Instant,
        started: Instant,
        last_in: Option<Instant>,
        last_out: Option<Instant>,
        interval: Duration,
    ) -> Option<Failure> {
        super::stalled(now, &passed(started, last_in, last_out), interval)
    }

    #[test]
    fn an_encoder_that_never_gives_anything_is_told_from_a_camera_that_starts_slowly() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let taken_since = |first_in| Passed {
            stream: 0,
            started: start,
            first_in: Some(first_in),
            last_in: Some(at(12)),
            last_out: None,
        };
        assert_eq!(super::stalled(at(12), &taken_since(at(8)), FRAME), None, "the camera took eight seconds");
        let failure = super::stalled(at(14), &taken_since(at(8)), FRAME).expect("a stall");
        assert!(
            matches!(&failure, Failure::Encoder { reason, .. } if reason.contains("gave nothing for 5 s")),
            "{failure}"
        );
    }

    #[test]
    fn a_stream_without_keyframes_is_told_from_one_with_rare_ones() {
        let told = |lasted, interval: Option<u64>, recovery_points| {
            let interval = interval.map(Duration::from_secs);
            keyless(&Keyless { lasted: Duration::from_secs(lasted), interval, recovery_points })
        };
        let (waits, none) = (Some(Problem::NoKeyframeFor(KEYLESS_AFTER)), Some(Problem::NoKeyframes));
        let joined = [7, 8, 30, 31].map(|lasted| told(lasted, None, 0));
        assert_eq!(joined, [None, waits, waits, none], "it may have been joined in the middle of a group");
        assert_eq!(told(8, None, 3), none, "recovery points instead of keyframes");
        assert_eq!(told(60, Some(0), 0), None, "rare, as far as is known");
        assert_eq!(told(9, Some(0), 9), none, "one at the start, then only refreshes");
        assert_eq!([told(30, Some(20), 30), told(41, Some(20), 41)], [None, none], "recovery points between keyframes");
    }

    fn still(since: Instant, until: Instant, has_changed: bool) -> Option<Still> {
        let looks = 4 * (until - since).as_secs() as u32 + 1;
        Some(Still { checksum: 7, since, until, looks, has_changed })
    }

    #[test]
    fn a_picture_that_does_not_change_at_all_is_said_once_and_so_is_its_end() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut watch = FrozenWatch::new(Some(Duration::from_secs(5)), false);
        assert_eq!(watch.check(None), None);
        assert_eq!(watch.check(still(at(0), at(4), false)), None);
        assert_eq!(watch.check(still(at(0), at(5), false)), Some(Some(Duration::from_secs(5))));
        assert_eq!(watch.check(still(at(0), at(60), false)), None);
        assert_eq!(watch.check(still(at(60), at(60), true)), Some(None));
        assert_eq!(watch.check(still(at(60), at(61), true)), None);
    }

    #[test]
    fn what_is_at_rest_on_purpose_is_not_frozen() {
        let start = Instant::now();
        let later = start + Duration::from_secs(60);
        let mut user = FrozenWatch::new(Some(Duration::from_secs(5)), true);
        assert_eq!(user.check(still(start, later, false)), None, "never anything else");
        assert!(user.check(still(start, later, true)).is_some(), "it has moved before");
        let mut off = FrozenWatch::new(None, false);
        assert_eq!(off.check(still(start, later, true)), None);
        let mut seldom = FrozenWatch::new(Some(Duration::from_secs(5)), false);
        let two = still(start, later, true).map(|still| Still { looks: 2, ..still });
        assert_eq!(seldom.check(two), None, "a picture a minute");
    }

    #[test]
    fn cameras_are_looked_for_when_the_devices_change_and_every_two_seconds() {
        let start = Instant::now();
        let mut look = CameraLook::new(start, Vec::new());
        let mut looks = |from: u64, to: u64, nodes: &[&str]| {
            let due = |ms: &u64| {
                let nodes = nodes.iter().map(|node| (*node).to_owned()).collect();
                look.due(start + Duration::from_millis(*ms), nodes)
            };
            (from..to).step_by(250).filter(due).collect::<Vec<_>>()
        };
        assert_eq!(looks(250, 5_000, &[]), [2_000, 4_000]);
        assert_eq!(looks(5_000, 6_500, &["video0"]), [5_000, 5_500, 6_000], "it may take a moment until it answers");
        assert_eq!(looks(11_000, 16_000, &["video0"]), [11_000, 13_000, 15_000]);
        assert_eq!(looks(16_000, 16_250, &[]), [16_000]);
    }

    #[test]
    fn a_complaint_is_said_once_and_then_every_half_minute() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut repeats = Repeats::default();
        let said: Vec<_> = (0..62).filter_map(|s| Some((s, repeats.say("no camera", at(s))?))).collect();
        assert_eq!(said, [(0, 1), (30, 31), (60, 61)]);
        assert_eq!(repeats.say("no password", at(62)), Some(1), "another one at once");
        repeats.reset();
        assert!(!repeats.any());
        assert_eq!(repeats.say("no password", at(63)), Some(1));
    }

    #[test]
    fn a_stall_is_noticed_after_a_second_or_ten_intervals() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        assert_eq!(stalled(at(900), start, None, Some(start), FRAME), None);
        assert!(stalled(at(1_001), start, None, Some(start), FRAME).is_some());
        let slow = Duration::from_millis(500);
        assert_eq!(stalled(at(4_900), start, None, Some(start), slow), None);
        assert!(stalled(at(5_001), start, None, Some(start), slow).is_some());
    }

    #[test]
    fn a_camera_has_ten_seconds_to_start() {
        let start = Instant::now();
        assert_eq!(stalled(start + Duration::from_secs(9), start, None, None, FRAME), None);
        assert!(stalled(start + Duration::from_secs(11), start, None, None, FRAME).is_some());
    }

    #[test]
    fn a_dead_source_and_a_dead_encoder_are_told_apart() {
        let start = Instant::now();
        let now = start + Duration::from_secs(3);
        let encoder = stalled(now, start, Some(now), Some(start), FRAME).expect("a stall");
        let source = stalled(now, start, Some(start), Some(start), FRAME).expect("a stall");
        assert!(matches!((&encoder, &source), (Failure::Encoder { .. }, Failure::Source(_))), "{encoder}; {source}");
    }

    #[test]
    fn an_encoder_is_replaced_when_it_gives_nothing_or_fails_again_and_again() {
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        let (encoder, source) =
            (Failure::Encoder { stream: 0, reason: "hangs".to_owned() }, Failure::Source("unplugged".to_owned()));
        let replaced = |lives: &[Option<Duration>]| {
            let mut watch = EncoderWatch::default();
            lives.iter().map(|life| watch.failed(&encoder, *life, false)).collect::<Vec<_>>()
        };
        assert_eq!(replaced(&[None, None, None, None]), [false, true, false, true], "each has a second chance");
        assert_eq!(replaced(&[None, seconds(60), None]), [false; 3], "slow starts, and well in between");
        assert_eq!(replaced(&[seconds(2), seconds(3), seconds(2)]), [false, false, true]);
        assert_eq!(replaced(&[seconds(2), None]), [false, true]);
        assert_eq!(replaced(&[seconds(2), seconds(2), seconds(60), seconds(2)]), [false; 4], "well in between");
        assert_eq!(replaced(&[seconds(11), seconds(60), seconds(600)]), [false, false, true], "well for a while");
        assert_eq!(replaced(&[seconds(60), seconds(60), seconds(700), seconds(60)]), [false; 4], "well for long");
        for life in [None, seconds(7), seconds(700)] {
            assert!(EncoderWatch::default().failed(&encoder, life, true), "it hangs after {life:?}");
        }
        let mut watch = EncoderWatch::default();
        assert!((0..20).all(|_| !watch.failed(&source, None, false) && !watch.failed(&source, seconds(1), true)));
        assert!(!watch.failed(&encoder, None, false) && !watch.failed(&source, None, false));
        assert!(watch.failed(&encoder, None, false), "a source that failed in between says nothing of the encoder");
    }

    #[test]
    fn keyframe_requests_within_200_ms_become_one() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut gate = KeyframeGate::default();
        assert!(gate.request(at(0)), "the first at once");
        assert!(!gate.request(at(50)));
        assert!(!gate.request(at(100)));
        assert_eq!(gate.deadline(), Some(at(200)));
        assert!(!gate.due(at(199)));
        assert!(gate.due(at(200)), "the two later ones, once");
        assert!(!gate.due(at(500)));
        assert_eq!(gate.deadline(), None);
    }
}
