//! The time of capture of pictures: one clock for all cameras of a server, which never steps.
//!
//! It is this machine's monotonic clock with the distance to UTC that was read once at the start. So pictures of two
//! cameras, and those before and after the system's clock was set, can be compared. Where the system's clock is set
//! later, as by GPS or NTP in a dive, times of capture keep the distance of the start until the server is restarted.
//!
//! Where the system's clock was not set then, as on a board without a battery, a client tells the time of day: for what
//! people read ([`TimeOfDay`]). Times of capture stay as they are, as clients compare them.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::api::ClockSource;

/// From 1900, where NTP begins, to 1970.
pub const NTP_EPOCH: Duration = Duration::from_secs(2_208_988_800);
/// Of [`beside_monotonic`].
const READINGS: usize = 8;
/// 2025: a clock that says that it is earlier was not set.
pub const CLOCK_SET: Captured = Captured(Duration::from_secs(1_735_689_600));
/// 2100: nor was one that says that it is later.
const LATEST: Captured = Captured(Duration::from_secs(4_102_444_800));

/// A time of capture: since 1970, UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Captured(pub Duration);

impl Captured {
    /// As NTP has it (RFC 5905 section 6): 32 bits of seconds since 1900, which wrap in 2036, and 32 of their fraction.
    pub fn ntp(self) -> u64 {
        let seconds = self.0.as_secs().wrapping_add(NTP_EPOCH.as_secs());
        (seconds << 32) | ((u64::from(self.0.subsec_nanos()) << 32) / 1_000_000_000)
    }

    /// Whole microseconds since 1970.
    pub fn micros(self) -> u64 {
        self.0.as_micros() as u64
    }

    /// The reverse of [`Self::ntp`], to a nanosecond; until 2106.
    pub fn from_ntp(ntp: u64) -> Self {
        let seconds = ((ntp >> 32) as u32).wrapping_sub(NTP_EPOCH.as_secs() as u32);
        let nanoseconds = ((ntp & 0xFFFF_FFFF) * 1_000_000_000).div_ceil(1 << 32);
        Self(Duration::from_secs(seconds.into()) + Duration::from_nanos(nanoseconds))
    }
}

/// What another clock says, and the monotonic clock at that moment. A thread that is interrupted between them reads
/// them apart; the quickest of some readings counts.
pub fn beside_monotonic<T: Copy>(read: impl Fn() -> T) -> (Instant, T) {
    let readings = std::array::from_fn::<_, READINGS, _>(|_| {
        let (before, other) = (Instant::now(), read());
        (before.elapsed(), before, other)
    });
    let (_, at, other) = readings.into_iter().min_by_key(|reading| reading.0).unwrap_or(readings[0]);
    (at, other)
}

/// From the monotonic clock to times of capture.
#[derive(Clone, Copy, Debug)]
pub struct CaptureClock {
    started: Instant,
    utc: Duration,
}

impl CaptureClock {
    /// By the system's clock now: once for a server.
    pub fn start() -> Self {
        let (started, utc) = beside_monotonic(SystemTime::now);
        Self::new(started, utc)
    }

    /// `started` and `utc` are the same moment.
    pub fn new(started: Instant, utc: SystemTime) -> Self {
        // A clock before 1970 is not set at all.
        Self { started, utc: utc.duration_since(UNIX_EPOCH).unwrap_or_default() }
    }

    /// Tells this clock from that of another run of the server: when it was started, in microseconds.
    pub fn run(&self) -> u64 {
        Captured(self.utc).micros()
    }

    pub fn started(&self) -> Instant {
        self.started
    }

    pub fn at(&self, at: Instant) -> Captured {
        let before = self.started.saturating_duration_since(at);
        Captured((self.utc + at.saturating_duration_since(self.started)).saturating_sub(before))
    }
}

/// The time of day of captures, for what people read. Clones are one.
#[derive(Clone, Debug)]
pub struct TimeOfDay(Option<Arc<OnceLock<Duration>>>);

impl TimeOfDay {
    /// Where `clock` began with a system's clock that was not set, a client is to tell it.
    pub fn of(clock: &CaptureClock) -> Self {
        let is_set = Captured(clock.utc) >= CLOCK_SET;
        Self((!is_set).then(Arc::default))
    }

    /// Whose clock tells it, and by how much it is ahead of times of capture.
    pub fn now(&self) -> (ClockSource, Duration) {
        match self.0.as_ref().map(|ahead| ahead.get()) {
            None => (ClockSource::System, Duration::ZERO),
            Some(None) => (ClockSource::Unset, Duration::ZERO),
            Some(Some(ahead)) => (ClockSource::Client, *ahead),
        }
    }

    pub fn of_capture(&self, captured: Captured) -> Captured {
        Captured(captured.0 + self.now().1)
    }

    /// A client says that it is `time`, at what would be this time of capture. Whether that is taken: once, where it
    /// can be.
    pub fn tell(&self, time: Captured, captured: Captured) -> bool {
        let is_possible = (CLOCK_SET..LATEST).contains(&time) && time >= captured;
        self.0.as_ref().is_some_and(|ahead| is_possible && ahead.set(time.0 - captured.0).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_day_is_that_of_the_first_client_where_the_clock_was_not_set_and_times_of_capture_stay() {
        let second = |seconds| Captured(Duration::from_secs(seconds));
        let start = Instant::now();
        let clock = CaptureClock::new(start, UNIX_EPOCH + Duration::from_secs(60));
        let day = TimeOfDay::of(&clock);
        let recorder = day.clone();
        assert_eq!(day.now(), (ClockSource::Unset, Duration::ZERO));
        for impossible in [second(60), second(1_700_000_000), second(5_000_000_000), Captured(Duration::MAX)] {
            assert!(!day.tell(impossible, second(100)), "{impossible:?}");
        }
        assert!(day.tell(second(1_800_000_100), second(100)));
        assert!(!day.tell(second(1_900_000_000), second(200)), "once: names go on by one clock");
        assert_eq!(recorder.now(), (ClockSource::Client, Duration::from_secs(1_800_000_000)));
        assert_eq!(recorder.of_capture(second(160)), second(1_800_000_160));
        assert_eq!(clock.at(start), second(60));
        let set = TimeOfDay::of(&CaptureClock::new(start, UNIX_EPOCH + CLOCK_SET.0));
        assert!(!set.tell(second(1_800_000_100), second(100)));
        assert_eq!(set.now(), (ClockSource::System, Duration::ZERO));
    }

    #[test]
    fn times_keep_the_distance_of_the_start_whatever_the_system_clock_says_later() {
        let start = Instant::now();
        let clock = CaptureClock::new(start, UNIX_EPOCH + Duration::from_millis(5_500));
        let ms = Duration::from_millis;
        assert_eq!(clock.at(start + ms(250)), Captured(ms(5_750)));
        assert_eq!(clock.at(start.checked_sub(ms(500)).expect("a machine that has run")), Captured(ms(5_000)));
        assert_eq!(CaptureClock::new(start, UNIX_EPOCH - ms(1)).at(start), Captured(Duration::ZERO));
    }

    #[test]
    fn ntp_has_seconds_since_1900_and_their_fraction_and_wraps() {
        assert_eq!(Captured(Duration::from_millis(1_500)).ntp(), 0x83AA_7E81_8000_0000);
        for (seconds, nanoseconds) in
            [(0, 0), (1_764_000_000, 123_456_789), (2_085_978_496, 1), (4_000_000_000, 999_999_999)]
        {
            let captured = Captured(Duration::new(seconds, nanoseconds));
            let back = Captured::from_ntp(captured.ntp());
            assert_eq!(back, captured, "{seconds}.{nanoseconds:09}");
        }
        assert_eq!(Captured(Duration::from_secs(2_085_978_496)).ntp() >> 32, 0, "2036");
    }
}
