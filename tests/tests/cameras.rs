//! Several cameras and several streams of one, in one server.

use std::time::Duration;

use rov_common::api::{StreamState, StreamStats};
use rov_common::units::Resolution;
use rov_tests::camera::{Camera, Settings};
use rov_tests::jpeg;
use rov_tests::programs::Server;
use rov_tests::rtsp::Player;
use rov_tests::wait::{self, until_true};
use rov_tests::watcher::{Shot, Watcher};
use tokio::runtime::Runtime;

const PICTURE: &str = "videotestsrc is-live=true pattern=ball \
                       ! video/x-raw,format=I420,width=192,height=144,framerate=25/1 \
                       ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=25 threads=1 bitrate=500";

fn stream(server: &Server, name: &str) -> StreamStats {
    let streams = server.stats().streams;
    streams.into_iter().find(|stream| stream.name == name).unwrap_or_else(|| panic!("there is no stream {name}"))
}

/// Until a viewer has seen so many pictures more of this size.
fn sees(watcher: &Watcher, size: Resolution, count: usize) {
    let before = watcher.shown();
    watcher.wait_for_shots(before + count);
    let shots = watcher.shots();
    assert!(shots[before..].iter().all(|shot| shot.resolution == size), "{size}: {:?}", shots.last());
}

#[test]
fn each_stream_of_each_camera_is_shown_and_a_camera_that_is_lost_leaves_the_others_alone() {
    let launch = format!("( {PICTURE} ! rtph264pay name=pay0 config-interval=-1 )");
    let camera = Camera::start(&launch);
    let port = camera.port;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("rov.toml");
    let text = format!(
        "[[camera]]\nname = 'bow'\n[[camera.stream]]\n\
         [[camera.stream]]\nname = 'small'\nadaptive = 'off'\nwidth = 160\nheight = 120\nfps = 15\n\
         [[camera]]\nname = 'arm'\nsource = 'rtsp'\nurl = '{}'\n\
         [[camera]]\nname = 'hand'\nsource = 'pipeline'\npipeline = 'videotestsrc is-live=true pattern=ball'\n\
         [[camera.stream]]\nadaptive = 'off'\nwidth = 256\nheight = 192\n",
        camera.url
    );
    std::fs::write(&path, text).expect("a file");
    let server = Server::start(&["--adaptive", "off", "--config", path.to_str().expect("a name in UTF-8")]);
    server.wait_until_running();

    let runtime = Runtime::new().expect("a runtime");
    let sizes =
        [("stream1", (320, 240)), ("small", (160, 120)), ("arm/stream1", (192, 144)), ("hand/stream1", (256, 192))]
            .map(|(name, (width, height))| (name, Resolution::new(width, height)));
    let watchers = sizes.map(|(name, size)| {
        let watcher = Watcher::start(&runtime, &["--url", &server.url(&format!("/whep/{name}"))]);
        (watcher, size)
    });
    for (watcher, size) in &watchers {
        sees(watcher, *size, 10);
    }
    for (name, size) in sizes {
        let picture = jpeg::get(server.address, &format!("/snapshot.jpg?stream={name}")).body();
        let (width, height, _) = jpeg::decode(&picture);
        assert_eq!((width, height), (size.width as usize, size.height as usize), "{name}");
    }

    drop(camera);
    until_true("the loss of the camera is noticed", wait::START, || {
        stream(&server, "arm/stream1").state == StreamState::Restarting
    });
    for (watcher, size) in watchers.iter().filter(|(_, size)| *size != sizes[2].1) {
        sees(watcher, *size, 30);
    }
    let _camera = Camera::with(&launch, Settings { port, ..Settings::default() });
    sees(&watchers[2].0, sizes[2].1, 10);
    for (name, _) in sizes {
        let stream = stream(&server, name);
        assert_eq!((stream.state, stream.restarts > 0), (StreamState::Running, name == "arm/stream1"), "{stream:?}");
    }
    for (watcher, size) in watchers {
        assert_eq!(watcher.report().sessions, 1, "{size}: the viewer stayed connected");
        watcher.stop(&runtime);
    }
}

#[test]
fn a_second_stream_rests_while_nobody_looks_at_it() {
    let server = Server::start(&["--adaptive", "off", "--stream2", "160x120@15,300,main"]);
    let runtime = Runtime::new().expect("a runtime");
    let first = Watcher::start(&runtime, &["--url", &server.url("/whep")]);
    sees(&first, Resolution::new(320, 240), 10);
    let resting = || stream(&server, "stream2").resting;
    until_true("the second stream rests", wait::START, resting);
    let before = stream(&server, "stream2").frames;
    sees(&first, Resolution::new(320, 240), 30);
    assert_eq!(stream(&server, "stream2").frames, before);

    let address = server.rtsp.as_ref().expect("RTSP").replace("/stream1", "/stream2");
    let second = Player::start(&address, "tcp");
    second.next_shots(10);
    let stats = stream(&server, "stream2");
    assert_eq!((stats.width, stats.height, stats.resting, stats.target_bitrate_kbps), (160, 120, false, 300));
    drop(second);
    until_true("it rests again", wait::START, resting);
    sees(&first, Resolution::new(320, 240), 10);
    let main = stream(&server, "stream1");
    assert!(!main.resting && main.restarts == 0 && main.state == StreamState::Running, "{main:?}");
    first.stop(&runtime);
}

/// The longest time between two pictures that were shown.
fn worst_gap(shots: &[Shot]) -> Duration {
    let gaps = shots.windows(2).map(|pair| pair[1].shown_at.duration_since(pair[0].shown_at));
    gaps.max().expect("pictures")
}

/// A machine that is busy makes gaps before and after; what a camera's end does to another one it does each time, so
/// that one round without is enough.
#[test]
fn a_camera_that_hangs_or_is_killed_makes_no_gap_in_the_pictures_of_another() {
    /// Pictures before and at least as many after, three seconds.
    const WINDOW: usize = 90;
    const MORE: Duration = Duration::from_millis(50);
    const ROUNDS: usize = 6;
    let marked = PICTURE.replace("! x264enc", "! identity name=mark ! x264enc");
    let marked = marked.replace("width=192,height=144", "width=320,height=240");
    let launch = format!("( {marked} ! rtph264pay name=pay0 config-interval=-1 )");
    let mut camera = Camera::start(&launch);
    let port = camera.port;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("rov.toml");
    let text = format!(
        "[[camera]]\nname = 'bow'\n[[camera]]\nname = 'arm'\nsource = 'rtsp'\nfrozen-after = 0\nurl = '{}'\n",
        camera.url
    );
    std::fs::write(&path, text).expect("a file");
    let server = Server::start(&["--adaptive", "off", "--config", path.to_str().expect("a name in UTF-8")]);
    server.wait_until_running();
    let runtime = Runtime::new().expect("a runtime");
    let watcher = Watcher::start(&runtime, &["--url", &server.url("/whep")]);
    for way in ["hangs", "is killed"] {
        let mut more = (0..ROUNDS).map(|_| {
            let runs = || stream(&server, "arm/stream1").state == StreamState::Running;
            until_true("the other camera gives pictures", wait::START, runs);
            watcher.wait_for_shots(watcher.shown() + WINDOW);
            let ends = watcher.shown();
            match way {
                "hangs" => camera.freeze(true),
                _ => drop(std::mem::replace(&mut camera, Camera::start(&launch))),
            }
            until_true("its end is noticed", wait::START, || !runs());
            watcher.wait_for_shots(ends + WINDOW);
            let shots = watcher.shots();
            match way {
                "hangs" => camera.freeze(false),
                _ => camera = Camera::with(&launch, Settings { port, ..Settings::default() }),
            }
            let (before, after) = (worst_gap(&shots[ends - WINDOW..ends]), worst_gap(&shots[ends - 1..]));
            eprintln!("a camera {way}: longest gap of the other {before:?} before, {after:?} after");
            after.saturating_sub(before)
        });
        assert!(more.any(|more| more <= MORE), "a camera {way}: each time a longer gap in the pictures of the other");
    }
    let bow = stream(&server, "stream1");
    assert_eq!((bow.restarts, watcher.report().sessions), (0, 1), "{bow:?}");
    watcher.stop(&runtime);
}
