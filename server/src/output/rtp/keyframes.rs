//! When to ask for a keyframe, as nobody who watches can. Pure: time is passed in.

use std::time::{Duration, Instant};

/// An encoder that is asked again and again only makes the pictures worse, and H.264 that is passed through never
/// obeys.
const LEAST_REPEAT: Duration = Duration::from_millis(500);

/// Sees each frame, and decides whether to ask now.
pub(super) struct Keyframes {
    /// From one keyframe to the next, at most.
    interval: Duration,
    last: Option<Instant>,
    /// Receivers have only a part of a frame.
    damaged: bool,
    /// Since the newest keyframe: when it was asked for first, and last.
    asked: Option<(Instant, Instant)>,
    /// How long the last answer took.
    answer: Option<Duration>,
}

impl Keyframes {
    pub fn new(interval: Duration) -> Self {
        Self { interval, last: None, damaged: false, asked: None, answer: None }
    }

    /// A frame was not sent whole: what follows cannot be decoded until the next keyframe.
    pub fn damaged(&mut self) {
        self.damaged = true;
    }

    /// True when a keyframe is to be asked for. For each frame, at the moment that it comes from the encoder;
    /// `frame` is the time from one to the next.
    pub fn wanted(&mut self, now: Instant, keyframe: bool, frame: Duration) -> bool {
        if keyframe {
            if let Some((first, _)) = self.asked.take() {
                self.answer = Some(now.saturating_duration_since(first));
            }
            self.last = Some(now);
            self.damaged = false;
            return false;
        }
        // Asked at the next frame, it would come too late. An encoder needs a frame or two, and what it needed last is
        // what it will need; an answer that took very long says nothing.
        let answer = self.answer.unwrap_or(frame * 2).min(self.interval / 2);
        let too_old = self.last.is_none_or(|last| now + frame + answer > last + self.interval);
        let waits = self.asked.is_some_and(|(_, last)| now < last + self.interval.max(LEAST_REPEAT));
        if waits || !(too_old || self.damaged) {
            return false;
        }
        self.asked = Some((self.asked.map_or(now, |(first, _)| first), now));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: Duration = Duration::from_micros(33_333);
    const SECOND: Duration = Duration::from_secs(1);

    /// Runs frames through it, with an encoder that gives a keyframe so many frames after it was asked; gives the
    /// longest spacing of keyframes in frames, and how often it was asked.
    fn simulate(keyframes: &mut Keyframes, frames: u32, answers_after: Option<u32>) -> (u32, u32) {
        let start = Instant::now();
        let (mut last, mut longest, mut asked, mut due) = (0, 0, 0, Some(0));
        for n in 0..frames {
            let keyframe = due == Some(n);
            longest = longest.max(n - last);
            if keyframe {
                last = n;
            }
            if keyframes.wanted(start + FRAME * n, keyframe, FRAME) {
                asked += 1;
                due = answers_after.map(|frames| n + frames);
            }
        }
        (longest, asked)
    }

    #[test]
    fn keyframes_come_within_the_interval_and_hardly_more_often() {
        for answers_after in 1..=6 {
            let (longest, asked) = simulate(&mut Keyframes::new(SECOND), 300, Some(answers_after));
            // Only the first one may be late, when the encoder is slower than the two frames that are allowed for.
            let first = 30 + answers_after.saturating_sub(2);
            assert!(longest <= first, "answers after {answers_after}: {longest} frames");
            assert!((9..=12).contains(&asked), "answers after {answers_after}: asked {asked} times in ten seconds");
        }
    }

    #[test]
    fn what_is_not_answered_is_repeated_once_an_interval() {
        let (_, asked) = simulate(&mut Keyframes::new(SECOND), 300, None);
        assert!((8..=10).contains(&asked), "{asked}");
    }

    #[test]
    fn a_frame_sent_in_part_is_followed_by_one_request_until_the_keyframe() {
        let start = Instant::now();
        let mut keyframes = Keyframes::new(SECOND);
        assert!(!keyframes.wanted(start, true, FRAME));
        assert!(!keyframes.wanted(start + FRAME, false, FRAME));
        keyframes.damaged();
        assert!(keyframes.wanted(start + FRAME * 2, false, FRAME));
        assert!(!keyframes.wanted(start + FRAME * 3, false, FRAME));
        assert!(!keyframes.wanted(start + FRAME * 4, true, FRAME));
        assert!(!keyframes.wanted(start + FRAME * 5, false, FRAME));
    }
}
