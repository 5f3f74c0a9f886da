//! Whether the machine slept. On Linux and macOS [`Instant`] stands still then: what came before looks new afterwards.

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

/// Less is no sleep: two clocks are never read at once, and the system's clock is corrected.
const SHORTEST: Duration = Duration::from_millis(500);
/// Sleeps remembered; what is older than all of them is old enough.
const MOST: usize = 8;

/// Time that passed while the machine slept, as far as somebody looks again and again.
pub struct Sleep {
    /// How far a clock that goes on while the machine sleeps is ahead of [`Instant`].
    ahead: Box<dyn Fn() -> Duration + Send + Sync>,
    before: Duration,
    /// When each was noticed, and how long it was.
    slept: VecDeque<(Instant, Duration)>,
}

impl Default for Sleep {
    fn default() -> Self {
        Self::by(system())
    }
}

impl Sleep {
    /// With a clock of its own, for tests.
    pub fn by(ahead: impl Fn() -> Duration + Send + Sync + 'static) -> Self {
        Self { before: ahead(), ahead: Box::new(ahead), slept: VecDeque::new() }
    }

    /// How long the machine slept since this was called last; zero: it did not.
    pub fn look(&mut self) -> Duration {
        let ahead = (self.ahead)();
        let slept = ahead.saturating_sub(std::mem::replace(&mut self.before, ahead));
        if slept < SHORTEST {
            return Duration::ZERO;
        }
        if self.slept.len() == MOST {
            self.slept.pop_front();
        }
        self.slept.push_back((Instant::now(), slept));
        slept
    }

    /// As long before `now` as `at` really is, with the sleeps that were noticed in between.
    pub fn before(&self, at: Instant, now: Instant) -> Instant {
        let slept: Duration = self.slept.iter().filter(|(noticed, _)| at <= *noticed).map(|(_, slept)| *slept).sum();
        now.checked_sub(now.saturating_duration_since(at) + slept).unwrap_or(at)
    }
}

impl fmt::Debug for Sleep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sleep").field("before", &self.before).field("slept", &self.slept).finish_non_exhaustive()
    }
}

/// Exactly, and whatever is set as the time of day.
#[cfg(target_os = "linux")]
fn system() -> impl Fn() -> Duration + Send + Sync {
    fn read(clock: libc::clockid_t) -> Duration {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: `time` is a place for a timespec; a clock that is not there leaves it alone.
        unsafe { libc::clock_gettime(clock, &raw mut time) };
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    }
    || read(libc::CLOCK_BOOTTIME).saturating_sub(read(libc::CLOCK_MONOTONIC))
}

/// By the time of day: where that is set forward, the machine seems to have slept, which ends a session too many.
#[cfg(not(target_os = "linux"))]
fn system() -> impl Fn() -> Duration + Send + Sync {
    let (start, began) = (std::time::SystemTime::now(), Instant::now());
    // Far from zero, as it may be set back, too.
    let offset = Duration::from_secs(1 << 32);
    move || match std::time::SystemTime::now().duration_since(start) {
        Ok(passed) => (offset + passed).saturating_sub(began.elapsed()),
        Err(back) => offset.saturating_sub(back.duration() + began.elapsed()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn time_that_the_machine_slept_is_told_once_and_added_to_what_was_before_it() {
        let ahead_ms = Arc::new(AtomicU64::new(5_000));
        let clock = Arc::clone(&ahead_ms);
        let mut sleep = Sleep::by(move || Duration::from_millis(clock.load(Ordering::Relaxed)));
        let set = |ms| ahead_ms.store(ms, Ordering::Relaxed);
        let picture = Instant::now();
        assert_eq!(sleep.look(), Duration::ZERO, "slept before");
        set(5_499);
        assert_eq!((sleep.look(), sleep.before(picture, picture)), (Duration::ZERO, picture), "clocks differ a little");
        set(3_605_499);
        let hour = Duration::from_secs(3600);
        assert_eq!((sleep.look(), sleep.look()), (hour, Duration::ZERO));
        let later = Instant::now() + Duration::from_secs(1);
        let age = |at: Instant| later.saturating_duration_since(sleep.before(at, later));
        assert_eq!(age(picture), later - picture + hour);
        assert_eq!(age(later), Duration::ZERO, "came after it");
    }

    #[test]
    fn a_machine_that_is_awake_does_not_sleep() {
        let mut sleep = Sleep::default();
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(sleep.look(), Duration::ZERO);
    }
}
