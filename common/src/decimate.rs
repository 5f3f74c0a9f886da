//! Which frames of a source that is faster than wanted are left out. Pure.

use std::time::Duration;

use crate::units::Fps;

/// A source whose own rate is so little above the wanted one is left alone: 30.00003 is 30 for every purpose.
const SAME_RATE: f64 = 1.02;

/// The least distance of two frames in intervals: 50 become 30 by steps of 0.6 and 1.2, and half is a step of a source
/// of 60, which is to be halved evenly whatever else happens.
const CLOSEST: f64 = 0.55;

/// Which frames go on, by their times.
#[derive(Debug)]
pub struct Decimator {
    interval: Duration,
    /// When the last frame went on, and when the next one is due.
    last: Option<(Duration, Duration)>,
}

impl Decimator {
    pub fn new(wanted: Fps) -> Self {
        Self { interval: wanted.interval(), last: None }
    }

    /// Whether the frame of this time goes on. One that is not yet due is left out, unless it is early by no more than
    /// a quarter of the interval (cameras jitter); and so is one that follows another much too closely, as where a late
    /// frame was the last.
    pub fn keeps(&mut self, time: Duration) -> bool {
        let tolerance = self.interval / 4;
        // The next is due by the grid, so that 50 become 30 and not 25. After a pause, and when times jump back, the
        // grid begins anew.
        let next = match self.last {
            Some((last, due)) if time >= last && time < due + self.interval => {
                if time + tolerance < due || time < last + self.interval.mul_f64(CLOSEST) {
                    return false;
                }
                due + self.interval
            }
            _ => time + self.interval,
        };
        self.last = Some((time, next));
        true
    }

    /// The next frame goes on whatever its time.
    pub fn begin_anew(&mut self) {
        self.last = None;
    }
}

/// The rate that goes out of a source that says it has the rate `own`, if frames have to be left out for that.
pub fn decimated_rate(own: Option<Fps>, wanted: Fps) -> Option<Fps> {
    own.filter(|own| own.as_f64() > wanted.as_f64() * SAME_RATE).map(|_| wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of `count` frames at `own` a second go on, each time shifted by `jitter` microseconds.
    fn kept(own: u32, wanted: u32, count: u64, jitter: impl Fn(u64) -> i64) -> Vec<Duration> {
        let mut decimator = Decimator::new(Fps::whole(wanted));
        let time = |i: u64| {
            let us = i64::try_from(i * 1_000_000 / u64::from(own)).unwrap() + jitter(i) + 20_000;
            Duration::from_micros(u64::try_from(us).unwrap())
        };
        (0..count).map(time).filter(|time| decimator.keeps(*time)).collect()
    }

    #[test]
    fn sixty_are_halved_exactly_and_stay_even() {
        let times = kept(60, 30, 600, |_| 0);
        assert_eq!(times.len(), 300);
        let even = |pair: &[Duration]| (pair[1] - pair[0]).abs_diff(Duration::from_micros(33_333)).as_micros() < 10;
        assert!(times.windows(2).all(even), "{times:?}");
        // Up to 5 ms to and fro, by a fixed pattern.
        assert_eq!(kept(60, 30, 600, |i| i64::try_from(i * 7919 % 10_000).unwrap() - 5_000).len(), 300);
    }

    #[test]
    fn as_many_as_wanted_or_fewer_all_go_on() {
        assert_eq!(kept(30, 30, 300, |_| 0).len(), 300);
        assert_eq!(kept(30, 30, 300, |i| if i % 2 == 0 { 0 } else { 7_000 }).len(), 300);
        assert_eq!(kept(25, 30, 300, |_| 0).len(), 300);
        assert_eq!(kept(15, 30, 300, |_| 0).len(), 300);
    }

    #[test]
    fn a_rate_that_is_no_multiple_is_met_on_average() {
        for (own, wanted) in [(50, 30), (30, 25), (120, 50), (31, 30), (60, 24)] {
            let left = kept(own, wanted, u64::from(own) * 10, |_| 0).len();
            assert!((left as i64 - i64::from(wanted) * 10).abs() <= 2, "{own} to {wanted}: {left}");
        }
    }

    #[test]
    fn after_a_lost_frame_the_others_are_even_again() {
        let mut decimator = Decimator::new(Fps::whole(30));
        let frames = (0..60).filter(|i| *i != 6).map(|i| Duration::from_micros(i * 16_667));
        let times: Vec<_> = frames.filter(|time| decimator.keeps(*time)).collect();
        assert!(times.windows(2).all(|pair| pair[1] - pair[0] > Duration::from_millis(33)), "{times:?}");
    }

    #[test]
    fn a_pause_is_not_made_up_for_and_a_jump_back_begins_anew() {
        let ms = Duration::from_millis;
        let mut decimator = Decimator::new(Fps::whole(10));
        assert!(decimator.keeps(ms(0)) && decimator.keeps(ms(5_000)));
        assert!(!decimator.keeps(ms(5_020)) && !decimator.keeps(ms(5_040)));
        assert!(decimator.keeps(ms(10)));
        assert!(!decimator.keeps(ms(20)));
    }

    #[test]
    fn a_source_that_says_it_is_slow_enough_is_believed() {
        let rate = |num, den| decimated_rate(Some(Fps { num, den }), Fps::whole(30));
        assert_eq!((rate(30, 1), rate(30_000, 1001), rate(30_001, 1000), rate(1, 1)), (None, None, None, None));
        assert_eq!((rate(60, 1), rate(50, 1)), (Some(Fps::whole(30)), Some(Fps::whole(30))));
        assert_eq!(decimated_rate(None, Fps::whole(30)), None);
    }
}
