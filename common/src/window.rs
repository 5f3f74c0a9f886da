//! Rates and means over the last seconds, in constant memory.

use std::time::{Duration, Instant};

/// Of the window; the resolution of the result is a twentieth of it.
const BUCKETS: usize = 20;

/// Sum and count of what was added during the last `span`.
///
/// The window moves in steps of a twentieth of its length. Before it is full for the first time, rates are over the
/// time since the first addition, so that they are right from the start.
#[derive(Clone, Debug)]
pub struct RateWindow {
    /// Of one bucket; never zero.
    step: Duration,
    /// When the first bucket began: the first addition.
    origin: Option<Instant>,
    /// The number of the newest bucket since `origin`.
    newest: u64,
    /// A ring: bucket `n` is at `n % BUCKETS`.
    buckets: [Bucket; BUCKETS],
}

#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    sum: u64,
    count: u64,
}

impl RateWindow {
    /// A window of `span`, which should be some frames long: two seconds for the stats of this project.
    pub fn new(span: Duration) -> Self {
        let step = (span / BUCKETS as u32).max(Duration::from_micros(1));
        Self { step, origin: None, newest: 0, buckets: [Bucket::default(); BUCKETS] }
    }

    /// Adds one event of `amount`: 1 to count frames, bits for a bit rate, microseconds for a mean delay.
    pub fn add(&mut self, now: Instant, amount: u64) {
        self.origin.get_or_insert(now);
        self.advance(now);
        let bucket = &mut self.buckets[(self.newest % BUCKETS as u64) as usize];
        bucket.sum = bucket.sum.saturating_add(amount);
        bucket.count += 1;
    }

    /// The sum of the amounts per second; 0 when nothing was added.
    pub fn per_second(&self, now: Instant) -> f64 {
        self.totals(now).0 as f64 / self.covered(now).as_secs_f64()
    }

    /// The events per second, whatever their amounts; 0 when nothing was added.
    pub fn events_per_second(&self, now: Instant) -> f64 {
        self.totals(now).1 as f64 / self.covered(now).as_secs_f64()
    }

    /// The mean amount of the events in the window; 0 when there are none.
    pub fn mean(&self, now: Instant) -> f64 {
        let (sum, count) = self.totals(now);
        if count == 0 { 0.0 } else { sum as f64 / count as f64 }
    }

    /// Clears the buckets that `now` has left behind.
    fn advance(&mut self, now: Instant) {
        let current = self.bucket_at(now);
        // A gap longer than the window clears each bucket once, however long it was.
        for number in (self.newest + 1..=current).rev().take(BUCKETS) {
            self.buckets[(number % BUCKETS as u64) as usize] = Bucket::default();
        }
        self.newest = current;
    }

    /// The number of the bucket for `now`. A `now` before the newest one counts as the newest.
    fn bucket_at(&self, now: Instant) -> u64 {
        let elapsed = self.origin.map_or(Duration::ZERO, |origin| now.saturating_duration_since(origin));
        ((elapsed.as_nanos() / self.step.as_nanos()) as u64).max(self.newest)
    }

    /// Sum and count of the buckets that are still inside the window.
    fn totals(&self, now: Instant) -> (u64, u64) {
        let oldest = self.bucket_at(now).saturating_sub(BUCKETS as u64 - 1);
        (oldest..=self.newest)
            .map(|number| self.buckets[(number % BUCKETS as u64) as usize])
            .fold((0, 0), |(sum, count): (u64, u64), bucket| (sum.saturating_add(bucket.sum), count + bucket.count))
    }

    /// The time that the buckets stand for, one step at least.
    fn covered(&self, now: Instant) -> Duration {
        let elapsed = self.origin.map_or(Duration::ZERO, |origin| now.saturating_duration_since(origin));
        // The newest bucket is still filling: it counts with the part of it that is past.
        let into_newest = (elapsed.as_nanos() % self.step.as_nanos()) as u64;
        let full_buckets = self.bucket_at(now).min(BUCKETS as u64 - 1) as u32;
        (self.step * full_buckets + Duration::from_nanos(into_newest)).max(self.step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPAN: Duration = Duration::from_secs(2);

    fn window_with(rate: u32, amount: u64, start: Instant, seconds: u32) -> RateWindow {
        let mut window = RateWindow::new(SPAN);
        for event in 0..rate * seconds {
            window.add(start + Duration::from_secs(1) * event / rate, amount);
        }
        window
    }

    fn assert_near(value: f64, expected: f64) {
        assert!((value - expected).abs() <= expected * 0.03, "{value} instead of {expected}");
    }

    #[test]
    fn a_steady_rate_is_measured() {
        let start = Instant::now();
        for seconds in [1, 2, 7] {
            let window = window_with(60, 1000, start, seconds);
            let now = start + Duration::from_secs(seconds.into());
            assert_near(window.events_per_second(now), 60.0);
            assert_near(window.per_second(now), 60_000.0);
            assert_near(window.mean(now), 1000.0);
        }
    }

    #[test]
    fn the_rate_falls_to_zero_when_nothing_comes() {
        let start = Instant::now();
        let window = window_with(60, 1, start, 5);
        // Half of the window is empty, but for the step that the window moved a moment ago.
        let half = window.per_second(start + Duration::from_secs(6));
        assert!((28.0..=30.0).contains(&half), "{half}");
        assert_eq!(window.per_second(start + Duration::from_secs(8)), 0.0);
        assert_eq!(window.mean(start + Duration::from_secs(3600)), 0.0);
    }

    #[test]
    fn a_pause_longer_than_the_window_is_forgotten() {
        let start = Instant::now();
        let mut window = window_with(50, 1, start, 3);
        let later = start + Duration::from_secs(1000);
        for event in 0..250 {
            window.add(later + Duration::from_millis(20) * event, 1);
        }
        assert_near(window.per_second(later + Duration::from_secs(5)), 50.0);
    }

    #[test]
    fn an_empty_window_gives_zero() {
        let window = RateWindow::new(SPAN);
        let now = Instant::now();
        assert_eq!((window.per_second(now), window.events_per_second(now), window.mean(now)), (0.0, 0.0, 0.0));
    }

    #[test]
    fn a_clock_that_steps_back_disturbs_nothing() {
        let start = Instant::now() + Duration::from_secs(10);
        let mut window = window_with(10, 1, start, 2);
        window.add(start - Duration::from_secs(5), 1);
        assert!(window.per_second(start - Duration::from_secs(5)) > 0.0);
        assert_near(window.per_second(start + SPAN), 10.5);
    }

    #[test]
    fn huge_amounts_and_tiny_windows_do_not_overflow() {
        let now = Instant::now();
        let mut window = RateWindow::new(Duration::ZERO);
        window.add(now, u64::MAX);
        window.add(now, u64::MAX);
        assert!(window.per_second(now).is_finite());
    }
}
