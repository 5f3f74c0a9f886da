//! The engine against viewers made of the same core, with no network and a clock that only the test moves.

use std::collections::{HashSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use rov_common::capture_clock::Captured;
use rov_common::latency_mode::LatencyMode;
use rov_common::units::Resolution;
use rov_common::webrtc::{ABS_CAPTURE_TIME_URI, TRANSPORT_CC_URI};
use rtc::interceptor::{NackGeneratorBuilder, ReceiverReportBuilder, Registry, Slot, TwccReceiverBuilder};
use rtc::media_stream::MediaStreamTrackId;
use rtc::peer_connection::configuration::RTCOfferOptions;
use rtc::peer_connection::configuration::media_engine::{MIME_TYPE_H264, MediaEngine};
use rtc::peer_connection::configuration::setting_engine::SettingEngineBuilder;
use rtc::peer_connection::event::{RTCPeerConnectionEvent, RTCTrackEvent};
use rtc::peer_connection::message::RTCMessage;
use rtc::peer_connection::sdp::RTCSessionDescription;
use rtc::peer_connection::state::RTCPeerConnectionState;
use rtc::peer_connection::transport::{
    CandidateConfig, CandidateHostConfig, RTCDtlsTransportState, RTCIceCandidate, RTCIceCandidateInit,
};
use rtc::peer_connection::{RTCPeerConnection, RTCPeerConnectionBuilder};
use rtc::rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use rtc::rtcp::sender_report::SenderReport;
use rtc::rtp_transceiver::rtp_sender::{
    RTCPFeedback, RTCRtpCodec, RTCRtpCodecParameters, RTCRtpHeaderExtensionCapability, RtpCodecKind,
};
use rtc::rtp_transceiver::{RTCRtpReceiverId, RTCRtpTransceiverDirection, RTCRtpTransceiverInit};
use rtc::sansio::Protocol;
use rtc::shared::{TaggedBytesMut, TransportContext, TransportProtocol};
use rtc::stun::attributes::ATTR_USERNAME;
use rtc::stun::integrity::MessageIntegrity;
use rtc::stun::message::{
    BINDING_REQUEST, BINDING_SUCCESS, CLASS_SUCCESS_RESPONSE, Getter, Message, Setter, TransactionId,
};
use rtc::stun::textattrs::Username;
use rtc::stun::xoraddr::XorMappedAddress;

use super::*;
use crate::output::webrtc::addresses::{MAX_HEARD, MAX_SENT};
use crate::output::webrtc::estimate::Estimator;
use crate::output::webrtc::feedback::Feedback;
use crate::output::webrtc::session::PANICS;
use crate::packetize::MAX_PAYLOAD;
use crate::rate_control::Pilot;

/// Of every picture.
const CAPTURED: Captured = Captured(Duration::from_millis(1_764_000_000_123));

const SERVER: &str = "10.0.0.1:5000";

fn reach() -> Reach {
    Reach { local: vec![SERVER.parse().expect("an address")], ..Reach::default() }
}

/// Datagrams of the server on their way.
#[derive(Default)]
struct Wire {
    sent: VecDeque<(SocketAddr, Bytes)>,
    full: bool,
}

impl Transmit for Wire {
    fn transmit(&mut self, _local: IpAddr, peer: SocketAddr, run: &[u8], segment: usize) -> bool {
        if !self.full {
            self.sent.extend(run.chunks(segment).map(|datagram| (peer, Bytes::copy_from_slice(datagram))));
        }
        !self.full
    }
}

struct Viewer {
    pc: RTCPeerConnection,
    address: SocketAddr,
    connected: bool,
    track: Option<(RTCRtpReceiverId, MediaStreamTrackId)>,
    /// Sequence numbers of the RTP packets received, and whether the marker was set.
    packets: Vec<(u16, bool)>,
    /// What the header extension for the time of capture was in each of them.
    captured: Vec<Option<Bytes>>,
    /// The time that the last packet's timestamp has by each sender report.
    reported: Vec<Captured>,
    /// Here it takes reports out of the core, too.
    feedback: Feedback,
    timestamp: u32,
    ssrc: u32,
    answer: String,
    /// What came by the server's data channel.
    told: Vec<String>,
}

impl Viewer {
    fn new(now: Instant, address: &str) -> (Self, String) {
        Self::new_with(now, address, |_| ())
    }

    /// Which asks for a data channel as well.
    fn with_channel(now: Instant, address: &str) -> (Self, String) {
        Self::new_with(now, address, |pc| {
            let _channel = pc.create_data_channel("", None).expect("a data channel");
        })
    }

    fn new_with(now: Instant, address: &str, prepare: fn(&mut RTCPeerConnection)) -> (Self, String) {
        let mut media = MediaEngine::default();
        let feedback = |typ: &str, p: &str| RTCPFeedback { typ: typ.to_owned(), parameter: p.to_owned() };
        let rtp_codec = RTCRtpCodec {
            mime_type: MIME_TYPE_H264.to_owned(),
            clock_rate: 90_000,
            channels: 0,
            sdp_fmtp_line: "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f".to_owned(),
            rtcp_feedback: vec![feedback("nack", ""), feedback("nack", "pli"), feedback("transport-cc", "")],
        };
        media
            .register_codec(RTCRtpCodecParameters { rtp_codec, payload_type: 108 }, RtpCodecKind::Video)
            .expect("a codec");
        for uri in [TRANSPORT_CC_URI, ABS_CAPTURE_TIME_URI] {
            let extension = RTCRtpHeaderExtensionCapability { uri: uri.to_owned() };
            media.register_header_extension(extension, RtpCodecKind::Video, None).expect("a header extension");
        }
        let reports = Feedback::new(Estimator::new(1e6));
        let registry = Registry::new()
            .with(Slot::CongestionControl, reports.tap())
            .with(Slot::TwccReceiver, TwccReceiverBuilder::new().with_interval(Duration::from_millis(50)).build())
            .with(
                Slot::NackGenerator,
                NackGeneratorBuilder::new().with_interval(Duration::from_millis(5)).with_size(512).build(),
            )
            .with(Slot::ReceiverReport, ReceiverReportBuilder::new().build());
        let settings = SettingEngineBuilder::new().with_discard_local_candidates_during_ice_restart(true).build();
        let mut pc = RTCPeerConnectionBuilder::new()
            .with_setting_engine(settings)
            .with_media_engine(media)
            .with_interceptor_registry(registry)
            .build(now)
            .expect("a peer connection");
        pc.add_transceiver_from_kind(
            RtpCodecKind::Video,
            Some(RTCRtpTransceiverInit { direction: RTCRtpTransceiverDirection::Recvonly, ..Default::default() }),
        )
        .expect("a transceiver");
        prepare(&mut pc);
        let address: SocketAddr = address.parse().expect("an address");
        pc.add_local_candidate(host(address)).expect("a candidate");
        pc.add_local_candidate(RTCIceCandidateInit::default()).expect("the end of candidates");
        let offer = pc.create_offer(None).expect("an offer");
        pc.set_local_description(now, offer).expect("a local description");
        let offer = pc.local_description().expect("a local description").sdp;
        (
            Self {
                pc,
                address,
                connected: false,
                track: None,
                packets: Vec::new(),
                captured: Vec::new(),
                reported: Vec::new(),
                feedback: reports,
                timestamp: 0,
                ssrc: 0,
                answer: String::new(),
                told: Vec::new(),
            },
            offer,
        )
    }

    fn answered(&mut self, now: Instant, answer: String) {
        self.answer.clone_from(&answer);
        let answer = RTCSessionDescription::answer(answer).expect("an answer");
        self.pc.set_remote_description(now, answer).expect("a remote description");
    }

    /// Datagrams to its former address are lost.
    fn moves(&mut self, address: &str) {
        self.address = address.parse().expect("an address");
    }

    /// Restarts ICE at its present address: the fragment that it sends.
    fn restart(&mut self, now: Instant) -> String {
        let offer = self.pc.create_offer(Some(RTCOfferOptions { ice_restart: true })).expect("an offer");
        self.pc.set_local_description(now, offer).expect("a local description");
        self.pc.add_local_candidate(host(self.address)).expect("a candidate");
        self.pc.add_local_candidate(RTCIceCandidateInit::default()).expect("the end of candidates");
        self.pc.local_description().expect("a local description").sdp
    }

    fn restarted(&mut self, now: Instant, answer: &str) {
        self.answered(now, answer.to_owned());
    }

    fn receive(&mut self, now: Instant, datagram: &[u8]) {
        let transport = TransportContext {
            local_addr: self.address,
            peer_addr: SERVER.parse().expect("an address"),
            ecn: None,
            transport_protocol: TransportProtocol::UDP,
        };
        let _ = self.pc.handle_read(TaggedBytesMut { now, transport, message: BytesMut::from(datagram) });
    }

    fn poll(&mut self) {
        while let Some(event) = self.pc.poll_event() {
            match event {
                RTCPeerConnectionEvent::OnConnectionStateChangeEvent(state) => {
                    self.connected = state == RTCPeerConnectionState::Connected;
                }
                RTCPeerConnectionEvent::OnTrack(RTCTrackEvent::OnOpen(open)) => {
                    self.track = Some((open.receiver_id, open.track_id));
                }
                _ => {}
            }
        }
        for packet in self.feedback.take().into_iter().flatten() {
            if let Some(report) = packet.as_any().downcast_ref::<SenderReport>() {
                let since = f64::from(report.rtp_time.wrapping_sub(self.timestamp)) / 90_000.0;
                let at = Captured::from_ntp(report.ntp_time).0;
                self.reported.push(Captured(at.saturating_sub(Duration::from_secs_f64(since))));
            }
        }
        while let Some(message) = self.pc.poll_read() {
            match message.message {
                RTCMessage::RtpPacket(_, packet) => {
                    self.timestamp = packet.header.timestamp;
                    self.ssrc = packet.header.ssrc;
                    self.packets.push((packet.header.sequence_number, packet.header.marker));
                    let id = extension_id(&self.answer, ABS_CAPTURE_TIME_URI);
                    self.captured.push(id.and_then(|id| packet.header.get_extension(id)));
                }
                RTCMessage::DataChannelMessage(id, message) => {
                    assert_eq!(self.pc.data_channel(id).expect("a channel").label(), "telemetry");
                    assert!(message.is_string);
                    self.told.push(String::from_utf8(message.data.to_vec()).expect("a text"));
                }
                _ => {}
            }
        }
    }

    fn was_told_goodbye(&mut self) -> bool {
        let (receiver, _) = self.track.clone().expect("a track");
        let receiver = self.pc.rtp_receiver(receiver).expect("a receiver");
        receiver.transport().expect("a transport").state() == RTCDtlsTransportState::Closed
    }

    fn ask_for_a_keyframe(&mut self, now: Instant) {
        let (receiver, _) = self.track.clone().expect("a track");
        let pli = PictureLossIndication { sender_ssrc: 0, media_ssrc: self.ssrc };
        self.pc.rtp_receiver(receiver).expect("a receiver").write_rtcp(now, vec![Box::new(pli)]).expect("a request");
    }
}

/// The number that the answer gives to a header extension.
fn extension_id(answer: &str, uri: &str) -> Option<u8> {
    let extension =
        answer.lines().find_map(|line| line.strip_prefix("a=extmap:").filter(|line| line.ends_with(uri)))?;
    extension.split([' ', '/']).next()?.parse().ok()
}

fn host(address: SocketAddr) -> RTCIceCandidateInit {
    let base_config = CandidateConfig {
        network: "udp".to_owned(),
        address: address.ip().to_string(),
        port: address.port(),
        component: 1,
        ..Default::default()
    };
    let candidate = CandidateHostConfig { base_config, ..Default::default() }.new_candidate_host().expect("a host");
    RTCIceCandidate::from(&candidate).to_json().expect("JSON")
}

/// The engine, its wire, and viewers at the other end of it.
const MAX_VIEWERS: usize = 4;

struct World {
    now: Instant,
    engine: Engine,
    wire: Wire,
    viewers: Vec<Viewer>,
    /// The stream that viewers who join ask for.
    asks_for: usize,
    /// Of the first stream.
    keyframes_wanted: u32,
    /// Datagrams of the server, by their number, that get lost.
    lose: fn(usize) -> bool,
    /// What is made of a datagram of a viewer on its way.
    rewrite: fn(&Viewer, &[u8]) -> Vec<u8>,
    carried: usize,
    /// What they were sent to.
    peers: HashSet<SocketAddr>,
}

impl World {
    fn new() -> Self {
        Self {
            now: Instant::now(),
            engine: Engine::new([("stream1", Codec::H264, None)], MAX_VIEWERS, Pilots::shared(Pilot::First)),
            wire: Wire::default(),
            viewers: Vec::new(),
            asks_for: 0,
            keyframes_wanted: 0,
            lose: |_| false,
            rewrite: |_, datagram| datagram.to_vec(),
            carried: 0,
            peers: HashSet::new(),
        }
    }

    fn join(&mut self, address: &str) -> String {
        self.join_with(address, |offer| offer)
    }

    fn join_with(&mut self, address: &str, change: impl Fn(String) -> String) -> String {
        let (mut viewer, offer) = Viewer::new(self.now, address);
        let offer = change(offer);
        let id = format!("viewer-{address}");
        let answer = self.accept(&id, &offer, viewer.address.ip()).expect("an answer");
        viewer.answered(self.now, answer);
        self.viewers.push(viewer);
        id
    }

    fn accept(&mut self, id: &str, offer: &str, from: IpAddr) -> Result<String, AcceptError> {
        let asked = Asked { stream: self.asks_for, ..Asked::default() };
        self.engine.accept(self.now, id, offer, from, asked, &reach(), &mut self.wire)
    }

    /// Lets `time` pass in steps of a millisecond.
    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now += Duration::from_millis(1);
            self.engine.handle_timeouts(self.now, &mut self.wire);
            self.count_wanted();
            for i in 0..self.viewers.len() {
                let _ = self.viewers[i].pc.handle_timeout(self.now);
                self.viewers[i].poll();
                while let Some(datagram) = self.viewers[i].pc.poll_write() {
                    let (local, peer) = (SERVER.parse().expect("an address"), self.viewers[i].address);
                    let datagram = (self.rewrite)(&self.viewers[i], &datagram.message);
                    self.engine.handle_datagram(self.now, local, peer, &datagram, &mut self.wire);
                    self.count_wanted();
                }
            }
            self.deliver();
        }
    }

    fn count_wanted(&mut self) {
        self.keyframes_wanted += u32::from(self.engine.take_keyframe_wanted(0));
    }

    fn deliver(&mut self) {
        while let Some((peer, datagram)) = self.wire.sent.pop_front() {
            self.carried += 1;
            self.peers.insert(peer);
            if (self.lose)(self.carried) {
                continue;
            }
            if let Some(viewer) = self.viewers.iter_mut().find(|v| v.address == peer) {
                viewer.receive(self.now, &datagram);
                viewer.poll();
            }
        }
    }

    fn run_until_connected(&mut self) {
        for _ in 0..3_000 {
            if self.viewers.iter().all(|v| v.connected) && self.keyframes_wanted > 0 {
                return;
            }
            self.run(Duration::from_millis(1));
        }
        panic!("not connected within 3 s of virtual time");
    }

    fn frame(&self, keyframe: bool, packets: usize) -> Frame {
        let payload = Bytes::from(vec![if keyframe { 0x65 } else { 0x41 }; 500]);
        let payloads = vec![payload; packets];
        Frame {
            unit: Bytes::new(),
            payloads,
            pts: Duration::ZERO,
            timestamp: 0,
            keyframe,
            captured_at: self.now,
            captured: CAPTURED,
            latency: LatencyMode::Low,
        }
    }

    fn send(&mut self, keyframe: bool, packets: usize) -> bool {
        let frame = self.frame(keyframe, packets);
        self.engine.send_frame(self.now, 0, &frame, &mut self.wire);
        self.deliver();
        self.engine.take_keyframe_wanted(0)
    }
}

#[test]
fn the_pilots_picture_leaves_first() {
    let addresses = ["10.0.0.2:6000", "10.0.0.3:6000", "10.0.0.4:6000", "10.0.0.5:6000"];
    for pilot in addresses.map(|address| address.parse::<SocketAddr>().expect("an address")) {
        let mut world = World::new();
        let floor = Some(Bitrate::from_kbps(300));
        world.engine =
            Engine::new([("stream1", Codec::H264, floor)], MAX_VIEWERS, Pilots::shared(Pilot::Address(pilot.ip())));
        for address in addresses {
            world.join(address);
        }
        world.run_until_connected();
        world.engine.rates(world.now, |_| None, |_, _| ());
        let frame = world.frame(true, 40);
        world.engine.send_frame(world.now, 0, &frame, &mut world.wire);
        let first = world.wire.sent.iter().take(40).filter(|(peer, _)| *peer == pilot);
        assert_eq!((first.count(), world.wire.sent.len()), (40, 160));
    }
}

#[test]
fn viewers_of_two_streams_share_the_socket_and_nothing_else() {
    let mut world = World::new();
    let (floor, pilot) = (Some(Bitrate::from_kbps(300)), Pilot::Address([10, 0, 0, 3].into()));
    world.engine = Engine::new(
        [("stream1", Codec::H264, floor), ("stream2", Codec::H264, floor)],
        MAX_VIEWERS,
        Pilots::shared(pilot),
    );
    world.join("10.0.0.2:6000");
    assert_eq!([0, 1].map(|stream| world.engine.is_watched(stream)), [true, false]);
    world.asks_for = 1;
    let second = world.join("10.0.0.3:6000");
    world.run_until_connected();
    world.run(Duration::from_millis(50));
    assert_eq!((world.keyframes_wanted, world.engine.take_keyframe_wanted(1)), (1, true), "each stream for its viewer");
    for (stream, packets) in [(0, 5), (1, 3)] {
        let frame = world.frame(true, packets);
        world.engine.send_frame(world.now, stream, &frame, &mut world.wire);
        world.deliver();
    }
    assert_eq!([0, 1].map(|viewer: usize| world.viewers[viewer].packets.len()), [5, 3]);
    let ceiling = |stream: usize| Ceiling {
        bitrate: Bitrate::from_kbps([4_000, 1_000][stream]),
        resolution: Resolution::new(1280, 720),
        fps: 30.0,
        costly: false,
        fixed_size: false,
    };
    let mut rates = Vec::new();
    let now = world.now;
    world.engine.rates(now, |stream| Some(ceiling(stream)), |stream, rate| rates.push((stream, rate.bitrate.kbps())));
    assert_eq!(rates, [(0, 4_000), (1, 1_000)]);
    let mut seen: Vec<_> = world.engine.stats(now).into_iter().map(|(at, seen)| (at, seen.pilot)).collect();
    seen.sort();
    assert_eq!(seen, [(0, true), (1, true)], "each stream has a link that its rate follows");
    assert_eq!(world.engine.pilot_stream(), 1, "that of --pilot is served first");
    world.viewers[1].ask_for_a_keyframe(now);
    world.run(Duration::from_millis(10));
    assert_eq!((world.keyframes_wanted, world.engine.take_keyframe_wanted(1)), (1, true), "the viewer's stream alone");
    assert!(world.engine.close(&second, &mut world.wire));
    assert_eq!([0, 1].map(|stream| world.engine.is_watched(stream)), [true, false]);
}

#[test]
fn a_viewer_connects_asks_for_a_keyframe_and_receives_from_it_on() {
    let mut world = World::new();
    world.join("10.0.0.2:6000");
    assert!(!world.send(true, 1), "nothing is sent before the connection stands");
    let now = world.now;
    assert!(!world.engine.stats(now)[0].1.awaits_keyframe, "it may have no path at all");
    world.run_until_connected();
    assert_eq!(world.keyframes_wanted, 1, "a new viewer makes a keyframe necessary");
    world.send(false, 3);
    assert!(world.viewers[0].packets.is_empty(), "a viewer starts with a keyframe");
    world.send(true, 40);
    world.send(false, 2);
    let packets = &world.viewers[0].packets;
    assert_eq!(packets.len(), 42);
    assert!(packets.windows(2).all(|p| p[1].0 == p[0].0.wrapping_add(1)), "in order");
    assert_eq!(packets.iter().filter(|(_, marker)| *marker).count(), 2, "the last packet of a frame has the marker");
}

/// The offer with a data channel beside the video.
fn with_data(offer: &str) -> String {
    let bundle = offer.replace("a=group:BUNDLE 0", "a=group:BUNDLE 0 1");
    assert_ne!(bundle, offer, "the offer has a bundle");
    bundle + "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\nc=IN IP4 0.0.0.0\r\na=mid:1\r\na=sctp-port:5000\r\n"
}

/// Each of these starts SCTP in the core, also where it refuses the section.
#[test]
fn nobody_gets_the_server_to_speak_sctp() {
    let mut world = World::new();
    let (viewer, offer) = Viewer::new(world.now, "10.0.0.2:6000");
    let plain = world.accept("plain", &offer, viewer.address.ip()).expect("an answer");
    assert!(!plain.contains("m=application"), "{plain}");
    let refused = with_data(&offer).replace("BUNDLE 0 1", "BUNDLE 0");
    for (id, offer) in [("bundled", with_data(&offer)), ("refused", refused)] {
        let answer = world.accept(id, &offer, viewer.address.ip()).expect("an answer");
        assert!(answer.contains("a=group:BUNDLE 0\r\n"), "{answer}");
        assert!(answer.contains("m=application 0 UDP/DTLS/SCTP webrtc-datachannel\r\n"), "{answer}");
        let viewer = world.engine.viewers.get_mut(id).expect("the viewer");
        assert!(viewer.session.core().sctp().is_none(), "{id}");
    }
    // What the core takes for the end of a line is more than what the standard does.
    let hidden = with_data(&offer).replace("m=application", "\rm=application");
    let refused = world.accept("hidden", &hidden, viewer.address.ip()).expect_err("refused");
    assert!(refused.to_string().contains("data channel"), "{refused}");
}

impl World {
    /// Of a server that receives telemetry.
    fn with_values() -> (Self, Arc<Values>) {
        let (mut world, values) = (Self::new(), Arc::<Values>::default());
        world.engine = world.engine.with_values(Some(Arc::clone(&values)));
        (world, values)
    }

    /// With a data channel.
    fn follow(&mut self, address: &str) -> String {
        let (mut viewer, offer) = Viewer::with_channel(self.now, address);
        assert!(offer.contains("m=application"), "{offer}");
        let id = format!("viewer-{address}");
        let answer = self.accept(&id, &offer, viewer.address.ip()).expect("an answer");
        viewer.answered(self.now, answer);
        self.viewers.push(viewer);
        id
    }

    fn tell(&mut self, values: &Values, told: &str) {
        values.tell(told.to_owned());
        self.engine.tell_values(self.now, &mut self.wire);
    }

    /// Until the viewer was told this.
    fn run_until_told(&mut self, viewer: usize, told: &str) {
        for _ in 0..3_000 {
            if self.viewers[viewer].told.last().is_some_and(|last| last == told) {
                return;
            }
            self.run(Duration::from_millis(1));
        }
        panic!("not told {told:?} within 3 s of virtual time but {:?}", self.viewers[viewer].told);
    }
}

#[test]
fn a_viewer_with_a_data_channel_gets_the_newest_values_alone() {
    let (mut world, values) = World::with_values();
    world.tell(&values, "old");
    world.tell(&values, "at the start");
    assert!(!values.tell("at the start".to_owned()), "nobody takes them");
    world.follow("10.0.0.2:6000");
    assert!(values.tell("at the start".to_owned()), "somebody takes them");
    world.join("10.0.0.3:6000");
    world.run_until_connected();
    world.run_until_told(0, "at the start");
    world.send(true, 3);
    // The first is on its way while the others come.
    for told in ["first", "second", "third"] {
        world.tell(&values, told);
    }
    world.run_until_told(0, "third");
    assert_eq!(world.viewers[0].told, ["at the start", "first", "third"]);
    // Nothing is sent again, nor wakes anybody.
    let (carried, deadline) = (world.carried, world.engine.viewers["viewer-10.0.0.2:6000"].deadline);
    world.tell(&values, "fourth");
    world.run_until_told(0, "fourth");
    assert!(world.carried - carried < 20 && deadline <= world.now + Duration::from_secs(1));
    world.send(false, 2);
    assert_eq!([0, 1].map(|viewer: usize| world.viewers[viewer].packets.len()), [5, 5]);
    assert_eq!(world.viewers[1].told, [""; 0], "it did not ask");
}

#[test]
fn values_get_through_where_datagrams_are_lost() {
    let (mut world, values) = World::with_values();
    world.follow("10.0.0.2:6000");
    world.run_until_connected();
    world.tell(&values, "before");
    world.run_until_told(0, "before");
    world.lose = |number| number % 3 != 0;
    for told in ["lost", "also lost", "last"] {
        world.tell(&values, told);
        world.run(Duration::from_millis(100));
    }
    for _ in 0..20 {
        world.run(Duration::from_secs(1));
    }
    assert_eq!(world.viewers[0].told.last().map(String::as_str), Some("last"), "{:?}", world.viewers[0].told);
}

#[test]
fn values_go_on_after_an_ice_restart() {
    let (mut world, values) = World::with_values();
    let id = world.follow("10.0.0.2:6000");
    world.run_until_connected();
    world.tell(&values, "before");
    world.run_until_told(0, "before");
    let now = world.now;
    let fragment = Fragment::parse(&world.viewers[0].restart(now));
    let answer = world.engine.patch(now, &id, "*", &fragment).expect("a session").expect("an answer");
    world.viewers[0].restarted(now, &answer);
    world.run(Duration::from_secs(1));
    world.tell(&values, "after");
    world.run_until_told(0, "after");
}

/// Whose it is: the channels that the viewer opens are not looked at, and those of the server end alone.
#[test]
fn a_viewer_that_closes_the_channel_goes_on_watching() {
    let (mut world, values) = World::with_values();
    let id = world.follow("10.0.0.2:6000");
    world.run_until_connected();
    world.tell(&values, "before");
    world.run_until_told(0, "before");
    assert!(world.engine.viewers[&id].session.has_channel());
    let pc = &mut world.viewers[0].pc;
    let own = (0..9).find(|id| pc.data_channel(*id).is_some_and(|channel| channel.label() == "telemetry"));
    pc.data_channel(own.expect("a channel")).expect("a channel").close().expect("closed");
    world.run(Duration::from_secs(1));
    world.tell(&values, "after");
    world.run(Duration::from_secs(1));
    assert!(!world.engine.viewers[&id].session.has_channel());
    world.send(true, 3);
    assert_eq!((world.viewers[0].told.len(), world.viewers[0].packets.len()), (1, 3));
}

/// Acknowledgements are not heard either, so that this shows.
#[test]
fn a_flood_by_dtls_does_not_reach_the_core() {
    let (mut world, values) = World::with_values();
    world.follow("10.0.0.2:6000");
    world.run_until_connected();
    world.tell(&values, "before");
    world.run_until_told(0, "before");
    let flood = |world: &mut World| {
        let (local, peer) = (SERVER.parse().expect("an address"), world.viewers[0].address);
        for _ in 0..100 {
            world.engine.handle_datagram(world.now, local, peer, &[23; 1_000], &mut world.wire);
        }
    };
    flood(&mut world);
    world.tell(&values, "first");
    for _ in 0..100 {
        flood(&mut world);
        world.run(Duration::from_millis(1));
    }
    world.tell(&values, "second");
    for _ in 0..400 {
        flood(&mut world);
        world.run(Duration::from_millis(1));
    }
    assert_eq!(world.viewers[0].told, ["before", "first"], "of the first nothing is heard any more");
    world.run_until_told(0, "second");
    world.send(true, 3);
    assert_eq!(world.viewers[0].packets.len(), 3);
}

/// The core keeps what belongs behind the handshake until that is over.
#[test]
fn a_flood_before_the_handshake_is_over_does_not_reach_the_core() {
    for (flood, is_connected) in [(200, true), (1_000, false)] {
        let mut world = World::new();
        world.join("10.0.0.2:6000");
        // There is a path, but the handshake stalls.
        world.rewrite = |_, datagram| if matches!(datagram[0], 20..=63) { Vec::new() } else { datagram.to_vec() };
        world.run(Duration::from_millis(500));
        assert_eq!(world.engine.stats(world.now)[0].1.state, "connecting");
        let (local, peer) = (SERVER.parse().expect("an address"), world.viewers[0].address);
        let later = [&[23, 0xFE, 0xFD, 0, 1, 0, 0, 0, 0, 0, 1, 3, 0xE8][..], &[0; 1_000]].concat();
        for _ in 0..flood {
            world.engine.handle_datagram(world.now, local, peer, &later, &mut world.wire);
        }
        world.rewrite = |_, datagram| datagram.to_vec();
        world.run(Duration::from_secs(10));
        assert_eq!(world.engine.stats(world.now)[0].1.state == "connected", is_connected, "{flood} datagrams");
    }
}

/// In whatever order; and what the core's SCTP does not do well is refused.
#[test]
fn data_channels_that_can_be_had_are_taken() {
    let (mut world, _) = World::with_values();
    let (viewer, offer) = Viewer::new(world.now, "10.0.0.2:6000");
    let offer = with_data(&offer);
    let (session, video) = offer.split_once("m=video").expect("a video section");
    let (video, data) = video.split_once("m=application").expect("a data channel");
    let first = format!("{session}m=application{data}m=video{video}").replace("BUNDLE 0 1", "BUNDLE 1 0");
    for (id, offer, bundle) in [("behind", &offer, "0 1"), ("before", &first, "1 0")] {
        let answer = world.accept(id, offer, viewer.address.ip()).expect("an answer");
        assert!(answer.contains(&format!("a=group:BUNDLE {bundle}\r\n")), "{answer}");
        assert!(answer.contains("m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n"), "{answer}");
        assert_eq!(answer.matches("a=setup:active\r\n").count(), 2, "{answer}");
        let first = answer.split("\r\nm=").nth(1).expect("a section");
        assert!(first.contains("\r\na=candidate:"), "{answer}");
        let viewer = world.engine.viewers.get_mut(id).expect("the viewer");
        assert!(viewer.session.core().sctp().is_some() && viewer.session.has_channel(), "{id}");
        world.engine.close(id, &mut world.wire);
    }
    let passive = offer.replace("a=setup:actpass", "a=setup:active");
    assert_ne!(passive, offer, "it says who begins");
    let other_port = offer.replace("a=sctp-port:5000", "a=sctp-port:5001");
    let alone = offer.replace("BUNDLE 0 1", "BUNDLE 0");
    // With ICE lite the viewer begins, too; and the core finds that behind what it takes for the end of a line.
    let [lite, hidden] =
        ["a=ice-lite", "\ra=ice-lite"].map(|line| offer.replace("a=group", &format!("{line}\r\na=group")));
    for offer in [passive, other_port, alone, lite, hidden, offer.replace("UDP/DTLS/SCTP", "DTLS/SCTP")] {
        let answer = world.accept("refused", &offer, viewer.address.ip()).expect("an answer");
        assert!(answer.contains("m=application 0 "), "{answer}");
        let viewer = world.engine.viewers.get_mut("refused").expect("the viewer");
        assert!(viewer.session.core().sctp().is_none() && !viewer.session.has_channel(), "{offer}");
        world.engine.close("refused", &mut world.wire);
    }
}

#[test]
fn a_viewer_that_offers_a_data_channel_sees_the_pictures() {
    let mut world = World::new();
    world.follow("10.0.0.2:6000");
    world.run_until_connected();
    world.send(true, 3);
    // The core of the viewer asks for its channel for a while.
    world.run(Duration::from_secs(3));
    world.send(false, 2);
    assert_eq!(world.viewers[0].packets.len(), 5);
}

#[test]
fn a_viewer_that_hides_its_address_by_multicast_dns_connects_all_the_same() {
    let mut world = World::new();
    let id = world.join_with("10.0.0.2:6000", |offer| {
        let hidden = offer.replace(" 10.0.0.2 ", " 3b6b5c1e-9f6e-4a3e-9f6e-0123456789ab.local ");
        assert_ne!(hidden, offer, "the offer has a candidate");
        hidden
    });
    let trickled = "candidate:1 1 udp 2113937151 0b6b5c1e-9f6e-4a3e-9f6e-0123456789ab.local 50000 typ host".to_owned();
    let fragment = Fragment { candidates: vec![trickled], ..Fragment::default() };
    world.engine.patch(world.now, &id, "*", &fragment).expect("passed over, no error");
    world.run_until_connected();
    world.send(true, 3);
    assert_eq!(world.viewers[0].packets.len(), 3);
}

#[test]
fn sender_reports_tell_when_pictures_were_captured_and_not_when_they_were_sent() {
    let mut world = World::new();
    world.join("10.0.0.2:6000");
    world.run_until_connected();
    let encoding = Duration::from_millis(40);
    let captured_at = world.now.checked_sub(encoding).expect("a machine that has run");
    let frame = Frame { captured_at, ..world.frame(true, 3) };
    world.engine.send_frame(world.now, 0, &frame, &mut world.wire);
    world.run(Duration::from_millis(3_500));
    let reported = &world.viewers[0].reported;
    assert!(reported.len() >= 3, "{reported:?}");
    for at in reported {
        let wrong = at.0.abs_diff(CAPTURED.0);
        assert!(wrong < Duration::from_micros(50), "{wrong:?} off, by {reported:?}");
    }
}

#[test]
fn the_first_packet_of_each_picture_says_when_it_was_captured_where_the_offer_wants_that() {
    let mut world = World::new();
    world.join("10.0.0.2:6000");
    world.join_with("10.0.0.3:6000", |offer| {
        offer.lines().filter(|line| !line.ends_with(ABS_CAPTURE_TIME_URI)).flat_map(|line| [line, "\r\n"]).collect()
    });
    world.run_until_connected();
    world.send(true, 3);
    world.send(false, 2);
    // The seconds since 1900, and 0.123 s in 1/2^32.
    let expected = Some(Bytes::from_static(&[0xEC, 0xCE, 0xFF, 0x80, 0x1F, 0x7C, 0xED, 0x91]));
    let none = None;
    assert_eq!(world.viewers[0].captured, [expected.clone(), none.clone(), none.clone(), expected, none]);
    assert_eq!(world.viewers[1].captured, vec![None; 5]);
    // No more than any path carries, as MAX_PAYLOAD says: what a packet has at most beside its payload.
    let mut header = rtc::rtp::header::Header {
        version: 2,
        extension: true,
        extension_profile: rtc::rtp::header::EXTENSION_PROFILE_ONE_BYTE,
        ..Default::default()
    };
    for (id, bytes) in [(1, 3), (2, 8), (3, 2)] {
        header.set_extension(id, Bytes::from(vec![0; bytes])).expect("room");
    }
    assert!(rtc::shared::marshal::MarshalSize::marshal_size(&header) + MAX_PAYLOAD + 2 + 16 + 8 + 20 <= 1_280);
}

#[test]
fn what_a_viewer_that_goes_had_of_the_link_is_that_of_the_other_one_at_its_address() {
    let mut world = World::new();
    let ids = ["10.0.0.2:6000", "10.0.0.2:6001", "10.0.0.3:6000"].map(|address| world.join(address));
    world.run_until_connected();
    // From here on they share.
    world.engine.rates(world.now, |_| None, |_, _| ());
    let estimate = |world: &World, id: &String| world.engine.viewers[id].session.seen(false).estimate;
    let most = estimate(&world, &ids[0]);
    for (id, part) in ids.iter().zip([0.6, 0.3, 0.5]) {
        world.engine.viewers[id].session.set_share(most * part);
    }
    world.engine.close(&ids[0], &mut world.wire);
    let parts = [&ids[1], &ids[2]].map(|id| (estimate(&world, id) / most * 100.0).round());
    assert_eq!(parts, [90.0, 50.0]);
}

#[test]
fn two_viewers_behind_one_socket_get_their_own_packets() {
    let mut world = World::new();
    world.join("10.0.0.2:6000");
    world.join("10.0.0.3:6000");
    world.run_until_connected();
    world.send(true, 10);
    for viewer in &world.viewers {
        assert_eq!(viewer.packets.len(), 10);
    }
    assert_ne!(world.viewers[0].ssrc, world.viewers[1].ssrc);
}

#[test]
fn lost_packets_are_sent_again_on_request() {
    let mut world = World::new();
    world.join("10.0.0.2:6000");
    world.run_until_connected();
    world.send(true, 4);
    world.carried = 0;
    world.lose = |n| n == 5;
    world.send(false, 10);
    assert_eq!(world.viewers[0].packets.len(), 13, "one was lost");
    world.run(Duration::from_millis(50));
    assert_eq!(world.viewers[0].packets.len(), 14, "and came again");
    let now = world.now;
    assert!(world.engine.stats(now)[0].1.nacks >= 1);
}

#[test]
fn a_picture_loss_indication_makes_a_keyframe_necessary() {
    let mut world = World::new();
    world.join("10.0.0.2:6000");
    world.run_until_connected();
    world.send(true, 4);
    let before = world.keyframes_wanted;
    let now = world.now;
    world.viewers[0].ask_for_a_keyframe(now);
    world.run(Duration::from_millis(5));
    assert_eq!(world.keyframes_wanted, before + 1);
    let now = world.now;
    assert_eq!(world.engine.stats(now)[0].1.plis, 1);
}

#[test]
fn a_viewer_that_is_back_after_an_outage_is_sent_one_keyframe_whoever_asks_for_it() {
    for (asks, outage) in [(false, 60), (true, 60), (false, 9), (false, 0)] {
        let mut world = World::new();
        world.join("10.0.0.2:6000");
        world.run_until_connected();
        world.send(true, 4);
        let frames = |world: &mut World, count: usize| {
            for _ in 0..count {
                world.run(Duration::from_millis(33));
                world.send(false, 4);
            }
        };
        frames(&mut world, 30);
        let before = world.keyframes_wanted;
        world.lose = |_| true;
        frames(&mut world, outage);
        assert_eq!(world.keyframes_wanted, before, "nobody is there to show it");
        world.lose = |_| false;
        frames(&mut world, 1);
        for _ in 0..3 {
            if asks {
                let now = world.now;
                world.viewers[0].ask_for_a_keyframe(now);
            }
            frames(&mut world, 1);
        }
        let wanted = u32::from(outage == 60);
        assert_eq!(world.keyframes_wanted, before + wanted, "{asks} {outage}");
        world.send(true, 4);
        frames(&mut world, 60);
        assert_eq!(world.keyframes_wanted, before + wanted, "{asks} {outage}: no second one");
    }
}

#[test]
fn a_full_socket_costs_the_frame_and_a_keyframe_mends_it() {
    let mut world = World::new();
    world.join("10.0.0.2:6000");
    world.run_until_connected();
    world.send(true, 4);
    world.wire.full = true;
    assert!(world.send(false, 40), "a keyframe is wanted");
    world.wire.full = false;
    let before = world.viewers[0].packets.len();
    assert!(!world.send(false, 4), "what depends on the lost frame is left out");
    assert_eq!(world.viewers[0].packets.len(), before);
    let now = world.now;
    assert!(world.engine.stats(now)[0].1.awaits_keyframe);
    world.send(true, 4);
    assert_eq!(world.viewers[0].packets.len(), before + 4);
    let stats = world.engine.stats(now).remove(0).1;
    assert_eq!((stats.skipped, stats.awaits_keyframe), (2, false));
    world.engine.left_out(0, 3);
    assert_eq!(world.engine.stats(now)[0].1.skipped, 5, "too many came at once");
}

#[test]
fn a_viewer_that_vanishes_is_forgotten_with_everything_of_it() {
    let mut world = World::new();
    world.join("10.0.0.2:6000");
    world.join("10.0.0.3:6000");
    world.run_until_connected();
    world.viewers.remove(0);
    world.run(Duration::from_secs(12));
    assert_eq!(world.engine.tables(), (1, 1, 1), "viewers, names, addresses");
    let now = world.now;
    assert_eq!(world.engine.stats(now)[0].1.address, "10.0.0.3:6000");
}

#[test]
fn a_viewer_that_never_connects_is_given_up() {
    let mut world = World::new();
    world.join("10.0.0.2:6000");
    world.viewers.clear();
    world.run(Duration::from_secs(16));
    assert_eq!(world.engine.tables(), (0, 0, 0));
}

#[test]
fn the_picture_that_was_sent_last_is_known_of_each_viewer_without_asking_the_engine() {
    let mut world = World::new();
    let id = public_id(&world.join("10.0.0.2:6000")).to_owned();
    let pictures = world.engine.pictures();
    world.run_until_connected();
    assert_eq!((pictures.sent(&id), pictures.sent("another")), (None, None));
    world.send(true, 1);
    let sent = pictures.sent(&id).expect("one was sent");
    assert_eq!(sent.captured_us, CAPTURED.micros());
    world.now += Duration::from_secs(1);
    let later =
        Frame { timestamp: 90_000, captured: Captured(CAPTURED.0 + Duration::from_secs(1)), ..world.frame(true, 1) };
    world.engine.send_frame(world.now, 0, &later, &mut world.wire);
    let next = pictures.sent(&id).expect("another one");
    assert_eq!(next.captured_us - sent.captured_us, 1_000_000);
    assert_eq!(next.rtp_timestamp.wrapping_sub(sent.rtp_timestamp), 90_000);
}

#[test]
fn closing_tells_the_viewer_and_leaves_nothing() {
    let mut world = World::new();
    let id = world.join("10.0.0.2:6000");
    world.run_until_connected();
    world.send(true, 1);
    assert!(!world.viewers[0].was_told_goodbye());
    assert!(world.engine.close(&id, &mut world.wire));
    world.deliver();
    assert!(world.viewers[0].was_told_goodbye(), "the viewer knows at once");
    assert_eq!(world.engine.tables(), (0, 0, 0));
    assert!(!world.engine.close(&id, &mut world.wire));
}

#[test]
fn a_viewer_that_says_goodbye_is_gone_at_once() {
    let mut world = World::new();
    world.join("10.0.0.2:6000");
    world.run_until_connected();
    world.viewers[0].pc.close().expect("closed");
    world.run(Duration::from_millis(20));
    assert_eq!(world.engine.tables(), (0, 0, 0));
}

#[test]
fn junk_and_forged_datagrams_change_nothing() {
    let mut world = World::new();
    world.join("10.0.0.2:6000");
    world.run_until_connected();
    let tables = world.engine.tables();
    let local = SERVER.parse().expect("an address");
    let stranger: SocketAddr = "10.9.9.9:1".parse().expect("an address");
    let mut stun = vec![0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42];
    stun.extend([7; 12]);
    let mut named = stun.clone();
    named[3] = 8;
    named.extend([0, 6, 0, 4, b'n', b'o', b'p', b'e']);
    let viewer = world.viewers[0].address;
    for junk in [&[][..], &[0x80], &[0x16, 0xFE, 0xFD], &[0x90; 1_400], &stun, &named] {
        for from in [stranger, viewer] {
            world.engine.handle_datagram(world.now, local, from, junk, &mut world.wire);
        }
    }
    assert_eq!(world.engine.tables(), tables);
    world.send(true, 3);
    assert_eq!(world.viewers[0].packets.len(), 3, "the viewer still receives");
}

/// A connectivity check as another computer can forge it: it reads the user name on the network, and claims any sender.
/// With a password it is signed by that.
fn check(user: &str, pwd: Option<&str>) -> Vec<u8> {
    let crypto = rtc::crypto::default_provider().expect("a provider");
    let user = Username::new(ATTR_USERNAME, user.to_owned());
    let mut setters: Vec<Box<dyn Setter>> =
        vec![Box::new(BINDING_REQUEST), Box::new(TransactionId::new()), Box::new(user)];
    if let Some(pwd) = pwd {
        setters
            .push(Box::new(MessageIntegrity::new_short_term_integrity_with_provider(pwd.to_owned(), crypto.crypto())));
    }
    let mut message = Message::new();
    message.build(&setters).expect("a request");
    message.raw
}

fn user_of(world: &World, id: &str) -> (String, String) {
    let viewer = &world.engine.viewers[id];
    (format!("{}:{}", viewer.ufrag, viewer.remote_ufrag), viewer.pwd.clone())
}

#[test]
fn a_session_that_panics_ends_and_the_others_go_on() {
    let mut world = World::new();
    world.join("10.0.0.2:6000");
    world.join("10.0.0.3:6000");
    world.run_until_connected();
    let local = SERVER.parse().expect("an address");
    world.engine.handle_datagram(world.now, local, world.viewers[0].address, PANICS, &mut world.wire);
    assert_eq!((world.engine.tables().0, world.engine.tables().1), (1, 1), "nothing is left of it");
    world.send(true, 3);
    assert_eq!([0, 1].map(|viewer: usize| world.viewers[viewer].packets.len()), [0, 3]);
}

#[test]
fn a_forged_sender_does_not_take_the_address_of_a_viewer() {
    let mut world = World::new();
    let pilot = world.join("10.0.0.2:6000");
    let other = world.join("10.0.0.3:6000");
    world.run_until_connected();
    world.send(true, 3);
    let (user, pwd) = user_of(&world, &other);
    let (own, _) = user_of(&world, &pilot);
    let local = SERVER.parse().expect("an address");
    let address = world.viewers[0].address;
    // Of another viewer: without a password, with a wrong one, and as that viewer itself can.
    for forged in [
        check(&user, None),
        check(&user, Some("x")),
        check(&user, Some(&pwd)),
        check(&own, None),
        check("", Some(&pwd)),
    ] {
        world.engine.handle_datagram(world.now, local, address, &forged, &mut world.wire);
        assert_eq!(world.engine.by_address.get(address), Some(&pilot));
    }
    let (now, before) = (world.now, world.keyframes_wanted);
    world.viewers[0].ask_for_a_keyframe(now);
    world.run(Duration::from_millis(5));
    assert_eq!(world.keyframes_wanted, before + 1, "the pilot is heard");
    world.run(Duration::from_secs(12));
    assert_eq!(world.engine.tables().0, 2, "both are still there");
}

#[test]
fn an_address_belongs_to_who_proves_it_until_a_path_is_chosen() {
    let mut world = World::new();
    let other = world.join("10.0.0.3:6000");
    world.run_until_connected();
    // It claims an address that it has not, before the pilot is there.
    let (user, pwd) = user_of(&world, &other);
    let (local, address) = (SERVER.parse().expect("an address"), "10.0.0.2:6000".parse().expect("an address"));
    world.engine.handle_datagram(world.now, local, address, &check(&user, Some(&pwd)), &mut world.wire);
    assert_eq!(world.engine.by_address.get(address), Some(&other));
    world.keyframes_wanted = 0;
    let pilot = world.join("10.0.0.2:6000");
    world.run_until_connected();
    assert_eq!(world.engine.by_address.get(address), Some(&pilot));
    world.send(true, 3);
    assert_eq!(world.viewers[1].packets.len(), 3);
}

/// As libnice does: its responses have the user name as well, as its own requests would.
#[test]
fn a_viewer_whose_responses_name_a_user_connects() {
    let mut world = World::new();
    world.rewrite = |viewer, datagram| {
        let mut response = Message::new();
        if response.unmarshal_binary(datagram).is_err() || response.typ.class != CLASS_SUCCESS_RESPONSE {
            return datagram.to_vec();
        }
        let description = viewer.pc.local_description().expect("an offer").sdp;
        let [ours, pwd] = ["a=ice-ufrag:", "a=ice-pwd:"].map(|name| offer::value(&description, name).to_owned());
        let theirs = offer::value(&viewer.answer, "a=ice-ufrag:");
        let crypto = rtc::crypto::default_provider().expect("a provider");
        let mut mapped = XorMappedAddress::default();
        mapped.get_from(&response).expect("an address");
        let mut named = Message::new();
        named
            .build(&[
                Box::new(BINDING_SUCCESS),
                Box::new(response.transaction_id),
                Box::new(mapped),
                Box::new(Username::new(ATTR_USERNAME, format!("{ours}:{theirs}"))),
                Box::new(MessageIntegrity::new_short_term_integrity_with_provider(pwd, crypto.crypto())),
            ])
            .expect("a response");
        named.raw
    };
    world.join("10.0.0.2:6000");
    world.run_until_connected();
    world.send(true, 3);
    assert_eq!(world.viewers[0].packets.len(), 3);
}

/// Whoever sees the network knows the user names, and can send from as many addresses as it likes.
#[test]
fn forged_datagrams_of_many_addresses_do_not_push_out_the_viewers_own() {
    let mut world = World::new();
    world.join("10.0.0.2:6000");
    world.run_until_connected();
    world.send(true, 3);
    let tables = world.engine.tables();
    let (user, _) = user_of(&world, "viewer-10.0.0.2:6000");
    let stun = check(&user, None);
    let local = SERVER.parse().expect("an address");
    for stranger in 0..100 {
        let from = SocketAddr::from(([10, 9, 9, stranger], 1));
        world.engine.handle_datagram(world.now, local, from, &stun, &mut world.wire);
    }
    assert_eq!(world.engine.tables(), tables);
    // And one that connected itself knows a password.
    let (user, pwd) = user_of(&world, "viewer-10.0.0.2:6000");
    for stranger in 0..100 {
        let from = SocketAddr::from(([10, 9, 9, stranger], 1));
        world.engine.handle_datagram(world.now, local, from, &check(&user, Some(&pwd)), &mut world.wire);
    }
    assert!(world.engine.tables().2 <= 1 + MAX_HEARD + MAX_SENT, "{:?}", world.engine.tables());
    let (now, before) = (world.now, world.keyframes_wanted);
    world.viewers[0].ask_for_a_keyframe(now);
    world.run(Duration::from_millis(5));
    assert_eq!(world.keyframes_wanted, before + 1, "it is still heard");
}

#[test]
fn a_viewer_with_many_candidates_that_lead_nowhere_connects() {
    let mut world = World::new();
    world.join_with("10.0.0.2:6000", |offer| {
        let more: String =
            (1..=60).map(|i| format!("a=candidate:{i} 1 udp 2130706431 172.17.{i}.1 7000 typ host\r\n")).collect();
        offer.replacen("a=candidate:", &format!("{more}a=candidate:"), 1)
    });
    world.run_until_connected();
    world.send(true, 3);
    assert_eq!(world.viewers[0].packets.len(), 3);
}

#[test]
fn no_more_candidates_than_the_limit_are_checked() {
    let candidates =
        |net: u8| (1..=100).map(move |i| format!("candidate:{i} 1 udp 2130706431 172.17.{net}.{i} 7000 typ host"));
    let checked = |world: &mut World| {
        world.run(Duration::from_millis(500));
        std::mem::take(&mut world.peers).len()
    };
    for offered in [0, 40, 100] {
        let mut world = World::new();
        let id = world.join_with("10.0.0.2:6000", |offer| {
            let more: String = candidates(0).take(offered).map(|candidate| format!("a={candidate}\r\n")).collect();
            let own = |line: &&str| line.starts_with("a=candidate:");
            let without: String = offer.lines().filter(|line| !own(line)).flat_map(|line| [line, "\r\n"]).collect();
            without.replacen("a=end-of-candidates", &format!("{more}a=end-of-candidates"), 1)
        });
        world.viewers.clear();
        let more = Fragment { candidates: candidates(1).collect(), ..Fragment::default() };
        assert_eq!(world.engine.patch(world.now, &id, "*", &more).expect("ignored, no error"), None);
        assert_eq!(checked(&mut world), offer::MAX_CANDIDATES, "{offered} in the offer");
        // A restart begins anew, within the same limit.
        let restart = Fragment {
            ufrag: "again".to_owned(),
            pwd: "p".repeat(24),
            candidates: candidates(2).take(50).collect(),
            ..Fragment::default()
        };
        assert!(world.engine.patch(world.now, &id, "*", &restart).expect("a restart").is_some());
        assert_eq!(world.engine.patch(world.now, &id, "*", &more).expect("ignored, no error"), None);
        assert_eq!(checked(&mut world), offer::MAX_CANDIDATES, "{offered} in the offer");
    }
}

#[test]
fn an_ice_restart_finds_the_viewer_at_another_address_and_the_session_goes_on() {
    let mut world = World::new();
    let id = world.join("10.0.0.2:6000");
    world.run_until_connected();
    world.send(true, 3);
    // It has moved, and what is on its way to where it was is lost.
    let (now, keyframes) = (world.now, world.keyframes_wanted);
    world.viewers[0].moves("10.0.0.7:7000");
    world.send(false, 3);
    let before = world.viewers[0].packets.len();
    let late =
        Fragment { ufrag: world.engine.viewers[&id].remote_ufrag.clone(), pwd: "p".repeat(24), ..Fragment::default() };
    let fragment = Fragment::parse(&world.viewers[0].restart(now));
    assert!(matches!(world.engine.patch(now, &id, "\"old\"", &fragment), Err(CandidateError::NotCurrent)));
    let answer = world.engine.patch(now, &id, "*", &fragment).expect("a restart").expect("an answer");
    assert!(offer::answer_fragment(&answer).contains("a=candidate:"), "{answer}");
    assert!(matches!(world.engine.patch(now, &id, "*", &late), Err(CandidateError::NotCurrent)), "no restart");
    world.viewers[0].restarted(now, &answer);
    while world.keyframes_wanted == keyframes && world.now < now + Duration::from_secs(3) {
        world.run(Duration::from_millis(1));
    }
    println!("a path after {:?}", world.now - now);
    assert_eq!(world.keyframes_wanted, keyframes + 1, "what was lost meanwhile is mended");
    world.send(true, 4);
    let packets = &world.viewers[0].packets[before..];
    assert_eq!(packets.len(), 4, "over the encryption that was negotiated at the start");
    let now = world.now;
    assert_eq!(world.engine.stats(now)[0].1.address, "10.0.0.7:7000");
    assert_eq!((world.engine.tables().0, world.engine.tables().1), (1, 1), "viewers, names");
    // Another, and candidates for it.
    let tag = entity_tag(offer::value(&answer, "a=ice-ufrag:"));
    let more = Fragment { ufrag: fragment.ufrag.clone(), ..Fragment::default() };
    assert_eq!(world.engine.patch(now, &id, &tag, &more).expect("candidates"), None);
}

#[test]
fn an_ice_restart_without_a_password_or_with_a_bad_one_changes_nothing() {
    let mut world = World::new();
    let id = world.join("10.0.0.2:6000");
    world.run_until_connected();
    let now = world.now;
    let nameless = Fragment { ufrag: "other".to_owned(), ..Fragment::default() };
    assert!(matches!(world.engine.patch(now, &id, "*", &nameless), Err(CandidateError::NoPassword)));
    for (ufrag, pwd) in [("other", "x".repeat(21)), ("abc", "x".repeat(22)), ("other", "x y".repeat(10))] {
        let bad = Fragment { ufrag: ufrag.to_owned(), pwd, ..Fragment::default() };
        assert!(matches!(world.engine.patch(now, &id, "*", &bad), Err(CandidateError::NoPassword)), "{bad:?}");
    }
    world.send(true, 3);
    assert_eq!(world.viewers[0].packets.len(), 3, "the session goes on");
}

#[test]
fn one_viewer_more_than_the_limit_is_refused_while_the_others_watch() {
    let mut world = World::new();
    for i in 0..MAX_VIEWERS {
        world.join(&format!("10.0.1.{i}:6000"));
    }
    world.run_until_connected();
    let (_, offer) = Viewer::new(world.now, "10.0.2.1:6000");
    let refused = world.accept("more", &offer, [10, 0, 2, 1].into());
    assert!(matches!(refused, Err(AcceptError::Full(MAX_VIEWERS))), "{refused:?}");
    world.engine.rates(world.now, |_| None, |_, _| ());
    let pilot = (0..MAX_VIEWERS)
        .map(|i| format!("viewer-10.0.1.{i}:6000"))
        .find(|id| lock(&world.engine.pilots).is_present(id));
    let pilot = pilot.expect("the one that is connected longest");
    let address = world.engine.viewers[&pilot].address;
    // As after a restart of the pilot's program, which did not say goodbye.
    world.accept("again", &offer, address).expect("a place");
    assert_eq!(world.engine.tables().0, MAX_VIEWERS);
    assert!(world.engine.viewers.contains_key(&pilot), "a spectator gave way");
}

#[test]
fn a_pilot_who_starts_again_has_time_to_connect() {
    let mut world = World::new();
    world.join("10.0.0.2:6000");
    world.run_until_connected();
    world.engine.rates(world.now, |_| None, |_, _| ());
    for i in 1..MAX_VIEWERS {
        world.join(&format!("10.0.1.{i}:6000"));
    }
    world.run_until_connected();
    // Until it has reported.
    for _ in 0..30 {
        world.run(Duration::from_millis(100));
        world.send(true, 3);
    }
    // Its program is killed, and does not say goodbye.
    world.viewers.remove(0);
    world.send(true, 3);
    world.run(Duration::from_secs(4));
    // The others are heard, of which some may not have reported yet.
    let now = world.now;
    world.viewers.iter_mut().for_each(|viewer| viewer.ask_for_a_keyframe(now));
    world.run(Duration::from_millis(10));
    let (_, offer) = Viewer::new(world.now, "10.0.0.2:6001");
    world.accept("again", &offer, [10, 0, 0, 2].into()).expect("the place that it had");
    assert!(!world.engine.viewers.contains_key("viewer-10.0.0.2:6000"));
    let refused = world.accept("more", &offer, [10, 0, 2, 1].into());
    assert!(matches!(refused, Err(AcceptError::Full(MAX_VIEWERS))), "{refused:?}");
    assert!(world.engine.viewers.contains_key("again"));
}

/// 80 offers a second from one computer, that never connect.
#[test]
fn a_viewer_connects_among_offers_that_take_every_place() {
    let mut world = World::new();
    let (_, offer) = Viewer::new(world.now, "10.9.9.9:6000");
    let mut hostile = 0..;
    let mut flood = |world: &mut World| {
        let id = format!("hostile-{}", hostile.next().expect("a number"));
        let _ = world.accept(&id, &offer, [10, 9, 9, 9].into());
    };
    world.join("10.0.0.2:6000");
    world.run_until_connected();
    for _ in 0..100 {
        flood(&mut world);
        world.run(Duration::from_millis(12));
    }
    assert_eq!(world.engine.tables().0, MAX_VIEWERS);
    let id = world.join("10.0.0.3:6000");
    for _ in 0..100 {
        flood(&mut world);
        world.run(Duration::from_millis(12));
    }
    assert!(world.viewers.iter().all(|viewer| viewer.connected) && world.engine.viewers[&id].session.is_connected());
    world.send(true, 3);
    assert!(world.viewers.iter().all(|viewer| !viewer.packets.is_empty()));
}

#[test]
fn what_spectators_are_sent_at_other_addresses_bounds_no_pilot() {
    let (now, [here, there]) = (Instant::now(), [2, 3].map(|last| Some(IpAddr::from([10, 0, 0, last]))));
    let link = |address| ViewerLink { address, since: now, silent: false, estimate: 4e6, drain: None };
    let at = |address, stream, most| Bound { address, stream, most };
    let bounds = [at(here, 0, 3e6), at(here, 1, 1e6), at(there, 0, 2e6), at(None, 0, 2.5e6)];
    let rate_for = |named: Option<IpAddr>, mut links: Vec<ViewerLink>, pilot| {
        let pilot = bound(now, (&bounds, named), 0, &mut links, pilot)?;
        Some(links[pilot].estimate)
    };
    let rate = |links, pilot| rate_for(None, links, pilot);
    assert_eq!(rate(vec![link(here)], Some(0)), Some(3e6));
    assert_eq!(rate(vec![link(there), link(here)], Some(0)), Some(2e6));
    assert_eq!(rate(vec![link(Some(IpAddr::from([10, 0, 0, 4])))], Some(0)), Some(4e6));
    assert_eq!(rate(vec![], None), Some(2e6), "nobody watches by WebRTC");
    // The pilot who was named plays it by RTSP, while somebody else watches by WebRTC.
    assert_eq!(rate_for(there, vec![link(here)], Some(0)), Some(2e6));
    assert_eq!(rate_for(here, vec![link(there)], Some(0)), Some(2e6));
    let elsewhere = link(Some(IpAddr::from([10, 0, 0, 4])));
    assert_eq!(rate_for(here, vec![elsewhere], Some(0)), Some(3e6));
}
