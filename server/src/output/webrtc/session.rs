//! One viewer: a WebRTC peer connection of the sans-I/O core. Time is passed in and datagrams come out, so that a
//! session is tested with no network.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use rov_common::api::ViewerStats;
use rov_common::codec::Codec;
use rov_common::latency_mode::LatencyMode;
use rov_common::webrtc::{ABS_CAPTURE_TIME_URI, ICE_CHECK_INTERVAL, ICE_CHECKS, TRANSPORT_CC_URI};
use rtc::ice::mdns::MulticastDnsMode;
use rtc::interceptor::{NackResponderBuilder, Registry, SenderReportBuilder, Slot};
use rtc::media_stream::MediaStreamTrack;
use rtc::peer_connection::certificate::RTCCertificate;
use rtc::peer_connection::configuration::RTCConfigurationBuilder;
use rtc::peer_connection::configuration::media_engine::{MIME_TYPE_H264, MIME_TYPE_HEVC, MediaEngine};
use rtc::peer_connection::configuration::setting_engine::{SctpMaxMessageSize, SettingEngineBuilder};
use rtc::peer_connection::event::RTCPeerConnectionEvent;
use rtc::peer_connection::sdp::RTCSessionDescription;
use rtc::peer_connection::state::RTCPeerConnectionState;
use rtc::peer_connection::transport::{
    CandidateConfig, CandidateHostConfig, CandidateServerReflexiveConfig, RTCDtlsTransportState, RTCIceCandidate,
    RTCIceCandidateInit,
};
use rtc::peer_connection::{RTCPeerConnection, RTCPeerConnectionBuilder};
use rtc::rtcp;
use rtc::rtp_transceiver::RTCRtpSenderId;
use rtc::rtp_transceiver::rtp_sender::{
    RTCPFeedback, RTCRtpCodec, RTCRtpCodecParameters, RTCRtpCodingParameters, RTCRtpEncodingParameters,
    RTCRtpHeaderExtensionCapability, RTCRtpRtxParameters, RtpCodecKind,
};
use rtc::sansio::Protocol;
use rtc::shared::error::Error;
use rtc::shared::{TaggedBytesMut, TransportContext, TransportProtocol};
use rtc::statistics::StatsSelector;

use super::channel::{Allowance, Channel, MAX_MESSAGE};
use super::estimate::Estimator;
use super::feedback::Feedback;
use super::liveness::Liveness;
use super::offer::{self, Fragment, MAX_CANDIDATES, Offer, VideoCodec};
use super::share::Seen;
use super::thinning::{Budget, Requests, at_once};
use crate::packetize::Frame;
use crate::rate_control::{Ceiling, ViewerLink};

/// The playout-delay RTP header extension:
/// <https://webrtc.googlesource.com/src/+/main/docs/native-code/rtp-hdrext/playout-delay/README.md>
const PLAYOUT_DELAY_URI: &str = "http://www.webrtc.org/experiments/rtp-hdrext/playout-delay";

/// Minimum and maximum delay, 12 bits each in units of 10 ms. Zero for both lets a browser show each picture as soon as
/// it is decoded; left out, or with a larger maximum, Chromium holds pictures for about 18 ms, and longer where they
/// come unevenly.
const fn playout_delay(mode: LatencyMode) -> [u8; 3] {
    let most = match mode {
        LatencyMode::Low => 0,
        LatencyMode::Normal | LatencyMode::High => mode.longest_wait().as_millis() / 10,
    };
    [0, (most >> 8) as u8 & 0x0F, most as u8]
}

static PLAYOUT_DELAYS: [[u8; 3]; 3] =
    [playout_delay(LatencyMode::Low), playout_delay(LatencyMode::Normal), playout_delay(LatencyMode::High)];

/// Packets are kept for retransmission for at least so long at the encoder's ceiling, which is as long as receivers wait
/// in [`LatencyMode::High`]. Each holds its whole access unit in memory. Most have more bytes than this; a keyframe is many at once, hence
/// the least number, and their number is a power of two.
const RETRANSMIT_TIME: Duration = LatencyMode::High.longest_wait();
const RETRANSMIT_BYTES: f64 = 1000.0;
const RETRANSMIT_PACKETS: RangeInclusive<u16> = 1024..=8192;

/// The most that is looked for on a link, bit/s: so many times the encoder's ceiling, as headers and retransmissions
/// need some; and where nothing encodes, so much.
pub(super) const HEADROOM: f64 = 1.25;
const MOST: f64 = 100e6;

/// Packets written before what the core made of them is sent: few at first, so that a large frame begins to leave
/// early, then as many as one call of the kernel takes.
const FIRST_RUN: usize = 16;
const WRITE_RUN: usize = 32;

/// A viewer that has not connected by then will not.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// After so long a viewer that reported arrivals all the time is not taken for the pilot while another answers.
const SILENT: Duration = Duration::from_secs(2);

/// In tests the core panics at this datagram.
#[cfg(test)]
pub(super) const PANICS: &[u8] = b"panic";

const ICE_DISCONNECTED: Duration = Duration::from_secs(4);
const ICE_FAILED: Duration = Duration::from_secs(6);
const ICE_KEEPALIVE: Duration = Duration::from_secs(1);

/// Why a session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The viewer closed, or asked for it.
    Closed,
    /// ICE or DTLS failed.
    Failed,
    Timeout(&'static str),
    /// Another got its place.
    GaveWay,
}

pub struct Session {
    /// What is shown of its name.
    public_id: String,
    pc: RTCPeerConnection,
    feedback: Feedback,
    sender: RTCRtpSenderId,
    /// As it was put into the core last.
    offer: String,
    /// It may speak SCTP.
    takes_data: bool,
    /// None: it has closed, or was not asked for.
    channel: Option<Channel>,
    allowance: Allowance,
    state: State,
    /// ICE was restarted, and has no path yet.
    is_restarting: bool,
    /// That the viewer gave for the present path.
    candidates: usize,
    payload_type: u8,
    playout_delay_id: Option<u8>,
    capture_time_id: Option<u8>,
    ssrc: u32,
    sequence: u16,
    timestamp_offset: u32,
    created: Instant,
    liveness: Liveness,
    /// Frames are left out until the next keyframe: at the start, and after one was lost to a full socket.
    needs_keyframe: bool,
    requests: Requests,
    /// None: the viewer is sent everything, whatever its link carries.
    budget: Option<Budget>,
    pilot: bool,
    /// Of what its link carries, so much may go out at once.
    at_once: Duration,
    /// Frames are left out until the next keyframe that the link can carry.
    thinning: bool,
    thinned: u64,
    packets: u64,
    bytes: u64,
    skipped: u64,
    nacks: u64,
    plis: u64,
    loss: Option<f64>,
    /// Of its last report, milliseconds.
    jitter: Option<f64>,
}

/// Where the server's media socket is reached, and who is there.
#[derive(Clone, Debug, Default)]
pub struct Reach {
    pub local: Vec<SocketAddr>,
    /// Addresses that lead to it from outside of a NAT.
    pub public: Vec<SocketAddr>,
    /// What the server proves itself with; none: one for the session alone.
    pub certificate: Option<RTCCertificate>,
}

#[derive(Clone, Debug, PartialEq)]
enum State {
    Connecting,
    Connected { since: Instant },
    Ended(End),
}

impl Session {
    /// What it shares with others.
    pub fn feedback(&self) -> &Feedback {
        &self.feedback
    }

    /// Answers `offer`, naming `reach`. `full` is what the encoder makes at most. `adaptive`: it is not sent more than
    /// its link carries.
    pub fn accept(
        now: Instant,
        public_id: String,
        offer: &Offer,
        reach: &Reach,
        ceiling: Option<Ceiling>,
        adaptive: bool,
    ) -> Result<(Self, String), Error> {
        let feedback = Feedback::new(Estimator::new(MOST));
        let mut pc = build(now, &offer.codec, retransmit_packets(ceiling), &feedback, reach.certificate.clone())?;
        let (ssrc, rtx_ssrc) = (rand::random::<u32>(), rand::random::<u32>());
        pc.set_remote_description(now, RTCSessionDescription::offer(offer.sdp.clone())?)?;
        let sender = pc.add_track(track(ssrc, rtx_ssrc, &offer.codec))?;
        for address in &reach.local {
            pc.add_local_candidate(host_candidate(*address)?)?;
        }
        for (public, base) in reach.public.iter().zip(reach.local.iter().cycle()) {
            pc.add_local_candidate(reflexive_candidate(*public, *base)?)?;
        }
        let takes_data = offer.takes_data();
        let channel = takes_data.then(|| Channel::open(&mut pc)).transpose()?;
        let answer = answer(now, &mut pc, takes_data)?;

        let parameters = pc.rtp_sender(sender).ok_or(Error::ErrSenderNotCreatedByConnection)?.get_parameters().clone();
        let payload_type = parameters
            .rtp_parameters
            .codecs
            .iter()
            .find(|c| c.rtp_codec.mime_type.eq_ignore_ascii_case(mime_type(offer.codec.codec)))
            .map(|c| c.payload_type)
            .ok_or(Error::ErrRTPTransceiverCodecUnsupported)?;
        let extension =
            |uri| parameters.rtp_parameters.header_extensions.iter().find(|e| e.uri == uri).map(|e| e.id as u8);
        let (playout_delay_id, capture_time_id) = (extension(PLAYOUT_DELAY_URI), extension(ABS_CAPTURE_TIME_URI));

        let mut session = Self {
            public_id,
            pc,
            feedback,
            sender,
            offer: offer.sdp.clone(),
            takes_data,
            channel,
            allowance: Allowance::new(now),
            state: State::Connecting,
            is_restarting: false,
            candidates: 0,
            payload_type,
            playout_delay_id,
            capture_time_id,
            ssrc,
            sequence: rand::random(),
            timestamp_offset: rand::random(),
            created: now,
            liveness: Liveness::default(),
            needs_keyframe: true,
            requests: Requests::default(),
            budget: adaptive.then(Budget::default),
            pilot: false,
            at_once: at_once(false, true),
            thinning: false,
            thinned: 0,
            packets: 0,
            bytes: 0,
            skipped: 0,
            nacks: 0,
            plis: 0,
            loss: None,
            jitter: None,
        };
        session.has_room_for_candidates(offer.candidates);
        Ok((session, offer.answer(&answer)))
    }

    /// One that is over the limit is ignored.
    pub fn add_remote_candidate(&mut self, candidate: &str) -> Result<(), Error> {
        if !self.has_room_for_candidates(1) {
            return Ok(());
        }
        self.pc.add_remote_candidate(RTCIceCandidateInit { candidate: candidate.to_owned(), ..Default::default() })
    }

    /// Counts so many more; whether all of them are within the limit.
    fn has_room_for_candidates(&mut self, more: usize) -> bool {
        let before = self.candidates;
        self.candidates += more;
        if before <= MAX_CANDIDATES && self.candidates > MAX_CANDIDATES {
            tracing::debug!(viewer = self.public_id, "more than {MAX_CANDIDATES} candidates: the others are ignored");
        }
        self.candidates <= MAX_CANDIDATES
    }

    /// Restarts ICE (RFC 8445 section 9) with the viewer's new credentials, and gives the answer. The session, its
    /// encryption and its streams go on; what is sent until there is a path again is lost.
    pub fn restart(&mut self, now: Instant, fragment: &Fragment) -> Result<String, Error> {
        let sdp = offer::restarted(&self.offer, fragment);
        self.pc.set_remote_description(now, RTCSessionDescription::offer(sdp.clone())?)?;
        let answer = answer(now, &mut self.pc, self.takes_data)?;
        (self.offer, self.is_restarting, self.candidates) = (sdp, true, 0);
        self.has_room_for_candidates(fragment.candidates.len());
        Ok(offer::place_candidates(&answer))
    }

    /// A datagram from the viewer. What is malformed or forged is dropped by the core.
    pub fn handle_datagram(&mut self, now: Instant, local: SocketAddr, peer: SocketAddr, data: &[u8]) {
        #[cfg(test)]
        assert_ne!(data, PANICS, "a datagram that the core cannot bear");
        if Allowance::concerns(data) && !self.allowance.takes(now, self.is_connected(), data.len()) {
            return;
        }
        let datagram = TaggedBytesMut {
            now,
            transport: TransportContext {
                local_addr: local,
                peer_addr: peer,
                ecn: None,
                transport_protocol: TransportProtocol::UDP,
            },
            message: BytesMut::from(data),
        };
        if let Err(error) = self.pc.handle_read(datagram) {
            tracing::debug!(viewer = self.public_id, %peer, %error, "datagram not taken");
        }
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        if let Err(error) = self.pc.handle_timeout(now) {
            tracing::debug!(viewer = self.public_id, %error, "timer");
        }
        let end = match self.state {
            State::Connecting if now.saturating_duration_since(self.created) > CONNECT_TIMEOUT => {
                Some("not connected within 15 s")
            }
            State::Connected { .. } if self.liveness.is_gone(now) => Some("no RTCP for 10 s"),
            _ => None,
        };
        match self.liveness.change(now) {
            Some(Some(trouble)) => tracing::warn!(viewer = self.public_id, "a viewer has stalled: {trouble}"),
            Some(None) => tracing::info!(viewer = self.public_id, "the viewer reports again that pictures arrive"),
            None => {}
        }
        if let Some(reason) = end {
            self.end(End::Timeout(reason));
        }
    }

    /// When [`Self::handle_timeout`] wants to be called next; at least once a second, for its own limits.
    pub fn poll_timeout(&mut self, now: Instant) -> Instant {
        let own = now + Duration::from_secs(1);
        self.pc.poll_timeout().map_or(own, |core| core.min(own))
    }

    /// Acts on what the core found in the datagrams and timers so far. True when a keyframe is needed.
    pub fn poll_events(&mut self, now: Instant) -> bool {
        let mut keyframe_wanted = false;
        while let Some(event) = self.pc.poll_event() {
            if let RTCPeerConnectionEvent::OnConnectionStateChangeEvent(state) = event {
                match state {
                    RTCPeerConnectionState::Connected if self.state == State::Connecting => {
                        self.state = State::Connected { since: now };
                        // Nothing was sent before: what waits for DTLS would arrive as one stale burst.
                        keyframe_wanted = true;
                    }
                    RTCPeerConnectionState::Connected => keyframe_wanted |= std::mem::take(&mut self.is_restarting),
                    RTCPeerConnectionState::Failed => self.end(End::Failed),
                    RTCPeerConnectionState::Closed => self.end(End::Closed),
                    _ => {}
                }
            }
        }
        if self.is_connected() && self.dtls_closed() {
            self.end(End::Closed);
        }
        // What comes by a data channel. It shall not pile up.
        while self.pc.poll_read().is_some() {}
        let packets = self.feedback.take();
        if packets.is_some() {
            self.liveness.heard();
        }
        for packet in packets.into_iter().flatten() {
            if self.handle_rtcp(now, packet.as_ref()) {
                self.requests.want();
            }
        }
        // Browsers try to have everything sent again first, which takes them seconds.
        if let Some(lost_until) = self.feedback.with(Estimator::take_outage) {
            tracing::debug!(viewer = self.public_id, "back after an outage");
            self.requests.want_since(lost_until);
        }
        keyframe_wanted | self.keyframe_due(now)
    }

    /// True when the encoder is to be asked for a keyframe that this viewer wants. A spectator may not ask too often.
    pub fn keyframe_due(&mut self, now: Instant) -> bool {
        // Without adaptation all viewers are alike.
        let first = self.pilot || self.budget.is_none();
        // One for which the link has no room yet would be left out as well.
        let room = !self.thinning
            || self.budget.as_mut().is_none_or(|budget| {
                let estimate = self.feedback.with(|estimator| estimator.estimate());
                budget.allows(now, estimate, self.at_once) && budget.is_restored(estimate)
            });
        if self.thinning {
            self.requests.want();
        }
        room && self.requests.due(now, first, self.thinning)
    }

    /// What is known of the viewer's link; `full` is what the encoder makes at most.
    pub fn link(&mut self, now: Instant, ceiling: Option<Ceiling>) -> Option<ViewerLink> {
        let State::Connected { since } = self.state else { return None };
        let max = ceiling.map_or(MOST, |ceiling| f64::from(ceiling.bitrate.bps()) * HEADROOM);
        let address = self.peer().map(|peer| peer.ip());
        let silent = self.is_silent(now);
        Some(self.feedback.with(|estimator| {
            estimator.set_max(max);
            ViewerLink { address, since, silent, estimate: estimator.estimate(), drain: estimator.take_drain() }
        }))
    }

    /// Nothing waits on the way to it, as it has said just now.
    pub fn is_way_free(&self, now: Instant) -> bool {
        self.feedback.with(|estimator| estimator.is_way_free(now))
    }

    /// For sharing the link with others; `large`: see there.
    pub fn seen(&self, large: bool) -> Seen {
        self.feedback.with(|estimator| Seen {
            estimate: estimator.estimate(),
            most: estimator.max(),
            trouble: estimator.trouble(),
            reported: estimator.last_report(),
            large,
        })
    }

    /// Bit/s that are this session's part of the link.
    pub fn set_share(&self, share: f64) {
        self.feedback.with(|estimator| estimator.set_share(share));
    }

    /// So many frames were left out before they came here.
    pub fn left_out(&mut self, count: u64) {
        if self.is_connected() {
            self.skipped += count;
        }
    }

    /// It has not been heard of for a while: whoever reports arrivals at all, does so several times a second.
    pub fn is_silent(&self, now: Instant) -> bool {
        self.liveness.unanswered(now).is_some_and(|time| time > SILENT)
            && self.feedback.with(|estimator| estimator.rtt().is_some())
    }

    pub fn is_pilot(&self) -> bool {
        self.pilot
    }

    /// `encodes`: the bit rate of the stream follows the pilot's link.
    pub fn set_pilot(&mut self, pilot: bool, encodes: bool) {
        if pilot && !self.pilot {
            tracing::debug!(viewer = self.public_id, "this is the pilot now");
        }
        self.pilot = pilot;
        self.at_once = at_once(pilot, encodes);
    }

    /// Whether the viewer's link has room for `frame`. If not, nothing is sent up to the next keyframe for which it
    /// has.
    fn has_room(&mut self, now: Instant, frame: &Frame) -> bool {
        let Some(budget) = &mut self.budget else { return true };
        let (estimate, limited) = self.feedback.with(|estimator| (estimator.estimate(), estimator.is_limited()));
        let room = budget.allows(now, estimate, self.at_once) || !limited;
        self.thinning = !room || self.thinning && !frame.keyframe;
        if room {
            budget.spend(frame.payloads.iter().map(Bytes::len).sum());
        }
        room
    }

    /// It gets values of telemetry by a data channel, or will.
    pub fn has_channel(&self) -> bool {
        self.channel.is_some()
    }

    /// Sends the newest values of telemetry to a viewer that takes them.
    pub fn tell(&mut self, now: Instant, values: &Arc<str>) {
        if self.is_connected() && self.channel.as_mut().is_some_and(|channel| !channel.tell(now, &mut self.pc, values))
        {
            tracing::debug!(viewer = self.public_id, "the data channel has closed");
            self.channel = None;
        }
    }

    /// The viewer said goodbye by a DTLS close_notify. The core does not take that for the end of the connection.
    fn dtls_closed(&mut self) -> bool {
        let Some(sender) = self.pc.rtp_sender(self.sender) else { return false };
        sender.transport().is_some_and(|dtls| dtls.state() == RTCDtlsTransportState::Closed)
    }

    /// Counts what a report says; true when it asks for a keyframe.
    fn handle_rtcp(&mut self, now: Instant, packet: &dyn rtcp::Packet) -> bool {
        let packet = packet.as_any();
        if packet.is::<rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication>()
            || packet.is::<rtcp::payload_feedbacks::full_intra_request::FullIntraRequest>()
        {
            self.plis += 1;
            return true;
        }
        if let Some(nack) = packet.downcast_ref::<rtcp::transport_feedbacks::transport_layer_nack::TransportLayerNack>()
        {
            self.nacks += nack.nacks.iter().map(|pair| pair.packet_list().len() as u64).sum::<u64>();
        } else if let Some(report) = packet.downcast_ref::<rtcp::receiver_report::ReceiverReport>() {
            let block = report.reports.iter().find(|r| r.ssrc == self.ssrc);
            // One about the retransmissions alone says nothing of the pictures.
            if block.is_some() || report.reports.is_empty() {
                self.liveness.reported(now, block.map(|block| block.last_sequence_number));
            }
            if let Some(block) = block {
                let loss = f64::from(block.fraction_lost) / 256.0;
                self.loss = Some(loss);
                self.jitter = Some(f64::from(block.jitter) * 1000.0 / f64::from(crate::packetize::CLOCK_RATE));
                let highest = block.last_sequence_number;
                self.feedback.with(|estimator| estimator.on_receiver_report(now, loss, highest));
            }
        }
        false
    }

    /// Sends one frame, or leaves it out while a keyframe is waited for. `transmit` takes the datagrams out of the core
    /// and returns false when the socket is full: then the rest of the frame is left out. True when a keyframe is
    /// needed.
    pub fn send_frame(
        &mut self,
        now: Instant,
        frame: &Frame,
        transmit: &mut impl FnMut(&mut RTCPeerConnection) -> bool,
    ) -> bool {
        if !self.is_connected() {
            return false;
        }
        if frame.keyframe {
            self.requests.made(now);
        }
        if self.needs_keyframe && !frame.keyframe {
            self.skipped += 1;
            self.thinned += u64::from(self.thinning);
            return false;
        }
        if !self.has_room(now, frame) {
            self.needs_keyframe = true;
            self.skipped += 1;
            self.thinned += 1;
            return false;
        }
        self.needs_keyframe = false;
        self.liveness.sent(now);
        self.feedback.sends(frame, self.timestamp_offset);
        let last = frame.payloads.len().saturating_sub(1);
        for i in 0..frame.payloads.len() {
            self.write(now, frame, i);
            if ((i + 1) % WRITE_RUN == FIRST_RUN || i == last) && !transmit(&mut self.pc) {
                self.needs_keyframe = true;
                self.skipped += 1;
                return true;
            }
        }
        false
    }

    /// Writes the packet with the payload of this number.
    fn write(&mut self, now: Instant, frame: &Frame, number: usize) {
        let payload = &frame.payloads[number];
        let mut header = rtc::rtp::header::Header {
            version: 2,
            marker: number + 1 == frame.payloads.len(),
            payload_type: self.payload_type,
            sequence_number: self.sequence,
            timestamp: frame.timestamp.wrapping_add(self.timestamp_offset),
            ssrc: self.ssrc,
            ..Default::default()
        };
        if let Some(id) = self.playout_delay_id
            && let Err(error) = header.set_extension(id, Bytes::from_static(&PLAYOUT_DELAYS[frame.latency as usize]))
        {
            tracing::debug!(viewer = self.public_id, %error, "playout delay not sent");
            self.playout_delay_id = None;
        }
        if let Some(id) = self.capture_time_id.filter(|_| number == 0)
            && let Err(error) = header.set_extension(id, Bytes::copy_from_slice(&frame.captured.ntp().to_be_bytes()))
        {
            tracing::debug!(viewer = self.public_id, %error, "capture time not sent");
            self.capture_time_id = None;
        }
        self.sequence = self.sequence.wrapping_add(1);
        let packet = rtc::rtp::Packet { header, payload: payload.clone() };
        let Some(mut sender) = self.pc.rtp_sender(self.sender) else { return };
        match sender.write_rtp(now, packet) {
            Ok(()) => {
                self.packets += 1;
                self.bytes += payload.len() as u64;
            }
            Err(error) => tracing::debug!(viewer = self.public_id, %error, "RTP packet not sent"),
        }
    }

    /// The core, to take the datagrams it wants sent.
    pub fn core(&mut self) -> &mut RTCPeerConnection {
        &mut self.pc
    }

    /// The viewer's address on the path that ICE chose.
    pub fn peer(&mut self) -> Option<SocketAddr> {
        let sender = self.pc.rtp_sender(self.sender)?;
        let pair = sender.transport()?.ice_transport().get_selected_candidate_pair()?;
        Some(SocketAddr::new(pair.remote().address.parse().ok()?, pair.remote().port))
    }

    /// Tells the viewer by a DTLS close_notify; the datagrams are then in the core. Idempotent.
    pub fn close(&mut self) {
        self.end(End::Closed);
        if let Err(error) = self.pc.close() {
            tracing::debug!(viewer = self.public_id, %error, "close");
        }
    }

    pub fn ended(&self) -> Option<&End> {
        match &self.state {
            State::Ended(end) => Some(end),
            _ => None,
        }
    }

    fn end(&mut self, end: End) {
        if !matches!(self.state, State::Ended(_)) {
            self.state = State::Ended(end);
        }
    }

    /// Of video, sent so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn is_connected(&self) -> bool {
        matches!(self.state, State::Connected { .. })
    }

    pub fn stats(&mut self, now: Instant) -> ViewerStats {
        let rtt_s = self
            .pc
            .get_stats(now, StatsSelector::None)
            .candidate_pairs()
            .map(|pair| pair.current_round_trip_time)
            .fold(0.0, f64::max);
        let (state, connected_s) = match self.state {
            State::Connecting => ("connecting", 0.0),
            State::Connected { since } => ("connected", now.saturating_duration_since(since).as_secs_f64()),
            State::Ended(_) => ("closed", 0.0),
        };
        let (estimate, queue) = self.feedback.with(|estimator| (estimator.estimate(), estimator.queue()));
        ViewerStats {
            id: self.public_id.clone(),
            address: self.peer().map(|p| p.to_string()).unwrap_or_default(),
            state: state.to_owned(),
            connected_s,
            packets: self.packets,
            bytes: self.bytes,
            skipped: self.skipped,
            thinned: self.thinned,
            awaits_keyframe: self.is_connected() && self.needs_keyframe,
            pilot: self.pilot,
            // Which, the engine knows.
            stream: String::new(),
            estimate_kbps: (estimate / 1000.0) as u32,
            queue_ms: queue.as_secs_f64() * 1000.0,
            nacks: self.nacks,
            plis: self.plis,
            rtt_ms: (rtt_s > 0.0).then_some(rtt_s * 1000.0),
            loss: self.loss,
            stalled: self.liveness.trouble(now).map(str::to_owned),
            available_bandwidth: estimate as u64,
            packet_loss: self.loss.unwrap_or_default(),
            rtt: rtt_s * 1000.0,
            jitter: self.jitter,
        }
    }
}

/// The core's answer to the offer that it has.
fn answer(now: Instant, pc: &mut RTCPeerConnection, takes_data: bool) -> Result<String, Error> {
    // An empty candidate ends gathering (RFC 8838 section 9.3): everything there is, is in the answer.
    pc.add_local_candidate(RTCIceCandidateInit::default())?;
    let answer = pc.create_answer(None)?;
    pc.set_local_description(now, answer)?;
    // It would take SCTP from now on.
    if pc.sctp().is_some() && !takes_data {
        return Err(Error::Other("it has a data channel where none is looked for".to_owned()));
    }
    Ok(pc.local_description().ok_or(Error::ErrPeerConnLocalDescriptionNil)?.sdp)
}

/// How many packets are kept to be sent again. What nobody here encodes may have any bit rate.
fn retransmit_packets(ceiling: Option<Ceiling>) -> u16 {
    let (least, most) = (f64::from(*RETRANSMIT_PACKETS.start()), f64::from(*RETRANSMIT_PACKETS.end()));
    let packets = ceiling.map_or(most, |ceiling| {
        f64::from(ceiling.bitrate.bps()) / 8.0 * RETRANSMIT_TIME.as_secs_f64() / RETRANSMIT_BYTES
    });
    (packets.clamp(least, most) as u16).next_power_of_two()
}

fn build(
    now: Instant,
    codec: &VideoCodec,
    retransmit_packets: u16,
    feedback: &Feedback,
    certificate: Option<RTCCertificate>,
) -> Result<RTCPeerConnection, Error> {
    let mut media = MediaEngine::default();
    media.register_codec(
        RTCRtpCodecParameters { rtp_codec: rtp_codec(codec), payload_type: codec.payload_type },
        RtpCodecKind::Video,
    )?;
    if let Some(rtx) = codec.rtx_payload_type {
        let rtp_codec = RTCRtpCodec {
            mime_type: "video/rtx".to_owned(),
            clock_rate: crate::packetize::CLOCK_RATE,
            channels: 0,
            sdp_fmtp_line: format!("apt={}", codec.payload_type),
            rtcp_feedback: vec![],
        };
        media.register_codec(RTCRtpCodecParameters { rtp_codec, payload_type: rtx }, RtpCodecKind::Video)?;
    }
    for uri in [PLAYOUT_DELAY_URI, ABS_CAPTURE_TIME_URI, TRANSPORT_CC_URI] {
        let extension = RTCRtpHeaderExtensionCapability { uri: uri.to_owned() };
        media.register_header_extension(extension, RtpCodecKind::Video, None)?;
    }
    // Without a pacer: it would cost latency, and keeps nothing from the link that the encoder does not.
    let interceptors = Registry::new()
        .with(Slot::CongestionControl, feedback.tap())
        .with(Slot::NackResponder, NackResponderBuilder::new().with_size(retransmit_packets).build())
        .with(Slot::SenderReport, SenderReportBuilder::new().build());
    let settings = SettingEngineBuilder::new()
        .with_ice_timeouts(Some(ICE_DISCONNECTED), Some(ICE_FAILED), Some(ICE_KEEPALIVE))
        // Candidates behind multicast DNS names, which browsers use to hide addresses, are passed over: an isolated LAN
        // may not carry the queries, and the viewer's own checks reveal it (RFC 8445 section 7.3.1.3).
        .with_multicast_dns_mode(MulticastDnsMode::Disabled)
        .with_ice_connection_attempts(Some(ICE_CHECK_INTERVAL), Some(ICE_CHECKS))
        .with_sctp_max_message_size(SctpMaxMessageSize::Bounded(MAX_MESSAGE))
        .with_sctp_max_receive_buffer_size(MAX_MESSAGE)
        .build();
    let configuration = RTCConfigurationBuilder::new().with_certificates(certificate.into_iter().collect()).build();
    RTCPeerConnectionBuilder::new()
        .with_configuration(configuration)
        .with_media_engine(media)
        .with_setting_engine(settings)
        .with_interceptor_registry(interceptors)
        .build(now)
}

fn mime_type(codec: Codec) -> &'static str {
    match codec {
        Codec::H264 => MIME_TYPE_H264,
        Codec::H265 => MIME_TYPE_HEVC,
        // No offer with it is taken.
        Codec::Mjpeg => "video/JPEG",
    }
}

fn rtp_codec(codec: &VideoCodec) -> RTCRtpCodec {
    let feedback = |typ: &str, parameter: &str| RTCPFeedback { typ: typ.to_owned(), parameter: parameter.to_owned() };
    RTCRtpCodec {
        mime_type: mime_type(codec.codec).to_owned(),
        clock_rate: crate::packetize::CLOCK_RATE,
        channels: 0,
        sdp_fmtp_line: codec.core_fmtp(),
        rtcp_feedback: vec![
            feedback("nack", ""),
            feedback("nack", "pli"),
            feedback("ccm", "fir"),
            feedback("transport-cc", ""),
            // The time of reports, for the round-trip time of who only receives (RFC 3611).
            feedback("rrtr", ""),
        ],
    }
}

fn track(ssrc: u32, rtx_ssrc: u32, codec: &VideoCodec) -> MediaStreamTrack {
    let rtx = codec.rtx_payload_type.map(|_| RTCRtpRtxParameters { ssrc: rtx_ssrc });
    MediaStreamTrack::new(
        "rov".to_owned(),
        "stream1".to_owned(),
        "stream1".to_owned(),
        RtpCodecKind::Video,
        vec![RTCRtpEncodingParameters {
            rtp_coding_parameters: RTCRtpCodingParameters { ssrc: Some(ssrc), rtx, ..Default::default() },
            codec: rtp_codec(codec),
            ..Default::default()
        }],
    )
}

fn host_candidate(address: SocketAddr) -> Result<RTCIceCandidateInit, Error> {
    let candidate = CandidateHostConfig { base_config: base(address), ..Default::default() }.new_candidate_host()?;
    RTCIceCandidate::from(&candidate).to_json()
}

fn reflexive_candidate(public: SocketAddr, local: SocketAddr) -> Result<RTCIceCandidateInit, Error> {
    let candidate = CandidateServerReflexiveConfig {
        base_config: base(public),
        rel_addr: local.ip().to_string(),
        rel_port: local.port(),
        ..Default::default()
    }
    .new_candidate_server_reflexive()?;
    RTCIceCandidate::from(&candidate).to_json()
}

fn base(address: SocketAddr) -> CandidateConfig {
    CandidateConfig {
        network: "udp".to_owned(),
        address: address.ip().to_string(),
        port: address.port(),
        component: 1,
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use rov_common::units::{Bitrate, Resolution};

    use super::*;

    #[test]
    fn browsers_may_wait_as_long_as_the_mode_says_and_not_at_all_when_it_is_low() {
        assert_eq!(PLAYOUT_DELAYS, [[0, 0, 0], [0, 0, 50], [0, 0, 200]]);
        let placed = LatencyMode::ALL.map(|mode| PLAYOUT_DELAYS[mode as usize]);
        assert_eq!(placed, LatencyMode::ALL.map(playout_delay));
    }

    #[test]
    fn two_seconds_of_packets_are_kept_and_never_less_than_a_keyframe_has() {
        let ceiling = |kbps: u32| Ceiling {
            bitrate: Bitrate::from_kbps(kbps),
            resolution: Resolution { width: 1280, height: 720 },
            fps: 30.0,
            costly: false,
            fixed_size: false,
        };
        assert_eq!(retransmit_packets(Some(ceiling(2_000))), 1024);
        assert_eq!(retransmit_packets(Some(ceiling(10_000))), 4096);
        assert_eq!(retransmit_packets(Some(ceiling(250_000))), 8192);
        assert_eq!(retransmit_packets(None), 8192);
    }
}
