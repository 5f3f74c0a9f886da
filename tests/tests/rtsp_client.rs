//! The client and RTSP cameras.

use std::time::{Duration, Instant};

use rov_client::viewer::Phase;
use rov_tests::camera::{Camera, Settings};
use rov_tests::programs::{Client, client_process};
use rov_tests::refusing::Refusing;
use rov_tests::relay::{firewall, slow_link};
use rov_tests::wait::{self, until_true};
use rov_tests::watcher::{Order, Watcher};
use tokio::runtime::Runtime;

const VIDEO: &str = "videotestsrc is-live=true pattern=black ! \
                     video/x-raw,format=I420,width=320,height=240,framerate=30/1 ! identity name=mark ! \
                     x264enc tune=zerolatency speed-preset=ultrafast threads=1 key-int-max=15";

/// A camera with parameter sets in the stream, sound, and what an ONVIF camera has beside.
fn usual() -> String {
    format!(
        "( audiotestsrc is-live=true ! alawenc ! rtppcmapay name=pay0 pt=8 {VIDEO} ! rtph264pay name=pay1 pt=97 \
         config-interval=-1 )"
    )
}

fn url_with_user(camera: &Camera, user: &str) -> String {
    camera.url.replace("rtsp://", &format!("rtsp://{user}@"))
}

#[test]
fn a_camera_is_shown_by_udp_and_where_that_is_impossible_by_tcp() {
    let runtime = Runtime::new().expect("a runtime");
    for (tcp_only, by) in [(false, "RTSP over UDP"), (true, "RTSP over TCP")] {
        let camera = Camera::with(&usual(), Settings { tcp_only, ..Settings::default() });
        let watcher = Watcher::start(&runtime, &["--url", &camera.url]);
        watcher.wait_for_shots(60);
        let report = watcher.report();
        assert_eq!((report.packets_lost, watcher.skipped_in_time(), report.sessions), (0, 0, 1), "{report:?}");
        assert_eq!((report.transport.as_str(), watcher.transport().as_str()), ("rtsp", by));
        let shots = watcher.shots();
        let order = Order::of(&shots);
        assert_eq!((order.read, order.out_of_order), (shots.len(), 0), "{order:?}");
        // Of it the camera's encoder and clock take one picture's time. A jitter buffer that holds every packet would
        // take 200 ms or more.
        let is_prompt = || watcher.best_latency() < Duration::from_millis(150);
        until_true(&format!("a picture without delay {by}"), wait::START, is_prompt);
        println!("{by}: from mark to shown, at best {:?}", watcher.best_latency());
        watcher.stop(&runtime);
    }
}

#[test]
fn where_a_firewall_swallows_udp_it_comes_by_tcp_soon() {
    let runtime = Runtime::new().expect("a runtime");
    let camera = Camera::start(&usual());
    let port = firewall(port_of(&camera.url));
    let begun = Instant::now();
    let watcher = Watcher::start(&runtime, &["--url", &format!("rtsp://127.0.0.1:{port}/cam")]);
    watcher.wait_for_shots(1);
    println!("the first picture after {:?}", begun.elapsed());
    watcher.wait_for_shots(20);
    assert_eq!((watcher.transport().as_str(), watcher.report().sessions), ("RTSP over TCP", 1));
    watcher.stop(&runtime);
}

/// TCP loses nothing where the link is too slow: each picture would be older than the one before, and look live.
#[test]
fn by_a_link_that_is_too_slow_pictures_do_not_grow_older_and_older() {
    let runtime = Runtime::new().expect("a runtime");
    // With many keyframes: what is too late is not shown, so that a session shows its first pictures alone.
    let video = VIDEO
        .replace("pattern=black", "pattern=snow")
        .replace("threads=1", "threads=1 bitrate=2000")
        .replace("key-int-max=15", "key-int-max=3");
    let launch = format!("( {video} ! rtph264pay name=pay0 pt=96 config-interval=-1 )");
    let camera = Camera::with(&launch, Settings { tcp_only: true, ..Settings::default() });
    // Of the 250 KB a second that it sends.
    let port = slow_link(camera.port, 170_000.0);
    // What it sees too late is this machine's own.
    let beside = Watcher::start(&runtime, &["--url", &camera.url]);
    beside.wait_for_shots(1);
    let watcher = Watcher::start(&runtime, &["--url", &format!("rtsp://127.0.0.1:{port}/cam")]);
    let mut reason = String::new();
    until_true("the reason", wait::START, || {
        if let Phase::Lost(text) = watcher.phase() {
            reason = text;
        }
        reason.contains("is slower than its stream")
    });
    let of_the_next = || watcher.shots().iter().filter(|shot| shot.session > 1).count();
    until_true("pictures of the next session", wait::START, || of_the_next() >= 5);
    // One second, what is added in the one for which that must last, and what a busy machine adds.
    let oldest = |watcher: &Watcher| watcher.shots().iter().filter_map(|shot| shot.latency).max();
    let (oldest, busy) = (oldest(&watcher), oldest(&beside).expect("marks"));
    println!("the oldest {oldest:?}, by a good link {busy:?}");
    assert!(oldest.is_some_and(|oldest| oldest < Duration::from_millis(2_000) + 2 * busy), "{oldest:?} {busy:?}");
    watcher.stop(&runtime);
    beside.stop(&runtime);
}

fn port_of(url: &str) -> u16 {
    url.trim_start_matches("rtsp://127.0.0.1:").trim_end_matches("/cam").parse().expect("a port")
}

#[test]
fn parameter_sets_that_are_in_the_sdp_alone_are_enough() {
    // In this format they are not in the stream.
    let launch = format!("( {VIDEO} ! video/x-h264,stream-format=avc ! rtph264pay name=pay0 pt=96 config-interval=0 )");
    let camera = Camera::start(&launch);
    let runtime = Runtime::new().expect("a runtime");
    let watcher = Watcher::start(&runtime, &["--url", &camera.url]);
    watcher.wait_for_shots(40);
    let report = watcher.report();
    assert_eq!((report.packets_lost, report.sessions), (0, 1), "{report:?}");
    watcher.stop(&runtime);
}

#[test]
fn the_password_of_the_url_opens_the_camera_and_is_never_said() {
    for digest in [false, true] {
        let settings = Settings { user: Some(("pilot", "s@/?#cret", digest)), ..Settings::default() };
        let camera = Camera::with(&usual(), settings);
        let mut client = Client::start(&["-v", "--url", &url_with_user(&camera, "pilot:s%40/?#cret")]);
        let report = client.wait_for_frames(0, 10);
        let written = format!("{report:?} {} {}", client.process.stdout(), client.process.stderr());
        assert!(!written.contains("cret"), "{written}");
        drop(client);
        for (user, message) in [("", "wants a user name and a password"), ("pilot:wrong", "refused the user name")] {
            let url = if user.is_empty() { camera.url.clone() } else { url_with_user(&camera, user) };
            let mut client = client_process(&["--headless", "--url", &url]);
            assert_eq!(client.wait(wait::START), 2, "{}", client.stderr());
            assert!(client.stderr().contains(message), "{}", client.stderr());
            assert!(!client.stderr().contains("wrong"), "{}", client.stderr());
        }
    }
}

#[test]
fn a_password_that_is_refused_in_the_middle_of_a_dive_is_tried_rarely() {
    let camera = Camera::start(&usual());
    let port = camera.port;
    let runtime = Runtime::new().expect("a runtime");
    let watcher = Watcher::start(&runtime, &["--url", &url_with_user(&camera, "pilot:deep")]);
    watcher.wait_for_shots(5);
    drop(camera);
    let camera = Refusing::start(port, &["Basic realm=\"cam\""]);
    let mut reason = String::new();
    until_true("the reason", wait::START, || {
        if let Phase::Lost(text) = watcher.phase() {
            reason = text;
        }
        reason.contains("next attempt in 30 s")
    });
    println!("{reason}");
    // The former session says goodbye, over a new connection where it noticed the end of the other.
    std::thread::sleep(Duration::from_secs(2));
    assert!((1..=3).contains(&camera.attempts()), "{:#?}", camera.requests());
    watcher.stop(&runtime);
}

#[test]
fn a_camera_that_is_busy_for_a_moment_is_tried_again_soon() {
    let settings = Settings { user: Some(("pilot", "deep", true)), tcp_only: true, ..Settings::default() };
    let camera = Camera::with(&usual(), settings);
    let (port, url) = (camera.port, url_with_user(&camera, "pilot:deep"));
    let runtime = Runtime::new().expect("a runtime");
    let watcher = Watcher::start(&runtime, &["--url", &url]);
    watcher.wait_for_shots(5);
    drop(camera);
    let busy = Refusing::forbidding(port, &["Digest realm=\"cam\", nonce=\"1\""]);
    until_true("it is tried again soon", wait::SOON, || busy.attempts() > 2);
    drop(busy);
    let _camera = Camera::with(&usual(), Settings { port, ..settings });
    watcher.wait_for_shots(watcher.shown() + 5);
    watcher.stop(&runtime);
}

#[test]
fn a_redirection_uses_up_no_attempt_and_one_in_circles_ends() {
    let settings = Settings { user: Some(("pilot", "deep", true)), ..Settings::default() };
    let camera = Camera::with(&usual(), settings);
    let second = Refusing::redirecting(Some(&camera.url));
    let first = Refusing::redirecting(Some(&format!("rtsp://127.0.0.1:{}/cam", second.port)));
    let url = |port: u16| format!("rtsp://pilot:deep@127.0.0.1:{port}/cam");
    let mut client = Client::start(&["--url", &url(first.port)]);
    client.wait_for_frames(0, 10);
    assert_eq!((first.attempts(), second.attempts()), (1, 1));
    let circle = Refusing::redirecting(None);
    let mut client = client_process(&["--headless", "--no-wait", "--url", &url(circle.port)]);
    assert_eq!(client.wait(wait::START), 3, "{}", client.stderr());
    assert!(client.stderr().contains("redirects again and again"), "{}", client.stderr());
}

#[test]
fn what_a_camera_does_not_have_is_said() {
    let sound = Camera::start("( audiotestsrc is-live=true ! alawenc ! rtppcmapay name=pay0 pt=8 )");
    let nowhere = sound.url.replace("/cam", "/nowhere");
    let password_in_path = sound.url.replace("/cam", "/nowhere/user=admin&password=deep");
    let gone = {
        let closed = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its address");
        format!("rtsp://{closed}/cam")
    };
    for (url, code, message) in [
        (&sound.url, 2, "has no H.264, H.265 or MJPEG video at /cam, only audio PCMA"),
        (&nowhere, 3, "has nothing at /nowhere (404)"),
        (&password_in_path, 3, "has nothing at /nowhere/user... (404)"),
        (&gone, 3, "does not answer by RTSP: "),
    ] {
        let mut client = client_process(&["--headless", "--no-wait", "--url", url]);
        assert_eq!(client.wait(wait::START), code, "{}", client.stderr());
        assert!(client.stderr().contains(message), "{}", client.stderr());
        assert!(!client.stderr().contains("deep"), "{}", client.stderr());
    }
}

#[test]
fn a_camera_that_knows_a_password_only_gets_it() {
    let camera = Camera::with(&usual(), Settings { user: Some(("", "s@cret", true)), ..Settings::default() });
    Client::start(&["--url", &url_with_user(&camera, ":s%40cret")]).wait_for_frames(0, 10);
    Client::start_with_password("s@cret", &["--user", "", "--url", &camera.url]).wait_for_frames(0, 10);
}

#[test]
fn a_camera_that_goes_away_is_noticed_and_comes_back_by_itself() {
    let runtime = Runtime::new().expect("a runtime");
    let camera = Camera::start(&usual());
    let url = camera.url.clone();
    let port = port_of(&url);
    let watcher = Watcher::start(&runtime, &["--url", &url]);
    watcher.wait_for_shots(5);
    drop(camera);
    until_true("it is noticed", wait::SOON, || watcher.phase() != Phase::Live);
    until_true("the reason", wait::SOON, || matches!(watcher.phase(), Phase::Lost(_)));
    // Attempts in vain.
    std::thread::sleep(Duration::from_millis(1500));
    let _camera = Camera::with(&usual(), Settings { port, ..Settings::default() });
    let shown = watcher.shown();
    watcher.wait_for_shots(shown + 20);
    assert_eq!(watcher.phase(), Phase::Live);
    watcher.stop(&runtime);
}

#[test]
fn a_camera_that_freezes_is_noticed_and_comes_back_by_itself() {
    let runtime = Runtime::new().expect("a runtime");
    // Without sound: nothing comes at all.
    let camera = Camera::start(&format!("( {VIDEO} ! rtph264pay name=pay0 pt=97 config-interval=-1 )"));
    let watcher = Watcher::start(&runtime, &["--url", &camera.url]);
    watcher.wait_for_shots(5);
    camera.freeze(true);
    let waits = || matches!(watcher.phase(), Phase::Waiting(text) if text.contains("no video arrives by RTSP"));
    until_true("the reason", wait::SOON, waits);
    until_true("another session", wait::SOON, || !waits());
    let shown = watcher.shown();
    camera.freeze(false);
    watcher.wait_for_shots(shown + 20);
    until_true("live video", wait::SOON, || watcher.phase() == Phase::Live);
    watcher.stop(&runtime);
}
