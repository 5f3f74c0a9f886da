//! From a pipeline's running time to this machine's monotonic clock. Pure.
//!
//! The pipelines of all cameras are translated to the one clock, so that their times of capture can be compared.

use std::time::{Duration, Instant};

/// What the clock of another device, as of a capture card, may be slow against this machine's: seconds in a second.
const DRIFT: f64 = 500e-6;

/// One for each pipeline.
#[derive(Debug, Default)]
pub struct LocalTime {
    /// When its running time was zero, and when that was read last.
    zero: Option<(Instant, Instant)>,
}

impl LocalTime {
    /// When the running time was or will be `pts`; `running` is what it was just before `now`.
    ///
    /// A thread that is interrupted between the two readings takes the running time for an older one than it is. So the
    /// earliest zero counts, and follows later ones no faster than clocks drift.
    pub fn at(&mut self, pts: Duration, running: Duration, now: Instant) -> Option<Instant> {
        let read = now.checked_sub(running)?;
        let zero =
            self.zero.map_or(read, |(zero, at)| read.min(zero + now.saturating_duration_since(at).mul_f64(DRIFT)));
        self.zero = Some((zero, now));
        zero.checked_add(pts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_thread_that_is_interrupted_between_the_clocks_moves_no_picture() {
        let zero = Instant::now();
        let mut time = LocalTime::default();
        assert_eq!(time.at(90 * MS, 100 * MS, zero + 100 * MS), Some(zero + 90 * MS));
        for n in 1..100 {
            let (running, interrupted) = (n * 33 * MS + 100 * MS, n % 2 * 20 * MS);
            let at = time.at(running - 10 * MS, running, zero + running + interrupted).expect("a time");
            let off = at - (zero + running - 10 * MS);
            assert!(off < MS / 20, "picture {n}: {off:?}");
        }
    }

    #[test]
    fn a_clock_that_is_slow_or_fast_is_followed() {
        for rate in [0.9998, 1.0002] {
            let start = Instant::now();
            let mut time = LocalTime::default();
            for n in 0..30_000 {
                let now = n * 33 * MS;
                let running = now.mul_f64(rate);
                let at = time.at(running, running, start + now).expect("a time");
                assert_eq!(at, start + now, "picture {n} at {rate}");
            }
        }
    }
}
