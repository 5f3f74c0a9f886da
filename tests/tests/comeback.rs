//! Sources that fail: the viewers stay connected, and the picture is back soon after the source, however long it was
//! gone.

use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer::prelude::*;
use rov_tests::camera::{Camera, Settings};
use rov_tests::http::get;
use rov_tests::programs::Server;
use rov_tests::wait::{self, until_true};
use rov_tests::watcher::Watcher;
use tokio::runtime::Runtime;

/// What the server promises.
const BACK: Duration = Duration::from_secs(2);

const PICTURE: &str = "videotestsrc is-live=true pattern=ball ! \
                       video/x-raw,format=I420,width=320,height=240,framerate=25/1 ! x264enc tune=zerolatency \
                       speed-preset=ultrafast key-int-max=25 threads=1 bitrate=500";

/// Lets the source of a server with these arguments be away for each of `outages`, and sees when the picture comes
/// again. `start` gives the source, which ends when it is dropped.
fn comes_back<T>(args: &[&str], mut source: T, start: impl Fn() -> T, outages: &[u64]) -> Server {
    let begun = Instant::now();
    let server = Server::start(args);
    server.wait_until_running();
    // What a start takes on this machine, as busy as it is.
    let limit = BACK + 2 * begun.elapsed();
    let runtime = Runtime::new().expect("a runtime");
    let watcher = Watcher::start(&runtime, &["--url", &server.url("/whep")]);
    watcher.wait_for_shots(20);
    for seconds in outages {
        drop(source);
        until_true("the loss is noticed", wait::SOON, || server.health().0 == 503);
        // Not waited for anything: a source may be away for so long.
        std::thread::sleep(Duration::from_secs(*seconds));
        let shown = watcher.shown();
        source = start();
        let back = Instant::now();
        until_true("a picture", wait::START, || watcher.shown() > shown);
        println!("after {seconds} s without: back {:?} after the source, allowed {limit:?}", back.elapsed());
        assert!(back.elapsed() < limit, "after {seconds} s without: {:?}, not {limit:?}", back.elapsed());
        watcher.wait_for_shots(shown + 20);
    }
    assert_eq!(watcher.report().sessions, 1, "the viewer stayed connected");
    watcher.stop(&runtime);
    server
}

#[test]
fn an_ip_camera_that_was_away_is_shown_again_at_once() {
    let launch = format!("( {PICTURE} ! rtph264pay name=pay0 config-interval=-1 )");
    let camera = Camera::start(&launch);
    let port = camera.port;
    let url = camera.url.clone();
    let start = || Camera::with(&launch, Settings { port, ..Settings::default() });
    let server = comes_back(&["--source", "rtsp", "--url", &url], camera, start, &[4, 13]);
    let complaints = server.process.stderr().matches("cannot connect to").count();
    assert!((1..=6).contains(&complaints), "{complaints}: it is said once for each outage, and not at each try");
}

/// A pipeline in this process that ends when it is dropped.
struct Feed(gst::Element);

impl Feed {
    fn start(text: &str) -> Self {
        gst::init().expect("GStreamer");
        let pipeline = gst::parse::launch(text).expect("a pipeline");
        pipeline.set_state(gst::State::Playing).expect("it starts");
        Self(pipeline)
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        let _ = self.0.set_state(gst::State::Null);
    }
}

#[test]
fn a_users_pipeline_whose_source_was_away_is_shown_again_at_once() {
    let port = {
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a TCP socket");
        free.local_addr().expect("its address").port()
    };
    let sink = format!("tcpserversink host=127.0.0.1 port={port} sync-method=next-keyframe sync=false");
    let launch = format!("{PICTURE} ! video/x-h264,stream-format=byte-stream ! {sink}");
    let feed = Feed::start(&launch);
    let description = format!("tcpclientsrc host=127.0.0.1 port={port} do-timestamp=true ! h264parse");
    comes_back(&["--pipeline", &description], feed, || Feed::start(&launch), &[4]);
}

#[test]
fn a_camera_that_repeats_its_picture_is_said_and_not_restarted() {
    let part = |pattern: &str, pictures: i32| {
        format!(
            "videotestsrc pattern={pattern} num-buffers={pictures} ! video/x-raw,width=320,height=240,framerate=30/1 ! \
             c. "
        )
    };
    let moves_rests_moves = [part("ball", 60), part("red", 150), part("ball", -1)].concat();
    let description = format!("{moves_rests_moves} concat name=c ! identity");
    let mut server = Server::start(&["--frozen-after", "2", "--pipeline", &description]);
    until_true("it is said", wait::START, || server.stats().streams[0].frozen);
    // The page asks that each second, and for the statistics seldom.
    let clock = server.url("/api/clock");
    assert_eq!(get(&clock).json()["doubts"]["stream1"]["frozen"], true);
    let (status, health) = server.health();
    let reason = health.streams["stream1"].reason.clone().unwrap_or_default();
    assert!(status == 503 && health.status == "degraded" && reason.contains("has not changed"), "{health:?}");
    server.process.wait_for_line("the warning", wait::SOON, |line| line.contains("may have hung").then_some(()));
    until_true("it moves again", wait::START, || !server.stats().streams[0].frozen && server.health().0 == 200);
    assert_eq!(get(&clock).json()["doubts"], serde_json::json!({}));
    assert_eq!(server.stats().streams[0].restarts, 0);
}

#[test]
fn a_picture_that_is_at_rest_on_purpose_is_not_said() {
    let red = "videotestsrc is-live=true pattern=red ! video/x-raw,width=320,height=240,framerate=30/1";
    for source in [["--pipeline", red], ["--source", "test"]] {
        let server = Server::start(&[&["--always-encode", "--frozen-after", "1"], &source[..]].concat());
        until_true("three seconds of it", wait::START, || server.stats().streams[0].frames > 90);
        let stream = &server.stats().streams[0];
        assert!(!stream.frozen && server.health().0 == 200, "{stream:?}");
    }
}
