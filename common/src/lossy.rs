//! An IP camera whose packets are lost on their way by UDP: when a new session with it, by TCP where nothing is lost,
//! brings the picture back sooner than its next keyframe, and when UDP is left for that. Pure; takes `now`.

use std::time::{Duration, Instant};

use crate::backoff::Backoff;

/// A camera that makes keyframes on request (RTCP PLI) has sent one by then.
pub const ANSWER: Duration = Duration::from_secs(1);
/// What a new session takes to its first picture.
const SESSION: Duration = Duration::from_secs(2);
/// From keyframe to keyframe, until two have come.
const USUAL: Duration = Duration::from_millis(2_500);
/// Between attempts by TCP, each of which costs the picture, with a camera where that does not work.
const RETRY_MIN: Duration = Duration::from_secs(30);
const RETRY_MAX: Duration = Duration::from_secs(600);

/// When a camera's keyframes come.
#[derive(Clone, Copy, Debug, Default)]
pub struct Keyframes {
    last: Option<Instant>,
    interval: Option<Duration>,
}

impl Keyframes {
    /// One has come, whole or not.
    pub fn came(&mut self, now: Instant) {
        let before = self.last.replace(now);
        self.interval = before.map(|at| now.saturating_duration_since(at)).or(self.interval);
    }

    #[must_use]
    pub fn last(&self) -> Option<Instant> {
        self.last
    }

    /// Between the last two that came in a row.
    #[must_use]
    pub fn interval(&self) -> Option<Duration> {
        self.interval
    }

    /// What comes from now on does not follow what came before; it may come as often.
    pub fn begin_anew(&mut self) {
        self.last = None;
    }

    /// Whether a new session is worth more than the next keyframe, which is waited for, and asked for, `since` then.
    pub fn are_too_far(&self, since: Instant, now: Instant) -> bool {
        let Some(last) = self.last.filter(|_| now.saturating_duration_since(since) >= ANSWER) else { return false };
        let age = now.saturating_duration_since(last);
        let is_late = age >= 2 * self.interval.unwrap_or(USUAL).max(USUAL);
        let is_far = self.interval.and_then(|interval| interval.checked_sub(age)).is_some_and(|left| left > SESSION);
        is_late || is_far
    }
}

/// By what a camera is asked to send, in one session after the other.
#[derive(Debug)]
pub struct Path {
    is_tcp: bool,
    /// Not before is UDP left again.
    not_before: Option<Instant>,
    pauses: Backoff,
}

impl Default for Path {
    fn default() -> Self {
        Self { is_tcp: false, not_before: None, pauses: Backoff::new(RETRY_MIN, RETRY_MAX) }
    }
}

impl Path {
    /// TCP alone; otherwise UDP, and TCP where that does not get through.
    pub fn is_tcp(&self) -> bool {
        self.is_tcp
    }

    /// Whether UDP may be left now.
    pub fn may_change(&self, now: Instant) -> bool {
        !self.is_tcp && self.not_before.is_none_or(|at| now >= at)
    }

    /// The next sessions are by TCP.
    pub fn change(&mut self) {
        self.is_tcp = true;
    }

    /// A session has given no picture; true: it was by TCP, and the next ones are by UDP again.
    pub fn failed(&mut self, now: Instant) -> bool {
        let was_tcp = std::mem::take(&mut self.is_tcp);
        if was_tcp {
            self.not_before = Some(now + self.pauses.next_delay());
        }
        was_tcp
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a wait that began at `since` is too long at `now`, after keyframes at these times, in seconds.
    fn too_far(came: &[f64], since: f64, now: f64) -> bool {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs_f64(seconds);
        let mut keyframes = Keyframes::default();
        came.iter().for_each(|seconds| keyframes.came(at(*seconds)));
        keyframes.are_too_far(at(since), at(now))
    }

    #[test]
    fn frequent_keyframes_are_waited_for() {
        assert!(!too_far(&[0.0, 2.0, 4.0], 4.5, 6.0));
        assert!(!too_far(&[0.0, 2.0, 4.0], 4.5, 8.9), "one was lost, the next is on its way");
        assert!(too_far(&[0.0, 2.0, 4.0], 4.5, 9.0), "two were");
    }

    #[test]
    fn of_rare_ones_only_that_which_is_near_is_waited_for() {
        assert!(!too_far(&[0.0, 20.0], 25.0, 25.9), "the camera may answer");
        assert!(too_far(&[0.0, 20.0], 25.0, 26.0));
        assert!(!too_far(&[0.0, 20.0], 37.0, 38.5), "due in 1.5 s");
        assert!(!too_far(&[0.0, 20.0], 37.0, 41.0), "it may have been what was lost");
    }

    #[test]
    fn before_two_have_come_they_are_expected_soon() {
        assert!(!too_far(&[0.0], 1.0, 4.9));
        assert!(too_far(&[0.0], 1.0, 5.0) && too_far(&[0.0], 8.0, 9.0));
        assert!(!too_far(&[], 1.0, 60.0), "it may have none at all");
    }

    #[test]
    fn a_camera_without_tcp_is_asked_for_it_ever_more_rarely() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut path = Path::default();
        assert!(!path.failed(at(0)) && path.may_change(at(0)), "that was by UDP");
        path.change();
        assert!(path.is_tcp() && !path.may_change(at(1)));
        assert!(path.failed(at(1)) && !path.is_tcp() && !path.may_change(at(30)) && path.may_change(at(31)));
        path.change();
        assert!(path.failed(at(32)) && !path.may_change(at(91)) && path.may_change(at(92)));
    }
}
