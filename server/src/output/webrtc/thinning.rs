//! What a viewer is sent of a stream that is too much for its link, and how often it may ask for keyframes. Pure: time
//! is passed in.
//!
//! A viewer may be sent what its link carries. One that is sent more loses the rest up to the next keyframe: an old
//! picture would look live. Of a link much too slow little but keyframes remains.

use std::time::{Duration, Instant};

/// How much may go out at once, in time of the link: frames never wait for longer. Where the encoder follows the link
/// by itself, this is for what it cannot do: below the floor. Where nothing here encodes, a link that carries the
/// stream shall also carry its keyframes, which of cameras are as large as a dozen other frames, and come seldom.
const AT_ONCE: Duration = Duration::from_millis(150);
const FOLLOWED: Duration = Duration::from_millis(500);
const AS_IT_COMES: Duration = Duration::from_millis(300);

/// That time for a viewer; `encodes`: something here makes the stream, for the pilot's link.
pub fn at_once(pilot: bool, encodes: bool) -> Duration {
    match (pilot, encodes) {
        (true, true) => FOLLOWED,
        (false, true) => AT_ONCE,
        (_, false) => AS_IT_COMES,
    }
}

/// The pilot's requests for keyframes while the one that was asked for has not been made: it takes a frame or two.
const PILOT_AGAIN: Duration = Duration::from_millis(200);
/// The same while it is thinned: the one that was asked for is on its way for some frames.
const PILOT_SPACING: Duration = Duration::from_millis(500);
/// A spectator's, which cost the pilot picture quality: of one that is thinned, and of any other.
const THINNED_SPACING: Duration = Duration::from_secs(2);
const SPECTATOR_SPACING: Duration = Duration::from_secs(1);

/// What may go out to a viewer.
#[derive(Debug, Default)]
pub struct Budget {
    /// Bits; below zero, a frame is larger than what there was.
    left: f64,
    refilled: Option<Instant>,
}

impl Budget {
    /// Whether a frame may go out over a link of `rate` bit/s, where so much may [`at_once`]. The first of a viewer
    /// may, however large it is.
    pub fn allows(&mut self, now: Instant, rate: f64, at_once: Duration) -> bool {
        let full = rate * at_once.as_secs_f64();
        let gained = self.refilled.map_or(full, |at| rate * now.saturating_duration_since(at).as_secs_f64());
        self.left = (self.left + gained).min(full);
        self.refilled = Some(now);
        self.left > 0.0
    }

    pub fn spend(&mut self, bytes: usize) {
        self.left -= bytes as f64 * 8.0;
    }

    /// Whether half of what may go out at once is there: after a keyframe there shall be some more frames.
    pub fn is_restored(&self, rate: f64) -> bool {
        self.left > rate * AT_ONCE.as_secs_f64() / 2.0
    }
}

/// The requests for keyframes of one viewer.
#[derive(Debug, Default)]
pub struct Requests {
    /// When one was asked for or made.
    last: Option<Instant>,
    wanted: bool,
    /// One was asked for, and has not been made.
    awaited: bool,
}

impl Requests {
    pub fn want(&mut self) {
        self.wanted = true;
    }

    /// Everything that was sent until `lost` was lost: whatever was asked for or made later mends it.
    pub fn want_since(&mut self, lost: Instant) {
        self.wanted |= self.last.is_none_or(|at| at <= lost);
    }

    /// Whether to ask the encoder now. What the pilot wants is asked for at once, unless its link is too slow for it.
    pub fn due(&mut self, now: Instant, pilot: bool, thinned: bool) -> bool {
        let spacing = match (pilot, thinned) {
            (true, false) if !self.awaited => Duration::ZERO,
            (true, false) => PILOT_AGAIN,
            (true, true) => PILOT_SPACING,
            (false, true) => THINNED_SPACING,
            (false, false) => SPECTATOR_SPACING,
        };
        let due = self.wanted && self.last.is_none_or(|at| now.saturating_duration_since(at) >= spacing);
        if due {
            (self.wanted, self.awaited, self.last) = (false, true, Some(now));
        }
        due
    }

    /// A keyframe was made, whoever asked for it: it is the one that was wanted. So many spectators that lose packets
    /// cost the pilot no more than one.
    pub fn made(&mut self, now: Instant) {
        (self.wanted, self.awaited, self.last) = (false, false, Some(now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_link_does_not_carry_is_not_sent() {
        let start = Instant::now();
        let mut budget = Budget::default();
        // 30 frames of 4 Mbit/s over a link of one.
        let sent = (0..300).filter(|i| {
            let allowed = budget.allows(start + Duration::from_millis(i * 33), 1e6, AT_ONCE);
            if allowed {
                budget.spend(16_667);
            }
            allowed
        });
        let bits = sent.count() as f64 * 16_667.0 * 8.0 / 9.9;
        assert!((0.9e6..1.2e6).contains(&bits), "{bits}");
    }

    #[test]
    fn a_large_frame_is_paid_for_before_the_next_one() {
        let start = Instant::now();
        let mut budget = Budget::default();
        assert!(budget.allows(start, 1e6, AT_ONCE));
        budget.spend(62_500);
        assert!(!budget.allows(start + Duration::from_millis(300), 1e6, AT_ONCE));
        assert!(budget.allows(start + Duration::from_millis(360), 1e6, AT_ONCE));
        assert!(!budget.is_restored(1e6));
        assert!(budget.allows(start + Duration::from_millis(500), 1e6, AT_ONCE) && budget.is_restored(1e6));
    }

    /// 4 Mbit/s with a keyframe each two seconds, over 6 Mbit/s.
    #[test]
    fn a_link_that_carries_a_cameras_stream_carries_its_keyframes() {
        let (start, mut budget) = (Instant::now(), Budget::default());
        for pilot in [true, false] {
            for i in 0..600 {
                let now = start + Duration::from_millis(i * 33);
                assert!(budget.allows(now, 5.1e6, at_once(pilot, false)), "{i}");
                budget.spend(if i % 60 == 0 { 145_000 } else { 14_500 });
            }
        }
    }

    #[test]
    fn a_keyframe_after_an_outage_is_wanted_once() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        for pilot in [true, false] {
            let mut requests = Requests::default();
            requests.made(at(0));
            // The viewer asks and reports, in whatever order, while the keyframe is on its way.
            requests.want_since(at(2_000));
            assert!(requests.due(at(2_040), pilot, false), "{pilot}");
            requests.want();
            assert!(!requests.due(at(2_060), pilot, false), "{pilot}");
            requests.want_since(at(2_000));
            requests.made(at(2_080));
            requests.want_since(at(2_000));
            assert!(!requests.due(at(9_000), pilot, false), "{pilot}");
        }
    }

    #[test]
    fn a_spectator_asks_for_keyframes_now_and_then_and_the_pilot_whenever_it_wants() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let asked = |pilot, thinned| {
            let mut requests = Requests::default();
            let all = (0..100).filter(|i| {
                requests.want();
                let due = requests.due(at(i * 100), pilot, thinned);
                // As far as the pilot's are answered at once.
                if due && pilot && !thinned {
                    requests.made(at(i * 100));
                }
                due
            });
            all.count()
        };
        assert_eq!((asked(true, false), asked(true, true), asked(false, false), asked(false, true)), (100, 20, 10, 5));
        let mut requests = Requests::default();
        requests.want();
        assert!(requests.due(at(0), false, false) && !requests.due(at(5_000), false, false), "once for one wish");
    }

    #[test]
    fn twenty_spectators_ask_for_no_more_keyframes_than_one() {
        let (start, mut made) = (Instant::now(), 0);
        let mut all: Vec<Requests> = (0..20).map(|_| Requests::default()).collect();
        for i in 0..100_usize {
            let now = start + Duration::from_millis(i as u64 * 100);
            // Each loses something twice a second, not all at once.
            all.iter_mut().skip(i % 5).step_by(5).for_each(Requests::want);
            if all.iter_mut().fold(false, |due, requests| requests.due(now, false, false) | due) {
                made += 1;
                all.iter_mut().for_each(|requests| requests.made(now + Duration::from_millis(30)));
            }
        }
        assert!((7..=10).contains(&made), "{made}");
    }
}
