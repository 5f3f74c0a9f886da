//! Streams that ffmpeg publishes into the server: `--source publish`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rov_common::codec::Codec;
use rov_tests::jpeg;
use rov_tests::media::Clip;
use rov_tests::odd_camera::{Habits, Marks, OddCamera};
use rov_tests::process::{Process, program};
use rov_tests::programs::{Client, Server};
use rov_tests::relay::{as_of, bunched, slow_link};
use rov_tests::rtsp::{Connection, Player};
use rov_tests::wait::{self, until_true};
use rov_tests::watcher::Watcher;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use url::Url;

/// Clips with a keyframe each second, to publish.
struct Clips(TempDir);

impl Clips {
    fn new() -> Self {
        Self(TempDir::new().expect("a temporary folder"))
    }

    /// In MP4: the parameter sets are in the announcement alone.
    fn write(&self, name: &str, clip: Clip) -> PathBuf {
        let file = self.0.path().join(name);
        clip.write(&file);
        file
    }
}

fn server(args: &[&str]) -> (Server, String) {
    let server = Server::start(&[&["--source", "publish", "--rtsp-path", "/ES_MTX"], args].concat());
    let url = server.rtsp.clone().expect("an RTSP address");
    let (base, _) = url.rsplit_once('/').expect("a path");
    let url = format!("{base}/ES_MTX");
    (server, url)
}

/// The command of the mission, which goes on until it is ended.
fn publish(file: &Path, url: &str, more: &[&str]) -> Process {
    publish_at(1.0, file, url, more)
}

/// As [`publish`], `speed` times as fast as the time stamps say.
fn publish_at(speed: f64, file: &Path, url: &str, more: &[&str]) -> Process {
    let mut command = Command::new(program("ffmpeg", "ffmpeg"));
    command.args(["-hide_banner", "-nostdin", "-loglevel", "error", "-readrate", &speed.to_string()]);
    command.args(["-stream_loop", "-1", "-i"]).arg(file);
    command.args(["-c", "copy"]).args(more).args(["-f", "rtsp", url]);
    Process::spawn("ffmpeg", &mut command)
}

fn reason(server: &Server) -> String {
    let (status, health) = server.health();
    let reason = health.streams.into_values().find_map(|stream| stream.reason);
    if status == 200 { String::new() } else { reason.unwrap_or_default() }
}

fn until_reason(server: &Server, text: &str) {
    until_true(&format!("the reason {text:?}"), wait::START, || reason(server).contains(text));
}

#[test]
fn what_is_published_is_a_camera_beside_others() {
    let clips = Clips::new();
    let file = clips.0.path().join("rov.toml");
    let cameras = "[[camera]]\nname = 'bow'\n[[camera]]\nname = 'tip'\nsource = 'publish'\n";
    std::fs::write(&file, cameras).expect("a file");
    let server = Server::start(&["--config", file.to_str().expect("a path of plain characters")]);
    let url = server.rtsp.clone().expect("an RTSP address");
    let clip = clips.write("clip.mp4", Clip { audio: false, ..Clip::default() });
    let mut other = publish(&clip, &url, &[]);
    assert_ne!(other.wait(wait::START), 0, "the first camera's path");
    server.process.logs(&["publish to /tip/stream1"]);
    let _publisher = publish(&clip, &url.replace("/stream1", "/tip/stream1"), &[]);
    let sizes = || -> Vec<_> { server.stats().streams.iter().map(|stream| stream.width).collect() };
    until_true("test picture and clip", wait::START, || sizes() == [320, 640]);
}

#[test]
fn what_is_published_is_shown_by_every_output_and_comes_back_while_viewers_stay() {
    let clips = Clips::new();
    let (server, url) = server(&[]);
    until_reason(&server, "nobody publishes");
    assert!(reason(&server).contains("/ES_MTX"), "{}", reason(&server));
    let with_sound = clips.write("sound.mp4", Clip::default());
    let publisher = publish(&with_sound, &url, &[]);
    server.wait_until_running();
    assert_eq!(server.stats().streams[0].reason, None);
    let mut client = Client::start(&["--url", &server.url("/whep")]);
    let before = client.wait_for_frames(0, 30);
    let player = Player::start(&url, "tcp");
    player.next_shots(30);
    assert_eq!(jpeg::get(server.address, "/snapshot.jpg").status, 200);
    let stats = server.stats();
    assert_eq!((stats.streams[0].encoder.as_str(), stats.streams[0].restarts), ("passthrough", 0));
    drop(publisher);
    until_reason(&server, "nobody publishes");
    server.process.logs(&["the RTSP publisher has gone"]);
    // Another size, by the other way.
    let other = clips.write("other.mp4", Clip { size: "320x240", audio: false, ..Clip::default() });
    let _publisher = publish(&other, &url, &["-rtsp_transport", "tcp"]);
    server.wait_until_running();
    player.next_shots(30);
    let after = client.wait_for_frames(client.report().map_or(before.frames_shown, |report| report.frames_shown), 30);
    let stats = server.stats();
    assert_eq!((after.sessions, stats.streams[0].restarts, stats.streams[0].width), (1, 0, 320), "{after:?}");
    assert_eq!(stats.rtsp.map(|rtsp| rtsp.clients), Some(1), "the same player");
}

#[test]
fn a_second_publisher_is_refused_until_the_first_sends_nothing() {
    let clips = Clips::new();
    let (server, url) = server(&["--max-viewers", "1"]);
    let file = clips.write("clip.mp4", Clip::default());
    let first = publish(&file, &url, &["-rtsp_transport", "tcp"]);
    server.wait_until_running();
    let mut second = publish(&file, &url, &[]);
    assert_ne!(second.wait(wait::START), 0);
    assert!(
        second.stderr().contains("403") && second.stderr().contains("is publishing already"),
        "{}",
        second.stderr()
    );
    let player = Player::start(&url, "udp");
    player.next_shots(20);
    // It hangs, and keeps its connection.
    first.signal(libc::SIGSTOP);
    until_reason(&server, "sends no pictures");
    let _third = publish(&file, &url, &["-rtsp_transport", "tcp"]);
    server.wait_until_running();
    player.next_shots(20);
    server.process.logs(&["another publisher has come"]);
}

#[test]
fn a_publisher_of_another_machine_is_said_to_who_watches() {
    let (clips, runtime) = (Clips::new(), Runtime::new().expect("a runtime"));
    let (server, url) = server(&[]);
    let file = clips.write("clip.mp4", Clip::default());
    let first = publish(&file, &url, &["-rtsp_transport", "tcp"]);
    server.wait_until_running();
    let watcher = Watcher::start(&runtime, &["--url", &server.url("/whep")]);
    watcher.wait_for_shots(10);
    assert_eq!(server.stats().streams[0].notice, None);
    assert!(server.stats().streams[0].source.contains(" from 127.0.0.1:"), "{:?}", server.stats().streams[0].source);
    drop(first);
    until_reason(&server, "nobody publishes");
    let mut other = Url::parse(&url).expect("a URL");
    other.set_port(Some(as_of([127, 0, 0, 2].into(), other.port().expect("a port")))).expect("a host");
    let _second = publish(&file, other.as_str(), &["-rtsp_transport", "tcp"]);
    let news = "127.0.0.2 publishes the pictures now, not 127.0.0.1 as before";
    until_true("who watches is told", wait::START, || watcher.notices() == [news]);
    assert_eq!(server.health().1.streams["stream1"].notice.as_deref(), Some(news));
    watcher.stop(&runtime);
}

#[test]
fn a_publisher_stays_when_the_server_has_stood_still() {
    let clips = Clips::new();
    let (server, url) = server(&[]);
    let file = clips.write("clip.mp4", Clip::default());
    let _publisher = publish(&file, &url, &["-rtsp_transport", "tcp"]);
    server.wait_until_running();
    server.process.signal(libc::SIGSTOP);
    // Not waited for anything: a machine may stand still for so long.
    std::thread::sleep(Duration::from_secs(7));
    server.process.signal(libc::SIGCONT);
    let before = server.stats().streams[0].frames;
    until_true("pictures", wait::START, || server.stats().streams[0].frames > before + 250);
    assert!(!server.process.stderr().contains("published nothing"), "{}", server.process.stderr());
}

#[test]
fn a_publisher_that_hangs_is_disconnected_in_the_end() {
    let clips = Clips::new();
    let (server, url) = server(&[]);
    let file = clips.write("clip.mp4", Clip::default());
    let publisher = publish(&file, &url, &[]);
    server.wait_until_running();
    publisher.signal(libc::SIGSTOP);
    until_reason(&server, "sends no pictures");
    server.process.logs(&["it has published nothing for 5 s"]);
    until_reason(&server, "nobody publishes");
    assert_eq!(server.stats().streams[0].restarts, 0);
}

/// As of a camera in dim water; with and without sound, and where some pictures come together.
#[test]
fn by_tcp_a_publisher_that_delivers_fewer_pictures_than_it_stamps_is_no_slow_link() {
    let stays = |audio: bool, hold: Option<Duration>| {
        let clips = Clips::new();
        let (server, url) = server(&[]);
        let file = clips.write("clip.mp4", Clip { fps: 30, audio, ..Clip::default() });
        let port = Url::parse(&url).ok().and_then(|url| url.port()).expect("a port");
        let way = hold.map_or(port, |hold| bunched(port, hold));
        let url = url.replace(&port.to_string(), &way.to_string());
        let mut publisher = publish_at(0.4, &file, &url, &["-rtsp_transport", "tcp"]);
        server.wait_until_running();
        // Where the socket is not looked at, it is disconnected after 6.4 s, which is 77 pictures; where pauses do not
        // count, those that come ten at a time are after 12 s.
        until_true("pictures of 16 s", wait::START, || {
            assert!(publisher.is_running(), "{audio} {hold:?}: {}", server.process.stderr());
            server.stats().streams[0].frames >= 12 * 16
        });
        let log = server.process.stderr();
        assert_eq!(log.matches("an RTSP publisher has begun").count(), 1, "{audio} {hold:?}: {log}");
        assert!(!log.contains("an RTSP client is disconnected"), "{audio} {hold:?}: {log}");
    };
    std::thread::scope(|ways| {
        let (short, long) = (Duration::from_millis(200), Duration::from_millis(800));
        for (audio, hold) in
            [(false, None), (true, None), (false, Some(short)), (true, Some(short)), (true, Some(long))]
        {
            ways.spawn(move || stays(audio, hold));
        }
    });
}

/// TCP loses nothing: each picture would be older than the one before, and look live.
#[test]
fn by_tcp_a_publisher_behind_a_slow_link_is_told_and_disconnected() {
    for audio in [false, true] {
        let clips = Clips::new();
        let (server, url) = server(&[]);
        let clip = Clip { audio, ..Clip::default() };
        let file = clips.write("clip.mp4", clip);
        let size = file.metadata().expect("its size").len();
        let port = Url::parse(&url).ok().and_then(|url| url.port()).expect("a port");
        let slow = slow_link(port, 0.6 * size as f64 / f64::from(clip.seconds));
        let url = url.replace(&port.to_string(), &slow.to_string());
        let mut publisher = publish(&file, &url, &["-rtsp_transport", "tcp"]);
        assert_ne!(publisher.wait(wait::START), 0);
        server.process.logs(&["its link is slower than its stream"]);
    }
}

#[test]
fn a_publisher_of_a_picture_in_two_seconds_is_not_silent_between_them() {
    let clips = Clips::new();
    let (server, url) = server(&[]);
    let file = clips.write("rare.mp4", Clip { fps: 1, seconds: 8, gop: 4, audio: false, ..Clip::default() });
    let _publisher = publish_at(0.5, &file, &url, &[]);
    let pictures = || server.stats().streams[0].frames;
    until_true("pictures, by which their distance is known", wait::START, || pictures() >= 3);
    server.wait_until_running();
    until_true("four pictures more", wait::START, || {
        assert!(server.is_well(), "{}", reason(&server));
        pictures() >= 7
    });
}

/// A publisher's connection up to RECORD, with H.264 by this Transport; and what it is answered to SETUP.
fn record(url: &str, transport: &str) -> (Connection, String) {
    const SDP: &str = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=video 0 RTP/AVP \
                       96\r\n\
                       a=rtpmap:96 H264/90000\r\na=control:streamid=0\r\n";
    let mut publisher = Connection::open(url);
    let body = format!("Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{SDP}", SDP.len());
    assert_eq!(publisher.request("ANNOUNCE", "", body.trim_end_matches("\r\n")).status, 200);
    let reply = publisher.request("SETUP", "/streamid=0", &format!("Transport: {transport};mode=record\r\n"));
    assert_eq!(reply.status, 200, "{reply:?}");
    let session = reply.head.split("Session: ").nth(1).and_then(|rest| rest.split([';', '\r']).next());
    let session = format!("Session: {}\r\n", session.expect("a session"));
    assert_eq!(publisher.request("RECORD", "", &session).status, 200);
    (publisher, reply.head)
}

#[test]
fn how_a_publisher_sends_is_known_by_the_transport_that_it_gets() {
    let (server, url) = server(&[]);
    let (_publisher, answer) = record(&url, "rtp/avp/tcp;unicast;interleaved=0-1");
    assert!(answer.contains("RTP/AVP/TCP"), "{answer}");
    server.process.logs(&["transport=\"TCP\""]);
}

#[test]
fn an_access_unit_of_a_publisher_is_what_has_one_time_stamp_whatever_its_marker_bits_say() {
    let (server, url) = server(&[]);
    let camera = OddCamera::start(Habits { marks: Marks::EveryNal, slices: 4, ..Habits::default() });
    // Nothing is sent back to its ports.
    let (_publisher, answer) = record(&url, "RTP/AVP;unicast;client_port=9-10");
    let port = answer.split("server_port=").nth(1).and_then(|rest| rest.split('-').next()?.parse().ok());
    camera.send_rtp(port.expect("the server's port"));
    let frames = || server.stats().streams[0].frames;
    until_true("pictures", wait::START, || frames() >= 60);
    let (shown, sent) = (frames(), camera.sent());
    assert!(shown <= sent, "{shown} of {sent} pictures");
}

#[test]
fn after_a_packet_of_a_publisher_was_lost_the_server_goes_on_at_the_next_keyframe() {
    let (server, url) = server(&[]);
    let camera = OddCamera::start(Habits::default());
    let (_publisher, answer) = record(&url, "RTP/AVP;unicast;client_port=9-10");
    let port = answer.split("server_port=").nth(1).and_then(|rest| rest.split('-').next()?.parse().ok());
    camera.send_rtp(port.expect("the server's port"));
    camera.loses_packets(&server);
}

#[test]
fn publishing_needs_the_password_where_there_is_one() {
    let clips = Clips::new();
    let (server, url) = server(&["--user", "pilot", "--password", "deep sea"]);
    let file = clips.write("clip.mp4", Clip::default());
    let mut stranger = publish(&file, &url, &[]);
    assert_ne!(stranger.wait(wait::START), 0);
    assert!(stranger.stderr().contains("401"), "{}", stranger.stderr());
    let _publisher = publish(&file, &url.replacen("rtsp://", "rtsp://pilot:deep%20sea@", 1), &[]);
    server.wait_until_running();
}

#[test]
fn what_cannot_be_shown_is_refused_with_the_reason() {
    let clips = Clips::new();
    let (server, url) = server(&["--codec", "h265"]);
    let file = clips.write("clip.mp4", Clip::default());
    let mut wrong = publish(&file, &url, &[]);
    assert_ne!(wrong.wait(wait::START), 0);
    assert!(wrong.stderr().contains("415") && wrong.stderr().contains("--codec h264"), "{}", wrong.stderr());
    server.process.logs(&["announced is H264 video and MPEG4-GENERIC audio"]);
    let mut nowhere = publish(&file, &url.replace("ES_MTX", "nowhere"), &[]);
    assert_ne!(nowhere.wait(wait::START), 0);
    assert!(nowhere.stderr().contains("404") && nowhere.stderr().contains("/ES_MTX"), "{}", nowhere.stderr());
}

#[test]
fn a_publisher_with_b_frames_is_told_and_disconnected() {
    let clips = Clips::new();
    let (server, url) = server(&[]);
    let file = clips.write("reordered.mp4", Clip { b_frames: 2, ..Clip::default() });
    let mut publisher = publish(&file, &url, &["-rtsp_transport", "tcp"]);
    assert_ne!(publisher.wait(wait::START), 0);
    server.process.logs(&["has B-frames"]);
    until_reason(&server, "nobody publishes");
    let good = clips.write("clip.mp4", Clip::default());
    let _publisher = publish(&good, &url, &[]);
    server.wait_until_running();
}

#[test]
fn h265_is_published_too() {
    let clips = Clips::new();
    let (server, url) = server(&["--codec", Codec::H265.to_string().as_str()]);
    let file = clips.0.path().join("h265.mp4");
    let mut encode = Command::new(program("ffmpeg", "ffmpeg"));
    encode.args([
        "-hide_banner",
        "-nostdin",
        "-loglevel",
        "error",
        "-f",
        "lavfi",
        "-i",
        "testsrc2=size=320x240:rate=25",
    ]);
    encode.args(["-t", "2", "-c:v", "libx265", "-preset", "ultrafast", "-pix_fmt", "yuv420p"]);
    encode.args(["-x265-params", "bframes=0:keyint=25:log-level=error"]).arg(&file);
    assert_eq!(Process::spawn("ffmpeg", &mut encode).wait(wait::START), 0);
    let _publisher = publish(&file, &url, &[]);
    server.wait_until_running();
    let mut player = Command::new(program("ffmpeg", "ffmpeg"));
    player.args(["-nostdin", "-loglevel", "error", "-rtsp_transport", "tcp", "-i", &url]);
    player.args(["-frames:v", "20", "-f", "null", "-"]);
    let mut player = Process::spawn("ffmpeg", &mut player);
    assert_eq!(player.wait(wait::START), 0, "{}", player.stderr());
}
