//! Decides when the encoder rests because nobody looks. Pure: takes `now`.

use std::time::{Duration, Instant};

use crate::pipeline::BranchCounters;

/// What is to be done with the encoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Rest,
    Wake,
}

/// Of one pipeline, which begins awake.
#[derive(Debug)]
pub struct Rest {
    /// So long after the last who looked has gone.
    linger: Duration,
    state: State,
    /// Up to here nothing was asked of the encoder: when the source's last picture came while it rested.
    excused: Option<Instant>,
    /// How long it rested in all, without the rest that goes on.
    rested: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// How many access units had come when it was woken; none: it has not rested yet.
    Awake(Option<u64>),
    Resting,
}

impl Rest {
    pub fn after(linger: Duration) -> Self {
        Self { linger, state: State::Awake(None), excused: None, rested: Duration::ZERO }
    }

    /// `idle_since`: when the last who looked has gone; none while somebody does. It rests only after it has shown that
    /// it works, when it began and each time that it was woken.
    pub fn change(&mut self, now: Instant, idle_since: Option<Instant>, counters: &BranchCounters) -> Option<Change> {
        let idle = idle_since.is_some_and(|since| now.saturating_duration_since(since) >= self.linger);
        match self.state {
            State::Awake(before) if idle && counters.frames_out > before.unwrap_or(0) => {
                self.state = State::Resting;
                Some(Change::Rest)
            }
            State::Resting if !idle => {
                self.state = State::Awake(Some(counters.frames_out));
                self.excused = counters.last_in;
                self.rested += counters.last_out.map_or(Duration::ZERO, |last| now.saturating_duration_since(last));
                Some(Change::Wake)
            }
            _ => None,
        }
    }

    pub fn is_resting(&self) -> bool {
        self.state == State::Resting
    }

    /// How long pictures have been coming out: a rest proves nothing, and one that fails each time that it is woken was
    /// never well. None before the first picture.
    pub fn lived(&self, counters: &BranchCounters) -> Option<Duration> {
        let lasted = counters.last_out?.saturating_duration_since(counters.first_out?);
        Some(lasted.saturating_sub(self.rested))
    }

    /// Whether a keyframe comes anyway: the first picture after a rest is one, or [`GraphEvent::NoKeyframe`] says that
    /// it is not.
    ///
    /// [`GraphEvent::NoKeyframe`]: crate::pipeline::GraphEvent::NoKeyframe
    pub fn gives_keyframe(&self, frames_out: u64) -> bool {
        match self.state {
            State::Awake(before) => before == Some(frames_out),
            State::Resting => true,
        }
    }

    /// Since when the encoder owes a picture, for the watchdog: what it need not encode counts as encoded, so that a
    /// source that falls silent is noticed meanwhile as ever.
    pub fn last_out(&mut self, counters: &BranchCounters) -> Option<Instant> {
        if self.is_resting() {
            self.excused = counters.last_in;
        }
        counters.last_out.max(self.excused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINGER: Duration = Duration::from_secs(5);
    use crate::pipeline::Failure;
    use crate::watchdog::{self, Passed};

    const FRAME: Duration = Duration::from_millis(33);

    fn counters(frames_out: u64, last_in: Instant, last_out: Option<Instant>) -> BranchCounters {
        BranchCounters { frames_out, last_in: Some(last_in), last_out, ..BranchCounters::default() }
    }

    #[test]
    fn it_rests_five_seconds_after_the_last_has_gone_and_wakes_at_once() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let given = |ms| counters(100, at(ms), Some(at(ms)));
        let mut rest = Rest::after(LINGER);
        assert_eq!(rest.change(at(60_000), None, &given(60_000)), None, "somebody looks");
        assert_eq!(rest.change(at(64_900), Some(at(60_000)), &given(64_900)), None);
        assert_eq!(rest.change(at(65_000), Some(at(60_000)), &given(65_000)), Some(Change::Rest));
        assert!(rest.is_resting());
        assert_eq!(rest.change(at(70_000), Some(at(60_000)), &given(65_000)), None);
        assert_eq!(rest.change(at(70_001), None, &given(65_000)), Some(Change::Wake));
        assert!(!rest.is_resting());
    }

    #[test]
    fn a_rest_is_no_life() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let out =
            |number, last| BranchCounters { first_out: Some(at(1)), ..counters(number, at(last), Some(at(last))) };
        let mut rest = Rest::after(LINGER);
        assert_eq!(rest.lived(&BranchCounters::default()), None);
        assert_eq!(rest.lived(&out(100, 4)), Some(Duration::from_secs(3)));
        assert_eq!(rest.change(at(9), Some(at(4)), &out(250, 9)), Some(Change::Rest));
        assert_eq!(rest.lived(&out(250, 9)), Some(Duration::from_secs(8)));
        // It is woken after an hour, gives one picture and fails.
        assert_eq!(rest.change(at(3_609), None, &out(250, 9)), Some(Change::Wake));
        assert_eq!(rest.lived(&out(251, 3_610)), Some(Duration::from_secs(9)));
    }

    #[test]
    fn who_has_come_and_gone_in_between_wakes_it_too() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut rest = Rest::after(LINGER);
        assert_eq!(rest.change(at(5), Some(start), &counters(1, at(5), Some(at(5)))), Some(Change::Rest));
        assert_eq!(rest.change(at(9), Some(at(9)), &counters(1, at(9), Some(at(5)))), Some(Change::Wake));
        assert_eq!(rest.change(at(13), Some(at(9)), &counters(9, at(13), Some(at(13)))), None);
        assert_eq!(rest.change(at(14), Some(at(9)), &counters(9, at(14), Some(at(14)))), Some(Change::Rest));
    }

    #[test]
    fn it_has_to_give_a_picture_before_it_may_rest() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut rest = Rest::after(LINGER);
        let rebuilt = Some(start);
        assert_eq!(rest.change(at(60), rebuilt, &counters(0, at(60), None)), None, "a new pipeline");
        assert_eq!(
            rest.change(at(61), rebuilt, &counters(1, at(61), Some(at(61)))),
            Some(Change::Rest),
            "then at once"
        );
        assert_eq!(rest.change(at(70), None, &counters(1, at(70), Some(at(61)))), Some(Change::Wake));
        assert_eq!(rest.change(at(80), Some(at(71)), &counters(1, at(80), Some(at(61)))), None, "nothing since");
    }

    #[test]
    fn a_keyframe_is_asked_for_once_where_the_first_picture_after_a_rest_is_one() {
        let start = Instant::now();
        let later = start + LINGER;
        let mut rest = Rest::after(LINGER);
        assert!(!rest.gives_keyframe(0), "what is passed through may begin with any picture");
        rest.change(later, Some(start), &counters(7, later, Some(later)));
        assert!(rest.gives_keyframe(7));
        rest.change(later, None, &counters(7, later, Some(later)));
        assert!(rest.gives_keyframe(7));
        assert!(!rest.gives_keyframe(8));
    }

    #[test]
    fn while_it_rests_the_source_is_watched_and_the_encoder_is_again_when_it_wakes() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut rest = Rest::after(LINGER);
        let stalled = |rest: &mut Rest, now, counters: &BranchCounters| {
            let (first_in, last_in, last_out) = (Some(start), counters.last_in, rest.last_out(counters));
            watchdog::stalled(now, &Passed { stream: 0, started: start, first_in, last_in, last_out }, FRAME)
        };
        rest.change(at(5_000), Some(start), &counters(9, at(5_000), Some(at(5_000))));
        let fine = counters(9, at(60_000), Some(at(5_000)));
        assert_eq!(stalled(&mut rest, at(60_010), &fine), None);
        let silent = stalled(&mut rest, at(61_010), &fine).expect("the source has fallen silent");
        assert!(matches!(silent, Failure::Source(_)), "{silent}");
        let fine = counters(9, at(70_000), Some(at(5_000)));
        assert_eq!(rest.change(at(70_010), None, &fine), Some(Change::Wake));
        assert_eq!(stalled(&mut rest, at(70_900), &counters(9, at(70_900), Some(at(5_000)))), None);
        let hung = stalled(&mut rest, at(71_100), &counters(9, at(71_100), Some(at(5_000)))).expect("a stall");
        assert!(matches!(hung, Failure::Encoder { .. }), "{hung}");
    }
}
