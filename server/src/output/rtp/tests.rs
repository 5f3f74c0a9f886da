//! Over loopback, with a stream that the test makes.

use std::net::UdpSocket;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use rov_common::access_unit::AccessUnit;
use rov_common::capture_clock::{CaptureClock, Captured};
use rov_common::codec::Codec;
use tokio::sync::mpsc::Receiver;

use super::links::Port;
use super::*;
use crate::stream::Control;

const LOOPBACK: Ipv4Addr = Ipv4Addr::LOCALHOST;
/// Without SO_BROADCAST, the system refuses each packet to it.
const REFUSED: Ipv4Addr = Ipv4Addr::new(127, 255, 255, 255);
const SOON: Duration = Duration::from_secs(30);
const SPS: [u8; 5] = [0x67, 0x42, 0xc0, 0x1f, 0xd9];
const PPS: [u8; 3] = [0x68, 0xce, 0x3c];

/// The sockets of a receiver: RTP at an even port, RTCP at the one above, repair packets at the next.
struct Receiving {
    rtp: UdpSocket,
    rtcp: UdpSocket,
    repair: UdpSocket,
    port: u16,
}

impl Receiving {
    fn new() -> Self {
        loop {
            let rtp = UdpSocket::bind((LOOPBACK, 0)).unwrap();
            let port = rtp.local_addr().unwrap().port();
            if port.is_multiple_of(2)
                && port < 65_532
                && let Ok(rtcp) = UdpSocket::bind((LOOPBACK, port + 1))
                && let Ok(repair) = UdpSocket::bind((LOOPBACK, port + 2))
            {
                for socket in [&rtp, &rtcp, &repair] {
                    socket.set_read_timeout(Some(SOON)).unwrap();
                }
                return Self { rtp, rtcp, repair, port };
            }
        }
    }

    fn config(&self, hosts: &[Ipv4Addr]) -> RtpConfig {
        let keyframe_interval = Duration::from_secs(1);
        let (hosts, port) = (hosts.to_vec(), self.port);
        RtpConfig { hosts, port, ttl: 1, keyframe_interval, fec_percent: None }
    }
}

fn receive(socket: &UdpSocket) -> Vec<u8> {
    let mut buffer = [0; 2_000];
    let length = socket.recv(&mut buffer).expect("a packet in time");
    buffer[..length].to_vec()
}

fn word(packet: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(packet[at..at + 4].try_into().unwrap())
}

fn start(config: RtpConfig, interfaces: &[&str]) -> (Arc<Stream>, Receiver<Control>, RtpOutput) {
    let (stream, mut requests) = Stream::new("cam1", "stream1", Codec::H264, CaptureClock::start());
    let interfaces = interfaces.iter().map(|&name| name.to_owned()).collect();
    let output = RtpOutput::start(&stream, config, LOOPBACK.into(), interfaces).unwrap();
    assert_eq!(requests.try_recv(), Ok(Control::Wanted), "the encoder never rests");
    (stream, requests, output)
}

/// A slice of `bytes` bytes, as a keyframe with its parameter sets.
fn unit(keyframe: bool, pts_ms: u64, bytes: usize) -> AccessUnit {
    let slice = std::iter::once(if keyframe { 0x65 } else { 0x41 }).chain((1..bytes).map(|i| (i % 250 + 3) as u8));
    let sets: &[&[u8]] = if keyframe { &[&SPS, &PPS] } else { &[] };
    let mut data: Vec<u8> = sets.iter().flat_map(|nal| [&[0, 0, 0, 1], *nal].concat()).collect();
    data.extend([0, 0, 0, 1]);
    data.extend(slice);
    let captured_at = Instant::now();
    AccessUnit { data: Bytes::from(data), pts: Duration::from_millis(pts_ms), captured_at, keyframe }
}

#[test]
fn packets_come_in_order_and_reports_tell_when_a_picture_was_captured() {
    let receiving = Receiving::new();
    let (stream, _requests, output) = start(receiving.config(&[LOOPBACK]), &[]);
    let mut expected = None;
    for (n, bytes) in [60_000, 100, 5_000, 40_000].into_iter().enumerate() {
        // Captured two seconds ago, so that a wrong sign would show.
        let (age, now) = (Duration::from_secs(2), Instant::now());
        let captured_at = now.checked_sub(age).unwrap_or(now);
        let unit = AccessUnit { captured_at, ..unit(n == 0, n as u64 * 33, bytes) };
        let (data, wall_clock) = (unit.data.clone(), SystemTime::now() - (now - captured_at));
        stream.publish(unit, Instant::now());
        let mut payloads = Vec::new();
        let timestamp = loop {
            let packet = receive(&receiving.rtp);
            let sequence = u16::from_be_bytes([packet[2], packet[3]]);
            assert_eq!((packet[0], packet[1] & 0x7F), (0x80, Codec::H264.payload_type()));
            assert_eq!(sequence, expected.unwrap_or(sequence));
            expected = Some(sequence.wrapping_add(1));
            payloads.push(packet[12..].to_vec());
            if packet[1] & 0x80 != 0 {
                break word(&packet, 4);
            }
        };
        let whole = crate::packetize::packetize(
            Codec::H264,
            &AccessUnit { data, ..self::unit(false, 0, 2) },
            Duration::ZERO,
            Captured::default(),
        );
        // The stream rewrites the SPS, so that the first payload of a keyframe differs.
        assert_eq!(payloads.len(), whole.payloads.len());
        assert!(payloads.iter().zip(&whole.payloads).skip(usize::from(n == 0)).all(|(got, sent)| got == sent));
        if n == 0 {
            let report = receive(&receiving.rtcp);
            assert_eq!((report[1], word(&report, 20)), (200, payloads.len() as u32));
            // The report's moment less the ticks since the picture is the moment of the picture.
            let at = |upper: u32, lower: u32| f64::from(upper) - 2_208_988_800.0 + f64::from(lower) / 2f64.powi(32);
            let ticks = word(&report, 16).wrapping_sub(timestamp);
            let captured = at(word(&report, 8), word(&report, 12)) - f64::from(ticks) / 90_000.0;
            let late = captured - wall_clock.duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
            assert!(late.abs() < 0.5, "the picture was captured {late} s off");
        }
    }
    let stats = output.stats();
    assert_eq!((stats.skipped, stats.errors), (0, 0), "{stats:?}");
    assert_eq!(stats.destinations, [format!("127.0.0.1:{}", receiving.port)]);
}

#[test]
fn another_distance_of_time_and_capture_is_reported_before_the_first_picture_that_has_it() {
    let receiving = Receiving::new();
    let (stream, _requests, _output) = start(receiving.config(&[LOOPBACK]), &[]);
    let first = stream.clock().started() + Duration::from_secs(1);
    let publish = |pts, captured_at| stream.publish(AccessUnit { captured_at, ..unit(false, pts, 100) }, captured_at);
    publish(0, first);
    receive(&receiving.rtp);
    // Its capture, by the time of the first one, is 400 ms off.
    publish(500, first + Duration::from_millis(100));
    receive(&receiving.rtp);
    let distance = |report: &[u8]| {
        let ntp = f64::from(word(report, 8)) + f64::from(word(report, 12)) / 2f64.powi(32);
        f64::from(word(report, 16)) / 90_000.0 - ntp
    };
    let before = distance(&receive(&receiving.rtcp));
    let moved = std::iter::repeat_with(|| receive(&receiving.rtcp)).find(|report| distance(report) - before > 0.3);
    assert_eq!(moved.map(|report| word(&report, 20)), Some(1), "one packet was sent before");
}

#[test]
fn a_distance_that_goes_on_changing_is_not_reported_for_each_picture() {
    let receiving = Receiving::new();
    let (stream, _requests, _output) = start(receiving.config(&[LOOPBACK]), &[]);
    let (first, begun) = (stream.clock().started() + Duration::from_secs(1), Instant::now());
    for number in 0..40 {
        let captured_at = first + Duration::from_millis(number * 20);
        stream.publish(AccessUnit { captured_at, ..unit(false, number, 100) }, captured_at);
        receive(&receiving.rtp);
    }
    receiving.rtcp.set_nonblocking(true).unwrap();
    let mut buffer = [0; 1500];
    let reports = std::iter::from_fn(|| receiving.rtcp.recv(&mut buffer).ok()).count();
    // One each second beside them, and the first.
    let most = begun.elapsed().as_millis() / 100 + begun.elapsed().as_millis() / 1000 + 3;
    assert!(reports as u128 <= most, "{reports} in {:?}", begun.elapsed());
}

#[test]
fn a_keyframe_has_repair_packets_although_none_are_asked_for() {
    let receiving = Receiving::new();
    let (stream, _requests, _output) = start(receiving.config(&[LOOPBACK]), &[]);
    let mut base = None;
    // Nor where each frame is one.
    for (n, keyframe) in [true, false, false, true, true, true, false, true].into_iter().enumerate() {
        stream.publish(unit(keyframe, n as u64 * 33, 100), Instant::now());
        loop {
            let packet = receive(&receiving.rtp);
            base.get_or_insert(u16::from_be_bytes([packet[2], packet[3]]));
            if packet[1] & 0x80 != 0 {
                break;
            }
        }
    }
    // Frames of three packets and of one: the first of each that is covered.
    for expected in [0, 5, 15] {
        let repair = receive(&receiving.repair);
        let covered = u16::from_be_bytes([repair[24], repair[25]]);
        assert_eq!(base.map(|base| covered.wrapping_sub(base)), Some(expected));
    }
}

#[test]
fn repair_packets_say_when_they_are_sent() {
    let receiving = Receiving::new();
    let config = RtpConfig { fec_percent: Some(100), ..receiving.config(&[LOOPBACK]) };
    let (stream, _requests, _output) = start(config, &[]);
    let (age, now) = (Duration::from_secs(2), Instant::now());
    let unit = AccessUnit { captured_at: now.checked_sub(age).unwrap_or(now), ..unit(true, 0, 100) };
    let captured_at = unit.captured_at;
    stream.publish(unit, Instant::now());
    let timestamp = word(&receive(&receiving.rtp), 4);
    let repair = receive(&receiving.repair);
    let (late, most) = (word(&repair, 4).wrapping_sub(timestamp), captured_at.elapsed().as_secs_f64());
    let late = f64::from(late) / 90_000.0;
    assert!((now - captured_at).as_secs_f64() - 0.001 <= late && late <= most, "{late} s after the capture");
}

#[test]
fn the_end_is_said_at_once() {
    let took = || {
        let receiving = Receiving::new();
        let (stream, _requests, output) = start(receiving.config(&[LOOPBACK]), &[]);
        stream.publish(unit(true, 0, 100), Instant::now());
        let report = receive(&receiving.rtcp);
        let begun = Instant::now();
        output.shutdown();
        let took = begun.elapsed();
        let goodbye = receive(&receiving.rtcp);
        assert!(goodbye.len() > report.len() && goodbye.ends_with(&[&[0x81, 203, 0, 1], &report[4..8]].concat()));
        assert!(!output.has_died());
        took
    };
    // A thread that sleeps until its next report does so each time, and a busy machine is slow only sometimes.
    assert!((0..20).any(|_| took() < Duration::from_millis(800)));
}

#[test]
fn nothing_is_said_where_nothing_was_sent() {
    let receiving = Receiving::new();
    let (_stream, _requests, output) = start(receiving.config(&[LOOPBACK]), &[]);
    output.shutdown();
    receiving.rtcp.set_nonblocking(true).unwrap();
    assert!(receiving.rtcp.recv(&mut [0; 100]).is_err(), "RFC 3550 section 6.3.7");
}

#[test]
fn a_destination_that_is_refused_costs_the_others_nothing() {
    let receiving = Receiving::new();
    let group = Ipv4Addr::new(239, 255, 0, 1);
    // There is no such interface, so that the group gets nothing.
    let config = RtpConfig { keyframe_interval: SOON * 2, ..receiving.config(&[REFUSED, group, LOOPBACK]) };
    let (stream, mut requests, output) = start(config, &["none0"]);
    assert_eq!(output.main_host(), group);
    for n in 0..5 {
        stream.publish(unit(n == 0, n * 33, 50), Instant::now());
        while receive(&receiving.rtp)[1] & 0x80 == 0 {}
    }
    // The reports are over when the thread is.
    output.shutdown();
    let stats = output.stats();
    // Seven packets of media and a repair packet, and two reports at least.
    assert_eq!(stats.packets, 8, "{stats:?}");
    assert!(stats.errors >= 8 + 2, "{stats:?}");
    assert!(requests.try_recv().is_err(), "a keyframe helps nobody");
}

#[test]
fn a_keyframe_is_asked_for_when_the_last_one_is_old() {
    let receiving = Receiving::new();
    let (stream, mut requests, _output) = start(receiving.config(&[LOOPBACK]), &[]);
    let begun = Instant::now();
    stream.publish(unit(true, 0, 100), begun);
    for n in 1.. {
        stream.publish(unit(false, n * 10, 100), Instant::now());
        // In step with the output, which the queue would else overtake.
        receive(&receiving.rtp);
        if requests.try_recv().is_ok() {
            break;
        }
        assert!(begun.elapsed() < SOON, "no keyframe was asked for");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(begun.elapsed() > Duration::from_millis(700), "too early: {:?}", begun.elapsed());
}

#[test]
fn a_keyframe_is_wanted_after_a_part_and_after_an_outage_but_not_within_one() {
    let receiving = Receiving::new();
    let config = receiving.config(&[LOOPBACK]);
    let mut links = Links::new(&config, LOOPBACK.into(), Vec::new(), Arc::default());
    // Too long for a datagram.
    let (good, refused) = ([0; 100], vec![0; 70_000]);
    let mut sent = |packets: &[&[u8]]| {
        packets.iter().for_each(|packet| links.send(Port::Media, packet));
        links.access_unit_sent()
    };
    assert!(!sent(&[&good, &good]));
    assert!(sent(&[&good, &refused]), "a part");
    assert!(!sent(&[&refused, &refused]), "an outage");
    assert!(sent(&[&good, &good]), "its end");
    assert!(!sent(&[&good]));
}

#[test]
fn the_announcement_names_the_destination_of_the_first_stream() {
    let [first, second] = [Receiving::new(), Receiving::new()];
    let (_stream, _requests, first) = start(first.config(&[LOOPBACK]), &[]);
    let (_stream, _requests, second) = start(second.config(&[LOOPBACK]), &[]);
    let mut announcement = Announcement {
        v: 1,
        id: "a".to_owned(),
        key: None,
        tls: None,
        run: None,
        name: String::new(),
        version: String::new(),
        signal_port: 80,
        whep: "/whep".to_owned(),
        transports: Vec::new(),
        rtp: None,
        rtsp: None,
        streams: Vec::new(),
    };
    first.announce(&mut announcement);
    second.announce(&mut announcement);
    assert_eq!(announcement.transports, ["rtp"]);
    assert_eq!(announcement.rtp.map(|rtp| rtp.port), Some(first.config().port));
}
