//! What viewers report by RTCP, taken out of the core on its way in, and requests for packets that would only add to
//! congestion kept from it.
//!
//! The core itself hands over a compound packet only when the first SSRC in it is that of the media. Chromium reports on
//! the retransmissions first, from the first one on: all that it says after that would be lost, keyframe requests too.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rov_common::sync::lock;
use rtc::interceptor::{BandwidthEstimator, Interceptor, Packet, PacketReport, StreamInfo, TaggedPacket};
use rtc::rtcp;
use rtc::rtcp::transport_feedbacks::transport_layer_nack::{TransportLayerNack, nack_pairs_from_sequence_numbers};
use rtc::sansio::Protocol;
use rtc::shared::error::Error;

use super::estimate::Estimator;

/// A packet is not sent again while the one sent before may still be on its way, but at least so often.
const AGAIN_MIN: Duration = Duration::from_millis(4);
const AGAIN_MAX: Duration = Duration::from_millis(150);
/// Of what the link carries, so much may be retransmissions: more of them would be lost as well. At once as many as it carries in so
/// many seconds, a burst that was lost, and so many packets in any case.
const SHARE: f64 = 0.25;
const BURST_S: f64 = 0.15;
const LEAST_BURST: f64 = 8.0;
const PACKET_BITS: f64 = 1_250.0 * 8.0;

/// What the interceptors and the session of one viewer share.
#[derive(Clone)]
pub struct Feedback(Arc<Mutex<Shared>>);

struct Shared {
    /// That came since they were last taken. Those of one datagram at most, as the session takes them after each.
    packets: Vec<Box<dyn rtcp::Packet>>,
    estimator: Estimator,
}

impl Feedback {
    pub fn new(estimator: Estimator) -> Self {
        Self(Arc::new(Mutex::new(Shared { packets: Vec::new(), estimator })))
    }

    /// The interceptor that fills it. Closer to the wire than what answers requests for packets.
    pub fn tap(&self) -> Tap {
        Tap { feedback: self.clone(), resent: Resent::default(), read: VecDeque::new(), write: VecDeque::new() }
    }

    pub fn take(&self) -> Vec<Box<dyn rtcp::Packet>> {
        std::mem::take(&mut lock(&self.0).packets)
    }

    pub fn with<T>(&self, work: impl FnOnce(&mut Estimator) -> T) -> T {
        work(&mut lock(&self.0).estimator)
    }
}

/// The core's seam for congestion control: it joins what was sent with what was reported.
impl BandwidthEstimator for Feedback {
    fn on_reports(&mut self, now: Instant, reports: &[PacketReport]) {
        self.with(|estimator| estimator.on_reports(now, reports));
    }

    fn target_bitrate(&self) -> f64 {
        self.with(|estimator| estimator.estimate())
    }
}

pub struct Tap {
    feedback: Feedback,
    resent: Resent,
    read: VecDeque<TaggedPacket>,
    write: VecDeque<TaggedPacket>,
}

impl Protocol<TaggedPacket, TaggedPacket, ()> for Tap {
    type Rout = TaggedPacket;
    type Wout = TaggedPacket;
    type Eout = ();
    type Error = Error;
    type Time = Instant;

    fn handle_read(&mut self, mut packet: TaggedPacket) -> Result<(), Error> {
        let now = packet.now;
        if let Packet::Rtcp(packets) = &mut packet.message.packet {
            let mut shared = lock(&self.feedback.0);
            shared.packets.extend(packets.iter().cloned());
            let (rtt, rate) = (shared.estimator.rtt(), shared.estimator.estimate());
            for packet in packets.iter_mut() {
                let Some(nack) = packet.as_any().downcast_ref::<TransportLayerNack>() else { continue };
                let wanted = nack.nacks.iter().flat_map(|pair| pair.packet_list());
                let allowed = self.resent.allowed(now, wanted, rtt, rate);
                *packet =
                    Box::new(TransportLayerNack { nacks: nack_pairs_from_sequence_numbers(&allowed), ..nack.clone() });
            }
        }
        self.read.push_back(packet);
        Ok(())
    }

    fn poll_read(&mut self) -> Option<TaggedPacket> {
        self.read.pop_front()
    }

    fn handle_write(&mut self, packet: TaggedPacket) -> Result<(), Error> {
        self.write.push_back(packet);
        Ok(())
    }

    fn poll_write(&mut self) -> Option<TaggedPacket> {
        self.write.pop_front()
    }
}

impl Interceptor for Tap {
    fn bind_local_stream(&mut self, _info: &StreamInfo) {}
    fn unbind_local_stream(&mut self, _info: &StreamInfo) {}
    fn bind_remote_stream(&mut self, _info: &StreamInfo) {}
    fn unbind_remote_stream(&mut self, _info: &StreamInfo) {}
}

/// Which packets are sent again. Receivers ask for each every few milliseconds until it is there; over a link that is full, answering
/// all of it would keep it full.
#[derive(Default)]
struct Resent {
    /// When a packet was sent again last, by its sequence number: those of a second.
    at: HashMap<u16, Instant>,
    /// Bits that may be sent again, beside the burst; not above zero.
    left: f64,
    refilled: Option<Instant>,
}

impl Resent {
    fn allowed(
        &mut self,
        now: Instant,
        wanted: impl Iterator<Item = u16>,
        rtt: Option<Duration>,
        rate: f64,
    ) -> Vec<u16> {
        let gained = self.refilled.map_or(0.0, |at| rate * SHARE * now.saturating_duration_since(at).as_secs_f64());
        self.left = (self.left + gained).min(0.0);
        self.refilled = Some(now);
        let again = rtt.unwrap_or_default().clamp(AGAIN_MIN, AGAIN_MAX);
        self.at.retain(|_, at| now.saturating_duration_since(*at) < Duration::from_secs(1));
        let burst = (rate * BURST_S).max(LEAST_BURST * PACKET_BITS);
        let mut allowed = Vec::new();
        for sequence in wanted {
            let waits = self.at.get(&sequence).is_some_and(|at| now.saturating_duration_since(*at) < again);
            if waits || self.left < -burst {
                continue;
            }
            self.at.insert(sequence, now);
            self.left -= PACKET_BITS;
            allowed.push(sequence);
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_that_is_on_its_way_is_not_sent_again() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut resent = Resent::default();
        let rtt = Some(Duration::from_millis(20));
        let mut allowed = |ms, wanted: &[u16]| resent.allowed(at(ms), wanted.iter().copied(), rtt, 4e6);
        assert_eq!(allowed(0, &[7, 8]), [7, 8]);
        assert_eq!(allowed(5, &[7, 8, 9]), [9]);
        assert_eq!(allowed(21, &[7, 8, 9]), [7, 8]);
    }

    #[test]
    fn retransmissions_are_a_part_of_what_the_link_carries() {
        let start = Instant::now();
        let mut resent = Resent::default();
        // Ten seconds of a link of 1 Mbit/s, on which half of 4 Mbit/s is asked for again.
        let all: usize = (0..1_000u32)
            .map(|i| {
                let now = start + Duration::from_millis(u64::from(i) * 10);
                let wanted = (0..2).map(|k| (i * 2 + k) as u16);
                resent.allowed(now, wanted, None, 1e6).len()
            })
            .sum();
        let bits = all as f64 * PACKET_BITS / 10.0;
        assert!((0.2e6..0.35e6).contains(&bits), "{bits}");
    }

    #[test]
    fn a_burst_that_was_lost_is_sent_again_at_once() {
        let mut resent = Resent::default();
        assert_eq!(resent.allowed(Instant::now(), 0..60, None, 4e6).len(), 60);
        assert!(Resent::default().allowed(Instant::now(), 0..60, None, 0.5e6).len() < 12, "not on a slow link");
    }
}
