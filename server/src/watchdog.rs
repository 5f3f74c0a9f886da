//! Decides when a pipeline has stalled and when a keyframe request goes to the encoder. Pure: takes `now`.

use std::time::{Duration, Instant};

/// A pipeline that gives its first picture later than this is taken for dead: cameras may take some seconds to start.
const FIRST_FRAME: Duration = Duration::from_secs(10);
const SHORTEST_STALL: Duration = Duration::from_secs(1);
const STALL_INTERVALS: u32 = 10;

/// Several viewers asking at once get one keyframe; after that one, the next no sooner than this.
pub const KEYFRAME_SPACING: Duration = Duration::from_millis(200);

/// How long no picture may come before a pipeline is restarted: one second, or ten frame intervals if that is longer.
pub fn stall_limit(frame_interval: Duration) -> Duration {
    (frame_interval * STALL_INTERVALS).max(SHORTEST_STALL)
}

/// The reason to restart, if there is one. `last_out` is the last picture out of this pipeline, `last_in` the last raw
/// picture that the source gave.
pub fn stalled(
    now: Instant,
    started: Instant,
    last_in: Option<Instant>,
    last_out: Option<Instant>,
    frame_interval: Duration,
) -> Option<String> {
    let Some(last_out) = last_out else {
        let waited = now.saturating_duration_since(started);
        return (waited > FIRST_FRAME).then(|| format!("no picture within {} s of starting", FIRST_FRAME.as_secs()));
    };
    let limit = stall_limit(frame_interval);
    if now.saturating_duration_since(last_out) <= limit {
        return None;
    }
    let seconds = limit.as_secs_f64();
    let source_alive = last_in.is_some_and(|at| now.saturating_duration_since(at) <= limit);
    Some(if source_alive {
        format!("the encoder gave nothing for {seconds:.1} s although pictures went in")
    } else {
        format!("the source gave no picture for {seconds:.1} s")
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: Duration = Duration::from_millis(33);

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
        assert!(encoder.contains("encoder") && source.contains("source"), "{encoder}; {source}");
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
