//! While nobody looks the encoder rests, and whoever comes sees a new picture at once.

use std::time::{Duration, Instant};

use rov_common::api::StreamStats;
use rov_tests::in_process::Serving;
use rov_tests::media::unix_us;
use rov_tests::programs::{Client, Server};
use rov_tests::rtp::free_rtp_port;
use rov_tests::rtsp::Player;
use rov_tests::wait::{self, until_true};
use rov_tests::watcher::Watcher;
use rov_tests::{http, jpeg};
use tokio::runtime::Runtime;

/// A picture from before a rest would be older: what is told from it are the delays of a busy machine.
const REST: Duration = Duration::from_secs(3);

/// A server in this process whose encoder rests sooner.
fn serve(runtime: &Runtime) -> Serving {
    Serving::start(runtime, &["--source", "test", "--width", "320", "--height", "240"], |config| {
        config.cameras[0].streams[0].encode.rest_after = Duration::from_millis(500);
    })
}

fn stream(server: &Server) -> StreamStats {
    server.stats().streams.remove(0)
}

/// Waits until it has rested for [`REST`]: pictures come in all the time, and none go out.
fn rest(server: &Serving) {
    until_true("the encoder rests", wait::START, || server.stream().resting);
    let (since, before) = (Instant::now(), server.stream());
    until_true("it has rested for a while", wait::START, || since.elapsed() > REST && server.stream().fps_in > 10.0);
    let after = server.stream();
    assert_eq!((after.frames, after.keyframes, after.fps_out), (before.frames, before.keyframes, 0.0), "{after:?}");
    assert!(after.resting && !after.frozen && after.restarts == before.restarts, "{after:?}");
    assert!(after.frames_dropped <= before.frames_dropped + 2, "{after:?}");
    let (status, health) = http::health(server.address);
    let stream = &health.streams["stream1"];
    assert!(status == 200 && stream.resting && stream.reason.is_none(), "{health:?}");
}

#[test]
fn a_webrtc_viewer_wakes_the_encoder_and_sees_a_new_picture() {
    let runtime = Runtime::new().expect("a runtime");
    let server = serve(&runtime);
    let url = server.url("/whep");
    for _ in 0..2 {
        rest(&server);
        let watcher = Watcher::start(&runtime, &["--url", &url]);
        watcher.wait_for_shots(30);
        let first = watcher.shots()[0].latency.expect("a mark that can be read");
        assert!(first < REST, "{first:?} old");
        let woken = server.stream();
        assert!(!woken.resting && woken.restarts == 0, "{woken:?}");
        watcher.stop(&runtime);
    }
    server.stop(&runtime);
}

#[test]
fn an_rtsp_player_wakes_the_encoder_and_sees_a_new_picture() {
    let runtime = Runtime::new().expect("a runtime");
    let server = serve(&runtime);
    rest(&server);
    let url = http::stats(server.address).rtsp.expect("RTSP").urls.remove(0);
    let mut player = rov_tests::rtsp::Connection::open(&url);
    assert_eq!(player.request("DESCRIBE", "", "").status, 200, "it is described without a picture");
    assert!(server.stream().resting);
    drop(player);
    let player = Player::start(&url, "tcp");
    let first = player.next_shots(1)[0].latency.expect("a mark that can be read");
    assert!(first < REST, "{first:?} old");
    drop(player);
    rest(&server);
    server.stop(&runtime);
}

#[test]
fn a_snapshot_and_mjpeg_wake_the_encoder_and_show_new_pictures() {
    let runtime = Runtime::new().expect("a runtime");
    let server = serve(&runtime);
    for path in ["/snapshot.jpg", "/stream.mjpg"] {
        rest(&server);
        let asked = unix_us();
        let mut answer = jpeg::get(server.address, path);
        assert_eq!(answer.status, 200, "{path}");
        let picture = match path {
            "/snapshot.jpg" => answer.body(),
            _ => answer.next_part().expect("a picture").0,
        };
        let mark = jpeg::decode(&picture).2.expect("a mark that can be read");
        assert!(mark.time_us + REST.as_micros() as u64 > asked, "{path}: {} us old", asked - mark.time_us);
    }
    server.stop(&runtime);
}

#[test]
fn rov_client_shows_its_first_picture_of_a_server_that_rests() {
    let runtime = Runtime::new().expect("a runtime");
    let server = serve(&runtime);
    rest(&server);
    let mut client = Client::start(&["--url", &server.url("/whep")]);
    let report = client.wait_for_frames(0, 30);
    assert_eq!((report.sessions, report.frames_skipped), (1, 0), "{report:?}");
    drop(client);
    server.stop(&runtime);
}

#[test]
fn a_source_that_falls_silent_is_started_again_while_nobody_looks_and_then_the_encoder_rests_again() {
    let size = "format=I420,width=320,height=240,framerate=30/1";
    let silent_after_ten_seconds = format!(
        "videotestsrc is-live=true num-buffers=300 ! video/x-raw,{size} ! c. \
         udpsrc address=127.0.0.1 port=0 caps=\"video/x-raw,{size}\" ! c. concat name=c ! identity"
    );
    let mut server = Server::start(&["--pipeline", &silent_after_ten_seconds]);
    until_true("the encoder rests", wait::START, || stream(&server).resting);
    assert_eq!(stream(&server).restarts, 0);
    let started = stream(&server).frames;
    until_true("the pipeline is started again", wait::START, || stream(&server).restarts == 1);
    server
        .process
        .wait_for_line("the reason", wait::SOON, |line| line.contains("the source gave no picture").then_some(()));
    until_true("the encoder rests again", wait::START, || stream(&server).resting);
    assert!(stream(&server).frames > started, "it has shown that it works");
}

#[test]
fn with_always_encode_and_with_rtp_the_encoder_never_rests() {
    let port = free_rtp_port().to_string();
    let rtp = ["--transport", "webrtc,rtp", "--interface", "lo", "--rtp-host", "127.0.0.1", "--rtp-port", &port];
    let servers = [Server::start(&["--always-encode"]), Server::start(&rtp)];
    // Longer than the encoder of another would need to rest.
    let other = Server::start(&[]);
    until_true("another rests", wait::START, || stream(&other).resting);
    for server in servers {
        let before = stream(&server);
        assert!(!before.resting, "{before:?}");
        until_true("more pictures", wait::SOON, || stream(&server).frames > before.frames + 15);
    }
}
