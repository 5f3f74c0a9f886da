//! The times of pictures from a pipe. Pure.

use std::time::Duration;

/// At the least between two pictures: they must differ on RTP's clock.
pub(super) const STEP: Duration = Duration::from_micros(50);

/// Keeps the pictures' times from running ahead of the clock. The parser has the time of the first picture of each
/// read, and gives the others times of its own: after a standstill, when many come at once, viewers would take all that
/// comes later for late.
#[derive(Debug, Default)]
pub(super) struct Times {
    last: Option<Duration>,
}

impl Times {
    pub fn time(&mut self, parsed: Duration, now: Duration) -> Duration {
        let time = self.last.map_or(Duration::ZERO, |last| last + STEP).max(parsed.min(now));
        self.last = Some(time);
        time
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_that_come_at_once_are_not_ahead_of_the_clock() {
        let (mut times, ms) = (Times::default(), Duration::from_millis);
        assert_eq!(times.time(ms(40), ms(41)), ms(40));
        // As after three seconds in which nothing was read.
        let burst: Vec<_> = (0..10).map(|i| times.time(ms(3_000 + i * 40), ms(3_001))).collect();
        assert_eq!(burst[0], ms(3_000));
        assert!(burst.windows(2).all(|pair| pair[0] + STEP <= pair[1]), "{burst:?}");
        assert!(burst[9] < ms(3_002), "{burst:?}");
        assert_eq!(times.time(ms(3_040), ms(3_041)), ms(3_040));
    }
}
