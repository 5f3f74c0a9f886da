//! One time for pictures over all restarts of the pipeline: that of capture, as far as it is known at the first picture
//! of each. So what is known of one pipeline's times holds for the next: receivers tell by it how old a picture is.

use std::time::{Duration, Instant};

/// A picture whose timestamp has to be so much later than its time of capture at most is told to have been captured so
/// much later: whoever has the one from the other, as receivers of RTP, finds what others are told.
const CLOSE: Duration = Duration::from_millis(5);

/// Where a pipeline's first picture would be further back than this, the time does not wait for it: the time of capture
/// goes beside it.
const FURTHEST_BACK: Duration = Duration::from_secs(1);

/// Maps the timestamps of one pipeline after another onto one timeline that only moves forward.
pub struct Timeline {
    epoch: Instant,
    /// Pipeline time plus this is stream time; `None` until the first picture of a pipeline.
    offset: Option<i128>,
    last: Duration,
}

impl Timeline {
    pub fn new(epoch: Instant) -> Self {
        Self { epoch, offset: None, last: Duration::ZERO }
    }

    pub fn restart(&mut self) {
        self.offset = None;
    }

    /// The picture's time on it, and its time of capture.
    pub fn map(&mut self, pts: Duration, captured_at: Instant) -> (Duration, Instant) {
        let next = self.last + Duration::from_millis(1);
        let offset = *self.offset.get_or_insert_with(|| {
            let elapsed = captured_at.saturating_duration_since(self.epoch);
            let elapsed = if elapsed + FURTHEST_BACK < self.last { next } else { elapsed };
            elapsed.as_nanos() as i128 - pts.as_nanos() as i128
        });
        let mapped = Duration::from_nanos((pts.as_nanos() as i128 + offset).max(0) as u64);
        // Two access units never share an RTP timestamp: receivers would take them for one.
        let time = if self.last > Duration::ZERO { mapped.max(next) } else { mapped };
        self.last = time;
        let later = time - mapped;
        (time, if later <= CLOSE { captured_at + later } else { captured_at })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_go_on_after_a_restart() {
        let start = Instant::now();
        let mut timeline = Timeline::new(start);
        let at = |ms| start + Duration::from_millis(ms);
        let ms = Duration::from_millis;
        assert_eq!(timeline.map(ms(5), at(100)), (ms(100), at(100)));
        assert_eq!(timeline.map(ms(38), at(135)), (ms(133), at(135)));
        timeline.restart();
        assert_eq!(timeline.map(ms(2), at(3_000)).0, ms(3_000));
        assert_eq!(timeline.map(ms(35), at(3_050)).0, ms(3_033));
    }

    #[test]
    fn what_another_pipeline_captured_before_ends_up_at_its_own_time() {
        let start = Instant::now();
        let mut timeline = Timeline::new(start);
        let at = |ms| start + Duration::from_millis(ms);
        let ms = Duration::from_millis;
        assert_eq!(timeline.map(ms(500), at(1_000)).0, ms(1_000));
        timeline.restart();
        let mapped = [0, 33, 66].map(|pts| timeline.map(ms(pts), at(950 + pts)));
        assert_eq!(mapped, [(ms(1_001), at(950)), (ms(1_002), at(983)), (ms(1_016), at(1_016))]);
    }

    /// As of a camera whose clock is wrong.
    #[test]
    fn time_goes_on_where_the_first_picture_of_a_source_claims_a_great_age() {
        let start = Instant::now();
        let mut timeline = Timeline::new(start);
        let at = |ms| start + Duration::from_millis(ms);
        let ms = Duration::from_millis;
        assert_eq!(timeline.map(ms(500), at(20_000)).0, ms(20_000));
        timeline.restart();
        let mapped = [0, 33, 66].map(|pts| timeline.map(ms(pts), at(11_000 + pts)));
        assert_eq!(mapped, [(ms(20_001), at(11_000)), (ms(20_034), at(11_033)), (ms(20_067), at(11_066))]);
    }

    #[test]
    fn timestamps_never_repeat() {
        let start = Instant::now();
        let mut timeline = Timeline::new(start);
        let first = timeline.map(Duration::from_millis(50), start + Duration::from_millis(50));
        assert!(timeline.map(Duration::from_millis(50), start).0 > first.0);
    }

    #[test]
    fn pictures_that_were_captured_together_have_times_of_capture_as_their_timestamps() {
        let start = Instant::now();
        let mut timeline = Timeline::new(start);
        let us = Duration::from_micros;
        let mapped = [0, 33_000, 33_001, 33_002, 66_000].map(|time| timeline.map(us(time), start + us(9_000 + time)));
        let away = mapped.map(|(time, captured)| (captured - start).saturating_sub(time));
        assert_eq!(away, [Duration::ZERO; 5]);
        assert_eq!(mapped.map(|(time, _)| time.as_micros()), [9_000, 42_000, 43_000, 44_000, 75_000]);
    }
}
