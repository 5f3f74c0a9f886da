//! Plain RTP, to the programs that people have.

use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use gstreamer as gst;
use gstreamer::prelude::*;
use rov_common::stamp;
use rov_tests::process::{Process, binary, program};
use rov_tests::programs::Server;
use rov_tests::rtp::{Receiver, free_rtp_port};
use rov_tests::{http, process, vlc, wait};
use rov_tests::{namespace, skipped};

/// A server that sends to `hosts` at `port`, and its stream runs.
fn server(hosts: &str, port: u16, more: &[&str]) -> Server {
    let port = port.to_string();
    let mut args = vec!["--transport", "webrtc,rtp", "--rtp-host", hosts];
    args.extend_from_slice(&["--interface", "lo", "--rtp-port", &port]);
    args.extend_from_slice(more);
    let server = Server::start(&args);
    server.wait_until_running();
    server
}

fn milliseconds(mut seconds: Vec<f64>) -> String {
    seconds.sort_by(f64::total_cmp);
    let at = |share: f64| seconds[((seconds.len() - 1) as f64 * share) as usize] * 1000.0;
    format!("median {:.1} ms, 99 % {:.1} ms, most {:.1} ms", at(0.5), at(0.99), at(1.0))
}

#[test]
fn pictures_come_whole_and_in_order_with_a_keyframe_each_interval_and_reports_tell_their_age() {
    let mut receiver = Receiver::bind();
    let mut server = server("127.0.0.1,127.0.0.2", receiver.port, &["--rtp-keyframe-interval", "0.5"]);
    for (query, host) in [("", "127.0.0.1"), ("?host=127.0.0.1", "127.0.0.1"), ("?host=127.0.0.2", "127.0.0.2")] {
        let reply = http::get(&server.url(&format!("/stream.sdp{query}")));
        assert_eq!((reply.status, reply.header("content-type")), (200, "application/sdp"), "{reply:?}");
        assert!(reply.body.contains(&format!("\r\nc=IN IP4 {host}\r\n")), "{reply:?}");
    }
    let keyframes = |pictures: &[rov_tests::rtp::Picture]| pictures.iter().filter(|p| p.is_keyframe()).count();
    receiver.receive_until("seven keyframes and reports", wait::START, |seen| {
        keyframes(&seen.pictures) >= 7 && seen.reports.len() >= 3
    });
    assert_eq!(receiver.seen.gaps, 0);
    let stats = server.stats().rtp.expect("RTP is among the transports");
    assert_eq!(stats.destinations, ["127.0.0.1", "127.0.0.2"].map(|host| format!("{host}:{}", receiver.port)));
    assert!(stats.packets >= 2 * receiver.seen.packets as u64 && stats.bytes > 0, "to both: {stats:?}");
    assert_eq!(stats.errors, 0, "{stats:?}");

    assert_eq!(server.process.stop(libc::SIGTERM, Duration::from_secs(5)), 0);
    receiver.receive_until("the BYE", wait::SOON, |seen| seen.goodbye);
    let seen = &receiver.seen;
    for picture in seen.pictures.iter().filter(|picture| picture.is_keyframe()) {
        assert!(picture.nal_types.starts_with(&[7, 8]), "parameter sets with each keyframe: {picture:?}");
    }
    let times: Vec<u32> = seen.pictures.iter().filter(|p| p.is_keyframe()).map(|p| p.timestamp).collect();
    let spacings: Vec<_> = times.windows(2).map(|two| f64::from(two[1].wrapping_sub(two[0])) / 90_000.0).collect();
    let longest = spacings.iter().copied().fold(0.0, f64::max);
    println!("from keyframe to keyframe: {}", milliseconds(spacings));
    // A busy machine may leave out pictures; without requests there would be none at all.
    assert!(longest < 1.0, "{longest} s from keyframe to keyframe");

    // All reports are of one clock, and the last counts what came.
    let (first, last) = (seen.reports[0], *seen.reports.last().expect("reports"));
    let apart = first.captured_at(last.ticks) - last.at;
    assert!(apart.abs() < 0.1, "the clocks of two reports are {apart} s apart");
    assert_eq!((last.packets as usize, last.octets as usize), (seen.packets, seen.octets));
    let age = |picture: &rov_tests::rtp::Picture| picture.last_at - last.captured_at(picture.timestamp);
    let ages: Vec<_> = seen.pictures.iter().map(age).collect();
    assert!(ages.iter().all(|age| (-0.01..5.0).contains(age)), "{ages:?}");
    println!("from capture to the last packet: {}", milliseconds(ages));
    let taken = seen.pictures.iter().map(|picture| picture.last_at - picture.first_at).collect();
    println!("from the first packet to the last: {}", milliseconds(taken));
}

#[test]
fn ffmpeg_opens_the_description_and_decodes() {
    let server = server("127.0.0.1", free_rtp_port(), &[]);
    let mut command = Command::new(program("ffmpeg", "ffmpeg"));
    command.args(["-hide_banner", "-nostdin", "-loglevel", "error"]);
    command.args(["-protocol_whitelist", "file,http,rtp,udp,tcp", "-fflags", "nobuffer", "-flags", "low_delay"]);
    command.args(["-i", &server.url("/stream.sdp"), "-frames:v", "40", "-f", "framemd5", "-"]);
    let mut ffmpeg = Process::spawn("ffmpeg", &mut command);
    assert_eq!(ffmpeg.wait(wait::START), 0, "{}", ffmpeg.stderr());
    let pictures = ffmpeg.stdout().lines().filter(|line| !line.starts_with('#')).count();
    assert_eq!(pictures, 40, "{}", ffmpeg.stdout());
}

#[test]
fn gstreamer_decodes_every_picture_with_little_delay() {
    let port = free_rtp_port();
    let server = server("127.0.0.1", port, &[]);
    gst::init().expect("GStreamer");
    let text = format!(
        "udpsrc address=127.0.0.1 port={port} buffer-size=4194304 \
         caps=\"application/x-rtp,media=video,clock-rate=90000,encoding-name=H264,payload=96\" ! rtpjitterbuffer \
         name=buffer latency=0 ! rtph264depay ! avdec_h264 ! fakesink name=sink sync=false"
    );
    let pipeline = gst::parse::launch(&text).expect("the elements are installed");
    let pipeline = pipeline.downcast::<gst::Pipeline>().expect("a pipeline");
    let shots: Arc<Mutex<Vec<(u32, f64)>>> = Arc::default();
    let noted = Arc::clone(&shots);
    let pad = pipeline.by_name("sink").and_then(|sink| sink.static_pad("sink")).expect("a sink");
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        let map = info.buffer().expect("a buffer").map_readable().expect("memory");
        // Rows of 320 bytes: the luma comes first, without padding.
        let read = stamp::read_luma(&map[..320 * 240], 320, 320, 240).expect("the mark of the test picture");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock that is set");
        let age = now.as_secs_f64() - read.time_us as f64 / 1e6;
        noted.lock().expect("no panic").push((read.frame, age));
        gst::PadProbeReturn::Ok
    });
    pipeline.set_state(gst::State::Playing).expect("the pipeline starts");
    wait::until_true("a hundred pictures", wait::START, || shots.lock().expect("no panic").len() >= 100);
    let buffer = pipeline.by_name("buffer").expect("a jitter buffer").property::<gst::Structure>("stats");
    pipeline.set_state(gst::State::Null).expect("the pipeline stops");
    assert_eq!(buffer.get::<u64>("num-lost"), Ok(0), "{buffer}");
    let shots = shots.lock().expect("no panic");
    let (first, last) = (shots[0].0, shots[shots.len() - 1].0);
    let missing = (last - first) as usize + 1 - shots.len();
    assert!(shots.windows(2).all(|two| two[0].0 < two[1].0), "in order");
    // Those are counted a moment later.
    wait::until_true(&format!("{missing} pictures are those that the encoder left out"), wait::SOON, || {
        server.stats().streams[0].frames_dropped as usize >= missing
    });
    println!("from the mark to decoded: {}", milliseconds(shots.iter().map(|shot| shot.1).collect()));
}

#[test]
fn vlc_opens_the_description_and_shows_pictures() {
    let port = free_rtp_port();
    let server = server("127.0.0.1", port, &[]);
    // Debian's VLC has no live555, but ffmpeg's reader of descriptions; other builds have both.
    vlc::shows(&server.url("/stream.sdp"), &["--demux=avformat"]);
}

/// A network of its own, with two cards and no route for multicast. `eth1` is plugged in later, and `eth0` is pulled
/// out.
const CARDS: &str = r#"
plug() {
    ip link add $1 type veth peer name veth-$1
    ip addr add $2/24 dev $1
    ip link set $1 up
    ip link set veth-$1 up
}
watch() {
    timeout 20 gst-launch-1.0 -q udpsrc address=239.255.0.1 port=5004 multicast-iface=$1 \
        caps=application/x-rtp,media=video,clock-rate=90000,encoding-name=H264,payload=96 \
        ! rtpjitterbuffer latency=0 ! rtph264depay ! avdec_h264 ! fakesink num-buffers=20
}
fail() { echo "$1"; kill %1; wait; exit 9; }
ip link set lo up
plug eth0 10.1.0.1
"$SERVER" --source test --width 320 --height 240 --signal-port 8080 --no-discovery --transport rtp &
watch eth0 || fail "nothing by eth0"
plug eth1 10.2.0.1
watch eth1 || fail "nothing by eth1, which came later"
ip link del eth0
watch eth1 || fail "nothing by eth1 after eth0 had gone"
plug eth0 10.1.0.1
watch eth0 || fail "nothing by eth0, which came back"
# ffmpeg joins where the route says.
ip route add 224.0.0.0/4 dev eth1
timeout 20 ffmpeg -hide_banner -nostdin -loglevel error -protocol_whitelist file,http,rtp,udp,tcp \
    -i http://127.0.0.1:8080/stream.sdp -frames:v 20 -f null - || fail "ffmpeg does not open the description"
kill %1
wait %1
"#;

#[test]
fn multicast_leaves_by_every_network_card_also_by_one_that_is_plugged_in_later() {
    for (name, package) in
        [("ip", "iproute2"), ("gst-launch-1.0", "gstreamer1.0-tools"), ("ffmpeg", "ffmpeg"), ("timeout", "coreutils")]
    {
        process::program(name, package);
    }
    if !namespace::is_allowed("ip link add eth0 type veth peer name veth-eth0") {
        skipped("this system does not allow network namespaces, or has no virtual Ethernet (veth)");
        return;
    }
    let mut command = namespace::bash(CARDS);
    command.env("SERVER", binary("rov-server")).env_remove("RUST_LOG");
    let mut all = Process::spawn("server and receivers", &mut command);
    assert_eq!(all.wait(wait::START * 4), 0, "{}", all.stdout());
}

#[test]
fn without_rtp_or_a_picture_the_reason_is_said_in_place_of_a_description() {
    let server = Server::start(&[]);
    let reply = http::get(&server.url("/stream.sdp"));
    assert_eq!(reply.status, 404);
    assert!(reply.error().contains("--transport webrtc,rtp"), "{}", reply.error());

    // Nothing is ever written.
    let (reader, _writer) = std::io::pipe().expect("a pipe");
    let port = free_rtp_port().to_string();
    let args = ["--source", "stdin", "--transport", "rtp", "--rtp-host", "127.0.0.1", "--rtp-port", &port];
    let server = Server::start_with_input(&args, reader);
    let reply = http::get(&server.url("/stream.sdp"));
    assert_eq!(reply.status, 503);
    assert!(reply.error().contains("no keyframe yet"), "{}", reply.error());
    let reply = http::get(&server.url("/stream.sdp?host=10.0.0.9"));
    assert_eq!((reply.status, reply.error().contains("127.0.0.1")), (404, true), "{reply:?}");
    assert_eq!(server.stats().rtp.expect("RTP").packets, 0);
}
