//! Another machine's clock of captures, read by this machine's monotonic clock: from questions and answers with four
//! times, as NTP has them. Pure.
//!
//! Each exchange proves two bounds of the distance between the clocks: the question was received after it was asked,
//! and the answer came after it was sent. What all exchanges prove together is an interval, which grows between them by
//! what clocks drift; its middle is the estimate, and half of its width the bound of the error. So the bound holds
//! whatever the link does: a queue or an asymmetry makes an exchange prove less, never something wrong. An exchange
//! with another run of the server counts alone, as each run has a clock of its own; so does one that contradicts those
//! before, which proves that a clock has stepped.
//!
//! `server/web/age.js` does the same.

use std::time::{Duration, Instant};

use crate::capture_clock::Captured;

/// Nanoseconds that two clocks may drift apart in a second: 500 ppm each, by which NTP slews them.
const DRIFT: i128 = 1_000_000;
const SECOND: i128 = 1_000_000_000;

/// A question and its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// Before the question was sent, and after the answer came: by this machine's clock.
    pub asked: Instant,
    pub answered: Instant,
    /// When the question was received and the answer sent, by the other one's clock.
    pub received: Captured,
    pub sent: Captured,
    /// The run of the server, which has a clock of its own.
    pub run: u64,
}

/// What an exchange has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// It agrees with those before.
    Agreed,
    /// It is the first of a run, or contradicts those before: the clock is known by this exchange alone.
    Begun,
    /// Its times cannot be: it does not count.
    Impossible,
}

/// Why it is not known how old something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// Nothing is known of the other clock.
    NotRead,
    /// It was captured later than now, for certain: what is known of the other clock holds no more.
    InFuture,
}

/// How old something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Age {
    pub age: Duration,
    /// The age is wrong by no more than this.
    pub bound: Duration,
}

impl Age {
    /// It is at least so old.
    pub fn certain(self) -> Duration {
        self.age.saturating_sub(self.bound)
    }
}

/// What is known of the other clock.
#[derive(Clone, Copy, Debug)]
pub struct ClockSync {
    origin: Instant,
    known: Option<Interval>,
}

/// Of the other clock's distance from time since `origin`, in nanoseconds.
#[derive(Clone, Copy, Debug)]
struct Interval {
    low: i128,
    high: i128,
    at: Instant,
    run: u64,
}

impl Interval {
    /// As it is after the drift until `now`, or before.
    fn at(self, now: Instant) -> Self {
        let passed = now.saturating_duration_since(self.at) + self.at.saturating_duration_since(now);
        let drift = passed.as_nanos() as i128 * DRIFT / SECOND;
        Self { low: self.low - drift, high: self.high + drift, at: now, ..self }
    }
}

impl ClockSync {
    pub fn new(now: Instant) -> Self {
        Self { origin: now, known: None }
    }

    pub fn add(&mut self, exchange: Exchange) -> Shown {
        let Exchange { asked, answered, received, sent, run } = exchange;
        // Times come in whole microseconds, rounded down.
        let (low, high) = (nanos(sent) - self.local(answered), nanos(received) + 1_000 - self.local(asked));
        if low > high || sent < received {
            return Shown::Impossible;
        }
        let this = Interval { low, high, at: answered, run };
        let joint = self.known.filter(|known| known.run == run).map(|known| {
            let Interval { low, high, .. } = known.at(answered);
            Interval { low: low.max(this.low), high: high.min(this.high), ..this }
        });
        match joint.filter(|joint| joint.low <= joint.high) {
            Some(joint) => {
                self.known = Some(joint);
                Shown::Agreed
            }
            None => {
                self.known = Some(this);
                Shown::Begun
            }
        }
    }

    /// How old something is at `now` that was captured then.
    ///
    /// # Errors
    /// Says why that is not known.
    pub fn age(&self, captured: Captured, now: Instant) -> Result<Age, Unknown> {
        let Interval { low, high, .. } = self.known.ok_or(Unknown::NotRead)?.at(now);
        let (age, bound) = (self.local(now) + (low + high) / 2 - nanos(captured), (high - low + 1) / 2);
        if age < -bound {
            return Err(Unknown::InFuture);
        }
        Ok(Age { age: duration(age), bound: duration(bound) })
    }

    /// What may have been captured by `now`, at the latest, and the run whose clock says so; none where nothing is
    /// known.
    pub fn latest(&self, now: Instant) -> Option<(Captured, u64)> {
        let Interval { high, run, .. } = self.known?.at(now);
        Some((Captured(duration(self.local(now) + high)), run))
    }

    fn local(&self, at: Instant) -> i128 {
        let (after, before) = (at.saturating_duration_since(self.origin), self.origin.saturating_duration_since(at));
        after.as_nanos() as i128 - before.as_nanos() as i128
    }
}

fn nanos(captured: Captured) -> i128 {
    captured.0.as_nanos() as i128
}

/// What is captured a little later than now, within the bound, is new.
fn duration(nanos: i128) -> Duration {
    Duration::from_nanos(nanos.clamp(0, u64::MAX.into()) as u64)
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const HOUR: Duration = Duration::from_secs(3_600);
    const SEC: Duration = Duration::from_secs(1);

    /// Two machines and the link between them.
    struct World {
        start: Instant,
        sync: ClockSync,
        random: StdRng,
        run: u64,
        /// By which the other clock is ahead at the start, and what it gains in a second.
        ahead: Duration,
        ppm: f64,
    }

    impl World {
        fn new(ppm: f64) -> Self {
            let start = Instant::now() + HOUR;
            // Its clock is wrong by an hour from the start.
            let ahead = Duration::from_secs(1_764_000_000) + HOUR;
            Self { start, sync: ClockSync::new(start), random: StdRng::seed_from_u64(7), run: 1, ahead, ppm }
        }

        fn other(&self, at: Duration) -> Captured {
            let micros = (self.ahead + at.mul_f64(1.0 + self.ppm / 1e6)).as_micros();
            Captured(Duration::from_micros(micros as u64))
        }

        /// One that is asked at `at` and takes so long each way.
        fn exchange(&mut self, at: Duration, there: Duration, back: Duration) -> Shown {
            let work = Duration::from_micros(50);
            let (received, sent) = (self.other(at + there), self.other(at + there + work));
            let (asked, answered) = (self.start + at, self.start + at + there + work + back);
            self.sync.add(Exchange { asked, answered, received, sent, run: self.run })
        }

        fn jittered(&mut self, middle: Duration, spread: Duration) -> Duration {
            (middle + spread.mul_f64(2.0 * self.random.random::<f64>())).saturating_sub(spread)
        }

        /// The error of an age at this time, and the bound that is told, both in milliseconds.
        fn error(&self, at: Duration) -> (f64, f64) {
            let truth = 80 * MS;
            let captured = self.other(at - truth);
            let Age { age, bound } = self.sync.age(captured, self.start + at).expect("a clock that is known");
            let error = (age.as_secs_f64() - truth.as_secs_f64()) * 1e3;
            let bound = bound.as_secs_f64() * 1e3;
            assert!(error.abs() <= bound + 0.02, "at {at:?}: {error} ms, said to be within {bound} ms");
            (error, bound)
        }

        /// Exchanges once a second, with ages in between; the largest error and bound after the first ten seconds.
        fn run(&mut self, seconds: u32, there: (Duration, Duration), back: (Duration, Duration)) -> (f64, f64) {
            let mut worst = (0.0_f64, 0.0_f64);
            for second in 1..=seconds {
                let (to, from) = (self.jittered(there.0, there.1), self.jittered(back.0, back.1));
                self.exchange(second * SEC, to, from);
                let (error, bound) = self.error(second * SEC + 900 * MS);
                if second > 10 {
                    worst = (worst.0.max(error.abs()), worst.1.max(bound));
                }
            }
            worst
        }
    }

    const NONE: Duration = Duration::ZERO;

    #[test]
    fn a_clock_that_is_off_by_an_hour_and_drifts_is_followed() {
        for ppm in [0.0, 100.0, -100.0] {
            let (error, bound) = World::new(ppm).run(600, (MS / 2, MS / 4), (MS / 2, MS / 4));
            assert!(error < 0.5 && bound < 2.5, "{ppm} ppm: {error} ms, bound {bound} ms");
        }
    }

    #[test]
    fn jitter_is_left_to_the_bound() {
        for ppm in [0.0, 100.0, -100.0] {
            let far = (20 * MS, 5 * MS);
            let (error, bound) = World::new(ppm).run(600, far, far);
            assert!(error < 4.5 && bound < 23.0, "{ppm} ppm: {error} ms, bound {bound} ms");
        }
    }

    #[test]
    fn an_asymmetric_link_is_wrong_by_half_the_difference_and_says_so() {
        let (error, bound) = World::new(0.0).run(60, (5 * MS, NONE), (35 * MS, NONE));
        assert!((14.5..=15.5).contains(&error) && bound < 21.0, "{error} ms, bound {bound} ms");
    }

    #[test]
    fn a_queue_that_comes_later_costs_what_clocks_drift() {
        let mut world = World::new(100.0);
        world.run(20, (MS, NONE), (MS, NONE));
        for second in 21..=80 {
            world.exchange(second * SEC, MS, 2_000 * MS);
            let (error, bound) = world.error(second * SEC + 2_100 * MS);
            assert!(error.abs() < 35.0 && bound < 36.0, "{second}: {error} ms, bound {bound} ms");
        }
    }

    #[test]
    fn a_step_is_known_by_the_next_exchange_that_contradicts() {
        for step in [HOUR, 5 * MS] {
            let mut world = World::new(0.0);
            assert_eq!(world.exchange(SEC, MS, MS), Shown::Begun);
            assert_eq!(world.exchange(2 * SEC, MS, MS), Shown::Agreed);
            world.ahead -= step;
            assert_eq!(world.exchange(3 * SEC, MS, MS), Shown::Begun);
            world.error(4 * SEC);
            world.ahead += 30 * 24 * 365 * HOUR;
            assert_eq!(world.exchange(4 * SEC, MS, MS), Shown::Begun);
            world.error(5 * SEC);
        }
    }

    /// Its clock was corrected by so little that the answers contradict nothing.
    #[test]
    fn another_run_of_the_server_counts_alone() {
        let mut world = World::new(0.0);
        world.exchange(SEC, MS, MS);
        (world.run, world.ahead) = (2, world.ahead + 15 * MS);
        assert_eq!(world.exchange(2 * SEC, 20 * MS, 20 * MS), Shown::Begun);
        let (_, bound) = world.error(3 * SEC);
        assert!(bound > 15.0, "{bound}");
    }

    /// This machine was suspended, and its clock stood still.
    #[test]
    fn what_was_captured_later_than_now_has_no_age() {
        let mut world = World::new(0.0);
        world.exchange(SEC, MS, MS);
        let age = world.sync.age(world.other(2 * SEC + 10 * MS), world.start + 2 * SEC);
        assert_eq!(age, Err(Unknown::InFuture));
    }

    #[test]
    fn in_silence_the_bound_grows_and_holds() {
        for ppm in [990.0, -990.0] {
            let mut world = World::new(ppm);
            world.exchange(SEC, MS, MS);
            let bounds = [2, 60, 600].map(|seconds| world.error(seconds * SEC).1);
            assert!(bounds.is_sorted() && bounds[0] < 2.5 && (595.0..605.0).contains(&bounds[2]), "{bounds:?}");
        }
    }

    #[test]
    fn before_the_first_exchange_and_by_impossible_ones_nothing_is_known() {
        let mut world = World::new(0.0);
        let now = world.start;
        assert_eq!(world.sync.age(world.other(NONE), now), Err(Unknown::NotRead));
        let times = |received, sent| Exchange { asked: now, answered: now + MS, received, sent, run: 1 };
        let (one, other) = (world.other(NONE), world.other(2 * MS));
        // It says that it took longer than the answer did, or answered before it was asked.
        for impossible in [times(one, other), times(other, one)] {
            assert_eq!(world.sync.add(impossible), Shown::Impossible);
        }
        assert_eq!(world.sync.age(one, now), Err(Unknown::NotRead));
    }

    #[test]
    fn what_is_newer_than_now_within_the_bound_is_new() {
        let mut world = World::new(0.0);
        world.exchange(SEC, NONE, 10 * MS);
        let age = world.sync.age(world.other(2 * SEC), world.start + 2 * SEC).expect("known");
        assert_eq!((age.age, age.certain()), (NONE, NONE));
    }
}
