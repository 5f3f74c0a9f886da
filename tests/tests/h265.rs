//! `--codec h265`: encoded by x265, sent by WebRTC to rov-client, and refused in plain words to whoever cannot decode
//! it.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rov_common::units::Resolution;
use rov_tests::browser::{Browser, PAGE};
use rov_tests::http;
use rov_tests::process::program;
use rov_tests::programs::{Client, Server, server_process};
use rov_tests::proxy::Proxy;
use rov_tests::relay::Network;
use rov_tests::wait::{self, until, until_true};
use rov_tests::watcher::{Order, Watcher, until_counted};
use tokio::runtime::Runtime;

/// An offer to receive video by the codec of this `a=rtpmap` and `a=fmtp`.
fn offer(codec: &str) -> String {
    format!(
        "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\n\
         m=video 9 UDP/TLS/RTP/SAVPF 108\r\nc=IN IP4 \
         0.0.0.0\r\na=recvonly\r\na=mid:0\r\na=rtcp-mux\r\na=setup:actpass\r\n\
         a=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\n\
         a=fingerprint:sha-256 \
         00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF:00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF\r\n\
         {codec}"
    )
}

const H264: &str = "a=rtpmap:108 H264/90000\r\na=fmtp:108 packetization-mode=1;profile-level-id=42e01f\r\n";
const H265: &str = "a=rtpmap:108 H265/90000\r\na=fmtp:108 level-id=93;profile-id=1;tier-flag=0;tx-mode=SRST\r\n";

#[test]
fn every_picture_of_h265_arrives_once_and_in_order() {
    // With less, the rate control leaves so few bits for pictures behind a keyframe that marks cannot be read.
    let size = ["--width", "640", "--height", "360", "--bitrate", "8000"];
    let server = Server::start(&[&["--codec", "h265"][..], &size].concat());
    server.wait_until_running();
    let runtime = Runtime::new().expect("a runtime");
    let watcher = Watcher::start(&runtime, &["--url", &server.url("/whep")]);
    watcher.wait_for_shots(1);
    let keyframes = server.stats().streams[0].keyframes;
    watcher.wait_for_shots(91);
    let (shots, report, stats) = (watcher.shots(), watcher.report(), server.stats());
    let order = Order::of(&shots);
    let mut latencies: Vec<_> = shots.iter().filter_map(|shot| shot.latency).collect();
    latencies.sort();
    println!(
        "{order:?}, from mark to shown: median {:?}, longest {:?}",
        latencies[latencies.len() / 2],
        latencies.last()
    );
    // Where the machine is so busy that the encoder is started again, the numbers are, too.
    assert!(order.read == shots.len() && order.out_of_order as u64 <= stats.streams[0].restarts, "{order:?} {stats:?}");
    // On a machine that is busy with other things pictures come late, and are skipped up to a keyframe that is asked
    // for.
    let skipped = stats.viewers[0].skipped;
    until_counted(order.missing.saturating_sub(skipped), &report, || server.stats());
    assert_eq!((report.packets_lost, report.sessions), (0, 1), "{report:?}");
    assert_eq!(shots[90].resolution, Resolution::new(640, 360));
    let stream = &stats.streams[0];
    assert_eq!((stream.codec.as_str(), stream.encoder.as_str()), ("h265", "x265enc"), "{stream:?}");
    assert!(
        stream.keyframes <= keyframes + report.keyframe_requests + stream.restarts,
        "no keyframe without need: {stream:?} {report:?}"
    );

    // A second viewer gets one of its own, and the first loses nothing.
    let second = Watcher::start(&runtime, &["--url", &server.url("/whep")]);
    second.wait_for_shots(10);
    assert!(server.stats().streams[0].keyframes > keyframes);
    assert_eq!(watcher.report().packets_lost, 0);
    second.stop(&runtime);
    watcher.stop(&runtime);
}

#[test]
fn rov_client_shows_h265_by_webrtc() {
    let server = Server::start(&["--codec", "h265"]);
    let mut client = Client::start(&["--url", &server.url("/whep")]);
    let report = client.wait_for_frames(0, 30);
    assert_eq!((report.width, report.height, report.packets_lost), (320, 240, 0), "{report:?}");
    assert!(report.decoder.contains("265"), "{report:?}");
}

#[test]
fn after_an_outage_pictures_go_on_at_a_keyframe_that_is_asked_for() {
    let server = Server::start(&["--codec", "h265"]);
    let runtime = Runtime::new().expect("a runtime");
    let network = Network::new(Duration::from_millis(2), 1);
    let proxy = Proxy::start(&runtime, server.address, "", Some(network.clone()));
    let watcher = Watcher::start(&runtime, &["--url", &proxy.url("/whep"), "--latency", "30"]);
    watcher.wait_for_shots(10);
    let before = server.stats().streams.remove(0);
    let outage = Instant::now();
    network.set_loss(1.0);
    // For more than a second, so that what is sent again after it is too late to be shown; and not for so many
    // pictures, which on a busy machine take so long that the session ends.
    until_true("an outage", wait::SOON, || outage.elapsed() > Duration::from_millis(1_200));
    network.set_loss(0.0);
    let from = watcher.shown();
    watcher.wait_for_shots(from + 30);
    until_true("a keyframe that was asked for", wait::SOON, || server.stats().streams[0].keyframes > before.keyframes);
    watcher.wait_for_shots(watcher.shown() + 10);
    let (order, report) = (Order::of(&watcher.shots()), watcher.report());
    assert!(order.missing > 0 && report.keyframe_requests > 0, "{order:?} {report:?}");
    // Where the machine is so busy that the encoder is started again, the numbers are, too.
    let restarts = server.stats().streams[0].restarts;
    assert!(order.out_of_order as u64 <= restarts, "{order:?}, {restarts} restarts: {report:?}");
    watcher.stop(&runtime);
}

#[test]
fn a_viewer_that_offers_another_codec_is_refused_with_the_reason_and_the_way_out() {
    for (stream, offered, refused) in [("h265", H265, H264), ("h264", H264, H265)] {
        let server = Server::start(&["--codec", stream]);
        let post =
            |codec: &str| http::request("POST", &server.url("/whep"), Some("application/sdp"), offer(codec).as_bytes());
        let reply = post(refused);
        assert_eq!(reply.status, 422, "{reply:?}");
        let reason = reply.error();
        let (this, other) = if stream == "h265" { ("H.265", "h264") } else { ("H.264", "h265") };
        assert!(reason.starts_with(&format!("this stream is {this}, which the viewer did not offer")), "{reason}");
        assert!(reason.contains("watch by RTSP (rtsp://127.0.0.1:"), "{reason}");
        assert!(reason.ends_with(&format!("start the server with --codec {other}")), "{reason}");
        assert!(server.stats().viewers.is_empty());
        let reply = post(offered);
        assert_eq!(reply.status, 201, "{reply:?}");
        assert!(reply.body.contains(&format!("a=rtpmap:108 {}/90000", stream.to_uppercase())), "{}", reply.body);
    }
    let server = Server::start(&["--codec", "h265", "--transport", "webrtc"]);
    let reply = http::request("POST", &server.url("/whep"), Some("application/sdp"), offer(H264).as_bytes());
    let expected = "this stream is H.265, which the viewer did not offer: start the server with --codec h264";
    assert_eq!(reply.error(), expected, "without RTSP there is one way");
}

#[test]
fn chromium_without_h265_is_told_so() {
    let server = Server::start(&["--codec", "h265"]);
    let runtime = Runtime::new().expect("a runtime");
    let proxy = Proxy::start(&runtime, server.address, PAGE, None);
    let mut browser = Browser::open(&proxy.url("/?frames=1"));
    let result = until("the page's result", 2 * wait::START, || {
        assert!(browser.is_running(), "chromium has ended");
        proxy.results().into_iter().next()
    });
    // Headless and without a GPU it cannot decode H.265. One that can is answered.
    let refused = "this stream is H.265, which the viewer did not offer";
    assert!(result["error"].to_string().contains(refused) || result["codec"] == "video/H265", "{result:#}");
}

#[test]
fn h265_on_standard_input_goes_through_untouched() {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let mut command = Command::new(program("ffmpeg", "ffmpeg"));
    command
        .args([
            "-hide_banner",
            "-loglevel",
            "error",
            "-nostdin",
            "-re",
            "-f",
            "lavfi",
            "-i",
            "testsrc2=size=640x360:rate=25",
        ])
        .args(["-t", "6", "-c:v", "libx265", "-preset", "ultrafast", "-tune", "zerolatency", "-pix_fmt", "yuv420p"])
        .args(["-x265-params", "log-level=none:keyint=25:min-keyint=25:scenecut=0:repeat-headers=1", "-f", "hevc", "-"])
        .stdin(Stdio::null())
        .stdout(writer);
    let mut camera = Reaped(command.spawn().expect("ffmpeg starts"));
    // The command holds the writing end as well, and the server would wait for it.
    drop(command);
    let mut server = Server::start_with_input(&["--source", "stdin", "--codec", "h265"], reader);
    let runtime = Runtime::new().expect("a runtime");
    let watcher = Watcher::start(&runtime, &["--url", &server.url("/whep")]);
    watcher.wait_for_shots(20);
    assert_eq!(watcher.shots()[0].resolution, Resolution::new(640, 360));
    assert_eq!(server.stats().streams[0].encoder, "passthrough");
    assert_eq!(server.process.wait(wait::START), 0, "the end of its input is the end of the server");
    camera.0.wait().expect("ffmpeg ends");
    watcher.stop(&runtime);
}

#[test]
fn an_encoder_of_the_other_codec_is_a_mistake_that_is_named() {
    let mut server = server_process(&["--codec", "h265", "--encoder", "x264enc"]);
    assert_eq!(server.wait(wait::START), 2, "{}", server.stderr());
    let message = server.stderr();
    assert!(message.contains("--encoder x264enc does not work (it encodes H.264, and --codec is h265)"), "{message}");
    assert!(message.contains("those that work here: x265enc"), "{message}");
}

/// Ends with the test.
struct Reaped(std::process::Child);

impl Drop for Reaped {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
