//! Which access units may be decoded: none from a gap until the next whole keyframe, since a picture with errors is
//! never shown. Pure; takes `now`.

use std::time::{Duration, Instant};

/// The shortest time between two requests for a keyframe, whatever happens: a request that is on its way is enough.
const COALESCE: Duration = Duration::from_millis(200);
/// How long to wait for a requested keyframe before asking again.
const REPEAT: Duration = Duration::from_millis(500);

/// Closed at the start and after each loss, opened by a keyframe.
#[derive(Debug)]
pub struct KeyframeGate {
    state: State,
    asked_at: Option<Instant>,
}

#[derive(Debug)]
enum State {
    Open,
    /// Nothing was decided yet: the stream begins with a keyframe by itself.
    Joining,
    Closed {
        reason: String,
        /// Something was lost since the last request, so that the keyframe asked for may be what was lost.
        urgent: bool,
    },
}

impl KeyframeGate {
    /// Closed until the first keyframe. Joining a stream counts as having asked for one at `now`.
    pub fn new(now: Instant) -> Self {
        Self { state: State::Joining, asked_at: Some(now) }
    }

    /// The first packet came: the first keyframe is on its way only now.
    pub fn joined(&mut self, now: Instant) {
        if matches!(self.state, State::Joining) {
            self.asked_at = Some(now);
        }
    }

    /// Closed in the middle of a stream, so that a keyframe must be asked for at once.
    pub fn mid_stream(reason: impl Into<String>) -> Self {
        Self { state: State::Closed { reason: reason.into(), urgent: true }, asked_at: None }
    }

    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Open)
    }

    /// Part of the stream is missing, or the decoder started anew: nothing is decoded until the next keyframe.
    pub fn close(&mut self, reason: impl Into<String>) {
        // The keyframe of the start is spoilt, and no other is on its way.
        if matches!(self.state, State::Joining) {
            self.asked_at = None;
        }
        self.state = State::Closed { reason: reason.into(), urgent: true };
    }

    /// Whether this access unit may be decoded. `intact`: none of its packets is missing.
    pub fn admit(&mut self, keyframe: bool, intact: bool) -> bool {
        if !intact {
            if !matches!(self.state, State::Closed { .. }) {
                self.close("an incomplete picture");
            }
            return false;
        }
        if keyframe {
            self.state = State::Open;
        } else if matches!(self.state, State::Joining) {
            self.close("the stream began without a keyframe");
        }
        self.is_open()
    }

    /// The reason, if a keyframe should be asked for now. Asking is taken as done.
    pub fn request_due(&mut self, now: Instant) -> Option<String> {
        let (wait, reason) = match &self.state {
            State::Open => return None,
            State::Joining => (REPEAT, "no keyframe yet"),
            State::Closed { reason, urgent } => (if *urgent { COALESCE } else { REPEAT }, reason.as_str()),
        };
        if self.asked_at.is_some_and(|asked| now.saturating_duration_since(asked) < wait) {
            return None;
        }
        let reason = reason.to_owned();
        self.state = State::Closed { reason: reason.clone(), urgent: false };
        self.asked_at = Some(now);
        Some(reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn nothing_passes_before_the_first_keyframe() {
        let mut gate = KeyframeGate::new(Instant::now());
        assert!(!gate.admit(false, true));
        assert!(gate.admit(true, true));
        assert!(gate.admit(false, true));
    }

    #[test]
    fn after_a_loss_nothing_passes_until_a_whole_keyframe() {
        let mut gate = KeyframeGate::new(Instant::now());
        assert!(gate.admit(true, true));
        gate.close("1 packet lost");
        assert!(!gate.admit(false, true), "a picture that refers to a missing one");
        assert!(!gate.admit(true, false), "a keyframe with a hole");
        assert!(!gate.admit(false, true));
        assert!(gate.admit(true, true));
        assert!(gate.admit(false, true));
    }

    #[test]
    fn an_incomplete_unit_closes_the_gate() {
        let mut gate = KeyframeGate::new(Instant::now());
        assert!(gate.admit(true, true));
        assert!(!gate.admit(false, false));
        assert!(!gate.admit(false, true));
    }

    #[test]
    fn a_loss_asks_at_once_and_again_each_half_second() {
        let start = Instant::now();
        let mut gate = KeyframeGate::new(start);
        assert!(gate.admit(true, true));
        let lost = start + ms(1000);
        gate.close("2 packets lost");
        assert_eq!(gate.request_due(lost).as_deref(), Some("2 packets lost"));
        assert_eq!(gate.request_due(lost + ms(499)), None);
        assert!(gate.request_due(lost + ms(500)).is_some());
        assert!(gate.admit(true, true));
        assert_eq!(gate.request_due(lost + ms(5000)), None);
    }

    #[test]
    fn losses_that_follow_each_other_are_asked_about_five_times_a_second_at_most() {
        let start = Instant::now();
        let mut gate = KeyframeGate::new(start);
        gate.admit(true, true);
        let mut asked = 0;
        for step in 1..=100 {
            gate.close("lost");
            asked += u32::from(gate.request_due(start + ms(10 * step)).is_some());
        }
        assert_eq!(asked, 5);
    }

    #[test]
    fn a_start_without_keyframe_asks_after_half_a_second() {
        let start = Instant::now();
        let mut gate = KeyframeGate::new(start);
        assert_eq!(gate.request_due(start + ms(499)), None);
        assert_eq!(gate.request_due(start + ms(500)).as_deref(), Some("no keyframe yet"));
    }

    #[test]
    fn the_keyframe_of_the_start_is_waited_for_from_the_first_packet_on() {
        let start = Instant::now();
        let mut gate = KeyframeGate::new(start);
        let joined = start + ms(3000);
        gate.joined(joined);
        assert_eq!(gate.request_due(joined + ms(499)), None);
        assert!(gate.request_due(joined + ms(500)).is_some());
        gate.joined(joined + ms(600));
        assert!(gate.request_due(joined + ms(1000)).is_some(), "once only");
    }

    #[test]
    fn a_start_whose_keyframe_is_spoilt_asks_at_once() {
        for (keyframe, intact) in [(true, false), (false, true)] {
            let start = Instant::now();
            let mut gate = KeyframeGate::new(start);
            assert!(!gate.admit(keyframe, intact));
            assert!(gate.request_due(start + ms(1)).is_some());
            assert!(!gate.admit(keyframe, intact));
            assert_eq!(gate.request_due(start + ms(400)), None);
        }
    }
}
