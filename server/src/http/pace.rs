//! How fast pictures are given in the background: with what the link has spare beside those that are watched, and where
//! these could use more than it carries with a tenth of that. While nobody watches, as fast as the connection takes them.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rov_common::api::{Stats, ViewerStats};

use super::ring::PLACES;
use super::{Api, gather};

/// Of what the link carries.
const SHARE: f64 = 0.1;
/// The least, bit/s: of a link that carries next to nothing, too, something comes.
const LEAST: f64 = 64e3;
/// Between two looks at the link.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Of one answer.
pub(super) struct Pace {
    api: Arc<Api>,
    peer: IpAddr,
    looked: Option<Instant>,
    /// Bytes that each viewer had been sent then.
    sent: HashMap<String, u64>,
    /// Bit/s; None: without a limit.
    rate: Option<f64>,
    due: Instant,
}

impl Pace {
    pub fn new(api: Arc<Api>, peer: IpAddr) -> Self {
        Self { api, peer, looked: None, sent: HashMap::new(), rate: Some(LEAST), due: Instant::now() }
    }

    /// Until so many bytes may go.
    pub async fn wait(&mut self, bytes: usize) {
        let now = Instant::now();
        if self.looked.is_none_or(|looked| now - looked >= LOOK_EVERY) {
            self.look(now).await;
        }
        let Some(rate) = self.rate else { return };
        let due = self.due.max(now);
        self.due = due + Duration::from_secs_f64(bytes as f64 * 8.0 / rate);
        tokio::time::sleep_until(due.into()).await;
    }

    async fn look(&mut self, now: Instant) {
        let passed = self.looked.replace(now).map(|looked| (now - looked).as_secs_f64());
        // A media thread that is busy says so: what was known stays.
        let Ok(stats) = gather(&self.api).await else { return };
        let before = std::mem::take(&mut self.sent);
        let seen = stats.viewers.iter().filter_map(|viewer| {
            let address = viewer.address.parse::<SocketAddr>().ok()?.ip();
            let is_near = viewer.pilot || address == self.peer;
            (is_near && watches(viewer)).then(|| {
                self.sent.insert(viewer.id.clone(), viewer.bytes);
                let sent = before.get(&viewer.id).map(|before| viewer.bytes.saturating_sub(*before) as f64 * 8.0);
                let rate = sent.zip(passed).map(|(bits, passed)| bits / passed.max(1e-3));
                Link { address, carries: viewer.available_bandwidth as f64, is_full: viewer.limited, rate }
            })
        });
        let seen: Vec<_> = seen.collect();
        let busy = PLACES.saturating_sub(self.api.ring_places.available_permits()).max(1);
        self.rate = spare(&seen, others(&stats)).map(|rate| (rate / busy as f64).max(LEAST));
    }
}

/// What is known of the way to a viewer, bit/s.
#[derive(Clone, Copy, Debug)]
struct Link {
    address: IpAddr,
    carries: f64,
    /// The pictures could use more.
    is_full: bool,
    /// What it is sent; None: not measured yet.
    rate: Option<f64>,
}

fn watches(viewer: &ViewerStats) -> bool {
    viewer.connected_s > 0.0 && viewer.stalled.is_none()
}

/// The bit rates of streams that somebody watches otherwise, who tells nothing of the link.
fn others(stats: &Stats) -> f64 {
    let by_webrtc = |name: &str| stats.viewers.iter().filter(|viewer| viewer.stream == name && watches(viewer)).count();
    let watched = stats.streams.iter().filter(|stream| stream.client_count > by_webrtc(&stream.name) as u64);
    watched.map(|stream| stream.bitrate_kbps * 1e3).sum()
}

/// For the background, of the narrowest of the ways. None: nobody watches.
fn spare(links: &[Link], others: f64) -> Option<f64> {
    let of_address = |address: IpAddr| {
        let there: Vec<_> = links.iter().filter(|link| link.address == address).collect();
        let carries: f64 = there.iter().map(|link| link.carries).sum();
        let is_full = there.iter().any(|link| link.is_full);
        let rate = there.iter().map(|link| link.rate).sum::<Option<f64>>().filter(|_| !is_full);
        rate.map_or(0.0, |rate| carries - rate - others).max(carries * SHARE)
    };
    let narrowest = links.iter().map(|link| of_address(link.address)).min_by(f64::total_cmp);
    narrowest.or_else(|| (others > 0.0).then_some(others * SHARE))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(last: u8, carries: f64, rate: Option<f64>) -> Link {
        Link { address: IpAddr::from([10, 0, 0, last]), carries, is_full: false, rate }
    }

    #[test]
    fn a_full_link_gives_a_tenth_and_one_that_is_not_what_is_spare() {
        assert_eq!(spare(&[], 0.0), None, "nobody watches");
        assert_eq!(spare(&[link(1, 4e6, Some(3.8e6))], 0.0), Some(0.4e6));
        let full = Link { is_full: true, ..link(1, 4e6, Some(1e6)) };
        assert_eq!(spare(&[full], 0.0), Some(0.4e6), "the pilot's picture would take the rest");
        assert_eq!(spare(&[link(1, 5e6, Some(2e6))], 0.0), Some(3e6));
        assert_eq!(spare(&[link(1, 5e6, None)], 0.0), Some(0.5e6), "before the rate is known");
        // Two tiles over one link; a pilot elsewhere.
        assert_eq!(spare(&[link(1, 5e6, Some(2e6)), link(1, 3e6, Some(3e6))], 0.0), Some(3e6));
        assert_eq!(spare(&[link(1, 5e6, Some(2e6)), link(2, 2e6, Some(2e6))], 0.0), Some(0.2e6));
        // By RTP and RTSP nothing is known of the link.
        assert_eq!(spare(&[], 4e6), Some(0.4e6));
        assert_eq!(spare(&[link(1, 8e6, Some(3e6))], 4e6), Some(1e6));
    }
}
