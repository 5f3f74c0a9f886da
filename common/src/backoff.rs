//! Delays between retries: doubling, bounded, without randomness because each object here retries alone against one
//! peer.

use std::time::Duration;

/// The delays that this project's restarts and reconnections use unless a test wants others.
pub const DEFAULT_MIN: Duration = Duration::from_millis(500);
pub const DEFAULT_MAX: Duration = Duration::from_secs(5);

/// Delays that double from `min` to `max`.
#[derive(Clone, Debug)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    /// The first delay is `min`; none is longer than `max`, nor shorter than `min`.
    pub fn new(min: Duration, max: Duration) -> Self {
        Self { min, max: max.max(min), next: min }
    }

    /// How long to wait before the next try.
    pub fn next_delay(&mut self) -> Duration {
        let delay = self.next;
        self.next = delay.saturating_mul(2).min(self.max);
        delay
    }

    /// To be called after a success: the next delay is `min` again.
    pub fn reset(&mut self) {
        self.next = self.min;
    }
}

/// After a camera has refused the password, which has tried it more than once already: it locks out whoever goes on.
pub const REFUSED_MIN: Duration = Duration::from_secs(30);
pub const REFUSED_MAX: Duration = Duration::from_secs(600);

impl Default for Backoff {
    fn default() -> Self {
        Self::new(DEFAULT_MIN, DEFAULT_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_maximum() {
        let mut backoff = Backoff::default();
        let delays: Vec<_> = (0..6).map(|_| backoff.next_delay().as_millis()).collect();
        assert_eq!(delays, [500, 1000, 2000, 4000, 5000, 5000]);
    }

    #[test]
    fn who_is_refused_waits_half_a_minute_and_longer_each_time_up_to_ten_minutes() {
        let mut refusals = Backoff::new(REFUSED_MIN, REFUSED_MAX);
        let delays: Vec<_> = (0..7).map(|_| refusals.next_delay().as_secs()).collect();
        assert_eq!(delays, [30, 60, 120, 240, 480, 600, 600]);
    }

    #[test]
    fn a_success_starts_over() {
        let mut backoff = Backoff::default();
        backoff.next_delay();
        backoff.next_delay();
        backoff.reset();
        assert_eq!(backoff.next_delay(), DEFAULT_MIN);
    }

    #[test]
    fn a_maximum_below_the_minimum_gives_a_constant_delay() {
        let mut backoff = Backoff::new(Duration::from_secs(2), Duration::from_secs(1));
        assert_eq!([backoff.next_delay(), backoff.next_delay()], [Duration::from_secs(2); 2]);
        let mut longest = Backoff::new(Duration::MAX, Duration::MAX);
        assert_eq!([longest.next_delay(), longest.next_delay()], [Duration::MAX; 2]);
    }
}
