//! The engine against a server made of the same core, with no network and a clock that only the test moves.

use bytes::Bytes;
use rtc::interceptor::{
    Interceptor, NackResponderBuilder, Packet as Intercepted, StreamInfo, TaggedPacket, TwccSenderBuilder,
};
use rtc::media_stream::MediaStreamTrack;
use rtc::rtcp::transport_feedbacks::transport_layer_cc::TransportLayerCc;
use rtc::rtcp::transport_feedbacks::transport_layer_nack::TransportLayerNack;
use rtc::rtp_transceiver::RTCRtpSenderId;
use rtc::rtp_transceiver::rtp_sender::{RTCRtpCodingParameters, RTCRtpEncodingParameters};

use super::*;

const CLIENT: &str = "10.0.0.2:4000";
const SERVER: &str = "10.0.0.1:5000";
const STRANGER: &str = "10.0.0.9:9";
const STEP: Duration = Duration::from_millis(5);
/// To the server; the way back takes no time.
const ONE_WAY: Duration = Duration::from_millis(1);

type Heard = std::sync::Arc<std::sync::Mutex<Vec<&'static str>>>;

/// Notes what the client reports and asks for.
struct Tap {
    heard: Heard,
    read: VecDeque<TaggedPacket>,
    write: VecDeque<TaggedPacket>,
}

impl Protocol<TaggedPacket, TaggedPacket, ()> for Tap {
    type Rout = TaggedPacket;
    type Wout = TaggedPacket;
    type Eout = ();
    type Error = Error;
    type Time = Instant;

    fn handle_read(&mut self, packet: TaggedPacket) -> Result<(), Error> {
        if let Intercepted::Rtcp(reports) = &packet.message.packet {
            let mut heard = self.heard.lock().expect("no panic");
            for report in reports.iter().map(|report| report.as_any()) {
                if report.is::<PictureLossIndication>() {
                    heard.push("PLI");
                } else if report.is::<TransportLayerNack>() {
                    heard.push("NACK");
                } else if report.is::<TransportLayerCc>() {
                    heard.push("arrivals");
                }
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

/// A server that sends `SSRCS`, and the engine that watches it.
struct Scene {
    now: Instant,
    engine: Engine,
    server: RTCPeerConnection,
    sender: RTCRtpSenderId,
    heard: Heard,
    /// What the engine handed on.
    packets: Vec<Packet>,
    /// The next RTP packet of the server is lost.
    loses_one: bool,
}

const SSRCS: [u32; 2] = [7, 8];

impl Scene {
    fn new() -> Self {
        let now = Instant::now();
        let latency = Duration::from_millis(100);
        let (mut engine, offer) = Engine::new(now, address(CLIENT), None, latency).expect("an offer");
        let heard = Heard::default();
        let mut media = MediaEngine::default();
        let codec = rtp_codec(MIME_TYPE_H264, "packetization-mode=1;profile-level-id=42e01f".to_owned());
        let parameters = RTCRtpCodecParameters { rtp_codec: codec.clone(), payload_type: PAYLOAD_TYPE };
        media.register_codec(parameters, RtpCodecKind::Video).expect("a codec");
        for uri in [TRANSPORT_CC_URI, ABS_CAPTURE_TIME_URI] {
            let extension = RTCRtpHeaderExtensionCapability { uri: uri.to_owned() };
            media.register_header_extension(extension, RtpCodecKind::Video, None).expect("an extension");
        }
        let tap = Tap { heard: heard.clone(), read: VecDeque::new(), write: VecDeque::new() };
        let registry = Registry::new()
            .with(Slot::TwccSender, TwccSenderBuilder::new().build())
            .with(Slot::NackResponder, NackResponderBuilder::new().with_size(512).build())
            .with(Slot::from(3_500), tap);
        let mut server = RTCPeerConnectionBuilder::new()
            .with_media_engine(media)
            .with_interceptor_registry(registry)
            .build(now)
            .expect("a peer connection");
        server.set_remote_description(now, RTCSessionDescription::offer(offer).expect("SDP")).expect("the offer");
        let encodings = SSRCS.map(|ssrc| RTCRtpEncodingParameters {
            rtp_coding_parameters: RTCRtpCodingParameters { ssrc: Some(ssrc), ..Default::default() },
            codec: codec.clone(),
            ..Default::default()
        });
        let name = "rov".to_owned();
        let track =
            MediaStreamTrack::new(name.clone(), name.clone(), name, RtpCodecKind::Video, encodings[..1].to_vec());
        let sender = server.add_track(track).expect("a sender");
        let candidate = format!("candidate:1 1 udp 2130706431 {} typ host", SERVER.replace(':', " "));
        for candidate in [candidate, String::new()] {
            server.add_local_candidate(RTCIceCandidateInit { candidate, ..Default::default() }).expect("a candidate");
        }
        let answer = server.create_answer(None).expect("an answer");
        server.set_local_description(now, answer).expect("a local description");
        let answer = server.local_description().expect("a local description").sdp;
        engine.answered(now, answer).expect("an answer that is taken");
        Self { now, engine, server, sender, heard, packets: Vec::new(), loses_one: false }
    }

    fn connected() -> Self {
        let mut scene = Self::new();
        assert_eq!(scene.engine.state(), State::Connecting);
        scene.run(Duration::from_secs(2));
        assert_eq!(scene.engine.state(), State::Connected);
        scene
    }

    /// Lets time pass and datagrams travel.
    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.exchange();
            self.now += STEP;
            self.engine.handle_timeout(self.now);
            self.server.handle_timeout(self.now).expect("a timer");
        }
        self.exchange();
    }

    fn exchange(&mut self) {
        loop {
            while self.server.poll_event().is_some() {}
            while self.server.poll_read().is_some() {}
            self.engine.state();
            let mut moved = false;
            while let Some((peer, message)) = self.engine.poll_write() {
                assert_eq!(peer, address(SERVER), "nobody else is sent anything");
                if !std::mem::replace(&mut moved, true) {
                    self.now += ONE_WAY;
                }
                let transport = transport(SERVER, CLIENT);
                self.server.handle_read(TaggedBytesMut { now: self.now, transport, message }).expect("a datagram");
            }
            while let Some(datagram) = self.server.poll_write() {
                moved = true;
                let is_rtp = datagram.message[0] >> 6 == 2 && datagram.message[1] & 0x7f == PAYLOAD_TYPE;
                if !(is_rtp && std::mem::take(&mut self.loses_one)) {
                    self.arrives(SERVER, &datagram.message);
                }
            }
            if !moved {
                return;
            }
        }
    }

    fn arrives(&mut self, peer: &str, datagram: &[u8]) {
        let packets = &mut self.packets;
        self.engine.handle_datagram(self.now, address(peer), datagram, &mut |packet| packets.push(packet));
    }

    fn sends(&mut self, sequence_number: u16) {
        self.sends_captured(sequence_number, None);
    }

    fn sends_captured(&mut self, sequence_number: u16, at: Option<Captured>) {
        let mut header = rtc::rtp::Header {
            version: 2,
            marker: true,
            payload_type: PAYLOAD_TYPE,
            sequence_number,
            timestamp: 9_000,
            ssrc: SSRCS[0],
            ..Default::default()
        };
        if let Some(at) = at {
            let id = self.engine.capture_time_id.expect("negotiated");
            header.set_extension(id, Bytes::copy_from_slice(&at.ntp().to_be_bytes())).expect("room");
        }
        let packet = rtc::rtp::Packet { header, payload: Bytes::from_static(&[0x65, 1, 2, 3]) };
        self.server.rtp_sender(self.sender).expect("a sender").write_rtp(self.now, packet).expect("a packet");
        self.exchange();
    }

    fn sequences(&self) -> Vec<u16> {
        self.packets.iter().map(|packet| packet.header.sequence).collect()
    }

    fn heard(&self, what: &str) -> usize {
        self.heard.lock().expect("no panic").iter().filter(|heard| **heard == what).count()
    }
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn transport(local: &str, peer: &str) -> TransportContext {
    let (local_addr, peer_addr) = (address(local), address(peer));
    TransportContext { local_addr, peer_addr, ecn: None, transport_protocol: TransportProtocol::UDP }
}

#[test]
fn packets_come_whole_and_bare_and_their_arrival_is_reported() {
    let mut scene = Scene::connected();
    (100..110).for_each(|sequence| scene.sends(sequence));
    assert_eq!(scene.sequences(), (100..110).collect::<Vec<_>>());
    let header = Header { marker: true, payload_type: 96, sequence: 100, timestamp: 9_000, ssrc: 7 };
    let payload = Bytes::from_static(&[0x65, 1, 2, 3]);
    assert_eq!(scene.packets[0], Packet { header, captured: None, payload: payload.clone() });
    let captured = Some(Captured(Duration::from_millis(1_764_000_000_123)));
    scene.sends_captured(110, captured);
    assert_eq!(scene.packets[10], Packet { header: Header { sequence: 110, ..header }, captured, payload });
    assert_eq!(scene.heard("arrivals"), 0);
    scene.run(2 * ARRIVAL_REPORTS);
    assert!(scene.heard("arrivals") > 0);
    assert_eq!(scene.engine.rtt(scene.now), Some(ONE_WAY), "ICE has measured the path");
}

#[test]
fn a_packet_that_is_lost_is_asked_for_and_comes() {
    let mut scene = Scene::connected();
    scene.sends(100);
    scene.loses_one = true;
    (101..104).for_each(|sequence| scene.sends(sequence));
    assert_eq!(scene.sequences(), [100, 102, 103]);
    scene.run(Duration::from_millis(50));
    assert_eq!(scene.sequences(), [100, 102, 103, 101]);
    assert_eq!(scene.heard("NACK"), 1);
}

#[test]
fn a_keyframe_is_asked_for_once_something_has_come() {
    let mut scene = Scene::connected();
    scene.engine.request_keyframe(scene.now);
    scene.exchange();
    assert_eq!(scene.heard("PLI"), 0, "of nothing");
    scene.sends(1);
    scene.engine.request_keyframe(scene.now);
    scene.exchange();
    assert_eq!(scene.heard("PLI"), 1);
}

#[test]
fn another_stream_is_not_shown() {
    let mut scene = Scene::connected();
    assert!(scene.engine.is_shown(SSRCS[0]));
    assert!(!scene.engine.is_shown(SSRCS[1]));
    scene.sends(1);
    assert!(scene.engine.is_shown(SSRCS[0]));
    assert_eq!(scene.sequences(), [1]);
}

#[test]
fn the_servers_goodbye_is_known_with_its_datagram() {
    let mut scene = Scene::connected();
    scene.server.close().expect("closed");
    while let Some(datagram) = scene.server.poll_write() {
        scene.arrives(SERVER, &datagram.message);
    }
    assert_eq!(scene.engine.state(), State::Ended(End::ClosedByServer));
    scene.engine.close();
    assert_eq!(scene.engine.state(), State::Ended(End::ClosedByServer), "the first end counts");
}

#[test]
fn the_server_is_told_of_the_end() {
    let mut scene = Scene::connected();
    scene.engine.close();
    let told: Vec<_> = std::iter::from_fn(|| scene.engine.poll_write()).collect();
    assert!(told.iter().any(|(peer, datagram)| *peer == address(SERVER) && DTLS.contains(&datagram[0])), "{told:?}");
    assert_eq!(scene.engine.state(), State::Ended(End::Closed));
}

#[test]
fn a_server_that_falls_silent_is_given_up_after_ten_seconds() {
    let mut scene = Scene::connected();
    let silent = scene.now;
    while scene.engine.state() == State::Connected && scene.now < silent + Duration::from_secs(60) {
        while scene.engine.poll_write().is_some() {}
        scene.now += STEP;
        scene.engine.handle_timeout(scene.now);
    }
    assert_eq!(scene.engine.state(), State::Ended(End::NoPath));
    let took = scene.now - silent;
    // Since the last datagram, which may have been a keepalive's answer.
    let limit = ICE_DISCONNECTED + ICE_FAILED;
    assert!(took >= limit - ICE_KEEPALIVE && took <= limit + Duration::from_secs(1), "{took:?}");
}

#[test]
fn what_strangers_send_goes_no_further() {
    let mut scene = Scene::connected();
    scene.sends(1);
    for first in 0..=u8::MAX {
        for len in [1, 2, 13, 20, 1200] {
            scene.arrives(STRANGER, &vec![first; len]);
            scene.arrives(SERVER, &vec![first; len]);
        }
    }
    scene.arrives(STRANGER, &[]);
    scene.run(Duration::from_millis(100));
    assert_eq!(scene.engine.state(), State::Connected);
    scene.sends(2);
    assert_eq!(scene.sequences(), [1, 2]);
}

#[test]
fn the_offer_names_the_socket_and_how_it_is_seen_from_outside() {
    let latency = Duration::from_millis(100);
    let (_, offer) =
        Engine::new(Instant::now(), address(CLIENT), Some(address("1.2.3.4:99")), latency).expect("an offer");
    assert!(offer.contains("10.0.0.2 4000 typ host"), "{offer}");
    assert!(offer.contains("1.2.3.4 99 typ srflx raddr 10.0.0.2 rport 4000"), "{offer}");
}

#[test]
fn its_timers_alone_keep_it_going_and_none_is_due_again_at_once() {
    let mut scene = Scene::new();
    let end = scene.now + Duration::from_secs(5);
    let mut sequence = 0;
    while scene.now < end {
        scene.exchange();
        if scene.engine.state() == State::Connected {
            sequence += 1;
            scene.loses_one = sequence % 7 == 3;
            scene.sends(sequence);
        }
        let (server, engine) = (scene.server.poll_timeout(), scene.engine.poll_timeout());
        scene.now = server.into_iter().chain(engine).min().expect("a timer").max(scene.now);
        if engine.is_some_and(|at| at <= scene.now) {
            scene.engine.handle_timeout(scene.now);
            // The thread would go round and round.
            assert!(scene.engine.poll_timeout().is_none_or(|at| at > scene.now), "in {:?}", scene.engine.state());
        }
        if server.is_some_and(|at| at <= scene.now) {
            scene.server.handle_timeout(scene.now).expect("a timer");
        }
    }
    assert_eq!(scene.engine.state(), State::Connected);
    assert!(scene.heard("arrivals") > 0 && scene.heard("NACK") > 0);
}

#[test]
fn the_answer_of_the_first_server_is_taken() {
    let (mut engine, _) =
        Engine::new(Instant::now(), address(CLIENT), None, Duration::from_millis(100)).expect("an offer");
    let answer = include_str!("../../../../tests/fixtures/first/answer.sdp").to_owned();
    engine.answered(Instant::now(), answer).expect("an answer to it");
    assert!(engine.capture_time_id.is_none(), "it does not tell when pictures were captured");
}
