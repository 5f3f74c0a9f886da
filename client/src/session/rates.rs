//! What arrives in a session, and its rates.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

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
}

impl Arrivals {
    pub fn begin() -> Self {
        Self { clock: Clock::start(), bytes: AtomicU64::new(0), last_us: AtomicU64::new(0) }
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
