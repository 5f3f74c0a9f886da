//! What arrives in a session, and its rates.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rov_common::sleep::Sleep;
use rov_common::sync::lock;
use rov_common::window::RateWindow;

use crate::decode::DecodeStats;
use crate::receive::{LinkState, OpenWay};
use crate::viewer::{Clock, Reception};

const RATE_WINDOW: Duration = Duration::from_secs(2);
/// The round trip is asked for so often.
const RTT_INTERVAL: Duration = Duration::from_secs(1);

/// Written by whoever receives, read by whoever watches.
pub struct Arrivals {
    clock: Clock,
    bytes: AtomicU64,
    /// When the last packet came, by `clock`; 0 before the first.
    last_us: AtomicU64,
    sleep: Mutex<Sleep>,
    has_slept: AtomicBool,
}

impl Arrivals {
    pub fn begin() -> Self {
        Self::by(Sleep::default())
    }

    fn by(sleep: Sleep) -> Self {
        let (bytes, last_us, has_slept) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
        Self { clock: Clock::start(), bytes, last_us, sleep: Mutex::new(sleep), has_slept }
    }

    /// Whether this machine has slept since this was begun: what waited in a connection meanwhile is old, and nothing
    /// in it shows that, as the clock stood still.
    pub fn has_slept(&self) -> bool {
        if !lock(&self.sleep).look().is_zero() {
            self.has_slept.store(true, Ordering::Relaxed);
        }
        self.has_slept.load(Ordering::Relaxed)
    }

    pub fn add(&self, bytes: usize, at: Instant) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.last_us.store(self.clock.micros(at), Ordering::Relaxed);
    }

    /// When the last packet came; before the first, when this was begun.
    pub fn last(&self) -> Instant {
        self.clock.instant(self.last_us.load(Ordering::Relaxed))
    }

    fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// Rates of what arrives, over the last two seconds.
pub struct Rates {
    bits: RateWindow,
    packets: RateWindow,
    lost: RateWindow,
    bytes_before: u64,
    packets_before: u64,
    lost_before: u64,
    rtt: Option<Duration>,
    rtt_asked: Option<Instant>,
    /// From capture to encoded, as the server says.
    pub encode: Option<Duration>,
}

impl Rates {
    pub fn new() -> Self {
        let window = || RateWindow::new(RATE_WINDOW);
        Self {
            bits: window(),
            packets: window(),
            lost: window(),
            bytes_before: 0,
            packets_before: 0,
            lost_before: 0,
            rtt: None,
            rtt_asked: None,
            encode: None,
        }
    }

    pub async fn reception(
        &mut self,
        now: Instant,
        arrivals: &Arrivals,
        decode: DecodeStats,
        link: &OpenWay,
        state: LinkState,
    ) -> Reception {
        let bytes = arrivals.bytes();
        self.bits.add(now, (bytes - self.bytes_before) * 8);
        self.packets.add(now, decode.packets.saturating_sub(self.packets_before));
        self.lost.add(now, decode.lost.saturating_sub(self.lost_before));
        (self.bytes_before, self.packets_before, self.lost_before) = (bytes, decode.packets, decode.lost);
        if self.rtt_asked.is_none_or(|at| now.saturating_duration_since(at) >= RTT_INTERVAL) {
            self.rtt_asked = Some(now);
            self.rtt = link.rtt().await;
        }
        let (received, lost) = (self.packets.per_second(now), self.lost.per_second(now));
        Reception {
            bitrate_kbps: self.bits.per_second(now) / 1000.0,
            loss: if received + lost > 0.0 { lost / (received + lost) } else { 0.0 },
            rtt: self.rtt,
            encode: self.encode,
            decode,
            transport: state.transport,
            note: state.note,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_session_knows_for_good_that_the_machine_slept_in_it() {
        let ahead = Arc::new(AtomicU64::new(0));
        let clock = Arc::clone(&ahead);
        let arrivals = Arrivals::by(Sleep::by(move || Duration::from_secs(clock.load(Ordering::Relaxed))));
        assert!(!arrivals.has_slept());
        ahead.store(3_600, Ordering::Relaxed);
        assert!(arrivals.has_slept() && arrivals.has_slept());
    }
}
