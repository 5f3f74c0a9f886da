//! One peer connection of the sans-I/O core, the receiving side of a session. Time is passed in, datagrams go in and
//! come out, so it is tested with no network.

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use rov_common::capture_clock::Captured;
use rov_common::rtp::Header;
use rov_common::webrtc::{ABS_CAPTURE_TIME_URI, ICE_CHECK_INTERVAL, ICE_CHECKS, TRANSPORT_CC_URI};
use rtc::ice::mdns::MulticastDnsMode;
use rtc::interceptor::{ReceiverReportBuilder, Registry, Slot, TwccReceiverBuilder};
use rtc::peer_connection::configuration::media_engine::{MIME_TYPE_H264, MIME_TYPE_HEVC, MediaEngine};
use rtc::peer_connection::configuration::setting_engine::SettingEngineBuilder;
use rtc::peer_connection::event::RTCPeerConnectionEvent;
use rtc::peer_connection::message::{RTCMessage, TaggedRTCMessage};
use rtc::peer_connection::sdp::RTCSessionDescription;
use rtc::peer_connection::state::RTCPeerConnectionState;
use rtc::peer_connection::transport::{RTCDtlsTransportState, RTCIceCandidateInit};
use rtc::peer_connection::{RTCPeerConnection, RTCPeerConnectionBuilder};
use rtc::rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use rtc::rtp_transceiver::rtp_sender::{
    RTCPFeedback, RTCRtpCodec, RTCRtpCodecParameters, RTCRtpHeaderExtensionCapability, RtpCodecKind,
};
use rtc::rtp_transceiver::{RTCRtpTransceiverDirection, RTCRtpTransceiverInit};
use rtc::sansio::Protocol;
use rtc::shared::error::Error;
use rtc::shared::{TaggedBytesMut, TransportContext, TransportProtocol};
use rtc::statistics::StatsSelector;

use super::nack::NackGenerator;
use crate::receive::PAYLOAD_TYPE;
use crate::receive::packet::Packet;

/// Every profile that decoders take; H.264 matching compares profile and packetisation mode, not the level
/// (RFC 6184 section 8.2.2).
const PROFILES: [&str; 5] = ["42e034", "420034", "4d0034", "640034", "640c34"];

/// Packets that may still come when newer ones did.
const HISTORY_PACKETS: u16 = 8192;

/// The server is told so often when packets arrived: it lowers its bit rate the sooner, the more often it hears.
const ARRIVAL_REPORTS: Duration = Duration::from_millis(50);

const ICE_DISCONNECTED: Duration = Duration::from_secs(2);
/// After that: as long in all as the server keeps a session that it does not hear, so that it goes on by itself after
/// any shorter outage. That the server is gone or elsewhere shows sooner, when it is asked.
const ICE_FAILED: Duration = Duration::from_secs(8);
const ICE_KEEPALIVE: Duration = Duration::from_millis(500);

/// Addresses of the server remembered: it has fewer candidates. The oldest are forgotten first, and known again by the
/// next check.
const MAX_PEERS: usize = 64;

/// The first byte of a datagram tells the protocol (RFC 7983 section 7).
const LAST_OF_STUN: u8 = 3;
const DTLS: std::ops::RangeInclusive<u8> = 20..=63;

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Connecting,
    Connected,
    Ended(End),
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// By this side.
    Closed,
    ClosedByServer,
    /// ICE or DTLS failed.
    NoPath,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Closed => "the connection was closed",
            Self::ClosedByServer => "the server closed the connection",
            Self::NoPath => "no path to the server any more",
        })
    }
}

pub struct Engine {
    pc: RTCPeerConnection,
    local: SocketAddr,
    /// Where something was sent to: the server's candidates, and addresses from which a check came that knew the
    /// password. What is not STUN is heard from there alone.
    peers: VecDeque<SocketAddr>,
    state: State,
    /// The synchronisation source that is shown.
    ssrc: Option<u32>,
    /// Others came, which was said.
    has_others: bool,
    /// The number of the header extension with the time of capture, where the server sends it.
    capture_time_id: Option<u8>,
}

impl Engine {
    /// Gives the offer too. `local` is the socket's address, `reflexive` how a STUN server saw it. Packets that are
    /// missing are asked for again during `latency`.
    pub fn new(
        now: Instant,
        local: SocketAddr,
        reflexive: Option<SocketAddr>,
        latency: Duration,
    ) -> Result<(Self, String), Error> {
        let mut pc = build(now, latency)?;
        pc.add_transceiver_from_kind(
            RtpCodecKind::Video,
            Some(RTCRtpTransceiverInit { direction: RTCRtpTransceiverDirection::Recvonly, ..Default::default() }),
        )?;
        // RFC 8839 section 5.1, with the priorities of RFC 8445 section 5.1.2.1.
        let host = format!("candidate:1 1 udp 2130706431 {} {} typ host", local.ip(), local.port());
        let reflexive = reflexive.map(|public| {
            let (ip, port) = (public.ip(), public.port());
            format!("candidate:2 1 udp 1694498815 {ip} {port} typ srflx raddr {} rport {}", local.ip(), local.port())
        });
        // An empty candidate ends gathering.
        for candidate in [Some(host), reflexive, Some(String::new())].into_iter().flatten() {
            pc.add_local_candidate(RTCIceCandidateInit { candidate, ..Default::default() })?;
        }
        let offer = pc.create_offer(None)?;
        pc.set_local_description(now, offer)?;
        let offer = pc.local_description().ok_or(Error::ErrPeerConnLocalDescriptionNil)?;
        let (state, peers) = (State::Connecting, VecDeque::new());
        Ok((Self { pc, local, peers, state, ssrc: None, has_others: false, capture_time_id: None }, offer.sdp))
    }

    /// Takes the answer to the offer.
    pub fn answered(&mut self, now: Instant, sdp: String) -> Result<(), Error> {
        self.capture_time_id = sdp.lines().find_map(|line| {
            let (number, uri) = line.strip_prefix("a=extmap:")?.trim_end().split_once(' ')?;
            if uri == ABS_CAPTURE_TIME_URI { number.split('/').next()?.parse().ok() } else { None }
        });
        self.pc.set_remote_description(now, RTCSessionDescription::answer(sdp)?)
    }

    /// A datagram that came from `peer`. What is malformed or forged is dropped. RTP packets go to `on_packet`.
    pub fn handle_datagram(&mut self, now: Instant, peer: SocketAddr, data: &[u8], on_packet: &mut impl FnMut(Packet)) {
        let Some(&first) = data.first() else { return };
        if first > LAST_OF_STUN && !self.peers.contains(&peer) {
            return;
        }
        let transport = TransportContext {
            local_addr: self.local,
            peer_addr: peer,
            ecn: None,
            transport_protocol: TransportProtocol::UDP,
        };
        let datagram = TaggedBytesMut { now, transport, message: BytesMut::from(data) };
        if let Err(error) = self.pc.handle_read(datagram) {
            tracing::debug!(%peer, %error, "a datagram was not taken");
        }
        // `poll_read` would go through the whole core once more for each packet.
        while let Some(TaggedRTCMessage { message, .. }) = self.pc.poll_media_read() {
            if let RTCMessage::RtpPacket(_, packet) = message
                && self.is_shown(packet.header.ssrc)
            {
                let captured = self.capture_time_id.and_then(|id| packet.header.get_extension(id));
                on_packet(handed_on(packet, captured.as_ref().and_then(|time| time.first_chunk())));
            }
        }
        // The core does not report a close_notify as the end of the connection, so it has to be looked for.
        if DTLS.contains(&first) && self.dtls_closed() {
            self.end(End::ClosedByServer);
        }
    }

    fn is_shown(&mut self, ssrc: u32) -> bool {
        let shown = *self.ssrc.get_or_insert(ssrc);
        if ssrc != shown && !std::mem::replace(&mut self.has_others, true) {
            tracing::warn!("the server sends more than one stream: only the first is shown");
        }
        ssrc == shown
    }

    fn dtls_closed(&mut self) -> bool {
        let Some(receiver) = self.pc.get_receivers().next() else { return false };
        let transport_state = self.pc.rtp_receiver(receiver).and_then(|receiver| Some(receiver.transport()?.state()));
        transport_state == Some(RTCDtlsTransportState::Closed)
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        if let Err(error) = self.pc.handle_timeout(now) {
            tracing::debug!(%error, "timer");
        }
    }

    /// When [`Self::handle_timeout`] wants to be called next.
    pub fn poll_timeout(&mut self) -> Option<Instant> {
        self.pc.poll_timeout()
    }

    /// What the datagrams and timers so far made of the connection.
    pub fn state(&mut self) -> State {
        while let Some(event) = self.pc.poll_event() {
            let RTCPeerConnectionEvent::OnConnectionStateChangeEvent(state) = event else { continue };
            tracing::debug!(%state, "peer connection");
            match state {
                RTCPeerConnectionState::Connected if self.state == State::Connecting => self.state = State::Connected,
                RTCPeerConnectionState::Closed => self.end(End::ClosedByServer),
                RTCPeerConnectionState::Failed => self.end(End::NoPath),
                _ => {}
            }
        }
        self.state
    }

    fn end(&mut self, end: End) {
        if !matches!(self.state, State::Ended(_)) {
            self.state = State::Ended(end);
        }
    }

    /// The next datagram to send, and where to. To be called until there is none.
    pub fn poll_write(&mut self) -> Option<(SocketAddr, BytesMut)> {
        let TaggedBytesMut { transport, message, .. } = self.pc.poll_write()?;
        let peer = transport.peer_addr;
        if !self.peers.contains(&peer) {
            if self.peers.len() == MAX_PEERS {
                self.peers.pop_front();
            }
            self.peers.push_back(peer);
        }
        Some((peer, message))
    }

    /// Asks for a keyframe by PLI (RFC 4585 section 6.3.1), once something has come.
    pub fn request_keyframe(&mut self, now: Instant) {
        let Some(media_ssrc) = self.ssrc else { return };
        let pli = PictureLossIndication { sender_ssrc: 0, media_ssrc };
        // The core needs no track's name to send it.
        let message = RTCMessage::RtcpPacket(String::new(), vec![Box::new(pli)]);
        if let Err(error) = self.pc.handle_write(TaggedRTCMessage { now, message }) {
            tracing::debug!(%error, "a keyframe request was not sent");
        }
    }

    /// The round trip to the server, measured by ICE.
    pub fn rtt(&mut self, now: Instant) -> Option<Duration> {
        let report = self.pc.get_stats(now, StatsSelector::None);
        let seconds = report.candidate_pairs().map(|pair| pair.current_round_trip_time).fold(0.0, f64::max);
        (seconds > 0.0).then(|| Duration::from_secs_f64(seconds))
    }

    /// Tells the server by a DTLS close_notify; the datagram is then to be sent.
    pub fn close(&mut self) {
        self.end(End::Closed);
        if let Err(error) = self.pc.close() {
            tracing::debug!(%error, "closing the peer connection");
        }
    }
}

/// What the other extensions say, the core has read, and padding it has cut off.
fn handed_on(packet: rtc::rtp::Packet, captured: Option<&[u8; 8]>) -> Packet {
    let header = Header {
        marker: packet.header.marker,
        payload_type: PAYLOAD_TYPE,
        sequence: packet.header.sequence_number,
        timestamp: packet.header.timestamp,
        ssrc: packet.header.ssrc,
    };
    let captured = captured.map(|ntp| Captured::from_ntp(u64::from_be_bytes(*ntp)));
    Packet { header, captured, payload: packet.payload }
}

fn build(now: Instant, latency: Duration) -> Result<RTCPeerConnection, Error> {
    let mut media = MediaEngine::default();
    let h264 = PROFILES.map(|profile| {
        let fmtp = format!("level-asymmetry-allowed=1;packetization-mode=1;profile-level-id={profile}");
        rtp_codec(MIME_TYPE_H264, fmtp)
    });
    // Without parameters: any profile and level.
    let codecs = h264.into_iter().chain([rtp_codec(MIME_TYPE_HEVC, String::new())]);
    for (payload_type, rtp_codec) in (PAYLOAD_TYPE..).zip(codecs) {
        media.register_codec(RTCRtpCodecParameters { rtp_codec, payload_type }, RtpCodecKind::Video)?;
    }
    for uri in [TRANSPORT_CC_URI, ABS_CAPTURE_TIME_URI] {
        let extension = RTCRtpHeaderExtensionCapability { uri: uri.to_owned() };
        media.register_header_extension(extension, RtpCodecKind::Video, None)?;
    }
    // No RTX is offered: the crate unwraps it behind the NACK generator, which then goes on asking.
    let interceptors = Registry::new()
        .with(Slot::NackGenerator, NackGenerator::new(latency))
        .with(Slot::TwccReceiver, TwccReceiverBuilder::new().with_interval(ARRIVAL_REPORTS).build())
        .with(Slot::ReceiverReport, ReceiverReportBuilder::new().build());
    let settings = SettingEngineBuilder::new()
        .with_ice_timeouts(Some(ICE_DISCONNECTED), Some(ICE_FAILED), Some(ICE_KEEPALIVE))
        // Multicast DNS needs a route for multicast, which a laptop on an isolated LAN without a gateway does not have.
        // Servers give their addresses as they are.
        .with_multicast_dns_mode(MulticastDnsMode::Disabled)
        .with_ice_connection_attempts(Some(ICE_CHECK_INTERVAL), Some(ICE_CHECKS))
        // The default of 64 throws away retransmissions that come late.
        .with_srtp_replay_protection_window(usize::from(HISTORY_PACKETS))
        .build();
    RTCPeerConnectionBuilder::new()
        .with_media_engine(media)
        .with_setting_engine(settings)
        .with_interceptor_registry(interceptors)
        .build(now)
}

fn rtp_codec(mime_type: &str, sdp_fmtp_line: String) -> RTCRtpCodec {
    let feedback = |typ: &str, parameter: &str| RTCPFeedback { typ: typ.to_owned(), parameter: parameter.to_owned() };
    RTCRtpCodec {
        mime_type: mime_type.to_owned(),
        clock_rate: 90_000,
        channels: 0,
        sdp_fmtp_line,
        rtcp_feedback: vec![
            feedback("nack", ""),
            feedback("nack", "pli"),
            feedback("ccm", "fir"),
            feedback("transport-cc", ""),
        ],
    }
}

#[cfg(test)]
#[path = "engine_tests.rs"]
mod tests;
