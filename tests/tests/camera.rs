//! An IP camera as the source: what it sends goes out untouched, and whatever it does, its picture comes back.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rov_client::receive::webrtc::{Connection, Terms};
use rov_common::api::StreamState;
use rov_common::backoff::REFUSED_MIN;
use rov_common::codec::{self, Codec, NalKind};
use rov_common::sync::lock;
use rov_common::units::Resolution;
use rov_tests::camera::{Camera, FINGERPRINT, Settings};
use rov_tests::namespace;
use rov_tests::process::program;
use rov_tests::programs::{Client, Server, client_process, server_process};
use rov_tests::refusing::Refusing;
use rov_tests::relay::{firewall, slow_link};
use rov_tests::wait::{self, until, until_true};
use rov_tests::watcher::Watcher;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use url::Url;

const PICTURE: &str = "videotestsrc is-live=true pattern=ball ! \
                       video/x-raw,format=I420,width=320,height=240,framerate=25/1 ! x264enc tune=zerolatency \
                       speed-preset=ultrafast key-int-max=25 threads=1 bitrate=500";

/// Parameter sets only in the SDP, and sound beside the picture.
fn with_sound() -> String {
    format!(
        "( audiotestsrc is-live=true ! alawenc ! rtppcmapay name=pay0 pt=8 \
         {PICTURE} ! h264parse ! video/x-h264,stream-format=avc,alignment=au \
         ! rtph264pay name=pay1 pt=96 config-interval=0 aggregate-mode=none )"
    )
}

fn with_tap() -> String {
    format!(
        "( {PICTURE} ! h264parse config-interval=-1 ! video/x-h264,stream-format=byte-stream,alignment=au ! valve \
         name=tap ! rtph264pay name=pay0 )"
    )
}

/// The reason in /healthz, once it is one that says `part`.
fn wait_for_reason(server: &Server, part: &str) -> String {
    until(&format!("a reason with {part:?}: {:?}", server.health()), wait::START, || {
        let (status, health) = server.health();
        let reason = health.streams["stream1"].reason.clone().filter(|reason| reason.contains(part))?;
        (status == 503).then_some(reason)
    })
}

#[test]
fn a_cameras_picture_goes_out_untouched() {
    let camera = Camera::start(&with_tap());
    let server = Server::start(&["--source", "rtsp", "--url", &camera.url]);
    server.wait_until_running();
    assert_untouched(&camera, &server);
}

#[test]
fn a_cameras_picture_goes_out_untouched_beside_a_second_stream_that_is_made_of_it() {
    let camera = Camera::start(&with_tap());
    let server = Server::start(&["--source", "rtsp", "--url", &camera.url, "--stream2", "160x120@10,200"]);
    server.wait_until_running();
    let mut client = Client::start(&["--url", &server.url("/whep/stream2")]);
    let report = client.wait_for_frames(0, 10);
    assert_eq!((report.width, report.height, report.stream.as_str()), (160, 120, "stream2"), "{report:?}");
    assert_untouched(&camera, &server);
    let second = &server.stats().streams[1];
    assert!(second.fps_out < 15.0 && (second.width, second.height) == (160, 120), "{second:?}");
    assert!(second.target_bitrate_kbps <= 200 && second.encoder != "passthrough", "{second:?}");
    let base = server.rtsp.as_deref().and_then(|url| url.strip_suffix("/stream1")).expect("the first stream's address");
    let probe = std::process::Command::new(program("ffprobe", "ffmpeg"))
        .args(["-v", "error", "-show_entries", "stream=codec_name,width,height", "-of", "csv=p=0"])
        .arg(format!("{base}/stream2"))
        .output()
        .expect("ffprobe starts");
    assert_eq!(String::from_utf8_lossy(&probe.stdout).trim(), "h264,160,120", "{probe:?}");
}

/// A keyframe in eight seconds, and the time in each picture.
const RARE_KEYFRAMES: &str = "( videotestsrc is-live=true pattern=black ! \
    video/x-raw,format=I420,width=320,height=240,framerate=25/1 ! identity name=mark ! x264enc tune=zerolatency \
    speed-preset=ultrafast threads=1 key-int-max=200 bframes=0 ! rtph264pay name=pay0 config-interval=-1 )";

#[test]
fn a_second_stream_of_a_camera_rests_and_begins_at_a_keyframe_of_it_which_is_said_until_then() {
    let camera = Camera::start(RARE_KEYFRAMES);
    let server = Server::start(&["--source", "rtsp", "--url", &camera.url, "--stream2", "320x240@25,300"]);
    let streams = || server.stats().streams;
    until_true("the second stream rests", wait::START, || streams()[1].resting);
    let before = streams();
    until_true("the first goes on", wait::START, || streams()[0].frames > before[0].frames + 75);
    let resting = streams();
    assert_eq!((resting[1].frames, resting[1].fps_out), (before[1].frames, 0.0), "{resting:?}");
    assert!(resting[1].resting && resting[1].fps_in > 10.0, "it is watched: {resting:?}");
    // Somebody comes right behind a keyframe.
    let keyframes = resting[0].keyframes;
    until_true("a keyframe", wait::START, || streams()[0].keyframes > keyframes);
    let runtime = Runtime::new().expect("a runtime");
    let watcher = Watcher::start(&runtime, &["--url", &server.url("/whep/stream2")]);
    let said = || server.health().1.streams["stream2"].reason.clone();
    let reason = until("what is waited for", wait::START, || said().filter(|reason| reason.contains("next keyframe")));
    assert!(watcher.shots().is_empty(), "{reason}");
    watcher.wait_for_shots(20);
    let first = watcher.shots()[0].latency.expect("a mark that can be read");
    assert!(first < Duration::from_secs(3), "{first:?} old: from before the rest, or not begun at a keyframe");
    assert_eq!((said(), watcher.report().sessions), (None, 1));
    let after = streams();
    assert!(after.iter().all(|stream| stream.restarts == 0), "{after:?}");
    watcher.stop(&runtime);
}

/// What a viewer gets of the first stream is what the camera has sent.
fn assert_untouched(camera: &Camera, server: &Server) {
    let runtime = Runtime::new().expect("a runtime");
    let received = Arc::new(Mutex::new(Vec::new()));
    let (_keep, keyframe_wanted) = mpsc::channel(1);
    let url = Url::parse(&server.url("/whep")).expect("a URL");
    let sink = Arc::clone(&received);
    let open = Connection::open(
        url,
        Terms::default(),
        Duration::from_millis(100),
        keyframe_wanted,
        |_| {},
        Arc::new(move |packets, _| lock(&sink).extend(packets.map(|packet| packet.payload))),
    );
    let connection = runtime.block_on(open).expect("a connection");
    // Two keyframes at least.
    until_true("packets", wait::START, || lock(&received).len() > 150);
    runtime.block_on(connection.close());
    let sent = camera.sent();
    let sent: HashSet<&[u8]> = sent.iter().flat_map(|unit| codec::nal_units(unit)).collect();
    let received = lock(&received);
    // Single NAL units (RFC 6184 section 5.6), without the parameter sets, in which the server says that nothing is
    // reordered.
    let slices: Vec<_> = received
        .iter()
        .filter(|nal| matches!(Codec::H264.nal_kind(nal), NalKind::Slice | NalKind::KeyframeSlice))
        .collect();
    assert!(slices.len() > 50, "{} slices in {} packets", slices.len(), received.len());
    assert!(slices.iter().all(|slice| sent.contains(&slice[..])), "slices that the camera has not sent");
    let stream = &server.stats().streams[0];
    assert_eq!((stream.encoder.as_str(), stream.width, stream.height), ("passthrough", 320, 240), "{stream:?}");
    assert_eq!(stream.source, format!("camera {}", camera.url));
}

#[test]
fn a_camera_that_has_no_udp_is_taken_by_tcp() {
    let camera = Camera::with(&with_tap(), Settings { tcp_only: true, ..Settings::default() });
    let server = Server::start(&["--source", "rtsp", "--url", &camera.url]);
    server.wait_until_running();
    assert_eq!(server.stats().streams[0].restarts, 0);
}

#[test]
fn a_camera_whose_udp_is_swallowed_is_taken_by_tcp() {
    let camera = Camera::start(&with_sound());
    let url = format!("rtsp://127.0.0.1:{}/cam", firewall(camera.port));
    let server = Server::start(&["--source", "rtsp", "--url", &url]);
    server.wait_until_running();
    assert_eq!(server.stats().streams[0].restarts, 0);
}

#[test]
fn a_camera_that_restarts_comes_back_to_the_same_session_and_its_sound_is_left_out() {
    let camera = Camera::start(&with_sound());
    let (url, port) = (camera.url.clone(), camera.port);
    let server = Server::start(&["--source", "rtsp", "--url", &url]);
    let runtime = Runtime::new().expect("a runtime");
    let watcher = Watcher::start(&runtime, &["--url", &server.url("/whep")]);
    watcher.wait_for_shots(30);
    assert_eq!(watcher.shots()[0].resolution, Resolution::new(320, 240));
    assert_eq!(watcher.report().packets_lost, 0, "{:?}", watcher.report());
    drop(camera);
    let reason = wait_for_reason(&server, "");
    println!("{reason}");
    wait_for_reason(&server, "onnect");
    let camera = Camera::with(&with_sound(), Settings { port, ..Settings::default() });
    server.wait_until_running();
    watcher.wait_for_shots(watcher.shown() + 30);
    assert_eq!(watcher.report().sessions, 1, "the viewer stayed connected");
    assert!(server.stats().streams[0].restarts >= 1);
    watcher.stop(&runtime);
    drop(server);
    drop(camera);
}

#[test]
fn a_camera_that_stops_sending_is_started_again_until_it_sends() {
    let camera = Camera::start(&with_tap());
    let server = Server::start(&["--source", "rtsp", "--url", &camera.url]);
    server.wait_until_running();
    camera.mute(true);
    wait_for_reason(&server, "no picture for");
    // First that it stands still, then that it is started again.
    assert_ne!(server.health().1.streams["stream1"].state, StreamState::Running);
    camera.mute(false);
    server.wait_until_running();
}

/// TCP loses nothing where the link is too slow: each picture would be older than the one before, and look live.
#[test]
fn by_a_link_that_is_too_slow_the_camera_is_started_again_before_its_pictures_grow_old() {
    let snow = "videotestsrc is-live=true pattern=snow ! video/x-raw,format=I420,width=320,height=240,framerate=30/1 \
                ! identity name=mark \
                ! x264enc tune=zerolatency speed-preset=ultrafast threads=1 key-int-max=15 bitrate=2000 \
                ! rtph264pay name=pay0 config-interval=-1";
    let camera = Camera::start(&format!("( {snow} )"));
    // Of 250 KB a second. UDP is tried first, and in vain.
    let url = format!("rtsp://127.0.0.1:{}/cam", firewall(slow_link(camera.port, 160_000.0)));
    let server = Server::start(&["--source", "rtsp", "--url", &url]);
    let runtime = Runtime::new().expect("a runtime");
    // What it sees too late is this machine's own.
    let beside = Watcher::start(&runtime, &["--url", &camera.url]);
    let watcher = Watcher::start(&runtime, &["--url", &server.url("/whep")]);
    let reason = wait_for_reason(&server, "link is slower than its stream");
    let shown = watcher.shown();
    let ages = |from: usize| watcher.shots()[from..].iter().filter_map(|shot| shot.latency).collect::<Vec<_>>();
    let oldest = ages(0).into_iter().max();
    let busy = beside.shots().iter().filter_map(|shot| shot.latency).max().expect("marks");
    println!("{reason}: {oldest:?}, by a good link {busy:?}");
    // One second, what is added in the one for which that must last, and what a busy machine adds.
    assert!(oldest.is_some_and(|oldest| oldest < Duration::from_millis(2_000) + 2 * busy), "{oldest:?} {busy:?}");
    beside.stop(&runtime);
    until_true("a picture that is live", wait::START, || ages(shown).iter().any(|age| age.as_secs() < 1));
    println!("then {:?}", ages(shown).into_iter().min());
    assert_eq!(watcher.report().sessions, 1, "the viewer stayed connected");
    watcher.stop(&runtime);
}

#[test]
fn a_wrong_path_and_a_wrong_password_are_said_and_no_password_is_shown() {
    let camera = Camera::with(&with_tap(), Settings { user: Some(("pilot", "d#ep", true)), ..Settings::default() });
    let with = |access: &str, path: &str| format!("rtsp://{access}127.0.0.1:{}{path}", camera.port);

    let none = Server::start(&["--source", "rtsp", "--url", &with("", "/cam")]);
    let reason = wait_for_reason(&none, "--url rtsp://USER:PASSWORD@");
    println!("{reason}");
    let wrong = Server::start(&["--source", "rtsp", "--url", &with("pilot:sh%61llow@", "/cam"), "-v"]);
    let reason = wait_for_reason(&wrong, "--url rtsp://USER:PASSWORD@");
    println!("{reason}");
    // As it is typed.
    let right = Server::start(&["--source", "rtsp", "--url", &with("pilot:d#ep@", "/cam"), "-v"]);
    right.wait_until_running();
    let astray = Server::start(&["--source", "rtsp", "--url", &with("pilot:d%23ep@", "/cellar"), "-v"]);
    let reason = wait_for_reason(&astray, "look up the path");
    println!("{reason}");
    for server in [&none, &wrong, &right, &astray] {
        let said = format!("{}{:?}{:?}", server.process.stderr(), server.health(), server.stats());
        for secret in ["d%23ep", "d#ep", "sh%61llow", "shallow", "pilot"] {
            assert!(!said.contains(secret), "{secret}: {said}");
        }
    }
}

#[test]
fn a_refused_password_is_tried_rarely() {
    let challenges = &["Digest realm=\"cam\", nonce=\"1\""];
    let cameras = [Refusing::start(0, challenges), Refusing::forbidding(0, challenges)];
    let servers = cameras.each_ref().map(|camera| {
        let url = format!("rtsp://pilot:12#34@127.0.0.1:{}/cam", camera.port);
        Server::start(&["--source", "rtsp", "--url", &url, "-v"])
    });
    for server in &servers {
        let reason = wait_for_reason(server, "next attempt in 30 s");
        assert!(reason.contains("correct --url"), "{reason}");
    }
    std::thread::sleep(Duration::from_secs(2));
    for (camera, server) in cameras.iter().zip(&servers) {
        assert!((1..=2).contains(&camera.attempts()), "{:#?}", camera.requests());
        let said = format!("{}{:?}{:?}", server.process.stderr(), server.health(), server.stats());
        assert!(!said.contains("34@") && !said.contains("12#") && !said.contains("pilot"), "{said}");
        assert!(!said.contains("streaming "), "no picture has come: {said}");
    }
    let [_, forbidding] = &cameras;
    let url = format!("rtsp://pilot:12#34@127.0.0.1:{}/cam", forbidding.port);
    let mut client = client_process(&["--headless", "--url", &url]);
    assert_eq!(client.wait(wait::START), 2, "{}", client.stderr());
    assert!(client.stderr().contains("refused the user name or the password"), "{}", client.stderr());
    // And then more rarely still.
    for server in &servers {
        until_true("the second attempt", REFUSED_MIN + wait::START, || {
            let (_, health) = server.health();
            let reasons = health.streams.into_values().filter_map(|stream| stream.reason);
            reasons.into_iter().any(|reason| reason.contains("next attempt in 60 s"))
        });
    }
}

#[test]
fn a_password_that_was_right_is_tried_again_soon_where_the_camera_is_busy() {
    let settings = Settings { user: Some(("pilot", "deep", true)), tcp_only: true, ..Settings::default() };
    let camera = Camera::with(&with_tap(), settings);
    let port = camera.port;
    let url = format!("rtsp://pilot:deep@127.0.0.1:{port}/cam");
    let server = Server::start(&["--source", "rtsp", "--url", &url]);
    server.wait_until_running();
    drop(camera);
    // As one that still has the session of before, and takes no other.
    let busy = Refusing::forbidding(port, &["Digest realm=\"cam\", nonce=\"1\""]);
    let reason = wait_for_reason(&server, "it took the password before");
    assert!(!reason.contains("correct --url"), "{reason}");
    until_true("it is tried again soon", wait::SOON, || busy.attempts() > 2);
    drop(busy);
    let _camera = Camera::with(&with_tap(), Settings { port, ..settings });
    server.wait_until_running();
}

#[test]
fn a_digest_that_cannot_be_answered_is_named() {
    let camera = Refusing::start(0, &["Digest realm=\"cam\", nonce=\"1\", algorithm=SHA-256"]);
    let url = format!("rtsp://pilot:deep@127.0.0.1:{}/cam", camera.port);
    let server = Server::start(&["--source", "rtsp", "--url", &url]);
    let reason = wait_for_reason(&server, "wants digest authentication with SHA-256");
    println!("{reason}");
    let mut client = client_process(&["--headless", "--url", &url]);
    assert_eq!(client.wait(wait::START), 2, "{}", client.stderr());
    assert!(client.stderr().contains("wants digest authentication with SHA-256"), "{}", client.stderr());
}

#[test]
fn a_digest_that_cannot_be_answered_is_named_by_tls_too() {
    let camera = Refusing::by_tls(&["Digest realm=\"cam\", nonce=\"1\", algorithm=SHA-256"]);
    let url = format!("rtsps://pilot:deep@127.0.0.1:{}/cam", camera.port);
    let pinned = ["--camera-certificate", FINGERPRINT];
    let server = Server::start(&[&["--source", "rtsp", "--url", &url], &pinned[..]].concat());
    wait_for_reason(&server, "wants digest authentication with SHA-256");
    let mut client = client_process(&[&["--headless", "--url", &url], &pinned[..]].concat());
    assert_eq!(client.wait(wait::START), 2, "{}", client.stderr());
    assert!(client.stderr().contains("wants digest authentication with SHA-256"), "{}", client.stderr());
}

#[test]
fn a_certificate_is_taken_by_its_fingerprint_and_named_where_it_is_not_trusted() {
    let camera = Camera::with(&with_tap(), Settings { tls: true, ..Settings::default() });
    let untrusted = Server::start(&["--source", "rtsp", "--url", &camera.url]);
    let reason = wait_for_reason(&untrusted, "certificate not trusted");
    println!("{reason}");
    assert!(reason.contains(FINGERPRINT), "{reason}");
    let other = Server::start(&["--source", "rtsp", "--url", &camera.url, "--camera-certificate", &"0".repeat(64)]);
    wait_for_reason(&other, "certificate not trusted");
    for trust in [FINGERPRINT, "any"] {
        let server = Server::start(&["--source", "rtsp", "--url", &camera.url, "--camera-certificate", trust]);
        server.wait_until_running();
    }
    let mut client = client_process(&["--headless", "--url", &camera.url]);
    assert_eq!(client.wait(wait::START), 2, "{}", client.stderr());
    assert!(client.stderr().contains("certificate not trusted"), "{}", client.stderr());
    let mut client = Client::start(&["--url", &camera.url, "--camera-certificate", FINGERPRINT]);
    client.wait_for_frames(0, 10);
}

#[test]
fn by_tls_the_port_is_322_where_none_is_given() {
    if !namespace::is_inside("by_tls_the_port_is_322_where_none_is_given") {
        return;
    }
    let _camera = Camera::with(&with_tap(), Settings { tls: true, port: 322, ..Settings::default() });
    let url = ["--url", "rtsps://127.0.0.1/cam", "--camera-certificate", FINGERPRINT];
    let server = Server::start(&[&["--source", "rtsp"][..], &url].concat());
    server.wait_until_running();
    Client::start(&url).wait_for_frames(0, 10);
}

/// None of these is an option, and what is said of it may get into a log.
#[test]
fn what_is_typed_in_the_wrong_place_is_not_repeated_with_its_password() {
    for arg in ["rtsp://pilot:12#34@10.0.0.3/cam", "--uri=rtsp://pilot:12/34@10.0.0.3/cam"] {
        let mut server = server_process(&[arg, "--no-such-option"]);
        assert_eq!(server.wait(wait::START), 2);
        let mut client = client_process(&[arg, "--no-such-option"]);
        assert_eq!(client.wait(wait::START), 2);
        for said in [server.stderr(), client.stderr()] {
            assert!(!said.is_empty() && !said.contains("34@") && !said.contains("pilot"), "{said}");
        }
    }
}

#[test]
fn a_camera_without_the_wanted_video_says_what_it_offers() {
    let camera = Camera::start("( audiotestsrc is-live=true ! alawenc ! rtppcmapay name=pay0 pt=8 )");
    let server = Server::start(&["--source", "rtsp", "--url", &camera.url]);
    let reason = wait_for_reason(&server, "PCMA audio");
    println!("{reason}");
}

#[test]
fn a_camera_with_b_frames_is_refused_until_it_is_set_up_otherwise() {
    // Without a profile the payloader would have the encoder make none.
    let b_frames = with_tap()
        .replace("tune=zerolatency speed-preset=ultrafast", "speed-preset=veryfast bframes=2 b-adapt=false")
        .replace("bitrate=500", "bitrate=500 ! video/x-h264,profile=high");
    let camera = Camera::start(&b_frames);
    let (url, port) = (camera.url.clone(), camera.port);
    let server = Server::start(&["--source", "rtsp", "--url", &url]);
    let reason = wait_for_reason(&server, "B-frames");
    assert!(reason.contains("set up the camera otherwise"), "{reason}");
    drop(camera);
    let _camera = Camera::with(&with_tap(), Settings { port, ..Settings::default() });
    server.wait_until_running();
}
