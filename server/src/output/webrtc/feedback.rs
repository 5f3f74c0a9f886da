//! What viewers report by RTCP, taken out of the core on its way in, requests for packets that would only add to
//! congestion kept from it, those that browsers would make too late made for them, the numbers by which packets are
//! reported, and the times of sender reports.
//!
//! The core itself hands over a compound packet only when the first SSRC in it is that of the media. Chromium reports
//! on the retransmissions first, from the first one on: all that it says after that would be lost, keyframe requests
//! too.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rov_common::api::PictureTime;
use rov_common::sync::lock;
use rov_common::webrtc::TRANSPORT_CC_URI;
use rtc::interceptor::{AttributedPacket, Interceptor, Packet, StreamInfo, TaggedPacket, convert_twcc};
use rtc::rtcp;
use rtc::rtcp::extended_report::{DLRRReport, DLRRReportBlock, ExtendedReport, ReceiverReferenceTimeReportBlock};
use rtc::rtcp::sender_report::SenderReport;
use rtc::rtcp::transport_feedbacks::transport_layer_cc::{PacketStatusChunk, TransportLayerCc};
use rtc::rtcp::transport_feedbacks::transport_layer_nack::{TransportLayerNack, nack_pairs_from_sequence_numbers};
use rtc::sansio::Protocol;
use rtc::shared::error::Error;
use rtc::shared::marshal::MarshalSize;

use super::estimate::Estimator;
use super::history::{Carried, History, MAX_PACKETS, Report};
use crate::packetize::{Anchor, Frame};

/// A packet is not sent again while the one sent before may still be on its way, but at least so often.
const AGAIN_MIN: Duration = Duration::from_millis(4);
const AGAIN_MAX: Duration = Duration::from_millis(150);
/// Of what the link carries, so much may be retransmissions: more of them would be lost as well. At once as many as it
/// carries in so many seconds, a burst that was lost, and so many packets in any case.
const SHARE: f64 = 0.25;
const BURST_S: f64 = 0.15;
const LEAST_BURST: f64 = 8.0;
const PACKET_BITS: f64 = 1_250.0 * 8.0;
/// A browser asks for a packet when a later one has come: for the last of a picture a picture later; and for a
/// retransmission that was lost as well, 100 ms later. Several pictures are then complete at once, and it shows the
/// last of them alone. So, while it reports losses, both are sent a second time, so long after the first: apart, as
/// losses often come together.
const REPEAT_AFTER: Duration = Duration::from_millis(3);
/// Where what asks for a packet is lost, a browser asks again 100 ms later, and shows several pictures fewer. It tells
/// of the packet's loss also by the reports on all packets, every 50 ms or so: it is sent again then, for so long after
/// it left first; later its picture is old.
const TOLD_FOR: Duration = Duration::from_millis(250);
/// A viewer that tells when it sends its reports learns the round-trip time, so often at most.
const RTT_INTERVAL: Duration = Duration::from_millis(100);
/// It reports losses: it asked for packets in the last so many seconds.
const LOSSY_FOR: Duration = Duration::from_secs(2);
/// Not while a queue stands on the way that is longer than this, which more packets would make longer still; nor where
/// no report tells of it, for so long.
const REPEAT_QUEUE: Duration = Duration::from_millis(12);
const REPORT_AGE: Duration = Duration::from_millis(500);
/// Waiting to be sent a second time; beyond, none are added.
const MAX_REPEATS: usize = 256;

/// What the interceptor and the session of one viewer share.
#[derive(Clone)]
pub struct Feedback(Arc<Mutex<Shared>>);

struct Shared {
    /// That came since they were last taken, but for what the estimator has had. Those of one datagram at most, as the
    /// session takes them after each.
    packets: Vec<Box<dyn rtcp::Packet>>,
    /// Any came at all.
    heard: bool,
    estimator: Estimator,
    /// The capture of the frame that was sent last, and what the viewer's timestamps are higher by.
    sent: Option<(Anchor, u32)>,
}

/// The sessions of all viewers by their public names, for who asks what was sent to them without the media thread.
/// Cheap to clone.
#[derive(Clone, Default)]
pub struct Pictures(Arc<Mutex<HashMap<String, Weak<Mutex<Shared>>>>>);

impl Pictures {
    pub fn add(&self, viewer: &str, feedback: &Feedback) {
        let mut all = lock(&self.0);
        // Of those who have gone.
        all.retain(|_, feedback| feedback.strong_count() > 0);
        all.insert(viewer.to_owned(), Arc::downgrade(&feedback.0));
    }

    /// The picture that was sent to this viewer last, as its packets have it.
    pub fn sent(&self, viewer: &str) -> Option<PictureTime> {
        let feedback = lock(&self.0).get(viewer)?.upgrade()?;
        Feedback(feedback).sent()
    }
}

impl Feedback {
    pub fn new(estimator: Estimator) -> Self {
        Self(Arc::new(Mutex::new(Shared { packets: Vec::new(), heard: false, estimator, sent: None })))
    }

    /// The interceptor that fills it. It belongs nearest to the wire, where requests for packets pass before they are
    /// answered, and the answers after that.
    pub fn tap(&self) -> Tap {
        Tap {
            feedback: self.clone(),
            resent: Resent::default(),
            repeated: HashMap::new(),
            repeats: VecDeque::new(),
            lost: HashMap::new(),
            numbered: HashMap::new(),
            history: History::default(),
            timed: None,
            read: VecDeque::new(),
            write: VecDeque::new(),
        }
    }

    /// None when no RTCP came since it was last asked.
    pub fn take(&self) -> Option<Vec<Box<dyn rtcp::Packet>>> {
        let mut shared = lock(&self.0);
        let packets = std::mem::take(&mut shared.packets);
        std::mem::take(&mut shared.heard).then_some(packets)
    }

    /// A frame is about to be sent, whose packets have timestamps that are higher by `offset`.
    pub fn sends(&self, frame: &Frame, offset: u32) {
        lock(&self.0).sent = Some((frame.into(), offset));
    }

    /// The frame that was sent last, as the viewer's packets have it.
    fn sent(&self) -> Option<PictureTime> {
        let (anchor, offset) = lock(&self.0).sent?;
        Some(anchor.picture(offset))
    }

    pub fn with<T>(&self, work: impl FnOnce(&mut Estimator) -> T) -> T {
        work(&mut lock(&self.0).estimator)
    }
}

pub struct Tap {
    feedback: Feedback,
    resent: Resent,
    /// Streams whose packets are sent again in a stream of their own (RFC 4588), as browsers have it, by the SSRC of
    /// either.
    repeated: HashMap<u32, u32>,
    /// Packets that are to be sent again without being asked for, in the order of time.
    repeats: VecDeque<Repeat>,
    /// Packets of such streams that the viewer told were lost, and none of whose copies it told to have come, by SSRC
    /// and number, and when they left first.
    lost: HashMap<(u32, u16), Instant>,
    /// Streams whose packets get numbers, by SSRC, and the header extension for that.
    numbered: HashMap<u32, u8>,
    history: History,
    /// When the viewer was told how long ago its last report came.
    timed: Option<Instant>,
    read: VecDeque<TaggedPacket>,
    write: VecDeque<TaggedPacket>,
}

/// A packet that is to be sent again.
struct Repeat {
    at: Instant,
    ssrc: u32,
    sequence: u16,
    /// Only if it is still known to be lost, and was not sent again since the copy that left then was.
    lost: Option<Instant>,
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
            shared.heard = true;
            let mut spoken_of = 0;
            for packet in packets.iter() {
                match packet.as_any().downcast_ref::<TransportLayerCc>() {
                    Some(report) => {
                        // A few bytes may speak of 8,191 packets: a hostile viewer could keep this thread busy.
                        spoken_of += report.packet_chunks.iter().map(packets_of).sum::<usize>();
                        if spoken_of <= MAX_PACKETS {
                            // The last chunk may be padded with packets of which it does not speak.
                            let told = usize::from(report.packet_status_count);
                            for acknowledgement in convert_twcc(report).into_iter().take(told) {
                                self.history.acknowledge(now, acknowledgement);
                            }
                        }
                    }
                    None => shared.packets.push(packet.clone()),
                }
            }
            let reports = self.history.take();
            if !reports.is_empty() {
                shared.estimator.on_reports(now, &reports);
            }
            shared.estimator.on_silence(now, self.history.unreported());
            let (rtt, rate) = (shared.estimator.rtt(), shared.estimator.estimate());
            drop(shared);
            let timed = packets.iter().find_map(|packet| answer_to(packet.as_any().downcast_ref()?));
            if let Some(answer) = timed
                && self.timed.is_none_or(|at| now.saturating_duration_since(at) >= RTT_INTERVAL)
            {
                self.timed = Some(now);
                let message = AttributedPacket::new(Packet::Rtcp(vec![Box::new(answer)]));
                self.write.push_back(TaggedPacket { now, transport: Default::default(), message });
            }
            self.note_losses(now, &reports);
            for packet in packets.iter_mut() {
                let Some(nack) = packet.as_any().downcast_ref::<TransportLayerNack>() else { continue };
                let wanted = nack.nacks.iter().flat_map(|pair| pair.packet_list());
                let allowed = self.resent.allowed(now, wanted, rtt, rate);
                for sequence in &allowed {
                    self.repeat(now, nack.media_ssrc, *sequence);
                }
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

    fn handle_write(&mut self, mut packet: TaggedPacket) -> Result<(), Error> {
        let now = packet.now;
        if let Packet::Rtcp(packets) = &mut packet.message.packet
            && let Some((anchor, offset)) = lock(&self.feedback.0).sent
        {
            let (timestamp, captured) = anchor.at(now);
            for packet in packets {
                // The core gives the time of sending the RTP timestamp of a picture that was captured before. Those of
                // retransmissions (RFC 4588) have the same timestamps.
                if let Some(report) = packet.as_any().downcast_ref::<SenderReport>().cloned() {
                    let rtp_time = timestamp.wrapping_add(offset);
                    *packet = Box::new(SenderReport { ntp_time: captured.ntp(), rtp_time, ..report });
                }
            }
        }
        if let Packet::Rtp(rtp) = &packet.message.packet
            && rtp.header.marker
            // They are a large part of the few packets of a link that carries little.
            && !self.feedback.with(|estimator| estimator.is_limited())
        {
            self.repeat(now, rtp.header.ssrc, rtp.header.sequence_number);
        }
        if let Packet::Rtp(rtp) = &mut packet.message.packet
            && let Some(extension) = self.numbered.get(&rtp.header.ssrc)
        {
            // A header that has no room for it goes without.
            let number = Bytes::copy_from_slice(&self.history.next().to_be_bytes());
            if rtp.header.set_extension(*extension, number).is_ok() {
                let carried = self.repeated.get(&rtp.header.ssrc).and_then(|media| carried(rtp, *media));
                self.history.add(packet.now, rtp.marshal_size(), carried);
            }
        }
        self.write.push_back(packet);
        Ok(())
    }

    fn poll_write(&mut self) -> Option<TaggedPacket> {
        self.write.pop_front()
    }

    fn poll_timeout(&mut self) -> Option<Instant> {
        self.repeats.front().map(|repeat| repeat.at)
    }

    /// Asks for the packets whose second time has come, as the viewer does by its reports.
    fn handle_timeout(&mut self, now: Instant) -> Result<(), Error> {
        if self.poll_timeout().is_none_or(|at| now < at) {
            return Ok(());
        }
        let (queue, rate, reported, is_limited) = self.feedback.with(|estimator| {
            (estimator.queue(), estimator.estimate(), estimator.last_report(), estimator.is_limited())
        });
        let is_known = reported.is_some_and(|at| now.saturating_duration_since(at) < REPORT_AGE);
        while let Some(repeat) = self.repeats.pop_front_if(|repeat| repeat.at <= now) {
            let Repeat { ssrc: media_ssrc, sequence, lost, .. } = repeat;
            if let Some(left) = lost {
                let is_lost = self.lost.contains_key(&(media_ssrc, sequence));
                if is_limited || !is_lost || self.resent.at.get(&sequence).is_some_and(|at| *at > left) {
                    continue;
                }
            }
            if !is_known || queue > REPEAT_QUEUE || !self.resent.has_room(now, rate) {
                continue;
            }
            self.resent.at.insert(sequence, now);
            let nacks = nack_pairs_from_sequence_numbers(&[sequence]);
            let asked: Vec<Box<dyn rtcp::Packet>> =
                vec![Box::new(TransportLayerNack { media_ssrc, nacks, ..Default::default() })];
            let message = AttributedPacket::new(Packet::Rtcp(asked));
            self.read.push_back(TaggedPacket { now, transport: Default::default(), message });
        }
        Ok(())
    }
}

impl Tap {
    /// Has the packet sent a second time, where the viewer reports losses and is a browser.
    fn repeat(&mut self, now: Instant, ssrc: u32, sequence: u16) {
        if self.repeated.get(&ssrc) == Some(&ssrc) && self.resent.is_lossy(now) {
            self.send_again(now, ssrc, sequence, None);
        }
    }

    /// Has the packets sent again that the viewer tells are lost, if it does not ask for them.
    fn note_losses(&mut self, now: Instant, reports: &[Report]) {
        self.lost.retain(|_, left| now.saturating_duration_since(*left) < TOLD_FOR);
        for report in reports {
            let Some(Carried { ssrc, sequence, again }) = report.carried else { continue };
            let key = (ssrc, sequence);
            if report.arrived {
                self.lost.remove(&key);
            }
            if !report.missed {
                continue;
            }
            if !again && now.saturating_duration_since(report.departure) < TOLD_FOR {
                self.lost.insert(key, report.departure);
            }
            if self.lost.contains_key(&key) {
                self.send_again(now, ssrc, sequence, Some(report.departure));
            }
        }
    }

    fn send_again(&mut self, now: Instant, ssrc: u32, sequence: u16, lost: Option<Instant>) {
        if self.repeats.len() < MAX_REPEATS {
            self.repeats.push_back(Repeat { at: now + REPEAT_AFTER, ssrc, sequence, lost });
        }
    }
}

/// To a report with the time at which it was sent: that it came just now (RFC 3611, section 4.5).
fn answer_to(report: &ExtendedReport) -> Option<ExtendedReport> {
    let sent =
        report.reports.iter().find_map(|block| block.as_any().downcast_ref::<ReceiverReferenceTimeReportBlock>())?;
    // The middle of the 64 bits.
    let reports = vec![DLRRReport { ssrc: report.sender_ssrc, last_rr: (sent.ntp_timestamp >> 16) as u32, dlrr: 0 }];
    Some(ExtendedReport { sender_ssrc: 0, reports: vec![Box::new(DLRRReportBlock { reports })] })
}

/// The packet of the stream of pictures that this one is, or that it carries again (RFC 4588, section 4).
fn carried(packet: &rtc::rtp::Packet, media: u32) -> Option<Carried> {
    if packet.header.ssrc == media {
        return Some(Carried { ssrc: media, sequence: packet.header.sequence_number, again: false });
    }
    let sequence = packet.payload.first_chunk().map(|number| u16::from_be_bytes(*number))?;
    Some(Carried { ssrc: media, sequence, again: true })
}

impl Interceptor for Tap {
    fn bind_local_stream(&mut self, info: &StreamInfo) {
        if let Some(rtx) = info.ssrc_rtx {
            self.repeated.extend([(info.ssrc, info.ssrc), (rtx, info.ssrc)]);
        }
        let extension = info.rtp_header_extensions.iter().find(|extension| extension.uri == TRANSPORT_CC_URI);
        if let Some(id) = extension.and_then(|extension| u8::try_from(extension.id).ok()).filter(|id| *id != 0) {
            // Retransmissions are a load on the link as well.
            self.numbered.extend([Some(info.ssrc), info.ssrc_rtx].into_iter().flatten().map(|ssrc| (ssrc, id)));
        }
    }

    fn unbind_local_stream(&mut self, info: &StreamInfo) {
        self.repeated.retain(|_, media| *media != info.ssrc);
        self.numbered.retain(|ssrc, _| *ssrc != info.ssrc && Some(*ssrc) != info.ssrc_rtx);
    }

    fn bind_remote_stream(&mut self, _info: &StreamInfo) {}
    fn unbind_remote_stream(&mut self, _info: &StreamInfo) {}
}

/// How many packets it speaks of.
fn packets_of(chunk: &PacketStatusChunk) -> usize {
    match chunk {
        PacketStatusChunk::RunLengthChunk(chunk) => chunk.run_length.into(),
        PacketStatusChunk::StatusVectorChunk(chunk) => chunk.symbol_list.len(),
    }
}

/// Which packets are sent again. Receivers ask for each every few milliseconds until it is there; over a link that is
/// full, answering all of it would keep it full.
#[derive(Default)]
struct Resent {
    /// When a packet was sent again last, by its sequence number: those of a second.
    at: HashMap<u16, Instant>,
    /// Bits that may be sent again, beside the burst; not above zero.
    left: f64,
    refilled: Option<Instant>,
    /// When packets were asked for last.
    asked: Option<Instant>,
}

impl Resent {
    fn allowed(
        &mut self,
        now: Instant,
        wanted: impl Iterator<Item = u16>,
        rtt: Option<Duration>,
        rate: f64,
    ) -> Vec<u16> {
        self.refill(now, rate);
        let again = rtt.unwrap_or_default().clamp(AGAIN_MIN, AGAIN_MAX);
        let mut allowed = Vec::new();
        for sequence in wanted {
            self.asked = Some(now);
            let waits = self.at.get(&sequence).is_some_and(|at| now.saturating_duration_since(*at) < again);
            if waits || self.left < -burst(rate) {
                continue;
            }
            self.at.insert(sequence, now);
            self.left -= PACKET_BITS;
            allowed.push(sequence);
        }
        allowed
    }

    /// Whether a packet may be sent that was not asked for; if so, it counts. What is asked for has the larger part.
    fn has_room(&mut self, now: Instant, rate: f64) -> bool {
        self.refill(now, rate);
        let has_room = self.left >= -burst(rate) / 4.0;
        if has_room {
            self.left -= PACKET_BITS;
        }
        has_room
    }

    fn refill(&mut self, now: Instant, rate: f64) {
        let gained = self.refilled.map_or(0.0, |at| rate * SHARE * now.saturating_duration_since(at).as_secs_f64());
        self.left = (self.left + gained).min(0.0);
        self.refilled = Some(now);
        self.at.retain(|_, at| now.saturating_duration_since(*at) < Duration::from_secs(1));
    }

    fn is_lossy(&self, now: Instant) -> bool {
        self.asked.is_some_and(|at| now.saturating_duration_since(at) < LOSSY_FOR)
    }
}

/// Bits that may be sent again at once.
fn burst(rate: f64) -> f64 {
    (rate * BURST_S).max(LEAST_BURST * PACKET_BITS)
}

#[cfg(test)]
mod tests {
    use rtc::interceptor::RTPHeaderExtension;
    use rtc::rtcp::transport_feedbacks::transport_layer_cc::{
        RecvDelta, RunLengthChunk, StatusVectorChunk, SymbolTypeTcc,
    };

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

    fn outgoing(now: Instant, ssrc: u32) -> TaggedPacket {
        let header = rtc::rtp::header::Header { version: 2, ssrc, ..Default::default() };
        let packet = rtc::rtp::Packet { header, payload: Bytes::from_static(&[1; 100]) };
        TaggedPacket { now, transport: Default::default(), message: AttributedPacket::new(Packet::Rtp(packet)) }
    }

    /// That so many packets from number 0 on are like this.
    fn report(symbol: SymbolTypeTcc, packets: u16) -> TransportLayerCc {
        let run = RunLengthChunk { packet_status_symbol: symbol, run_length: packets, ..Default::default() };
        TransportLayerCc {
            packet_status_count: packets,
            packet_chunks: vec![PacketStatusChunk::RunLengthChunk(run)],
            recv_deltas: vec![RecvDelta { type_tcc_packet: symbol, delta: 250 }; 2],
            ..Default::default()
        }
    }

    #[test]
    fn a_datagram_that_speaks_of_more_packets_than_there_can_be_is_not_believed_to_its_end() {
        let (feedback, now) = (Feedback::new(Estimator::new(1e6)), Instant::now());
        let mut tap = feedback.tap();
        tap.history.add(now, 1, None);
        let lost = report(SymbolTypeTcc::PacketNotReceived, 8_191);
        let mut hear = |lost_before: usize| {
            let mut packets: Vec<Box<dyn rtcp::Packet>> = vec![Box::new(lost.clone()); lost_before];
            packets.push(Box::new(report(SymbolTypeTcc::PacketReceivedSmallDelta, 1)));
            let message = AttributedPacket::new(Packet::Rtcp(packets));
            tap.handle_read(TaggedPacket { now, transport: Default::default(), message }).unwrap();
            feedback.with(|estimator| estimator.rtt()).is_some()
        };
        assert!(!hear(100));
        assert!(hear(3), "the next datagram is looked at again");
    }

    /// The numbers of packets that the tap itself asks for.
    fn asked_for(tap: &mut Tap) -> Vec<u16> {
        let asked = std::iter::from_fn(|| tap.poll_read()).flat_map(|packet| match packet.message.packet {
            Packet::Rtcp(packets) => packets,
            _ => Vec::new(),
        });
        asked
            .filter_map(|packet| packet.as_any().downcast_ref::<TransportLayerNack>().cloned())
            .flat_map(|nack| nack.nacks.into_iter().flat_map(|pair| pair.packet_list()))
            .collect()
    }

    fn nack(now: Instant, sequence: u16) -> TaggedPacket {
        let nacks = nack_pairs_from_sequence_numbers(&[sequence]);
        let nack: Box<dyn rtcp::Packet> = Box::new(TransportLayerNack { media_ssrc: 1, nacks, ..Default::default() });
        TaggedPacket { now, transport: Default::default(), message: AttributedPacket::new(Packet::Rtcp(vec![nack])) }
    }

    fn sends(tap: &mut Tap, now: Instant, ssrc: u32, sequence_number: u16, marker: bool) {
        let mut packet = outgoing(now, ssrc);
        if let Packet::Rtp(rtp) = &mut packet.message.packet {
            (rtp.header.sequence_number, rtp.header.marker) = (sequence_number, marker);
        }
        tap.handle_write(packet).unwrap();
    }

    /// It tells that its first packet came.
    fn tells(tap: &mut Tap, now: Instant) {
        tap.history.add(now, 1, None);
        let report: Box<dyn rtcp::Packet> = Box::new(report(SymbolTypeTcc::PacketReceivedSmallDelta, 1));
        let message = AttributedPacket::new(Packet::Rtcp(vec![report]));
        tap.handle_read(TaggedPacket { now, transport: Default::default(), message }).unwrap();
    }

    #[test]
    fn a_viewer_that_speaks_and_tells_of_nothing_that_is_sent_has_a_queue() {
        let (feedback, start) = (Feedback::new(Estimator::new(4e6)), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        let mut tap = feedback.tap();
        tells(&mut tap, at(0));
        let mut estimate = |ms: u64, sends: bool| {
            if sends {
                tap.history.add(at(ms), 1_000, None);
            }
            tap.handle_read(nack(at(ms), 9)).unwrap();
            feedback.with(|estimator| (estimator.estimate(), estimator.take_drain().is_some()))
        };
        assert_eq!(estimate(5_000, true), (4e6, false), "nothing was sent");
        assert_eq!(estimate(5_450, true), (4e6, false));
        assert_eq!(estimate(5_900, true), (4e6, false));
        assert_eq!(estimate(6_100, true), (2e6, true));
        assert_eq!(estimate(6_500, true), (2e6, false), "once");
    }

    #[test]
    fn nothing_is_sent_twice_where_nobody_tells_of_a_queue_and_no_last_packet_over_a_link_that_is_full() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        for (told, share, twice) in [(true, 4e6, vec![9, 10]), (false, 4e6, vec![]), (true, 1e6, vec![9])] {
            let feedback = Feedback::new(Estimator::new(4e6));
            let mut tap = feedback.tap();
            tap.bind_local_stream(&StreamInfo { ssrc: 1, ssrc_rtx: Some(2), ..Default::default() });
            if told {
                tells(&mut tap, at(0));
            }
            feedback.with(|estimator| estimator.set_share(share));
            tap.handle_read(nack(at(1), 9)).unwrap();
            assert_eq!(asked_for(&mut tap), [9]);
            sends(&mut tap, at(2), 1, 10, true);
            tap.handle_timeout(at(6)).unwrap();
            assert_eq!(asked_for(&mut tap), twice, "told {told}, {share} bit/s");
        }
    }

    #[test]
    fn a_browser_that_reports_losses_is_sent_the_last_packets_of_pictures_and_retransmissions_twice() {
        let (feedback, start) = (Feedback::new(Estimator::new(4e6)), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        let mut tap = feedback.tap();
        tap.bind_local_stream(&StreamInfo { ssrc: 1, ssrc_rtx: Some(2), ..Default::default() });
        sends(&mut tap, at(0), 1, 10, true);
        assert_eq!(tap.poll_timeout(), None, "no losses are reported");

        tells(&mut tap, at(1));
        tap.handle_read(nack(at(1), 9)).unwrap();
        assert_eq!(asked_for(&mut tap), [9]);
        sends(&mut tap, at(2), 1, 11, false);
        sends(&mut tap, at(2), 1, 12, true);
        sends(&mut tap, at(2), 2, 1, true);
        assert_eq!(tap.poll_timeout(), Some(at(4)));
        tap.handle_timeout(at(3)).unwrap();
        assert!(asked_for(&mut tap).is_empty());
        tap.handle_timeout(at(4)).unwrap();
        assert_eq!(asked_for(&mut tap), [9], "the retransmission");
        tap.handle_timeout(at(5)).unwrap();
        assert_eq!(asked_for(&mut tap), [12], "the last of its picture");
        assert_eq!(tap.poll_timeout(), None);

        sends(&mut tap, at(2_100), 1, 13, true);
        assert_eq!(tap.poll_timeout(), None, "no losses for two seconds");
    }

    /// Of its packets from this number on, that these came and the others did not.
    fn tells_of(tap: &mut Tap, now: Instant, first: u16, came: &[bool]) {
        tells_padded(tap, now, (first, came.len() as u16), came);
    }

    /// The same, of so many packets; what is said of others pads it.
    fn tells_padded(tap: &mut Tap, now: Instant, (first, count): (u16, u16), came: &[bool]) {
        let symbol = |came: &bool| {
            if *came { SymbolTypeTcc::PacketReceivedSmallDelta } else { SymbolTypeTcc::PacketNotReceived }
        };
        let symbol_list = came.iter().map(symbol).collect();
        let chunk = StatusVectorChunk { symbol_list, ..Default::default() };
        let came_at =
            came.iter().filter(|came| **came).map(|came| RecvDelta { type_tcc_packet: symbol(came), delta: 250 });
        let report: Box<dyn rtcp::Packet> = Box::new(TransportLayerCc {
            base_sequence_number: first,
            packet_status_count: count,
            packet_chunks: vec![PacketStatusChunk::StatusVectorChunk(chunk)],
            recv_deltas: came_at.collect(),
            ..Default::default()
        });
        let message = AttributedPacket::new(Packet::Rtcp(vec![report]));
        tap.handle_read(TaggedPacket { now, transport: Default::default(), message }).unwrap();
    }

    #[test]
    fn a_viewer_that_tells_when_its_reports_leave_learns_the_round_trip_time() {
        let (feedback, start) = (Feedback::new(Estimator::new(4e6)), Instant::now());
        let mut tap = feedback.tap();
        let mut answers = |ms| {
            let now = start + Duration::from_millis(ms);
            let time = ReceiverReferenceTimeReportBlock { ntp_timestamp: 0x1122_3344_5566_7788 + ms };
            let report = ExtendedReport { sender_ssrc: 7, reports: vec![Box::new(time)] };
            let message = AttributedPacket::new(Packet::Rtcp(vec![Box::new(report)]));
            tap.handle_read(TaggedPacket { now, transport: Default::default(), message }).unwrap();
            let written = tap.poll_write()?;
            let Packet::Rtcp(packets) = written.message.packet else { panic!("no RTCP") };
            let answer = packets[0].as_any().downcast_ref::<ExtendedReport>()?.clone();
            Some(answer.reports[0].as_any().downcast_ref::<DLRRReportBlock>()?.reports.clone())
        };
        assert_eq!(answers(0), Some(vec![DLRRReport { ssrc: 7, last_rr: 0x3344_5566, dlrr: 0 }]));
        assert_eq!(answers(99), None, "not for each report");
        assert!(answers(100).is_some());
    }

    #[test]
    fn what_pads_a_report_tells_of_no_loss() {
        let (feedback, start) = (Feedback::new(Estimator::new(4e6)), Instant::now());
        let mut tap = sent_to_browser(&feedback, start, &[70, 71, 72, 73]);
        // Of two packets; the others are on their way. Then of the last one, as the report between was lost.
        tells_padded(&mut tap, start, (0, 2), &[false, true, false, false]);
        tells_of(&mut tap, start, 3, &[true]);
        tap.handle_timeout(start + REPEAT_AFTER).unwrap();
        assert_eq!(asked_for(&mut tap), [70]);
    }

    #[test]
    fn nothing_unasked_over_a_link_that_is_full_and_not_twice_for_two_copies() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        for (share, expected) in [(4e6, vec![70]), (1e6, vec![])] {
            let feedback = Feedback::new(Estimator::new(4e6));
            let mut tap = sent_to_browser(&feedback, start, &[70]);
            feedback.with(|estimator| estimator.set_share(share));
            // Neither the packet came nor the copy that left before its loss was told.
            sends_again(&mut tap, at(3), 70);
            tap.resent.at.insert(70, at(3));
            sends(&mut tap, at(4), 1, 71, false);
            tells_of(&mut tap, at(50), 0, &[false, false, true]);
            tap.handle_timeout(at(53)).unwrap();
            assert_eq!(asked_for(&mut tap), expected, "{share} bit/s");
        }
    }

    /// A tap of a browser, to which these packets have left at the beginning, each with its number.
    fn sent_to_browser(feedback: &Feedback, start: Instant, sequences: &[u16]) -> Tap {
        let mut tap = feedback.tap();
        let extension = RTPHeaderExtension { uri: TRANSPORT_CC_URI.to_owned(), id: 5 };
        let rtp_header_extensions = vec![extension];
        tap.bind_local_stream(&StreamInfo { ssrc: 1, ssrc_rtx: Some(2), rtp_header_extensions, ..Default::default() });
        sequences.iter().for_each(|sequence| sends(&mut tap, start, 1, *sequence, false));
        tap
    }

    /// The packet is sent again, as the core answers what is asked for.
    fn sends_again(tap: &mut Tap, now: Instant, sequence: u16) {
        let mut packet = outgoing(now, 2);
        if let Packet::Rtp(rtp) = &mut packet.message.packet {
            rtp.payload = [sequence.to_be_bytes().as_slice(), &[1; 100]].concat().into();
        }
        tap.handle_write(packet).unwrap();
    }

    #[test]
    fn what_a_browser_tells_to_be_lost_and_does_not_ask_for_is_sent_again() {
        let (feedback, start) = (Feedback::new(Estimator::new(4e6)), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        let mut tap = sent_to_browser(&feedback, start, &[70, 71, 72, 73]);
        // The first is not spoken of: its report may be what was lost.
        tells_of(&mut tap, at(50), 1, &[false, true, true]);
        assert!(asked_for(&mut tap).is_empty());
        tap.handle_timeout(at(53)).unwrap();
        assert_eq!(asked_for(&mut tap), [71]);
        sends_again(&mut tap, at(53), 71);
        // Neither did that come: once more, as the next report tells.
        sends(&mut tap, at(60), 1, 74, false);
        tells_of(&mut tap, at(100), 4, &[false, true]);
        tap.handle_timeout(at(103)).unwrap();
        assert_eq!(asked_for(&mut tap), [71]);
        sends_again(&mut tap, at(103), 71);
        tells_of(&mut tap, at(150), 6, &[true]);
        tap.handle_timeout(at(200)).unwrap();
        assert!(asked_for(&mut tap).is_empty(), "it has come");
    }

    #[test]
    fn what_is_asked_for_or_old_or_came_by_another_copy_is_not_sent_again_for_a_report() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        for (asked, copy_came, ms, expected) in [
            (false, false, 50, vec![70]),
            (true, false, 50, vec![]),
            (false, true, 50, vec![]),
            (false, false, 260, vec![]),
        ] {
            let feedback = Feedback::new(Estimator::new(4e6));
            let mut tap = sent_to_browser(&feedback, start, &[70, 71]);
            if copy_came {
                sends_again(&mut tap, at(3), 70);
            } else {
                sends(&mut tap, at(3), 1, 72, false);
            }
            tells_of(&mut tap, at(ms), 0, &[false, true, true]);
            if asked {
                // Its own second copy is another matter.
                assert_eq!(tap.resent.allowed(at(ms), [70].into_iter(), None, 4e6), [70]);
            }
            tap.handle_timeout(at(ms + 3)).unwrap();
            assert_eq!(asked_for(&mut tap), expected, "asked {asked}, copy came {copy_came}, {ms} ms");
        }
    }

    #[test]
    fn a_receiver_without_a_stream_of_retransmissions_is_sent_nothing_for_a_report_either() {
        let (feedback, start) = (Feedback::new(Estimator::new(4e6)), Instant::now());
        let mut tap = sent_to_browser(&feedback, start, &[70, 71]);
        tap.repeated.clear();
        sends(&mut tap, start, 1, 72, false);
        sends(&mut tap, start, 1, 73, false);
        tells_of(&mut tap, start + Duration::from_millis(50), 2, &[false, true]);
        assert_eq!(tap.poll_timeout(), None);
    }

    #[test]
    fn a_receiver_without_a_stream_of_retransmissions_is_sent_nothing_twice() {
        let (feedback, now) = (Feedback::new(Estimator::new(4e6)), Instant::now());
        let mut tap = feedback.tap();
        tap.bind_local_stream(&StreamInfo { ssrc: 1, ..Default::default() });
        tap.handle_read(nack(now, 9)).unwrap();
        sends(&mut tap, now, 1, 10, true);
        assert_eq!(tap.poll_timeout(), None);
    }

    #[test]
    fn what_is_sent_twice_leaves_room_for_what_is_asked_for() {
        let (now, mut resent) = (Instant::now(), Resent::default());
        let twice = (0..1_000).filter(|_| resent.has_room(now, 4e6)).count();
        let asked = resent.allowed(now, 0..1_000, None, 4e6).len();
        assert!((10..=20).contains(&twice) && (40..=50).contains(&asked), "{twice}, {asked}");
    }

    #[test]
    fn packets_are_numbered_and_what_is_said_of_them_goes_to_the_estimator() {
        let (feedback, start) = (Feedback::new(Estimator::new(1e6)), Instant::now());
        let mut tap = feedback.tap();
        let extension = RTPHeaderExtension { uri: TRANSPORT_CC_URI.to_owned(), id: 5 };
        let rtp_header_extensions = vec![extension];
        tap.bind_local_stream(&StreamInfo { ssrc: 1, ssrc_rtx: Some(3), rtp_header_extensions, ..Default::default() });
        let mut sent = |ssrc| {
            tap.handle_write(outgoing(start, ssrc)).unwrap();
            match tap.poll_write().unwrap().message.packet {
                Packet::Rtp(packet) => packet.header.get_extension(5).map(|bytes| bytes.to_vec()),
                _ => panic!("no RTP packet"),
            }
        };
        assert_eq!([sent(1), sent(2), sent(3)], [Some(vec![0, 0]), None, Some(vec![0, 1])]);

        let report = report(SymbolTypeTcc::PacketReceivedSmallDelta, 2);
        let now = start + Duration::from_millis(20);
        assert!(feedback.take().is_none());
        let message = AttributedPacket::new(Packet::Rtcp(vec![Box::new(report)]));
        tap.handle_read(TaggedPacket { now, transport: Default::default(), message }).unwrap();
        assert!(tap.poll_read().is_some(), "it is for the core as well");
        assert_eq!(feedback.with(|estimator| estimator.rtt()), Some(Duration::from_millis(20)));
        assert!(feedback.take().is_some_and(|packets| packets.is_empty()), "heard, and nothing is left to do");
        assert!(feedback.take().is_none());
    }
}
