//! Telemetry to viewers by a WebRTC data channel: the newest values alone, each a text as `/api/events` gives it. This
//! side opens the channel; what comes by it, or by channels of the viewer's own, is dropped unread.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use rov_common::sync::lock;
use rtc::data_channel::{RTCDataChannelId, RTCDataChannelState};
use rtc::peer_connection::RTCPeerConnection;
use rtc::shared::error::Error;

const LABEL: &str = "telemetry";

/// Bytes of the longest message in either direction. 32 fields and a time of day for each stream are less than half.
pub(super) const MAX_MESSAGE: u32 = 16 * 1024;

/// The newest values for the media thread.
#[derive(Debug, Default)]
pub struct Values {
    newest: Mutex<Option<Arc<str>>>,
    is_followed: AtomicBool,
}

impl Values {
    /// In the place of those before. Whether somebody takes them by a data channel.
    pub fn tell(&self, values: String) -> bool {
        *lock(&self.newest) = Some(values.into());
        self.is_followed.load(Ordering::Relaxed)
    }

    pub(super) fn newest(&self) -> Option<Arc<str>> {
        lock(&self.newest).clone()
    }

    pub(super) fn set_followed(&self, is_followed: bool) {
        self.is_followed.store(is_followed, Ordering::Relaxed);
    }
}

pub(super) struct Channel {
    id: RTCDataChannelId,
    /// Those that the viewer was sent last.
    told: Option<Arc<str>>,
}

impl Channel {
    /// Ordered and reliable. It opens as soon as the viewer can be reached.
    pub fn open(core: &mut RTCPeerConnection) -> Result<Self, Error> {
        Ok(Self { id: core.create_data_channel(LABEL, None)?.id(), told: None })
    }

    /// Sends `values` if they are new and those before have arrived: nothing is queued. False when the channel has
    /// closed.
    pub fn tell(&mut self, now: Instant, core: &mut RTCPeerConnection, values: &Arc<str>) -> bool {
        let Some(mut channel) = core.data_channel(self.id) else { return false };
        let is_told = self.told.as_ref().is_some_and(|told| Arc::ptr_eq(told, values));
        match channel.ready_state() {
            RTCDataChannelState::Open if is_told || channel.outstanding_bytes() > 0 => true,
            RTCDataChannelState::Open => {
                if let Err(error) = channel.send_text(now, &**values) {
                    tracing::debug!(%error, "telemetry not sent by the data channel");
                }
                self.told = Some(Arc::clone(values));
                true
            }
            RTCDataChannelState::Closing | RTCDataChannelState::Closed => false,
            _ => true,
        }
    }
}

/// What a viewer may send by DTLS: until it is connected for the handshake, as the core keeps what comes early; then by
/// data channels: it acknowledges ten messages a second. Of more the core learns nothing, as if it was lost on the way,
/// so that no viewer costs the media thread much.
#[derive(Debug)]
pub(super) struct Allowance {
    /// Bytes that are left until it is connected.
    handshake: usize,
    left: f64,
    at: Instant,
}

impl Allowance {
    const BYTES_PER_SECOND: f64 = 16_384.0;
    const AT_ONCE: f64 = 16_384.0;
    /// For all tries at a handshake, each of which is some 4 KiB.
    const HANDSHAKE: usize = 256 * 1024;
    /// A datagram counts for so many bytes at least: it costs some work however short it is.
    const LEAST: usize = 256;

    pub fn new(now: Instant) -> Self {
        Self { handshake: Self::HANDSHAKE, left: Self::AT_ONCE, at: now }
    }

    /// Whether it is of DTLS (RFC 7983).
    pub fn concerns(datagram: &[u8]) -> bool {
        matches!(datagram.first(), Some(20..=63))
    }

    /// Whether a datagram of that length is within it.
    pub fn takes(&mut self, now: Instant, is_connected: bool, length: usize) -> bool {
        let cost = length.max(Self::LEAST);
        if !is_connected {
            let left = self.handshake.checked_sub(cost);
            self.handshake = left.unwrap_or_default();
            return left.is_some();
        }
        let earned = now.saturating_duration_since(self.at).as_secs_f64() * Self::BYTES_PER_SECOND;
        (self.left, self.at) = ((self.left + earned).min(Self::AT_ONCE), now);
        let cost = cost as f64;
        let is_within = cost <= self.left;
        self.left -= if is_within { cost } else { 0.0 };
        is_within
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn acknowledgements_are_within_the_allowance_and_a_flood_is_not() {
        let now = Instant::now();
        let mut allowance = Allowance::new(now);
        for tenth in 0..1_000 {
            assert!(
                allowance.takes(now + Duration::from_millis(100 * tenth), true, 90),
                "after {tenth} tenths of a second"
            );
        }
        let (mut allowance, mut taken) = (Allowance::new(now), 0);
        for millisecond in 0..10_000 {
            taken += u32::from(allowance.takes(now + Duration::from_millis(millisecond), true, 20));
        }
        assert_eq!(taken, 64 * 11 - 1, "64 at once, and 64 in each second");
        assert!(!allowance.takes(now + Duration::from_secs(100), true, 17_000), "longer than anything that DTLS has");
        assert!(allowance.takes(now + Duration::from_secs(100), true, 16_384));
    }

    #[test]
    fn only_dtls_counts() {
        for (first, is_dtls) in [(0, false), (1, false), (19, false), (20, true), (23, true), (63, true), (128, false)]
        {
            assert_eq!(Allowance::concerns(&[first]), is_dtls, "{first}");
        }
        assert!(!Allowance::concerns(&[]));
    }
}
