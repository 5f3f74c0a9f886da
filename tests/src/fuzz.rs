//! Everything of ours that reads bytes of others, as functions of one input each. `fuzz/` gives them inputs without
//! end; `tests/tests/fuzz.rs` gives them the captures and the findings that are kept there, so that each run of the
//! tests does.
//!
//! A target panics where what it tests does, and where that breaks a promise. What it tests is bounded in time and
//! memory: the fuzzer sees to that.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rov_client::decode::rtp::Part;
use rov_client::receive::packet::Packet;
use rov_client::receive::rtp::senders::{Origin, Senders};
use rov_client::receive::rtsp::parameter_sets::ParameterSets;
use rov_client::receive::webrtc::answered_codec;
use rov_common::access_unit::AccessUnit;
use rov_common::api::SessionDescription;
use rov_common::capture_clock::Captured;
use rov_common::codec::jpeg::{self, with_huffman_tables};
use rov_common::codec::{self, Codec, NalKind, ParameterSetCache, SpsInfo};
use rov_common::discovery::{self, MAX_DATAGRAM, Message};
use rov_common::fec;
use rov_common::marker;
use rov_common::rtp::Header;
use rov_common::units::Bitrate;
use rov_server::config::{Config, FieldConfig};
use rov_server::config_file;
use rov_server::onvif::auth::Token;
use rov_server::onvif::discovery::{About, answer as discovery_of_onvif};
use rov_server::onvif::soap::{self, Envelope};
use rov_server::onvif::{Fault, name_of as onvif_name};
use rov_server::output::pilots::Pilots;
use rov_server::output::webrtc::engine::{Asked, Engine, Reach, Transmit};
use rov_server::output::webrtc::offer::{self, Fragment, Offer};
use rov_server::packetize::{self, MAX_PAYLOAD};
use rov_server::pipeline::jpeg::entropy::{Entropy, ends_of_intervals, scan_has_zeros};
use rov_server::pipeline::playable;
use rov_server::rate_control::Pilot;
use rov_server::telemetry::{self, Board};
use rtc::sctp::PayloadProtocolIdentifier;

use crate::sctp::{self, Peer};

/// A target by its name, which is that of its folder in `fuzz/corpus` as well.
pub type Target = (&'static str, fn(&[u8]));

pub const TARGETS: &[Target] = &[
    ("annexb", annexb),
    ("config", config),
    ("discovery", discovery),
    ("fec", fec),
    ("jpeg", jpeg),
    ("mjpeg", mjpeg),
    ("offer", offer),
    ("onvif", onvif),
    ("packetize", packetize),
    ("rtp", rtp),
    ("sctp", sctp),
    ("session", session),
    ("sps", sps),
    ("telemetry", telemetry),
];

const CODECS: [Codec; 2] = [Codec::H264, Codec::H265];
const SERVER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 5000);
const VIEWER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 5001);

/// Several messages in one input: a byte that says what each is, its length in 16 bits, and itself. The last may be cut
/// off.
pub fn messages(input: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    let mut rest = input;
    std::iter::from_fn(move || {
        let [kind, high, low, behind @ ..] = rest else { return None };
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(behind.len());
        let (message, behind) = behind.split_at(length);
        rest = behind;
        Some((*kind, message))
    })
}

/// A datagram at the discovery port, as server and client read it.
pub fn discovery(datagram: &[u8]) {
    let Ok(message) = discovery::decode(datagram) else { return };
    let encoded = discovery::encode(&message);
    assert!(encoded.len() <= MAX_DATAGRAM, "{} bytes", encoded.len());
    match (discovery::decode(&encoded).expect("what was read can be written"), message) {
        (Message::Query(again), Message::Query(query)) => assert_eq!(again, query),
        (Message::Announce(again), Message::Announce(mut announcement)) => {
            let printed = [&announcement.id, &announcement.name, &announcement.version, &announcement.whep];
            assert!(!printed.iter().any(|text| text.contains(char::is_control)), "{announcement:?}");
            // As many streams as fit.
            assert!(again.streams.len() <= announcement.streams.len());
            announcement.streams.truncate(again.streams.len());
            assert_eq!(again, announcement);
            assert!(discovery::Query::default().matches(&again));
        }
        (again, message) => panic!("{message:?} became {again:?}"),
    }
}

/// What comes by HTTP: an offer in both forms, a fragment with candidates; and what the client reads of an answer.
pub fn offer(body: &[u8]) {
    let _ = serde_json::from_slice::<SessionDescription>(body);
    let Ok(text) = std::str::from_utf8(body) else { return };
    answered_codec(text);
    let fragment = Fragment::parse(text);
    assert!(fragment.candidates.iter().all(|candidate| candidate.starts_with("candidate:")));
    let restarted = offer::restarted(text, &fragment);
    assert_eq!(offer::restarted(&restarted, &fragment), restarted);
    offer::answer_fragment(text);
    let placed = offer::place_candidates(text);
    assert_eq!(offer::place_candidates(&placed), placed);
    for codec in CODECS {
        for profile in [None, Some((0x42, 0xc0)), Some((0x64, 0))] {
            let Ok(parsed) = offer::parse(text, codec, profile) else { continue };
            assert_eq!(parsed.codec.codec, codec);
            assert_eq!(parsed.sdp.lines().filter(|line| *line == "a=recvonly").count(), 1, "{}", parsed.sdp);
            // For the core the format is completed; the viewer gets its own back.
            let mut again = offer::parse(&parsed.sdp, codec, profile).expect("what is taken once");
            again.codec.fmtp.clone_from(&parsed.codec.fmtp);
            // Sections that the core does not know are not in it any more.
            assert!(!parsed.sdp.contains("\nm=application"), "{}", parsed.sdp);
            let with_data = offer::parse(text, codec, profile).expect("an offer").with_data();
            assert_eq!(with_data.sdp.contains("\nm=application"), with_data.takes_data(), "{}", with_data.sdp);
            offer::parse(&with_data.sdp, codec, profile).expect("what is taken once");
            let known = |offer: &Offer| (offer.sdp.clone(), offer.candidates, offer.codec.clone(), offer.ufrag.clone());
            assert_eq!(known(&again), known(&parsed));
        }
    }
}

/// A picture of a camera.
pub fn jpeg(picture: &[u8]) {
    let mut entropy = Entropy::default();
    let whole = entropy.is_whole(picture);
    // With the tables that it declares.
    assert!(!whole || entropy.is_whole(picture));
    assert!(!whole || entropy.is_whole(&[picture, &[0xff, 0, 0xd9]].concat()), "what is behind the end");
    let _ = scan_has_zeros(picture);
    assert!(ends_of_intervals(picture).take(1_000).all(|(x, y)| x < 1 << 16 && y < 1 << 16));
}

/// A JPEG picture, as its stream is sent.
pub fn mjpeg(picture: &[u8]) {
    let usual = with_huffman_tables(Bytes::copy_from_slice(picture));
    assert_eq!(with_huffman_tables(usual.clone()), usual);
    let Ok(parsed) = jpeg::parse(picture) else { return };
    assert_eq!(jpeg::size(picture), Some(parsed.size));
    let again = jpeg::parse(&usual).expect("with the tables it is the same picture");
    assert_eq!(usual[again.scan], picture[parsed.scan.clone()]);
    let Ok(payloads) = packetize::jpeg::payloads(picture) else { return };
    assert!(payloads.iter().all(|payload| payload.len() <= MAX_PAYLOAD));
    let begins = payloads.iter().map(|payload| jpeg::begins_picture(payload));
    assert!(begins.enumerate().all(|(at, begins)| begins == (at == 0)));
    let header = if parsed.restart_interval > 0 { 12 } else { 8 };
    let tables = |at: usize| if at == 0 { 4 + 128 } else { 0 };
    let back: Vec<u8> =
        (0..).zip(&payloads).flat_map(|(at, payload)| payload[header + tables(at)..].to_vec()).collect();
    assert_eq!(back, picture[parsed.scan]);
}

/// A SOAP message by HTTP, or a datagram of WS-Discovery.
pub fn onvif(message: &[u8]) {
    let about = About { id: "1".to_owned(), name: "rov".to_owned(), scheme: "http", port: 80 };
    let answer = discovery_of_onvif(message, &about, Ipv4Addr::LOCALHOST, (0, 1));
    let Ok(envelope) = Envelope::parse(message) else { return assert_eq!(answer, None) };
    let _ = Token::of(&envelope.header);
    if let Some(answer) = answer {
        assert!(answer.len() < 4096, "{} bytes for {}", answer.len(), message.len());
        Envelope::parse(answer.as_bytes()).expect("what is answered can be read");
    }
    let name = onvif_name(&envelope.body);
    let fault = Fault::not_supported(&name).text(envelope.version);
    Envelope::parse(soap::envelope(envelope.version, "", &fault).as_bytes()).expect("a fault that can be read");
}

/// Sends nothing anywhere.
struct Nowhere;

impl Transmit for Nowhere {
    fn transmit(&mut self, _local: IpAddr, _peer: SocketAddr, _run: &[u8], _segment: usize) -> bool {
        true
    }
}

/// A viewer that says what it likes: the first message is its offer (empty: Chromium's), then come fragments and
/// datagrams. What panics here would end the server.
pub fn session(input: &[u8]) {
    const CHROMIUM: &str = include_str!("../../fuzz/corpus/offer/chromium.sdp");
    let (now, pilots) = (Instant::now(), Pilots::shared(Pilot::First));
    let mut engine = Engine::new([("stream1", Codec::H264, Some(Bitrate::from_kbps(300)))], 1, pilots);
    // Data channels are taken, which costs more.
    engine = engine.with_values(Some(Arc::default()));
    let mut messages = messages(input);
    let offer = messages.next().map_or(&[][..], |(_, offer)| offer);
    let offer = if offer.is_empty() { CHROMIUM.into() } else { String::from_utf8_lossy(offer) };
    let reach = Reach { local: vec![SERVER], ..Reach::default() };
    if engine.accept(now, "viewer", &offer, VIEWER.ip(), Asked::default(), &reach, &mut Nowhere).is_err() {
        return;
    }
    // What comes from there belongs to the viewer as soon as it was sent to.
    let candidate = format!("candidate:1 1 udp 1 {} {} typ host", VIEWER.ip(), VIEWER.port());
    let _ = engine.patch(now, "viewer", "*", &Fragment { candidates: vec![candidate], ..Fragment::default() });
    engine.handle_timeouts(now, &mut Nowhere);
    for (i, (kind, message)) in messages.take(16).enumerate() {
        let now = now + Duration::from_millis(20 * i as u64);
        if kind % 2 == 0 {
            let _ = engine.patch(now, "viewer", "*", &Fragment::parse(&String::from_utf8_lossy(message)));
        } else {
            engine.handle_datagram(now, SERVER, VIEWER, message, &mut Nowhere);
        }
        engine.handle_timeouts(now, &mut Nowhere);
    }
    engine.stats(now);
    engine.close_all(&mut Nowhere);
}

/// What a viewer sends by its data channel, of which DTLS has taken its own off. Kinds of messages: 0 chunks, whose
/// packet is made for them; 1 a packet; 2 milliseconds pass; 3 something is sent to it; 4 it acknowledges that, with
/// blocks of 16 bits behind the first byte.
pub fn sctp(input: &[u8]) {
    let first = input.first_chunk().copied().unwrap_or_default();
    let mut peer = Peer::connected(u32::from_be_bytes(first));
    peer.association.open_stream(0, PayloadProtocolIdentifier::String).expect("a stream");
    for (kind, message) in messages(input.get(4..).unwrap_or_default()) {
        match kind % 5 {
            0 => peer.give(&[message.to_vec()]),
            1 => peer.give_bytes(Bytes::copy_from_slice(message)),
            2 => peer.passes(Duration::from_millis(message.iter().map(|byte| u64::from(*byte)).sum())),
            4 => {
                let (count, blocks) = message.split_first().unwrap_or((&0, &[]));
                let number = |at: usize| blocks.get(at..at + 2).map(|two| u16::from_be_bytes([two[0], two[1]]));
                let blocks = (0..).step_by(4).map_while(|at| Some((number(at)?, number(at + 2)?)));
                let acknowledged = peer.first_sent.wrapping_add(u32::from(*count)).wrapping_sub(1);
                peer.give(&[sctp::sack(acknowledged, &blocks.collect::<Vec<_>>())]);
            }
            _ => {
                // The server has no more than one on its way.
                if let Ok(mut stream) = peer.association.stream(0)
                    && stream.buffered_amount() == Ok(0)
                {
                    let _ = stream.write_chunk(peer.now, &Bytes::copy_from_slice(message));
                }
            }
        }
        let packets = peer.take().len();
        assert!(packets <= 100, "{packets} packets for one");
        let streams = peer.association.stream_ids().len();
        assert!(streams <= 17, "{streams} streams");
    }
}

/// An access unit of either codec, of a camera, a file or standard input.
pub fn annexb(data: &[u8]) {
    let unit = Bytes::copy_from_slice(data);
    for codec in CODECS {
        let nals: Vec<&[u8]> = codec::nal_units(&unit).collect();
        assert!(nals.iter().all(|nal| !nal.is_empty() && nal.last() != Some(&0)), "{nals:x?}");
        for nal in &nals {
            codec::slice_type(nal);
        }
        playable::problem(codec, &unit);
        let mut cache = ParameterSetCache::new(codec);
        let changed = cache.update(&unit);
        assert!(!cache.update(&unit) || changed, "the second look finds nothing that the first did not");
        // Its second half, and each NAL unit alone, as access units that came without parameter sets.
        let alone = nals.iter().map(|nal| Bytes::from([&codec::START_CODE, *nal].concat()));
        for part in alone.chain([unit.slice(unit.len() / 2..)]) {
            let completed = codec::with_parameter_sets(part.clone(), &cache);
            assert_eq!(codec::is_keyframe(codec, &completed), codec::is_keyframe(codec, &part));
            if completed == part {
                continue;
            }
            let found: Vec<&[u8]> = codec::nal_units(&completed).collect();
            let sets = cache.sets();
            assert!(sets.pps.iter().chain([&sets.sps]).all(|set| found.contains(&&set[..])), "{found:x?}");
            assert!(codec::nal_units(&part).all(|nal| found.contains(&nal)));
        }
    }
    let rewritten = codec::rewrite_access_unit(unit.clone());
    let before: Vec<&[u8]> = codec::nal_units(&unit).collect();
    let after: Vec<&[u8]> = codec::nal_units(&rewritten).collect();
    assert_eq!(before.len(), after.len());
    for (before, after) in before.iter().zip(&after) {
        assert!(before == after || Codec::H264.nal_kind(before) == NalKind::Sps, "{before:x?} became {after:x?}");
    }
    assert_eq!(codec::rewrite_access_unit(rewritten.clone()), rewritten);
}

/// A sequence parameter set of either codec.
pub fn sps(nal: &[u8]) {
    let _ = codec::parse_h265_sps(nal);
    let Ok(info) = codec::parse_sps(nal) else { return };
    let Ok(rewritten) = codec::rewrite_sps_zero_reorder(nal) else { return };
    let expected = SpsInfo {
        max_num_reorder_frames: Some(0),
        max_dec_frame_buffering: Some(info.max_num_ref_frames),
        ..info.clone()
    };
    assert_eq!(codec::parse_sps(&rewritten), Ok(expected));
    assert_eq!(codec::rewrite_sps_zero_reorder(&rewritten), Ok(rewritten));
}

/// RTP and RTCP packets on their way through the client, and the parameter sets of an SDP. Kinds of messages: 0 RTP, 1
/// a parameter set, 2 RTCP.
pub fn rtp(input: &[u8]) {
    let now = Instant::now();
    let sets: Vec<Vec<u8>> = messages(input).filter(|(kind, _)| *kind == 1).map(|(_, nal)| nal.to_vec()).collect();
    for codec in CODECS {
        let (mut inserter, mut senders) = (ParameterSets::new(codec, &sets), Senders::new(None, None));
        let mut inserted = 0_u16;
        for (kind, packet) in messages(input) {
            if kind == 2 {
                senders.control(VIEWER.ip(), packet, now);
                continue;
            }
            let data = Bytes::copy_from_slice(packet);
            let Some(read) = Packet::read(&data) else { continue };
            let header = read.header;
            assert_eq!(Header::parse(packet), Some(header));
            let plain = [&header.bytes(), &read.payload[..]].concat();
            assert_eq!(Packet::read(&plain.into()), Some(read.clone()));
            let _ = (Part::of(codec, &read), marker::Packet::of(codec, &header, &read.payload));
            senders.packet(Origin { address: VIEWER, ssrc: header.ssrc, payload_type: header.payload_type }, now);
            let mut out = Vec::new();
            inserter.pass(read.clone(), |packet| out.push(packet));
            inserted = inserted.wrapping_add(out.len() as u16 - 1);
            assert!(matches!(out.len(), 1 | 2));
            let renumbered = Header { sequence: header.sequence.wrapping_add(inserted), ..header };
            assert_eq!(out.last(), Some(&Packet { header: renumbered, ..read }));
            if let [first, second] = &out[..] {
                let (first, second) = (first.header, second.header);
                assert_eq!(first.sequence.wrapping_add(1), second.sequence);
                assert_eq!((first.timestamp, first.ssrc), (second.timestamp, second.ssrc));
            }
        }
    }
}

/// Repair packets. The first byte is even: source packets (kind 0) and repair packets (others), all of them foreign.
/// Odd: sound packets are made, some of them are lost, and what comes back must be what was sent.
pub fn fec(input: &[u8]) {
    let Some((first, rest)) = input.split_first() else { return };
    let mut decoder = fec::Decoder::default();
    if first % 2 == 0 {
        for (kind, packet) in messages(rest) {
            let packet = Bytes::copy_from_slice(packet);
            let rebuilt = if kind == 0 { decoder.source(&packet) } else { decoder.repair(&packet) };
            assert!(rebuilt.iter().all(|packet| packet.len() >= 12 && packet[0] >> 6 == 2));
        }
        return;
    }
    let [percent, high, low, rest @ ..] = rest else { return };
    let start = u16::from_be_bytes([*high, *low]);
    // The kind says whether the packet arrives. Not more packets than the decoder remembers, which is 1,024.
    let sent: Vec<(bool, Bytes)> = messages(rest)
        .take(1000)
        .enumerate()
        .map(|(i, (kind, payload))| {
            let [high, low] = start.wrapping_add(i as u16).to_be_bytes();
            let header = [0x80, 96 | (kind & 0x80), high, low, 0, 0, 0, 9, 0, 0, 0, 7];
            (kind & 1 == 0, [&header[..], payload].concat().into())
        })
        .collect();
    let packets: Vec<&Bytes> = sent.iter().map(|(_, packet)| packet).collect();
    let mut encoder = fec::Encoder::new(*percent, 8, 0);
    let repairs = encoder.protect(&packets, 9);
    assert_eq!(repairs.len(), encoder.repairs(packets.len()));
    let arrived = sent.iter().filter(|(arrives, _)| *arrives).map(|(_, packet)| packet);
    let mut rebuilt: Vec<Bytes> = arrived.flat_map(|packet| decoder.source(packet)).collect();
    rebuilt.extend(repairs.iter().flat_map(|repair| decoder.repair(repair)));
    for packet in &rebuilt {
        assert!(sent.iter().any(|(arrives, known)| !arrives && known == packet), "{packet:x?}");
    }
    let missing = sent.iter().filter(|(arrives, _)| !arrives).count();
    // Alone, and with another packet to know the stream by.
    if missing == 1 && sent.len() > 1 && sent.len() <= 250 {
        assert_eq!(rebuilt.len(), 1);
    }
}

/// An access unit into RTP payloads, and back as RFC 6184 and RFC 7798 say.
pub fn packetize(data: &[u8]) {
    // Long NAL units are what is split, and a fuzzer makes short ones.
    let long: Vec<u8> =
        codec::nal_units(data).flat_map(|nal| [&codec::START_CODE, nal, &nal.repeat(64)].concat()).collect();
    for (codec, data) in CODECS.into_iter().flat_map(|codec| [(codec, data.to_vec()), (codec, long.clone())]) {
        let unit = AccessUnit {
            data: data.into(),
            pts: Duration::from_millis(40),
            captured_at: Instant::now(),
            keyframe: false,
        };
        let frame = packetize::packetize(codec, &unit, unit.pts, Captured::default());
        let mut back: Vec<Vec<u8>> = Vec::new();
        for payload in &frame.payloads {
            assert!((codec.nal_header_len()..=MAX_PAYLOAD).contains(&payload.len()));
            put_back(codec, payload, &mut back);
        }
        let is_sent = |nal: &&[u8]| {
            let of_rtp = match codec {
                Codec::H264 => matches!(codec.nal_type(nal), 0 | 24..),
                Codec::H265 => codec.nal_type(nal) >= 48,
                Codec::Mjpeg => true,
            };
            codec.nal_kind(nal) != NalKind::Delimiter && nal.len() >= codec.nal_header_len() && !of_rtp
        };
        let sent: Vec<&[u8]> = codec::nal_units(&unit.data).filter(is_sent).collect();
        assert_eq!(back, sent);
    }
}

/// What a receiver does with one payload.
fn put_back(codec: Codec, payload: &[u8], nals: &mut Vec<Vec<u8>>) {
    let at = codec.nal_header_len();
    if codec.nal_type(payload) != if codec == Codec::H264 { 28 } else { 49 } {
        nals.push(payload.to_vec());
        return;
    }
    if payload[at] & 0x80 != 0 {
        nals.push(match codec {
            Codec::H264 => vec![(payload[0] & 0xe0) | (payload[1] & 0x1f)],
            Codec::H265 => vec![(payload[0] & 0x81) | (payload[2] & 0x3f) << 1, payload[1]],
            Codec::Mjpeg => Vec::new(),
        });
    }
    nals.last_mut().expect("a fragment follows its start").extend_from_slice(&payload[at + 1..]);
}

/// A datagram of telemetry, as JSON and as MAVLink.
pub fn telemetry(datagram: &[u8]) {
    let board = Board::new(FieldConfig::usual());
    telemetry::take(datagram, &board);
    for (name, value) in board.values(Instant::now()) {
        assert!(board.fields().iter().any(|field| field.name == name));
        assert!(value.value.is_none_or(f64::is_finite) && value.text.chars().count() < 32, "{value:?}");
    }
}

/// The configuration file of the server.
pub fn config(text: &[u8]) {
    let Ok(text) = std::str::from_utf8(text) else { return };
    let lines = text.lines().count().max(1);
    match config_file::parse(text) {
        Ok(options) => {
            let _ = Config::new(&options).map(|config| config.summary());
        }
        Err(mistake) => assert!((1..=lines + 1).contains(&mistake.line) && !mistake.message.is_empty(), "{mistake:?}"),
    }
}
